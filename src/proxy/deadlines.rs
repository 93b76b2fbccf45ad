//! One tick a thread for every deadline: a connection holds one slot with two limits, and no timer of its own.
//!
//! A slot's deadline is the earlier of its *phase* (waiting for a head, for a first byte, for progress) and its *total*
//! (the whole request). Setting one is a store; the tick scans a dense array. Deadlines fire up to one tick late.
//! A slot may also run on a canary, and then ends when that version's time is over.

use super::worker::Local;
use crate::routing::{ServiceId, VersionId};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// How often deadlines are looked at.
pub const TICK: Duration = Duration::from_millis(100);

/// No deadline.
const NEVER: u32 = u32::MAX;

#[derive(Default)]
struct Table {
    /// The earlier of both limits, in ticks; dense, because the tick reads all of it.
    at: Vec<u32>,
    wakers: Vec<Option<Waker>>,
    /// What runs on a canary.
    on_canary: Vec<Option<OnCanary>>,
    /// How many do.
    canaries: usize,
    free: Vec<usize>,
}

/// A request on a version that may be revoked. By positions, so that it costs no locked instruction.
struct OnCanary {
    local: Rc<Local>,
    service: ServiceId,
    version: VersionId,
}

impl OnCanary {
    fn is_over(&self, now_ms: u64) -> bool {
        let version = self.local.version(self.service, self.version);
        let generation = self.local.in_force.generation;
        version.is_some_and(|version| version.revoked.is_over(now_ms, generation))
    }
}

/// The deadlines of one thread.
#[derive(Default)]
pub struct Deadlines {
    table: RefCell<Table>,
    now: Cell<u32>,
    /// Milliseconds of uptime.
    now_ms: Cell<u64>,
}

impl Deadlines {
    /// A slot without deadlines; given back when it is dropped.
    pub fn slot(self: &Rc<Self>) -> Slot {
        let mut table = self.table.borrow_mut();
        let index = table.free.pop().unwrap_or_else(|| {
            table.at.push(NEVER);
            table.wakers.push(None);
            table.on_canary.push(None);
            table.at.len() - 1
        });
        Slot {
            deadlines: Rc::clone(self),
            index,
            phase: Cell::new(NEVER),
            total: Cell::new(NEVER),
            on_canary: Cell::new(false),
        }
    }

    /// It is `now_ms`, in milliseconds of uptime: wakes whoever is late. Told by the clock rather than counted, so that
    /// ticks that a busy thread missed do not stretch deadlines.
    pub fn tick(&self, now_ms: u64) {
        let now = u32::try_from(u128::from(now_ms) / TICK.as_millis()).unwrap_or(NEVER - 1);
        self.now.set(now.min(NEVER - 1));
        self.now_ms.set(now_ms);
        self.wake_up_to(self.now.get());
        self.wake_revoked(now_ms);
    }

    /// Wakes everybody: something else than a deadline has come.
    pub fn wake_all(&self) {
        self.wake_up_to(NEVER);
    }

    fn wake_up_to(&self, limit: u32) {
        let mut late = Vec::new();
        {
            let mut table = self.table.borrow_mut();
            let Table { at, wakers, .. } = &mut *table;
            for (at, waker) in at.iter().zip(wakers.iter_mut()) {
                if *at <= limit && waker.is_some() {
                    late.extend(waker.take());
                }
            }
        }
        late.into_iter().for_each(Waker::wake);
    }

    fn wake_revoked(&self, now_ms: u64) {
        let mut table = self.table.borrow_mut();
        if table.canaries == 0 {
            return;
        }
        let Table { on_canary, wakers, .. } = &mut *table;
        let revoked = on_canary.iter().zip(wakers.iter_mut());
        let revoked = revoked.filter(|(on, _)| on.as_ref().is_some_and(|on| on.is_over(now_ms)));
        let late: Vec<Waker> = revoked.filter_map(|(_, waker)| waker.take()).collect();
        drop(table);
        late.into_iter().for_each(Waker::wake);
    }

    /// The tick at which something `after` from now is late: never early, at most one tick late.
    fn tick_after(&self, after: Duration) -> u32 {
        let ticks = after.as_millis().div_ceil(TICK.as_millis()).saturating_add(1);
        u32::try_from(ticks).unwrap_or(NEVER).saturating_add(self.now.get())
    }
}

/// Which limit was passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expired {
    Phase,
    Total,
    /// The version it runs on was revoked, and what was in flight has had its time.
    Revoked,
}

/// One connection's deadlines.
pub struct Slot {
    deadlines: Rc<Deadlines>,
    index: usize,
    phase: Cell<u32>,
    total: Cell<u32>,
    /// Whether the table knows of a canary.
    on_canary: Cell<bool>,
}

impl Slot {
    /// The current phase must make progress within `after`.
    pub fn set_phase(&self, after: Duration) {
        self.phase.set(self.deadlines.tick_after(after));
        self.store();
    }

    /// As [`Slot::set_phase`], unless the phase's deadline is sooner anyway; whether it was not.
    pub fn shorten_phase(&self, after: Duration) -> bool {
        let sooner = self.deadlines.tick_after(after) < self.phase.get();
        if sooner {
            self.set_phase(after);
        }
        sooner
    }

    /// Nothing is waited for: only the total counts.
    pub fn clear_phase(&self) {
        self.phase.set(NEVER);
        self.store();
    }

    /// The whole request must end within `after`.
    pub fn set_total(&self, after: Duration) {
        self.total.set(self.deadlines.tick_after(after));
        self.store();
    }

    /// As [`Slot::set_total`], unless the total's deadline is sooner anyway.
    pub fn shorten_total(&self, after: Duration) {
        if self.deadlines.tick_after(after) < self.total.get() {
            self.set_total(after);
        }
    }

    /// No total from here on; the phase stays.
    pub fn clear_total(&self) {
        self.total.set(NEVER);
        self.store();
    }

    /// What goes on from here runs on this canary, and ends when that is revoked.
    pub fn runs_on_canary(&self, local: &Rc<Local>, service: ServiceId, version: VersionId) {
        self.off_canary();
        let mut table = self.deadlines.table.borrow_mut();
        let Table {
            on_canary, canaries, ..
        } = &mut *table;
        if let Some(on_canary) = on_canary.get_mut(self.index) {
            let local = Rc::clone(local);
            *on_canary = Some(OnCanary {
                local,
                service,
                version,
            });
            *canaries += 1;
            self.on_canary.set(true);
        }
    }

    /// What goes on from here runs on no canary.
    pub fn off_canary(&self) {
        if !self.on_canary.replace(false) {
            return;
        }
        let mut table = self.deadlines.table.borrow_mut();
        let Table {
            on_canary, canaries, ..
        } = &mut *table;
        let left = on_canary.get_mut(self.index).and_then(Option::take);
        *canaries -= usize::from(left.is_some());
    }

    /// The limit that is passed, if one is.
    pub fn expired(&self) -> Option<Expired> {
        let now = self.deadlines.now.get();
        if self.total.get() <= now {
            Some(Expired::Total)
        } else if self.phase.get() <= now {
            Some(Expired::Phase)
        } else if self.on_canary.get() && self.is_revoked() {
            Some(Expired::Revoked)
        } else {
            None
        }
    }

    fn is_revoked(&self) -> bool {
        let table = self.deadlines.table.borrow();
        let on_canary = table.on_canary.get(self.index).and_then(Option::as_ref);
        on_canary.is_some_and(|on| on.is_over(self.deadlines.now_ms.get()))
    }

    /// `future`, or the limit that passed first. What is ready is taken, however late.
    pub async fn guard<F: Future>(&self, future: F) -> Result<F::Output, Expired> {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|context| self.poll_guarded(future.as_mut(), context)).await
    }

    /// One poll of [`Slot::guard`].
    fn poll_guarded<F: Future>(
        &self,
        future: Pin<&mut F>,
        context: &mut Context<'_>,
    ) -> Poll<Result<F::Output, Expired>> {
        if let Poll::Ready(output) = future.poll(context) {
            return Poll::Ready(Ok(output));
        }
        if let Some(expired) = self.expired() {
            return Poll::Ready(Err(expired));
        }
        self.register(context.waker());
        Poll::Pending
    }

    /// The tick wakes this task when its deadline passes.
    pub fn register(&self, waker: &Waker) {
        if let Some(held) = self.deadlines.table.borrow_mut().wakers.get_mut(self.index)
            && !held.as_ref().is_some_and(|held| held.will_wake(waker))
        {
            *held = Some(waker.clone());
        }
    }

    fn store(&self) {
        if let Some(at) = self.deadlines.table.borrow_mut().at.get_mut(self.index) {
            *at = self.phase.get().min(self.total.get());
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.off_canary();
        let mut table = self.deadlines.table.borrow_mut();
        if let Some(at) = table.at.get_mut(self.index) {
            *at = NEVER;
        }
        if let Some(waker) = table.wakers.get_mut(self.index) {
            *waker = None;
        }
        table.free.push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::Role;
    use crate::telemetry::fixture::{self, V};

    fn ticks(deadlines: &Deadlines, n: u32) {
        let now = deadlines.now.get();
        (1..=n).for_each(|tick| deadlines.tick(100 * u64::from(now + tick)));
    }

    #[tokio::test]
    async fn a_phase_expires_not_before_its_time_and_at_most_a_tick_after() {
        let deadlines = Rc::new(Deadlines::default());
        let slot = deadlines.slot();
        slot.set_phase(Duration::from_secs(1));
        ticks(&deadlines, 10);
        assert_eq!(slot.expired(), None);
        ticks(&deadlines, 1);
        assert_eq!(slot.guard(std::future::pending::<()>()).await, Err(Expired::Phase));
        slot.set_phase(Duration::from_secs(1));
        assert_eq!(slot.expired(), None);
    }

    #[tokio::test]
    async fn what_is_ready_is_taken_however_late() {
        let deadlines = Rc::new(Deadlines::default());
        let slot = deadlines.slot();
        slot.set_total(Duration::ZERO);
        ticks(&deadlines, 5);
        assert_eq!(slot.guard(std::future::ready(7)).await, Ok(7));
        assert_eq!(slot.expired(), Some(Expired::Total));
    }

    #[test]
    fn a_phase_is_shortened_and_never_lengthened_by_shorten() {
        let deadlines = Rc::new(Deadlines::default());
        let slot = deadlines.slot();
        slot.set_phase(Duration::from_secs(1));
        slot.shorten_phase(Duration::from_secs(9));
        ticks(&deadlines, 11);
        assert_eq!(slot.expired(), Some(Expired::Phase));
    }

    #[test]
    fn a_total_is_shortened_once_and_never_put_off() {
        let deadlines = Rc::new(Deadlines::default());
        let slot = deadlines.slot();
        for _ in 0..3 {
            slot.shorten_total(Duration::from_millis(200));
            assert_eq!(slot.expired(), None);
            ticks(&deadlines, 1);
        }
        assert_eq!(slot.expired(), Some(Expired::Total));
    }

    #[test]
    fn slots_are_reused_and_a_dropped_one_wakes_nobody() {
        let deadlines = Rc::new(Deadlines::default());
        let first = deadlines.slot();
        first.set_phase(Duration::ZERO);
        let index = first.index;
        drop(first);
        let second = deadlines.slot();
        assert_eq!(second.index, index);
        ticks(&deadlines, 3);
        assert_eq!(second.expired(), None);
        assert_eq!(deadlines.table.borrow().at.len(), 1);
    }

    #[test]
    fn a_duration_of_years_is_no_deadline_rather_than_a_past_one() {
        let deadlines = Rc::new(Deadlines::default());
        let slot = deadlines.slot();
        slot.set_phase(Duration::MAX);
        ticks(&deadlines, 100);
        assert_eq!(slot.expired(), None);
    }

    /// A process killed from its first moment, and its one canary.
    fn killed() -> (Rc<Local>, ServiceId, VersionId) {
        let versions = [V("v1", Role::Stable, 1, &[]), V("v2", Role::Canary, 1, &[])];
        let mut in_force = fixture::in_force(1, 1, &[("shop", &versions)]);
        in_force.traffic.killed = true;
        let shared = fixture::shared(in_force, 1);
        (Rc::new(Local::new(shared.load(), None)), ServiceId(0), VersionId(1))
    }

    #[tokio::test]
    async fn what_runs_on_a_revoked_canary_ends_after_the_drain() {
        let deadlines = Rc::new(Deadlines::default());
        let (local, service, canary) = killed();
        let drain = local.in_force.snapshot.services[0].kill_drain.unwrap();
        let (on_canary, elsewhere, left) = (deadlines.slot(), deadlines.slot(), deadlines.slot());
        on_canary.runs_on_canary(&local, service, canary);
        on_canary.runs_on_canary(&local, service, canary);
        left.runs_on_canary(&local, service, canary);
        left.off_canary();
        deadlines.tick(drain.as_millis() as u64 - 1);
        assert_eq!(on_canary.expired(), None);
        let waiting = on_canary.guard(std::future::pending::<()>());
        let later = async { deadlines.tick(drain.as_millis() as u64) };
        assert_eq!(
            tokio::join!(waiting, later).0,
            Err(Expired::Revoked),
            "the tick wakes it"
        );
        assert_eq!((elsewhere.expired(), left.expired()), (None, None));
        drop(on_canary);
        assert_eq!(deadlines.table.borrow().canaries, 0);
    }
}

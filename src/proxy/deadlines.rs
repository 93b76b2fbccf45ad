//! One tick a thread for every deadline: a connection holds one slot with two limits, and no timer of its own.
//!
//! A slot's deadline is the earlier of its *phase* (waiting for a head, for a first byte, for progress) and its *total*
//! (the whole request). Setting one is a store; the tick scans a dense array. Deadlines fire up to one tick late.

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
    free: Vec<usize>,
}

/// The deadlines of one thread.
#[derive(Default)]
pub struct Deadlines {
    table: RefCell<Table>,
    now: Cell<u32>,
}

impl Deadlines {
    /// A slot without deadlines; given back when it is dropped.
    pub fn slot(self: &Rc<Self>) -> Slot {
        let mut table = self.table.borrow_mut();
        let index = table.free.pop().unwrap_or_else(|| {
            table.at.push(NEVER);
            table.wakers.push(None);
            table.at.len() - 1
        });
        Slot {
            deadlines: Rc::clone(self),
            index,
            phase: Cell::new(NEVER),
            total: Cell::new(NEVER),
        }
    }

    /// So much time has passed since the first tick: wakes whoever is late. Told by the clock rather than counted, so that
    /// ticks that a busy thread missed do not stretch deadlines.
    pub fn tick(&self, since_first: Duration) {
        let now = u32::try_from(since_first.as_millis() / TICK.as_millis()).unwrap_or(NEVER - 1);
        self.now.set(now.min(NEVER - 1));
        self.wake_up_to(self.now.get());
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
}

/// One connection's deadlines.
pub struct Slot {
    deadlines: Rc<Deadlines>,
    index: usize,
    phase: Cell<u32>,
    total: Cell<u32>,
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

    /// No total from here on; the phase stays.
    pub fn clear_total(&self) {
        self.total.set(NEVER);
        self.store();
    }

    /// The limit that is passed, if one is.
    pub fn expired(&self) -> Option<Expired> {
        let now = self.deadlines.now.get();
        if self.total.get() <= now {
            Some(Expired::Total)
        } else if self.phase.get() <= now {
            Some(Expired::Phase)
        } else {
            None
        }
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

    fn ticks(deadlines: &Deadlines, n: u32) {
        let now = deadlines.now.get();
        (1..=n).for_each(|tick| deadlines.tick(TICK * (now + tick)));
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
}

//! What one thread of the data plane owns: nothing here is shared with another thread, so nothing is locked.

use super::accept::{FIRST_GRACE, Stage};
use super::deadlines::{Deadlines, Slot, TICK};
use super::handshakes::Handshakes;
use super::mirror::Copies;
use super::upstream::{IdlePool, Multiplexed};
use crate::config::snapshot::Listener;
use crate::http1::{FieldIndex, HeadParser};
use crate::routing::{CookieKey, Facts, ServiceId, VersionId};
use crate::shared::{Cached, InForce, Pool, RetryBudget, ServiceInForce, Shared, ThreadStats, VersionInForce};
use crate::telemetry::access_log::LogShard;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Ticks between two sweeps of idle upstream connections.
const SWEEP_TICKS: u32 = 10;

/// See [`Worker::may_warn`].
const WARN_EVERY: Duration = Duration::from_secs(1);

/// Indexes of heads kept for reuse.
const KEPT_INDEXES: usize = 64;

/// What is in force, with what this thread keeps beside it.
pub struct Local {
    pub in_force: Arc<InForce>,
    /// By service and version.
    budgets: Box<[Box<[RefCell<RetryBudget>]>]>,
}

impl Local {
    /// The settings of the listener at this position.
    pub fn listener(&self, listener: usize) -> Option<&Listener> {
        self.in_force.listeners.get(listener).map(|listener| &listener.spec)
    }

    pub fn service(&self, service: ServiceId) -> Option<&ServiceInForce> {
        self.in_force.services.get(service.0 as usize)
    }

    pub fn version(&self, service: ServiceId, version: VersionId) -> Option<&VersionInForce> {
        self.service(service)?.versions.get(version.0 as usize)
    }

    pub fn budget(&self, service: ServiceId, version: VersionId) -> Option<&RefCell<RetryBudget>> {
        self.budgets.get(service.0 as usize)?.get(version.0 as usize)
    }

    /// A pool that stays keeps its budget: reloads do not refill it.
    pub(super) fn new(in_force: Arc<InForce>, previous: Option<&Local>) -> Self {
        let before: HashMap<*const Pool, &RefCell<RetryBudget>> = previous
            .iter()
            .flat_map(|previous| previous.in_force.services.iter().zip(&previous.budgets))
            .flat_map(|(service, budgets)| service.versions.iter().zip(budgets))
            .map(|(version, budget)| (Arc::as_ptr(&version.pool), budget))
            .collect();
        let carried = |pool: &Arc<Pool>| before.get(&Arc::as_ptr(pool)).map(|budget| budget.take());
        let budgets = in_force
            .services
            .iter()
            .map(|service| {
                let budget = |version: &VersionInForce| RefCell::new(carried(&version.pool).unwrap_or_default());
                service.versions.iter().map(budget).collect()
            })
            .collect();
        Self { in_force, budgets }
    }
}

/// One thread of the data plane.
pub struct Worker {
    pub index: usize,
    pub shared: Arc<Shared>,
    /// This thread's own: nobody else writes them.
    pub stats: Arc<ThreadStats>,
    cached: RefCell<Cached>,
    local: RefCell<Rc<Local>>,
    pub deadlines: Rc<Deadlines>,
    pub idle: RefCell<IdlePool>,
    pub multiplexed: RefCell<Multiplexed>,
    pub handshakes: RefCell<Handshakes>,
    pub copies: Copies,
    random: RefCell<fastrand::Rng>,
    pub log: RefCell<Option<LogShard>>,
    date: RefCell<Box<str>>,
    indexes: RefCell<Vec<FieldIndex>>,
    ticks: Cell<u32>,
    /// At most one tick old.
    recently: Cell<Instant>,
    warned: Cell<Option<Instant>>,
    stage: Cell<Stage>,
}

impl Worker {
    /// `most_idle`: idle upstream connections kept, of HTTP/1.1 and of HTTP/2 each.
    pub fn new(
        index: usize,
        shared: Arc<Shared>,
        stats: Arc<ThreadStats>,
        log: Option<LogShard>,
        most_idle: usize,
    ) -> Rc<Self> {
        Rc::new(Self {
            index,
            stats,
            cached: RefCell::new(shared.cached()),
            local: RefCell::new(Rc::new(Local::new(shared.load(), None))),
            shared,
            deadlines: Rc::default(),
            idle: RefCell::new(IdlePool::new(most_idle)),
            multiplexed: RefCell::new(Multiplexed::new(most_idle)),
            handshakes: RefCell::default(),
            copies: Copies::default(),
            random: RefCell::new(fastrand::Rng::new()),
            log: RefCell::new(log),
            date: RefCell::new(http_date()),
            indexes: RefCell::default(),
            ticks: Cell::new(0),
            recently: Cell::new(Instant::now()),
            warned: Cell::new(None),
            stage: Cell::new(Stage::Serving),
        })
    }

    /// What is in force at this moment. A request asks once and keeps the answer.
    pub fn local(&self) -> Rc<Local> {
        let mut cached = self.cached.borrow_mut();
        let in_force = cached.load();
        let mut local = self.local.borrow_mut();
        if !Arc::ptr_eq(in_force, &local.in_force) {
            *local = Rc::new(Local::new(Arc::clone(in_force), Some(&local)));
        }
        Rc::clone(&local)
    }

    /// Stopping, or another process has taken over: answers close their connections.
    pub fn answers_close(&self) -> bool {
        self.shared.answers_close()
    }

    /// No new connections any more: idle ones close, too, and those that were never asked anything soon.
    pub fn is_closing(&self) -> bool {
        self.stage.get() >= Stage::Closing
    }

    /// Tunnels have had their time, too: there is left what it takes to say goodbye.
    pub fn is_leaving(&self) -> bool {
        self.stage.get() >= Stage::Leaving
    }

    /// Everything in flight has had its time.
    pub fn is_ending(&self) -> bool {
        self.stage.get() >= Stage::Ending
    }

    /// `slot` waits for the first request of its connection: from [`Worker::is_closing`] on only for [`FIRST_GRACE`].
    pub fn hurry(&self, slot: &Slot) {
        if self.is_closing() {
            let limits = &self.local().in_force.snapshot.limits;
            slot.shorten_total(FIRST_GRACE.min(limits.drain_timeout / 2));
        }
    }

    /// Now, or up to a tick ago: without asking the clock.
    pub fn recently(&self) -> Instant {
        self.recently.get()
    }

    /// Whether what any peer can bring about may be told in the log: at most once in [`WARN_EVERY`].
    pub fn may_warn(&self) -> bool {
        let now = self.recently();
        let may = self.warned.get().is_none_or(|at| now.duration_since(at) >= WARN_EVERY);
        if may {
            self.warned.set(Some(now));
        }
        may
    }

    /// The process has come to this stage: whoever waits looks what that means for it.
    pub fn enter(&self, stage: Stage) {
        self.stage.set(stage);
        self.deadlines.wake_all();
    }

    /// 64 bits nobody needs to be unable to guess.
    pub fn draw(&self) -> u64 {
        self.random.borrow_mut().u64(..)
    }

    /// 128 bits nobody needs to be unable to guess.
    pub fn draw_id(&self) -> u128 {
        self.random.borrow_mut().u128(..)
    }

    /// A parser for one head, with room from a head read before.
    pub fn head_parser(&self) -> HeadParser {
        let mut parser = HeadParser::new();
        if let Some(index) = self.indexes.borrow_mut().pop() {
            parser.recycle(index);
        }
        parser
    }

    /// Takes back the room of a head that is not needed any more.
    pub fn recycle(&self, head: impl Into<FieldIndex>) {
        let mut indexes = self.indexes.borrow_mut();
        if indexes.len() < KEPT_INDEXES {
            indexes.push(head.into());
        }
    }

    /// The value of a `Date` field, at most a second old.
    pub fn date(&self) -> std::cell::Ref<'_, str> {
        std::cell::Ref::map(self.date.borrow(), |date| &**date)
    }

    /// The thread's one timer, until it is dropped.
    pub async fn run_ticks(self: Rc<Self>) {
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            interval.tick().await;
            self.tick();
        }
    }

    fn tick(&self) {
        self.recently.set(Instant::now());
        self.deadlines.tick(self.shared.uptime_ms_at(self.recently()));
        if let Some(log) = self.log.borrow_mut().as_mut() {
            log.flush();
        }
        self.multiplexed.borrow().tick();
        let ticks = self.ticks.get().wrapping_add(1);
        self.ticks.set(ticks);
        if ticks.is_multiple_of(SWEEP_TICKS) {
            *self.date.borrow_mut() = http_date();
            // A thread without requests lets go of what is no longer in force, too.
            drop(self.local());
            self.idle.borrow_mut().sweep(self.recently());
            self.multiplexed.borrow_mut().sweep(self.recently());
        }
    }
}

fn http_date() -> Box<str> {
    httpdate::fmt_http_date(SystemTime::now()).into()
}

/// The facts of one decision.
pub struct Moment<'a> {
    pub worker: &'a Worker,
    pub local: &'a Local,
    /// Milliseconds of uptime.
    pub now_ms: u64,
}

impl Facts for Moment<'_> {
    fn now_s(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    }

    fn turn(&self, service: ServiceId, rule: Option<u32>) -> u64 {
        let Some(service) = self.local.service(service) else {
            return 0;
        };
        let sequence = match rule {
            Some(rule) => service.rule_turns.get(rule as usize).unwrap_or(&service.turn),
            None => &service.turn,
        };
        sequence.fetch_add(1, Ordering::Relaxed)
    }

    fn usable(&self, service: ServiceId, version: VersionId) -> bool {
        self.local
            .version(service, version)
            .is_some_and(|version| version.pool.usable(self.now_ms))
    }

    fn cookie_key(&self) -> &CookieKey {
        &self.local.in_force.cookie_key
    }

    /// From the kernel's generator, through the thread's own buffer-free path: an id is also who the user is.
    fn fresh_id(&self) -> u128 {
        let mut bytes = [0; 16];
        match ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes) {
            Ok(()) => u128::from_le_bytes(bytes),
            Err(_) => self.worker.draw_id(),
        }
    }
}

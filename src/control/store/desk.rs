//! Where orders wait for the thread that writes, and where whoever gave them is answered.

use super::outbox::OutboxEntry;
use super::secret::Secret;
use crate::control::event_log::Event;
use crate::runtime::State;
use std::collections::VecDeque;
use std::fs::File;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Orders that may wait. When there are more, the oldest two become one.
const WAITING: usize = 64;

/// Events that may wait for a disk that does not take them; the oldest ones go first.
pub(super) const EVENTS_WAITING: usize = 10_000;

/// How long a disk may take before it is said to hang (a network, a failing device).
const HANGS_AFTER: Duration = Duration::from_secs(2);

/// What an order came to: an error says why it is not on the disk.
pub(super) type Outcome = Result<(), String>;

/// What is to be on the disk.
#[derive(Default)]
pub(super) struct Order {
    /// `None`: the one that is asked for already.
    pub state: Option<Arc<State>>,
    /// By their numbers: one of a number that is there replaces it.
    pub events: Vec<Arc<Event>>,
}

impl Order {
    /// Both in one.
    pub fn followed_by(mut self, next: Self) -> Self {
        self.state = next.state.or(self.state);
        self.events.extend(next.events);
        let lost = self.events.len().saturating_sub(EVENTS_WAITING);
        if lost > 0 {
            self.events.drain(..lost);
            tracing::warn!(
                lost,
                "events were lost for the audit log: the disk has not taken them for too long"
            );
        }
        self
    }
}

/// An order and who waits for it.
struct Envelope {
    order: Order,
    answer: oneshot::Sender<Outcome>,
}

/// What the outbox is to hold, and who waits for it; answered with whether something is left to do.
pub(super) struct Posting {
    pub wanted: Vec<Arc<OutboxEntry>>,
    pub answer: oneshot::Sender<Result<bool, String>>,
}

/// What is asked of the thread beside orders, each after the orders before it.
pub(super) enum Call {
    /// Close the database and hand over a descriptor of the lock.
    Freeze(oneshot::Sender<Result<File, String>>),
    /// Open it again.
    Thaw(oneshot::Sender<Outcome>),
    /// Close it and end.
    Close(mpsc::SyncSender<Outcome>),
}

/// What the thread does next.
pub(super) enum Next {
    /// What waited, as one order.
    Order(Order),
    Posting(Posting),
    Call(Call),
    /// The time has come.
    Time,
}

/// See the module.
pub(super) struct Desk {
    inner: Mutex<Inner>,
    bell: Condvar,
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Envelope>,
    /// After the orders: no change waits for it.
    posting: Option<Posting>,
    calls: VecDeque<Call>,
    /// Since when the thread is at work, and who waits for it.
    running: Option<(Instant, Vec<oneshot::Sender<Outcome>>)>,
    /// Why the last attempt failed.
    failure: Option<String>,
    /// The one in use, and whether the disk still lacks it.
    secret: Option<Secret>,
    secret_is_new: bool,
    /// Why no order is taken any more.
    over: Option<&'static str>,
}

impl Desk {
    /// `failure`: why nothing can be written to begin with.
    pub fn new(failure: Option<String>, secret: Option<Secret>) -> Self {
        let inner = Inner {
            failure,
            secret,
            ..Inner::default()
        };
        Self {
            inner: Mutex::new(inner),
            bell: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why something is not on the disk; `None`: everything is, or it is being written.
    pub fn not_durable(&self) -> Option<String> {
        let inner = self.lock();
        let since = inner.running.as_ref().map(|(since, _)| since.elapsed());
        match since.filter(|since| *since > HANGS_AFTER) {
            Some(since) => Some(format!("the disk has not answered for {} s", since.as_secs())),
            None => inner.failure.clone(),
        }
    }

    /// Lets `order` wait its turn. The answer comes when it was carried out or has failed.
    pub fn put(&self, order: Order) -> oneshot::Receiver<Outcome> {
        let (answer, answered) = oneshot::channel();
        let mut inner = self.lock();
        match inner.over {
            Some(why) => tell([answer], &Err(why.to_owned())),
            None => inner.waiting.push_back(Envelope { order, answer }),
        }
        if inner.waiting.len() > WAITING {
            inner.join_oldest();
        }
        self.bell.notify_one();
        answered
    }

    /// Asks for another outbox, in place of what was asked for and not begun. Once the thread has ended it is dropped, which is
    /// an answer, too.
    pub fn post(&self, posting: Posting) {
        let mut inner = self.lock();
        if inner.over.is_none() {
            inner.posting = Some(posting);
        }
        self.bell.notify_one();
    }

    /// Asks for something beside orders. Once the thread has ended a call is dropped, which is an answer, too.
    pub fn call(&self, call: Call) {
        let mut inner = self.lock();
        if inner.over.is_none() {
            inner.calls.push_back(call);
        }
        self.bell.notify_one();
    }

    /// The secret in use, made by `fresh` if there is none, and whether the disk has it.
    pub fn secret<E>(&self, fresh: impl FnOnce() -> Result<Secret, E>) -> Result<(Secret, bool), E> {
        let mut inner = self.lock();
        let secret = match &inner.secret {
            Some(secret) => secret.clone(),
            None => {
                let secret = fresh()?;
                inner.secret = Some(secret.clone());
                inner.secret_is_new = true;
                secret
            }
        };
        Ok((secret, !inner.secret_is_new))
    }

    // ---- the thread's side ----

    /// Waits for something to do, until `until` at the latest. An order is under way from here to [`Self::finish`].
    pub fn next(&self, until: Instant) -> Next {
        let mut inner = self.lock();
        loop {
            if !inner.waiting.is_empty() {
                let mut whole = Order::default();
                let mut answers = Vec::new();
                for Envelope { order, answer } in inner.waiting.drain(..) {
                    whole = whole.followed_by(order);
                    answers.push(answer);
                }
                inner.running = Some((Instant::now(), answers));
                return Next::Order(whole);
            }
            if let Some(posting) = inner.posting.take() {
                return Next::Posting(posting);
            }
            if let Some(call) = inner.calls.pop_front() {
                return Next::Call(call);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Next::Time;
            }
            let waited = self.bell.wait_timeout(inner, left);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Work without an order begins.
    pub fn begin(&self) {
        self.lock().running = Some((Instant::now(), Vec::new()));
    }

    /// What was begun has ended, and with `secret` the disk has the secret if it went well.
    pub fn finish(&self, outcome: &Outcome, secret: bool) {
        let mut inner = self.lock();
        let answers = inner.running.take().map_or_else(Vec::new, |(_, answers)| answers);
        if outcome.is_ok() && secret {
            inner.secret_is_new = false;
        }
        let failure = outcome.as_ref().err().cloned();
        match &failure {
            Some(why) if inner.failure.as_ref() != Some(why) => tracing::error!(why, "the state is not durable"),
            None if inner.failure.is_some() => tracing::info!("the state is durable again"),
            _ => {}
        }
        inner.failure = failure;
        drop(inner);
        // Last: whoever is answered may look at what is shown.
        tell(answers, outcome);
    }

    /// What was begun beside orders has ended, and changed nothing about what is durable.
    pub fn rest(&self) {
        self.lock().running = None;
    }

    /// The secret that the disk lacks.
    pub fn new_secret(&self) -> Option<Secret> {
        let inner = self.lock();
        inner.secret.clone().filter(|_| inner.secret_is_new)
    }

    /// The disk was opened anew and has this one.
    pub fn secret_on_disk(&self, there: Option<Secret>) {
        let mut inner = self.lock();
        inner.secret_is_new = inner.secret.is_some() && inner.secret != there;
        if inner.secret.is_none() {
            inner.secret = there;
        }
    }

    /// Shows that nothing is written from now on, though nothing failed.
    pub fn show(&self, why: &str) {
        self.lock().failure = Some(why.to_owned());
    }

    /// No order is taken any more, and those that wait are answered.
    pub fn end(&self, why: &'static str) {
        let mut inner = self.lock();
        inner.over = Some(why);
        inner.failure = Some(why.to_owned());
        inner.calls.clear();
        inner.posting = None;
        let running = inner.running.take().map_or_else(Vec::new, |(_, answers)| answers);
        let waiting = inner.waiting.drain(..).map(|envelope| envelope.answer);
        tell(running.into_iter().chain(waiting), &Err(why.to_owned()));
    }
}

impl Inner {
    /// See [`WAITING`]. Who waits for the oldest is told that it is not durable: as good as, it is the disk that hangs.
    fn join_oldest(&mut self) {
        let Some(oldest) = self.waiting.pop_front() else {
            return;
        };
        if let Some(next) = self.waiting.front_mut() {
            next.order = oldest.order.followed_by(std::mem::take(&mut next.order));
        }
        tell([oldest.answer], &Err("too many changes wait for the disk".to_owned()));
    }
}

/// Whoever asked may have gone.
fn tell(answers: impl IntoIterator<Item = oneshot::Sender<Outcome>>, outcome: &Outcome) {
    for answer in answers {
        let _ = answer.send(outcome.clone());
    }
}

//! How a change is asked of the one writer, and what it answers.

use super::load::LoadError;
use crate::rollout::Verb;
use crate::runtime::{Command, Origin, Refusal, Steer};
use std::sync::Arc;
use tokio::sync::{Notify, mpsc, oneshot};

/// Orders that may wait for the writer; who comes when it is full waits too.
const QUEUE: usize = 64;

/// What is asked of the writer.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    Change(Command),
    /// Judge the rollouts that are under way.
    Look(Looking),
    /// Read the file and put it in force.
    Reload,
}

impl Order {
    /// What may go toward stable: overtakes all others, and waits for no disk.
    fn is_urgent(&self) -> bool {
        let is_rollback = |steer: &Steer| matches!(steer, Steer::Verb(Verb::Rollback));
        match self {
            Self::Change(Command::Kill(_)) | Self::Look(_) => true,
            Self::Change(Command::Rollout { steer, .. }) => is_rollback(steer),
            Self::Change(_) | Self::Reload => false,
        }
    }
}

/// What the writer does not see by itself when it looks at rollouts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Looking {
    /// Failures make it look, not the clock.
    pub burst: bool,
    /// Answers to queries: service, position of the check, answer.
    pub outside: Vec<(Box<str>, usize, Result<f64, String>)>,
}

/// An order was carried out: no request accepted from now on is routed the old way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The generation in force.
    pub generation: u64,
    /// Whether anything is other than before.
    pub changed: bool,
    /// What was done, in a sentence.
    pub text: String,
    /// `None`: it is on the disk. Otherwise why it is not yet: it holds until the process ends, and is written as soon as
    /// that works.
    pub not_durable: Option<String>,
    /// Keys of the file that hold only after a restart.
    pub restart_required: Vec<String>,
}

/// An order was not carried out: nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum NotDone {
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("generation {expected} was expected, {current} is in force")]
    Stale { expected: u64, current: u64 },
    #[error("the change cannot be made durable: {0}")]
    NotDurable(String),
    #[error("{0}")]
    File(#[from] LoadError),
    /// The file is right, but has keys that this build refuses to run with.
    #[error("{0}")]
    RefusesToRun(String),
    #[error("{0}")]
    Unreadable(String),
    #[error("a kill switch or a rollback came meanwhile: look at `rollgate status` and ask again")]
    Overtaken,
    /// More is asked than can be done.
    #[error("{0}: try again")]
    Busy(&'static str),
    /// The process stops, or another one takes over.
    #[error("no change is taken any more: {0}")]
    Stopping(&'static str),
}

/// An order on its way.
pub struct Envelope {
    pub order: Order,
    pub by: Origin,
    /// Carried out only while this generation is in force.
    pub expected: Option<u64>,
    pub answer: oneshot::Sender<Result<Done, NotDone>>,
}

/// Whether the writer may change anything.
pub enum Hold {
    /// Nothing from now on: another process is taking over. Answered when nothing is under way any more.
    Freeze(oneshot::Sender<()>),
    /// It has not.
    Thaw,
}

/// Hands orders to the writer.
#[derive(Clone)]
pub struct Commander {
    urgent: mpsc::Sender<Envelope>,
    ordinary: mpsc::Sender<Envelope>,
    holds: mpsc::Sender<Hold>,
    overruled: Arc<Notify>,
}

/// The writer's end.
pub struct Orders {
    pub urgent: mpsc::Receiver<Envelope>,
    pub ordinary: mpsc::Receiver<Envelope>,
    pub holds: mpsc::Receiver<Hold>,
    /// Rung when an urgent order comes while the writer is frozen.
    pub overruled: Arc<Notify>,
}

impl Commander {
    pub fn new() -> (Self, Orders) {
        let (urgent, urgent_orders) = mpsc::channel(QUEUE);
        let (ordinary, ordinary_orders) = mpsc::channel(QUEUE);
        let (holds, holds_received) = mpsc::channel(1);
        let overruled = Arc::new(Notify::new());
        let orders = Orders {
            urgent: urgent_orders,
            ordinary: ordinary_orders,
            holds: holds_received,
            overruled: Arc::clone(&overruled),
        };
        let commander = Self {
            urgent,
            ordinary,
            holds,
            overruled,
        };
        (commander, orders)
    }

    /// Lets nothing change any more, until [`Self::thaw`]. A kill switch is in force all the same, but answered only when it
    /// is known which process serves.
    pub async fn freeze(&self) {
        let (frozen, answered) = oneshot::channel();
        if self.holds.send(Hold::Freeze(frozen)).await.is_ok() {
            // A writer that has ended changes nothing either.
            let _ = answered.await;
        }
    }

    /// The end of [`Self::freeze`].
    pub async fn thaw(&self) {
        let _ = self.holds.send(Hold::Thaw).await;
    }

    /// Comes true when an urgent order came while nothing may change.
    pub async fn overruled(&self) {
        self.overruled.notified().await;
    }

    /// Has `order` carried out, if `expected` (when given) is the generation in force.
    ///
    /// # Errors
    /// It was not carried out, and nothing changed.
    pub async fn submit(&self, order: Order, by: Origin, expected: Option<u64>) -> Result<Done, NotDone> {
        let gone = || NotDone::Stopping("the writer has ended");
        let (answer, answered) = oneshot::channel();
        let queue = if order.is_urgent() {
            &self.urgent
        } else {
            &self.ordinary
        };
        let envelope = Envelope {
            order,
            by,
            expected,
            answer,
        };
        queue.send(envelope).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

//! What must outlive the process: weights, kill switches, epochs, the cookie key, the audit log and notifications that wait, in a SQLite database in
//! `state_dir`.
//!
//! - One process at a time: `place::Lock`.
//! - One thread writes: `keeper`. It takes orders from a `desk`, where nobody who gives one waits for a disk.
//! - A state that cannot be read is never taken for an empty one: `opening`.

mod content;
mod database;
mod desk;
mod history;
mod keeper;
mod opening;
mod outbox;
mod place;
mod schema;
mod secret;
mod trouble;

pub use history::{NoHistory, PAGE};
pub use outbox::{OUTBOX_MOST, OutboxEntry};
pub(super) use secret::Secret;
pub use trouble::StoreError;

use self::database::BUSY;
use self::desk::{Call, Desk, Order, Posting};
use self::history::History;
use self::keeper::Keeper;
use self::opening::Disk;
use self::place::Place;
use super::event_log::Event;
use super::records::{Keep, Saving, on_disk};
use crate::routing::CookieKey;
use crate::runtime::State;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;

/// What is kept of the audit log: whatever is reached first.
#[derive(Debug, Clone, Copy)]
struct Retention {
    number: i64,
    age: Duration,
    /// Of the whole database. Freed pages are used again and the file is not made smaller: it has one size after a while.
    bytes: i64,
}

const RETENTION: Retention = Retention {
    number: 100_000,
    age: Duration::from_secs(90 * 24 * 60 * 60),
    bytes: 128 << 20,
};

/// Times and sizes, which only tests change.
#[derive(Debug, Clone, Copy)]
struct Tuning {
    retention: Retention,
    /// How often what is kept no longer is looked for.
    thin_every: Duration,
    /// How long a lock of another program is waited for.
    busy: Duration,
    /// Before what failed is tried again: at first, doubled each time, at last.
    retry_first: Duration,
    retry_last: Duration,
}

const TUNING: Tuning = Tuning {
    retention: RETENTION,
    thin_every: Duration::from_secs(60),
    busy: BUSY,
    retry_first: Duration::from_secs(1),
    retry_last: Duration::from_secs(30),
};

/// What was kept.
pub struct Restored {
    pub state: State,
    /// The latest [`super::event_log::KEPT`], in order.
    pub events: Vec<Arc<Event>>,
    /// The number of the last event there ever was; 0: there was none.
    pub last_seq: u64,
    /// Notifications that wait for their receivers, in order.
    pub outbox: Vec<Arc<OutboxEntry>>,
}

/// How a state is opened.
#[derive(Debug, Default)]
pub struct Options {
    /// `--recover-state`: a state that cannot be read is set aside, and one that sends everything to stable is begun. A
    /// state that can be read is used as it is.
    pub recover: bool,
    /// The descriptor of the lock that the process before this one has handed over ([`Store::freeze`]).
    pub lock: Option<File>,
}

/// A handle; copies are cheap. [`Store::close`] ends what is behind it, as does dropping the last one.
#[derive(Clone)]
pub struct Store {
    desk: Arc<Closing>,
    history: Arc<History>,
}

/// Ends the threads with the last handle.
struct Closing(Arc<Desk>);

impl Drop for Closing {
    fn drop(&mut self) {
        let (answer, _nobody_waits) = mpsc::sync_channel(1);
        self.0.call(Call::Close(answer));
    }
}

impl Store {
    /// Opens the state in `state_dir`, which is made if it is not there (0700). Blocks.
    ///
    /// Where nothing can be written (a full disk, a read-only file system, no permission) the state is read if there is one,
    /// and otherwise begins empty; [`Keep::not_durable`] says so, and writing is tried again and again.
    ///
    /// # Errors
    /// Another process uses the directory. Or what is there cannot be read: nothing of it was changed then.
    pub fn open(state_dir: &Path, options: Options) -> Result<(Self, Restored), StoreError> {
        Self::open_tuned(state_dir, options, TUNING)
    }

    fn open_tuned(state_dir: &Path, options: Options, tuning: Tuning) -> Result<(Self, Restored), StoreError> {
        let place = Place::new(state_dir).map_err(|error| StoreError::Inaccessible {
            directory: state_dir.to_owned(),
            why: error.to_string(),
        })?;
        let mut found = opening::find(&place, options.lock, options.recover, tuning.busy)?;
        secret::take_over(&place, &mut found);
        let failure = match &found.disk {
            Disk::Shut { why, .. } => {
                tracing::error!(why, "the state is not durable");
                Some(why.clone())
            }
            Disk::Open(_) | Disk::HandedOver => None,
        };
        let content = found.content;
        let desk = Arc::new(Desk::new(failure, content.secret));
        let history = History::new(place.database(), tuning.busy);
        let state = Arc::new(content.state.clone());
        let keeper = Keeper::new(Arc::clone(&desk), place, tuning, (found.lock, found.disk), state);
        let store = Self {
            desk: Arc::new(Closing(desk)),
            history: Arc::new(history),
        };
        let thread = thread::Builder::new().name("state".to_owned());
        thread.spawn(move || keeper.run()).map(drop)?;
        let restored = Restored {
            state: content.state,
            events: content.events,
            last_seq: content.last_seq,
            outbox: content.outbox,
        };
        Ok((store, restored))
    }

    /// The events after number `after` that are on the disk, oldest first, at most `limit` and [`PAGE`]: to read all, ask
    /// again with the number of the last one until none comes. Needs tokio's runtime.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn events(
        &self,
        after: u64,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Event>, NoHistory>> + Send + use<> {
        let history = Arc::clone(&self.history);
        async move { history.after(after, limit).await }
    }

    /// Brings what waits on the disk nearer to `wanted` (at most [`OUTBOX_MOST`], places rising), after all changes that wait
    /// for the disk, and never in their way. Returns whether something is left to do: then it is to be asked for again.
    ///
    /// # Errors
    /// Why it is not on the disk. It is not tried again by itself.
    pub fn post(&self, wanted: Vec<Arc<OutboxEntry>>) -> impl Future<Output = Result<bool, String>> + Send + use<> {
        let (answer, answered) = oneshot::channel();
        self.desk.0.post(Posting { wanted, answer });
        async { answered.await.unwrap_or_else(|_| Err(ended())) }
    }

    /// The key that signs affinity cookies, made by the first call ever. Where it cannot be kept the log says so, and it is
    /// as good until the process ends.
    ///
    /// # Errors
    /// The kernel gives no random bytes.
    pub async fn cookie_key(&self) -> io::Result<CookieKey> {
        let (secret, is_kept) = self.desk.0.secret(Secret::fresh)?;
        if !is_kept {
            let kept = on_disk(self.order(Order::default())).await;
            if let Err(error) = kept {
                tracing::error!(
                    error,
                    "the key of affinity cookies is not kept yet: if that stays so, users get new cookies after a restart"
                );
            }
        }
        Ok(secret.key())
    }

    /// For another process that takes over: makes durable what is not, closes the database and returns a descriptor of the
    /// lock to hand over ([`Options::lock`]; it is not inherited as it is). From then on nothing is written, until
    /// [`Store::thaw`]. Who drops the future before its end hands nothing over.
    ///
    /// # Errors
    /// Something is not durable, and would be lost: nothing was handed over.
    pub fn freeze(&self) -> impl Future<Output = Result<File, String>> + Send + use<> {
        let (answer, answered) = oneshot::channel();
        self.desk.0.call(Call::Freeze(answer));
        async { answered.await.unwrap_or_else(|_| Err(ended())) }
    }

    /// Takes the state back from a process that has ended without serving. What this process last saved is what holds.
    ///
    /// # Errors
    /// It cannot be written yet; it is tried again and again.
    pub fn thaw(&self) -> impl Future<Output = Result<(), String>> + Send + use<> {
        let (answer, answered) = oneshot::channel();
        self.desk.0.call(Call::Thaw(answer));
        async { answered.await.unwrap_or_else(|_| Err(ended())) }
    }

    /// Writes what is not written yet, closes the database and gives up the lock. Blocks, for `within` at most.
    ///
    /// # Errors
    /// Why something is not durable.
    pub fn close(&self, within: Duration) -> Result<(), String> {
        let (answer, answered) = mpsc::sync_channel(1);
        self.desk.0.call(Call::Close(answer));
        match answered.recv_timeout(within) {
            Ok(closed) => closed,
            Err(mpsc::RecvTimeoutError::Timeout) => Err("the disk has not answered".to_owned()),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(ended()),
        }
    }

    fn order(&self, order: Order) -> Saving {
        let answered = self.desk.0.put(order);
        Box::pin(async { answered.await.unwrap_or_else(|_| Err(ended())) })
    }
}

impl Keep for Store {
    fn save(&self, state: Arc<State>, events: Vec<Arc<Event>>) -> Saving {
        self.order(Order {
            state: Some(state),
            events,
        })
    }

    fn not_durable(&self) -> Option<String> {
        self.desk.0.not_durable()
    }
}

fn ended() -> String {
    "the state is closed".to_owned()
}

#[cfg(test)]
mod tests;

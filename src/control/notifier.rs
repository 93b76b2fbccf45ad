//! Tells receivers what happens to rollouts: at least once, in order for each, and never in the way of who tells it.
//!
//! What waits is in memory, and a copy of it on the disk, so that it outlives the process. Where the disk does not take it,
//! memory is all there is, and that is tried again and again. Bounds: 10,000 notifications wait, each for a day; what is
//! too much or too old goes, oldest first, and is counted (`rollgate_notifications_total`).

mod delivery;
mod message;
mod queue;
mod receivers;

pub use message::Notification;

use self::delivery::{Outcome, address, deliver};
use self::queue::{Change, Queue, Turn};
use self::receivers::Directory;
use super::http_client::HttpClient;
use super::store::{OutboxEntry, Store};
use super::writer::now_ms;
use crate::rollout::Notify;
use crate::shared::{NotificationEnd, Shared};
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify as Bell, watch};
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Receivers that are told at the same time; each one notification at a time.
const UNDER_WAY_MOST: usize = 64;

/// Before what the disk did not take is given to it again: at first, doubled each time, at last.
const SAVE_AGAIN_FIRST: Duration = Duration::from_secs(1);
const SAVE_AGAIN_LAST: Duration = Duration::from_secs(30);

/// How long [`Notifier::freeze`] waits for attempts under way, and again for the disk.
const FREEZE_WITHIN: Duration = Duration::from_secs(1);

/// Of notifications that are dropped because too many wait, one in so many is told in the log.
const TELL_DROPPED_EVERY: u64 = 1_000;

/// See the module. One for the process.
pub struct Notifier {
    shared: Arc<Shared>,
    store: Store,
    client: HttpClient,
    queue: Mutex<Queue>,
    /// Something waits that did not before.
    bell: Bell,
    /// Counts changes of what waits, and which of them the disk has.
    changes: watch::Sender<u64>,
    saved: watch::Sender<u64>,
    under_way: watch::Sender<usize>,
    frozen: watch::Sender<bool>,
}

impl Notifier {
    /// `kept`: what waited when the process before ended ([`super::store::Restored::outbox`]).
    pub fn new(shared: Arc<Shared>, store: Store, client: HttpClient, kept: Vec<Arc<OutboxEntry>>) -> Self {
        let queue = Queue::new(kept, Instant::now(), now_ms());
        shared.notifications.set_waiting(queue.len());
        Self {
            shared,
            store,
            client,
            queue: Mutex::new(queue),
            bell: Bell::new(),
            changes: watch::Sender::new(0),
            saved: watch::Sender::new(0),
            under_way: watch::Sender::new(0),
            frozen: watch::Sender::new(false),
        }
    }

    /// Has those of `receivers` told that want to hear of it. Returns at once, whatever the network and the disk do, and
    /// never fails.
    pub fn tell(&self, receivers: &[Notify], notification: &Notification) {
        let body: Arc<str> = match notification.kept() {
            Ok(body) => body.into(),
            Err(error) => {
                tracing::error!(%error, "a notification cannot be written");
                return;
            }
        };
        let wants = |notify: &&Notify| {
            let events = notify.events.as_ref();
            events.is_none_or(|events| events.contains(&notification.notice))
        };
        let mut told = HashSet::new();
        let mut dropped = 0;
        {
            let (now, queued_ms) = (Instant::now(), now_ms());
            let mut queue = self.queue();
            for to in receivers.iter().filter(wants).map(|notify| &notify.to) {
                let receiver = receivers::name(to);
                // Who is in the list twice is told once.
                if !told.insert(receiver.clone()) {
                    continue;
                }
                let entry = OutboxEntry {
                    place: 0,
                    id: format!("{:032x}", fastrand::u128(..)).into(),
                    receiver,
                    queued_ms,
                    body: Arc::clone(&body),
                };
                dropped += u64::from(queue.push(entry, to, now));
            }
        }
        if told.is_empty() {
            return;
        }
        let before = self.shared.notifications.count(NotificationEnd::Dropped, dropped);
        let is_told = before == 0 || before / TELL_DROPPED_EVERY < (before + dropped) / TELL_DROPPED_EVERY;
        if dropped > 0 && is_told {
            tracing::error!(
                dropped = before + dropped,
                "too many notifications wait: the oldest are dropped"
            );
        }
        self.changed();
        self.bell.notify_one();
    }

    /// Delivers until it is dropped. What the process before left waits for this, too.
    pub async fn run(&self) -> Infallible {
        tokio::select! {
            never = self.deliver() => never,
            never = self.save() => never,
        }
    }

    /// For another process that takes over: delivers no more, waits a little for what is under way and for the disk. What
    /// does not end in time may be told twice.
    pub async fn freeze(&self) {
        self.frozen.send_replace(true);
        let mut under_way = self.under_way.subscribe();
        let _ = timeout(FREEZE_WITHIN, under_way.wait_for(|number| *number == 0)).await;
        let mut saved = self.saved.subscribe();
        let changes = *self.changes.borrow();
        let _ = timeout(FREEZE_WITHIN, saved.wait_for(|saved| *saved >= changes)).await;
    }

    /// Nobody took over: goes on.
    pub fn thaw(&self) {
        self.frozen.send_replace(false);
        // The other process may have changed what the disk has.
        self.changed();
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What waits is not what it was.
    fn changed(&self) {
        let waiting = self.queue().len();
        self.shared.notifications.set_waiting(waiting);
        self.changes.send_modify(|changes| *changes += 1);
    }

    // ---- to the receivers ----

    async fn deliver(&self) -> Infallible {
        self.queue().stop_all();
        let mut frozen = self.frozen.subscribe();
        let mut attempts = Attempts::default();
        let mut directory = Directory::default();
        loop {
            let is_frozen = *frozen.borrow_and_update();
            let next = if is_frozen {
                None
            } else {
                self.begin(&mut attempts, &mut directory)
            };
            self.under_way.send_replace(attempts.tasks.len());
            tokio::select! {
                () = self.bell.notified() => {}
                _ = frozen.changed() => {}
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
                Some(ended) = attempts.tasks.join_next_with_id() => {
                    if let Some((turn, outcome)) = attempts.ended(ended) {
                        self.finish(&turn, &outcome);
                    }
                }
            }
        }
    }

    /// Begins what is due. Returns when to look again.
    fn begin(&self, attempts: &mut Attempts, directory: &mut Directory) -> Option<Instant> {
        directory.follow(&self.shared.load().snapshot);
        let room = UNDER_WAY_MOST.saturating_sub(attempts.tasks.len());
        let turns = self.queue().turns(Instant::now(), room, |name| directory.find(name));
        for (end, number, why) in [
            (NotificationEnd::Expired, turns.expired, "they have waited for a day"),
            (
                NotificationEnd::Withdrawn,
                turns.withdrawn,
                "their receivers are not in the file any more",
            ),
        ] {
            if number > 0 {
                tracing::warn!(number, why, "notifications are not delivered");
                self.shared.notifications.count(end, number);
                self.changed();
            }
        }
        for turn in turns.begun {
            attempts.begin(self.client.clone(), turn);
        }
        turns.next
    }

    fn finish(&self, turn: &Turn, outcome: &Outcome) {
        let receiver = address(&turn.to);
        let (end, change) = self
            .queue()
            .finish(&turn.entry, outcome, Instant::now(), fastrand::f64());
        match (outcome, change) {
            (Outcome::Refused(why), _) => {
                tracing::error!(%receiver, why, "a notification is refused and not tried again");
            }
            (Outcome::Failed { why, .. }, Some(Change::Fails)) => {
                tracing::warn!(%receiver, why, "notifications cannot be delivered; they are tried again for a day");
            }
            (_, Some(Change::Recovered)) => tracing::info!(%receiver, "notifications are delivered again"),
            _ => {}
        }
        if let Some(end) = end {
            self.shared.notifications.count(end, 1);
            self.changed();
        }
    }

    // ---- to the disk ----

    async fn save(&self) -> Infallible {
        let mut changes = self.changes.subscribe();
        let mut pause = SAVE_AGAIN_FIRST;
        loop {
            let version = *changes.borrow_and_update();
            let wanted = self.queue().entries();
            match self.store.post(wanted).await {
                Ok(true) => continue,
                Ok(false) => {
                    if pause > SAVE_AGAIN_FIRST {
                        tracing::info!("notifications that wait are on the disk again");
                    }
                    pause = SAVE_AGAIN_FIRST;
                    self.saved.send_replace(version);
                    // Never an error: its sender is ours.
                    let _ = changes.changed().await;
                }
                Err(why) => {
                    if pause == SAVE_AGAIN_FIRST && !*self.frozen.borrow() {
                        tracing::warn!(why, "notifications that wait are only in memory");
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(SAVE_AGAIN_LAST);
                }
            }
        }
    }
}

/// Attempts under way, each a task.
#[derive(Default)]
struct Attempts {
    tasks: JoinSet<Outcome>,
    turns: HashMap<task::Id, Turn>,
}

impl Attempts {
    fn begin(&mut self, client: HttpClient, turn: Turn) {
        let own = turn.clone();
        let task = self.tasks.spawn(async move { deliver(&client, &own).await });
        self.turns.insert(task.id(), turn);
    }

    /// An attempt that panicked has failed.
    fn ended(&mut self, ended: Result<(task::Id, Outcome), JoinError>) -> Option<(Turn, Outcome)> {
        let (id, outcome) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                let why = error.to_string();
                (error.id(), Outcome::Failed { why, wait: None })
            }
        };
        self.turns.remove(&id).map(|turn| (turn, outcome))
    }
}

#[cfg(test)]
#[path = "notifier_tests.rs"]
mod tests;

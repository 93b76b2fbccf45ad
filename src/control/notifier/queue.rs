//! What waits, and whose turn it is. Time and draws come in as arguments.
//!
//! Each receiver has a lane of its own, in order: one that is slow or away holds up its own notifications and no others.

use super::delivery::Outcome;
use crate::control::store::{OUTBOX_MOST, OutboxEntry};
use crate::rollout::Receiver;
use crate::shared::NotificationEnd;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// After so long nobody is told any more.
pub const EXPIRES_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// The pause after the first failure of a receiver, drawn from 0 to this; it doubles with each one, up to the second.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_LONGEST: Duration = Duration::from_secs(60);

/// The most that a receiver may ask us to wait.
const ASKED_LONGEST: Duration = Duration::from_secs(600);

/// See the module. At most [`OUTBOX_MOST`] wait.
pub struct Queue {
    /// By receivers; none is empty, unless its last one is under way.
    lanes: BTreeMap<Box<str>, Lane>,
    len: usize,
    last_place: u64,
}

struct Lane {
    waiting: VecDeque<Waiting>,
    /// The first one is being delivered.
    under_way: bool,
    /// In a row.
    failures: u32,
    /// When it is the first one's turn.
    due: Instant,
}

struct Waiting {
    entry: Arc<OutboxEntry>,
    expires: Instant,
    /// Where it goes if the file does not have its receiver any more; once: a rollout that was just removed from the file
    /// still tells its end.
    first_to: Option<Receiver>,
}

/// One whose turn it is.
#[derive(Debug, Clone)]
pub struct Turn {
    pub entry: Arc<OutboxEntry>,
    pub to: Receiver,
}

/// What [`Queue::turns`] finds.
#[derive(Debug, Default)]
pub struct Turns {
    pub begun: Vec<Turn>,
    /// How many are not to be delivered any more: too old, or their receiver has left.
    pub expired: u64,
    pub withdrawn: u64,
    /// When to look again, if nothing happens before.
    pub next: Option<Instant>,
}

/// What an attempt meant for its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It fails after a success, or for the first time.
    Fails,
    /// It takes notifications again.
    Recovered,
}

impl Queue {
    /// What was kept, in order. `now_ms`: the time since the Unix epoch.
    pub fn new(kept: Vec<Arc<OutboxEntry>>, now: Instant, now_ms: u64) -> Self {
        let mut queue = Self {
            lanes: BTreeMap::new(),
            len: 0,
            last_place: 0,
        };
        for entry in kept {
            let age = Duration::from_millis(now_ms.saturating_sub(entry.queued_ms));
            queue.last_place = queue.last_place.max(entry.place);
            queue.add(
                Waiting {
                    expires: now + EXPIRES_AFTER.saturating_sub(age),
                    entry,
                    first_to: None,
                },
                now,
            );
        }
        queue
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether a receiver is waited for because it failed.
    #[cfg(test)]
    pub fn has_failed(&self) -> bool {
        self.lanes.values().any(|lane| lane.failures > 0)
    }

    /// All, in order.
    pub fn entries(&self) -> Vec<Arc<OutboxEntry>> {
        let waiting = self.lanes.values().flat_map(|lane| &lane.waiting);
        let mut entries: Vec<_> = waiting.map(|waiting| Arc::clone(&waiting.entry)).collect();
        entries.sort_unstable_by_key(|entry| entry.place);
        entries
    }

    /// Queues one more; its place is given to it. Returns whether the oldest one had to go for it.
    pub fn push(&mut self, entry: OutboxEntry, to: &Receiver, now: Instant) -> bool {
        self.last_place += 1;
        let entry = OutboxEntry {
            place: self.last_place,
            ..entry
        };
        let full = self.len >= OUTBOX_MOST;
        if full {
            self.drop_oldest();
        }
        self.add(
            Waiting {
                entry: Arc::new(entry),
                expires: now + EXPIRES_AFTER,
                first_to: Some(to.clone()),
            },
            now,
        );
        full
    }

    fn add(&mut self, waiting: Waiting, now: Instant) {
        let lane = self.lanes.entry(waiting.entry.receiver.clone());
        let lane = lane.or_insert_with(|| Lane {
            waiting: VecDeque::new(),
            under_way: false,
            failures: 0,
            due: now,
        });
        lane.waiting.push_back(waiting);
        self.len += 1;
    }

    fn drop_oldest(&mut self) {
        let place = |lane: &Lane| lane.waiting.front().map(|first| first.entry.place);
        let lanes = self.lanes.values_mut();
        let oldest = lanes.min_by_key(|lane| place(lane).unwrap_or(u64::MAX));
        if oldest.is_some_and(|lane| lane.waiting.pop_front().is_some()) {
            self.len -= 1;
        }
        self.forget_empty();
    }

    /// Nothing is under way, whatever was thought.
    pub fn stop_all(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.under_way = false;
        }
    }

    /// Begins those whose turn it is, at most `room`. `find`: the receiver that the file has for it.
    pub fn turns(&mut self, now: Instant, room: usize, find: impl Fn(&str) -> Option<Receiver>) -> Turns {
        let mut turns = Turns::default();
        for lane in self.lanes.values_mut() {
            lane.begin(&mut turns, now, room, &find);
        }
        let ended = turns.expired + turns.withdrawn;
        self.len -= usize::try_from(ended).unwrap_or(usize::MAX).min(self.len);
        self.forget_empty();
        turns
    }

    /// What became of an attempt. `draw`: 0.0 to 1.0. Returns how its notification ended, if it did, and what the attempt
    /// meant for the receiver.
    pub fn finish(
        &mut self,
        entry: &OutboxEntry,
        outcome: &Outcome,
        now: Instant,
        draw: f64,
    ) -> (Option<NotificationEnd>, Option<Change>) {
        let Some(lane) = self.lanes.get_mut(&entry.receiver) else {
            return (None, None);
        };
        lane.under_way = false;
        let end = match outcome {
            Outcome::Delivered => NotificationEnd::Delivered,
            Outcome::Refused(_) => NotificationEnd::Refused,
            Outcome::Failed { wait, .. } => {
                let change = (lane.failures == 0).then_some(Change::Fails);
                let asked = wait.unwrap_or_default().min(ASKED_LONGEST);
                lane.due = now + pause(lane.failures, draw).max(asked);
                lane.failures = lane.failures.saturating_add(1);
                self.forget_empty();
                return (None, change);
            }
        };
        let change = (lane.failures > 0).then_some(Change::Recovered);
        lane.failures = 0;
        lane.due = now;
        // It may have been dropped meanwhile, as the oldest of too many: then that was its end.
        let first = lane.waiting.front();
        let ended = first.is_some_and(|first| first.entry.place == entry.place);
        if ended {
            lane.waiting.pop_front();
        }
        self.len -= usize::from(ended);
        self.forget_empty();
        (ended.then_some(end), change)
    }

    fn forget_empty(&mut self) {
        self.lanes.retain(|_, lane| lane.under_way || !lane.waiting.is_empty());
    }
}

impl Lane {
    fn begin(&mut self, turns: &mut Turns, now: Instant, room: usize, find: impl Fn(&str) -> Option<Receiver>) {
        while let Some(first) = self.waiting.front_mut()
            && !self.under_way
        {
            if first.expires <= now {
                turns.expired += 1;
            } else if self.due > now {
                let wake = self.due.min(first.expires);
                turns.next = Some(turns.next.map_or(wake, |next| next.min(wake)));
                return;
            } else if turns.begun.len() >= room {
                // One that ends makes room.
                return;
            } else {
                let first_to = first.first_to.take();
                if let Some(to) = find(&first.entry.receiver).or(first_to) {
                    let entry = Arc::clone(&first.entry);
                    turns.begun.push(Turn { entry, to });
                    self.under_way = true;
                    return;
                }
                turns.withdrawn += 1;
            }
            self.waiting.pop_front();
        }
    }
}

/// Before the next attempt, `failures` before the one that just failed. Full jitter: after an outage many proxies do not
/// come back at the same moments (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
fn pause(failures: u32, draw: f64) -> Duration {
    let longest = PAUSE_FIRST.saturating_mul(1 << failures.min(16)).min(PAUSE_LONGEST);
    longest.mul_f64(draw.clamp(0.0, 1.0))
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;

//! The only writer of what is in force: every change becomes one new immutable value, published whole or not at all.
//!
//! Safety is asymmetric. A change toward stable is published first and kept on the disk after; its answer says if that
//! failed. A change toward a canary is kept first: what cannot be made durable is refused. A kill switch waits for
//! nothing: not for a file that is being compiled, not for a name that is being looked up, not for the disk; and it
//! overtakes a change toward a canary whose turn had already come.

mod beginning;
mod file;
mod rollouts;

pub use beginning::Unbegun;
pub use rollouts::Rollouts;

use super::assembly::Assembly;
use super::commands::{Done, Envelope, Hold, NotDone, Order, Orders};
use super::damping::Damping;
use super::file_watcher::{FileEvent, FileWatcher};
use super::health_checker::HealthChecker;
use super::loading::{Lacking, Loading};
use super::records::{PATIENT_BOUND, Records, Saving, on_disk, on_disk_within};
use crate::config::Snapshot;
use crate::runtime::{self, Change, Command, Origin, State};
use crate::shared::{InForce, Shared};
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Reloads that may wait for one reading of the file.
const ASKED_MOST: usize = 64;

/// The file as it was loaded at the start.
pub struct Loaded {
    pub path: PathBuf,
    pub text: Arc<str>,
    pub snapshot: Snapshot,
}

/// See the module.
pub struct Writer {
    pub shared: Arc<Shared>,
    pub assembly: Assembly,
    pub health: Arc<HealthChecker>,
    pub path: PathBuf,
    /// What the process started with: what needs a restart is still as it says.
    pub started: Arc<Snapshot>,
    pub watcher: FileWatcher,
    pub events: mpsc::Receiver<FileEvent>,
    pub orders: Orders,
    pub records: Records,
    pub reading: Reading,
    pub rollouts: Rollouts,
}

/// How far the writer is with the file.
#[derive(Default)]
pub struct Reading {
    loading: Loading,
    /// The text on the disk, where files that it names stood against it.
    lacking: Option<Lacking>,
    /// Reloads that wait for the watcher to read the file.
    asked: Vec<Envelope>,
    damping: Damping,
    /// The last text of a file that flaps, not compiled yet, and until when it is held.
    held: Option<(Arc<str>, Instant)>,
}

type Answer = oneshot::Sender<Result<Done, NotDone>>;

impl Writer {
    /// Publishes what the file, orders and the resolver bring, until it is dropped.
    pub async fn run(mut self) -> Infallible {
        let (resolver, tls) = (self.assembly.resolver(), self.assembly.tls());
        let mut addresses = resolver.changes();
        loop {
            self.reading.loading.begin(&self.path, &resolver, &tls);
            let held_until = self.reading.held.as_ref().map(|(_, until)| *until);
            tokio::select! {
                biased;
                Some(envelope) = self.orders.urgent.recv() => self.on_urgent(envelope).await,
                Some(hold) = self.orders.holds.recv() => self.on_hold(hold).await,
                Some(envelope) = self.orders.ordinary.recv() => self.on_order(envelope).await,
                finished = self.reading.loading.finished() => self.on_loaded(finished).await,
                Some(event) = self.events.recv() => self.on_file(event),
                text = Lacking::has_changed(&mut self.reading.lacking), if !self.reading.loading.is_running() => {
                    self.reading.loading.add(text, Vec::new());
                }
                Ok(()) = addresses.changed(), if !self.reading.loading.is_running() => self.on_addresses().await,
                () = tokio::time::sleep_until(held_until.unwrap_or_else(Instant::now)), if held_until.is_some() => {
                    self.on_quiet();
                }
                // Every source has ended: nothing will ever change again.
                else => std::future::pending().await,
            }
        }
    }

    /// Another process is taking over. A kill switch is in force here at once; who asked for it is answered when the state
    /// is this process's again, or not at all: then the other process must be asked.
    async fn on_hold(&mut self, hold: Hold) {
        let Hold::Freeze(frozen) = hold else { return };
        let _ = frozen.send(());
        let mut answers = Vec::new();
        loop {
            tokio::select! {
                biased;
                Some(urgent) = self.orders.urgent.recv() => {
                    if let Order::Look(looking) = &urgent.order {
                        if self.on_look_meanwhile(looking) {
                            self.orders.overruled.notify_one();
                        }
                        continue;
                    }
                    answers.extend(self.carry_out(urgent));
                    self.orders.overruled.notify_one();
                }
                Some(Hold::Thaw) = self.orders.holds.recv() => break,
                Some(envelope) = self.orders.ordinary.recv() => {
                    answer(envelope.answer, Err(NotDone::Stopping("another process is taking over: ask again")));
                }
                else => std::future::pending().await,
            }
        }
        answers.into_iter().for_each(Carried::answer);
    }

    async fn on_urgent(&mut self, envelope: Envelope) {
        match &envelope.order {
            Order::Look(looking) => {
                self.on_look(looking).await;
                self.looked(envelope);
            }
            _ => self.at_once(envelope),
        }
    }

    /// An order toward stable: in force before anything is waited for.
    fn at_once(&mut self, envelope: Envelope) {
        if let Some(carried) = self.carry_out(envelope) {
            carried.answer();
        }
    }

    /// An urgent order while something waits. Returns whether that is overtaken.
    fn meanwhile(&mut self, envelope: Envelope) -> bool {
        let Order::Look(looking) = &envelope.order else {
            self.at_once(envelope);
            return true;
        };
        let fell = self.on_look_meanwhile(looking);
        self.looked(envelope);
        fell
    }

    fn looked(&self, envelope: Envelope) {
        let generation = self.shared.load().generation;
        answer(envelope.answer, Ok(done(generation, String::new())));
    }

    fn carry_out(&mut self, envelope: Envelope) -> Option<Carried> {
        let Order::Change(command) = &envelope.order else {
            return None;
        };
        match self.decided(command, &envelope) {
            Ok(change) if change.happened.is_empty() => Some(self.unchanged(envelope.answer, change)),
            Ok(change) => Some(self.publish_first(change, envelope)),
            Err(not_done) => {
                answer(envelope.answer, Err(not_done));
                None
            }
        }
    }

    async fn on_order(&mut self, envelope: Envelope) {
        let command = match &envelope.order {
            Order::Change(command) => command,
            Order::Reload => return self.on_reload(envelope),
            Order::Look(_) => return,
        };
        self.look_before(command);
        let change = match self.decided(command, &envelope) {
            Ok(change) => change,
            Err(not_done) => return answer(envelope.answer, Err(not_done)),
        };
        if change.happened.is_empty() {
            return self.unchanged(envelope.answer, change).answer();
        }
        if self.gives_to_a_canary(&change) {
            let before = Arc::clone(&self.records.state);
            if self.keep_first(change, envelope).await {
                self.count_from_now(&before);
            }
        } else {
            self.publish_first(change, envelope).answer();
        }
    }

    /// What would come of `command`.
    fn decided(&self, command: &Command, envelope: &Envelope) -> Result<Change, NotDone> {
        let in_force = self.shared.load();
        self.expect_generation(envelope, &in_force)?;
        Ok(runtime::apply(
            &self.records.state,
            &in_force.snapshot,
            command,
            &envelope.by,
            self.now(),
        )?)
    }

    fn expect_generation(&self, envelope: &Envelope, in_force: &InForce) -> Result<(), NotDone> {
        match envelope.expected {
            Some(expected) if expected != in_force.generation => Err(NotDone::Stale {
                expected,
                current: in_force.generation,
            }),
            _ => Ok(()),
        }
    }

    /// What is so already may not be on the disk, or something else that is only proposed.
    fn unchanged(&mut self, to: Answer, change: Change) -> Carried {
        if change.state != *self.records.state {
            self.go_on_quietly(change.state);
        }
        let done = Done {
            changed: false,
            ..done(self.shared.load().generation, change.text)
        };
        let saving = self.records.confirm();
        Carried { to, saving, done }
    }

    fn publish_first(&mut self, change: Change, envelope: Envelope) -> Carried {
        let text = change.text.clone();
        let (generation, saving) = self.publish_change(change, &envelope.by);
        Carried {
            to: envelope.answer,
            saving,
            done: done(generation, text),
        }
    }

    /// In force first, then on its way to the disk.
    fn publish_change(&mut self, change: Change, by: &Origin) -> (u64, Saving) {
        let previous = self.shared.load();
        let state = Arc::new(change.state);
        let generation = self.publish_traffic(Arc::clone(&state), &previous);
        let events = self.records.number(change.happened, by, &previous, generation);
        let saving = self.records.settle(state, events);
        self.hand_over(change.asks);
        (generation, saving)
    }

    /// Nobody is routed by the change before it is on the disk. A kill switch that comes meanwhile is in force at once,
    /// and the change is off: who asked for it did not know of the kill. Returns whether it is in force.
    async fn keep_first(&mut self, change: Change, envelope: Envelope) -> bool {
        let in_force = self.shared.load();
        let events = self
            .records
            .number(change.happened, &envelope.by, &in_force, in_force.generation + 1);
        let state = Arc::new(change.state);
        let mut saving = std::pin::pin!(on_disk_within(
            PATIENT_BOUND,
            self.records.propose(Arc::clone(&state), events.clone())
        ));
        let mut overtaken = false;
        let kept = loop {
            tokio::select! {
                biased;
                Some(urgent) = self.orders.urgent.recv() => overtaken |= self.meanwhile(urgent),
                kept = &mut saving => break kept,
            }
        };
        let not_done = match kept {
            Err(why) => NotDone::NotDurable(why),
            Ok(()) if overtaken => NotDone::Overtaken,
            Ok(()) => {
                let generation = self.publish_traffic(Arc::clone(&state), &in_force);
                self.records.take(state, events);
                self.hand_over(change.asks);
                answer(envelope.answer, Ok(done(generation, change.text)));
                return true;
            }
        };
        let withdrawn = self.records.withdraw(events, &not_done.to_string());
        tokio::spawn(async move {
            // A disk that does not take this either is told of by `status`.
            drop(on_disk(withdrawn).await);
            answer(envelope.answer, Err(not_done));
        });
        false
    }

    async fn on_addresses(&mut self) {
        let snapshot = Arc::clone(&self.shared.load().snapshot);
        let state = Arc::clone(&self.records.state);
        self.publish_snapshot(snapshot, state, true).await;
    }

    /// The names of `snapshot` have been looked up: none is waited for. `same`: nothing that anybody asked for is other than
    /// before, and the generation stays.
    async fn publish_snapshot(&mut self, snapshot: Arc<Snapshot>, state: Arc<State>, same: bool) -> u64 {
        let previous = self.shared.load();
        let next = self
            .assembly
            .next(snapshot, state, Some(&previous), Duration::ZERO)
            .await;
        let generation = if same { previous.generation } else { next.generation };
        self.publish(InForce { generation, ..next })
    }

    fn publish_traffic(&self, state: Arc<State>, previous: &InForce) -> u64 {
        self.publish(with_state(state, previous))
    }

    fn publish(&self, next: InForce) -> u64 {
        let generation = next.generation;
        self.shared.publish(next);
        self.health.published();
        tracing::debug!(generation, "in force");
        generation
    }
}

/// What follows `previous` when only the state is another.
fn with_state(state: Arc<State>, previous: &InForce) -> InForce {
    InForce {
        generation: previous.generation + 1,
        snapshot: Arc::clone(&previous.snapshot),
        traffic: runtime::traffic(&state, &previous.snapshot),
        state,
        cookie_key: previous.cookie_key.clone(),
        services: Arc::clone(&previous.services),
        departed: Arc::clone(&previous.departed),
        listeners: Arc::clone(&previous.listeners),
    }
}

fn done(generation: u64, text: String) -> Done {
    Done {
        generation,
        changed: true,
        text,
        not_durable: None,
        restart_required: Vec::new(),
    }
}

/// Who asked may have gone: the order is carried out all the same.
fn answer(to: Answer, with: Result<Done, NotDone>) {
    drop(to.send(with));
}

/// An order that is in force, and on its way to the disk.
struct Carried {
    to: Answer,
    saving: Saving,
    done: Done,
}

impl Carried {
    /// When it is on the disk, or that has taken too long.
    fn answer(self) {
        let Self { to, saving, done } = self;
        tokio::spawn(async move { answer(to, Ok(with_durability(done, on_disk(saving).await))) });
    }
}

fn with_durability(done: Done, kept: Result<(), String>) -> Done {
    Done {
        not_durable: kept.err(),
        ..done
    }
}

/// Seconds since the Unix epoch.
pub fn now_s() -> u64 {
    now_ms() / 1000
}

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;

//! The only writer of what is in force: every change becomes one new immutable value, published whole or not at all.
//!
//! Safety is asymmetric. A change toward stable is published first and kept on the disk after; its answer says if that
//! failed. A change toward a canary is kept first: what cannot be made durable is refused. A kill switch waits for
//! nothing: not for a file that is being compiled, not for a name that is being looked up, not for the disk; and it
//! overtakes a change toward a canary whose turn had already come.

mod beginning;

pub use beginning::Unbegun;

use super::assembly::Assembly;
use super::commands::{Done, Envelope, Hold, NotDone, Order, Orders};
use super::damping::{CHANGES, Damping, QUIET, WINDOW};
use super::file_rule::How;
use super::file_watcher::{FileEvent, FileWatcher};
use super::health_checker::HealthChecker;
use super::loading::{Loading, Prepared};
use super::records::{PATIENT_BOUND, Records, Saving, on_disk, on_disk_within};
use crate::config::Snapshot;
use crate::config::diff::{diff, restart_required};
use crate::runtime::{self, Change, Command, EventKind, Happened, Origin, State};
use crate::shared::{InForce, Shared};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
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
}

/// How far the writer is with the file.
#[derive(Default)]
pub struct Reading {
    loading: Loading,
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
                Some(envelope) = self.orders.urgent.recv() => self.at_once(envelope),
                Some(hold) = self.orders.holds.recv() => self.on_hold(hold).await,
                Some(envelope) = self.orders.ordinary.recv() => self.on_order(envelope).await,
                (loaded, asked) = self.reading.loading.finished() => self.on_loaded(loaded, asked).await,
                Some(event) = self.events.recv() => self.on_file(event),
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

    /// An order toward stable: in force before anything is waited for.
    fn at_once(&mut self, envelope: Envelope) {
        if let Some(carried) = self.carry_out(envelope) {
            carried.answer();
        }
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
        };
        let change = match self.decided(command, &envelope) {
            Ok(change) => change,
            Err(not_done) => return answer(envelope.answer, Err(not_done)),
        };
        if change.happened.is_empty() {
            return self.unchanged(envelope.answer, change).answer();
        }
        let in_force = self.shared.load();
        let after = runtime::traffic(&change.state, &in_force.snapshot);
        if runtime::moves_toward_canary(&in_force.snapshot, &in_force.traffic, &after) {
            self.keep_first(change, envelope).await;
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
    fn unchanged(&self, to: Answer, change: Change) -> Carried {
        let done = Done {
            changed: false,
            ..done(self.shared.load().generation, change.text)
        };
        let saving = self.records.confirm();
        Carried { to, saving, done }
    }

    fn publish_first(&mut self, change: Change, envelope: Envelope) -> Carried {
        let previous = self.shared.load();
        let state = Arc::new(change.state);
        let generation = self.publish_traffic(Arc::clone(&state), &previous);
        let events = self
            .records
            .number(change.happened, &envelope.by, &previous, generation);
        let saving = self.records.settle(state, events);
        Carried {
            to: envelope.answer,
            saving,
            done: done(generation, change.text),
        }
    }

    /// Nobody is routed by the change before it is on the disk. A kill switch that comes meanwhile is in force at once,
    /// and the change is off: who asked for it did not know of the kill.
    async fn keep_first(&mut self, change: Change, envelope: Envelope) {
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
                Some(urgent) = self.orders.urgent.recv() => {
                    overtaken = true;
                    self.at_once(urgent);
                }
                kept = &mut saving => break kept,
            }
        };
        let not_done = match kept {
            Err(why) => NotDone::NotDurable(why),
            Ok(()) if overtaken => NotDone::Overtaken,
            Ok(()) => {
                let generation = self.publish_traffic(Arc::clone(&state), &in_force);
                self.records.take(state, events);
                return answer(envelope.answer, Ok(done(generation, change.text)));
            }
        };
        let withdrawn = self.records.withdraw(events, &not_done.to_string());
        tokio::spawn(async move {
            // A disk that does not take this either is told of by `status`.
            drop(on_disk(withdrawn).await);
            answer(envelope.answer, Err(not_done));
        });
    }

    fn on_reload(&mut self, envelope: Envelope) {
        if let Err(not_done) = self.expect_generation(&envelope, &self.shared.load()) {
            return answer(envelope.answer, Err(not_done));
        }
        if self.reading.asked.len() >= ASKED_MOST {
            return answer(envelope.answer, Err(NotDone::Busy("too many reloads wait already")));
        }
        self.reading.asked.push(envelope);
        self.watcher.reload();
    }

    fn on_file(&mut self, event: FileEvent) {
        let before = self.reading.held.take();
        match event {
            FileEvent::Changed {
                text,
                how: How::Explicit,
            } => {
                self.reading.damping.release();
                self.reading.loading.add(text, std::mem::take(&mut self.reading.asked));
            }
            FileEvent::Changed { text, .. } => match self.reading.damping.hold(self.shared.uptime()) {
                Some(hold) => self.hold(text, hold, before.is_some()),
                None => self.reading.loading.add(text, Vec::new()),
            },
            FileEvent::Unreadable { error } => {
                let asked = std::mem::take(&mut self.reading.asked);
                self.on_failed(NotDone::Unreadable(format!("{}: {error}", self.path.display())), asked);
            }
            FileEvent::Withheld { reason } => {
                let error = format!("{}: {reason}", self.path.display());
                self.failed(&error, &self.by_file());
            }
        }
    }

    /// What was held is the last that came, and nothing has come since.
    fn on_quiet(&mut self) {
        if let Some((text, _)) = self.reading.held.take() {
            self.reading.damping.release();
            self.reading.loading.add(text, Vec::new());
        }
    }

    async fn on_loaded(&mut self, loaded: Result<Prepared, NotDone>, asked: Vec<Envelope>) {
        self.reading.damping.judged(loaded.is_ok(), self.shared.uptime());
        let prepared = match loaded {
            Ok(prepared) => prepared,
            Err(not_done) => return self.on_failed(not_done, asked),
        };
        let by = self.by_asking(&asked);
        let (done, saving) = self.put_in_force(prepared, &by).await;
        tokio::spawn(async move {
            let done = with_durability(done, on_disk(saving).await);
            asked
                .into_iter()
                .for_each(|envelope| answer(envelope.answer, Ok(done.clone())));
        });
    }

    fn on_failed(&mut self, why: NotDone, asked: Vec<Envelope>) {
        self.failed(&why.to_string(), &self.by_asking(&asked));
        let mut asked = asked.into_iter();
        let first = asked.next();
        asked.for_each(|envelope| answer(envelope.answer, Err(NotDone::Unreadable(why.to_string()))));
        if let Some(first) = first {
            answer(first.answer, Err(why));
        }
    }

    /// Who asked first; else the file.
    fn by_asking(&self, asked: &[Envelope]) -> Origin {
        asked
            .first()
            .map_or_else(|| self.by_file(), |envelope| envelope.by.clone())
    }

    /// Every file is its own record: it is in force before the state of it is on the disk.
    async fn put_in_force(&mut self, prepared: Prepared, by: &Origin) -> (Done, Saving) {
        let Prepared { text, snapshot } = prepared;
        let previous = self.shared.load();
        self.tell_unsupported(&snapshot);
        let restart = restart_required(&self.started, &snapshot);
        for key in &restart {
            tracing::warn!(key, "not as at the start; takes effect after a restart");
        }
        // No refusal for a file: what it says is what is asked for.
        let load = Command::Load;
        let change = runtime::apply(&self.records.state, &snapshot, &load, by).unwrap_or_else(|_| Change {
            state: State::clone(&self.records.state),
            happened: Vec::new(),
            text: String::new(),
        });
        let changed = self.changed(&text);
        let mut happened = change.happened;
        happened.insert(0, reloaded(&previous.snapshot, &snapshot));
        self.succeeded(Arc::clone(&text), restart.clone());
        let state = Arc::new(change.state);
        let generation = self.publish_snapshot(snapshot, Arc::clone(&state)).await;
        let events = self.records.number(happened, by, &previous, generation);
        let saving = self.records.settle(state, events);
        self.watcher.set_in_force(text);
        let done = Done {
            changed,
            restart_required: restart,
            ..done(generation, change.text)
        };
        (done, saving)
    }

    fn changed(&self, text: &Arc<str>) -> bool {
        let status = self.shared.reload.lock().unwrap_or_else(PoisonError::into_inner);
        status.text != *text
    }

    async fn on_addresses(&mut self) {
        let previous = self.shared.load();
        let (snapshot, state) = (Arc::clone(&previous.snapshot), Arc::clone(&self.records.state));
        let next = self.assembly.next(snapshot, state, Some(&previous), Duration::ZERO);
        // Nothing that anybody asked for is other than before.
        let next = InForce {
            generation: previous.generation,
            ..next.await
        };
        self.publish(next);
    }

    /// The names of `snapshot` have been looked up: none is waited for.
    async fn publish_snapshot(&mut self, snapshot: Arc<Snapshot>, state: Arc<State>) -> u64 {
        let previous = self.shared.load();
        let next = self
            .assembly
            .next(snapshot, state, Some(&previous), Duration::ZERO)
            .await;
        self.publish(next)
    }

    fn publish_traffic(&self, state: Arc<State>, previous: &InForce) -> u64 {
        self.publish(InForce {
            generation: previous.generation + 1,
            snapshot: Arc::clone(&previous.snapshot),
            traffic: runtime::traffic(&state, &previous.snapshot),
            state,
            cookie_key: previous.cookie_key.clone(),
            services: Arc::clone(&previous.services),
            listeners: Arc::clone(&previous.listeners),
        })
    }

    fn publish(&self, next: InForce) -> u64 {
        let generation = next.generation;
        self.shared.publish(next);
        self.health.published();
        tracing::debug!(generation, "in force");
        generation
    }

    /// Told once a hold, however many texts come.
    fn hold(&mut self, text: Arc<str>, hold: Duration, already: bool) {
        self.reading.held = Some((text, Instant::now() + hold));
        if already {
            return;
        }
        let error = format!(
            "{}: the file went from good to bad or back {CHANGES} times within {} minutes: it is not looked at until it has \
             not changed for {} s, or SIGHUP or `rollgate reload` asks for it",
            self.path.display(),
            WINDOW.as_secs() / 60,
            QUIET.as_secs()
        );
        self.failed(&error, &self.by_file());
    }

    fn tell_unsupported(&self, snapshot: &Snapshot) {
        for key in &snapshot.unsupported {
            tracing::warn!(key = key.path, line = key.line, "{}", key.message);
        }
    }

    fn succeeded(&self, text: Arc<str>, restart_required: Vec<String>) {
        let mut status = self.shared.reload.lock().unwrap_or_else(PoisonError::into_inner);
        status.error = None;
        status.succeeded += 1;
        status.last_success_s = now_s();
        status.text = text;
        status.restart_required = restart_required;
    }

    fn failed(&mut self, error: &str, by: &Origin) {
        for line in error.lines() {
            tracing::error!(error = line, "the file is not taken; the last good one stays in force");
        }
        {
            let mut status = self.shared.reload.lock().unwrap_or_else(PoisonError::into_inner);
            status.failed += 1;
            if status.error.as_deref() == Some(error) {
                return;
            }
            status.error = Some(error.to_owned());
        }
        let happened = Happened {
            kind: EventKind::ReloadFailed,
            service: None,
            before: Value::Null,
            after: json!({ "error": error }),
            text: format!("the file is not taken: {error}"),
        };
        let in_force = self.shared.load();
        let events = self.records.number(vec![happened], by, &in_force, in_force.generation);
        let state = Arc::clone(&self.records.state);
        drop(self.records.settle(state, events));
    }

    fn by_file(&self) -> Origin {
        Origin {
            who: "file".to_owned(),
            from: self.path.display().to_string(),
            at_ms: now_ms(),
            reason: None,
        }
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

/// What another text changes, in a sentence.
fn reloaded(before: &Snapshot, after: &Snapshot) -> Happened {
    let diff = diff(before, after);
    let named = |what: &str, names: Vec<String>| (!names.is_empty()).then(|| format!("{what} {}", names.join(", ")));
    let changed = diff
        .services_changed
        .iter()
        .map(|service| service.name.clone())
        .collect();
    let parts: Vec<String> = [
        named("services added:", diff.services_added.clone()),
        named("services changed:", changed),
        named("services removed:", diff.services_removed.clone()),
        named("segments changed:", diff.segments_changed.clone()),
        named("settings changed:", diff.settings_changed.clone()),
    ]
    .into_iter()
    .flatten()
    .collect();
    let what = if parts.is_empty() {
        "nothing that routes".to_owned()
    } else {
        parts.join("; ")
    };
    Happened {
        kind: EventKind::Reload,
        service: None,
        before: Value::Null,
        after: json!({
            "services_added": diff.services_added,
            "services_changed": diff.services_changed.iter().map(|service| &service.name).collect::<Vec<_>>(),
            "services_removed": diff.services_removed,
        }),
        text: format!("the file was read and is in force: {what}"),
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

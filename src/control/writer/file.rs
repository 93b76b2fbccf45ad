//! The file as it comes: when it is looked at, and how it comes into force.

use super::{ASKED_MOST, Envelope, Writer, answer, done, now_ms, now_s, with_durability};
use crate::config::Snapshot;
use crate::config::diff::{diff, restart_required};
use crate::control::commands::{Done, NotDone};
use crate::control::damping::{CHANGES, QUIET, WINDOW};
use crate::control::file_rule::How;
use crate::control::file_watcher::FileEvent;
use crate::control::loading::{Finished, Prepared};
use crate::control::records::{Saving, on_disk};
use crate::runtime::{self, Change, Command, EventKind, Happened, Origin, State};
use serde_json::{Value, json};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

impl Writer {
    pub(super) fn on_reload(&mut self, envelope: Envelope) {
        if let Err(not_done) = self.expect_generation(&envelope, &self.shared.load()) {
            return answer(envelope.answer, Err(not_done));
        }
        if self.reading.asked.len() >= ASKED_MOST {
            return answer(envelope.answer, Err(NotDone::Busy("too many reloads wait already")));
        }
        self.reading.asked.push(envelope);
        self.watcher.reload();
    }

    pub(super) fn on_file(&mut self, event: FileEvent) {
        let before = self.reading.held.take();
        // What is on the disk now is another text, or none.
        self.reading.lacking = None;
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
    pub(super) fn on_quiet(&mut self) {
        if let Some((text, _)) = self.reading.held.take() {
            self.reading.damping.release();
            self.reading.loading.add(text, Vec::new());
        }
    }

    pub(super) async fn on_loaded(&mut self, finished: Finished) {
        let Finished {
            outcome,
            asked,
            lacking,
        } = finished;
        self.reading.lacking = lacking;
        self.reading.damping.judged(outcome.is_ok(), self.shared.uptime());
        let prepared = match outcome {
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
        self.look_before(&Command::Load);
        // No refusal for a file: what it says is what is asked for.
        let change = runtime::apply(&self.records.state, &snapshot, &Command::Load, by, self.now());
        let change = change.unwrap_or_else(|_| Change {
            state: State::clone(&self.records.state),
            happened: Vec::new(),
            asks: Vec::new(),
            text: String::new(),
        });
        let changed = self.changed(&text);
        // Who has the file read once more stands in nobody's way. (What it refers to may have changed.)
        let same = !changed && change.happened.is_empty();
        let mut happened = change.happened;
        happened.insert(0, reloaded(&previous.snapshot, &snapshot, &restart));
        self.succeeded(Arc::clone(&text), restart.clone());
        let state = Arc::new(change.state);
        let generation = self.publish_snapshot(snapshot, Arc::clone(&state), same).await;
        let events = self.records.number(happened, by, &previous, generation);
        let saving = self.records.settle(state, events);
        self.hand_over(change.asks);
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

/// What another text changes, in a sentence; `restart`: what is not as at the start.
fn reloaded(before: &Snapshot, after: &Snapshot, restart: &[String]) -> Happened {
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
        named("only after a restart:", restart.to_vec()),
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
            "settings_changed": diff.settings_changed,
        }),
        text: format!("the file was read and is in force: {what}"),
    }
}

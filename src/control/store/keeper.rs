//! The thread that writes: carries out what waits at the desk, and tries again what could not be written.

use super::Tuning;
use super::database::NotWritten;
use super::desk::{Call, Desk, Next, Order, Outcome};
use super::opening::{self, Disk, Expected};
use super::outbox::OutboxEntry;
use super::place::{Lock, Place};
use super::secret::Secret;
use crate::control::event_log::Event;
use crate::runtime::State;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

const HANDED_OVER: &str = "another process takes over the state";

pub(super) struct Keeper {
    desk: Arc<Desk>,
    place: Place,
    tuning: Tuning,
    lock: Option<Lock>,
    disk: Disk,
    /// What was asked for last.
    state: Arc<State>,
    /// Whether the disk lacks some of that.
    due: bool,
    /// What it lacks of the audit log.
    events: Vec<Arc<Event>>,
    /// When to try again, and how long it was put off for.
    retry: Option<(Instant, Duration)>,
    thin_at: Instant,
}

impl Keeper {
    /// `state` is what is on `disk`.
    pub fn new(
        desk: Arc<Desk>,
        place: Place,
        tuning: Tuning,
        (lock, disk): (Option<Lock>, Disk),
        state: Arc<State>,
    ) -> Self {
        let due = matches!(disk, Disk::Shut { .. });
        let now = Instant::now();
        Self {
            retry: due.then(|| (now + tuning.retry_first, tuning.retry_first)),
            thin_at: now + tuning.thin_every,
            events: Vec::new(),
            desk,
            place,
            tuning,
            lock,
            disk,
            state,
            due,
        }
    }

    /// Works until it is asked to close.
    pub fn run(mut self) {
        let _ended = Ended(Arc::clone(&self.desk));
        loop {
            let until = self.retry.map_or(self.thin_at, |(at, _)| at.min(self.thin_at));
            match self.desk.next(until) {
                Next::Order(order) => drop(self.carry_out(order)),
                Next::Posting(posting) => drop(posting.answer.send(self.post(&posting.wanted))),
                Next::Call(Call::Freeze(answer)) => {
                    let frozen = self.freeze();
                    if answer.send(frozen).is_err() {
                        // Whoever asked has given up, and hands nothing over.
                        drop(self.thaw());
                    }
                }
                Next::Call(Call::Thaw(answer)) => drop(answer.send(self.thaw())),
                Next::Call(Call::Close(answer)) => {
                    let settled = self.settle();
                    if let Disk::Open(database) = self.disk {
                        database.close();
                    }
                    // Given back first: whoever waits may open it again at once.
                    drop(self.lock);
                    let _ = answer.send(settled);
                    return;
                }
                Next::Time => self.on_time(),
            }
        }
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        if self.retry.is_some_and(|(at, _)| at <= now) {
            drop(self.settle());
        }
        if self.thin_at <= now {
            self.thin_at = now + self.thin();
        }
    }

    /// Writes what is owed, if anything is.
    fn settle(&mut self) -> Outcome {
        if !self.due && self.desk.new_secret().is_none() {
            return Ok(());
        }
        self.desk.begin();
        self.carry_out(Order::default())
    }

    /// Writes what `order` and those before it ask for, and answers. Work was begun at the desk.
    fn carry_out(&mut self, order: Order) -> Outcome {
        let owed = Order {
            state: Some(Arc::clone(&self.state)),
            events: std::mem::take(&mut self.events),
        };
        let Order { state, events } = owed.followed_by(order);
        if let Some(state) = state {
            self.state = state;
        }
        let opened = self.reopen();
        let secret = self.desk.new_secret();
        let outcome = opened.and_then(|()| self.write(&events, secret.as_ref()));
        self.due = outcome.is_err();
        if self.due {
            self.events = events;
        }
        self.plan_retry();
        self.desk.finish(&outcome, secret.is_some());
        outcome
    }

    fn reopen(&mut self) -> Outcome {
        let Disk::Shut { expected, .. } = &self.disk else {
            return Ok(());
        };
        let opened = opening::open(&self.place, &mut self.lock, None, expected, self.tuning.busy);
        let (database, content) = opened.map_err(|trouble| trouble.while_running())?;
        self.desk.secret_on_disk(content.secret);
        self.disk = Disk::Open(database);
        Ok(())
    }

    fn write(&mut self, events: &[Arc<Event>], secret: Option<&Secret>) -> Outcome {
        let Disk::Open(database) = &mut self.disk else {
            return Err(HANDED_OVER.to_owned());
        };
        let written = database.write(&self.state, events, secret);
        written.map_err(|failed| self.gave_up(failed))
    }

    /// Brings the outbox nearer to `wanted`; what fails is not tried again from here. Returns whether something is left.
    fn post(&mut self, wanted: &[Arc<OutboxEntry>]) -> Result<bool, String> {
        self.desk.begin();
        let opened = self.reopen();
        let posted = opened.and_then(|()| match &mut self.disk {
            Disk::Open(database) => {
                let written = database.write_outbox(wanted);
                written.map_err(|failed| self.gave_up(failed))
            }
            _ => Err(HANDED_OVER.to_owned()),
        });
        self.desk.rest();
        posted
    }

    /// Why nothing was written. The database is closed, if that is the way to go on.
    fn gave_up(&mut self, failed: NotWritten) -> String {
        if let Disk::Open(database) = &self.disk
            && !failed.still_open
        {
            let expected = if database.is_in_place() {
                Expected::Anything
            } else {
                Expected::Nothing
            };
            self.shut(&failed.why, expected);
        }
        failed.why
    }

    /// Closes the database, if it is open.
    fn shut(&mut self, why: &str, expected: Expected) {
        let shut = Disk::Shut {
            why: why.to_owned(),
            expected,
        };
        if let Disk::Open(database) = std::mem::replace(&mut self.disk, shut) {
            database.close();
        }
    }

    fn plan_retry(&mut self) {
        let now = Instant::now();
        let first = self.tuning.retry_first;
        self.retry = match self.retry {
            _ if !self.due || matches!(self.disk, Disk::HandedOver) => None,
            None => Some((now + first, first)),
            Some((at, pause)) if at > now => Some((at, pause)),
            Some((_, pause)) => {
                let pause = self.tuning.retry_last.min(pause * 2);
                Some((now + pause, pause))
            }
        };
    }

    fn freeze(&mut self) -> Result<File, String> {
        self.settle()?;
        let file = match self.lock.as_ref().map(Lock::share) {
            Some(Ok(file)) => file,
            Some(Err(error)) => return Err(format!("the lock cannot be shared: {error}")),
            None => return Err("there is no lock".to_owned()),
        };
        if let Disk::Open(database) = std::mem::replace(&mut self.disk, Disk::HandedOver) {
            database.close();
        }
        self.retry = None;
        self.desk.show(HANDED_OVER);
        Ok(file)
    }

    fn thaw(&mut self) -> Outcome {
        if matches!(self.disk, Disk::HandedOver) {
            self.shut(HANDED_OVER, Expected::Anything);
            self.due = true;
        }
        self.settle()
    }

    /// Deletes a few events that are not kept any longer. Returns when to look again.
    fn thin(&mut self) -> Duration {
        let every = self.tuning.thin_every;
        let Disk::Open(database) = &mut self.disk else {
            return every;
        };
        self.desk.begin();
        let more = database.thin(&self.tuning.retention, SystemTime::now());
        self.desk.rest();
        match more {
            Ok(true) => Duration::ZERO,
            Ok(false) => every,
            Err(error) => {
                tracing::warn!(%error, "old events of the audit log cannot be deleted");
                every
            }
        }
    }
}

/// However the thread ends, nobody waits for it any more.
struct Ended(Arc<Desk>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.end("the state is closed");
    }
}

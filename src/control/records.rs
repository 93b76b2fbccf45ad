//! What the writer remembers: the state that moves at run time, its number of the next event, and where both are kept.

use super::event_log::{Event, EventLog};
use crate::routing::Service;
use crate::runtime::{EventKind, Happened, Origin, State};
use crate::shared::{InForce, ServiceInForce};
use serde_json::{Value, json};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long an answer waits for the disk: then it says that the change is not durable yet.
const DISK_BOUND: Duration = Duration::from_secs(1);

/// How long a change that must be durable first waits for the disk, before it is refused: a disk that is merely busy is no
/// reason.
pub const PATIENT_BOUND: Duration = Duration::from_secs(5);

/// Services of which an event for all of them holds the evidence.
const MOST_EVIDENCE: usize = 50;

/// Comes true when what was handed over is on the disk; an error says why it is not.
pub type Saving = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// Where the state is kept: [`super::store::Store`], or a disk of a test.
pub trait Keep: Send + Sync {
    /// Keeps `state`, and `events` by their numbers: one of a number that is there already replaces it. Orders are
    /// carried out in the order of calls, also when their futures are dropped; what failed is tried again by itself, with
    /// the newest state.
    fn save(&self, state: Arc<State>, events: Vec<Arc<Event>>) -> Saving;

    /// Why something that was handed over is not on the disk yet; `None`: everything is.
    fn not_durable(&self) -> Option<String>;
}

/// See the module.
pub struct Records {
    pub state: Arc<State>,
    pub keep: Arc<dyn Keep>,
    pub log: Arc<EventLog>,
    next_seq: u64,
    /// Events that follow, in number, on one whose fate is open.
    waiting: Vec<Arc<Event>>,
    fate_open: bool,
}

impl Records {
    pub fn new(state: Arc<State>, keep: Arc<dyn Keep>, log: Arc<EventLog>) -> Self {
        Self {
            state,
            keep,
            next_seq: log.last_seq() + 1,
            log,
            waiting: Vec::new(),
            fate_open: false,
        }
    }

    /// Events of what happened, numbered; they are neither kept nor told yet.
    pub fn number(
        &mut self,
        happened: Vec<Happened>,
        by: &Origin,
        in_force: &InForce,
        generation: u64,
    ) -> Vec<Arc<Event>> {
        let number = |happened: Happened| {
            let seq = self.next_seq;
            self.next_seq += 1;
            let evidence = match (happened.service.as_deref(), happened.kind) {
                (Some(service), _) => evidence(in_force, service),
                (None, EventKind::Kill | EventKind::Unkill | EventKind::Reload) => evidence_of_all(in_force),
                (None, _) => Value::Null,
            };
            Arc::new(Event::new(seq, happened, by, generation, evidence))
        };
        happened.into_iter().map(number).collect()
    }

    /// Makes `state` the one that is remembered, keeps it, and tells the events. The future is for who wants to know when
    /// that is on the disk.
    pub fn settle(&mut self, state: Arc<State>, events: Vec<Arc<Event>>) -> Saving {
        self.state = state;
        self.tell(events.clone());
        self.keep.save(Arc::clone(&self.state), events)
    }

    /// Keeps `state` and `events` before they are true: what becomes of them is for [`Self::take`] or [`Self::withdraw`] to
    /// say. Events told until then wait, so that followers get them in order.
    pub fn propose(&mut self, state: Arc<State>, events: Vec<Arc<Event>>) -> Saving {
        self.fate_open = true;
        self.keep.save(state, events)
    }

    /// What was proposed has become true.
    pub fn take(&mut self, state: Arc<State>, events: Vec<Arc<Event>>) {
        self.state = state;
        self.close(events);
    }

    /// What was proposed has not become true, for this reason: the disk is told the state as it is, and the log that it
    /// was asked for.
    /// The future is for who wants to know when nothing of the proposal is on the disk any more.
    pub fn withdraw(&mut self, events: Vec<Arc<Event>>, why: &str) -> Saving {
        let not_done = |event: Arc<Event>| {
            Arc::new(Event {
                after: event.before.clone(),
                text: format!("not carried out: {why} (asked for was: {})", event.text),
                ..Event::clone(&event)
            })
        };
        let events: Vec<_> = events.into_iter().map(not_done).collect();
        let saving = self.keep.save(Arc::clone(&self.state), events.clone());
        self.close(events);
        saving
    }

    /// The state as it is, on the disk whatever was proposed meanwhile.
    pub fn confirm(&self) -> Saving {
        self.keep.save(Arc::clone(&self.state), Vec::new())
    }

    fn close(&mut self, events: Vec<Arc<Event>>) {
        self.fate_open = false;
        self.tell(events);
        let waiting = std::mem::take(&mut self.waiting);
        self.tell(waiting);
    }

    fn tell(&mut self, events: Vec<Arc<Event>>) {
        if self.fate_open {
            self.waiting.extend(events);
            return;
        }
        for event in events {
            tracing::info!(
                seq = event.seq,
                who = event.who,
                from = event.from,
                reason = event.reason.as_deref().unwrap_or(""),
                "{}",
                event.text
            );
            self.log.add(event);
        }
    }
}

/// Waits for the disk, a second at the longest.
///
/// # Errors
/// Why it cannot be said to be there.
pub async fn on_disk(saving: Saving) -> Result<(), String> {
    on_disk_within(DISK_BOUND, saving).await
}

/// The same with another bound.
///
/// # Errors
/// Why it cannot be said to be there.
pub async fn on_disk_within(bound: Duration, saving: Saving) -> Result<(), String> {
    timeout(bound, saving)
        .await
        .unwrap_or_else(|_| Err(format!("the disk has not answered within {} s", bound.as_secs())))
}

/// The golden signals of a service's versions at this moment, counted since each version appeared.
fn evidence(in_force: &InForce, name: &str) -> Value {
    let found = services(in_force).find(|(service, _)| *service.name == *name);
    found.map_or(Value::Null, |(service, live)| signals(service, live))
}

/// The same of the services that have a canary, by name: as many as an event has room for.
fn evidence_of_all(in_force: &InForce) -> Value {
    let with_canaries = services(in_force).filter(|(service, _)| service.versions.len() > 1);
    let signals = |(service, live): (&Service, &ServiceInForce)| (service.name.to_string(), signals(service, live));
    let signals = with_canaries.take(MOST_EVIDENCE).map(signals);
    signals.collect::<serde_json::Map<_, _>>().into()
}

fn services(in_force: &InForce) -> impl Iterator<Item = (&Service, &ServiceInForce)> {
    in_force.snapshot.policy.services.iter().zip(&*in_force.services)
}

fn signals(service: &Service, live: &ServiceInForce) -> Value {
    let signals = |(version, live): (&crate::routing::Version, &crate::shared::VersionInForce)| {
        let totals = live.stats.totals();
        let signals = json!({
            "requests": totals.ended(),
            "failures": totals.all_failed(),
            "in_flight": totals.in_flight,
        });
        (version.name.to_string(), signals)
    };
    service
        .versions
        .iter()
        .zip(&live.versions)
        .map(signals)
        .collect::<serde_json::Map<_, _>>()
        .into()
}

//! The audit log as it is read: the latest events in memory, and a bell for whoever follows.

use crate::runtime::{EventKind, Happened, Origin};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Events kept in memory: older ones are on the disk.
pub const KEPT: usize = 1000;

/// One line of the audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Event {
    /// Rises by one with each event, from 1, also across restarts.
    pub seq: u64,
    /// RFC 3339, in UTC.
    pub time: String,
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// `null`: all services, or none in particular.
    pub service: Option<String>,
    /// A person or a part: `ada (uid 1000)`, `token`, `file`.
    pub who: String,
    /// `unix`, the client's address, or the path of the file.
    pub from: String,
    pub reason: Option<String>,
    /// What was in force, and what is.
    pub before: Value,
    pub after: Value,
    /// The same in a sentence.
    pub text: String,
    /// The generation in which it took effect.
    pub generation: u64,
    /// Golden signals at that moment: of the service's versions, by name. Where it concerns all services: those of each that has a
    /// canary, by the service's name, 50 services at most. `null` where none was in question.
    pub evidence: Value,
}

impl Event {
    /// Gives what happened its number, time and author.
    pub fn new(seq: u64, happened: Happened, by: &Origin, generation: u64, evidence: Value) -> Self {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(by.at_ms);
        Self {
            seq,
            time: crate::telemetry::rfc3339(time),
            kind: happened.kind,
            service: happened.service,
            who: by.who.clone(),
            from: by.from.clone(),
            reason: by.reason.clone(),
            before: happened.before,
            after: happened.after,
            text: happened.text,
            generation,
            evidence,
        }
    }
}

/// See the module. One for the process; only the writer adds to it.
pub struct EventLog {
    kept: Mutex<VecDeque<Arc<Event>>>,
    /// The number of the last event.
    last: watch::Sender<u64>,
}

impl EventLog {
    /// The log whose latest events were `restored`, in order; the first one to come is number `last_seq` + 1.
    pub fn new(restored: Vec<Arc<Event>>, last_seq: u64) -> Self {
        let log = Self {
            kept: Mutex::default(),
            last: watch::Sender::new(0),
        };
        log.restore(restored, last_seq);
        log
    }

    /// Begins anew, as [`Self::new`]: what was there belongs to a state that is read only now.
    pub fn restore(&self, restored: Vec<Arc<Event>>, last_seq: u64) {
        let restored = restored.into_iter().rev().take(KEPT).rev().collect();
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = restored;
        self.last.send_replace(last_seq);
    }

    /// The number of the last event; 0: there was none.
    pub fn last_seq(&self) -> u64 {
        *self.last.borrow()
    }

    /// Wakes when events were added.
    pub fn follow(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    pub fn add(&self, event: Arc<Event>) {
        let seq = event.seq;
        {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() == KEPT {
                kept.pop_front();
            }
            kept.push_back(event);
        }
        self.last.send_replace(seq);
    }

    /// The oldest events in memory, at most `limit`.
    pub fn kept(&self, limit: usize) -> Vec<Arc<Event>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().take(limit).cloned().collect()
    }

    /// The events after number `after` that are in memory, oldest first, at most `limit`; `None`: some of them are only on
    /// the disk.
    pub fn after(&self, after: u64, limit: usize) -> Option<Vec<Arc<Event>>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let first = kept.front().map_or_else(|| self.last_seq() + 1, |event| event.seq);
        (after + 1 >= first).then(|| {
            kept.iter()
                .filter(|event| event.seq > after)
                .take(limit)
                .cloned()
                .collect()
        })
    }
}

//! The first publication with the state that was kept.

use super::rollouts::Rollouts;
use super::{Reading, Writer, now_ms, now_s};
use crate::config::Snapshot;
use crate::control::assembly::Assembly;
use crate::control::commands::Orders;
use crate::control::event_log::EventLog;
use crate::control::file_watcher::{FileEvent, FileWatcher};
use crate::control::health_checker::HealthChecker;
use crate::control::records::Records;
use crate::control::store::{Restored, Store};
use crate::rollout::Now;
use crate::runtime::{self, Command, EventKind, Happened, Origin};
use crate::shared::{InForce, Shared};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// A writer that does not know the state yet.
pub struct Unbegun {
    pub shared: Arc<Shared>,
    pub assembly: Assembly,
    pub health: Arc<HealthChecker>,
    pub path: PathBuf,
    pub started: Arc<Snapshot>,
    pub watcher: FileWatcher,
    pub events: mpsc::Receiver<FileEvent>,
    pub orders: Orders,
    pub log: Arc<EventLog>,
    pub rollouts: Rollouts,
}

impl Unbegun {
    /// Puts what was kept in force, with what the file says now. Nothing is served before.
    pub async fn begin(mut self, store: Store, restored: Restored, kind: EventKind) -> Writer {
        let by = Origin {
            who: "rollgate".to_owned(),
            from: format!("pid {}", std::process::id()),
            at_ms: now_ms(),
            reason: None,
        };
        // No refusal for a file: what it says is what is asked for.
        let now = Now {
            uptime_ms: u64::try_from(self.shared.uptime().as_millis()).unwrap_or(u64::MAX),
            unix_s: i64::try_from(now_s()).unwrap_or(i64::MAX),
        };
        let load = runtime::apply(&restored.state, &self.started, &Command::Restore, &by, now);
        let (state, mut happened, asks) = match load {
            Ok(change) => (change.state, change.happened, change.asks),
            Err(_) => (restored.state, Vec::new(), Vec::new()),
        };
        happened.insert(0, began(kind, &self.path));
        self.assembly.keep_key_in(store.clone());
        let state = Arc::new(state);
        let previous = self.shared.load();
        let snapshot = Arc::clone(&self.started);
        let next = self
            .assembly
            .next(snapshot, Arc::clone(&state), Some(&previous), Duration::ZERO);
        let next = InForce {
            // No number is given twice: a change that expects an older one must not find it again.
            generation: restored
                .events
                .last()
                .map_or(previous.generation, |event| event.generation + 1),
            ..next.await
        };
        self.log.restore(restored.events, restored.last_seq);
        let mut records = Records::new(Arc::clone(&state), Arc::new(store), self.log);
        let events = records.number(happened, &by, &next, next.generation);
        self.shared.publish(next);
        drop(records.settle(state, events));
        let mut writer = Writer {
            shared: self.shared,
            assembly: self.assembly,
            health: self.health,
            path: self.path,
            started: self.started,
            watcher: self.watcher,
            events: self.events,
            orders: self.orders,
            records,
            reading: Reading::default(),
            rollouts: self.rollouts,
        };
        writer.hand_over(asks);
        writer
    }
}

fn began(kind: EventKind, path: &Path) -> Happened {
    Happened {
        kind,
        service: None,
        before: Value::Null,
        after: Value::Null,
        text: format!("rollgate {} serves {}", env!("CARGO_PKG_VERSION"), path.display()),
    }
}

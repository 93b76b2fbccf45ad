//! The state of this process, from when it is this process's, and its hand-over to another.

use super::upgrade::Custody;
use crate::admin::Kept;
use crate::control::commands::Commander;
use crate::control::event_log::Event;
use crate::control::notifier::Notifier;
use crate::control::records::Keep;
use crate::control::store::Store;
use async_trait::async_trait;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How long the end waits for the disk to take what it has not taken yet.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The store and what else is kept in it, once it is open: a process that takes over opens it last.
#[derive(Clone, Default)]
pub struct Held(Arc<OnceLock<(Store, Arc<Notifier>)>>);

impl Held {
    pub fn set(&self, store: Store, notifier: Arc<Notifier>) {
        // Opened once a process.
        let _ = self.0.set((store, notifier));
    }

    pub fn get(&self) -> Option<&Store> {
        self.0.get().map(|(store, _)| store)
    }

    fn notifier(&self) -> Option<&Notifier> {
        self.0.get().map(|(_, notifier)| &**notifier)
    }

    /// Writes what is not written yet, and gives the state up.
    pub fn close(&self) {
        if let Some(Err(error)) = self.get().map(|store| store.close(LAST_WORDS)) {
            tracing::error!(error, "the last changes are lost: they could not be written");
        }
    }
}

#[async_trait]
impl Kept for Held {
    fn not_durable(&self) -> Option<String> {
        match self.get() {
            Some(store) => store.not_durable(),
            None => Some("it is not read yet".to_owned()),
        }
    }

    async fn events(&self, after: u64, limit: usize) -> Result<Vec<Event>, String> {
        match self.get() {
            Some(store) => store.events(after, limit).await.map_err(|error| error.to_string()),
            None => Ok(Vec::new()),
        }
    }
}

/// See the module.
pub struct StateCustody {
    pub commander: Commander,
    pub held: Held,
}

#[async_trait]
impl Custody for StateCustody {
    async fn freeze(&self) -> Result<Option<OwnedFd>, String> {
        self.commander.freeze().await;
        if let Some(notifier) = self.held.notifier() {
            notifier.freeze().await;
        }
        match self.held.get() {
            Some(store) => store.freeze().await.map(|lock| Some(lock.into())),
            None => Err("the state is not this process's yet: ask again".to_owned()),
        }
    }

    async fn overruled(&self) {
        self.commander.overruled().await;
    }

    async fn thaw(&self) {
        if let Some(store) = self.held.get()
            && let Err(error) = store.thaw().await
        {
            tracing::error!(error, "the state is not durable");
        }
        if let Some(notifier) = self.held.notifier() {
            notifier.thaw();
        }
        self.commander.thaw().await;
    }
}

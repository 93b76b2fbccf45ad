//! The audit log as far back as it is kept, read by connections of its own: neither the writing thread nor the caller's is
//! kept waiting.

use super::content;
use super::database::connect_to_read;
use super::trouble::told;
use crate::control::event_log::Event;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Most events that are read at once.
pub const PAGE: usize = 1000;

/// Readers at a time; others wait.
const READERS: usize = 4;

/// Why the audit log cannot be read from the disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the audit log in {} cannot be read: {why}", .file.display())]
pub struct NoHistory {
    file: PathBuf,
    why: String,
}

pub(super) struct History {
    file: PathBuf,
    busy: Duration,
    readers: Semaphore,
}

impl History {
    pub fn new(file: PathBuf, busy: Duration) -> Self {
        Self {
            file,
            busy,
            readers: Semaphore::new(READERS),
        }
    }

    pub async fn after(&self, after: u64, limit: usize) -> Result<Vec<Event>, NoHistory> {
        let none = |why| NoHistory {
            file: self.file.clone(),
            why,
        };
        let Ok(_permit) = self.readers.acquire().await else {
            return Err(none("it is closed".to_owned()));
        };
        let (file, busy) = (self.file.clone(), self.busy);
        let page = limit.min(PAGE);
        let reading = tokio::task::spawn_blocking(move || read(&file, busy, after, page));
        match reading.await {
            Ok(events) => events.map_err(|error| none(told(&error))),
            Err(broken) => Err(none(broken.to_string())),
        }
    }
}

fn read(file: &Path, busy: Duration, after: u64, limit: usize) -> rusqlite::Result<Vec<Event>> {
    let connection = connect_to_read(file, busy)?;
    content::events_after(&connection, after, limit)
}

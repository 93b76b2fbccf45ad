//! Notifications that wait for their receivers, as rows: they outlive the process, so that each is told at least once.

use super::content::row_id;
use rusqlite::{Connection, Transaction, params};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The most entries that wait, in memory and on the disk.
pub const OUTBOX_MOST: usize = 10_000;

/// Rows written or deleted in one transaction: those who wait for the disk wait a few milliseconds.
const CHANGED_AT_ONCE: usize = 500;

/// One notification for one receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxEntry {
    /// Its place in the order, from 1: of two for one receiver the lower goes first.
    pub place: u64,
    /// Tells it apart from all others, for its receiver too.
    pub id: Box<str>,
    /// Whom it is for, in a form that does not tell the address.
    pub receiver: Box<str>,
    /// When it was queued, in milliseconds since the Unix epoch.
    pub queued_ms: u64,
    pub body: Arc<str>,
}

/// What the table holds: ids by places.
pub(super) type Kept = BTreeMap<u64, Box<str>>;

/// The latest [`OUTBOX_MOST`], in order.
pub(super) fn read(connection: &Connection) -> rusqlite::Result<Vec<Arc<OutboxEntry>>> {
    let sql = "SELECT place, id, receiver, queued_ms, body FROM outbox WHERE place > 0 ORDER BY place DESC LIMIT ?1";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([OUTBOX_MOST as i64], |row| {
        let (place, id, receiver, queued_ms, body): (i64, String, String, i64, String) = row.try_into()?;
        Ok(Arc::new(OutboxEntry {
            place: place.unsigned_abs(),
            id: id.into(),
            receiver: receiver.into(),
            queued_ms: queued_ms.unsigned_abs(),
            body: body.into(),
        }))
    })?;
    let mut entries = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    entries.reverse();
    Ok(entries)
}

pub(super) fn kept(entries: &[Arc<OutboxEntry>]) -> Kept {
    entries.iter().map(|entry| (entry.place, entry.id.clone())).collect()
}

/// A part of the way from one content of the table to another.
pub(super) struct Step {
    gone: Vec<u64>,
    new: Vec<Arc<OutboxEntry>>,
    /// Whether it leaves something to do.
    pub more: bool,
}

/// What makes a table that holds `kept` one that holds `wanted`, or a part of it.
pub(super) fn step(kept: &Kept, wanted: &[Arc<OutboxEntry>]) -> Step {
    let ids: HashMap<u64, &str> = wanted.iter().map(|entry| (entry.place, &*entry.id)).collect();
    let gone = || kept.keys().filter(|place| !ids.contains_key(place)).copied();
    let is_new = |entry: &&Arc<OutboxEntry>| kept.get(&entry.place) != Some(&entry.id);
    let all = gone().count() + wanted.iter().filter(is_new).count();
    let gone: Vec<u64> = gone().take(CHANGED_AT_ONCE).collect();
    let room = CHANGED_AT_ONCE - gone.len();
    Step {
        gone,
        new: wanted.iter().filter(is_new).take(room).cloned().collect(),
        more: all > CHANGED_AT_ONCE,
    }
}

impl Step {
    pub fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.new.is_empty()
    }

    pub fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let mut delete = transaction.prepare("DELETE FROM outbox WHERE place = ?1")?;
        for place in &self.gone {
            delete.execute([row_id(*place)])?;
        }
        let sql = "REPLACE INTO outbox (place, id, receiver, queued_ms, body) VALUES (?1, ?2, ?3, ?4, ?5)";
        let mut replace = transaction.prepare(sql)?;
        for entry in &self.new {
            let (place, queued_ms) = (row_id(entry.place), row_id(entry.queued_ms));
            replace.execute(params![place, entry.id, entry.receiver, queued_ms, entry.body])?;
        }
        Ok(())
    }

    /// After it is written.
    pub fn note(self, kept: &mut Kept) {
        for place in &self.gone {
            kept.remove(place);
        }
        kept.extend(self.new.iter().map(|entry| (entry.place, entry.id.clone())));
    }
}

//! The tables, and how a file of an older version becomes one of this version.
//!
//! A step is never edited once it was released: a further one is added. What an older version could not read (a new field
//! that matters, another meaning) is a step too, if an empty one, so that it refuses the file instead of misreading it.

use super::trouble::Trouble;
use rusqlite::{Connection, Transaction};
use std::path::Path;

/// In the file's header (<https://www.sqlite.org/fileformat2.html>, offset 68): `RGST`.
pub(super) const APPLICATION_ID: i32 = 0x5247_5354;

/// Brings a database from the version that is its index to the next one.
pub(super) type Step = fn(&Transaction<'_>) -> rusqlite::Result<()>;

pub(super) const STEPS: &[Step] = &[first, outbox];

/// Version 1. `digest`: see [`super::content`]. Times are RFC 3339 in UTC, which sort as text.
fn first(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL, digest BLOB NOT NULL) STRICT, WITHOUT ROWID;
         CREATE TABLE services (name TEXT PRIMARY KEY, state TEXT NOT NULL, digest BLOB NOT NULL) STRICT, WITHOUT ROWID;
         CREATE TABLE secrets (name TEXT PRIMARY KEY, secret BLOB NOT NULL, digest BLOB NOT NULL) STRICT, WITHOUT ROWID;
         CREATE TABLE events (seq INTEGER PRIMARY KEY, time TEXT NOT NULL, body TEXT NOT NULL) STRICT;",
    )
}

/// Version 2: notifications that wait. `receiver` is a digest: addresses hold secrets. `queued_ms`: since the Unix epoch.
fn outbox(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "CREATE TABLE outbox (place INTEGER PRIMARY KEY, id TEXT NOT NULL, receiver TEXT NOT NULL, queued_ms INTEGER NOT NULL,
         body TEXT NOT NULL) STRICT;",
    )
}

/// Refuses what is not ours, or of a version after the last of `steps`.
pub(super) fn known(file: &Path, connection: &Connection, steps: &[Step]) -> Result<(), Trouble> {
    let pragma = |name| {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, i32>(0))
            .map_err(|error| Trouble::of(file, &error))
    };
    if pragma("application_id")? != APPLICATION_ID {
        return Err(Trouble::unreadable("it is a database of another program"));
    }
    let version = pragma("user_version")?;
    if usize::try_from(version).is_ok_and(|version| version > steps.len()) {
        return Err(Trouble::unreadable(format!(
            "a newer version of Rollgate wrote it: its schema is {version}, this version knows up to {}. Run the newer version",
            steps.len()
        )));
    }
    if version < 1 {
        return Err(Trouble::unreadable(format!("its schema is {version}")));
    }
    Ok(())
}

/// Takes the steps that are missing. They hold with the transaction, or not at all.
pub(super) fn migrate(transaction: &Transaction<'_>, steps: &[Step]) -> rusqlite::Result<()> {
    let version: i32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for (step, next) in steps.iter().zip(1..).skip_while(|(_, next)| *next <= version) {
        step(transaction)?;
        transaction.pragma_update(None, "user_version", next)?;
        if version > 0 {
            tracing::info!(schema = next, "the state is brought to a newer schema");
        }
    }
    Ok(())
}

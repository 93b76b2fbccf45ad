//! What is in the tables: a [`State`], the audit log and the secret, to rows and back.
//!
//! SQLite notices damage to its own structure, not to the text in it: a weight of 90 may become one of 10 by a single bit.
//! So each row of what decides about traffic has a digest beside it.

use super::outbox::{self, OutboxEntry};
use super::secret::Secret;
use super::trouble::Trouble;
use crate::control::event_log::{Event, KEPT};
use crate::runtime::{ServiceState, State};
use ring::digest::{Context, SHA256};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// All of it but older events.
#[derive(Clone, Default)]
pub(super) struct Content {
    pub state: State,
    /// The latest [`KEPT`], in order.
    pub events: Vec<Arc<Event>>,
    /// The number of the last event that ever was.
    pub last_seq: u64,
    pub secret: Option<Secret>,
    /// Notifications that wait, in order.
    pub outbox: Vec<Arc<OutboxEntry>>,
}

/// What is written with a state.
#[derive(Clone, Copy, Default)]
pub(super) struct Rest<'a> {
    /// One with the number of an earlier one replaces it.
    pub events: &'a [Arc<Event>],
    /// The number of the last one that ever was, these included.
    pub last_seq: u64,
    pub secret: Option<&'a Secret>,
}

const SECRET: &str = "cookie_key";

/// Everything in `connection`, a database in `file` of the newest schema.
pub(super) fn read(file: &Path, connection: &Connection) -> Result<Content, Trouble> {
    let of = |error| Trouble::of(file, &error);
    Ok(Content {
        state: State {
            kill: setting(file, connection, "kill")?,
            file_kill: setting(file, connection, "file_kill")?,
            floor_epoch: setting(file, connection, "floor_epoch")?,
            services: services(file, connection)?,
        },
        events: latest_events(connection).map_err(of)?,
        last_seq: setting(file, connection, "last_seq")?,
        secret: secret(connection).map_err(of)?.transpose()?,
        outbox: outbox::read(connection).map_err(of)?,
    })
}

fn setting<T: DeserializeOwned>(file: &Path, connection: &Connection, key: &str) -> Result<T, Trouble> {
    let row = connection
        .query_row("SELECT value, digest FROM settings WHERE key = ?1", [key], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?))
        })
        .optional()
        .map_err(|error| Trouble::of(file, &error))?;
    let (value, kept) = row.ok_or_else(|| Trouble::unreadable(format!("its setting `{key}` is missing")))?;
    decoded(key, &value, &kept)
}

fn services(file: &Path, connection: &Connection) -> Result<BTreeMap<Arc<str>, Arc<ServiceState>>, Trouble> {
    let of = |error| Trouble::of(file, &error);
    let mut statement = connection
        .prepare("SELECT name, state, digest FROM services")
        .map_err(of)?;
    let mut rows = statement.query([]).map_err(of)?;
    let mut services = BTreeMap::new();
    while let Some(row) = rows.next().map_err(of)? {
        let (name, state, kept): (String, String, Vec<u8>) = row.try_into().map_err(of)?;
        services.insert(name.as_str().into(), Arc::new(decoded(&name, &state, &kept)?));
    }
    Ok(services)
}

fn secret(connection: &Connection) -> rusqlite::Result<Option<Result<Secret, Trouble>>> {
    let sql = "SELECT secret, digest FROM secrets WHERE name = ?1";
    let read = |row: &rusqlite::Row<'_>| {
        let (secret, kept): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let right = digest(SECRET, &secret) == kept[..];
        let secret = secret.try_into().ok().filter(|_| right).map(Secret::new);
        Ok(secret.ok_or_else(|| Trouble::unreadable("its cookie key is damaged")))
    };
    connection.query_row(sql, [SECRET], read).optional()
}

fn decoded<T: DeserializeOwned>(name: &str, text: &str, kept: &[u8]) -> Result<T, Trouble> {
    if digest(name, text.as_bytes())[..] != *kept {
        return Err(Trouble::unreadable(format!("what it says of `{name}` is damaged")));
    }
    serde_json::from_str(text)
        .map_err(|error| Trouble::unreadable(format!("what it says of `{name}` makes no sense: {error}")))
}

/// Of a row: its name, with its length, and its value.
fn digest(name: &str, value: &[u8]) -> [u8; 16] {
    let mut context = Context::new(&SHA256);
    context.update(&(name.len() as u64).to_be_bytes());
    context.update(name.as_bytes());
    context.update(value);
    let whole = context.finish();
    // Half of it: this is against accidents.
    whole.as_ref().first_chunk().copied().unwrap_or_default()
}

fn latest_events(connection: &Connection) -> rusqlite::Result<Vec<Arc<Event>>> {
    let mut statement = connection.prepare("SELECT seq, body FROM events ORDER BY seq DESC LIMIT ?1")?;
    let mut events = collect_events(statement.query([KEPT as i64])?)?;
    events.reverse();
    Ok(events.into_iter().map(Arc::new).collect())
}

/// At most `limit` events after number `after`, oldest first.
pub(super) fn events_after(connection: &Connection, after: u64, limit: usize) -> rusqlite::Result<Vec<Event>> {
    let mut statement = connection.prepare("SELECT seq, body FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    collect_events(statement.query(params![row_id(after), limit])?)
}

/// A line of the log that cannot be read is left out: no reason to do without the others, or not to start.
fn collect_events(mut rows: rusqlite::Rows<'_>) -> rusqlite::Result<Vec<Event>> {
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        let (seq, body): (i64, String) = (row.get(0)?, row.get(1)?);
        match serde_json::from_str(&body) {
            Ok(event) => events.push(event),
            Err(error) => tracing::warn!(seq, %error, "an event of the audit log cannot be read"),
        }
    }
    Ok(events)
}

/// SQLite's integers have a sign. Numbers of events fit: there is less than one a nanosecond.
pub(super) fn row_id(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Fills tables that were just made.
pub(super) fn write_first(transaction: &Transaction<'_>, content: &Content) -> rusqlite::Result<()> {
    // Whole, whatever it is: nothing is there yet.
    write_settings(transaction, None, &content.state)?;
    let rest = Rest {
        events: &content.events,
        last_seq: content.last_seq,
        secret: content.secret.as_ref(),
    };
    write(transaction, &State::default(), &content.state, &rest)
}

/// Makes of tables that hold `before` ones that hold `state` and the rest.
pub(super) fn write(
    transaction: &Transaction<'_>,
    before: &State,
    state: &State,
    rest: &Rest<'_>,
) -> rusqlite::Result<()> {
    // Another one each time, so that no transaction is empty: it overwrites in SQLite's log what one that failed half-way
    // may have left there, and a crash would bring back.
    put(transaction, "mark", &fastrand::u64(..))?;
    write_settings(transaction, Some(before), state)?;
    write_services(transaction, before, state)?;
    write_events(transaction, rest.events)?;
    put(transaction, "last_seq", &rest.last_seq)?;
    if let Some(secret) = rest.secret {
        transaction.execute(
            "REPLACE INTO secrets (name, secret, digest) VALUES (?1, ?2, ?3)",
            params![SECRET, secret.bytes(), digest(SECRET, secret.bytes())],
        )?;
    }
    Ok(())
}

/// `before`: `None` if nothing is there.
fn write_settings(transaction: &Transaction<'_>, before: Option<&State>, state: &State) -> rusqlite::Result<()> {
    // In full, so that a field that is added cannot be forgotten here.
    let State {
        kill,
        file_kill,
        floor_epoch,
        services: _,
    } = state;
    if before.is_none_or(|before| before.kill != *kill) {
        put(transaction, "kill", kill)?;
    }
    if before.is_none_or(|before| before.file_kill != *file_kill) {
        put(transaction, "file_kill", file_kill)?;
    }
    if before.is_none_or(|before| before.floor_epoch != *floor_epoch) {
        put(transaction, "floor_epoch", floor_epoch)?;
    }
    Ok(())
}

fn write_services(transaction: &Transaction<'_>, before: &State, state: &State) -> rusqlite::Result<()> {
    let mut remove = transaction.prepare("DELETE FROM services WHERE name = ?1")?;
    for name in before
        .services
        .keys()
        .filter(|name| !state.services.contains_key(*name))
    {
        remove.execute([name])?;
    }
    let mut replace = transaction.prepare("REPLACE INTO services (name, state, digest) VALUES (?1, ?2, ?3)")?;
    for (name, service) in &state.services {
        let same = |before: &Arc<ServiceState>| Arc::ptr_eq(before, service) || before == service;
        if !before.services.get(name).is_some_and(same) {
            let text = json(&**service)?;
            replace.execute(params![name, text, digest(name, text.as_bytes())])?;
        }
    }
    Ok(())
}

fn write_events(transaction: &Transaction<'_>, events: &[Arc<Event>]) -> rusqlite::Result<()> {
    let mut replace = transaction.prepare("REPLACE INTO events (seq, time, body) VALUES (?1, ?2, ?3)")?;
    for event in events {
        replace.execute(params![row_id(event.seq), event.time, json(&**event)?])?;
    }
    Ok(())
}

fn put(transaction: &Transaction<'_>, key: &str, value: &impl Serialize) -> rusqlite::Result<()> {
    let text = json(value)?;
    transaction
        .execute(
            "REPLACE INTO settings (key, value, digest) VALUES (?1, ?2, ?3)",
            params![key, text, digest(key, text.as_bytes())],
        )
        .map(drop)
}

fn json(value: &impl Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

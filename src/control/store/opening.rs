//! From a directory to a state: the one that is there, an empty one, or one that kills everything.

use super::content::Content;
use super::database::Database;
use super::place::{Lock, Place, Scratch};
use super::schema::STEPS;
use super::trouble::{StoreError, Trouble};
use crate::control::event_log::Event;
use crate::runtime::{EventKind, Happened, Latch, Origin, State};
use crate::telemetry::rfc3339;
use serde_json::{Value, json};
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where changes go.
pub(super) enum Disk {
    Open(Database),
    /// Nowhere for now.
    Shut {
        why: String,
        expected: Expected,
    },
    /// Another process has it.
    HandedOver,
}

/// What may be overwritten when the database can be opened again.
pub(super) enum Expected {
    /// Whatever it holds: it was under our lock all the time.
    Anything,
    /// It holds what was read at the start.
    Same { state: State, last_seq: u64 },
    /// There is none.
    Nothing,
}

/// The directory as it was found at the start.
pub(super) struct Found {
    pub lock: Option<Lock>,
    pub disk: Disk,
    pub content: Content,
}

/// Opens what is in `place`, or makes it; with `recover`, sets aside what cannot be read. Without a disk to write to it is
/// still found, with [`Disk::Shut`].
pub(super) fn find(place: &Place, handed: Option<File>, recover: bool, busy: Duration) -> Result<Found, StoreError> {
    let at_start = |trouble: Trouble| trouble.at_start(place.directory(), place.database());
    let mut lock = None;
    let opened = match open(place, &mut lock, handed, &Expected::Anything, busy) {
        Err(Trouble::Unwritable { why }) => read_only(place, busy).map(|(content, expected)| {
            let disk = Disk::Shut { why, expected };
            (disk, content)
        }),
        opened => opened.map(|(database, content)| (Disk::Open(database), content)),
    };
    let (disk, content) = match opened {
        Err(Trouble::Unreadable { found }) if recover => begin_killed(place, &found, busy)?,
        opened => opened.map_err(at_start)?,
    };
    Ok(Found { lock, disk, content })
}

/// Opens the database for writing, made if there is none, under the lock, which is taken unless it is held, or was `handed`
/// over.
pub(super) fn open(
    place: &Place,
    lock: &mut Option<Lock>,
    handed: Option<File>,
    expected: &Expected,
    busy: Duration,
) -> Result<(Database, Content), Trouble> {
    place.prepare()?;
    *lock = Some(Lock::take(place, lock.take().map(Lock::into_file).or(handed))?);
    let database = place.database();
    if !place.is_taken()? {
        Database::make(place, STEPS, &Content::default())?;
        place.install().map_err(|error| Trouble::unwritable(&database, error))?;
    } else if matches!(expected, Expected::Nothing) {
        return Err(changed(place));
    }
    let (database, content) = Database::open(&database, STEPS, busy)?;
    if let Expected::Same { state, last_seq } = expected
        && (content.state != *state || content.last_seq != *last_seq)
    {
        return Err(changed(place));
    }
    Ok((database, content))
}

/// What appeared while this process ran may hold a kill switch of which it knows nothing.
fn changed(place: &Place) -> Trouble {
    let why =
        "another state has come here since this process looked: restart it to use that one, or move that one away";
    Trouble::inaccessible(&place.database(), why)
}

/// What can be read where nothing can be written: nothing, if nothing is there.
fn read_only(place: &Place, busy: Duration) -> Result<(Content, Expected), Trouble> {
    if !place.is_taken()? {
        return Ok((Content::default(), Expected::Nothing));
    }
    // SQLite must write beside a database to read it with its log. So it gets a copy of both.
    let database = place.database();
    let inaccessible = |error| Trouble::inaccessible(&database, error);
    let scratch = Scratch::new().map_err(inaccessible)?;
    let copy = place.copy_into(scratch.path()).map_err(inaccessible)?;
    let content = match Database::open(&copy, STEPS, busy) {
        Ok((_, content)) => content,
        Err(Trouble::Unwritable { why }) => return Err(Trouble::inaccessible(&database, why)),
        Err(trouble) => return Err(trouble),
    };
    let expected = Expected::Same {
        state: content.state.clone(),
        last_seq: content.last_seq,
    };
    Ok((content, expected))
}

/// Sets the database aside and puts one in its place that sends everything to stable.
fn begin_killed(place: &Place, found: &str, busy: Duration) -> Result<(Disk, Content), StoreError> {
    let database = place.database();
    let failed = |why: String| StoreError::CannotSetAside {
        file: database.clone(),
        why,
    };
    let now = SystemTime::now();
    let time: String = rfc3339(now).chars().filter(|c| !matches!(c, '-' | ':' | '.')).collect();
    Database::make(place, STEPS, &killed(found, now)).map_err(|trouble| failed(trouble.while_running()))?;
    let aside = place.set_aside(&time).map_err(|error| failed(error.to_string()))?;
    place.install().map_err(|error| failed(error.to_string()))?;
    tracing::warn!(
        found, aside = %aside.display(),
        "the state cannot be used and was set aside: everything goes to stable until `rollgate unkill --all`"
    );
    Database::open(&database, STEPS, busy)
        .map(|(database, content)| (Disk::Open(database), content))
        .map_err(|trouble| failed(trouble.while_running()))
}

/// Nothing reaches a canary before a person says so. Epochs and numbers of events go on above any that can have been in
/// what was lost, by the clock: cookies of before are void, and who follows the events misses none.
fn killed(found: &str, now: SystemTime) -> Content {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let by = Origin {
        who: "recover".to_owned(),
        from: "--recover-state".to_owned(),
        at_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        reason: Some(format!("the state could not be used: {found}")),
    };
    let happened = Happened {
        kind: EventKind::Kill,
        service: None,
        before: Value::Null,
        after: json!({ "killed": true }),
        text: format!(
            "the state could not be used ({found}) and was set aside; all services: killed, everything goes to stable until \
             `unkill --all`"
        ),
    };
    let event = Event::new(since.as_secs(), happened, &by, 0, Value::Null);
    Content {
        state: State {
            kill: Some(Latch { by }),
            floor_epoch: u32::try_from(since.as_secs()).unwrap_or(u32::MAX),
            ..State::default()
        },
        last_seq: event.seq,
        events: vec![Arc::new(event)],
        secret: None,
        outbox: Vec::new(),
    }
}

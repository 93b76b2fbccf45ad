//! One open database: made, opened, written, thinned, closed.

use super::Retention;
use super::content::{self, Content, Rest};
use super::outbox::{self, OutboxEntry};
use super::place::{Identity, Place};
use super::schema::{self, Step};
use super::secret::Secret;
use super::trouble::{Trouble, told};
use crate::control::event_log::Event;
use crate::runtime::State;
use crate::telemetry::rfc3339;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How long a backup by another program may hold us up.
pub(super) const BUSY: Duration = Duration::from_secs(5);

/// Files up to this size are checked page by page when they are opened, which is a tenth of a second from a slow disk. Of
/// larger ones all but the audit log is, which is most of them.
const CHECKED_WHOLE_BYTES: u64 = 16 << 20;

/// Pages after which SQLite moves its log into the database (1 MiB), and what it may keep of the log's file then.
const CHECKPOINT_PAGES: i64 = 256;
const LOG_BYTES_KEPT: i64 = 4 << 20;

/// Events deleted in one transaction: those who wait for the disk wait a few milliseconds.
const THINNED_AT_ONCE: i64 = 500;

pub(super) struct Database {
    connection: Connection,
    path: PathBuf,
    identity: Identity,
    /// What the tables hold.
    state: Arc<State>,
    last_seq: u64,
    outbox: outbox::Kept,
}

/// Why nothing was written.
pub(super) struct NotWritten {
    pub why: String,
    /// The next attempt may use the same connection.
    pub still_open: bool,
}

impl Database {
    /// Opens what is in `path`, checks it, brings it to the newest schema and reads it.
    pub fn open(path: &Path, steps: &[Step], busy: Duration) -> Result<(Self, Content), Trouble> {
        let of = |error| Trouble::of(path, &error);
        check_header(path)?;
        let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE, busy).map_err(of)?;
        if connection.is_readonly(rusqlite::MAIN_DB).map_err(of)? {
            return Err(Trouble::unwritable(path, "it may be read only"));
        }
        schema::known(path, &connection, steps)?;
        check_pages(path, &connection)?;
        let transaction = connection.transaction().map_err(of)?;
        schema::migrate(&transaction, steps).map_err(of)?;
        // What makes no sense stays as it was: then this goes back.
        let content = content::read(path, &transaction)?;
        transaction.commit().map_err(of)?;
        set_up(&connection).map_err(of)?;
        let database = Self {
            identity: Identity::of(path).map_err(|error| Trouble::inaccessible(path, error))?,
            connection,
            path: path.to_owned(),
            state: Arc::new(content.state.clone()),
            last_seq: content.last_seq,
            outbox: outbox::kept(&content.outbox),
        };
        Ok((database, content))
    }

    /// Makes a database of `content` under the name of a fresh one: whoever finds it installed finds it whole.
    pub fn make(place: &Place, steps: &[Step], content: &Content) -> Result<(), Trouble> {
        let fresh = place.fresh();
        let unwritable = |error| Trouble::unwritable(&fresh, error);
        place.clear_fresh().map_err(unwritable)?;
        let empty = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh);
        drop(empty.map_err(unwritable)?);
        let fill = || {
            let mut connection = connect(&fresh, OpenFlags::SQLITE_OPEN_READ_WRITE, Duration::ZERO)?;
            connection.pragma_update(None, "application_id", schema::APPLICATION_ID)?;
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            schema::migrate(&transaction, steps)?;
            content::write_first(&transaction, content)?;
            transaction.commit()?;
            connection.close().map_err(|(_, error)| error)
        };
        fill().map_err(|error| Trouble::unwritable(&fresh, told(&error)))
    }

    /// What the tables hold.
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.state)
    }

    /// Makes it durable: when it returns without an error, it is on the disk.
    pub fn write(
        &mut self,
        state: &Arc<State>,
        events: &[Arc<Event>],
        secret: Option<&Secret>,
    ) -> Result<(), NotWritten> {
        let before = &self.state;
        // Not that of the last one here: an earlier event may be told again after a later one.
        let last_seq = events.iter().map(|event| event.seq).fold(self.last_seq, u64::max);
        let rest = Rest {
            events,
            last_seq,
            secret,
        };
        let commit = |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            content::write(&transaction, before, state, &rest)?;
            transaction.commit()
        };
        commit(&mut self.connection).map_err(|error| self.not_written(&error))?;
        self.state = Arc::clone(state);
        self.last_seq = last_seq;
        self.still_in_place()
    }

    /// Brings the outbox nearer to `wanted`, in one transaction of a few hundred rows. Returns whether something is left.
    pub fn write_outbox(&mut self, wanted: &[Arc<OutboxEntry>]) -> Result<bool, NotWritten> {
        let step = outbox::step(&self.outbox, wanted);
        if step.is_empty() {
            return Ok(false);
        }
        let commit = |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            step.write(&transaction)?;
            transaction.commit()
        };
        commit(&mut self.connection).map_err(|error| self.not_written(&error))?;
        let more = step.more;
        step.note(&mut self.outbox);
        self.still_in_place().map(|()| more)
    }

    /// What was written into a file that nobody will find is not durable.
    fn still_in_place(&self) -> Result<(), NotWritten> {
        if self.is_in_place() {
            return Ok(());
        }
        Err(NotWritten {
            why: format!("{} was removed or replaced while it was in use", self.path.display()),
            still_open: false,
        })
    }

    fn not_written(&self, error: &rusqlite::Error) -> NotWritten {
        let passing = [ErrorCode::DatabaseBusy, ErrorCode::DatabaseLocked, ErrorCode::DiskFull];
        NotWritten {
            why: format!("{}: {}", self.path.display(), told(error)),
            still_open: error.sqlite_error_code().is_some_and(|code| passing.contains(&code)),
        }
    }

    pub fn is_in_place(&self) -> bool {
        Identity::of(&self.path).is_ok_and(|there| there == self.identity)
    }

    /// Deletes some events that are too many, too old or take too much room, oldest first. Returns whether there may be
    /// more of them.
    pub fn thin(&mut self, retention: &Retention, now: SystemTime) -> rusqlite::Result<bool> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let pragma = |name| transaction.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let used = (pragma("page_count")? - pragma("freelist_count")?) * pragma("page_size")?;
        let too_large = used > retention.bytes;
        let oldest_day = rfc3339(now.checked_sub(retention.age).unwrap_or(SystemTime::UNIX_EPOCH));
        // Numbers may have gaps: then there are fewer than they say.
        let deleted = transaction.execute(
            "DELETE FROM events WHERE seq IN (SELECT seq FROM events ORDER BY seq LIMIT ?1)
             AND (time < ?2 OR ?3 OR seq <= (SELECT max(seq) FROM events) - ?4)",
            rusqlite::params![THINNED_AT_ONCE, oldest_day, too_large, retention.number],
        )?;
        transaction.commit()?;
        Ok(deleted > 0)
    }

    /// Leaves one file without a log, if no one else reads it.
    pub fn close(self) {
        // Of a file that was replaced, the log with its name is another's: SQLite would remove it.
        let tidy = self.is_in_place();
        let _ = self
            .connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, !tidy);
        if let Err((_, error)) = self.connection.close() {
            tracing::warn!(path = %self.path.display(), %error, "the state was not closed in order; nothing is lost");
        }
    }
}

/// A connection that only reads.
pub(super) fn connect_to_read(path: &Path, busy: Duration) -> rusqlite::Result<Connection> {
    connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY, busy)
}

fn connect(path: &Path, access: OpenFlags, busy: Duration) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(busy)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    // Until it is known to be ours and in order, not even closing changes the file.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update_and_check(None, "wal_autocheckpoint", CHECKPOINT_PAGES, |_| Ok(()))?;
    connection.pragma_update_and_check(None, "journal_size_limit", LOG_BYTES_KEPT, |_| Ok(()))
}

/// What the first bytes say (<https://www.sqlite.org/fileformat2.html>, section 1.3), in words of ours. Before SQLite opens
/// the file, and closed before: see [`Identity::of`].
fn check_header(path: &Path) -> Result<(), Trouble> {
    let read = || {
        let mut header = Vec::new();
        File::open(path)?.take(100).read_to_end(&mut header)?;
        Ok::<_, io::Error>(header)
    };
    let header = read().map_err(|error| Trouble::inaccessible(path, error))?;
    let format = header.get(18..20);
    match header.len() {
        0 => Err(Trouble::unreadable("it is empty")),
        100 if header.starts_with(b"SQLite format 3\0") && matches!(format, Some([1 | 2, 1 | 2])) => Ok(()),
        _ => Err(Trouble::unreadable("it is not a SQLite database")),
    }
}

/// Whether the pages fit together: all of a small file; of a large one those of every table but the events.
fn check_pages(path: &Path, connection: &Connection) -> Result<(), Trouble> {
    let of = |error| Trouble::of(path, &error);
    let bytes = std::fs::metadata(path).map_or(0, |found| found.len());
    if bytes <= CHECKED_WHOLE_BYTES {
        return check(path, connection, None);
    }
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'events'";
    let mut statement = connection.prepare(sql).map_err(of)?;
    let tables = statement.query_map([], |row| row.get::<_, String>(0)).map_err(of)?;
    for table in tables {
        check(path, connection, Some(&table.map_err(of)?))?;
    }
    Ok(())
}

fn check(path: &Path, connection: &Connection, table: Option<&str>) -> Result<(), Trouble> {
    let mut said = None;
    let remember = |row: &rusqlite::Row<'_>| {
        let line: String = row.get(0)?;
        said.get_or_insert(line);
        Ok(())
    };
    match table {
        Some(table) => connection.pragma(None, "quick_check", table, remember),
        None => connection.pragma_query(None, "quick_check", remember),
    }
    .map_err(|error| Trouble::of(path, &error))?;
    match said.as_deref() {
        Some("ok") => Ok(()),
        said => Err(Trouble::unreadable(format!(
            "it is damaged: {}",
            said.unwrap_or("no reason given")
        ))),
    }
}

use super::*;
use crate::control::store::content::{Content, Rest};
use crate::control::store::database::Database;
use crate::control::store::schema::{STEPS, Step};
use rusqlite::Transaction;

/// A database of schema 1 as a released version left it. It is never edited: it must stay readable.
const OF_SCHEMA_1: &str = include_str!("schema_1.sql");

/// The same of schema 2.
const OF_SCHEMA_2: &str = include_str!("schema_2.sql");

/// What [`OF_SCHEMA_1`] holds.
fn of_schema_1() -> State {
    let kill = Some(Latch { by: by("eve") });
    let killed = ServiceState {
        kill: kill.clone(),
        file_kill: true,
        set: None,
        ..service(0)
    };
    State {
        kill,
        file_kill: true,
        floor_epoch: 4_000_000_000,
        services: [("shop".into(), Arc::new(service(7))), ("cart".into(), Arc::new(killed))].into(),
    }
}

fn left_by_an_older_version(sql: &str) -> Restored {
    let directory = tempfile::tempdir().unwrap();
    let connection = rusqlite::Connection::open(database(directory.path())).unwrap();
    connection.execute_batch(sql).unwrap();
    connection.close().unwrap();
    found(directory.path())
}

#[test]
fn a_state_of_schema_1_is_read() {
    let restored = left_by_an_older_version(OF_SCHEMA_1);
    assert_eq!(restored.state, of_schema_1());
    assert_eq!(restored.last_seq, 1);
    assert_eq!(restored.events[0].text, "shop: v1=100 v2=7 (was v1=95 v2=5)");
    assert_eq!(restored.outbox, []);
}

#[test]
fn a_state_of_schema_2_is_read() {
    let restored = left_by_an_older_version(OF_SCHEMA_2);
    assert_eq!(restored.state, State::default());
    let entry = OutboxEntry {
        place: 7,
        id: "00ff".into(),
        receiver: "c0ffee".into(),
        queued_ms: 1_760_000_000_000,
        body: "{\"type\":\"step\"}".into(),
    };
    assert_eq!(restored.outbox, [Arc::new(entry)]);
}

/// When this fails, what older versions read has changed: add a step to the schema, so that they refuse it, and a file of
/// the new schema beside the old one.
#[test]
fn what_is_written_is_what_schema_1_says() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    drop(store.save(Arc::new(of_schema_1()), Vec::new()));
    close(store);
    let connection = rusqlite::Connection::open(database(directory.path())).unwrap();
    let sql = "SELECT 'settings', key, value FROM settings WHERE key NOT IN ('mark', 'last_seq') UNION ALL \
               SELECT 'services', name, state FROM services ORDER BY 1, 2";
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| {
        let (table, key, value): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(format!("INSERT INTO {table} VALUES('{key}','{value}',"))
    });
    for row in rows.unwrap() {
        let row = row.unwrap();
        assert!(OF_SCHEMA_1.contains(&row), "{row}");
    }
}

fn opened(path: &Path, steps: &[Step]) -> Result<Content, trouble::Trouble> {
    let (database, content) = Database::open(path, steps, Duration::ZERO)?;
    database.close();
    Ok(content)
}

fn version(path: &Path) -> i32 {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .unwrap()
}

/// A step of a version to come, that changes what is there.
fn raise_floor(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let before = State::default();
    let after = State {
        floor_epoch: 5,
        ..State::default()
    };
    content::write(transaction, &before, &after, &Rest::default())
}

fn add_table(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch("CREATE TABLE waves (name TEXT)")
}

fn broken(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    add_table(transaction)?;
    transaction.execute_batch("not SQL")
}

#[test]
fn steps_that_are_missing_are_taken_each_once() {
    let directory = tempfile::tempdir().unwrap();
    found(directory.path());
    let path = database(directory.path());
    let now = STEPS.len();
    let steps = [STEPS, &[raise_floor, add_table]].concat();
    assert_eq!(opened(&path, &steps).unwrap().state.floor_epoch, 5);
    // A second time, the table would be there already.
    assert_eq!(opened(&path, &steps).unwrap().state.floor_epoch, 5);
    assert_eq!(version(&path), i32::try_from(now).unwrap() + 2);
    let text = refused(directory.path()).to_string();
    assert!(text.contains("a newer version of Rollgate"), "{text}");
}

#[test]
fn a_step_that_fails_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    drop(store.save(state(7), Vec::new()));
    close(store);
    let path = database(directory.path());
    assert!(opened(&path, &[STEPS, &[broken]].concat()).is_err());
    assert_eq!(version(&path), i32::try_from(STEPS.len()).unwrap());
    assert_eq!(found(directory.path()).state, *state(7));
    assert!(
        opened(&path, &[STEPS, &[add_table]].concat()).is_ok(),
        "nothing of the failed step is left"
    );
}

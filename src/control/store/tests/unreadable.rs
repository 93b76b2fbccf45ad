//! Files that are no state, or no longer: always an error that says so, never another state.

use super::*;
use std::fs;

/// A closed state of weight 7 with some events.
fn kept(state_dir: &Path) {
    let (store, _) = open(state_dir);
    drop(store.save(state(7), (1..=40).map(event).collect()));
    close(store);
}

/// What is said of `bytes` in place of the database; they are still there afterwards.
fn said_of(bytes: &[u8]) -> String {
    let directory = tempfile::tempdir().unwrap();
    fs::write(database(directory.path()), bytes).unwrap();
    let error = refused(directory.path());
    assert!(matches!(error, StoreError::Unreadable { .. }), "{error}");
    assert!(fs::read(database(directory.path())).unwrap() == bytes, "it was changed");
    let text = error.to_string();
    assert!(text.contains(database(directory.path()).to_str().unwrap()), "{text}");
    assert!(text.contains("rollgate run --recover-state"), "{text}");
    text
}

#[test]
fn what_is_no_database_is_named() {
    assert!(said_of(b"").contains("it is empty"));
    for bytes in [
        &b"SQLite format 3\0"[..],
        &[0; 4096],
        b"listeners: []\n",
        &[0xff; 100_000],
    ] {
        assert!(said_of(bytes).contains("not a SQLite database"));
    }
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(database(directory.path())).unwrap();
    assert!(refused(directory.path()).to_string().contains("not a regular file"));
}

#[test]
fn what_has_the_right_beginning_and_then_garbage_is_damaged() {
    let directory = tempfile::tempdir().unwrap();
    kept(directory.path());
    let bytes = fs::read(database(directory.path())).unwrap();
    let mut garbage = bytes.clone();
    for byte in &mut garbage[100..] {
        *byte = byte.wrapping_mul(31).wrapping_add(7);
    }
    said_of(&garbage);
    said_of(&bytes[..100]);
}

/// A database as `sql` makes it.
fn made_by(sql: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("other");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute_batch(sql).unwrap();
    connection.close().unwrap();
    fs::read(path).unwrap()
}

#[test]
fn a_database_of_another_program_is_not_ours() {
    let text = said_of(&made_by("CREATE TABLE services (name TEXT)"));
    assert!(text.contains("a database of another program"), "{text}");
}

#[test]
fn a_database_of_ours_without_its_content_is_not_an_empty_state() {
    let id = schema::APPLICATION_ID;
    let text = said_of(&made_by(&format!("PRAGMA application_id = {id}; CREATE TABLE t (a)")));
    assert!(text.contains("its schema is 0"), "{text}");
    let id_and_version = format!("PRAGMA application_id = {id}; PRAGMA user_version = 1;");
    said_of(&made_by(&format!("{id_and_version} CREATE TABLE services (a)")));
    let directory = tempfile::tempdir().unwrap();
    kept(directory.path());
    let connection = rusqlite::Connection::open(database(directory.path())).unwrap();
    connection
        .execute("DELETE FROM settings WHERE key = 'kill'", [])
        .unwrap();
    connection.close().unwrap();
    let text = refused(directory.path()).to_string();
    assert!(text.contains("`kill` is missing"), "{text}");
}

#[test]
fn a_state_of_a_newer_version_says_which_and_stays_untouched() {
    let directory = tempfile::tempdir().unwrap();
    kept(directory.path());
    let newer = i32::try_from(schema::STEPS.len()).unwrap() + 1;
    let connection = rusqlite::Connection::open(database(directory.path())).unwrap();
    connection.pragma_update(None, "user_version", newer).unwrap();
    connection.close().unwrap();
    let before = fs::read(database(directory.path())).unwrap();
    let text = refused(directory.path()).to_string();
    assert!(text.contains("a newer version of Rollgate wrote it"), "{text}");
    assert!(text.contains(&format!("its schema is {newer}")), "{text}");
    assert!(
        fs::read(database(directory.path())).unwrap() == before,
        "it was changed"
    );
}

/// What comes of a database in which something was done to the bytes: an error, or the state that was kept.
fn never_another_state(what: &str, directory: &Path, bytes: &[u8]) -> bool {
    for name in ["state.db-wal", "state.db-shm"] {
        let _ = fs::remove_file(directory.join(name));
    }
    fs::write(database(directory), bytes).unwrap();
    match Store::open_tuned(directory, Options::default(), SHORT) {
        Ok((store, restored)) => {
            close(store);
            assert_eq!(restored.state, *state(7), "{what}");
            true
        }
        Err(error) => {
            let is_told = matches!(error, StoreError::Unreadable { .. } | StoreError::Inaccessible { .. });
            assert!(is_told, "{what}: {error}");
            false
        }
    }
}

#[test]
fn a_truncated_state_is_an_error_wherever_it_ends() {
    let directory = tempfile::tempdir().unwrap();
    kept(directory.path());
    let bytes = fs::read(database(directory.path())).unwrap();
    for length in (0..bytes.len()).step_by(512) {
        let survived = never_another_state(&format!("{length} bytes"), directory.path(), &bytes[..length]);
        assert!(!survived, "{length} of {} bytes were taken", bytes.len());
    }
    assert!(never_another_state("all", directory.path(), &bytes));
}

/// SQLite has no checksums over its pages: a bit in a text is a wrong weight. Ours are over each row.
#[test]
fn a_damaged_bit_is_an_error_or_makes_no_difference() {
    let directory = tempfile::tempdir().unwrap();
    kept(directory.path());
    let bytes = fs::read(database(directory.path())).unwrap();
    let (mut refused, mut seed) = (0, fastrand::Rng::with_seed(42));
    for _ in 0..400 {
        let (at, bit) = (seed.usize(..bytes.len()), seed.u8(..8));
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << bit;
        refused += u32::from(!never_another_state(
            &format!("bit {bit} of byte {at}"),
            directory.path(),
            &damaged,
        ));
    }
    assert!(refused > 10, "only {refused} were noticed");
    // Every bit of the row that says how traffic is split.
    let row = bytes.windows(7).position(|window| window == b"\"v2\":7}").unwrap();
    for at in row..row + 7 {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            let what = format!("bit {bit} of byte {at}");
            assert!(!never_another_state(&what, directory.path(), &damaged), "{what}");
        }
    }
}

/// Of a large file the audit log is not looked through, and what decides about traffic is.
#[tokio::test]
async fn a_large_state_is_checked_but_for_its_events() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    let large = |seq| {
        Arc::new(Event {
            text: "much ".repeat(2000),
            ..(*event(seq)).clone()
        })
    };
    store.save(state(7), (1..=2000).map(large).collect()).await.unwrap();
    close(store);
    let bytes = fs::read(database(directory.path())).unwrap();
    assert!(bytes.len() > 16 << 20, "{}", bytes.len());
    let page = |at: usize| at / 4096 * 4096..at / 4096 * 4096 + 4096;
    let row = bytes.windows(7).position(|window| window == b"\"v2\":7}").unwrap();
    for (at, survives) in [(bytes.len() / 2, true), (row, false)] {
        let mut damaged = bytes.clone();
        damaged[page(at)].fill(0);
        let what = format!("the page of byte {at}");
        assert_eq!(
            never_another_state(&what, directory.path(), &damaged),
            survives,
            "{what}"
        );
    }
}

/// As a kill -9 and a lost tail leave it: one of the states that were saved, never one that was not.
#[tokio::test]
async fn a_torn_log_gives_the_last_change_that_is_whole() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    for number in 1..=8 {
        store.save(state(number), vec![event(number.into())]).await.unwrap();
    }
    let (bytes, log) = (
        fs::read(database(directory.path())).unwrap(),
        fs::read(directory.path().join("state.db-wal")).unwrap(),
    );
    close(store);
    let torn = tempfile::tempdir().unwrap();
    let mut last = 0;
    for length in (0..log.len()).step_by(512).chain([log.len()]) {
        let _ = fs::remove_file(torn.path().join("state.db-shm"));
        fs::write(database(torn.path()), &bytes).unwrap();
        fs::write(torn.path().join("state.db-wal"), &log[..length]).unwrap();
        let restored = found(torn.path());
        let reached = restored.state.service("shop").map_or(0, |_| weight(&restored.state));
        assert_eq!(restored.last_seq, u64::from(reached));
        assert!(
            reached == last || reached == last + 1,
            "{reached} after {last} at {length} bytes"
        );
        last = reached;
    }
    assert_eq!(last, 8);
}

#[tokio::test]
async fn a_log_without_its_database_is_not_an_empty_state() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    store.save(state(7), Vec::new()).await.unwrap();
    let log = fs::read(directory.path().join("state.db-wal")).unwrap();
    close(store);
    fs::remove_file(database(directory.path())).unwrap();
    fs::write(directory.path().join("state.db-wal"), &log).unwrap();
    let text = refused(directory.path()).to_string();
    assert!(text.contains("it is missing, though"), "{text}");
    let (store, restored) = recovered(directory.path());
    assert!(restored.state.kill.is_some());
    close(store);
    assert!(found(directory.path()).state.kill.is_some());
}

// ---- the way out ----

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn recovery_keeps_what_was_there_and_kills_everything() {
    let directory = tempfile::tempdir().unwrap();
    for round in 1..=2_usize {
        fs::write(database(directory.path()), format!("garbage {round}")).unwrap();
        fs::write(directory.path().join("state.db-wal"), "log").unwrap();
        let (store, restored) = recovered(directory.path());
        let latch = restored.state.kill.clone().unwrap();
        assert_eq!(latch.by.who, "recover");
        assert!(latch.by.reason.unwrap().contains("not a SQLite database"));
        assert!(
            restored.state.floor_epoch > 1_700_000_000,
            "no cookie of before is valid"
        );
        assert_eq!(restored.events.len(), 1);
        assert_eq!(restored.events[0].seq, restored.last_seq);
        assert!(restored.last_seq > 1_700_000_000, "followers of the events miss none");
        close(store);
        let aside: Vec<_> = names(directory.path())
            .into_iter()
            .filter(|name| name.starts_with("state.db.unreadable-"))
            .collect();
        assert_eq!(aside.len(), 2 * round, "{aside:?}");
        let texts: Vec<_> = aside
            .iter()
            .map(|name| fs::read_to_string(directory.path().join(name)).unwrap())
            .collect();
        assert!(texts.contains(&format!("garbage {round}")) && texts.contains(&"log".to_owned()));
        // It holds until a person says otherwise.
        assert_eq!(found(directory.path()).state, restored.state);
    }
}

#[test]
fn recovery_leaves_a_state_that_can_be_read_alone() {
    let directory = tempfile::tempdir().unwrap();
    kept(directory.path());
    let (store, restored) = recovered(directory.path());
    close(store);
    assert_eq!(restored.state, *state(7));
    let fresh = tempfile::tempdir().unwrap();
    let (store, restored) = recovered(fresh.path());
    close(store);
    assert_eq!(restored.state, State::default());
    for directory in [directory.path(), fresh.path()] {
        assert_eq!(names(directory), ["lock", "state.db"]);
    }
}

#[test]
fn what_a_crash_while_it_was_made_left_behind_is_no_state() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("state.db.new"), "half of one").unwrap();
    assert_eq!(found(directory.path()).state, State::default());
    assert_eq!(names(directory.path()), ["lock", "state.db"]);
}

//! Two processes and one directory.

use super::*;

fn open_with(state_dir: &Path, lock: Option<File>) -> Result<(Store, Restored), StoreError> {
    let options = Options { lock, recover: false };
    Store::open_tuned(state_dir, options, SHORT)
}

#[test]
fn the_second_process_is_refused_and_told_by_whom() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    let text = refused(directory.path()).to_string();
    let (shown, pid) = (directory.path().display(), std::process::id());
    assert!(
        text.contains(&format!("state_dir {shown} is in use by process {pid}")),
        "{text}"
    );
    // The way out of a damaged file is no way around the lock.
    let options = Options {
        recover: true,
        ..Options::default()
    };
    let refused = Store::open_tuned(directory.path(), options, SHORT);
    assert!(matches!(refused, Err(StoreError::InUse { pid: Some(holder), .. }) if holder == pid));
    close(store);
    found(directory.path());
}

#[test]
fn a_lock_without_a_process_is_none() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("lock"), "1\n").unwrap();
    found(directory.path());
}

#[tokio::test]
async fn a_successor_begins_with_all_that_was_saved_and_under_the_same_lock() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    drop(store.save(state(7), vec![event(1)]));
    let lock = store.freeze().await.unwrap();
    assert!(!is_durable(&store));
    assert!(
        matches!(refused(directory.path()), StoreError::InUse { .. }),
        "it is never free"
    );
    let (successor, restored) = open_with(directory.path(), Some(lock)).unwrap();
    assert_eq!((weight(&restored.state), restored.last_seq), (7, 1));
    let refused_save = store.save(state(8), Vec::new()).await.unwrap_err();
    assert!(refused_save.contains("another process takes over"), "{refused_save}");
    successor.save(state(9), Vec::new()).await.unwrap();
    // The one before ends: the lock stays with the successor.
    drop(store.close(PATIENCE));
    assert!(matches!(refused(directory.path()), StoreError::InUse { .. }));
    close(successor);
    assert_eq!(weight(&found(directory.path()).state), 9);
}

#[tokio::test]
async fn an_upgrade_that_fails_gives_the_state_back() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    store.save(state(7), vec![event(1)]).await.unwrap();
    let lock = store.freeze().await.unwrap();
    let (successor, _) = open_with(directory.path(), Some(lock)).unwrap();
    successor.save(state(9), vec![event(2)]).await.unwrap();
    close(successor);
    // A kill that came meanwhile.
    store.save(state(0), vec![event(2)]).await.unwrap_err();
    store.thaw().await.unwrap();
    assert!(is_durable(&store));
    store.save(state(1), vec![event(3)]).await.unwrap();
    close(store);
    let restored = found(directory.path());
    assert_eq!((weight(&restored.state), restored.last_seq), (1, 3));
}

#[tokio::test]
async fn a_successor_that_changed_the_schema_is_not_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    let lock = store.freeze().await.unwrap();
    let connection = rusqlite::Connection::open(database(directory.path())).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    connection.close().unwrap();
    assert!(store.thaw().await.unwrap_err().contains("a newer version"));
    assert!(why_not_durable(&store).contains("a newer version"));
    drop((store, lock));
}

#[tokio::test]
async fn a_lock_of_another_directory_is_no_right_to_this_one() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, _) = open(there.path());
    let lock = store.freeze().await.unwrap();
    let (moved, _) = open_with(here.path(), Some(lock)).unwrap();
    assert!(matches!(refused(here.path()), StoreError::InUse { .. }));
    close(moved);
    drop(store);
}

#[tokio::test]
async fn what_is_not_durable_is_not_handed_over() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    let other = rusqlite::Connection::open(database(directory.path())).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    drop(store.save(state(7), Vec::new()));
    assert!(store.freeze().await.is_err());
    other.execute_batch("ROLLBACK").unwrap();
    eventually("it is durable", || is_durable(&store));
    store.save(state(8), Vec::new()).await.unwrap();
    close(store);
}

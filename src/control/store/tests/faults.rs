//! Disks that are full, read-only, gone.

use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

/// A directory in which nothing can be made, removed or written, also by root: `None`, if this machine has no means to
/// that, which the test says then.
struct ReadOnly(tempfile::TempDir);

impl ReadOnly {
    fn new(directory: tempfile::TempDir) -> Option<Self> {
        let this = Self(directory);
        this.set(true);
        if fs::write(this.path().join("probe"), "").is_err() {
            return Some(this);
        }
        eprintln!("NOT CHECKED: here nothing keeps this user from writing into a directory");
        fs::remove_file(this.path().join("probe")).unwrap();
        this.set(false);
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Permissions bind all but root, the attribute binds root.
    fn set(&self, read_only: bool) {
        let files = fs::read_dir(self.path()).unwrap().map(|file| file.unwrap().path());
        let mut paths: Vec<_> = files.collect();
        paths.push(self.path().to_owned());
        let attribute = if read_only { "+i" } else { "-i" };
        let change = |mode: u32| {
            for path in &paths {
                let bits = if path.is_dir() { mode | 0o100 } else { mode };
                let _ = fs::set_permissions(path, fs::Permissions::from_mode(bits));
            }
        };
        let attributes = || {
            let mut command = Command::new("chattr");
            let _ = command.arg(attribute).args(&paths).stderr(Stdio::null()).status();
        };
        if read_only {
            change(0o400);
            attributes();
        } else {
            attributes();
            change(0o600);
        }
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        self.set(false);
    }
}

#[tokio::test]
async fn without_a_place_the_state_is_in_memory_and_written_once_there_is_one() {
    let Some(directory) = ReadOnly::new(tempfile::tempdir().unwrap()) else {
        return;
    };
    for state_dir in [directory.path().to_owned(), directory.path().join("deep/state")] {
        let (store, restored) = open(&state_dir);
        assert_eq!(restored.state, State::default());
        assert!(why_not_durable(&store).contains(state_dir.to_str().unwrap()));
        store.save(state(1), vec![event(1)]).await.unwrap_err();
        store.save(state(2), vec![event(2)]).await.unwrap_err();
        store.cookie_key().await.unwrap();
        assert!(store.events(0, 10).await.is_err());
        directory.set(false);
        eventually("it is durable", || is_durable(&store));
        close(store);
        let restored = found(&state_dir);
        assert_eq!((weight(&restored.state), restored.last_seq), (2, 2));
        if state_dir == directory.path() {
            for name in ["lock", "state.db"] {
                fs::remove_file(state_dir.join(name)).unwrap();
            }
            directory.set(true);
        }
    }
}

/// As a crash left it, with changes that are in the log only.
async fn crashed() -> tempfile::TempDir {
    let (origin, directory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, _) = open(origin.path());
    store.save(state(7), vec![event(1)]).await.unwrap();
    for name in ["state.db", "state.db-wal"] {
        fs::copy(origin.path().join(name), directory.path().join(name)).unwrap();
    }
    assert!(fs::metadata(directory.path().join("state.db-wal")).unwrap().len() > 0);
    close(store);
    directory
}

#[tokio::test]
async fn what_can_be_read_and_not_written_is_read_with_its_log() {
    let Some(directory) = ReadOnly::new(crashed().await) else {
        return;
    };
    let (store, restored) = open(directory.path());
    assert_eq!((weight(&restored.state), restored.last_seq), (7, 1));
    assert!(!is_durable(&store));
    store.save(state(8), vec![event(2)]).await.unwrap_err();
    directory.set(false);
    eventually("it is durable", || is_durable(&store));
    close(store);
    assert_eq!(weight(&found(directory.path()).state), 8);
}

#[tokio::test]
async fn what_cannot_be_written_is_no_less_checked() {
    let unwritable = tempfile::tempdir().unwrap();
    fs::write(database(unwritable.path()), "garbage").unwrap();
    let Some(directory) = ReadOnly::new(unwritable) else {
        return;
    };
    let error = refused(directory.path());
    assert!(error.to_string().contains("not a SQLite database"), "{error}");
    let options = Options {
        recover: true,
        ..Options::default()
    };
    let error = Store::open_tuned(directory.path(), options, SHORT).err().unwrap();
    assert!(matches!(error, StoreError::CannotSetAside { .. }), "{error}");
}

/// A volume that is mounted late may bring a kill switch.
#[tokio::test]
async fn a_state_that_appears_later_is_not_overwritten() {
    let other = tempfile::tempdir().unwrap();
    let (store, _) = open(other.path());
    store.save(state(7), Vec::new()).await.unwrap();
    close(store);
    for with_one_before in [false, true] {
        let before = if with_one_before {
            crashed().await
        } else {
            tempfile::tempdir().unwrap()
        };
        let Some(directory) = ReadOnly::new(before) else {
            return;
        };
        // Nothing is tried but what the test asks for.
        let tuning = Tuning {
            retry_first: PATIENCE,
            ..SHORT
        };
        let (store, _) = Store::open_tuned(directory.path(), Options::default(), tuning).unwrap();
        directory.set(false);
        let connection = rusqlite::Connection::open(database(other.path())).unwrap();
        connection
            .execute("REPLACE INTO events VALUES (99, '', '')", [])
            .and_then(|_| connection.execute_batch("PRAGMA wal_checkpoint"))
            .unwrap();
        drop(connection);
        // Under the lock of the one that could not write, if it has one.
        let _ = fs::remove_file(directory.path().join("state.db-wal"));
        fs::copy(database(other.path()), database(directory.path())).unwrap();
        store.save(state(1), Vec::new()).await.unwrap_err();
        assert!(
            why_not_durable(&store).contains("another state"),
            "{}",
            why_not_durable(&store)
        );
        assert!(store.close(PATIENCE).is_err());
        assert_eq!(weight(&found(directory.path()).state), 7);
    }
}

#[tokio::test]
async fn a_directory_that_was_removed_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let state_dir = directory.path().join("state");
    let (store, _) = open(&state_dir);
    store.save(state(1), vec![event(1)]).await.unwrap();
    store.cookie_key().await.unwrap();
    fs::remove_dir_all(&state_dir).unwrap();
    let failed = store.save(state(2), vec![event(2)]).await.unwrap_err();
    assert!(failed.contains("was removed or replaced"), "{failed}");
    eventually("it is durable", || is_durable(&store));
    assert!(matches!(refused(&state_dir), StoreError::InUse { .. }));
    close(store);
    let restored = found(&state_dir);
    assert_eq!((weight(&restored.state), restored.last_seq), (2, 2));
    let connection = rusqlite::Connection::open(database(&state_dir)).unwrap();
    let keys: u32 = connection
        .query_row("SELECT count(*) FROM secrets", [], |row| row.get(0))
        .unwrap();
    assert_eq!(keys, 1, "the key that is in use is kept, too");
}

#[tokio::test]
async fn a_backup_put_in_place_under_a_running_process_is_not_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    store.save(state(1), Vec::new()).await.unwrap();
    let backup = directory.path().join("backup");
    let connection = rusqlite::Connection::open(database(directory.path())).unwrap();
    connection
        .execute("VACUUM INTO ?1", [backup.to_str().unwrap()])
        .unwrap();
    drop(connection);
    store.save(state(2), Vec::new()).await.unwrap();
    fs::rename(&backup, database(directory.path())).unwrap();
    let before = fs::read(database(directory.path())).unwrap();
    store.save(state(3), Vec::new()).await.unwrap_err();
    eventually("it is noticed", || why_not_durable(&store).contains("another state"));
    assert!(store.close(PATIENCE).is_err());
    assert!(
        fs::read(database(directory.path())).unwrap() == before,
        "it was changed"
    );
}

// ---- a full disk ----

const DIRECTORY: &str = "ROLLGATE_TEST_FULL_DIR";

/// Under a limit of file sizes, which this process cannot take back. Ends with 0 if all is as promised.
#[test]
#[ignore = "the child of the test below"]
fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let (store, _) = open(Path::new(&directory));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (mut saved, mut failures) = (0, 0);
    // A first failure makes SQLite empty its log, after which there is room again for a while.
    while failures < 20 {
        let event = Event {
            text: "much ".repeat(200),
            ..(*event(u64::from(saved) + 1)).clone()
        };
        match runtime.block_on(store.save(state(saved + 1), vec![Arc::new(event)])) {
            Ok(()) => (saved, failures) = (saved + 1, 0),
            Err(failed) => {
                assert!(failed.contains("state.db"), "{failed}");
                failures += 1;
            }
        }
        assert!(saved < 10_000, "the disk is never full");
    }
    assert!(!is_durable(&store));
    let kept = runtime.block_on(store.events(u64::from(saved) - 1, 10)).unwrap();
    assert_eq!(kept.len(), 1, "what is there is still read");
    assert!(store.close(PATIENCE).is_err());
    println!("saved {saved}");
}

#[test]
fn a_full_disk_loses_nothing_that_was_answered() {
    let directory = tempfile::tempdir().unwrap();
    // Blocks of 512 bytes in dash, of 1024 in bash.
    let script = "trap '' XFSZ; ulimit -f 400; exec \"$0\" \"$@\"";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "control::store::tests::faults::child",
            "--ignored",
            "--nocapture",
        ])
        .env(DIRECTORY, directory.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let saved = text.split_once("saved ").unwrap().1;
    let saved: u32 = saved.split_whitespace().next().unwrap().parse().unwrap();
    let restored = found(directory.path());
    let reached = weight(&restored.state);
    assert!(reached == saved || reached == saved + 1, "{reached} after {saved}");
    assert!(saved > 10);
}

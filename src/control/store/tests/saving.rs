use super::*;
use std::os::unix::fs::PermissionsExt;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever was saved last is what is found, however the ones before differed.
    #[test]
    fn what_is_saved_is_found_again(states in proptest::collection::vec(any_state(), 1..5), every in 1_usize..4) {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, restored) = open(directory.path());
        prop_assert_eq!(restored.state, State::default());
        let mut seq = 0;
        for (index, state) in states.iter().enumerate() {
            seq += 1;
            let saving = store.save(Arc::new(state.clone()), vec![event(seq)]);
            tokio_test(saving).unwrap();
            if index % every == 0 {
                close(store);
                let again = open(directory.path());
                store = again.0;
                prop_assert_eq!(&again.1.state, state);
            }
        }
        close(store);
        let restored = found(directory.path());
        prop_assert_eq!(&restored.state, states.last().unwrap());
        prop_assert_eq!(restored.last_seq, seq);
        let seqs: Vec<u64> = restored.events.iter().map(|event| event.seq).collect();
        prop_assert_eq!(seqs, (1..=seq).collect::<Vec<_>>());
        prop_assert_eq!(&*restored.events[0], &Event { time: restored.events[0].time.clone(), ..(*event(1)).clone() });
    }
}

fn tokio_test<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

#[test]
fn the_directory_and_its_files_are_ours_alone() {
    let directory = tempfile::tempdir().unwrap();
    let state_dir = directory.path().join("deep/state");
    let (store, _) = open(&state_dir);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state_dir), 0o700);
    assert_eq!(mode(&directory.path().join("deep")), 0o700);
    for file in std::fs::read_dir(&state_dir).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    close(store);
    // A copy of one file is a backup then.
    let mut names: Vec<_> = std::fs::read_dir(&state_dir)
        .unwrap()
        .map(|file| file.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["lock", "state.db"]);
}

#[tokio::test]
async fn orders_are_carried_out_in_their_order_also_when_nobody_waits() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    for number in 1..=200 {
        drop(store.save(state(number), vec![event(number.into())]));
    }
    let last = store.save(state(201), vec![event(201)]);
    // A handle is not needed for an answer.
    let other = store.clone();
    drop(store);
    last.await.unwrap();
    close(other);
    let restored = found(directory.path());
    assert_eq!((weight(&restored.state), restored.last_seq), (201, 201));
    assert_eq!(restored.events.len(), 201);
}

#[tokio::test]
async fn the_last_handle_that_is_dropped_closes_the_state() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    drop(store.save(state(7), Vec::new()));
    drop(store);
    eventually("the state is free again", || {
        Store::open(directory.path(), Options::default()).is_ok_and(|(store, restored)| {
            close(store);
            weight(&restored.state) == 7
        })
    });
}

#[tokio::test]
async fn after_the_end_every_order_is_answered() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    close(store.clone());
    assert_eq!(
        store.save(state(1), Vec::new()).await.unwrap_err(),
        "the state is closed"
    );
    assert!(store.freeze().await.is_err());
    assert!(store.thaw().await.is_err());
    assert!(store.close(PATIENCE).is_err());
}

/// Another program's lock, as an open `sqlite3` would hold it.
struct Blocked(rusqlite::Connection);

impl Blocked {
    fn new(state_dir: &Path) -> Self {
        let connection = rusqlite::Connection::open(database(state_dir)).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        Self(connection)
    }

    fn release(self) {
        self.0.execute_batch("ROLLBACK").unwrap();
    }
}

#[tokio::test]
async fn what_fails_and_stands_is_written_when_that_works_again() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    store.save(state(1), vec![event(1)]).await.unwrap();
    let blocked = Blocked::new(directory.path());
    let failed = store.save(state(2), vec![event(2)]).await.unwrap_err();
    assert!(failed.contains("another program holds a lock"), "{failed}");
    store.save(state(3), vec![event(3)]).await.unwrap_err();
    assert!(why_not_durable(&store).contains("state.db"));
    blocked.release();
    eventually("it is durable", || is_durable(&store));
    close(store);
    let restored = found(directory.path());
    assert_eq!((weight(&restored.state), restored.last_seq), (3, 3));
    assert_eq!(restored.events.len(), 3);
}

/// As the writer does with a change that it must not make: it is saved, cannot be, and what was in force is saved again.
#[tokio::test]
async fn what_is_saved_in_place_of_something_replaces_it() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    store.save(state(1), vec![event(1)]).await.unwrap();
    let blocked = Blocked::new(directory.path());
    store.save(state(9), vec![event(2)]).await.unwrap_err();
    store.save(state(0), vec![event(3)]).await.unwrap_err();
    let instead = Event {
        text: "not carried out".to_owned(),
        ..(*event(2)).clone()
    };
    drop(store.save(state(0), vec![Arc::new(instead)]));
    blocked.release();
    eventually("it is durable", || is_durable(&store));
    close(store);
    let restored = found(directory.path());
    assert_eq!(weight(&restored.state), 0);
    let texts: Vec<_> = restored.events.iter().map(|event| event.text.as_str()).collect();
    assert_eq!(texts, ["number 1", "not carried out", "number 3"]);
    assert_eq!(restored.last_seq, 3, "though number 2 was told last");
}

#[tokio::test]
async fn a_disk_that_hangs_is_told_and_what_waits_for_it_is_written_after_all() {
    let directory = tempfile::tempdir().unwrap();
    let tuning = Tuning {
        busy: PATIENCE,
        ..SHORT
    };
    let (store, _) = Store::open_tuned(directory.path(), Options::default(), tuning).unwrap();
    let blocked = Blocked::new(directory.path());
    let saving = store.save(state(2), vec![event(2)]);
    eventually("it is told", || {
        store
            .not_durable()
            .is_some_and(|why| why.contains("has not answered for"))
    });
    blocked.release();
    saving.await.unwrap();
    assert!(is_durable(&store));
    close(store);
}

#[tokio::test]
async fn a_disk_that_hangs_for_hours_holds_a_bounded_number_of_orders_and_forgets_no_kill() {
    let directory = tempfile::tempdir().unwrap();
    let tuning = Tuning {
        busy: PATIENCE,
        ..SHORT
    };
    let (store, _) = Store::open_tuned(directory.path(), Options::default(), tuning).unwrap();
    let blocked = Blocked::new(directory.path());
    let mut answers = Vec::new();
    for number in 1..=300_u32 {
        answers.push(store.save(state(number), vec![event(number.into())]));
    }
    blocked.release();
    let mut refused = 0;
    for answer in answers {
        refused += u32::from(answer.await.is_err());
    }
    // 64 may wait, and before the thread has looked another 64 that it takes at once.
    assert!((300 - 2 * 64..=300 - 64).contains(&refused), "{refused} were refused");
    close(store);
    let restored = found(directory.path());
    assert_eq!(weight(&restored.state), 300);
    let seqs: Vec<u64> = restored.events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=300).collect::<Vec<_>>(), "events of joined orders are kept");
}

#[tokio::test]
async fn only_what_differs_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    let mut many = State::default();
    for number in 0..2000 {
        many.services.insert(format!("s{number}").into(), Arc::new(service(1)));
    }
    store.save(Arc::new(many.clone()), Vec::new()).await.unwrap();
    close(store);
    let (store, restored) = open(directory.path());
    let mut next = restored.state.clone();
    next.services.insert("s7".into(), Arc::new(service(2)));
    next.services.remove("s8");
    store.save(Arc::new(next.clone()), Vec::new()).await.unwrap();
    let log = std::fs::metadata(directory.path().join("state.db-wal")).unwrap().len();
    assert!(log < 64 << 10, "{log} bytes for two of 2000 services");
    close(store);
    assert_eq!(found(directory.path()).state, next);
}

// ---- the cookie key ----

fn secret(state_dir: &Path) -> Option<Vec<u8>> {
    let connection = rusqlite::Connection::open(database(state_dir)).unwrap();
    let read = connection.query_row("SELECT secret FROM secrets", [], |row| row.get(0));
    read.ok()
}

#[tokio::test]
async fn a_cookie_key_is_made_once_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    assert_eq!(secret(directory.path()), None);
    store.cookie_key().await.unwrap();
    let first = secret(directory.path()).unwrap();
    assert_eq!(first.len(), 32);
    store.cookie_key().await.unwrap();
    store.save(state(1), Vec::new()).await.unwrap();
    close(store);
    let (store, _) = open(directory.path());
    store.cookie_key().await.unwrap();
    close(store);
    assert_eq!(secret(directory.path()).unwrap(), first);
}

#[tokio::test]
async fn a_cookie_key_that_cannot_be_kept_is_used_and_kept_later() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    let blocked = Blocked::new(directory.path());
    store.cookie_key().await.unwrap();
    blocked.release();
    eventually("it is kept", || secret(directory.path()).is_some());
    close(store);
}

fn write_key(state_dir: &Path, bytes: &[u8], mode: u32) -> PathBuf {
    let path = state_dir.join("cookie.key");
    std::fs::write(&path, bytes).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn a_key_in_a_file_is_taken_over_and_wins() {
    let directory = tempfile::tempdir().unwrap();
    for key in [[7; 32], [8; 32]] {
        let path = write_key(directory.path(), &key, 0o600);
        found(directory.path());
        assert_eq!(secret(directory.path()).unwrap(), key);
        assert!(!path.exists());
    }
}

#[test]
fn what_is_no_key_or_open_to_others_stays_and_is_not_used() {
    let directory = tempfile::tempdir().unwrap();
    for (bytes, mode) in [(&b"short"[..], 0o600), (&[7; 33], 0o600), (&[7; 32], 0o644)] {
        let path = write_key(directory.path(), bytes, mode);
        found(directory.path());
        assert_eq!(secret(directory.path()), None);
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
}

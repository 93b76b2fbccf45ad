use super::*;

fn entry(place: u64) -> Arc<OutboxEntry> {
    Arc::new(OutboxEntry {
        place,
        id: format!("id-{place}").into(),
        receiver: "c0ffee".into(),
        queued_ms: 1_000 + place,
        body: format!("number {place}").into(),
    })
}

fn entries(places: impl IntoIterator<Item = u64>) -> Vec<Arc<OutboxEntry>> {
    places.into_iter().map(entry).collect()
}

/// Posts until nothing is left to do; returns how often.
async fn post(store: &Store, wanted: &[Arc<OutboxEntry>]) -> usize {
    let mut times = 1;
    while store.post(wanted.to_vec()).await.unwrap() {
        times += 1;
    }
    times
}

#[tokio::test]
async fn what_waits_is_there_again_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let (store, restored) = open(directory.path());
    assert_eq!(restored.outbox, []);
    post(&store, &entries([3, 5, 4_000_000_000_000])).await;
    post(&store, &entries([5, 6, 4_000_000_000_000])).await;
    close(store);
    assert_eq!(found(directory.path()).outbox, entries([5, 6, 4_000_000_000_000]));
}

#[tokio::test]
async fn many_changes_are_many_transactions() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    let full = OUTBOX_MOST as u64;
    assert_eq!(post(&store, &entries(1..=full)).await, 20);
    let (store, restored) = {
        close(store);
        open(directory.path())
    };
    assert_eq!(restored.outbox.len(), OUTBOX_MOST);
    assert_eq!(post(&store, &entries(full - 400..=full + 50)).await, 20);
    assert_eq!(post(&store, &[]).await, 1);
    close(store);
    assert_eq!(found(directory.path()).outbox, []);
}

/// Another process may have used a place meanwhile (an upgrade that came to nothing).
#[tokio::test]
async fn a_place_that_another_has_taken_is_taken_back() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    post(&store, &entries([1, 2])).await;
    let lock = store.freeze().await.unwrap();
    assert!(
        store.post(entries([1, 2, 3])).await.is_err(),
        "it is not this process's"
    );
    let other = OutboxEntry {
        id: "of another".into(),
        ..OutboxEntry::clone(&entry(2))
    };
    let options = Options {
        lock: Some(lock),
        recover: false,
    };
    let (successor, restored) = Store::open_tuned(directory.path(), options, SHORT).unwrap();
    assert_eq!(restored.outbox, entries([1, 2]));
    post(&successor, &[Arc::new(other), entry(9)]).await;
    close(successor);
    store.thaw().await.unwrap();
    post(&store, &entries([1, 2, 3])).await;
    close(store);
    assert_eq!(found(directory.path()).outbox, entries([1, 2, 3]));
}

#[tokio::test]
async fn a_database_that_was_made_anew_gets_all_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    post(&store, &entries([1, 2])).await;
    for file in std::fs::read_dir(directory.path()).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    let why = store.post(entries([1, 2, 3])).await.unwrap_err();
    assert!(why.contains("was removed or replaced"), "{why}");
    post(&store, &entries([1, 2, 3])).await;
    close(store);
    assert_eq!(found(directory.path()).outbox, entries([1, 2, 3]));
}

/// A rollback is on the disk before any notification, and the end comes after all of them.
#[test]
fn changes_go_before_what_waits_and_the_end_after_it() {
    use desk::Next;
    let desk = Desk::new(None, None);
    let (end, _ended) = mpsc::sync_channel(1);
    desk.call(Call::Close(end));
    for wanted in [entries([1]), entries([1, 2])] {
        let (answer, _answered) = oneshot::channel();
        desk.post(Posting { wanted, answer });
    }
    drop(desk.put(Order::default()));
    let now = Instant::now();
    assert!(matches!(desk.next(now), Next::Order(_)));
    assert!(matches!(desk.next(now), Next::Posting(posting) if posting.wanted == entries([1, 2])));
    assert!(matches!(desk.next(now), Next::Call(Call::Close(_))));
}

#[tokio::test]
async fn what_was_posted_last_is_written_before_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    drop(store.post(entries([1])));
    drop(store.post(entries([1, 2])));
    close(store);
    assert_eq!(found(directory.path()).outbox, entries([1, 2]));
}

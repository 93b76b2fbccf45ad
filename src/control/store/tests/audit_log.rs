use super::*;
use crate::control::event_log::KEPT;
use crate::telemetry::rfc3339;
use std::time::SystemTime;

fn events(numbers: std::ops::RangeInclusive<u64>) -> Vec<Arc<Event>> {
    numbers.map(event).collect()
}

fn seqs(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.seq).collect()
}

#[tokio::test]
async fn all_of_it_is_read_page_by_page() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    assert_eq!(store.events(0, 10).await.unwrap(), []);
    let all = events(1..=2500);
    store.save(state(1), all.clone()).await.unwrap();
    assert_eq!(seqs(&store.events(0, 3).await.unwrap()), [1, 2, 3]);
    assert_eq!(store.events(2499, 10).await.unwrap(), [(*all[2499]).clone()]);
    assert_eq!(store.events(u64::MAX, 10).await.unwrap(), []);
    let (mut read, mut last) = (Vec::new(), 0);
    loop {
        let page = store.events(last, usize::MAX).await.unwrap();
        assert!(page.len() <= PAGE);
        let Some(end) = page.last() else { break };
        last = end.seq;
        read.extend(page);
    }
    assert_eq!(seqs(&read), (1..=2500).collect::<Vec<_>>());
    close(store);
    let restored = found(directory.path());
    assert_eq!(restored.events.len(), KEPT);
    assert_eq!(restored.events[0].seq, 2501 - KEPT as u64);
}

#[tokio::test]
async fn reading_waits_for_no_writing() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    store.save(state(1), events(1..=3)).await.unwrap();
    let other = rusqlite::Connection::open(database(directory.path())).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(seqs(&store.events(1, 10).await.unwrap()), [2, 3]);
    drop(other);
    close(store);
}

/// Thins until nothing is left to do; how many events remain, and their first number.
fn thinned(state_dir: &Path, retention: Retention, now: SystemTime) -> (u32, Option<u32>) {
    let place = Place::new(state_dir).unwrap();
    let mut lock = None;
    let opened = opening::open(&place, &mut lock, None, &opening::Expected::Anything, Duration::ZERO);
    let (mut database, _) = opened.unwrap();
    let mut rounds = 0;
    while database.thin(&retention, now).unwrap() {
        rounds += 1;
        assert!(rounds < 100, "it never ends");
    }
    database.close();
    let connection = rusqlite::Connection::open(place.database()).unwrap();
    let sql = "SELECT count(*), min(seq) FROM events";
    connection
        .query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
}

#[tokio::test]
async fn what_is_too_much_too_old_or_too_large_is_deleted_oldest_first() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (store, _) = open(path);
    let old = |days: u64, seq| {
        let time = SystemTime::now() - Duration::from_secs(days * 86_400);
        Arc::new(Event {
            time: rfc3339(time),
            ..(*event(seq)).clone()
        })
    };
    let mut all: Vec<_> = (1..=1200).map(|seq| old(100, seq)).collect();
    all.extend((1201..=3000).map(|seq| old(80, seq)));
    store.save(state(1), all).await.unwrap();
    close(store);
    let now = SystemTime::now();
    assert_eq!(thinned(path, RETENTION, now), (1800, Some(1201)), "90 days");
    assert_eq!(thinned(path, RETENTION, now), (1800, Some(1201)), "no more than that");
    let fewer = Retention {
        number: 1000,
        ..RETENTION
    };
    assert_eq!(thinned(path, fewer, now), (1000, Some(2001)));
    let smaller = Retention {
        bytes: 200 << 10,
        ..RETENTION
    };
    let (left, _) = thinned(path, smaller, now);
    assert!((1..1000).contains(&left), "{left}");
    let none = Retention { bytes: 0, ..RETENTION };
    assert_eq!(thinned(path, none, now), (0, None));
    // Numbers go on, and the state is what it was.
    let restored = found(path);
    assert_eq!((restored.last_seq, weight(&restored.state)), (3000, 1));
}

#[tokio::test]
async fn the_thread_thins_by_itself_and_orders_come_first() {
    let directory = tempfile::tempdir().unwrap();
    let tuning = Tuning {
        retention: Retention {
            number: 10,
            ..RETENTION
        },
        thin_every: Duration::from_millis(20),
        ..SHORT
    };
    let (store, _) = Store::open_tuned(directory.path(), Options::default(), tuning).unwrap();
    store.save(state(1), events(1..=1300)).await.unwrap();
    let until = Instant::now() + PATIENCE;
    while seqs(&store.events(0, PAGE).await.unwrap()) != (1291..=1300).collect::<Vec<_>>() {
        assert!(Instant::now() < until, "they are never deleted");
        store.save(state(2), Vec::new()).await.unwrap();
    }
    assert!(is_durable(&store));
    close(store);
}

#[tokio::test]
async fn an_event_that_cannot_be_read_costs_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open(directory.path());
    store.save(state(1), events(1..=3)).await.unwrap();
    let other = rusqlite::Connection::open(database(directory.path())).unwrap();
    other.execute("UPDATE events SET body = '{' WHERE seq = 2", []).unwrap();
    drop(other);
    assert_eq!(seqs(&store.events(0, 10).await.unwrap()), [1, 3]);
    close(store);
    let restored = found(directory.path());
    assert_eq!((restored.events.len(), restored.last_seq), (2, 3));
}

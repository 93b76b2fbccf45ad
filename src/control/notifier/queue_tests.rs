//! In virtual time: the queue is told what time it is.

use super::*;
use crate::rollout::Url;
use proptest::prelude::*;
use std::collections::BTreeSet;

const HOUR: Duration = Duration::from_secs(3600);
const ROOM: usize = 64;

fn receiver(name: &str) -> Receiver {
    Receiver::Webhook(Url::new(&format!("http://{name}/")))
}

fn entry(receiver: &str, place: u64) -> OutboxEntry {
    OutboxEntry {
        place,
        id: format!("{receiver}-{place}").into(),
        receiver: receiver.into(),
        queued_ms: 0,
        body: "{}".into(),
    }
}

fn empty() -> Queue {
    Queue::new(Vec::new(), Instant::now(), 0)
}

fn push(queue: &mut Queue, to: &str, now: Instant) -> bool {
    queue.push(entry(to, 0), &receiver(to), now)
}

fn in_file(name: &str) -> Option<Receiver> {
    Some(receiver(name))
}

/// Begins what is due, and says whose turn it is and at which place.
fn begun(queue: &mut Queue, now: Instant) -> Vec<(String, u64)> {
    let turns = queue.turns(now, ROOM, in_file);
    let turn = |turn: &Turn| (turn.entry.receiver.to_string(), turn.entry.place);
    turns.begun.iter().map(turn).collect()
}

fn failed() -> Outcome {
    failed_for(None)
}

fn failed_for(wait: Option<Duration>) -> Outcome {
    let why = "it answers 500".to_owned();
    Outcome::Failed { why, wait }
}

/// Ends the attempt at the first one of a lane. `draw` is 1: the longest pause.
fn end(queue: &mut Queue, of: &str, outcome: &Outcome, now: Instant) -> (Option<NotificationEnd>, Option<Change>) {
    let first = Arc::clone(&queue.lanes[of].waiting[0].entry);
    queue.finish(&first, outcome, now, 1.0)
}

#[test]
fn each_receiver_has_its_own_order_and_one_under_way() {
    let (mut queue, now) = (empty(), Instant::now());
    for to in ["a", "b", "a", "a", "b"] {
        push(&mut queue, to, now);
    }
    assert_eq!(begun(&mut queue, now), [("a".to_owned(), 1), ("b".to_owned(), 2)]);
    assert_eq!(begun(&mut queue, now), []);
    // One that hangs does not hold up the other.
    let delivered = (Some(NotificationEnd::Delivered), None);
    assert_eq!(end(&mut queue, "b", &Outcome::Delivered, now), delivered);
    assert_eq!(begun(&mut queue, now), [("b".to_owned(), 5)]);
    assert_eq!(end(&mut queue, "a", &Outcome::Delivered, now), delivered);
    assert_eq!(begun(&mut queue, now), [("a".to_owned(), 3)]);
    assert_eq!(queue.len(), 3);
    for of in ["b", "a"] {
        end(&mut queue, of, &Outcome::Delivered, now);
    }
    assert_eq!(begun(&mut queue, now), [("a".to_owned(), 4)]);
    end(&mut queue, "a", &Outcome::Delivered, now);
    assert_eq!(queue.len(), 0);
    assert!(queue.lanes.is_empty());
}

#[test]
fn a_failure_is_tried_again_after_pauses_that_grow_to_a_minute() {
    let (mut queue, mut now) = (empty(), Instant::now());
    push(&mut queue, "a", now);
    let mut pauses = Vec::new();
    for attempt in 0..12 {
        assert_eq!(begun(&mut queue, now).len(), 1);
        let change = (attempt == 0).then_some(Change::Fails);
        assert_eq!(end(&mut queue, "a", &failed(), now), (None, change));
        let next = queue.turns(now, ROOM, in_file).next.unwrap();
        assert_eq!(begun(&mut queue, next - Duration::from_millis(1)), []);
        pauses.push((next - now).as_secs_f64());
        now = next;
    }
    assert_eq!(
        pauses,
        [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 60.0, 60.0]
    );
    assert_eq!(begun(&mut queue, now).len(), 1);
    let recovered = (Some(NotificationEnd::Delivered), Some(Change::Recovered));
    assert_eq!(end(&mut queue, "a", &Outcome::Delivered, now), recovered);
}

#[test]
fn pauses_are_drawn_so_that_many_do_not_come_back_together() {
    for failures in 0..40 {
        assert_eq!(pause(failures, 0.0), Duration::ZERO);
        assert_eq!(pause(failures, 0.5) * 2, pause(failures, 1.0));
        assert_eq!(pause(failures, f64::INFINITY), pause(failures, 1.0));
    }
}

#[test]
fn a_receiver_that_asks_for_time_gets_it_but_not_for_ever() {
    for (asked, expected) in [(1, 1), (90, 90), (100_000, 600)] {
        let (mut queue, now) = (empty(), Instant::now());
        push(&mut queue, "a", now);
        begun(&mut queue, now);
        end(&mut queue, "a", &failed_for(Some(Duration::from_secs(asked))), now);
        let next = queue.turns(now, ROOM, in_file).next.unwrap();
        assert_eq!(next - now, Duration::from_secs(expected));
    }
}

#[test]
fn what_is_refused_makes_way_for_the_next() {
    let (mut queue, now) = (empty(), Instant::now());
    push(&mut queue, "a", now);
    push(&mut queue, "a", now);
    begun(&mut queue, now);
    let refused = Outcome::Refused("it answers 404".to_owned());
    assert_eq!(
        end(&mut queue, "a", &refused, now),
        (Some(NotificationEnd::Refused), None)
    );
    assert_eq!(begun(&mut queue, now), [("a".to_owned(), 2)]);
}

#[test]
fn after_a_day_nobody_is_told_also_across_a_restart() {
    let now = Instant::now();
    let mut queue = empty();
    push(&mut queue, "a", now);
    begun(&mut queue, now);
    end(&mut queue, "a", &failed(), now);
    let turns = queue.turns(now + EXPIRES_AFTER, ROOM, in_file);
    assert_eq!((turns.begun.len(), turns.expired, queue.len()), (0, 1, 0));

    let kept = Arc::new(entry("a", 7));
    let age = EXPIRES_AFTER - HOUR;
    let mut queue = Queue::new(vec![kept], now, age.as_millis() as u64);
    assert_eq!(begun(&mut queue, now + HOUR - Duration::from_secs(1)).len(), 1);
    queue.stop_all();
    let turns = queue.turns(now + HOUR, ROOM, in_file);
    assert_eq!((turns.begun.len(), turns.expired, queue.len()), (0, 1, 0));
    // Places go on where they were: of two for one receiver the lower goes first.
    push(&mut queue, "a", now);
    assert_eq!(begun(&mut queue, now), [("a".to_owned(), 8)]);
}

#[test]
fn the_end_of_a_wait_for_a_pause_is_that_of_the_day_if_it_comes_first() {
    let now = Instant::now();
    let mut queue = empty();
    push(&mut queue, "a", now);
    let late = now + EXPIRES_AFTER - Duration::from_secs(10);
    begun(&mut queue, late);
    end(&mut queue, "a", &failed_for(Some(HOUR)), late);
    assert_eq!(queue.turns(late, ROOM, in_file).next, Some(now + EXPIRES_AFTER));
}

#[test]
fn who_has_left_the_file_is_told_once_of_what_was_queued_in_this_process() {
    let now = Instant::now();
    let mut queue = empty();
    push(&mut queue, "a", now);
    let gone = |_: &str| None;
    let turns = queue.turns(now, ROOM, gone);
    assert_eq!(turns.begun.len(), 1);
    assert_eq!(turns.begun[0].to, receiver("a"));
    end(&mut queue, "a", &failed(), now);
    let turns = queue.turns(now + HOUR, ROOM, gone);
    assert_eq!((turns.begun.len(), turns.withdrawn, queue.len()), (0, 1, 0));

    // After a restart its address is not known any more.
    let mut queue = Queue::new(vec![Arc::new(entry("a", 1))], now, 0);
    let turns = queue.turns(now, ROOM, gone);
    assert_eq!((turns.begun.len(), turns.withdrawn, queue.len()), (0, 1, 0));
}

#[test]
fn no_more_are_begun_than_there_is_room_for() {
    let (mut queue, now) = (empty(), Instant::now());
    for number in 0..10 {
        push(&mut queue, &format!("r{number}"), now);
    }
    assert_eq!(queue.turns(now, 3, in_file).begun.len(), 3);
    assert_eq!(queue.turns(now, 0, in_file).begun.len(), 0);
    assert_eq!(queue.turns(now, ROOM, in_file).begun.len(), 7);
}

#[test]
fn of_too_many_the_oldest_goes_also_when_it_is_under_way() {
    let (mut queue, now) = (empty(), Instant::now());
    assert!(!push(&mut queue, "slow", now));
    let first = queue.turns(now, ROOM, in_file).begun.remove(0).entry;
    for _ in 1..OUTBOX_MOST {
        assert!(!push(&mut queue, "fast", now));
    }
    assert!(push(&mut queue, "fast", now));
    assert_eq!(queue.len(), OUTBOX_MOST);
    assert!(queue.entries().iter().all(|entry| entry.receiver == "fast".into()));
    // Its end is not counted a second time.
    assert_eq!(queue.finish(&first, &Outcome::Delivered, now, 1.0), (None, None));
    assert_eq!(queue.len(), OUTBOX_MOST);
    assert_eq!(queue.lanes.len(), 1);
}

#[derive(Debug, Clone)]
enum What {
    Push(u8),
    Turns { seconds: u32, room: usize },
    Finish { which: usize, outcome: u8 },
    Restart,
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        4 => (0u8..4).prop_map(What::Push),
        4 => (0u32..100, 0usize..4).prop_map(|(seconds, room)| What::Turns { seconds, room }),
        4 => (0usize..4, 0u8..4).prop_map(|(which, outcome)| What::Finish { which, outcome }),
        1 => Just(What::Restart),
    ]
}

proptest! {
    /// Whatever happens: what waits is what was pushed and did not end, each receiver is told in order, one at a time, and
    /// nothing is left waiting without a turn.
    #[test]
    fn nothing_is_lost_and_nothing_goes_out_of_order(history in prop::collection::vec(what(), 1..120)) {
        let (mut queue, mut now) = (empty(), Instant::now());
        let mut waiting = BTreeSet::new();
        let mut under_way: Vec<Turn> = Vec::new();
        for what in history {
            match what {
                What::Push(to) => {
                    push(&mut queue, &to.to_string(), now);
                    waiting.insert(queue.last_place);
                }
                What::Turns { seconds, room } => {
                    now += Duration::from_secs(seconds.into());
                    let turns = queue.turns(now, room, in_file);
                    prop_assert!(turns.begun.len() <= room);
                    under_way.extend(turns.begun);
                    let busy: BTreeSet<_> = under_way.iter().map(|turn| turn.entry.receiver.clone()).collect();
                    prop_assert_eq!(busy.len(), under_way.len(), "one at a time");
                }
                What::Finish { which, outcome } if which < under_way.len() => {
                    let turn = under_way.remove(which);
                    let outcome = match outcome {
                        0 | 1 => Outcome::Delivered,
                        2 => Outcome::Refused(String::new()),
                        _ => failed(),
                    };
                    let (end, _) = queue.finish(&turn.entry, &outcome, now, 0.7);
                    let lower = |entry: &&Arc<OutboxEntry>| {
                        entry.receiver == turn.entry.receiver && entry.place < turn.entry.place
                    };
                    prop_assert!(queue.entries().iter().find(lower).is_none(), "in order");
                    if end.is_some() {
                        waiting.remove(&turn.entry.place);
                    }
                }
                What::Finish { .. } => {}
                What::Restart => {
                    under_way.clear();
                    queue = Queue::new(queue.entries(), now, 0);
                }
            }
            let places: Vec<_> = queue.entries().iter().map(|entry| entry.place).collect();
            prop_assert_eq!(places, waiting.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(queue.len(), waiting.len());
        }
        queue.stop_all();
        let mut rounds = 0;
        while queue.len() > 0 {
            now += HOUR / 6;
            for turn in queue.turns(now, ROOM, in_file).begun {
                queue.finish(&turn.entry, &Outcome::Delivered, now, 0.7);
            }
            rounds += 1;
            prop_assert!(rounds <= 120, "left without a turn");
        }
    }
}

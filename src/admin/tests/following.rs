use super::*;
use crate::control::event_log::KEPT;
use crate::runtime::{EventKind, Happened};
use std::io::{BufRead, BufReader};

fn event(seq: u64) -> Event {
    let happened = Happened {
        kind: EventKind::Kill,
        service: Some(if seq.is_multiple_of(10) { "blog" } else { "shop" }.to_owned()),
        before: Value::Null,
        after: Value::Null,
        text: format!("number {seq}\nof many"),
    };
    let by = Origin {
        who: "ada".to_owned(),
        from: "unix".to_owned(),
        at_ms: 0,
        reason: None,
    };
    Event::new(seq, happened, &by, 1, Value::Null)
}

/// 3000 events, of which the last 1000 are in memory, and the others on the disk or, given up, nowhere.
fn old_log(given_up: bool) -> Bench {
    let kept = (3001 - KEPT as u64..=3000).map(|seq| Arc::new(event(seq))).collect();
    Bench {
        events: EventLog::new(kept, 3000),
        history: Box::new(move |after, limit| {
            let last = if given_up { 0 } else { 3000 };
            Ok((after + 1..=last).take(limit).map(event).collect())
        }),
        ..Bench::default()
    }
}

fn numbers(answer: &Answer) -> Vec<u64> {
    let events: api::Events = serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"));
    assert_eq!(events.last, 3000);
    events.events.iter().map(|event| event.seq).collect()
}

#[test]
fn pages_from_memory_and_from_the_disk() {
    let admin = old_log(false).start();
    let page = |query: &str| numbers(&admin.get(&format!("/v1/events{query}")));
    assert_eq!(page(""), (1..=100).collect::<Vec<_>>());
    assert_eq!(page("?after=1500&limit=1000"), (1501..=2500).collect::<Vec<_>>());
    assert_eq!(page("?after=2000&limit=2"), [2001, 2002]);
    assert_eq!(page("?after=2998"), [2999, 3000]);
    assert_eq!(page("?after=3000"), Vec::<u64>::new());
    assert_eq!(page("?after=9999999999"), Vec::<u64>::new());
    assert_eq!(page("?service=blog&limit=3"), [10, 20, 30]);
    assert_eq!(page("?service=blog&after=1980&limit=4"), [1990, 2000, 2010, 2020]);
    assert_eq!(page("?service=blog&limit=1000").len(), 300);
    assert_eq!(page("?service=none"), Vec::<u64>::new());
    for query in [
        "?after=-1",
        "?after=x",
        "?limit=0",
        "?limit=1001",
        "?limit=",
        "?before=1",
        "?after=1&after=2",
    ] {
        let answer = admin.get(&format!("/v1/events{query}"));
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (400, "bad-request"),
            "{query}"
        );
    }
    admin.stop();
}

#[test]
fn a_log_whose_beginning_was_given_up() {
    let admin = old_log(true).start();
    assert_eq!(
        numbers(&admin.get("/v1/events?limit=2")),
        [2001, 2002],
        "what is in memory"
    );
    admin.stop();
    let admin = Bench {
        history: Box::new(|_, _| Err("the disk is on fire".to_owned())),
        ..old_log(false)
    }
    .start();
    let answer = admin.get("/v1/events");
    assert_eq!((answer.status, answer.problem().as_str()), (503, "history"));
    assert!(answer.body.contains("on fire"));
    assert_eq!(numbers(&admin.get("/v1/events?after=2999")), [3000]);
    admin.stop();
}

/// Reads server-sent events.
struct Follower(BufReader<TcpStream>);

impl Follower {
    fn new(admin: &Running, query: &str, lines: &str) -> Self {
        let mut stream = admin.connect();
        write!(
            stream,
            "GET /v1/events{query} HTTP/1.1\r\n{}accept: text/event-stream\r\n{lines}\r\n",
            admin.local()
        )
        .unwrap();
        let mut reader = BufReader::new(stream);
        let head: Vec<String> = (&mut reader)
            .lines()
            .map(Result::unwrap)
            .take_while(|line| !line.is_empty())
            .collect();
        assert!(head[0].starts_with("HTTP/1.1 200"), "{head:?}");
        assert!(
            head.iter().any(|line| line == "content-type: text/event-stream"),
            "{head:?}"
        );
        Self(reader)
    }

    /// The next line of the stream that is neither empty nor the length of a chunk; `None` at its end.
    fn line(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            let line = line.trim_end();
            if line == "0" {
                return None;
            }
            if line.contains(':') {
                return Some(line.to_owned());
            }
        }
    }

    /// The next event: its number.
    fn event(&mut self) -> u64 {
        let mut lines = std::iter::from_fn(|| self.line()).skip_while(|line| line.starts_with(':'));
        let id = lines.next().unwrap();
        let id: u64 = id
            .strip_prefix("id: ")
            .unwrap_or_else(|| panic!("{id}"))
            .parse()
            .unwrap();
        assert_eq!(lines.next().unwrap(), "event: kill");
        let data = lines.next().unwrap();
        let event: Event = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(event.seq, id);
        id
    }
}

#[test]
fn followers_get_what_was_and_what_comes() {
    let admin = old_log(false).start();
    let mut all = Follower::new(&admin, "?after=1998", "");
    for seq in 1999..=3000 {
        assert_eq!(all.event(), seq);
    }
    for seq in 3001..=3005 {
        admin.events.add(Arc::new(event(seq)));
        assert_eq!(all.event(), seq);
    }
    drop(all);
    // The last number that a follower has goes before where it began; a number from before the log was lost is forgotten.
    let began = Instant::now();
    let mut again = follow_when_free(&admin, "?after=1", "last-event-id: 3003\r\n", began);
    assert_eq!(again.event(), 3004);
    drop(again);
    let mut ahead = follow_when_free(&admin, "?after=99999", "", began);
    admin.events.add(Arc::new(event(3006)));
    assert_eq!(ahead.event(), 3006);
    drop(ahead);
    let mut blog = follow_when_free(&admin, "?after=2985&service=blog", "", began);
    assert_eq!([blog.event(), blog.event()], [2990, 3000]);
    admin.stop();
}

/// One may follow at a time here: once the one before is noticed to have gone.
fn follow_when_free(admin: &Running, query: &str, lines: &str, began: Instant) -> Follower {
    loop {
        let lines = format!("{}accept: text/event-stream\r\n{lines}", admin.local());
        let probe = admin.tcp_status(&format!("GET /v1/events{query}"), &lines);
        if probe == 200 {
            break;
        }
        assert!(began.elapsed() < LONG);
        std::thread::sleep(Duration::from_millis(5));
    }
    loop {
        let mut stream = admin.connect();
        write!(
            stream,
            "GET /v1/events{query} HTTP/1.1\r\n{}accept: text/event-stream\r\n{lines}\r\n",
            admin.local()
        )
        .unwrap();
        let mut reader = BufReader::new(stream);
        let head: Vec<String> = (&mut reader)
            .lines()
            .map(Result::unwrap)
            .take_while(|line| !line.is_empty())
            .collect();
        if head[0].starts_with("HTTP/1.1 200") {
            return Follower(reader);
        }
        assert!(began.elapsed() < LONG, "{head:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Running {
    /// The status alone: the answer may have no end.
    fn tcp_status(&self, start: &str, lines: &str) -> u16 {
        let mut stream = self.connect();
        write!(stream, "{start} HTTP/1.1\r\n{lines}\r\n").unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line.get(9..12).unwrap().parse().unwrap()
    }
}

#[test]
fn a_quiet_log_shows_signs_of_life_and_ends_with_the_process() {
    let admin = Bench {
        limits: Limits {
            age: Duration::from_millis(150),
            ..PATIENT
        },
        ..Bench::default()
    }
    .start();
    let began = Instant::now();
    let mut follower = Follower::new(&admin, "", "");
    assert_eq!(follower.line().unwrap(), ": following");
    for _ in 0..5 {
        assert_eq!(follower.line().unwrap(), ":");
    }
    assert!(
        began.elapsed() > Duration::from_millis(300),
        "older than other connections may be"
    );
    admin.events.add(Arc::new(event(1)));
    assert_eq!(follower.event(), 1);
    // It returns though the stream has no end of its own.
    admin.stop();
    assert_eq!(
        std::iter::from_fn(|| follower.line())
            .filter(|line| line != ":")
            .count(),
        0
    );
}

#[test]
fn not_everyone_may_follow() {
    let admin = Bench::default().start();
    let _first = Follower::new(&admin, "", "");
    let lines = format!("{}accept: text/html, Text/Event-Stream;q=0.9\r\n", admin.local());
    let second = admin.tcp("GET /v1/events", &lines, "");
    assert_eq!((second.status, second.problem().as_str()), (503, "busy"));
    assert_eq!(admin.get("/v1/events").status, 200, "pages are for all");
    let over_unix = exchange_status(admin.connect_unix(), "accept: text/event-stream\r\nhost: x\r\n");
    assert_eq!(over_unix, 200, "another listener, other followers");
    let bad = format!("{}accept: text/event-stream\r\nlast-event-id: x\r\n", admin.local());
    assert_eq!(admin.tcp("GET /v1/events", &bad, "").problem(), "bad-request");
    admin.stop();
}

fn exchange_status(mut stream: UnixStream, lines: &str) -> u16 {
    write!(stream, "GET /v1/events HTTP/1.1\r\n{lines}\r\n").unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line.get(9..12).unwrap().parse().unwrap()
}

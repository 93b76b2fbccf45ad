//! Commands that page through what a proxy knows, or go on watching it.

use crate::asking::{ask, one_line_of_json, rollgate, status, unreachable, write};
use crate::fake::{Asked, Fake, Stream, json, problem};
use crate::support::{Exit, PATIENCE, eventually};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A command that goes on, and its lines. Killed when dropped.
struct Running {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Running {
    fn start(fake: &Fake, arguments: &[&str]) -> Self {
        let mut command = rollgate(&[arguments, &["--admin", &fake.address]].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line
    }

    /// Stops it, and gives back what it said on stderr.
    fn stderr(mut self) -> String {
        self.child.kill().unwrap();
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn watching_goes_on_while_the_proxy_is_away() {
    let looks = AtomicUsize::new(0);
    let fake = Fake::unix(move |_, stream| match looks.fetch_add(1, Ordering::Relaxed) {
        1 => {}
        look => write(stream, json(&status(look as u64))),
    });
    let mut watching = Running::start(&fake, &["status", "--watch", "--json"]);
    assert_eq!(one_line_of_json(&watching.line())["generation"], 0);
    assert_eq!(
        one_line_of_json(&watching.line())["type"],
        "urn:rollgate:problem:unreachable"
    );
    assert_eq!(one_line_of_json(&watching.line())["generation"], 2);
    assert_eq!(watching.stderr(), "");
    // For people; and a pipe that is closed ends it.
    let mut watching = Running::start(&fake, &["status", "--watch"]);
    assert!(watching.line().contains("generation 3"));
    drop(std::mem::replace(&mut watching.out, {
        let (reader, _) = std::io::pipe().unwrap();
        BufReader::new(std::process::ChildStdout::from(std::os::fd::OwnedFd::from(reader)))
    }));
    eventually(PATIENCE, "the watch ends with its reader", || {
        watching
            .child
            .try_wait()
            .unwrap()
            .is_some_and(|status| status.success())
    });
    assert_eq!(ask(&Fake::unix(|_, _| {}), &["status", "--watch"]).code, Some(4));
}

fn event(seq: u64) -> Value {
    json!({
        "seq": seq, "time": "2026-07-01T00:00:00.000Z", "type": "weights", "service": "shop", "who": "token",
        "from": "unix", "reason": null, "before": null, "after": null, "text": format!("event {seq}"),
        "generation": 1, "evidence": null,
    })
}

fn query(asked: &Asked, key: &str) -> Option<u64> {
    let (_, query) = asked.target.split_once('?')?;
    let value = query
        .split('&')
        .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
    value.and_then(|value| value.parse().ok())
}

/// A log that keeps events 201 to 1500; at most 300 an answer; only every third is about a service.
fn log(asked: &Asked, stream: &mut dyn Stream) {
    let (after, limit) = (query(asked, "after").unwrap(), query(asked, "limit").unwrap().min(300));
    let step = if asked.target.contains("&service=shop") { 3 } else { 1 };
    let events = (201..=1500).filter(|seq| *seq > after && seq % step == 0);
    let events: Vec<Value> = events.take(limit as usize).map(event).collect();
    write(stream, json(&json!({"events": events, "last": 1500})));
}

fn numbers(exit: &Exit) -> Vec<u64> {
    assert_eq!((exit.code, exit.stderr.as_str()), (Some(0), ""));
    let lines = exit
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|event| event["seq"].as_u64().unwrap()).collect()
}

#[test]
fn events_page_through_the_log() {
    let fake = Fake::unix(log);
    let listed = |arguments: &[&str]| numbers(&ask(&fake, &[&["events", "--json"], arguments].concat()));
    assert_eq!(listed(&[]), (1451..=1500).collect::<Vec<_>>());
    assert_eq!(listed(&["--limit", "0"]), Vec::<u64>::new());
    assert_eq!(listed(&["-n", "1250"]), (251..=1500).collect::<Vec<_>>());
    assert_eq!(listed(&["-n", "9999"]), (201..=1500).collect::<Vec<_>>());
    assert_eq!(listed(&["--after", "0"]), (201..=1500).collect::<Vec<_>>());
    assert_eq!(
        listed(&["--after", "1400", "-n", "7"]),
        (1401..=1407).collect::<Vec<_>>()
    );
    assert_eq!(listed(&["--after", "1500"]), Vec::<u64>::new());
    let of_shop: Vec<u64> = (201..=1500).filter(|seq| seq % 3 == 0).collect();
    assert_eq!(listed(&["--service", "shop", "--after", "0"]), of_shop);
    assert_eq!(
        listed(&["--service", "shop", "-n", "300"]),
        of_shop[of_shop.len() - 300..]
    );
    let exit = ask(&fake, &["events", "-n", "2"]);
    let lines: Vec<&str> = exit.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{}", exit.stdout);
    assert!(lines[0].contains("SEQ") && lines[2].contains("1500") && lines[2].ends_with("event 1500"));
    let none = Fake::unix(|_, stream| write(stream, json(&json!({"events": [], "last": 0}))));
    assert_eq!(numbers(&ask(&none, &["events", "--json"])), Vec::<u64>::new());
}

#[test]
fn following_begins_again_where_the_stream_was_lost() {
    let streams = AtomicUsize::new(0);
    let fake = Fake::unix(move |asked, stream| {
        if asked.head.get("accept") != Some("text/event-stream") {
            return log(asked, stream);
        }
        let after = query(asked, "after").unwrap();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\n\r\n";
        match streams.fetch_add(1, Ordering::Relaxed) {
            // Begins, sends one event and a half, and goes.
            0 => write(
                stream,
                format!("{head}: hello\n\nid: 1\ndata: {}\n\ndata: {{", event(after + 1)),
            ),
            // Refuses for a moment, as a proxy that stops does.
            1 => write(stream, problem(503, "no change is taken any more", None)),
            2 => {
                write(stream, format!("{head}data: {}\n\n", event(after + 1)));
                std::thread::sleep(PATIENCE);
            }
            _ => unreachable!(),
        }
    });
    let mut following = Running::start(&fake, &["events", "--follow", "--json", "-n", "2", "--service", "shop"]);
    let seqs: Vec<u64> = (0..4)
        .map(|_| one_line_of_json(&following.line())["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(seqs, [1497, 1500, 1501, 1502]);
    let streams: Vec<Asked> = fake
        .asked()
        .into_iter()
        .filter(|asked| asked.head.get("accept") == Some("text/event-stream"))
        .collect();
    let ids: Vec<Option<&str>> = streams.iter().map(|asked| asked.head.get("last-event-id")).collect();
    assert_eq!(ids, [None, Some("1501"), Some("1501")]);
    assert!(streams.iter().all(|asked| asked.target.ends_with("&service=shop")));
    let stderr = following.stderr();
    assert_eq!(
        stderr.matches("following again after event 1501").count(),
        2,
        "{stderr}"
    );
    assert!(stderr.contains("no change is taken any more"), "{stderr}");
}

#[test]
fn following_what_cannot_be_followed_ends() {
    let refused = Fake::unix(|_, stream| write(stream, problem(403, "not you", None)));
    assert_eq!(ask(&refused, &["events", "--follow", "--after", "0"]).code, Some(3));
    let no_stream = Fake::unix(log_once);
    let exit = ask(&no_stream, &["events", "--follow", "--after", "0"]);
    assert_eq!(exit.code, Some(1));
    assert!(exit.stderr.contains("gives no stream of events"), "{}", exit.stderr);
    unreachable("unix:/nonexistent/x.sock", &["events", "--follow"], &["no socket"]);
}

fn log_once(_: &Asked, stream: &mut dyn Stream) {
    write(stream, json(&json!({"events": [], "last": 0})));
}

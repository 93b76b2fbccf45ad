//! The same bytes through rollgate, through pingora-proxy and through hyper's and httparse's parsers, and a reference
//! reading beside them: whatever comes, what rollgate forwards is one message that all of them read alike, and what
//! they could read differently is refused.
//!
//! `DIFFERENTIAL_CASES` and `DIFFERENTIAL_SEED` make the generated part longer or different.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

#[path = "differential/answers.rs"]
mod answers;
#[path = "differential/corpus.rs"]
mod corpus;
#[path = "differential/corpus_of_answers.rs"]
mod corpus_of_answers;
#[path = "differential/fronts.rs"]
mod fronts;
#[path = "differential/judge.rs"]
mod judge;
#[path = "differential/mutations.rs"]
mod mutations;
#[path = "differential/oracles.rs"]
mod oracles;
#[path = "differential/reading.rs"]
mod reading;
#[path = "differential/recorder.rs"]
mod recorder;

use answers::{Answer, Want};
use corpus::{Case, case};
use fastrand::Rng;
use fronts::{Manner, Outcome, converse};
use judge::{End2End, end_to_end};
use reading::{End, Reading};
use recorder::{Record, Recorder, Script, echo};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{Config, Gate, PATIENCE, Service};

const STRICT: Manner = Manner {
    patience: PATIENCE,
    demands_close: true,
};

/// pingora-proxy waits for more where rollgate refuses: then the client finishes.
const LENIENT: Manner = Manner {
    patience: Duration::from_secs(2),
    demands_close: false,
};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

fn generated(seed: u64, cases: u64) -> impl Iterator<Item = Case> {
    let seed = number("DIFFERENTIAL_SEED", seed);
    (0..number("DIFFERENTIAL_CASES", cases)).map(move |nth| {
        let mutated = mutations::stream(&mut Rng::with_seed(seed.wrapping_mul(1 << 20) + nth));
        case(format!("{} {seed}/{nth}", mutated.name), mutated.bytes)
    })
}

/// rollgate before an upstream that echoes.
struct Rollgate {
    gate: Gate,
    upstream: Recorder,
}

impl Rollgate {
    fn start() -> Self {
        Self::before(Recorder::start(echo))
    }

    fn before(upstream: Recorder) -> Self {
        let service = Service::only(upstream.port()).never_eject();
        Self {
            gate: Gate::start(&Config::with(service).top("threads: 1").text()),
            upstream,
        }
    }

    fn run(&self, bytes: &[u8]) -> (Reading, Outcome, Vec<Record>) {
        let reading = reading::requests(bytes);
        let outcome = converse(self.gate.port(), &[bytes], &reading, STRICT);
        (reading, outcome, self.upstream.take())
    }

    /// Sends the case and asks for all that must hold whatever it is; then sees that the next client is served.
    fn judge(&self, case: &Case) {
        let (reading, outcome, records) = self.run(&case.bytes);
        let faults = judge::safety(&reading, &case.bytes, &outcome, &records);
        assert!(
            faults.is_empty(),
            "{case:?}: {faults:#?}\nread as {reading:#?}\nanswered {}\nforwarded {:#?}",
            outcome.raw.escape_ascii(),
            records
                .iter()
                .map(|r| r.raw.escape_ascii().to_string())
                .collect::<Vec<_>>(),
        );
        if reading.end != End::Clean {
            let (_, mine, _) = self.run(b"GET /mine HTTP/1.1\r\nhost: a\r\n\r\n");
            assert_eq!(mine.answers[0].body, b"GET /mine ", "after {}", case.name);
        }
    }
}

#[test]
fn named_cases_are_forwarded_unambiguously_or_refused() {
    let rollgate = Rollgate::start();
    for case in corpus::named() {
        rollgate.judge(&case);
        let poisoned = [&case.bytes[..], b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"].concat();
        rollgate.judge(&self::case(format!("{}, then another", case.name), poisoned));
    }
}

#[test]
fn mutated_streams_are_forwarded_unambiguously_or_refused() {
    let rollgate = Rollgate::start();
    let mut ends = BTreeMap::new();
    for case in generated(1, 1500) {
        rollgate.judge(&case);
        *ends
            .entry(format!("{:?}", reading::requests(&case.bytes).end))
            .or_insert(0) += 1;
    }
    // The corpus is worth something: it holds streams of every kind.
    assert!(ends.len() > 15 && ends["Clean"] > 100, "{ends:#?}");
}

/// Where pingora-proxy serves what rollgate refuses, and the other way round; a change of either shows here.
#[test]
fn where_pingora_proxy_is_more_lenient_is_written_down() {
    let (rollgate, upstream) = (Rollgate::start(), Recorder::start(echo));
    let pingora = fronts::pingora(upstream.port());
    let mut table = String::new();
    for case in corpus::named() {
        let (reading, ours, _) = rollgate.run(&case.bytes);
        let theirs = converse(pingora, &[&case.bytes], &reading, LENIENT);
        upstream.take();
        assert!(!ours.silent, "{case:?}");
        let (we, they) = (serves(&ours), serves(&theirs));
        if we != they {
            let who = if they { "only pingora-proxy" } else { "only rollgate" };
            let refusal = if they {
                judge::reason(&ours)
            } else {
                format!("{:?}", theirs.statuses())
            };
            writeln!(table, "{who} serves: {} ({refusal})", case.name).unwrap();
        }
    }
    insta::assert_snapshot!(table);
}

fn serves(outcome: &Outcome) -> bool {
    outcome.answers.first().is_some_and(|answer| answer.status == 200)
}

/// Reasons for which rollgate refuses what pingora-proxy serves: rules of RFC 9112 that keep two parsers from reading
/// two things. pingora-proxy repairs or ignores what breaks them.
const STRICTER: [&str; 20] = [
    // Each of two framing fields may be the one that the next parser believes.
    "400 Bad Request: both Content-Length and Transfer-Encoding are present",
    "400 Bad Request: Content-Length is repeated",
    "400 Bad Request: Content-Length is not a number of digits up to 2^63 - 1",
    "400 Bad Request: Transfer-Encoding is not one chunked",
    "400 Bad Request: a transfer coding is unknown",
    "400 Bad Request: the body's coding is broken",
    // A line that ends for one parser and not for another.
    "400 Bad Request: a line ends in LF without CR",
    "400 Bad Request: more than one empty line before the head",
    // A target that one parser escapes and another cuts.
    "400 Bad Request: the request line is malformed",
    "400 Bad Request: the HTTP version is malformed",
    "400 Bad Request: the request target holds a byte that is not allowed",
    "400 Bad Request: the form of the request target does not fit the method",
    // A path that one server resolves, or ends, elsewhere than another.
    "400 Bad Request: the path has a segment that is `.` or `..`",
    "400 Bad Request: the path has a backslash",
    "400 Bad Request: the path has an encoded NUL",
    "400 Bad Request: the path has a `%` without two hexadecimal digits behind it",
    // Whom the request is for.
    "400 Bad Request: Host is missing",
    "400 Bad Request: the host is invalid",
    // How far it may go.
    "400 Bad Request: Max-Forwards is not one number",
    // What would be missing at the far end.
    "400 Bad Request: Connection names a field that is meant for the far end",
];

#[test]
fn mutated_streams_part_rollgate_and_pingora_proxy_only_for_known_reasons() {
    let (rollgate, upstream) = (Rollgate::start(), Recorder::start(echo));
    let pingora = fronts::pingora(upstream.port());
    let (mut stricter, mut looser) = (BTreeMap::new(), BTreeMap::new());
    // pingora-proxy serves no pipelined requests: only what comes first can be compared.
    let alone = generated(2, 1000).filter(|case| !case.bytes.starts_with(mutations::PREFIX));
    // The answer to HEAD does not say why it is refused.
    let alone = alone.filter(|case| !case.bytes.starts_with(b"HEAD "));
    for case in alone {
        let (reading, ours, _) = rollgate.run(&case.bytes);
        let theirs = converse(pingora, &[&case.bytes], &reading, LENIENT);
        upstream.take();
        assert!(!ours.silent, "{case:?}");
        match (serves(&ours), serves(&theirs)) {
            (false, true) => drop(stricter.insert(judge::reason(&ours), case)),
            // The one thing pingora-proxy refuses and rollgate does not: authorities that are the same but for their case
            // or a default port (RFC 9110 section 4.2.3), and target bytes that no parser takes for a delimiter.
            (true, false)
                if !judge::writes_authority_otherwise(&case.bytes) && !judge::has_odd_target(&reading.messages[0]) =>
            {
                drop(looser.insert(format!("{:?}", theirs.statuses()), case));
            }
            _ => {}
        }
    }
    assert!(stricter.len() > 8, "the corpus is too tame: {stricter:#?}");
    stricter.retain(|reason, _| !STRICTER.contains(&reason.as_str()));
    assert!(stricter.is_empty() && looser.is_empty(), "{stricter:#?}\n{looser:#?}");
}

#[test]
fn valid_requests_are_forwarded_as_pingora_proxy_forwards_them() {
    let (rollgate, upstream) = (Rollgate::start(), Recorder::start(echo));
    let pingora = fronts::pingora(upstream.port());
    for case in mutations::valid(&mut Rng::with_seed(3), 400) {
        let (reading, ours, forwarded) = rollgate.run(&case.bytes);
        assert!(
            reading.messages.len() == 1 && !matches!(reading.end, End::Malformed(_)),
            "{case:?}"
        );
        let faults = judge::safety(&reading, &case.bytes, &ours, &forwarded);
        assert!(faults.is_empty(), "{faults:#?} of {case:#?}");
        let theirs = converse(
            pingora,
            &[&case.bytes],
            &reading,
            Manner {
                patience: PATIENCE,
                ..LENIENT
            },
        );
        let ours_seen: Vec<End2End> = forwarded
            .iter()
            .filter_map(|r| r.message.as_ref())
            .map(end_to_end)
            .collect();
        let theirs_seen: Vec<End2End> = upstream
            .take()
            .iter()
            .filter_map(|r| r.message.as_ref())
            .map(end_to_end)
            .collect();
        assert_eq!(ours_seen, theirs_seen, "{case:?}");
        let told = |outcome: &Outcome| outcome.answers.iter().map(judge::told).collect::<Vec<_>>();
        assert_eq!(told(&ours), told(&theirs), "{case:?}");
    }
}

/// HTTP/1.0 asks for no `Host`; an empty one would be refused by many a server.
#[test]
fn a_request_without_a_host_names_the_endpoint() {
    let rollgate = Rollgate::start();
    let (_, outcome, records) = rollgate.run(b"GET /old HTTP/1.0\r\n\r\n");
    assert_eq!(outcome.statuses(), [200]);
    let endpoint = format!("127.0.0.1:{}", rollgate.upstream.port());
    assert_eq!(
        records[0].message.as_ref().map(|m| m.host.as_str()),
        Some(endpoint.as_str())
    );
}

#[test]
fn streams_split_at_every_byte_are_the_same_streams() {
    let rollgate = Rollgate::start();
    let stream =
        b"POST /1?a=b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=\"y\"\r\nabc\r\n0\r\nt: u\r\n\r\n\
        PUT /2 HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nok\r\nGET /3 HTTP/1.0\r\n\r\n";
    let reading = reading::requests(stream);
    assert_eq!((reading.messages.len(), reading.end), (3, End::Closed));
    for at in 1..stream.len() {
        let outcome = converse(rollgate.gate.port(), &[&stream[..at], &stream[at..]], &reading, STRICT);
        let faults = judge::safety(&reading, stream, &outcome, &rollgate.upstream.take());
        assert!(faults.is_empty(), "split at {at}: {faults:#?}");
    }
}

/// rollgate before an upstream that answers as it is told next.
struct Scripted {
    rollgate: Rollgate,
    next: Arc<Mutex<Option<Script>>>,
    answers: usize,
}

impl Scripted {
    fn start() -> Self {
        let next: Arc<Mutex<Option<Script>>> = Arc::default();
        let told = Arc::clone(&next);
        let upstream = Recorder::start(move |message| match &*told.lock().unwrap() {
            Some(script) => script.clone(),
            None => echo(message),
        });
        Self {
            rollgate: Rollgate::before(upstream),
            next,
            answers: 0,
        }
    }

    fn run(&mut self, answer: &Answer) {
        self.answers += 1;
        let script = Script {
            bytes: answer.bytes.clone(),
            close: answer.close,
        };
        *self.next.lock().unwrap() = Some(script);
        let request = format!("{} /{} HTTP/1.1\r\nhost: a\r\n\r\n", answer.method, self.answers);
        let (_, outcome, records) = self.rollgate.run(request.as_bytes());
        let faults = answer.faults(&outcome);
        assert!(
            faults.is_empty(),
            "{answer:?}: {faults:#?}\nanswered {}",
            outcome.raw.escape_ascii()
        );
        *self.next.lock().unwrap() = None;
        let used = records.last().map(|record| record.connection);
        let (_, mine, records) = self.rollgate.run(b"GET /mine HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(mine.answers[0].body, b"GET /mine ", "after {answer:?}");
        let again = records.last().map(|record| record.connection) == used;
        let may_be_used_again = matches!(answer.want, Want::Whole(_)) && !answer.close && !answer.poisoned;
        assert_eq!(
            again, may_be_used_again,
            "whether the connection is used again after {answer:?}"
        );
    }
}

#[test]
fn named_answers_arrive_whole_or_visibly_not() {
    let mut scripted = Scripted::start();
    for answer in corpus_of_answers::named() {
        scripted.run(&answer);
    }
}

#[test]
fn mutated_answers_arrive_whole_or_visibly_not() {
    let mut scripted = Scripted::start();
    let seed = number("DIFFERENTIAL_SEED", 4);
    let mut wants = [0; 3];
    for nth in 0..number("DIFFERENTIAL_CASES", 1000) {
        let mut rng = Rng::with_seed(seed.wrapping_mul(1 << 20) + nth);
        let answer = mutations::answer(&mut rng, format!("mutated {seed}/{nth}"));
        scripted.run(&answer);
        wants[match answer.want {
            Want::Whole(_) => 0,
            Want::BadGateway => 1,
            Want::Cut => 2,
        }] += 1;
    }
    assert!(wants.iter().all(|count| *count > 20), "{wants:?}");
}

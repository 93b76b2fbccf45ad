//! What must hold of what rollgate answered and forwarded, and how two forwarded messages are compared.

use super::fronts::Outcome;
use super::oracles::{self, Seen};
use super::reading::{self, End, Field, Message, Reading};
use super::recorder::{Record, echo};
use super::support::lint_forwarded_request;
use std::fmt;

/// A forwarded request without what belongs to the hop or was added on the way.
#[derive(Clone, PartialEq, Eq)]
pub struct End2End {
    pub method: String,
    pub target: String,
    pub host: String,
    pub fields: Vec<Field>,
    pub body: Vec<u8>,
}

impl fmt::Debug for End2End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} at {}", self.method, self.target, self.host)?;
        reading::show(f, &self.fields, &self.body)
    }
}

/// Fields of one hop, and those of the framing, which each proxy says anew.
const HOP: [&str; 12] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "content-length",
    "upgrade",
    "http2-settings",
    "host",
    "expect",
];

/// What rollgate says of the client and the request; from a peer it does not trust it takes none of them.
const ADDED: [&str; 9] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "forwarded",
    "x-real-ip",
    "x-request-id",
    "traceparent",
    "x-rollgate-version",
    "max-forwards",
];

/// Names that a CGI-like upstream would take for one rollgate acts on: removed.
const ALIASES: [&str; 3] = ["content_length", "transfer_encoding", "x_forwarded_for"];

/// What of a request is between its client and the endpoint, whoever is on the way.
pub fn end_to_end(message: &Message) -> End2End {
    let options = message.options();
    let kept = |field: &&Field| {
        let name = field.0.as_str();
        !HOP.contains(&name) && !ADDED.contains(&name) && !ALIASES.contains(&name) && !options.iter().any(|o| o == name)
    };
    let mut fields: Vec<Field> = message.fields.iter().filter(kept).cloned().collect();
    // The order among fields of different names means nothing (RFC 9110 section 5.3), and pingora-proxy changes it.
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    End2End {
        method: message.method.clone(),
        target: message.target.clone(),
        host: message.host.to_ascii_lowercase(),
        fields,
        body: message.body.clone(),
    }
}

/// What the client is told, without what belongs to the hop.
pub fn told(answer: &Message) -> (u16, Vec<u8>, Vec<Field>) {
    let fields = answer
        .fields
        .iter()
        .filter(|(name, _)| name.starts_with("x-answer") || name == "etag");
    (answer.status, answer.body.clone(), fields.cloned().collect())
}

/// The reason rollgate gave with its refusal, without the request's id.
pub fn reason(outcome: &Outcome) -> String {
    let Some(refusal) = outcome.answers.iter().find(|answer| answer.status >= 400) else {
        return "no answer".into();
    };
    let text = String::from_utf8_lossy(&refusal.body).into_owned();
    text.lines().next().unwrap_or_default().to_owned()
}

/// Every promise that what rollgate did with a stream breaks; empty when all hold.
pub fn safety(reading: &Reading, bytes: &[u8], outcome: &Outcome, records: &[Record]) -> Vec<String> {
    let mut faults = Vec::new();
    judge_answers(reading, bytes, outcome, &mut faults);
    judge_forwarded(reading, records, &mut faults);
    judge_hyper(reading, bytes, &mut faults);
    faults
}

fn judge_answers(reading: &Reading, bytes: &[u8], outcome: &Outcome, faults: &mut Vec<String>) {
    let good = reading.messages.len();
    for (message, answer) in reading.messages.iter().zip(&outcome.answers) {
        let expected = echo(message);
        let body_is_due = message.method != "HEAD" && !matches!(answer.status, 204 | 304);
        if body_is_due && !expected.bytes.ends_with(&answer.body) && !message.target.contains("answer=chunked") {
            faults.push(format!("{} {} got another's answer", message.method, message.target));
        }
    }
    let statuses = outcome.statuses();
    let (served, beyond) = statuses.split_at(good.min(statuses.len()));
    if served.len() < good || served.iter().any(|status| *status >= 400 && *status != 404) {
        faults.push(format!("{good} good requests, answered {statuses:?}"));
    }
    let refusals_due = match reading.end {
        End::Malformed(_) => 1..=1,
        End::Incomplete => 0..=1,
        End::Clean | End::Closed => 0..=0,
    };
    if !refusals_due.contains(&beyond.len()) || !beyond.iter().all(|s| [400, 405, 414, 417, 431, 505].contains(s)) {
        faults.push(format!("{:?} and answered {statuses:?}", reading.end));
    }
    if outcome.silent {
        faults.push("neither an answer nor the end of the connection".into());
    }
    if matches!(reading.end, End::Malformed(_) | End::Closed) && !outcome.closed_first {
        faults.push("the connection was not closed".into());
    }
    if outcome.reset {
        faults.push("the connection was reset".into());
    }
    let methods = reading.methods(bytes);
    let mut at = 0;
    for (nth, answer) in outcome.answers.iter().enumerate() {
        // Interim answers are no part of this: the upstream sends none.
        let raw = &outcome.raw[at..at + answer.len];
        at += answer.len;
        if let Err(error) = rollgate::http1::lint_response(raw, methods.get(nth) == Some(&"HEAD")) {
            faults.push(format!("answer: {error}"));
        }
    }
    if at != outcome.raw.len() {
        faults.push(format!("{} bytes behind the last answer", outcome.raw.len() - at));
    }
}

fn judge_forwarded(reading: &Reading, records: &[Record], faults: &mut Vec<String>) {
    let mut stream = Vec::new();
    let mut whole = Vec::new();
    for record in records {
        let head = record
            .raw
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .map_or(record.raw.len(), |at| at + 4);
        let nameless = reading.messages.iter().any(|m| m.host.is_empty());
        // Bytes above 127 are good in values; the lint reads text.
        let text: Vec<u8> = record.raw[..head]
            .iter()
            .map(|b| if b.is_ascii() { *b } else { b'?' })
            .collect();
        let lint = lint_forwarded_request(&text);
        // No host, nothing to tell of it; `Trailer` may be passed on without trailers (RFC 9110 section 6.6.2).
        let known = |fault: &str| nameless && fault.contains("x-forwarded-host") || fault == "hop-by-hop field trailer";
        faults.extend(lint.into_iter().filter(|fault| !known(fault)));
        if let Err(error) = rollgate::http1::lint_request(&record.raw) {
            faults.push(error.to_string());
        }
        faults.extend(record.fault.map(|why| format!("forwarded what is malformed: {why}")));
        if let Some(message) = &record.message {
            stream.extend_from_slice(&record.raw);
            whole.push(message);
        }
    }
    let expected: Vec<End2End> = reading.messages.iter().map(end_to_end).collect();
    let mut forwarded: Vec<End2End> = whole.iter().map(|message| end_to_end(message)).collect();
    for (expected, forwarded) in expected.iter().zip(&mut forwarded) {
        // Where the client names no host rollgate names the endpoint.
        if expected.host.is_empty() && forwarded.host.starts_with("127.0.0.1:") {
            forwarded.host.clear();
        }
    }
    if expected != forwarded {
        faults.push(format!("forwarded {forwarded:#?}, not {expected:#?}"));
    }
    let passes = |(name, _): &&Field| !HOP.contains(&name.as_str()) && !ADDED.contains(&name.as_str());
    let trailers = |message: &Message| message.trailers.iter().filter(passes).cloned().collect::<Vec<_>>();
    for (message, forwarded) in reading.messages.iter().zip(&whole) {
        if trailers(message) != forwarded.trailers {
            faults.push(format!("trailers {:?}", forwarded.trailers));
        }
    }
    let seen: Vec<Seen> = whole.iter().map(|message| seen(message)).collect();
    for (who, verdict) in [
        ("hyper", oracles::hyper_server(&stream)),
        ("httparse", oracles::httparse_all(&stream)),
    ] {
        let odd = who == "hyper" && whole.iter().any(|message| has_odd_target(message));
        if !odd && (verdict.refused || verdict.seen != seen) {
            faults.push(format!("{who} reads the forwarded bytes as {verdict:#?}"));
        }
    }
}

fn seen(message: &Message) -> Seen {
    Seen {
        method: message.method.clone(),
        target: message.target.clone(),
        host: String::from_utf8_lossy(message.values("host").next().unwrap_or_default()).into_owned(),
        body: message.body.clone(),
    }
}

/// What hyper does not take and rollgate forwards, and why that is right: these bytes are no delimiters to any parser of
/// requests; browsers and others send them, and other proxies forward them as they are (see `rollgate::http1`).
pub fn has_odd_target(message: &Message) -> bool {
    message.target.contains(['<', '>', '`', '"', '{', '}', '|', '^', '\\'])
}

/// Whether the request is in absolute-form with an authority that is not `Host`'s byte for byte.
pub fn writes_authority_otherwise(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let target = text.split(' ').nth(1).unwrap_or_default();
    let named = target
        .split_once("://")
        .map(|(_, rest)| rest.split(['/', '?']).next().unwrap_or_default());
    named.is_some_and(|named| !text.contains(&format!("host: {named}\r\n")))
}

/// Nothing is accepted that hyper refuses, and hyper reads the same of it.
fn judge_hyper(reading: &Reading, bytes: &[u8], faults: &mut Vec<String>) {
    if reading.messages.iter().any(has_odd_target) {
        return;
    }
    let verdict = oracles::hyper_server(bytes);
    for (nth, message) in reading.messages.iter().enumerate() {
        match verdict.seen.get(nth) {
            None => faults.push(format!("hyper refuses request {nth}")),
            Some(theirs) if (&theirs.method, &theirs.body) != (&message.method, &message.body) => {
                faults.push(format!("hyper reads request {nth} as {theirs:?}"));
            }
            Some(_) => {}
        }
    }
}

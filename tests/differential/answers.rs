//! What an upstream may send, and what the client must get of it.

use super::fronts::Outcome;
use super::oracles;
use super::reading::{self, Message, Stop};
use std::fmt;

/// What an upstream sends to a request, and what must become of it.
#[derive(Clone)]
pub struct Answer {
    pub name: String,
    pub method: &'static str,
    pub bytes: Vec<u8>,
    pub want: Want,
    /// The upstream closes behind it.
    pub close: bool,
    /// Bytes that are no part of the answer follow it.
    pub poisoned: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    Whole(Box<Message>),
    BadGateway,
    /// The client sees that the answer broke off; or 502, when it broke before a byte of it was sent on.
    Cut,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = &self.bytes[..self.bytes.len().min(1500)];
        write!(
            f,
            "{} to {}: \"{}\" -> {:?}",
            self.name,
            self.method,
            cut.escape_ascii(),
            self.want
        )
    }
}

impl Answer {
    /// What must become of `bytes` by the reference reading.
    pub fn read(name: impl Into<String>, method: &'static str, bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        let (want, close, poisoned) = Self::judge(&bytes, method);
        Self {
            name: name.into(),
            method,
            bytes,
            want,
            close,
            poisoned,
        }
    }

    fn judge(bytes: &[u8], method: &str) -> (Want, bool, bool) {
        let mut at = 0;
        let mut interim = 0;
        loop {
            match reading::answer(&bytes[at..], method, true) {
                Ok(message) if message.status < 200 && interim < 16 => {
                    at += message.len;
                    interim += 1;
                }
                Ok(message) if message.status < 200 => return (Want::BadGateway, false, false),
                Ok(message) => {
                    let poisoned = at + message.len < bytes.len();
                    let close = !message.keep_alive;
                    return (Want::Whole(Box::new(message)), close, poisoned);
                }
                Err(stop) => {
                    let in_body = reading::answer_head(&bytes[at..]).is_ok();
                    let close = stop == Stop::Incomplete;
                    return (if in_body { Want::Cut } else { Want::BadGateway }, close, false);
                }
            }
        }
    }

    /// What is wrong with what the client got; empty when nothing is.
    pub fn faults(&self, outcome: &Outcome) -> Vec<String> {
        let mut faults = Vec::new();
        if outcome.silent {
            faults.push("neither an answer nor the end of the connection".into());
        }
        lint(&outcome.raw, self.method, &mut faults);
        let through = oracles::hyper_client(&outcome.raw, self.method);
        match &self.want {
            Want::Whole(message) => {
                let want = (message.status, message.body.clone());
                let got: Vec<_> = outcome.answers.iter().map(|a| (a.status, a.body.clone())).collect();
                if got != [want.clone()] {
                    faults.push(format!("got {:?}", outcome.answers));
                }
                if through.as_ref() != Ok(&want) {
                    faults.push(format!("hyper reads what came through as {through:?}"));
                }
                let direct = oracles::hyper_client(&self.bytes, self.method);
                if direct.as_ref() != Ok(&want) {
                    faults.push(format!("hyper reads what the upstream sent as {direct:?}"));
                }
            }
            Want::Cut if outcome.statuses().is_empty() && !outcome.raw.is_empty() => {
                if !outcome.reset && through.is_ok() {
                    faults.push(format!("hyper takes the cut answer for a whole one: {through:?}"));
                }
            }
            Want::BadGateway | Want::Cut if outcome.statuses() == [502] => {}
            want => faults.push(format!("{want:?}, but got {:?}", outcome.answers)),
        }
        faults
    }
}

/// Judges every head of `raw`.
fn lint(raw: &[u8], method: &str, faults: &mut Vec<String>) {
    let mut at = 0;
    while at < raw.len() {
        if let Err(error) = rollgate::http1::lint_response(&raw[at..], method == "HEAD") {
            faults.push(error.to_string());
            return;
        }
        match reading::answer_head(&raw[at..]) {
            Ok((head, _)) if head.status < 200 => at += head.head_len,
            Ok(_) => return,
            Err(stop) => return faults.push(format!("{stop:?}")),
        }
    }
}

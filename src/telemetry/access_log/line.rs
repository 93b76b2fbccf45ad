//! One line: fields in a fixed order, bounded and escaped by hand, so that a line costs no allocation.
//!
//! Whatever the bytes, the result is one line of valid JSON in UTF-8: control characters (C0, DEL, C1) and the two
//! Unicode line separators are escaped, so that neither a log reader nor a terminal takes them for its own; what is
//! not UTF-8 becomes U+FFFD; what is longer than its bound ends in `…`.

use crate::outcome::{FailureKind, Refusal, Termination};
use std::io::Write;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes kept of each field that comes from outside, before escaping.
const MAX_METHOD: usize = 32;
const MAX_PATH: usize = 2048;
const MAX_USER_AGENT: usize = 512;
const MAX_ERROR: usize = 512;
const MAX_ID: usize = 128;
/// Host, and every name of the configuration.
const MAX_NAME: usize = 255;

/// What is logged of one request. Absent fields are left out of the line.
#[derive(Debug, Clone)]
pub struct Line<'a> {
    /// When the request's head had arrived.
    pub time: SystemTime,
    pub client_ip: IpAddr,
    pub method: &'a str,
    pub host: &'a str,
    /// With the query.
    pub path: &'a str,
    /// `HTTP/1.1`.
    pub protocol: &'static str,
    /// The status sent, or 499 for a client that left.
    pub status: u16,
    pub service: Option<&'a str>,
    /// The version that served, or should have.
    pub version: Option<&'a str>,
    /// The canary whose failed attempt that version answered.
    pub rescued: Option<&'a str>,
    /// Why the version was chosen: DESIGN's word, `rule` for a rule (logged as `rule:<name>`).
    pub reason: Option<&'a str>,
    pub rule: Option<&'a str>,
    pub bucket: Option<u32>,
    pub endpoint: Option<&'a str>,
    /// Endpoints tried.
    pub attempts: u8,
    /// Body bytes received from the client.
    pub request_bytes: u64,
    /// Body bytes sent to the client.
    pub response_bytes: u64,
    pub duration: Duration,
    /// From the last attempt's beginning to its first byte.
    pub upstream_time: Option<Duration>,
    pub termination: Termination,
    pub request_id: &'a str,
    pub trace_id: Option<&'a str>,
    pub user_agent: Option<&'a [u8]>,
    pub grpc_status: Option<u32>,
    pub failure: Option<FailureKind>,
    pub refusal: Option<Refusal>,
    /// Why the last attempt that failed did, as its endpoint or the system said it: not for clients.
    pub error: Option<&'a str>,
}

impl Line<'_> {
    /// Appends the line with its newline.
    pub(super) fn write(&self, out: &mut Vec<u8>, clock: &mut Clock) {
        out.extend_from_slice(b"{\"time\":\"");
        clock.write(out, self.time);
        out.extend_from_slice(b"\",\"client_ip\":\"");
        address(out, self.client_ip);
        out.push(b'"');
        text(out, ",\"method\":\"", self.method, MAX_METHOD);
        text(out, ",\"host\":\"", self.host, MAX_NAME);
        text(out, ",\"path\":\"", self.path, MAX_PATH);
        text(out, ",\"protocol\":\"", self.protocol, MAX_METHOD);
        number(out, ",\"status\":", u64::from(self.status));
        self.write_decision(out);
        number(out, ",\"attempts\":", u64::from(self.attempts));
        number(out, ",\"request_bytes\":", self.request_bytes);
        number(out, ",\"response_bytes\":", self.response_bytes);
        milliseconds(out, ",\"duration_ms\":", self.duration);
        if let Some(time) = self.upstream_time {
            milliseconds(out, ",\"upstream_ms\":", time);
        }
        word(out, ",\"termination\":\"", self.termination.as_str());
        if let Some(status) = self.grpc_status {
            number(out, ",\"grpc_status\":", u64::from(status));
        }
        if let Some(failure) = self.failure {
            word(out, ",\"failure\":\"", failure.as_str());
        }
        if let Some(refusal) = self.refusal {
            word(out, ",\"refusal\":\"", refusal.as_str());
        }
        optional(out, ",\"error\":\"", self.error, MAX_ERROR);
        text(out, ",\"request_id\":\"", self.request_id, MAX_ID);
        optional(out, ",\"trace_id\":\"", self.trace_id, MAX_ID);
        if let Some(user_agent) = self.user_agent {
            out.extend_from_slice(b",\"user_agent\":\"");
            escaped_bytes(out, user_agent, MAX_USER_AGENT);
            out.push(b'"');
        }
        out.extend_from_slice(b"}\n");
    }

    fn write_decision(&self, out: &mut Vec<u8>) {
        optional(out, ",\"service\":\"", self.service, MAX_NAME);
        optional(out, ",\"version\":\"", self.version, MAX_NAME);
        optional(out, ",\"rescued\":\"", self.rescued, MAX_NAME);
        if let Some(reason) = self.reason {
            out.extend_from_slice(b",\"reason\":\"");
            escaped(out, reason, MAX_NAME);
            if let Some(rule) = self.rule {
                out.push(b':');
                escaped(out, rule, MAX_NAME);
            }
            out.push(b'"');
        }
        if let Some(bucket) = self.bucket {
            number(out, ",\"bucket\":", u64::from(bucket));
        }
        optional(out, ",\"endpoint\":\"", self.endpoint, MAX_NAME);
    }
}

/// Writes times as RFC 3339 in UTC with milliseconds, and remembers the second it wrote last.
#[derive(Default)]
pub(super) struct Clock {
    second: Option<u64>,
    /// `2026-07-01T12:00:00.`
    text: Vec<u8>,
}

/// 9999-12-31T23:59:59Z, the last second RFC 3339 can write.
const LAST_SECOND: u64 = 253_402_300_799;

impl Clock {
    fn write(&mut self, out: &mut Vec<u8>, time: SystemTime) {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = since.as_secs().min(LAST_SECOND);
        if self.second != Some(second) {
            self.second = Some(second);
            self.text.clear();
            date_time(&mut self.text, second);
        }
        out.extend_from_slice(&self.text);
        digits(out, u64::from(since.subsec_millis()), 3);
        out.push(b'Z');
    }
}

/// `time` as RFC 3339 in UTC with milliseconds.
pub fn rfc3339(time: SystemTime) -> String {
    let mut out = Vec::new();
    Clock::default().write(&mut out, time);
    // ASCII alone.
    String::from_utf8(out).unwrap_or_default()
}

/// Days to civil date as in Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms" (2021), `civil_from_days`.
fn date_time(out: &mut Vec<u8>, second: u64) {
    let days = second / 86_400 + 719_468;
    let of_day = second % 86_400;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    digits(out, year, 4);
    for (separator, value) in [
        (b'-', month),
        (b'-', day),
        (b'T', of_day / 3600),
        (b':', of_day / 60 % 60),
        (b':', of_day % 60),
    ] {
        out.push(separator);
        digits(out, value, 2);
    }
    out.push(b'.');
}

/// Decimal, with zeros in front up to `width`.
fn digits(out: &mut Vec<u8>, mut value: u64, width: usize) {
    let mut text = [b'0'; 20];
    let mut used = 0;
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
        used += 1;
        if value == 0 {
            break;
        }
    }
    let from = text.len() - used.max(width).min(text.len());
    out.extend_from_slice(text.get(from..).unwrap_or_default());
}

/// `key` with the comma before it and the colon after.
fn number(out: &mut Vec<u8>, key: &str, value: u64) {
    out.extend_from_slice(key.as_bytes());
    digits(out, value, 1);
}

/// Three decimals: microseconds.
fn milliseconds(out: &mut Vec<u8>, key: &str, duration: Duration) {
    let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    number(out, key, us / 1000);
    out.push(b'.');
    digits(out, us % 1000, 3);
}

/// `key` as in [`number`], and the quote that opens the value.
fn text(out: &mut Vec<u8>, key: &str, value: &str, limit: usize) {
    out.extend_from_slice(key.as_bytes());
    escaped(out, value, limit);
    out.push(b'"');
}

fn optional(out: &mut Vec<u8>, key: &str, value: Option<&str>, limit: usize) {
    if let Some(value) = value {
        text(out, key, value, limit);
    }
}

/// A word of our own, that needs no escaping.
fn word(out: &mut Vec<u8>, key: &str, value: &'static str) {
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(value.as_bytes());
    out.push(b'"');
}

/// An IPv4 client of a dual-stack listener is written as what it is.
fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            digits(out, u64::from(a), 1);
            for octet in [b, c, d] {
                out.push(b'.');
                digits(out, u64::from(octet), 1);
            }
        }
        IpAddr::V6(address) => {
            // Writing to a Vec cannot fail.
            let _ = write!(out, "{address}");
        }
    }
}

/// The inside of a JSON string: at most `limit` bytes of `value`.
fn escaped(out: &mut Vec<u8>, value: &str, limit: usize) {
    if value.len() <= limit {
        return escaped_whole(out, value);
    }
    // A boundary is at most three bytes back, and 0 is one.
    let end = (0..=limit).rev().find(|&end| value.is_char_boundary(end)).unwrap_or(0);
    escaped_whole(out, value.get(..end).unwrap_or_default());
    out.extend_from_slice("…".as_bytes());
}

/// As [`escaped`]; what is not UTF-8 becomes U+FFFD.
fn escaped_bytes(out: &mut Vec<u8>, value: &[u8], limit: usize) {
    if let Ok(value) = std::str::from_utf8(value) {
        return escaped(out, value, limit);
    }
    let kept = value.get(..limit).unwrap_or(value);
    for chunk in kept.utf8_chunks() {
        escaped_whole(out, chunk.valid());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    if kept.len() < value.len() {
        out.extend_from_slice("…".as_bytes());
    }
}

fn escaped_whole(out: &mut Vec<u8>, mut value: &str) {
    loop {
        let (plain, rest) = value
            .split_at_checked(plain_prefix(value.as_bytes()))
            .unwrap_or((value, ""));
        out.extend_from_slice(plain.as_bytes());
        let mut characters = rest.chars();
        let Some(special) = characters.next() else { return };
        character(out, special);
        value = characters.as_str();
    }
}

/// How many bytes from the beginning are plain. Sixteen at a time without a branch, which the compiler makes one
/// vector operation of: most fields are plain from end to end.
fn plain_prefix(bytes: &[u8]) -> usize {
    let vectors = bytes.chunks_exact(16);
    let plain = 16
        * vectors
            .take_while(|vector| vector.iter().fold(true, |plain, &byte| plain & is_plain(byte)))
            .count();
    let rest = bytes.get(plain..).unwrap_or_default();
    plain + rest.iter().take_while(|&&byte| is_plain(byte)).count()
}

/// Printable ASCII that JSON does not want escaped.
fn is_plain(byte: u8) -> bool {
    (0x20..0x7f).contains(&byte) & (byte != b'"') & (byte != b'\\')
}

fn character(out: &mut Vec<u8>, character: char) {
    match character {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        special if special.is_control() || matches!(special, '\u{2028}' | '\u{2029}') => {
            let _ = write!(out, "\\u{:04x}", u32::from(special));
        }
        printable => out.extend_from_slice(printable.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

#[cfg(test)]
mod tests;

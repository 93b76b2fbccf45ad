//! Protocols that a service lets its clients change to.

use super::{Context, text};
use crate::config::decode::List;
use crate::config::problem::{Path, nearest, printable};
use crate::http1::{MAX_UPGRADES, carries_requests, is_web_socket};

/// The longest name.
const MAX_NAME: usize = 64;

impl Context<'_> {
    /// Names of protocols, none twice; else problems.
    pub(super) fn upgrades(&mut self, upgrades: &List<String>, path: &Path<'_>) -> Option<Box<[Box<str>]>> {
        if !self.count(upgrades, 0, MAX_UPGRADES, "protocols", path) {
            return None;
        }
        let mut seen: Vec<String> = Vec::new();
        upgrades.compile(|index, name| {
            let path = path.index(index);
            let meant = Some("websocket").filter(|_| !is_web_socket(name) && nearest(name, ["websocket"]).is_some());
            let message = if !is_protocol(name) {
                "is no protocol as it stands in `Upgrade`: expected `name` or `name/version`"
            } else if carries_requests(name) {
                "cannot be let through: requests within it would bypass routes, limits, counters and the kill switch. \
                 HTTP/2 needs no upgrade: clients begin with it"
            } else if meant.is_some() {
                "is no protocol"
            } else if seen.iter().any(|other| other.eq_ignore_ascii_case(name)) {
                "is there twice"
            } else {
                seen.push(name.clone());
                return Some(name.as_str().into());
            };
            let message = format!("`{}` {message}", printable(name));
            self.problems.add_with(&path, message, meant.map(str::to_owned));
            None
        })
    }
}

/// `name` or `name/version` (RFC 9110 section 7.8).
fn is_protocol(text: &str) -> bool {
    let (name, version) = text.split_once('/').unwrap_or((text, "1"));
    text != "*" && text.len() <= MAX_NAME && text::is_token(name) && text::is_token(version)
}

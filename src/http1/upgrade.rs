//! Protocols that a connection may go on with after a 101 (RFC 9110 section 7.8).
//!
//! Of what a client asks for, an endpoint hears what its service lets through, in the words of the configuration. So does
//! the client of what the endpoint changes to.

use super::field::Kind;
use super::head::{Field, slice};
use super::list_elements;

/// The most protocols that are let through.
pub const MAX_UPGRADES: usize = 16;

/// Protocols out of a list, by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Protocols(u16);

/// What a request may change its connection to. By default nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Upgrading<'p> {
    /// What is let through; the first [`MAX_UPGRADES`] count.
    pub allowed: &'p [Box<str>],
    /// What of it is asked for.
    pub asked: Protocols,
}

impl<'p> Upgrading<'p> {
    /// Of `allowed`, what the `Upgrade` fields of a request ask for. `web_socket`: its handshake is whole; otherwise it does
    /// not ask for that.
    pub(super) fn of(allowed: &'p [Box<str>], buf: &[u8], fields: &[Field], web_socket: bool) -> Self {
        let mut asked = named(allowed, buf, fields).0;
        if !web_socket {
            let mut names = allowed.iter().take(MAX_UPGRADES);
            asked.remove(names.position(|name| is_web_socket(name)));
        }
        Self { allowed, asked }
    }

    /// Whether the request asks for any of what is let through.
    pub fn is_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// What an answer's `Upgrade` fields name of what is let through.
    pub(super) fn offered(&self, buf: &[u8], fields: &[Field]) -> Protocols {
        named(self.allowed, buf, fields).0
    }

    /// The one protocol that the `Upgrade` fields of a 101 name, where it was asked for.
    pub(super) fn chosen(&self, buf: &[u8], fields: &[Field]) -> Option<&'p str> {
        let (named, elements) = named(self.allowed, buf, fields);
        let chosen = Protocols(named.0 & self.asked.0);
        chosen.of(self.allowed).next().filter(|_| elements == 1)
    }

    /// Writes the line that asks for what the request asks for.
    pub(super) fn write_asked(&self, out: &mut Vec<u8>) {
        self.write(out, self.asked);
    }

    /// Writes the line that names `protocols`.
    pub(super) fn write(&self, out: &mut Vec<u8>, protocols: Protocols) {
        for (at, name) in protocols.of(self.allowed).enumerate() {
            out.extend_from_slice(if at == 0 { b"Upgrade: " } else { b", " });
            out.extend_from_slice(name.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
}

impl Protocols {
    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn add(&mut self, at: Option<usize>) {
        self.0 |= at.map_or(0, |at| 1 << at);
    }

    fn remove(&mut self, at: Option<usize>) {
        self.0 &= !at.map_or(0, |at| 1 << at);
    }

    fn of(self, list: &[Box<str>]) -> impl Iterator<Item = &str> {
        let places = list.iter().take(MAX_UPGRADES).enumerate();
        places
            .filter(move |(at, _)| self.0 & (1 << at) != 0)
            .map(|(_, name)| &**name)
    }
}

/// What the `Upgrade` fields among `fields` name of `allowed`, and how many protocols they name in all.
fn named(allowed: &[Box<str>], buf: &[u8], fields: &[Field]) -> (Protocols, usize) {
    let upgrade = fields.iter().filter(|field| field.kind == Kind::Upgrade);
    let elements = upgrade.flat_map(|field| list_elements(slice(buf, field.value)));
    let (mut protocols, mut count) = (Protocols::default(), 0);
    for element in elements.filter(|element| !element.is_empty()) {
        count += 1;
        let mut names = allowed.iter().take(MAX_UPGRADES);
        protocols.add(names.position(|name| name.as_bytes().eq_ignore_ascii_case(element)));
    }
    (protocols, count)
}

/// Whether this is the name of WebSocket, whose frames and handshake are known here.
pub fn is_web_socket(protocol: &str) -> bool {
    protocol.eq_ignore_ascii_case("websocket")
}

/// Whether what would follow is HTTP, or begins anew with TLS: a tunnel of it would carry requests that nobody decides,
/// counts or limits.
pub fn carries_requests(protocol: &str) -> bool {
    let name = protocol.split('/').next().unwrap_or_default().to_ascii_lowercase();
    let http2 = |rest: &str| rest.is_empty() || rest.starts_with(['c', '-']);
    matches!(&*name, "http" | "https" | "tls" | "ssl" | "h3") || name.strip_prefix("h2").is_some_and(http2)
}

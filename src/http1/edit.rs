//! Rules that change heads on their way, made ready when the file is compiled: fields added and removed, another host,
//! another path. Whoever has no rules has no [`Rewrite`], and pays for one comparison a field.

use super::Moved;
use super::field::{self, Kind};
use crate::routing::{ClientCert, path_below};
use std::io::Write;
use std::net::IpAddr;

/// What a rule's value is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Visible ASCII, space and tab.
    Text(Box<str>),
    /// The client's address, an IPv4 address carried in IPv6 as IPv4.
    ClientIp,
    /// The host the client asked for, with its port if there is one; empty for an HTTP/1.0 request without one.
    Host,
    /// `http` or `https`, as the client came.
    Scheme,
    RequestId,
    ClientCert(CertPiece),
    /// A line of this name and value, left out where the value is empty.
    ClientCertLine(Box<str>, CertPiece),
}

/// What is told of the certificate that the client has shown, in visible ASCII and spaces: in names other bytes, `%`, `,` and
/// a space at an end stand as `%` and two hexadecimal digits, so that no name can end the line or look like another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertPiece {
    /// `SUCCESS` for one that was shown, and verified; else `NONE`.
    Verify,
    /// The common name of its subject; empty without one.
    SubjectCn,
    /// Its alternative names with commas between.
    San,
}

/// Bytes that are told of one certificate in one piece; names beyond are left out.
const MOST_OF_CERT_BYTES: usize = 8 * 1024;

impl CertPiece {
    /// Whether there is always something to tell.
    fn is_never_empty(self) -> bool {
        self == Self::Verify
    }

    fn write(self, out: &mut Vec<u8>, cert: Option<&ClientCert>) {
        let Some(cert) = cert else {
            let nothing: &[u8] = if self == Self::Verify { b"NONE" } else { b"" };
            return out.extend_from_slice(nothing);
        };
        let names = match self {
            Self::Verify => return out.extend_from_slice(b"SUCCESS"),
            Self::SubjectCn => cert.subject_cn.as_slice(),
            Self::San => &cert.san,
        };
        let begin = out.len();
        for name in names {
            let before = out.len();
            if before > begin {
                out.push(b',');
            }
            escape(out, name);
            if out.len() - begin > MOST_OF_CERT_BYTES {
                out.truncate(before);
                return;
            }
        }
    }
}

fn escape(out: &mut Vec<u8>, name: &str) {
    let last = name.len().saturating_sub(1);
    for (at, &byte) in name.as_bytes().iter().enumerate() {
        let is_inner_space = byte == b' ' && at > 0 && at < last;
        if is_inner_space || (byte.is_ascii_graphic() && !matches!(byte, b'%' | b',')) {
            out.push(byte);
        } else {
            // Writing to a Vec cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// What [`Piece`]s stand for in one exchange.
#[derive(Debug, Clone, Copy)]
pub struct PieceFacts<'a> {
    pub client_ip: IpAddr,
    pub host: &'a str,
    pub https: bool,
    pub request_id: &'a str,
    /// What the client has shown, verified.
    pub client_cert: Option<&'a ClientCert>,
}

/// Changes to the fields of a head.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldEdits {
    /// Lowercase, `_` as `-`.
    removed: Box<[Box<str>]>,
    /// Whole lines, one after the other; neighbouring texts are one.
    added: Box<[Piece]>,
    sets_hsts: bool,
}

/// Changes, and what their variables stand for.
#[derive(Debug, Clone, Copy)]
pub struct Edits<'a> {
    pub fields: &'a FieldEdits,
    pub facts: PieceFacts<'a>,
    /// Of a request: says what `X-Forwarded-Prefix` tells. Of an answer: how the addresses in it are led back.
    pub moved: Option<Moved<'a>>,
}

/// What is changed in the requests and answers of a version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rewrite {
    pub request: FieldEdits,
    /// Of final answers.
    pub response: FieldEdits,
    /// Sent as `Host`.
    pub host: Option<Box<str>>,
    /// Begins with `/` and does not end with it. Taken from paths that begin with it, by whole segments.
    pub strip_prefix: Option<Box<str>>,
    /// Likewise; put before what is left.
    pub add_prefix: Option<Box<str>>,
    /// Addresses in answers are not led back.
    pub keep_locations: bool,
}

impl FieldEdits {
    /// `removed`: fields that go, by name. `added`: names and values of lines that come behind those that stay.
    pub fn new(removed: impl IntoIterator<Item = String>, added: Vec<(String, Vec<Piece>)>) -> Self {
        let is_hsts = |(name, _): &(String, Vec<Piece>)| name.eq_ignore_ascii_case("strict-transport-security");
        let sets_hsts = added.iter().any(is_hsts);
        let mut pieces: Vec<Piece> = Vec::new();
        let mut text = String::new();
        for (name, value) in added {
            let mut parts = value
                .iter()
                .filter(|piece| !matches!(piece, Piece::Text(text) if text.is_empty()));
            if let (Some(Piece::ClientCert(piece)), None) = (parts.next(), parts.next())
                && !piece.is_never_empty()
            {
                pieces.push(Piece::Text(std::mem::take(&mut text).into()));
                pieces.push(Piece::ClientCertLine(name.into(), *piece));
                continue;
            }
            text += &name;
            text += ": ";
            for piece in value {
                match piece {
                    Piece::Text(more) => text += &more,
                    variable => {
                        pieces.push(Piece::Text(std::mem::take(&mut text).into()));
                        pieces.push(variable);
                    }
                }
            }
            text += "\r\n";
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text.into()));
        }
        let folded = |name: String| name.to_ascii_lowercase().replace('_', "-").into();
        Self {
            removed: removed.into_iter().map(folded).collect(),
            added: pieces.into(),
            sets_hsts,
        }
    }

    /// Whether a field of this name goes. With `_` for `-`, too: CGI-like readers cannot tell the two apart, and what a
    /// rule removes or sets may be what they trust.
    pub(super) fn removes(&self, name: &[u8]) -> bool {
        self.removed
            .iter()
            .any(|removed| field::folds_to(name, removed.as_bytes()))
    }

    pub(super) fn sets_hsts(&self) -> bool {
        self.sets_hsts
    }
}

impl Edits<'_> {
    /// Whether a rule removes the field called `name`, or sets it: then nobody else writes it.
    pub(super) fn rules_over(&self, name: &str) -> bool {
        self.fields.removes(name.as_bytes())
    }

    /// Writes the lines that are added.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for piece in &self.fields.added {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                // Writing to a Vec cannot fail.
                Piece::ClientIp => drop(write!(out, "{}", self.facts.client_ip.to_canonical())),
                Piece::Host => out.extend_from_slice(self.facts.host.as_bytes()),
                Piece::Scheme => out.extend_from_slice(if self.facts.https { b"https" } else { b"http" }),
                Piece::RequestId => out.extend_from_slice(self.facts.request_id.as_bytes()),
                Piece::ClientCert(piece) => piece.write(out, self.facts.client_cert),
                Piece::ClientCertLine(name, piece) => {
                    let before = out.len();
                    out.extend_from_slice(name.as_bytes());
                    out.extend_from_slice(b": ");
                    let value = out.len();
                    piece.write(out, self.facts.client_cert);
                    if out.len() == value {
                        out.truncate(before);
                    } else {
                        out.extend_from_slice(b"\r\n");
                    }
                }
            }
        }
    }
}

impl Rewrite {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How a request whose path is `canonical` is moved; `None`: it is not. Prefixes are exchanged in the canonical form alone:
    /// otherwise what is behind one might be read as another path.
    pub fn moved<'a>(&'a self, canonical: &str) -> Option<Moved<'a>> {
        let host = self.host.as_deref();
        let is_path = canonical != "*";
        let stripped = self.strip_prefix.as_deref().unwrap_or_default();
        let is_below = is_path && path_below(canonical, stripped).is_some();
        let stripped = if is_below { stripped } else { "" };
        let added = self.add_prefix.as_deref().filter(|_| is_path).unwrap_or_default();
        let moved = host.is_some() || !stripped.is_empty() || !added.is_empty();
        moved.then_some(Moved {
            host,
            port: None,
            stripped,
            added,
        })
    }
}

/// Why no rule may touch the field called `name`, of requests or of answers; `None`: one may.
pub fn field_owner(name: &str, of_answers: bool) -> Option<&'static str> {
    if ["via", "trailer"].iter().any(|own| name.eq_ignore_ascii_case(own)) {
        return Some("rollgate writes it");
    }
    match field::classify(name.as_bytes()) {
        Kind::Connection | Kind::Upgrade | Kind::HopByHop | Kind::Te => Some("it belongs to one connection"),
        Kind::ContentLength | Kind::TransferEncoding => Some("it frames the body"),
        Kind::Host => Some("only `rewrite.host` sets it"),
        Kind::Rollgate => Some("it is rollgate's own"),
        Kind::Alias | Kind::Nominated => Some("with `_` for `-` it is removed always"),
        Kind::Date if of_answers => Some("rollgate writes it where the endpoint does not"),
        Kind::Other | Kind::Date | Kind::StrictTransportSecurity | Kind::XForwarded => None,
        _ if of_answers => None,
        Kind::Expect | Kind::MaxForwards => Some("rollgate acts on it"),
        Kind::WebSocketKey | Kind::WebSocketVersion => Some("it is part of a handshake"),
        Kind::XForwardedFor
        | Kind::XForwardedProto
        | Kind::XForwardedHost
        | Kind::Forwarded
        | Kind::RequestId
        | Kind::Traceparent
        | Kind::Tracestate => Some("rollgate writes it"),
    }
}

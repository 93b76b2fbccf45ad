//! Field names the proxy acts on.

/// What the proxy knows of a field by its name. Fits a bit of a `u64` ([`Kind::bit`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Nothing: forwarded as it came.
    Other,
    Host,
    Connection,
    ContentLength,
    TransferEncoding,
    Upgrade,
    /// Hop-by-hop and of no further interest: Keep-Alive, Proxy-Connection, Proxy-Authenticate and the like.
    HopByHop,
    Te,
    Expect,
    MaxForwards,
    XForwardedFor,
    XForwardedProto,
    XForwardedHost,
    /// Another `X-Forwarded-*`, or `X-Real-IP`: believed from trusted peers, removed from others.
    XForwarded,
    Forwarded,
    RequestId,
    Traceparent,
    Tracestate,
    /// `x-rollgate-*`: ours alone, on both sides.
    Rollgate,
    Date,
    StrictTransportSecurity,
    WebSocketKey,
    WebSocketVersion,
    /// A name above with `_` for `-`.
    Alias,
    /// Named by `Connection`.
    Nominated,
}

impl Kind {
    pub(super) const fn bit(self) -> u64 {
        1 << self as u8
    }

    /// Whether a field of an answer goes on: it is neither of one connection, nor frames the answer, nor is it ours.
    pub(super) const fn stays_in_answers(self) -> bool {
        !matches!(
            self,
            Self::Connection
                | Self::ContentLength
                | Self::TransferEncoding
                | Self::Upgrade
                | Self::HopByHop
                | Self::Te
                | Self::Rollgate
                | Self::Alias
                | Self::Nominated
        )
    }
}

type Known = (&'static [u8], Kind);

/// The known names of a length, so that most names are told apart by length and first byte.
const fn known(length: usize) -> &'static [Known] {
    match length {
        2 => &[(b"te", Kind::Te)],
        4 => &[(b"host", Kind::Host), (b"date", Kind::Date)],
        6 => &[(b"expect", Kind::Expect)],
        7 => &[(b"upgrade", Kind::Upgrade)],
        9 => &[(b"forwarded", Kind::Forwarded), (b"x-real-ip", Kind::XForwarded)],
        10 => &[
            (b"connection", Kind::Connection),
            (b"keep-alive", Kind::HopByHop),
            (b"tracestate", Kind::Tracestate),
        ],
        11 => &[(b"traceparent", Kind::Traceparent)],
        12 => &[(b"x-request-id", Kind::RequestId), (b"max-forwards", Kind::MaxForwards)],
        14 => &[
            (b"content-length", Kind::ContentLength),
            (b"http2-settings", Kind::HopByHop),
        ],
        15 => &[(b"x-forwarded-for", Kind::XForwardedFor)],
        16 => &[
            (b"x-forwarded-host", Kind::XForwardedHost),
            (b"proxy-connection", Kind::HopByHop),
        ],
        17 => &[
            (b"transfer-encoding", Kind::TransferEncoding),
            (b"x-forwarded-proto", Kind::XForwardedProto),
            (b"sec-websocket-key", Kind::WebSocketKey),
        ],
        18 => &[(b"proxy-authenticate", Kind::HopByHop)],
        19 => &[(b"proxy-authorization", Kind::HopByHop)],
        21 => &[(b"sec-websocket-version", Kind::WebSocketVersion)],
        25 => &[
            (b"proxy-authentication-info", Kind::HopByHop),
            (b"strict-transport-security", Kind::StrictTransportSecurity),
        ],
        _ => &[],
    }
}

/// Lowercase, and `_` as `-`.
const fn fold(byte: u8) -> u8 {
    if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }
}

/// Whether `name` is `known` (lowercase), but for case and `_`.
pub(super) fn folds_to(name: &[u8], known: &[u8]) -> bool {
    name.len() == known.len() && starts(name, known)
}

/// Whether `name` starts with `known` (lowercase), but for case and `_`.
fn starts(name: &[u8], known: &[u8]) -> bool {
    name.len() >= known.len() && name.iter().zip(known).all(|(&n, &k)| fold(n) == k)
}

/// The kind of the field called `name`, any case.
pub(super) fn classify(name: &[u8]) -> Kind {
    for &(known, kind) in known(name.len()) {
        if starts(name, known) {
            return aliased(name, kind);
        }
    }
    if matches!(name, [b'x' | b'X', b'-' | b'_', ..]) {
        if starts(name, b"x-rollgate-") {
            return aliased(name, Kind::Rollgate);
        }
        if starts(name, b"x-forwarded-") {
            return aliased(name, Kind::XForwarded);
        }
    }
    Kind::Other
}

fn aliased(name: &[u8], kind: Kind) -> Kind {
    if name.contains(&b'_') { Kind::Alias } else { kind }
}

/// Fields of [`Kind::Other`] or `Date` that no `Connection` of a request may name: they are meant for the far end
/// (RFC 9110 section 7.6.1), and removing them would change what the request means.
const ESSENTIAL: [&[u8]; 22] = [
    b"accept",
    b"accept-encoding",
    b"authorization",
    b"cache-control",
    b"content-encoding",
    b"content-range",
    b"content-type",
    b"cookie",
    b"if-match",
    b"if-modified-since",
    b"if-none-match",
    b"if-range",
    b"if-unmodified-since",
    b"origin",
    b"pragma",
    b"range",
    b"sec-websocket-protocol",
    b"sec-websocket-extensions",
    b"set-cookie",
    b"via",
    b"date",
    b"user-agent",
];

/// Whether the field called `name` is meant for the far end of a request.
pub(super) fn is_essential(name: &[u8]) -> bool {
    match classify(name) {
        Kind::HopByHop | Kind::Te | Kind::Upgrade => false,
        Kind::Other | Kind::Date => ESSENTIAL.iter().any(|e| e.eq_ignore_ascii_case(name)),
        _ => true,
    }
}

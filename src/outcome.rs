//! What counts as success, failure, client abort; and every way a request is refused before a version is chosen.

/// Why an attempt on a version failed: the `kind` label, and the words of `rescue.on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// No connection could be made, or it took longer than `timeouts.connect`.
    Connect,
    /// The connection was reset or closed before the answer was complete.
    Reset,
    /// No first byte in `first_byte`, silence for `idle`, or the whole request past `request_timeout`.
    Timeout,
    /// The answer's status was 500 to 599.
    Status5xx,
    /// The answer broke HTTP.
    Protocol,
    /// No endpoint was usable.
    NoEndpoint,
    /// The `grpc-status` of the answer was one of [`is_grpc_failure`].
    Grpc,
}

impl FailureKind {
    pub const ALL: [Self; 7] = [
        Self::Connect,
        Self::Reset,
        Self::Timeout,
        Self::Status5xx,
        Self::Protocol,
        Self::NoEndpoint,
        Self::Grpc,
    ];

    /// Position in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The label, as in the file and in `/metrics`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Status5xx => "5xx",
            Self::Protocol => "protocol",
            Self::NoEndpoint => "no_endpoint",
            Self::Grpc => "grpc",
        }
    }
}

/// Whether a `grpc-status` says that the server failed, and not that the call was a wrong one or was answered: UNKNOWN,
/// DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS. What has no number of its own, and an answer that ends
/// without a status (`None`), is UNKNOWN to clients
/// (<https://github.com/grpc/grpc/blob/master/doc/statuscodes.md>).
pub fn is_grpc_failure(status: Option<u32>) -> bool {
    !matches!(status, Some(0 | 1 | 3 | 5..=11 | 16))
}

/// Why a request that was to be copied for a mirror was not: the `reason` label of `rollgate_mirror_dropped_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Uncopied {
    /// As many copies as may be are waiting or under way: the version is slower than what it is sent.
    QueueFull,
    /// The body is too large, or was not read to its end.
    Body,
    /// No endpoint of the version was usable.
    NoEndpoint,
    /// A kill switch was on, when the copy was to be made or when its turn to be sent came.
    Killed,
    /// The rollout's step that copied it was over before it was sent.
    StepEnded,
    /// One of the version's `rate_limits`.
    RateLimited,
    /// The version's `max_in_flight` was reached.
    MaxInFlight,
}

impl Uncopied {
    pub const ALL: [Self; 7] = [
        Self::QueueFull,
        Self::Body,
        Self::NoEndpoint,
        Self::Killed,
        Self::StepEnded,
        Self::RateLimited,
        Self::MaxInFlight,
    ];

    /// Position in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The label, from this fixed list.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Body => "body",
            Self::NoEndpoint => "no_endpoint",
            Self::Killed => "killed",
            Self::StepEnded => "step_ended",
            Self::RateLimited => "rate_limited",
            Self::MaxInFlight => "max_in_flight",
        }
    }
}

/// What a request and its copy came to, side by side: the `result` label of `rollgate_mirror_compared_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// The same status (and `grpc-status`), and neither or both failed.
    Same,
    /// Another status.
    Status,
    /// The copy alone failed.
    Failed,
    /// The original alone failed.
    OriginalFailed,
}

impl Comparison {
    pub const ALL: [Self; 4] = [Self::Same, Self::Status, Self::Failed, Self::OriginalFailed];

    /// Of two ends, each with its status, of gRPC too, and whether it is a failure.
    pub fn of(original: ((u16, Option<u32>), bool), copy: ((u16, Option<u32>), bool)) -> Self {
        match (original.1, copy.1) {
            (false, true) => Self::Failed,
            (true, false) => Self::OriginalFailed,
            _ if original.0 == copy.0 => Self::Same,
            _ => Self::Status,
        }
    }

    /// Position in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The label, from this fixed list.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Status => "status",
            Self::Failed => "failed",
            Self::OriginalFailed => "original_failed",
        }
    }
}

/// How a request that had a version ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Success,
    Failure(FailureKind),
    /// The client left before its answer was complete: 499, nobody's failure.
    ClientAbort,
}

/// The status an access log shows for a client that left (nginx's word for it).
pub const CLIENT_ABORT_STATUS: u16 = 499;

/// The status an access log shows for a client that got no answer because the process ended.
pub const CUT_STATUS: u16 = 503;

/// Why a request was refused by the proxy itself: the `reason` label of `rollgate_refusals_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// 400: the request breaks HTTP, or cannot be forwarded unambiguously.
    BadRequest,
    /// 404: no route.
    NoRoute,
    /// 405: a method that a gateway does not take (CONNECT).
    MethodNotAllowed,
    /// 408: the head or the body did not arrive in time.
    RequestTimeout,
    /// 413: the body is larger than `limits.max_body`.
    BodyTooLarge,
    /// 414: the target does not fit.
    TargetTooLong,
    /// 429: so much on one connection of HTTP/2 that carries nothing, or is taken back at once, that it was closed.
    Flood,
    /// 417: an expectation other than 100-continue.
    ExpectationFailed,
    /// 429: a rate limit of the service.
    RateLimited,
    /// 431: the header section does not fit.
    HeadTooLarge,
    /// 400: a listener that asks for a PROXY protocol header got none, or a malformed one: closed without an answer.
    ProxyHeader,
    /// 503: `limits.max_connections` is reached.
    MaxConnections,
    /// 503: `max_in_flight` of the service, of the request's key, or of the version that was to serve, is reached.
    MaxInFlight,
    /// 505: not HTTP/1.0 or HTTP/1.1.
    VersionNotSupported,
}

impl Refusal {
    pub const ALL: [Self; 14] = [
        Self::BadRequest,
        Self::NoRoute,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::BodyTooLarge,
        Self::TargetTooLong,
        Self::Flood,
        Self::ExpectationFailed,
        Self::RateLimited,
        Self::HeadTooLarge,
        Self::ProxyHeader,
        Self::MaxConnections,
        Self::MaxInFlight,
        Self::VersionNotSupported,
    ];

    /// Position in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The label, from this fixed list.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::NoRoute => "no_route",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RequestTimeout => "request_timeout",
            Self::BodyTooLarge => "body_too_large",
            Self::TargetTooLong => "target_too_long",
            Self::Flood => "flood",
            Self::ExpectationFailed => "expectation_failed",
            Self::RateLimited => "rate_limited",
            Self::HeadTooLarge => "head_too_large",
            Self::ProxyHeader => "proxy_header",
            Self::MaxConnections => "max_connections",
            Self::MaxInFlight => "max_in_flight",
            Self::VersionNotSupported => "version_not_supported",
        }
    }

    /// The status answered.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest | Self::ProxyHeader => 400,
            Self::NoRoute => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::BodyTooLarge => 413,
            Self::TargetTooLong => 414,
            Self::Flood => 429,
            Self::ExpectationFailed => 417,
            Self::RateLimited => 429,
            Self::HeadTooLarge => 431,
            Self::MaxConnections | Self::MaxInFlight => 503,
            Self::VersionNotSupported => 505,
        }
    }
}

/// What the proxy answers by itself as the file says: the `kind` label of `rollgate_own_answers_total`, and the `reason`
/// in the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OwnAnswerKind {
    /// A route's redirect.
    Redirect,
    /// A route's fixed answer.
    Respond,
    /// The redirect of a listener that serves nothing by http.
    RedirectToHttps,
}

impl OwnAnswerKind {
    pub const ALL: [Self; 3] = [Self::Redirect, Self::Respond, Self::RedirectToHttps];

    /// Position in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The label, from this fixed list.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redirect => "redirect",
            Self::Respond => "respond",
            Self::RedirectToHttps => "redirect_to_https",
        }
    }
}

/// How a TLS handshake with a client ended: the `result` label of `rollgate_tls_handshakes_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Handshake {
    /// Done, with certificates.
    Full,
    /// Done, by a ticket of an earlier connection.
    Resumed,
    /// The client left, spoke no TLS or none that is accepted here, or had no certificate that is.
    Failed,
    /// Not done within `limits.header_timeout`.
    Late,
    /// Given up for a newer one: too many were under way.
    Displaced,
}

impl Handshake {
    pub const ALL: [Self; 5] = [Self::Full, Self::Resumed, Self::Failed, Self::Late, Self::Displaced];

    /// Position in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The label, from this fixed list.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Resumed => "resumed",
            Self::Failed => "failed",
            Self::Late => "late",
            Self::Displaced => "displaced",
        }
    }
}

/// Who ended a request and when: the `termination` of the access log, the `code` label of
/// `rollgate_terminations_total`. It says how the exchange went, not what the answer was: a 500 that an upstream
/// sent whole is [`Self::Ok`] (and a failure of its version, [`FailureKind::Status5xx`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Termination {
    /// The whole answer was sent; or a tunnel was closed in order by one of its ends.
    Ok,
    /// Refused by the proxy itself before a version was tried; the [`Refusal`] says why.
    Refused,
    /// No endpoint of the version was usable.
    NoEndpoint,
    /// The client left before the answer began.
    ClientAbort,
    /// The client left while the answer was being sent.
    ClientAbortAnswer,
    /// The client stopped sending its body, or stopped reading its answer.
    ClientTimeout,
    /// No connection to an endpoint.
    UpstreamConnect,
    /// Reset or closed by the endpoint before the answer began.
    UpstreamReset,
    /// Reset or closed by the endpoint within the answer: the client sees it cut.
    UpstreamTruncated,
    /// No first byte in `timeouts.first_byte`.
    UpstreamTimeout,
    /// Silence for `timeouts.idle` within the answer.
    UpstreamIdle,
    /// The answer broke HTTP.
    UpstreamProtocol,
    /// The whole request took longer than `limits.request_timeout`.
    Deadline,
    /// An event stream on which nothing came for `timeouts.idle`, or a tunnel on which nothing moved: nobody's failure.
    Idle,
    /// Still in flight when `limits.drain_timeout` had passed.
    Drain,
    /// Still in flight on a canary when `kill.drain` had passed since a kill switch came on or it was rolled back.
    Revoked,
    /// The proxy itself failed (a panic), or lacked something: descriptors, streams to an endpoint.
    Internal,
}

impl Termination {
    pub const ALL: [Self; 17] = [
        Self::Ok,
        Self::Refused,
        Self::NoEndpoint,
        Self::ClientAbort,
        Self::ClientAbortAnswer,
        Self::ClientTimeout,
        Self::UpstreamConnect,
        Self::UpstreamReset,
        Self::UpstreamTruncated,
        Self::UpstreamTimeout,
        Self::UpstreamIdle,
        Self::UpstreamProtocol,
        Self::Deadline,
        Self::Idle,
        Self::Drain,
        Self::Revoked,
        Self::Internal,
    ];

    /// Position in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The label, from this fixed list.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::NoEndpoint => "no_endpoint",
            Self::ClientAbort => "client_abort",
            Self::ClientAbortAnswer => "client_abort_answer",
            Self::ClientTimeout => "client_timeout",
            Self::UpstreamConnect => "upstream_connect",
            Self::UpstreamReset => "upstream_reset",
            Self::UpstreamTruncated => "upstream_truncated",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamIdle => "upstream_idle",
            Self::UpstreamProtocol => "upstream_protocol",
            Self::Deadline => "deadline",
            Self::Idle => "idle",
            Self::Drain => "drain",
            Self::Revoked => "revoked",
            Self::Internal => "internal",
        }
    }

    /// The failure that an ending of this kind is to the version that served; `None`: none by itself.
    pub fn failure(self) -> Option<FailureKind> {
        match self {
            Self::UpstreamConnect => Some(FailureKind::Connect),
            Self::UpstreamReset | Self::UpstreamTruncated => Some(FailureKind::Reset),
            Self::UpstreamTimeout | Self::UpstreamIdle | Self::Deadline => Some(FailureKind::Timeout),
            Self::UpstreamProtocol => Some(FailureKind::Protocol),
            Self::NoEndpoint => Some(FailureKind::NoEndpoint),
            Self::Ok
            | Self::Refused
            | Self::ClientAbort
            | Self::ClientAbortAnswer
            | Self::ClientTimeout
            | Self::Idle
            | Self::Drain
            | Self::Revoked
            | Self::Internal => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_those_in_all() {
        for (position, kind) in FailureKind::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), position);
        }
        for (position, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal.index(), position);
        }
        for (position, kind) in OwnAnswerKind::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), position);
        }
        for (position, handshake) in Handshake::ALL.into_iter().enumerate() {
            assert_eq!(handshake.index(), position);
        }
        for (position, termination) in Termination::ALL.into_iter().enumerate() {
            assert_eq!(termination.index(), position);
        }
    }

    #[test]
    fn every_failure_but_those_that_an_answer_says_has_an_ending() {
        for kind in FailureKind::ALL {
            let has = Termination::ALL.iter().any(|ending| ending.failure() == Some(kind));
            let by_answer = matches!(kind, FailureKind::Status5xx | FailureKind::Grpc);
            assert_eq!(has, !by_answer, "{kind:?}");
        }
    }

    #[test]
    fn six_statuses_of_grpc_are_the_servers_and_those_that_nobody_knows() {
        let failures: Vec<u32> = (0..=17).filter(|&status| is_grpc_failure(Some(status))).collect();
        assert_eq!(failures, [2, 4, 12, 13, 14, 15, 17]);
        assert!(is_grpc_failure(None));
    }

    #[test]
    fn labels_are_distinct() {
        let labels: std::collections::HashSet<_> = Termination::ALL.iter().map(|ending| ending.as_str()).collect();
        assert_eq!(labels.len(), Termination::ALL.len());
    }
}

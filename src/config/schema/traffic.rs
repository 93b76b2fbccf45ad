//! What is done with requests besides choosing a version: routed to a service or answered by a route itself, limited, rewritten.

use crate::config::decode::{List, Map, Required, settings, words};
use crate::config::scalars::{Period, Whole};
use crate::config::schema::KeySource;

settings! {
    /// Hosts, paths and methods that lead to a service.
    Route as "route" {
        /// A host without port, `*.example.com` for all below it, or `*`. Absent: every host.
        host: Option<String>,
        /// This path alone, in canonical form: requests are compared so, whatever is encoded in theirs. Not beside `path_prefix`.
        path: Option<String>,
        /// This path and all below it, by whole segments: `/a` is for `/a` and `/a/b`, not `/ab`. Absent: every path.
        path_prefix: Option<String>,
        /// Methods, in capitals. Absent: every method.
        methods: Option<List<String>>,
        /// How long requests of this route may take, where it is not as for all.
        timeouts: RouteTimeouts = "{}",
    }

    /// Hosts, paths and methods that the proxy answers itself: with `redirect` or with `respond`.
    AnswerRoute as "route" {
        /// A host without port, `*.example.com` for all below it, or `*`. Absent: every host.
        host: Option<String>,
        /// This path alone, in canonical form as in a route of a service. Not beside `path_prefix`.
        path: Option<String>,
        /// This path and all below it, by whole segments. Absent: every path.
        path_prefix: Option<String>,
        /// Methods, in capitals. Absent: every method.
        methods: Option<List<String>>,
        /// Sends the client elsewhere.
        redirect: Option<Redirect>,
        /// A fixed answer.
        respond: Option<Respond>,
    }

    /// Where the client is sent: at least one key beside `status`. What is not given stays as it was asked for, the query
    /// always.
    Redirect as "redirect" {
        /// 307 and 308 keep the method and the body; 301 and 308 may be kept by browsers for ever.
        status: RedirectStatus = "302",
        /// `http` or `https`.
        scheme: Option<Scheme>,
        /// A host without port.
        host: Option<String>,
        /// Absent: that of the scheme, where `scheme` or `host` is given.
        port: Option<Whole<1, 65_535>>,
        /// In place of the whole path. Not beside `path_prefix`.
        path: Option<String>,
        /// In place of the route's `path_prefix`: `/new` sends `/old/a` to `/new/a`.
        path_prefix: Option<String>,
    }

    /// A fixed answer.
    Respond as "fixed answer" {
        /// Its status. 204, 205 and 304 have no body.
        status: Whole<200, 599> = "200",
        /// What the body is.
        content_type: String = "text/plain; charset=utf-8",
        /// The body, at most 4096 bytes, as it stands: variables of header rules mean nothing here. `HEAD` gets its head alone.
        /// Absent: an empty one.
        body: Option<String>,
    }

    /// Timeouts of the requests of one route, whichever version serves.
    RouteTimeouts as "timeouts" {
        /// In place of `limits.request_timeout`; shorter or longer.
        request: Option<Period>,
        /// In place of the pool's `first_byte`.
        first_byte: Option<Period>,
        /// In place of the pool's `idle`, within an answer.
        idle: Option<Period>,
    }

    /// A rate: a bucket of `burst` requests that fills at `requests` each `per`. Refused requests are no version's failure, and take
    /// no part in its judgement.
    RateLimit as "rate limit" {
        /// How many.
        requests: Required<Whole<1, 1_000_000_000>>,
        /// In how much time, at most `24h`.
        per: Period = "1s",
        /// How many at once. Absent: as many as `requests`.
        burst: Option<Whole<1, 1_000_000_000>>,
        /// Whose rate it is: the first source that a request has. An IPv6 client is its network of 64 bits. Requests without any of
        /// them are not limited. Absent: one rate for all requests of the service, or of the version.
        key: Option<List<KeySource>>,
        /// Keys remembered at a time, 16 bytes each; at most 10,000,000 in a file. Beyond it those that used the least of their rate
        /// are forgotten.
        max_keys: Whole<1, 10_000_000> = "16384",
    }

    /// How many requests of one key may be in flight. WebSockets and streams are, as long as they are open. Refused requests are no
    /// version's failure, and take no part in its judgement.
    KeyInFlight as "limit" {
        /// How many at once.
        requests: Required<InFlight>,
        /// Whose they are: the first source that a request has. An IPv6 client is its network of 64 bits. Requests without any of
        /// them are not limited.
        key: Required<List<KeySource>>,
        /// Keys with requests in flight at a time, 16 bytes each; at most 10,000,000 in a file with those of `rate_limits`. Beyond it
        /// requests of further keys are let in.
        max_keys: Whole<1, 10_000_000> = "16384",
    }

    /// Another host and path for what is sent to the endpoints. First a prefix is stripped, then one is added. Each key of a
    /// version stands in place of the service's.
    Rewrite as "rewrite settings" {
        /// Sent as `Host`, with or without a port. `X-Forwarded-Host` still says what the client asked for. Absent: as the
        /// client sent it.
        host: Option<String>,
        /// Taken from paths that begin with it, by whole segments: without `/a`, `/a/b` is `/b`, `/a` is `/`, and `/ab` stays. A path
        /// that changes is sent in canonical form.
        strip_prefix: Option<String>,
        /// Put before the path.
        add_prefix: Option<String>,
        /// Whether `Location` and `Content-Location` of answers are led back to what the client can ask for: the host that was sent
        /// becomes the client's again, the added prefix the stripped one. What names another host or path stays as it is. Absent:
        /// `true`.
        location: Option<bool>,
    }

    /// Changes of header fields. Those of a version come after those of its service. Values are text, in which `${client_ip}`,
    /// `${host}` (as the client sent it), `${scheme}`, `${request_id}`, `${service}` and `${version}` stand for what they say. Of
    /// the certificate that the client has shown (`client_ca`): `${client_cert_verify}` is `SUCCESS`, or `NONE` without one,
    /// `${client_cert_subject_cn}` its common name, and `${client_cert_san}` its alternative names with commas between; in names
    /// all but visible ASCII and spaces, and `%` and `,`, stand as `%` with two hexadecimal digits. A line of one of these two
    /// alone is left out where there is no such name, at most 8 KiB of names are told, and in requests all three are for `set`,
    /// so that what a client claims itself never stands beside them. Fields that belong to a connection, frame the body, or are rollgate's own cannot be changed.
    HeaderRules as "header rules" {
        /// Lines that are added, beside any of the same name; at most 32.
        add: Map<String> = "{}",
        /// Fields that have this value, whatever they had; at most 32. What comes with `_` for `-` in the name goes as well.
        set: Map<String> = "{}",
        /// Fields that are removed; at most 32. Likewise.
        remove: List<String> = "[]",
    }
}

words! {
    /// The status of a redirect.
    RedirectStatus { S301 = "301", S302 = "302", S307 = "307", S308 = "308", }
    /// How a client asks.
    Scheme { Http = "http", Https = "https", }
}

/// Requests in flight.
pub type InFlight = Whole<1, 1_000_000>;

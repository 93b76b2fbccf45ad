//! The file as it is written: one type a mapping, in the order of the reference. The doc comments are the manual
//! (`docs/configuration.md` is generated from them).

mod traffic;

pub use traffic::*;

use super::condition::{Condition, Guarded};
use super::decode::{List, Map, Required, settings, words};
use super::scalars::{Delay, Drain, Mode, OnOff, Period, RedirectToHttps, Size, Switch, Threads, Weight, Whole};
use super::units::Share;

settings! {
    /// The whole file.
    Root as "the file" {
        /// The sockets that requests come in on, at most 64.
        listeners: Required<List<Listener>>,
        /// Worker threads, one accept loop each; `auto` is one a core.
        threads: Threads = "auto",
        /// One JSON line a request, written off the request path. Absent: off.
        access_log: Option<Switch<AccessLog>>,
        /// Spans sent over OTLP. Absent: off.
        tracing: Option<Tracing>,
        /// Addresses and networks (CIDR) whose `X-Forwarded-For` and `Forwarded` are believed; from others they are
        /// replaced.
        trusted_proxies: List<String> = "[]",
        /// Whether `Forwarded` (RFC 7239) is sent to upstreams beside `X-Forwarded-For`, `-Proto` and `-Host`.
        forwarded: bool = "false",
        /// Whether upstreams are told of this proxy in `Via` (RFC 9110 section 7.6.3). Off, because nginx and others then
        /// no longer compress (`gzip_proxied`). Answers always have it.
        via: bool = "false",
        /// Whether clients are told the version that served them, as `x-rollgate-version`. A service may say otherwise.
        expose_version: bool = "false",
        /// The kill switch for all services: everything goes to stable.
        kill: OnOff<Kill> = "false",
        /// What one client may use, and how long things may take.
        limits: Limits = "{}",
        /// The API, the dashboard, `/metrics`, `/livez` and `/readyz`.
        admin: Admin = "{}",
        /// The directory of weights, rollout progress, kill switches and the audit log.
        state_dir: String = "state",
        /// Named conditions, for rules, other segments and rollout steps; at most 1,000.
        segments: Map<Condition> = "{}",
        /// What leads to no service: answered by the proxy itself, with a redirect or a fixed answer. In one order with the
        /// routes of services, whichever is more specific first.
        routes: List<AnswerRoute> = "[]",
        /// The applications being delivered, at most 10,000.
        services: Required<List<Service>>,
    }

    /// A socket we accept on: HTTP/1.1, and HTTP/2 with prior knowledge.
    Listener as "listener" {
        /// IP address and port, such as `0.0.0.0:8080` or `[::]:8080`. Port 0: the kernel picks one.
        address: Required<String>,
        /// TLS on this listener. Absent: plain text.
        tls: Option<ListenerTls>,
        /// Whether every connection must begin with a PROXY protocol header, version 1 or 2: its address is then the peer's,
        /// for `trusted_proxies`, logs and hashes. Whoever can connect can claim any address: let only the balancer in front
        /// reach such a listener. Connections without the header are closed.
        proxy_protocol: bool = "false",
        /// Answers each request 308 with the same address under `https`: `true` for port 443, or the port. Not beside
        /// `tls`. A request that a trusted proxy received by `https` (`X-Forwarded-Proto`, else `Forwarded`) is served.
        redirect_to_https: RedirectToHttps = "false",
    }

    /// TLS of a listener: 1.2 and 1.3, with session resumption.
    ListenerTls as "TLS settings" {
        /// Chosen by the name the client asks for (SNI): one that has it before a wildcard (`*.` stands for one label); the
        /// first for a name that none has, and for clients that ask for none. Of several for one name one that is valid now
        /// is taken before one that is not, then ECDSA before RSA, as far as the client knows it. At most 1,000. Watched, and
        /// replaced without a restart.
        certificates: Required<List<Certificate>>,
        /// File of the authorities (PEM) that vouch for clients' certificates. A client's certificate that is itself in it,
        /// one that is self-signed, say, is trusted as it is. Absent: clients are asked for none. Watched as `certificates` are.
        client_ca: Option<String>,
        /// Whether clients must show a certificate; only beside `client_ca`. Absent: `required`. Where it is `optional`, the
        /// condition `client_cert` tells them apart. One that is shown is always verified.
        client_auth: Option<ClientAuth>,
        /// The oldest version of TLS that is spoken.
        min_version: TlsVersion = "1.2",
        /// Sends `Strict-Transport-Security` (RFC 6797) with every answer that has none. Absent: not sent.
        hsts: Option<Hsts>,
    }

    /// What browsers are told: to come back by `https` alone.
    Hsts as "HSTS settings" {
        /// For how long, in whole seconds.
        max_age: Period = "365d",
        /// Whether that holds for all names below this one, too.
        include_subdomains: bool = "false",
    }

    /// A certificate and its key, both PEM.
    Certificate as "certificate" {
        /// File of the certificate, followed by its chain.
        cert: Required<String>,
        /// File of its private key, not encrypted: RSA of 2048 to 8192 bits, ECDSA on P-256 or P-384, or Ed25519.
        key: Required<String>,
    }

    /// The access log. `access_log: off` turns it off.
    AccessLog as "access log" {
        /// `stdout`, `stderr`, or a file.
        path: String = "stdout",
        /// The form of a line.
        format: LogFormat = "json",
        /// How many of the successful requests are logged. Failures and refusals always are.
        sample: Share = "100%",
    }

    /// Traces.
    Tracing as "tracing settings" {
        /// URL of an OTLP collector (HTTP), such as `http://127.0.0.1:4318`.
        otlp: Required<String>,
        /// How many of the requests without a sampled `traceparent` are traced.
        sample: Share = "1%",
    }

    /// Limits, each enforced for every client.
    Limits as "limits" {
        /// Connections open at once, over all listeners. Those beyond it are answered 503.
        max_connections: Whole<1, 10_000_000> = "50000",
        /// From the first byte of a request's head to its last; then 408. The first request of a connection has it from the
        /// connection's beginning: one on which nothing comes in that time is closed without an answer. A PROXY protocol
        /// header and a TLS handshake together may take as long.
        header_timeout: Period = "10s",
        /// From the end of a request's head to the end of its answer; then 504, or the answer is cut. Upgraded connections,
        /// event streams (`text/event-stream`) and calls of gRPC are exempt: `timeouts.idle` of the pool bounds them. Long, so that downloads are not cut: the timeouts of a pool find a dead upstream.
        request_timeout: Period = "1h",
        /// How long a connection may wait for its next request.
        keepalive_timeout: Period = "75s",
        /// How long a connection may be used for further requests. Then it is closed behind the answer that is due, or told
        /// to end (GOAWAY), so that clients spread anew over proxies. A new value holds for new connections of HTTP/2.
        connection_age: Period = "1h",
        /// Requests at once on one connection of HTTP/2; more wait. A new value holds for new connections.
        max_streams: Whole<1, 10_000> = "128",
        /// The body of a request; 413 beyond it. Messages of a call of gRPC that does not say its length are not added up.
        max_body: Size = "64MiB",
        /// The head of a request or an answer, and its trailers, `4KiB` to `256KiB`; 431 or 502 beyond it.
        max_head: Size = "32KiB",
        /// How long a stopping process waits for requests in flight. WebSockets are told a second before.
        drain_timeout: Delay = "30s",
        /// How long a stopping process still accepts while `/readyz` already answers 503, so that balancers notice.
        drain_delay: Delay = "0s",
        /// How long a new process may take to get ready in an upgrade; then this one goes on.
        upgrade_timeout: Period = "30s",
    }

    /// The admin interfaces. Absent: none.
    Admin as "admin settings" {
        /// Unix socket of the API.
        socket: Option<String>,
        /// Permission bits of the socket.
        socket_mode: Mode = "0600",
        /// IP address and port of the API, the dashboard, `/metrics`, `/livez` and `/readyz` over TCP.
        address: Option<String>,
        /// File of the bearer tokens, one a line: a token of 16 characters or more, or `name: token`. Read again when it
        /// changes. Without it nothing can be changed over TCP.
        token_file: Option<String>,
        /// Names, with or without a port, under which `address` may be asked for beside itself and `localhost`: of a proxy
        /// in front, or of a published port. Any other `Host` is refused, but for `/metrics`, `/livez` and `/readyz`.
        hosts: List<String> = "[]",
    }

    /// An application being delivered.
    Service as "service" {
        /// Its name: letters, digits, `.`, `_` and `-`, at most 64. Unique. A label of its metrics.
        name: Required<String>,
        /// What leads to this service. Absent: every request. At most 10,000 over all services. Exact hosts win over
        /// wildcards, these over none; exact paths over prefixes, longer prefixes over shorter; a method over none.
        /// Of equal ones the first in the file wins; one to which nothing is left is an error.
        routes: Option<List<Route>>,
        /// Its deployed revisions, 1 to 64, exactly one of them stable.
        versions: Required<List<Version>>,
        /// Same user, same version. Absent: every request is split by weight alone.
        affinity: Option<Affinity>,
        /// Conditions that override the split, in order: the first that matches decides. At most 1,000.
        rules: List<Rule> = "[]",
        /// A copy of traffic for a version, whose replies are dropped.
        mirror: Option<Mirror>,
        /// When the chosen version has no usable endpoint: `stable` serves, or `fail` answers 503.
        fallback: Fallback = "stable",
        /// Failed attempts on a canary that stable answers instead.
        rescue: Option<Rescue>,
        /// The plan by which a version is delivered.
        rollout: Option<Rollout>,
        /// The kill switch: everything goes to stable.
        kill: OnOff<Kill> = "false",
        /// As the key of the same name of the file, for this service. Absent: as there.
        expose_version: Option<bool>,
        /// How often requests may come; 429 beyond it, with `Retry-After`. At most 16. A request must pass all of them; one
        /// that is refused takes from none.
        rate_limits: List<RateLimit> = "[]",
        /// Requests in flight at once, over all versions; 503 beyond it. Absent: no limit.
        max_in_flight: Option<InFlight>,
        /// Requests in flight at once of each client, user or API key; 503 beyond it. At most 16, each with another `key`.
        max_in_flight_per_key: List<KeyInFlight> = "[]",
        /// Protocols that clients of HTTP/1.1 may change to, as they stand in `Upgrade`: `websocket`, or others (`spdy/3.1`),
        /// of which only bytes are passed on. At most 16. `[]`: none. What is not listed is removed from `Upgrade`. What
        /// carries requests (`h2c`, `tls/1.2`) is refused: Rollgate would not see them.
        upgrades: List<String> = "[websocket]",
        /// Another host and path for what is sent to the endpoints. Routes, rules and logs see what the client sent.
        rewrite: Rewrite = "{}",
        /// Header fields of requests, changed on their way to the endpoints.
        request_headers: HeaderRules = "{}",
        /// Header fields of the endpoints' answers, changed on their way to the client. Rollgate's own answers are not
        /// changed, nor are interim ones.
        response_headers: HeaderRules = "{}",
    }

    /// A kill switch.
    Kill as "kill switch" {
        /// Whether it is on. One that a command set is on besides.
        on: bool = "false",
        /// How long what runs on a canary may go on once a kill switch is on, of the file or of a command, or its rollout was
        /// rolled back: downloads, streams, WebSockets. Then it is closed; `never` leaves it. Absent: `30s`, or as at the
        /// top of the file.
        drain: Option<Drain>,
    }

    /// A deployed revision of a service.
    Version as "version" {
        /// Its name: letters, digits, `.`, `_` and `-`, at most 64. Unique in the service.
        name: Required<String>,
        /// Where traffic is safe (`stable`) or on trial (`canary`). Absent: `canary`; but when no version of the service
        /// names a role, the first is stable.
        role: Option<Role>,
        /// Its relative part of the traffic. Absent: 0; but when no version of the service names a weight, 100 for
        /// stable.
        weight: Option<Weight>,
        /// Its addresses and how they are used.
        pool: Required<Pool>,
        /// Requests in flight at once on this version, whichever way they came to it, copies of a mirror included; 503 beyond it.
        /// Those that stable rescues do not count there. Absent: no limit.
        max_in_flight: Option<InFlight>,
        /// How often requests may come to this version, whichever way, copies of a mirror included; 429 beyond it. At most 16.
        /// Those that stable rescues do not count there.
        rate_limits: List<RateLimit> = "[]",
        /// As the key of the same name of the service, for this version: each key here stands in place of that one.
        rewrite: Rewrite = "{}",
        /// As the key of the same name of the service, for this version; after those.
        request_headers: HeaderRules = "{}",
        /// Likewise.
        response_headers: HeaderRules = "{}",
    }

    /// The addresses behind a version.
    Pool as "pool" {
        /// 1 to 1,000 addresses: `host:port`, `name:port`, `[v6]:port`, or a mapping with a weight. Names are resolved
        /// off the request path, again and again.
        endpoints: Required<List<EndpointText>>,
        /// How one is picked. `power_of_two` is the less busy of two drawn by weight; `hash` is the same user key, the
        /// same endpoint.
        balance: Balance = "power_of_two",
        /// How endpoints are probed. Absent: as with no keys.
        health_check: HealthCheck = "{}",
        /// How endpoints that fail live requests are set aside.
        ejection: Ejection = "{}",
        /// How long an attempt may take.
        timeouts: Timeouts = "{}",
        /// What is spoken to the endpoints: `h2` is HTTP/2 over `tls`, `h2c` HTTP/2 in plain text with prior knowledge. Health
        /// checks speak the same. gRPC needs one of the two.
        protocol: Protocol = "http1",
        /// TLS to the endpoints. Absent: plain text.
        tls: Option<PoolTls>,
        /// The PROXY protocol header that connections to the endpoints begin with: it tells them the client's address. Such a
        /// connection is used again only where the header would be the same, for the same connection of a client. Absent: none.
        send_proxy_protocol: Option<ProxyProtocol>,
    }

    /// An address with its weight.
    Endpoint as "endpoint" {
        /// `host:port`, `name:port` or `[v6]:port`.
        address: Required<String>,
        /// Its part of the pool's traffic.
        weight: Whole<1, 1_000_000> = "1",
    }

    /// Active health checks.
    HealthCheck as "health check" {
        /// `GET` of this path must answer 200 to 399. Absent, and `grpc` too: a TCP connection must succeed.
        path: Option<String>,
        /// In place of `path`, where the pool speaks `h2` or `h2c`: the name of the service that must be SERVING by
        /// `grpc.health.v1.Health`, `""` for the server as a whole.
        grpc: Option<String>,
        /// Time between two probes of an endpoint, `10ms` or more.
        every: Period = "2s",
        /// A probe without an answer after this long has failed.
        timeout: Period = "1s",
        /// Successes in a row that make an endpoint healthy.
        healthy_after: Whole<1, 1000> = "1",
        /// Failures in a row that make it unhealthy.
        unhealthy_after: Whole<1, 1000> = "3",
    }

    /// Passive ejection.
    Ejection as "ejection" {
        /// Failures in a row that eject an endpoint.
        consecutive_failures: Whole<1, 1_000_000> = "5",
        /// How long, the first time; doubles each time the endpoint fails again soon after, up to the larger of this and
        /// 30 s.
        r#for: Period = "5s",
        /// The part of a pool that may be ejected at once. `0%` never ejects.
        at_most: Share = "50%",
    }

    /// Timeouts of one attempt on an endpoint.
    Timeouts as "timeouts" {
        /// To connect.
        connect: Period = "1s",
        /// From the request sent to the first byte of its answer.
        first_byte: Period = "30s",
        /// Of silence within an answer, an event stream, or an upgraded connection.
        idle: Period = "60s",
    }

    /// TLS to the endpoints of a pool: 1.2 and 1.3, for requests and for health checks.
    PoolTls as "TLS settings" {
        /// The name asked for and checked. Absent: the host of the endpoint; an address must then be in the certificate.
        sni: Option<String>,
        /// File of the authorities that are trusted (PEM), instead of those of the system. An endpoint's certificate that is
        /// itself in it, one that is self-signed, say, is trusted as it is; its name and its time are still checked. Watched,
        /// and replaced without a restart.
        ca: Option<String>,
        /// Whether the endpoint's certificate is checked. `false` lets anybody on the way read and change what is sent.
        verify: bool = "true",
        /// File of the certificate (PEM, with its chain) that is shown to endpoints that ask for one. Watched.
        cert: Option<String>,
        /// File of its private key.
        key: Option<String>,
    }

    /// Same user, same version.
    Affinity as "affinity" {
        /// Where a user's key comes from: the first one present, and not empty, wins.
        key: List<KeySource> = "[]",
        /// Makes the population of this service's canary its own. Absent: the service's name. Share a salt to share the
        /// population.
        salt: Option<String>,
        /// The hash from key to bucket: the same users as the SDK of that name would pick.
        hash: Hash = "rollgate-1",
        /// Gives an id to users who have no key; signed. Absent: no cookie, unless `keep` needs one.
        cookie: Option<Cookie>,
        /// Whether a user once admitted to a canary stays while its share falls. Rollback and kill revoke.
        keep: bool = "false",
    }

    /// The affinity cookie.
    Cookie as "cookie" {
        /// Its name.
        name: String = "rollgate",
        /// Its life, in whole seconds.
        ttl: Period = "30d",
    }

    /// A condition that overrides the split. It has a `version` or a `split`.
    Rule as "rule" {
        /// Its name: letters, digits, `.`, `_` and `-`, at most 64. Unique in the service.
        name: Required<String>,
        /// The requests it is for. `from` beside the condition names a segment: only its clients count, since a header
        /// that anyone may send is no permission.
        when: Required<Guarded>,
        /// The version they get.
        version: Option<String>,
        /// The weights of the versions they get, by name; versions not named get none.
        split: Option<Map<Weight>>,
    }

    /// A copy of traffic whose reply is dropped. While a rollout is in a step with a `mirror`, that step's share counts.
    Mirror as "mirror" {
        /// The version that gets the copies: of requests that others served, once they are answered. None under a kill
        /// switch, if it is a canary.
        version: Required<String>,
        /// How many of the requests are copied, by chance.
        share: Share = "100%",
        /// Of which methods. The version carries them out a second time: list no other but where that does no harm. Bodies
        /// of more than 64 KiB, upgrades and event streams are not copied.
        methods: List<String> = "[GET, HEAD]",
    }

    /// Failed attempts on a canary that stable answers instead, so that their clients see no error. The failure is the
    /// canary's all the same.
    Rescue as "rescue" {
        /// Of which methods. Any but safe ones may be carried out twice: once by the canary that failed, once by stable.
        methods: List<String> = "[GET, HEAD, OPTIONS]",
        /// After which failures, as long as nothing of an answer has reached the client and at most 64 KiB of a body were
        /// read.
        on: List<RescueOn> = "[connect, reset, timeout, 5xx, grpc]",
    }

    /// The plan by which a version is delivered.
    Rollout as "rollout" {
        /// The version to deliver. Absent: the only canary.
        candidate: Option<String>,
        /// Whether it begins by itself when a candidate of a new name appears.
        start: Start = "automatic",
        /// Its steps, 1 to 100. Shares never fall from one to the next; steps with a `mirror` come first. After steps that end
        /// below `100%` comes one more, `100%` without a hold.
        steps: Required<List<RolloutStep>>,
        /// How the candidate is judged.
        analysis: Analysis = "{}",
        /// The blast radius.
        guard: Option<Guard>,
        /// Who is told.
        notify: List<Notify> = "[]",
        /// Who is asked.
        gates: List<Gate> = "[]",
        /// When nothing advances by itself, at most 64 windows: each week (`Fri 16:00-Mon 08:00 Europe/Berlin`), each day
        /// (`22:00-06:00 UTC`) or once (`2026-12-23 12:00-2027-01-04 08:00 UTC`). Rolling back never waits for one.
        freeze: List<String> = "[]",
        /// The other services of its train, at most 15: all go on to the next step together, and are rolled back together.
        /// Each has a rollout of its own with as many steps. One service of a train names the others.
        with: List<String> = "[]",
    }

    /// One entry of the plan: a `share`, or `segments` that are admitted whatever the share, or both; or a `mirror` alone.
    RolloutStep as "step" {
        /// Nobody gets the candidate, but this share of the requests that stable answers is copied for it, and judged beside
        /// them. Of the methods of the service's `mirror`; without one of GET and HEAD.
        mirror: Option<Share>,
        /// Segments that are admitted to the candidate (a ring). Absent: those of the step before.
        segments: Option<List<String>>,
        /// The candidate's share. Absent: that of the step before.
        share: Option<Share>,
        /// How long the step lasts at least.
        hold: Required<Delay>,
        /// Whether somebody must approve before the next step.
        approval: bool = "false",
    }

    /// How the candidate is judged.
    Analysis as "analysis" {
        /// The time after a step begins in which latency does not count. Failures always do.
        warmup: Delay = "30s",
        /// Requests of the candidate in a step without which no check passes. One fails as soon as the evidence is there.
        min_requests: Whole<1, 1_000_000_000> = "200",
        /// Of 100 rollouts of a version identical to stable, how many are not rolled back: `50%` to `99.999%`.
        confidence: Share = "99%",
        /// What happens when there is still no evidence after `max_hold`.
        on_no_evidence: OnNoEvidence = "hold",
        /// How long a step may wait for evidence, from its beginning, but not less than its hold. Absent: its hold; with
        /// `hold`, which waits on, it has no effect.
        max_hold: Option<Period>,
        /// Numbers of the application itself, by names for `checks`; at most 8. Where no check asks for one, how the
        /// versions differ in it is reported, and nothing follows from it.
        metrics: Map<HeaderMetric> = "{}",
        /// The conditions, at most 32.
        checks: List<Check> = "[]",
    }

    /// A number that the application writes into its answers: `1` where an order was made and `0` where none was, or a value.
    HeaderMetric as "metric" {
        /// The header of an answer that holds it, as a decimal number. Answers without it do not count; what is no number
        /// does not either. The header is removed before the client sees the answer.
        from_header: Required<String>,
        /// Which way is worse: `lower` for orders, `higher` for time or cost.
        worse: Required<Worse>,
    }

    /// One condition: a metric `compared_to` stable, or with a `max` or a `min`.
    Check as "check" {
        /// `error_rate`, `latency_p50` to `latency_p99`, `latency_p999`, `mismatch_rate` (of a mirror step: how many copies are
        /// answered with another status than an original that did not fail), a name of `metrics`, or the name of a `prometheus`
        /// query.
        metric: Required<String>,
        /// The version it is compared to.
        compared_to: Option<ComparedTo>,
        /// How much worse than that it may be, relatively.
        tolerance: Option<Share>,
        /// The most it may be: a percentage for `error_rate` and `mismatch_rate`, a duration for latencies, and for others a number, where `5%`
        /// is 0.05 and `500ms` is 0.5.
        max: Option<String>,
        /// The least it may be, in the same way; for `metrics` and `prometheus` queries.
        min: Option<String>,
        /// What a failed check does. `step_back` is to the step before, with affinity cookies revoked; from the first step
        /// it is a rollback, and at the third time the rollout waits for a person.
        on_fail: OnFail = "rollback",
        /// Where the metric comes from, when it is not the proxy's own.
        prometheus: Option<Prometheus>,
    }

    /// A metric that a Prometheus server has.
    Prometheus as "prometheus query" {
        /// URL of the server.
        url: Required<String>,
        /// The query; its answer is one number. `{{service}}`, `{{candidate}}` and `{{stable}}` in it stand for their
        /// names, `{{interval}}` for the time between two queries in seconds, as in `rate(orders[{{interval}}])`.
        query: Required<String>,
        /// Time between two queries, at least `1s`; asked only while the rollout is judged. An answer counts for three
        /// times as long.
        every: Period = "30s",
    }

    /// The blast radius of a rollout.
    Guard as "guard" {
        /// Rolled back after this many failed requests of the candidate, whatever the statistics say.
        max_failures: Required<Whole<1, 1_000_000_000>>,
    }

    /// Who is told: `slack` or `webhook`.
    Notify as "notification" {
        /// URL of a Slack webhook, or of what takes the same (`{"text": "…"}`).
        slack: Option<String>,
        /// URL that gets each event as JSON.
        webhook: Option<String>,
        /// Which events. Absent: all.
        events: Option<List<RolloutEvent>>,
    }

    /// Who is asked, by a webhook in the form of Flagger's confirm gates.
    Gate as "gate" {
        /// What waits for the answer.
        before: Required<GateBefore>,
        /// URL that is asked until it answers 2xx.
        webhook: Required<String>,
    }
}

words! {
    /// The form of a line of the access log.
    LogFormat { Json = "json", }
    /// Where traffic is safe, or on trial.
    Role { Stable = "stable", Canary = "canary", }
    /// What serves when the chosen version cannot.
    Fallback { Stable = "stable", Fail = "fail", }
    /// How an endpoint is picked.
    Balance {
        PowerOfTwo = "power_of_two",
        LeastRequests = "least_requests",
        RoundRobin = "round_robin",
        Hash = "hash",
    }
    /// What is spoken to endpoints.
    Protocol { Http1 = "http1", H2 = "h2", H2c = "h2c", }
    /// Whether clients must show a certificate.
    ClientAuth { Required = "required", Optional = "optional", }
    /// A version of TLS.
    TlsVersion { V1_2 = "1.2", V1_3 = "1.3", }
    /// A form of the PROXY protocol header: text or binary.
    ProxyProtocol { V1 = "v1", V2 = "v2", }
    /// The hash from key to bucket.
    Hash { Rollgate1 = "rollgate-1", Unleash1 = "unleash-1", Flagd2 = "flagd-2", }
    /// A failure that can be rescued.
    RescueOn {
        Connect = "connect",
        Reset = "reset",
        Timeout = "timeout",
        Status5xx = "5xx",
        Protocol = "protocol",
        NoEndpoint = "no_endpoint",
        Grpc = "grpc",
    }
    /// How a rollout begins.
    Start { Automatic = "automatic", Manual = "manual", }
    /// What happens without evidence.
    OnNoEvidence { Hold = "hold", Proceed = "proceed", Rollback = "rollback", }
    /// What a comparison is with.
    ComparedTo { Stable = "stable", }
    /// Which way a number is worse.
    Worse { Lower = "lower", Higher = "higher", }
    /// What a failed check does.
    OnFail { Rollback = "rollback", Pause = "pause", StepBack = "step_back", }
    /// What a notification can be about.
    RolloutEvent {
        Start = "start",
        Step = "step",
        Approval = "approval",
        Pause = "pause",
        Resume = "resume",
        Promote = "promote",
        Success = "success",
        Rollback = "rollback",
        Kill = "kill",
    }
    /// What a gate can hold back.
    GateBefore { Start = "start", Step = "step", Promote = "promote", }
}

/// An endpoint: its address alone, or a mapping.
#[derive(Debug, Clone, PartialEq)]
pub enum EndpointText {
    Address(String),
    Full(Endpoint),
}

/// Where a user's key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    Header(String),
    Cookie(String),
    ClientIp,
}

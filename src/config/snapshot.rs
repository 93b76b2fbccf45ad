//! The compiled, immutable configuration: what the rest of the program reads. Nothing here is as typed in the file
//! (that is `schema`); every name is resolved, every default filled in.

use crate::balancing::Rate;
use crate::http1::{HeadLimits, Rewrite};
use crate::opening::ProxyVersion;
use crate::outcome::FailureKind;
use crate::rollout::Plan;
use crate::routing::{KeySource, Policy, Split, VersionId};
use ipnet::IpNet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One valid file.
#[derive(Debug)]
pub struct Snapshot {
    pub listeners: Box<[Listener]>,
    /// Worker threads of the data plane; `None`: one a core.
    pub threads: Option<usize>,
    pub access_log: Option<AccessLog>,
    pub trusted_proxies: Box<[IpNet]>,
    /// Whether `Forwarded` (RFC 7239) is sent to upstreams beside `X-Forwarded-*`.
    pub forwarded: bool,
    /// Whether `Via` is sent to upstreams.
    pub via: bool,
    pub limits: Limits,
    pub admin: Admin,
    pub state_dir: PathBuf,
    /// `kill: true` at the top of the file: all services.
    pub killed: bool,
    /// Routes, segments and rules; `services` below runs parallel to `policy.services`.
    pub policy: Policy,
    pub services: Box<[Service]>,
    /// Parallel to the routes of the policy; empty where no route says anything.
    pub route_timeouts: Box<[Option<RouteTimeouts>]>,
    /// Keys that are accepted and not acted on by this build, each with its path: shown by `check`, logged at load.
    pub unsupported: Box<[Unsupported]>,
    /// Files that the configuration names; whoever loads it checks that they can be read.
    pub files: Box<[NamedFile]>,
}

impl Snapshot {
    /// The plans of the services that have a rollout.
    pub fn plans(&self) -> impl Iterator<Item = &Plan> {
        self.services.iter().filter_map(|service| service.rollout.as_ref())
    }

    /// Files of certificates, keys and authorities.
    pub fn tls_files(&self) -> impl Iterator<Item = &Path> {
        let listeners = self.listeners.iter().filter_map(|listener| listener.tls.as_ref());
        let pools = self.services.iter().flat_map(|service| &service.pools);
        let pools = pools.filter_map(|pool| pool.tls.as_ref());
        let of_listeners = listeners.flat_map(move |tls| {
            let pairs = tls.certificates.iter().flat_map(CertificateFiles::both);
            pairs.chain(tls.clients.iter().map(|clients| &*clients.ca))
        });
        of_listeners.chain(pools.flat_map(move |tls| {
            tls.ca
                .as_deref()
                .into_iter()
                .chain(tls.client.iter().flat_map(CertificateFiles::both))
        }))
    }
}

/// A file that the configuration names, and where it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// Relative ones are joined to the directory of the configuration.
    pub file: PathBuf,
    /// `listeners[0].tls.certificates[0].cert`
    pub path: String,
    pub line: usize,
    pub column: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    pub address: SocketAddr,
    /// Connections begin with a PROXY protocol header, or are closed.
    pub proxy_protocol: bool,
    pub tls: Option<ListenerTls>,
    /// The port that requests are redirected to.
    pub redirect_to_https: Option<u16>,
    /// The value of `Strict-Transport-Security`.
    pub hsts: Option<Box<str>>,
}

/// What handshakes of a listener go by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTls {
    /// At least one; the first is the default.
    pub certificates: Box<[CertificateFiles]>,
    pub clients: Option<ClientCertificates>,
    pub min_version: TlsVersion,
}

/// Clients are asked for a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificates {
    /// File of the authorities.
    pub ca: PathBuf,
    /// Those without one are refused.
    pub required: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

/// A certificate with its chain, and its key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CertificateFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

#[derive(Debug, Clone, PartialEq)]
pub struct AccessLog {
    pub path: LogPath,
    /// Fraction of requests logged, 0.0 to 1.0. Failures and refusals are always logged.
    pub sample: f64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogPath {
    Stdout,
    Stderr,
    File(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    pub max_connections: usize,
    /// From the first byte of a head to its last.
    pub header_timeout: Duration,
    /// From the last byte of the request's head to the last byte of the answer; upgraded connections and event
    /// streams are exempt.
    pub request_timeout: Duration,
    /// How long a kept-alive connection may wait for its next request.
    pub keepalive_timeout: Duration,
    /// How long a connection may go on being used for further requests.
    pub connection_age: Duration,
    /// Requests at once on one connection of HTTP/2.
    pub max_streams: u32,
    /// Bytes of a request's body.
    pub max_body: u64,
    /// Bytes of a request's or answer's head.
    pub max_head: usize,
    /// How long a stopping process waits for requests in flight.
    pub drain_timeout: Duration,
    /// How long a stopping process still accepts while `/readyz` already says 503, so that balancers notice.
    pub drain_delay: Duration,
    /// How long a process that is to take over may take to get ready.
    pub upgrade_timeout: Duration,
}

impl Limits {
    /// Of a head, and of what follows a body.
    pub fn heads(&self) -> HeadLimits {
        HeadLimits {
            bytes: self.max_head,
            ..HeadLimits::default()
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Admin {
    pub address: Option<SocketAddr>,
    pub socket: Option<PathBuf>,
    /// Permission bits of the socket.
    pub socket_mode: u32,
    pub token_file: Option<PathBuf>,
    pub hosts: Box<[AdminHost]>,
}

/// A name under which the admin address may be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminHost {
    /// In small letters; an IPv6 address in brackets.
    pub name: Box<str>,
    /// `None`: any.
    pub port: Option<u16>,
}

/// The part of a service that routing does not need.
#[derive(Debug)]
pub struct Service {
    /// The weights in the file.
    pub split: Split,
    /// `kill: true` in the file.
    pub killed: bool,
    /// How long what runs on a canary may go on under a kill switch; `None`: to its end.
    pub kill_drain: Option<Duration>,
    /// Whether the client is told the version (`x-rollgate-version` on the answer).
    pub expose_version: bool,
    /// Parallel to the versions of the policy's service.
    pub pools: Box<[Pool]>,
    /// Likewise; `None`: heads are forwarded as they are.
    pub rewrites: Box<[Option<Rewrite>]>,
    pub mirror: Option<Mirror>,
    pub rescue: Option<Rescue>,
    pub limits: ServiceLimits,
    /// Protocols that its clients may change to, as they stand in `Upgrade`.
    pub upgrades: Box<[Box<str>]>,
    /// How its candidate is delivered.
    pub rollout: Option<Plan>,
}

/// How much a service takes. What is beyond it is refused, and is no version's failure.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceLimits {
    /// Those with a key first: what a client is refused is not taken from the others.
    pub rates: Box<[RateLimit]>,
    pub max_in_flight: Option<u32>,
    /// No two of one key.
    pub keys_in_flight: Box<[KeyInFlight]>,
    /// Parallel to the versions; empty where none has a limit.
    pub versions: Box<[VersionLimits]>,
}

/// How much a version takes; likewise.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VersionLimits {
    pub rates: Box<[RateLimit]>,
    pub max_in_flight: Option<u32>,
}

impl ServiceLimits {
    /// Of the version at this position.
    pub fn of_version(&self, version: usize) -> Option<&VersionLimits> {
        self.versions.get(version)
    }
}

/// How often requests may come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    pub rate: Rate,
    /// Whose rate it is: the first source present. Empty: all requests have one together.
    pub key: Box<[KeySource]>,
    /// Keys remembered at a time.
    pub max_keys: usize,
}

/// How many requests of each key may be in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInFlight {
    pub most: u32,
    /// Whose they are: the first source present.
    pub key: Box<[KeySource]>,
    /// Keys with requests in flight at a time.
    pub max_keys: usize,
}

/// Which requests are copied, and for whom. A rollout's mirror step has a share of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    pub version: VersionId,
    /// Of 100,000 requests.
    pub share: u32,
    pub methods: Box<[Box<str>]>,
}

/// Which failed attempts on a canary stable answers instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rescue {
    pub methods: Box<[Box<str>]>,
    pub on: Box<[FailureKind]>,
}

/// The addresses behind a version and how they are used.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    pub endpoints: Box<[Endpoint]>,
    pub balance: Balance,
    pub health_check: HealthCheck,
    pub ejection: Ejection,
    pub timeouts: Timeouts,
    pub tls: Option<PoolTls>,
    /// HTTP/2 is spoken to the endpoints: over TLS, or in plain text with prior knowledge.
    pub http2: bool,
    /// The PROXY protocol header that connections to its endpoints begin with.
    pub send_proxy_protocol: Option<ProxyVersion>,
}

impl CertificateFiles {
    fn both(&self) -> [&Path; 2] {
        [&self.cert, &self.key]
    }
}

/// TLS to endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PoolTls {
    /// The name asked for and checked; `None`: the endpoint's host.
    pub sni: Option<Box<str>>,
    /// File of the authorities; `None`: those of the system.
    pub ca: Option<PathBuf>,
    pub verify: bool,
    /// HTTP/2 is asked for (ALPN), and nothing else.
    pub http2: bool,
    /// What is shown to endpoints that ask.
    pub client: Option<CertificateFiles>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// As written in the file: the `endpoint` label.
    pub label: Box<str>,
    pub host: Host,
    pub port: u16,
    /// 1 to 1,000,000.
    pub weight: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    Address(std::net::IpAddr),
    /// Resolved off the request path, and again as time passes.
    Name(Box<str>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// The less busy of two drawn by weight.
    #[default]
    PowerOfTwo,
    LeastRequests,
    RoundRobin,
    /// Consistent: the same user key, the same endpoint, as long as it is usable.
    Hash,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HealthCheck {
    pub probe: Probe,
    pub every: Duration,
    pub timeout: Duration,
    pub healthy_after: u32,
    pub unhealthy_after: u32,
}

/// What must succeed for an endpoint to be healthy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Probe {
    /// A connection, with its TLS handshake where the pool has one.
    Connection,
    /// `GET` of a path, answered 200 to 399.
    Get(Box<str>),
    /// `Check` of `grpc.health.v1.Health` for this service, answered SERVING; over HTTP/2.
    Grpc(Box<str>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Ejection {
    pub consecutive_failures: u32,
    /// The first time; doubles each time the endpoint fails again soon after, up to the larger of this and 30 s.
    pub base: Duration,
    /// The part of a pool that may be ejected at once, 0.0 to 1.0; 0 never ejects.
    pub at_most: f64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Duration,
    pub first_byte: Duration,
    pub idle: Duration,
}

/// What one route says of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteTimeouts {
    /// In place of [`Limits::request_timeout`].
    pub request: Option<Duration>,
    /// In place of those of the pools; parallel to the versions of its service.
    pub attempts: Box<[Timeouts]>,
}

/// A key that is accepted and not acted on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    pub path: String,
    pub line: usize,
    pub column: usize,
    /// What happens instead, for the operator.
    pub message: String,
    /// Running without it would do something other than what the file says (plain text on a TLS listener): `run`
    /// and a reload refuse such a file.
    pub refuses_to_run: bool,
}

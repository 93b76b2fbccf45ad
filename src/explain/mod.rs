//! Why a request gets the version it gets.
//!
//! It asks the same [`decide`] as a live request, and adds what a reader wants to know beside the answer. The command
//! line asks it with a file alone, the API with what is in force; what is only assumed is among the notes.

use crate::routing::{
    Asked, ClientCert, CookieKey, Decision, Facts, HeaderFields, KeySource, Policy, Reason, RequestView, Route,
    RouteAnswer, RouteId, Routed, Scheme, Service, ServiceId, Split, Target, Traffic, VersionId, canonical_path,
    decide, decide_in,
};
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::net::IpAddr;

/// A request as an operator describes it.
#[derive(Debug, Clone)]
pub struct Described {
    pub method: String,
    pub subject: Subject,
    /// In order; names in any case.
    pub headers: Vec<(String, String)>,
    pub client_ip: IpAddr,
    /// What the client has shown in the TLS handshake, taken for verified.
    pub client_cert: Option<ClientCert>,
}

/// What is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A service by its name: a request for `/`, whatever the routes say.
    Service(String),
    /// What the routes make of this.
    Url {
        /// Without port; `None`: that of a `host` field.
        host: Option<String>,
        path: String,
        /// Without the question mark.
        query: String,
    },
}

/// The facts that the decision is made with.
#[derive(Clone, Copy)]
pub struct Moment<'a> {
    pub facts: &'a dyn Facts,
    /// Whether the facts know which versions have a usable endpoint, or take for granted that all have.
    pub knows_health: bool,
}

/// Facts that stand for those of a running proxy: every version has a usable endpoint.
#[derive(Clone)]
pub struct Assume {
    /// Seconds since the Unix epoch: whether an affinity cookie is still valid.
    pub now_s: u64,
    /// The turn of a request without a key.
    pub turn: u64,
    /// The id of a user who has no key and gets a cookie.
    pub fresh_id: u128,
    /// Another key than the running proxy's makes every affinity cookie invalid.
    pub cookie_key: CookieKey,
}

impl Facts for Assume {
    fn now_s(&self) -> u64 {
        self.now_s
    }

    fn turn(&self, _: ServiceId, _: Option<u32>) -> u64 {
        self.turn
    }

    fn usable(&self, _: ServiceId, _: VersionId) -> bool {
        true
    }

    fn cookie_key(&self) -> &CookieKey {
        &self.cookie_key
    }

    fn fresh_id(&self) -> u128 {
        self.fresh_id
    }
}

/// The answer. `None` where there is nothing to say: no route, no version (`fallback: fail`), no bucket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Explanation {
    pub service: Option<String>,
    pub version: Option<String>,
    /// `killed`, `rule:<name>`, `ring`, `kept`, `bucket`, `weight`, `fallback`.
    pub reason: Option<String>,
    /// The user's bucket, 0 to 99999.
    pub bucket: Option<u32>,
    /// The version's share of the split that was asked (the service's, or the rule's), in percent.
    pub share: Option<f64>,
    /// The rule that decided.
    pub rule: Option<String>,
    /// The route that leads to the service; none if the service was named.
    pub route: Option<String>,
    /// That split, in file order.
    pub shares: Vec<VersionShare>,
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct VersionShare {
    pub version: String,
    /// Percent.
    pub share: f64,
}

/// Why there is no explanation.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ExplainError {
    #[error("no service is called {name:?}{}", suggestion(.similar))]
    UnknownService { name: String, similar: Option<String> },
    #[error("{url:?} is not a URL: {problem}")]
    BadUrl { url: String, problem: String },
}

fn suggestion(similar: &Option<String>) -> String {
    similar
        .as_ref()
        .map_or(String::new(), |name| format!("; did you mean {name:?}?"))
}

/// Explains what would become of `described` under `policy` and `traffic`.
///
/// # Errors
/// There is no such service.
pub fn explain(
    policy: &Policy,
    traffic: &Traffic,
    described: &Described,
    moment: Moment<'_>,
) -> Result<Explanation, ExplainError> {
    let fields = Fields(&described.headers);
    let (service, host, path, query) = match &described.subject {
        Subject::Service(name) => (Some(service_named(policy, name)?), None, "/", ""),
        Subject::Url { host, path, query } => (None, host.as_deref(), path.as_str(), query.as_str()),
    };
    let host_field = fields
        .nth("host", 0)
        .and_then(|host| str::from_utf8(host).ok())
        .unwrap_or("");
    let canonical = match canonical_path(path) {
        Ok(canonical) => canonical,
        Err(fault) => return Ok(nobody(None, format!("{fault}: the answer is 400"))),
    };
    let request = RequestView {
        method: &described.method,
        host: host.unwrap_or_else(|| without_port(host_field)),
        path: &canonical,
        query,
        fields: &fields,
        client_ip: described.client_ip,
        client_cert: described.client_cert.as_ref(),
    };
    let watched = Watched {
        facts: moment.facts,
        turn: Cell::new(None),
        id_used: Cell::new(false),
    };
    let (route, decision) = match service {
        Some(service) => (None, decide_in(service, policy, traffic, &request, &watched)),
        None => match decide(policy, traffic, &request, &watched) {
            Routed::Service(decision) => (decision.route, Some(decision)),
            Routed::Nowhere => (None, None),
            Routed::Answer(answer) => return Ok(answered(policy, answer, &request, path)),
        },
    };
    let route = route.and_then(|RouteId(index)| policy.routes.routes().get(index as usize));
    let found = decision.and_then(|decision| Some((policy.services.get(decision.service.0 as usize)?, decision)));
    let Some((service, decision)) = found else {
        return Ok(no_route(&request));
    };
    let split = split_of(service, traffic, &decision);
    let mut notes = notes(service, traffic, &decision, &request, &watched, moment.knows_health);
    if canonical != path {
        notes.push(format!("routes are compared with the path as {canonical}"));
    }
    Ok(Explanation {
        service: Some(service.name.to_string()),
        version: decision.version.map(|version| name_of(service, version)),
        reason: Some(decision.reason.text(service).to_string()),
        bucket: decision.bucket,
        share: split.map(|split| split.share_percent(decision.chosen.0 as usize)),
        rule: rule_of(service, &decision).map(|rule| rule.name.to_string()),
        route: route.map(describe_route),
        shares: split.map_or(Vec::new(), |split| shares(service, split)),
        notes,
    })
}

fn service_named(policy: &Policy, name: &str) -> Result<ServiceId, ExplainError> {
    let services = || policy.services.iter();
    if let Some(index) = services().position(|service| *service.name == *name) {
        return Ok(ServiceId(index as u32));
    }
    let similar = services()
        .map(|service| (strsim::jaro_winkler(&service.name, name), &service.name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|one, other| one.0.total_cmp(&other.0));
    Err(ExplainError::UnknownService {
        name: name.to_owned(),
        similar: similar.map(|(_, name)| name.to_string()),
    })
}

impl Explanation {
    /// The same for people: one fact a line.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut line = |label: &str, value: Option<String>| {
            lines.extend(value.map(|value| format!("{label:<8} {value}")));
        };
        line("service", self.service.clone());
        line("route", self.route.clone());
        line("version", self.version.clone());
        line("reason", self.reason.clone());
        line("bucket", self.bucket.map(|bucket| format!("{bucket} of 0..100000")));
        line("share", self.share.map(percent));
        let shares: Vec<String> = self
            .shares
            .iter()
            .map(|one| format!("{} {}", one.version, percent(one.share)))
            .collect();
        line("split", (!shares.is_empty()).then(|| shares.join(", ")));
        for note in &self.notes {
            line("note", Some(note.clone()));
        }
        lines
    }
}

/// A percentage without needless digits: `5 %`, `0.1 %`, `33.333 %`.
fn percent(share: f64) -> String {
    let text = format!("{share:.3}");
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

impl Subject {
    /// A service's name, `http://host/path?query`, `host/path`, or `/path`.
    ///
    /// # Errors
    /// It is neither the name of a service nor like one, and no URL.
    pub fn parse(policy: &Policy, text: &str) -> Result<Self, ExplainError> {
        let is_name = policy.services.iter().any(|service| *service.name == *text);
        if is_name || !text.contains(['/', '.', ':']) {
            return Ok(Self::Service(text.to_owned()));
        }
        let absolute = if text.contains("://") || text.starts_with('/') {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        let uri: http::Uri = absolute
            .parse()
            .map_err(|error: http::uri::InvalidUri| ExplainError::BadUrl {
                url: text.to_owned(),
                problem: error.to_string(),
            })?;
        Ok(Self::Url {
            host: uri.host().map(str::to_owned),
            path: uri.path().to_owned(),
            query: uri.query().unwrap_or("").to_owned(),
        })
    }
}

/// `host` as it stands in a `Host` field, without its port.
pub fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

struct Fields<'a>(&'a [(String, String)]);

impl HeaderFields for Fields<'_> {
    fn nth(&self, name: &str, n: usize) -> Option<&[u8]> {
        let lines = self.0.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        lines.map(|(_, value)| value.as_bytes()).nth(n)
    }
}

/// The facts, and which of them mattered.
struct Watched<'a> {
    facts: &'a dyn Facts,
    turn: Cell<Option<u64>>,
    id_used: Cell<bool>,
}

impl Facts for Watched<'_> {
    fn now_s(&self) -> u64 {
        self.facts.now_s()
    }

    fn turn(&self, service: ServiceId, rule: Option<u32>) -> u64 {
        let turn = self.facts.turn(service, rule);
        self.turn.set(Some(turn));
        turn
    }

    fn usable(&self, service: ServiceId, version: VersionId) -> bool {
        self.facts.usable(service, version)
    }

    fn cookie_key(&self) -> &CookieKey {
        self.facts.cookie_key()
    }

    fn fresh_id(&self) -> u128 {
        self.id_used.set(true);
        self.facts.fresh_id()
    }
}

/// What leads to no service.
fn nobody(route: Option<&Route>, note: String) -> Explanation {
    Explanation {
        service: None,
        version: None,
        reason: None,
        bucket: None,
        share: None,
        rule: None,
        route: route.map(describe_route),
        shares: Vec::new(),
        notes: vec![note],
    }
}

fn no_route(request: &RequestView<'_>) -> Explanation {
    let RequestView { method, host, path, .. } = request;
    let note = format!("no route takes {method} {path:?} of host {host:?}: the answer is 404");
    nobody(None, note)
}

/// `path`: as it would be sent.
fn answered(policy: &Policy, answer: &RouteAnswer, request: &RequestView<'_>, path: &str) -> Explanation {
    let route = policy.routes.find(request).map(|(_, route)| route);
    let asked = Asked {
        scheme: Scheme::Http,
        host: request.host,
        port: "",
        path,
        canonical_path: request.path,
        query: request.query,
    };
    let location = match answer {
        RouteAnswer::Redirect(redirect) => redirect.location(&asked),
        RouteAnswer::Respond(_) => None,
    };
    let to = location.map_or(String::new(), |location| format!(" to {location}"));
    nobody(
        route,
        format!("no service is asked: the route itself answers ({answer}{to})"),
    )
}

fn name_of(service: &Service, version: VersionId) -> String {
    service
        .versions
        .get(version.0 as usize)
        .map_or(String::new(), |version| version.name.to_string())
}

fn rule_of<'a>(service: &'a Service, decision: &Decision) -> Option<&'a crate::routing::Rule> {
    match decision.reason {
        Reason::Rule(index) => service.rules.get(index as usize),
        _ => None,
    }
}

/// The split that was asked: the rule's if it has one, none if the rule names a version.
fn split_of<'a>(service: &'a Service, traffic: &'a Traffic, decision: &Decision) -> Option<&'a Split> {
    match rule_of(service, decision).map(|rule| &rule.target) {
        Some(Target::Split(split)) => Some(split),
        Some(Target::Version(_)) => None,
        None => Some(&traffic.services.get(decision.service.0 as usize)?.split),
    }
}

fn shares(service: &Service, split: &Split) -> Vec<VersionShare> {
    let versions = service.versions.iter().enumerate();
    versions
        .map(|(index, version)| VersionShare {
            version: version.name.to_string(),
            share: split.share_percent(index),
        })
        .collect()
}

fn describe_route(route: &Route) -> String {
    use crate::routing::{HostPattern, PathPattern};
    let host = match &route.host {
        HostPattern::Any => "any host".to_owned(),
        HostPattern::Exact(host) => format!("host {host}"),
        HostPattern::Wildcard(suffix) => format!("host *.{suffix}"),
    };
    let path = match &route.path {
        PathPattern::Exact(path) => format!("path {path}"),
        PathPattern::Prefix(prefix) => format!("path_prefix {prefix}"),
    };
    let methods = if route.methods.is_empty() {
        String::new()
    } else {
        format!(", methods {}", route.methods.join(" "))
    };
    format!("{host}, {path}{methods}")
}

fn notes(
    service: &Service,
    traffic: &Traffic,
    decision: &Decision,
    request: &RequestView<'_>,
    watched: &Watched<'_>,
    knows_health: bool,
) -> Vec<String> {
    let mut notes = Vec::new();
    if decision.reason == Reason::Killed {
        let whose = if traffic.killed { "all services" } else { "the service" };
        notes.push(format!("the kill switch of {whose} is on: everything goes to stable"));
        return notes;
    }
    if let (Some(affinity), Some(_)) = (&service.affinity, decision.bucket) {
        let source = affinity.key.iter().find(|source| is_present(source, request));
        let hash = affinity.hash.as_str();
        let salt = &affinity.salt;
        notes.push(match source {
            Some(KeySource::Header(name)) => format!("key: header {name}; hash {hash}, salt {salt:?}"),
            Some(KeySource::Cookie(name)) => format!("key: cookie {name}; hash {hash}, salt {salt:?}"),
            Some(KeySource::ClientIp) => format!("key: client_ip; hash {hash}, salt {salt:?}"),
            None => format!("key: the id of the signed cookie; hash {hash}, salt {salt:?}"),
        });
    }
    if let Some(turn) = watched.turn.get() {
        notes.push(format!(
            "the request has no affinity key, so it goes by weight: the split says how many of such requests each \
             version gets; shown is turn {turn}"
        ));
    }
    if watched.id_used.get() {
        notes.push(
            "a user without a key gets a random id in a cookie, so that the version is drawn by the split and then \
             stays; shown is one such id"
                .to_owned(),
        );
    }
    if decision.set_cookie.as_ref().is_some_and(|cookie| cookie.kept.is_some()) {
        notes.push("the answer sets a cookie that keeps the user in this canary while the share falls".to_owned());
    }
    notes.extend(health_note(service, decision, knows_health));
    notes
}

fn health_note(service: &Service, decision: &Decision, knows_health: bool) -> Option<String> {
    if !knows_health {
        let assumed = "assumed: the version has a usable endpoint; if not, `fallback` decides";
        return (decision.chosen != service.stable).then(|| assumed.to_owned());
    }
    let instead = match decision.version {
        Some(version) if version == decision.chosen => return None,
        Some(version) => format!("{} serves", name_of(service, version)),
        None => "the answer is 503".to_owned(),
    };
    let chosen = name_of(service, decision.chosen);
    Some(format!("{chosen} was chosen and has no usable endpoint: {instead}"))
}

fn is_present(source: &KeySource, request: &RequestView<'_>) -> bool {
    match source {
        KeySource::Header(name) => request.fields.nth(name, 0).is_some_and(|value| !value.is_empty()),
        KeySource::Cookie(name) => request.cookie(name).is_some_and(|value| !value.is_empty()),
        KeySource::ClientIp => true,
    }
}

#[cfg(test)]
mod tests;

//! `rollgate explain SERVICE|URL [-H 'k: v']... [--client-ip IP]`: why a request gets the version it gets.
//!
//! It asks the same [`decide`] as a live request, and adds what a reader wants to know beside the answer. What only a
//! running proxy knows is given by [`Assume`] or assumed, and each assumption that matters is among the notes.

use crate::control::{cookie_key, load, writer};
use crate::routing::{
    CookieKey, Decision, Facts, HeaderFields, KeySource, Policy, Reason, RequestView, Route, Service, ServiceId, Split,
    Target, Traffic, VersionId, decide, decide_in,
};
use crate::runtime;
use serde::Serialize;
use std::cell::Cell;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// The arguments of `rollgate explain`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A service's name, or the URL of the request.
    #[arg(value_name = "SERVICE|URL")]
    target: String,
    /// The configuration file.
    #[arg(long, short, value_name = "FILE", env = "ROLLGATE_CONFIG")]
    config: PathBuf,
    /// A header field of the request; may be given again.
    #[arg(long, short = 'H', value_name = "NAME: VALUE", value_parser = header_field)]
    header: Vec<(String, String)>,
    #[arg(long, short = 'X', value_name = "METHOD", default_value = "GET")]
    method: String,
    /// The client's address.
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    client_ip: IpAddr,
    /// For programs: one JSON object.
    #[arg(long)]
    json: bool,
}

fn header_field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected `name: value`")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// Explains by the file alone: weights moved at run time and the health of endpoints are not looked at.
pub fn run(arguments: &Arguments) -> ExitCode {
    match explained(arguments) {
        Ok(text) => {
            super::print(&text);
            ExitCode::SUCCESS
        }
        Err(error) => super::fail(&error),
    }
}

fn explained(arguments: &Arguments) -> anyhow::Result<String> {
    let snapshot = load::load(&arguments.config)?;
    let described = Described {
        method: arguments.method.clone(),
        target: arguments.target.clone(),
        headers: arguments.header.clone(),
        client_ip: arguments.client_ip,
    };
    let assume = Assume {
        now_s: writer::now_s(),
        turn: 0,
        fresh_id: 0,
        cookie_key: cookie_key::passing()?,
    };
    let explanation = explain(
        &snapshot.policy,
        &runtime::traffic(&runtime::State::default(), &snapshot),
        &described,
        &assume,
    )?;
    if arguments.json {
        return Ok(serde_json::to_string_pretty(&explanation)? + "\n");
    }
    Ok(explanation.lines().join("\n") + "\n")
}

/// A request as an operator describes it.
#[derive(Debug, Clone)]
pub struct Described {
    pub method: String,
    /// A service's name, `http://host/path?query`, `host/path`, or `/path` (then the host is that of a `host` field).
    pub target: String,
    /// In order; names in any case.
    pub headers: Vec<(String, String)>,
    pub client_ip: IpAddr,
}

/// What stands for the moment's facts.
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

/// The answer. `None` where there is nothing to say: no route, no version (`fallback: fail`), no bucket.
#[derive(Debug, Clone, PartialEq, Serialize)]
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

#[derive(Debug, Clone, PartialEq, Serialize)]
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
pub fn explain(
    policy: &Policy,
    traffic: &Traffic,
    described: &Described,
    assume: &Assume,
) -> Result<Explanation, ExplainError> {
    let target = Asked::parse(policy, &described.target)?;
    let fields = Fields(&described.headers);
    let host_field = fields
        .nth("host", 0)
        .and_then(|host| str::from_utf8(host).ok())
        .unwrap_or("");
    let request = RequestView {
        method: &described.method,
        host: target.host.as_deref().unwrap_or_else(|| without_port(host_field)),
        path: &target.path,
        query: &target.query,
        fields: &fields,
        client_ip: described.client_ip,
        client_cert: None,
    };
    let moment = Moment {
        assume,
        turn_used: Cell::new(false),
        id_used: Cell::new(false),
    };
    let (route, decision) = match target.service {
        Some(service) => (None, decide_in(service, policy, traffic, &request, &moment)),
        None => (
            policy.routes.find_route(&request),
            decide(policy, traffic, &request, &moment),
        ),
    };
    let found = decision.and_then(|decision| Some((policy.services.get(decision.service.0 as usize)?, decision)));
    let Some((service, decision)) = found else {
        return Ok(no_route(&request));
    };
    Ok(Explanation {
        service: Some(service.name.to_string()),
        version: decision.version.map(|version| name_of(service, version)),
        reason: Some(decision.reason.text(service).to_string()),
        bucket: decision.bucket,
        share: split_of(service, traffic, &decision).map(|split| split.share_percent(decision.chosen.0 as usize)),
        rule: rule_of(service, &decision).map(|rule| rule.name.to_string()),
        route: route.map(describe_route),
        shares: split_of(service, traffic, &decision).map_or(Vec::new(), |split| shares(service, split)),
        notes: notes(service, traffic, &decision, &request, &moment),
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

/// What is asked about.
struct Asked {
    /// Named, or to be found by the routes.
    service: Option<ServiceId>,
    host: Option<String>,
    path: String,
    query: String,
}

impl Asked {
    fn parse(policy: &Policy, text: &str) -> Result<Self, ExplainError> {
        let by_name = policy.services.iter().position(|service| *service.name == *text);
        if let Some(index) = by_name {
            let service = Some(ServiceId(index as u32));
            return Ok(Self {
                service,
                host: None,
                path: "/".to_owned(),
                query: String::new(),
            });
        }
        if !text.contains(['/', '.', ':']) {
            let similar = policy
                .services
                .iter()
                .map(|service| (strsim::jaro_winkler(&service.name, text), &service.name))
                .filter(|(likeness, _)| *likeness > 0.8)
                .max_by(|one, other| one.0.total_cmp(&other.0));
            return Err(ExplainError::UnknownService {
                name: text.to_owned(),
                similar: similar.map(|(_, name)| name.to_string()),
            });
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
        Ok(Self {
            service: None,
            host: uri.host().map(str::to_owned),
            path: uri.path().to_owned(),
            query: uri.query().unwrap_or("").to_owned(),
        })
    }
}

fn without_port(host: &str) -> &str {
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
struct Moment<'a> {
    assume: &'a Assume,
    turn_used: Cell<bool>,
    id_used: Cell<bool>,
}

impl Facts for Moment<'_> {
    fn now_s(&self) -> u64 {
        self.assume.now_s
    }

    fn turn(&self, _: ServiceId, _: Option<u32>) -> u64 {
        self.turn_used.set(true);
        self.assume.turn
    }

    fn usable(&self, _: ServiceId, _: VersionId) -> bool {
        true
    }

    fn cookie_key(&self) -> &CookieKey {
        &self.assume.cookie_key
    }

    fn fresh_id(&self) -> u128 {
        self.id_used.set(true);
        self.assume.fresh_id
    }
}

fn no_route(request: &RequestView<'_>) -> Explanation {
    let RequestView { method, host, path, .. } = request;
    Explanation {
        service: None,
        version: None,
        reason: None,
        bucket: None,
        share: None,
        rule: None,
        route: None,
        shares: Vec::new(),
        notes: vec![format!(
            "no route takes {method} {path:?} of host {host:?}: the answer is 404"
        )],
    }
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
    moment: &Moment<'_>,
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
    if moment.turn_used.get() {
        notes.push(format!(
            "the request has no affinity key, so it goes by weight: the split says how many of such requests each \
             version gets; shown is turn {}",
            moment.assume.turn
        ));
    }
    if moment.id_used.get() {
        notes.push(
            "a user without a key gets a random id in a cookie, so that the version is drawn by the split and then \
             stays; shown is one such id"
                .to_owned(),
        );
    }
    if decision.set_cookie.as_ref().is_some_and(|cookie| cookie.kept.is_some()) {
        notes.push("the answer sets a cookie that keeps the user in this canary while the share falls".to_owned());
    }
    if decision.chosen != service.stable {
        notes.push("assumed: the version has a usable endpoint; if not, `fallback` decides".to_owned());
    }
    notes
}

fn is_present(source: &KeySource, request: &RequestView<'_>) -> bool {
    match source {
        KeySource::Header(name) => request.fields.nth(name, 0).is_some_and(|value| !value.is_empty()),
        KeySource::Cookie(name) => request.cookie(name).is_some_and(|value| !value.is_empty()),
        KeySource::ClientIp => true,
    }
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;

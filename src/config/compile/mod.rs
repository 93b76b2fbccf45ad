//! Schema -> [`Snapshot`]: every check of meaning, all problems at once. No file is touched: the files that the
//! configuration names are in [`Snapshot::files`].

mod answers;
mod checks;
mod cookies;
mod limits;
mod pool;
mod rewrite;
mod rollout;
mod routes;
mod segments;
mod service;
mod text;
mod tls;
mod top;
mod train;
mod upgrades;

pub use text::{host_and_port, name_problem};

use super::decode::List;
use super::problem::{Path, Problem, Problems, nearest, printable, shown};
use super::scalars::{Drain, OnOff, Threads};
use super::schema::{self, Root};
use super::snapshot::{NamedFile, Snapshot, Unsupported};
use super::yaml::Node;
use crate::rollout::Url;
use crate::routing::{Policy, SegmentId};
use std::collections::HashMap;
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

/// The most services of a file.
pub const MAX_SERVICES: usize = 10_000;
/// The most routes of a file, over all services.
pub const MAX_ROUTES: usize = 10_000;
/// The most segments of a file.
pub const MAX_SEGMENTS: usize = 1_000;
/// The most listeners of a file.
pub const MAX_LISTENERS: usize = 64;
/// The most versions of a service.
pub const MAX_VERSIONS: usize = 64;
/// The most rules of a service.
pub const MAX_RULES: usize = 1_000;
/// The most endpoints of a pool.
pub const MAX_ENDPOINTS: usize = 1_000;
/// The most rate limits of a service or a version, and limits of requests in flight by key.
pub const MAX_RATE_LIMITS: usize = 16;
/// The most keys that all limits of a file remember, 16 bytes each.
pub const MAX_RATE_LIMIT_KEYS: usize = 10_000_000;
/// The most sources of a key.
pub const MAX_KEY_SOURCES: usize = 16;
/// The most entries of a list of header rules.
pub const MAX_HEADER_RULES: usize = 32;
/// The most elements of any other list.
pub const MAX_LIST: usize = 1_000;

/// How long what runs on a canary may go on under a kill switch, where the file says nothing: time for most downloads.
const KILL_DRAIN: Duration = Duration::from_secs(30);

/// What the whole compilation shares.
pub(super) struct Context<'a> {
    problems: Problems<'a>,
    base: &'a FilePath,
    /// The names of all segments, also of those that are wrong.
    segments: HashMap<String, SegmentId>,
    /// By segment: the cost of its evaluation, once known.
    costs: Vec<segments::Cost>,
    unsupported: Vec<Unsupported>,
    files: Vec<NamedFile>,
    expose_version: bool,
    /// Of services that say nothing else.
    kill_drain: Option<Duration>,
    /// Whether no listener asks its clients for certificates, until that is told of.
    asks_no_client: bool,
}

/// `root` compiled. `tree` is where positions are looked up, `problems` what was found while decoding, `base` the
/// directory that relative paths start from.
///
/// # Errors
/// Every problem of decoding and of meaning, in the order of the file.
pub(super) fn compile(
    root: &Root,
    tree: &Node,
    base: &FilePath,
    problems: Problems<'_>,
) -> Result<Snapshot, Vec<Problem>> {
    let mut context = Context {
        problems,
        base,
        segments: HashMap::new(),
        costs: Vec::new(),
        unsupported: Vec::new(),
        files: Vec::new(),
        expose_version: root.expose_version,
        kill_drain: kill(&root.kill).1.map_or(Some(KILL_DRAIN), Drain::after),
        asks_no_client: asks_no_client(root),
    };
    let snapshot = context.snapshot(root);
    let problems = context.problems.into_sorted();
    match snapshot {
        Some(snapshot) if problems.is_empty() => Ok(snapshot),
        None if problems.is_empty() => Err(vec![Problem {
            path: String::new(),
            line: tree.line,
            column: tree.column,
            message: "the file was refused without a reason given: this is a defect of rollgate".to_owned(),
            suggestion: None,
        }]),
        _ => Err(problems),
    }
}

/// Whether no listener has a `client_ca`.
fn asks_no_client(root: &Root) -> bool {
    let listeners = root.listeners.get().into_iter().flat_map(List::iter);
    let mut settings = listeners.filter_map(|(_, listener)| listener.tls.as_ref());
    settings.all(|tls| tls.client_ca.is_none())
}

/// Whether a kill switch is on, and its `drain`.
fn kill(kill: &OnOff<schema::Kill>) -> (bool, Option<Drain>) {
    match kill {
        OnOff::Plain(on) => (*on, None),
        OnOff::Full(kill) => (kill.on, kill.drain),
    }
}

impl Context<'_> {
    fn snapshot(&mut self, root: &Root) -> Option<Snapshot> {
        let listeners = self.listeners(root);
        let access_log = self.access_log(root);
        self.tracing(root);
        let trusted_proxies = self.networks(&root.trusted_proxies, &Path::ROOT.key("trusted_proxies"));
        let limits = self.limits(&root.limits);
        let admin = self.admin(&root.admin);
        let state_dir = self.file_path(&root.state_dir, &Path::ROOT.key("state_dir"));
        self.admin_beside_listeners(root);
        let segments = self.segments(&root.segments);
        let services = self.services(root);
        let routes = self.routes(root);
        let (policies, services): (Vec<_>, Vec<_>) = services?.into_iter().unzip();
        let policy = Policy {
            routes: routes?,
            segments: segments?,
            services: policies.into(),
        };
        self.cookies(&policy);
        Some(Snapshot {
            listeners: listeners?,
            threads: match root.threads {
                Threads::Auto => None,
                Threads::Fixed(threads) => Some(threads),
            },
            access_log: access_log?,
            trusted_proxies: trusted_proxies?,
            forwarded: root.forwarded,
            via: root.via,
            limits: limits?,
            admin: admin?,
            state_dir: state_dir?,
            killed: kill(&root.kill).0,
            policy,
            route_timeouts: Self::route_timeouts(root, &services),
            services: services.into(),
            unsupported: std::mem::take(&mut self.unsupported).into(),
            files: std::mem::take(&mut self.files).into(),
        })
    }

    /// Reports a list that is empty (with `min` 1) or too long; whether it was neither.
    fn count<T>(&mut self, list: &List<T>, min: usize, max: usize, what: &str, path: &Path<'_>) -> bool {
        if list.len() < min {
            self.problems
                .add(path, format!("expected at least {min} {what}, found {}", list.len()));
        } else if list.len() > max {
            self.problems
                .add(path, format!("expected at most {max} {what}, found {}", list.len()));
        } else {
            return true;
        }
        false
    }

    /// Reports a name outside the safe set; whether it was inside.
    fn name(&mut self, name: &str, path: &Path<'_>) -> bool {
        let message = match text::name_problem(name) {
            None => return true,
            Some(message) => message,
        };
        self.problems
            .add(path, format!("`{}` is no name: {message}", printable(name)));
        false
    }

    /// Reports a name that was taken at `first`.
    fn taken(&mut self, what: &str, name: &str, first: &Path<'_>, path: &Path<'_>) {
        let (line, _) = self.problems.position(first);
        let message = format!("the {what} `{}` exists already: {first} (line {line})", printable(name));
        self.problems.add(path, message);
    }

    /// The position of the segment called `name`; else a problem.
    fn segment(&mut self, name: &str, path: &Path<'_>) -> Option<SegmentId> {
        let found = self.segments.get(name).copied();
        if found.is_none() {
            let suggestion = nearest(name, self.segments.keys().map(String::as_str));
            let message = format!("there is no segment `{}`", printable(name));
            self.problems.add_with(path, message, suggestion);
        }
        found
    }

    /// A path of the file system, joined to the directory of the configuration.
    fn file_path(&mut self, written: &str, path: &Path<'_>) -> Option<PathBuf> {
        if written.trim().is_empty() {
            self.problems.add(path, "expected a path, found an empty string");
            return None;
        }
        Some(self.base.join(written))
    }

    /// A file that must be there: noted for whoever loads the configuration.
    fn named_file(&mut self, written: &str, path: &Path<'_>) -> Option<PathBuf> {
        let file = self.file_path(written, path)?;
        let (line, column) = self.problems.position(path);
        self.files.push(NamedFile {
            file: file.clone(),
            path: path.to_string(),
            line,
            column,
        });
        Some(file)
    }

    /// Notes a key that is accepted and not acted on.
    fn unsupported(&mut self, path: &Path<'_>, instead: &str) {
        self.warn(path, format!("not acted on by this version: {instead}"));
    }

    /// Notes what is right, and is hardly what was meant.
    fn warn(&mut self, path: &Path<'_>, message: String) {
        let (line, column) = self.problems.position_of_key(path);
        self.unsupported.push(Unsupported {
            path: path.to_string(),
            line,
            column,
            message,
            refuses_to_run: false,
        });
    }

    /// A `http://` or `https://` URL; else a problem.
    fn url(&mut self, url: &str, path: &Path<'_>) {
        if !text::is_http_url(url) {
            let message = format!(
                "expected a URL that begins with `http://` or `https://`, found {}",
                // The rest of it may be a secret.
                shown(&Url::new(url).to_string())
            );
            self.problems.add(path, message);
        }
    }

    /// Methods in capitals, none twice; else problems.
    fn methods(&mut self, methods: &List<String>, path: &Path<'_>) -> Option<Box<[Box<str>]>> {
        if !self.count(methods, 1, 32, "methods", path) {
            return None;
        }
        let mut seen: Vec<String> = Vec::new();
        methods.compile(|index, method| {
            let path = path.index(index);
            let message = if !text::is_token(method) || method.len() > 32 {
                "is no HTTP method"
            } else if method == "CONNECT" {
                "cannot be forwarded by a reverse proxy"
            } else if method.bytes().any(|b| b.is_ascii_lowercase()) {
                "is no HTTP method: methods are compared with case, and those in use are in capitals"
            } else if seen.contains(method) {
                "is there twice"
            } else {
                seen.push(method.clone());
                return Some(method.as_str().into());
            };
            let upper = method.to_ascii_uppercase();
            let suggestion = text::METHODS.contains(&upper.as_str()) && upper != *method;
            let message = format!("`{}` {message}", printable(method));
            self.problems.add_with(&path, message, suggestion.then_some(upper));
            None
        })
    }

    fn services(&mut self, root: &Root) -> Option<Vec<(crate::routing::Service, super::snapshot::Service)>> {
        let path = Path::ROOT.key("services");
        let services = root.services.get()?;
        if !self.count(services, 1, MAX_SERVICES, "services", &path) {
            return None;
        }
        let mut names: HashMap<&str, usize> = HashMap::new();
        for (index, service) in services.iter() {
            let Some(name) = service.name.get() else { continue };
            let at = path.index(index);
            let at = at.key("name");
            self.name(name, &at);
            if let Some(first) = names.insert(name, index) {
                self.taken("service", name, &path.index(first), &at);
            }
        }
        let mut compiled = services
            .compile(|index, service: &schema::Service| self.service(service, &path.index(index)))
            .map(Vec::from);
        self.rate_limit_keys(compiled.iter().flatten().map(|(_, service)| service));
        self.trains(services, &names, compiled.as_deref_mut().unwrap_or_default(), &path);
        compiled
    }
}

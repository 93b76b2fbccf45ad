//! `rollgate demo`: upstreams and users embedded in this process, so that the proxy can be tried with nothing else at hand.

mod users;

pub use users::Users;

use crate::config::Snapshot;
use crate::config::snapshot::Host;
use crate::routing::{Condition, KeySource, Operator, Role, Rule, Source};
use anyhow::Context;
use axum::Router;
use axum::http::{Method, StatusCode, Uri, header};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The demo's file, for who has only the binary.
const CONFIG: &str = include_str!("../config/demo.yaml");

/// The name under which it is written.
const CONFIG_NAME: &str = "rollgate-demo.yaml";

/// The name of a state that is the demo's own.
const STATE_NAME: &str = "rollgate-demo-state";

/// Of so many requests of a broken version, [`FAIL`] fail.
const OF: u64 = 5;
const FAIL: u64 = 2;

/// What is wrong with the canaries of the demo: nothing, until somebody breaks them.
#[derive(Clone, Default)]
pub struct Bug(Arc<Defect>);

#[derive(Default)]
struct Defect {
    is_there: AtomicBool,
    turn: AtomicU64,
}

impl Bug {
    /// Two of five requests fail from now on; or none any more.
    pub fn set(&self, is_there: bool) {
        self.0.is_there.store(is_there, Ordering::Relaxed);
    }

    fn strikes(&self) -> bool {
        self.0.is_there.load(Ordering::Relaxed) && self.0.turn.fetch_add(1, Ordering::Relaxed) % OF < FAIL
    }
}

/// Removes what an earlier demo has left, so that each one begins at the beginning. A state of another name is not touched.
///
/// # Errors
/// It cannot be removed.
pub fn forget(snapshot: &Snapshot) -> anyhow::Result<()> {
    let state = &snapshot.state_dir;
    if state.file_name().is_some_and(|name| name == STATE_NAME) && state.exists() {
        std::fs::remove_dir_all(state).with_context(|| format!("removing {}", state.display()))?;
    }
    Ok(())
}

/// The file to run: `config`, or the demo's own, written into the working directory unless it is there already.
///
/// # Errors
/// It cannot be written.
pub fn config_file(config: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let path = config.unwrap_or_else(|| PathBuf::from(CONFIG_NAME));
    if path.file_name().is_some_and(|name| name == CONFIG_NAME) && !path.exists() {
        std::fs::write(&path, CONFIG).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(path)
}

/// Serves every endpoint of `snapshot` from this process, each answering with the name of its version. Returns what breaks the
/// canaries.
///
/// # Errors
/// An endpoint is no loopback address, its address is taken, or no thread can be started.
pub fn start_upstreams(snapshot: &Snapshot) -> anyhow::Result<Bug> {
    let mut upstreams = Vec::new();
    let bug = Bug::default();
    for (service, settings) in snapshot.policy.services.iter().zip(&snapshot.services) {
        for (version, pool) in service.versions.iter().zip(&settings.pools) {
            for endpoint in &pool.endpoints {
                let Host::Address(ip) = endpoint.host else {
                    anyhow::bail!("{}: the demo serves only loopback addresses", endpoint.label);
                };
                anyhow::ensure!(
                    ip.is_loopback(),
                    "{}: the demo serves only loopback addresses",
                    endpoint.label
                );
                let address = SocketAddr::new(ip, endpoint.port);
                let listener = TcpListener::bind(address).with_context(|| format!("upstream {address}"))?;
                listener.set_nonblocking(true)?;
                let bug = (version.role == Role::Canary).then(|| bug.clone());
                upstreams.push((format!("{} {}", service.name, version.name), bug, listener));
            }
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve_all = async move {
        let mut tasks = tokio::task::JoinSet::new();
        for (name, bug, listener) in upstreams {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => drop(tasks.spawn(async move { axum::serve(listener, upstream(name, bug)).await })),
                Err(error) => tracing::error!(name, %error, "an upstream of the demo cannot be served"),
            }
        }
        tasks.join_all().await;
    };
    std::thread::Builder::new()
        .name("demo-upstreams".to_owned())
        .spawn(move || runtime.block_on(serve_all))?;
    Ok(bug)
}

/// Answers everything with its name, as far as its bug lets it.
fn upstream(name: String, bug: Option<Bug>) -> Router {
    Router::new().fallback(move |method: Method, uri: Uri| async move {
        let (status, does) = match bug {
            Some(bug) if bug.strikes() => (StatusCode::INTERNAL_SERVER_ERROR, "fails on"),
            _ => (StatusCode::OK, "answers"),
        };
        let text = format!("{name} {does} {method} {}\n", uri.path());
        (status, [(header::CACHE_CONTROL, "no-store")], text)
    })
}

/// Whether the proxy can listen where `snapshot` says, before anybody is told that it does.
///
/// # Errors
/// An address of a listener or of the admin side is taken, or not of this machine.
pub fn try_listen(snapshot: &Snapshot) -> anyhow::Result<()> {
    let listeners = snapshot.listeners.iter().map(|listener| listener.address);
    // Held together, so that one that stands in the file twice is found, too.
    let _held: Vec<TcpListener> = listeners
        .chain(snapshot.admin.address)
        .map(|address| {
            TcpListener::bind(address)
                .with_context(|| format!("cannot listen on {address} (is it taken? `ss -ltnp` shows by whom)"))
        })
        .collect::<anyhow::Result<_>>()?;
    Ok(())
}

/// What to try, for the person who started the demo: only what works with this file.
pub fn instructions(snapshot: &Snapshot, config: &Path) -> String {
    let proxy = snapshot
        .listeners
        .first()
        .map_or_else(String::new, |listener| listener.address.to_string());
    let config = config.display();
    let mut text = format!(
        "\nRollgate is running, and the upstreams are embedded.\n\n\
         Who answers?        curl http://{proxy}/\n\
         Count a hundred:    for i in $(seq 100); do curl -s http://{proxy}/; done | sort | uniq -c\n"
    );
    let services = &snapshot.policy.services;
    if services.iter().any(|service| service.rules.iter().any(asks_for_v2)) {
        text += &format!("The canary, please: curl -H 'x-version: v2' http://{proxy}/\n");
    }
    let mut keys = services
        .iter()
        .filter_map(|service| service.affinity.as_ref())
        .flat_map(|affinity| &affinity.key);
    if keys.any(|key| matches!(key, KeySource::Header(name) if &**name == "x-user-id")) {
        text += &format!("A user who stays:   curl -H 'x-user-id: ada' http://{proxy}/\n");
    }
    if !is_rolled_out(snapshot) {
        text += &format!("Move the split:     edit `weight:` in {config} and count again\n");
    }
    if let Some(admin) = snapshot.admin.address {
        text += &format!("Golden signals:     curl -s http://{admin}/metrics | grep ^rollgate_requests_total\n");
        text += &format!("Dashboard:          http://{admin}/\n");
    }
    text + "Stop:               Ctrl-C\n\n"
}

/// Whether a service of the file has a rollout.
pub fn is_rolled_out(snapshot: &Snapshot) -> bool {
    snapshot.plans().next().is_some()
}

/// Whether anyone who sends `x-version: v2` falls under the rule.
fn asks_for_v2(rule: &Rule) -> bool {
    let (
        Condition::Test {
            source: Source::Header(name),
            operator: Operator::Equals(value),
        },
        None,
    ) = (&rule.when, rule.from)
    else {
        return false;
    };
    &**name == "x-version" && &**value == "v2"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn snapshot(text: &str) -> Snapshot {
        config::parse(text, Path::new("")).unwrap()
    }

    #[test]
    fn everything_of_the_demos_own_file_is_shown() {
        let text = instructions(&snapshot(CONFIG), Path::new("demo.yaml"));
        for part in [
            "x-version: v2",
            "x-user-id: ada",
            "127.0.0.1:9900/metrics",
            "http://127.0.0.1:9900/\n",
            "http://127.0.0.1:8080/",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(!text.contains("weight"), "the rollout moves the split: {text}");
    }

    #[test]
    fn what_a_file_does_not_have_is_not_shown() {
        let bare = snapshot(
            "listeners: [{ address: \"127.0.0.1:8080\" }]\nservices:\n  - name: s\n    versions: [{ name: v1, pool: { \
             endpoints: [\"127.0.0.1:1\"] } }]\n",
        );
        let text = instructions(&bare, Path::new("bare.yaml"));
        for part in ["x-version", "x-user-id", "/metrics"] {
            assert!(!text.contains(part), "{part} is in {text}");
        }
    }

    #[test]
    fn a_bug_strikes_two_of_five() {
        let bug = Bug::default();
        assert!((0..100).all(|_| !bug.strikes()));
        bug.set(true);
        assert_eq!((0..100).filter(|_| bug.strikes()).count(), 40);
        bug.set(false);
        assert!(!bug.strikes());
    }

    #[test]
    fn only_a_state_of_the_demo_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        for (name, stays) in [(STATE_NAME, false), ("state", true)] {
            let state = directory.path().join(name);
            std::fs::create_dir(&state).unwrap();
            let text = CONFIG.replace(
                "state_dir: rollgate-demo-state",
                &format!("state_dir: {}", state.display()),
            );
            forget(&snapshot(&text)).unwrap();
            assert_eq!(state.exists(), stays, "{name}");
        }
    }

    #[test]
    fn a_taken_address_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let snapshot = snapshot(&CONFIG.replace("127.0.0.1:8080", &address.to_string()));
        let error = try_listen(&snapshot).unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}

//! `rollgate demo`: upstreams embedded in this process, so that the proxy can be tried with nothing else at hand.

use crate::config::Snapshot;
use crate::config::snapshot::Host;
use crate::routing::{Condition, KeySource, Operator, Rule, Source};
use anyhow::Context;
use axum::Router;
use axum::http::{Method, Uri, header};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

/// The demo's file, for who has only the binary.
const CONFIG: &str = include_str!("../config/demo.yaml");

/// The name under which it is written.
const CONFIG_NAME: &str = "rollgate-demo.yaml";

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

/// Serves every endpoint of `snapshot` from this process, each answering with the name of its version.
///
/// # Errors
/// An endpoint is no loopback address, its address is taken, or no thread can be started.
pub fn start_upstreams(snapshot: &Snapshot) -> anyhow::Result<()> {
    let mut upstreams = Vec::new();
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
                upstreams.push((format!("{} {}", service.name, version.name), listener));
            }
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve_all = async move {
        let mut tasks = tokio::task::JoinSet::new();
        for (name, listener) in upstreams {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => drop(tasks.spawn(async move { axum::serve(listener, upstream(name)).await })),
                Err(error) => tracing::error!(name, %error, "an upstream of the demo cannot be served"),
            }
        }
        tasks.join_all().await;
    };
    std::thread::Builder::new()
        .name("demo-upstreams".to_owned())
        .spawn(move || runtime.block_on(serve_all))?;
    Ok(())
}

/// Answers everything with its name.
fn upstream(name: String) -> Router {
    Router::new().fallback(move |method: Method, uri: Uri| async move {
        (
            [(header::CACHE_CONTROL, "no-store")],
            format!("{name} answers {method} {}\n", uri.path()),
        )
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
    text += &format!("Move the split:     edit `weight:` in {config} and count again\n");
    if let Some(admin) = snapshot.admin.address {
        text += &format!("Golden signals:     curl -s http://{admin}/metrics | grep ^rollgate_requests_total\n");
    }
    text + "Stop:               Ctrl-C\n\n"
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
            "http://127.0.0.1:8080/",
            "demo.yaml",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
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
    fn a_taken_address_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let snapshot = snapshot(&CONFIG.replace("127.0.0.1:8080", &address.to_string()));
        let error = try_listen(&snapshot).unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}

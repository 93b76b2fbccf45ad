//! `rollgate demo`: upstreams embedded in this process, so that the proxy can be tried with nothing else at hand.

use crate::config::Snapshot;
use crate::config::snapshot::Host;
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

/// What to try, for the person who started the demo.
pub fn instructions(snapshot: &Snapshot, config: &Path) -> String {
    let proxy = snapshot
        .listeners
        .first()
        .map_or_else(String::new, |listener| listener.address.to_string());
    let admin = snapshot
        .admin
        .address
        .map_or_else(String::new, |address| address.to_string());
    let config = config.display();
    format!(
        "\nRollgate is running with two embedded upstreams.\n\n\
         Who answers?        curl http://{proxy}/\n\
         Count a hundred:    for i in $(seq 100); do curl -s http://{proxy}/; done | sort | uniq -c\n\
         The canary, please: curl -H 'x-version: v2' http://{proxy}/\n\
         A user who stays:   curl -H 'x-user-id: ada' http://{proxy}/\n\
         Move the split:     edit `weight:` in {config} and count again\n\
         Golden signals:     curl -s http://{admin}/metrics | grep ^rollgate_requests_total\n\
         Stop:               Ctrl-C\n\n"
    )
}

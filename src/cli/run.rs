//! `rollgate run`.

use crate::server;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// What is logged unless `RUST_LOG` says otherwise: ours, and of the framework what is wrong.
const DEFAULT_FILTER: &str = "info,pingora_core=warn,pingora_runtime=warn";

/// Runs the proxy until it is told to stop.
pub fn run(config: &Path) -> ExitCode {
    start_log();
    match server::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

/// Says why, one line a reason.
pub fn report(error: &anyhow::Error) -> ExitCode {
    for line in format!("{error:#}").lines() {
        tracing::error!("{line}");
    }
    ExitCode::FAILURE
}

/// The log goes to stderr: stdout is the access log's, if it wants it.
pub fn start_log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "a panic: please report it")));
}

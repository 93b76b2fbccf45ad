//! `rollgate demo`.

use super::run::start_log;
use crate::control::load;
use crate::{demo, server};
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs the demo until Ctrl-C. `json`: its log is for programs.
pub fn run(config: Option<PathBuf>, json: bool) -> ExitCode {
    let _log = start_log(json);
    match start(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::run::report(&error),
    }
}

fn start(config: Option<PathBuf>) -> anyhow::Result<()> {
    let config = demo::config_file(config)?;
    let snapshot = load::load(&config)?;
    if let Some(refused) = load::refused(&config, &snapshot) {
        anyhow::bail!(refused);
    }
    demo::start_upstreams(&snapshot)?;
    demo::try_listen(&snapshot)?;
    super::print::print(&demo::instructions(&snapshot, &config));
    server::run(&config, false)
}

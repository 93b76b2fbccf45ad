//! The command line: one file a command family.

pub mod check;
mod demo;
pub mod explain;
mod run;

use clap::{Parser, Subcommand};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Releases software: splits requests between versions, measures them, moves the weights.
#[derive(Debug, Parser)]
#[command(name = "rollgate", version, about, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the proxy in the foreground until SIGTERM.
    #[command(
        after_help = "Examples:\n  rollgate run --config rollgate.yaml\n\nThe file is watched: an edit takes \
                            effect without a restart. SIGHUP reloads it too, SIGTERM drains and stops."
    )]
    Run {
        /// The configuration file.
        #[arg(long, short, value_name = "FILE", env = "ROLLGATE_CONFIG")]
        config: PathBuf,
        /// Sets aside a state that cannot be read, and begins with everything sent to stable until `rollgate unkill --all`.
        /// Does nothing to a state that can be read.
        #[arg(long)]
        recover_state: bool,
    },
    /// Runs the proxy in front of upstreams of its own, and says what to try.
    #[command(after_help = "Examples:\n  rollgate demo\n  rollgate demo --config config/demo.yaml")]
    Demo {
        /// The configuration file; without it `rollgate-demo.yaml` is written into the working directory and used.
        #[arg(long, short, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Says which version a request would get, and why, by the same function that decides live requests.
    #[command(
        after_help = "Examples:\n  rollgate explain --config rollgate.yaml http://shop.example.com/checkout \
                            -H 'x-user-id: ada'\n  rollgate explain --config rollgate.yaml checkout --client-ip 10.1.2.3"
    )]
    Explain(explain::Arguments),
    /// Checks a configuration file: exit code 0, or 1 with every problem.
    #[command(after_help = "Examples:\n  rollgate check rollgate.yaml\n  rollgate check --json rollgate.yaml")]
    Check {
        /// The configuration file.
        file: PathBuf,
        /// For programs: one JSON object.
        #[arg(long)]
        json: bool,
    },
}

impl Cli {
    /// Carries the command out. 0: done; 1: failed, with the reason on stderr (2 is clap's, for a wrong command line).
    pub fn run(self) -> ExitCode {
        match self.command {
            Command::Run { config, recover_state } => run::run(&config, recover_state),
            Command::Demo { config } => demo::run(config),
            Command::Explain(arguments) => explain::run(&arguments),
            Command::Check { file, json } => {
                let (code, text) = check::run(&file, json);
                print(&text);
                ExitCode::from(code)
            }
        }
    }
}

/// Says on stderr why a command failed.
fn fail(error: &anyhow::Error) -> ExitCode {
    let mut out = std::io::stderr().lock();
    let _ = writeln!(out, "rollgate: {error:#}");
    ExitCode::FAILURE
}

/// Prints to stdout. Nobody there to read it any more (a closed pipe) is no failure of the command.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

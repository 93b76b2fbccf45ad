//! The command line: one file a command family. What a command prints is made by functions without I/O; `client` asks a
//! running proxy.

mod change;
pub mod check;
mod client;
mod context;
mod demo;
mod events;
mod explain;
mod failure;
mod manual;
mod place;
mod plan;
mod planned;
mod print;
mod run;
pub mod simulate;
mod sse;
mod status;
mod table;
mod trouble;

use clap::{Parser, Subcommand};
use clap_complete::Shell;
use context::{Context, Reach};
use failure::Failure;
use place::Environment;
use std::path::PathBuf;
use std::process::ExitCode;

/// Releases software: splits requests between versions, measures them, moves the weights.
#[derive(Debug, Parser)]
#[command(name = "rollgate", version, about, propagate_version = true, after_help = AFTER_HELP)]
pub struct Cli {
    /// Options of the commands that ask a running proxy; they may stand before the command, too.
    #[command(flatten)]
    before: Reach,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Where a command finds the running proxy, first that applies:
  1. --admin unix:PATH or --admin http://HOST:PORT
  2. --config FILE: its admin.socket, else its admin.address
  3. ROLLGATE_ADMIN, as --admin
  4. ROLLGATE_CONFIG, as --config
  5. run/rollgate.sock below the working directory, then /run/rollgate/rollgate.sock

Exit codes:
  0  done
  1  failed
  2  wrong command line
  3  refused by the proxy, nothing changed (the reason is shown)
  4  the proxy cannot be reached

NO_COLOR=1 turns colours off; without a terminal there are none.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the proxy in the foreground until SIGTERM
    #[command(
        after_help = "Examples:\n  rollgate run --config rollgate.yaml\n\nThe file is watched: an edit takes \
                            effect without a restart. SIGHUP reloads it too, SIGTERM drains and stops."
    )]
    Run {
        /// The configuration file
        #[arg(long, short, value_name = "FILE", env = "ROLLGATE_CONFIG", hide_env_values = true)]
        config: PathBuf,
        /// Sets aside a state that cannot be read, and begins with everything sent to stable until `rollgate unkill --all`;
        /// does nothing to a state that can be read
        #[arg(long)]
        recover_state: bool,
        /// For programs: the log of the process as JSON lines
        #[arg(long)]
        json: bool,
    },
    /// Runs the proxy in front of upstreams of its own, and says what to try
    #[command(after_help = "Examples:\n  rollgate demo\n  rollgate demo --config config/demo.yaml")]
    Demo {
        /// The configuration file; without it `rollgate-demo.yaml` is written into the working directory and used
        #[arg(long, short, value_name = "FILE")]
        config: Option<PathBuf>,
        /// For programs: the log of the process as JSON lines
        #[arg(long)]
        json: bool,
    },
    /// Checks a configuration file: exit code 0, or 1 with every problem
    #[command(after_help = "Examples:\n  rollgate check rollgate.yaml\n  rollgate check --json rollgate.yaml")]
    Check {
        /// The configuration file
        file: PathBuf,
        /// For programs: one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Shows what is in force and what comes of it: shares, golden signals, health, and what is wrong
    #[command(
        after_help = "Examples:\n  rollgate status\n  rollgate status checkout --watch\n  rollgate status --json | jq \
                      '.services[] | {name, killed}'\n\nShares, rate, errors and latencies are of the last 60 s; `-` where \
                      there is no data. TARGET is what a version is to get of requests that no rule decides."
    )]
    Status(status::Arguments),
    /// Sets the weights of a service
    #[command(
        after_help = "Examples:\n  rollgate weights checkout v1=90 v2=10\n  rollgate weights checkout v1=1 v2=1 \
                      --reason 'half and half for the load test' --if-generation 12\n\nEvery version of the service is \
                      named. The weights hold until the next change of this service's weights, by a command or in the \
                      file, also across restarts."
    )]
    Weights(change::Weights),
    /// Sends everything to stable, at once, until `unkill`
    #[command(
        after_help = "Examples:\n  rollgate kill checkout --reason 'v2 answers with empty carts'\n  rollgate kill \
                      --all\n\nWhen the command returns, no request accepted afterwards goes to a canary. A kill needs no \
                      reason, no disk and no valid file. Without a way to reach the proxy: `kill: true` in the file."
    )]
    Kill(change::Kill),
    /// Releases a kill switch that `kill` set
    #[command(after_help = "Examples:\n  rollgate unkill checkout --reason 'fixed in v2.1'\n  rollgate unkill --all")]
    Unkill(change::Kill),
    /// Moves the rollout of a service
    #[command(
        after_help = "Examples:\n  rollgate rollout start checkout\n  rollgate rollout approve checkout --reason \
                      'error budget is fine'\n  rollgate rollout rollback checkout"
    )]
    Rollout(change::Rollout),
    /// Shows what happened: who changed what, when and why
    #[command(
        after_help = "Examples:\n  rollgate events\n  rollgate events --follow --service checkout\n  rollgate events \
                      --after 0 --json > audit.jsonl\n\nWith --json one event a line. --follow begins again by itself where \
                      a stream was lost, and says so on stderr."
    )]
    Events(events::Arguments),
    /// Says which version a request would get, and why, by the same function that decides live requests
    #[command(
        after_help = "Examples:\n  rollgate explain http://shop.example.com/checkout -H 'x-user-id: ada'\n  rollgate \
                      explain checkout --client-ip 10.1.2.3\n  rollgate explain checkout --config rollgate.yaml\n\nThe \
                      running proxy is asked: weights, kill switches and health as they are. With --config FILE the file \
                      alone, and no proxy is needed."
    )]
    Explain(explain::Arguments),
    /// Says what each step of a rollout can find, and how long that takes, before anything starts
    #[command(
        after_help = "Examples:\n  rollgate plan rollgate.yaml --rps 200\n  rollgate plan rollgate.yaml --service checkout \
                      --rps 20 --errors 0.1% --p99 150ms\n  rollgate plan checkout --rps 200\n\nFINDS FROM is the least that a \
                      check finds within the hold, with a chance of 80 %: so many times as many errors as stable has, or so \
                      many times as long for the same requests. TWICE TAKES is the hold that a doubling would need. Of a \
                      running service the configuration in force is taken."
    )]
    Plan(plan::Arguments),
    /// Carries a rollout's plan out in virtual time, against made-up or recorded traffic, and prints what happens
    #[command(after_help = simulate::AFTER_HELP)]
    Simulate(simulate::Arguments),
    /// Has the proxy read its file now
    #[command(
        after_help = "Examples:\n  rollgate reload\n\nAn edit of the file is seen by itself; this one also waits for the \
                      outcome: exit code 3 and every problem if the file is not taken. What was in force then stays."
    )]
    Reload(change::Process),
    /// Has the proxy replaced by a new process of the program's file, without losing a connection
    #[command(
        after_help = "Examples:\n  rollgate upgrade --reason 'rollgate 0.2'\n\nReturns when the new process serves, or \
                      says why it does not: the old one then goes on."
    )]
    Upgrade(change::Process),
    /// Prints a script that completes commands and options in a shell
    #[command(
        after_help = "Examples:\n  rollgate completions bash > /etc/bash_completion.d/rollgate\n  rollgate completions zsh \
                      > ~/.zfunc/_rollgate\n  rollgate completions fish > ~/.config/fish/completions/rollgate.fish"
    )]
    Completions {
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Prints the manual page, or writes one for each command
    #[command(after_help = "Examples:\n  rollgate man | man -l -\n  rollgate man --out /usr/local/share/man/man1")]
    Man {
        /// Writes rollgate.1, rollgate-status.1 and so on into this directory, and prints their paths
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

impl Cli {
    /// Carries the command out; exit codes as in the help. Clap has already ended the process with 2 for a wrong command
    /// line.
    pub fn run(self) -> ExitCode {
        let context = Context {
            before: self.before,
            environment: Environment::of_process(),
        };
        let before_json = context.before.json;
        if let Some(failure) = self.command.misplaced(&context.before) {
            return print::finish(Err(failure), before_json);
        }
        match self.command {
            Command::Run {
                config,
                recover_state,
                json,
            } => run::run(&config, recover_state, json || before_json),
            Command::Demo { config, json } => demo::run(config, json || before_json, &context),
            Command::Check { file, json } => {
                let (code, text) = check::run(&file, json || before_json);
                print::print(&text);
                ExitCode::from(code)
            }
            Command::Status(arguments) => arguments.run(&context),
            Command::Weights(arguments) => arguments.run(&context),
            Command::Kill(arguments) => arguments.kill(&context),
            Command::Unkill(arguments) => arguments.unkill(&context),
            Command::Rollout(arguments) => arguments.run(&context),
            Command::Events(arguments) => arguments.run(&context),
            Command::Explain(arguments) => arguments.run(&context),
            Command::Plan(arguments) => arguments.run(&context),
            Command::Simulate(arguments) => arguments.run(&context),
            Command::Reload(arguments) => arguments.reload(&context),
            Command::Upgrade(arguments) => arguments.upgrade(&context),
            Command::Completions { shell } => manual::completions(shell),
            Command::Man { out } => manual::man(out.as_deref()),
        }
    }
}

impl Command {
    /// What is wrong with options before a command that asks no proxy: they would do nothing.
    fn misplaced(&self, before: &Reach) -> Option<Failure> {
        let has_json = !matches!(self, Self::Completions { .. } | Self::Man { .. });
        let asks_nobody = !has_json || matches!(self, Self::Run { .. } | Self::Demo { .. } | Self::Check { .. });
        let option = match before {
            Reach { admin: Some(_), .. } if asks_nobody => "--admin",
            Reach {
                token_file: Some(_), ..
            } if asks_nobody => "--token-file",
            Reach { json: true, .. } if !has_json => "--json",
            _ => return None,
        };
        Some(Failure::usage(format!("{option} would do nothing for this command")))
    }
}

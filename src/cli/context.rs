//! What the commands that ask a running proxy have in common: their options, and how they end.

use super::client::{Answer, Client, Request};
use super::failure::Failure;
use super::place::{self, DEFAULT_SOCKETS, Environment, Place};
use super::print;
use super::table::safe;
use super::{change, print::WARNING};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Options of every command that asks a running proxy.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Reach {
    /// Where the proxy's admin API is: `unix:PATH` or `http://HOST:PORT` [env: ROLLGATE_ADMIN]
    #[arg(long, value_name = "ADDRESS", help_heading = "The proxy")]
    pub admin: Option<Place>,
    /// Holds the bearer token for changes over TCP [env: ROLLGATE_TOKEN_FILE, or the token itself in ROLLGATE_TOKEN]
    #[arg(long, value_name = "FILE", help_heading = "The proxy")]
    pub token_file: Option<PathBuf>,
    /// For programs: the API's answer as it is, also when it is an error
    #[arg(long)]
    pub json: bool,
}

impl Reach {
    /// These options, and where they leave something open those that were given before the command.
    fn or(&self, before: &Self) -> Self {
        Self {
            admin: self.admin.clone().or_else(|| before.admin.clone()),
            token_file: self.token_file.clone().or_else(|| before.token_file.clone()),
            json: self.json || before.json,
        }
    }
}

/// [`Reach`], and the file that may say where the proxy is.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Proxy {
    #[command(flatten)]
    pub reach: Reach,
    /// The configuration file it runs with: its `admin.socket`, else its `admin.address`, is asked [env: ROLLGATE_CONFIG]
    #[arg(long, short, value_name = "FILE", help_heading = "The proxy")]
    pub config: Option<PathBuf>,
}

/// Options of every change.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Changing {
    /// Why: kept in the audit log
    #[arg(long, short, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Only if this generation is still in force (as `status` shows it); otherwise it is refused
    #[arg(long, value_name = "N")]
    pub if_generation: Option<u64>,
}

/// What a command is given beside its own arguments.
pub struct Context {
    /// Options before the command.
    pub before: Reach,
    pub environment: Environment,
}

impl Context {
    /// Whether programs read the answer.
    pub fn json(&self, reach: &Reach) -> bool {
        reach.json || self.before.json
    }

    /// Finds the proxy. What is surprising about where it was found is said on stderr.
    ///
    /// # Errors
    /// Nothing says where it is, or what does makes no sense.
    pub fn client(&self, reach: &Reach, config: Option<&Path>) -> Result<Client, Failure> {
        let reach = reach.or(&self.before);
        let defaults = DEFAULT_SOCKETS.map(Path::new);
        let found = place::find(reach.admin.as_ref(), config, &self.environment, &defaults)?;
        if let Some(note) = &found.note {
            print::note(&format!("{WARNING}warning:{WARNING:#} {}\n", safe(note)));
        }
        let token = place::token(reach.token_file.as_deref(), &self.environment, &found)?;
        Ok(Client { found, token })
    }

    /// Asks for one answer and ends the command with it: as it is, or `rendered`.
    pub fn ask(
        &self,
        proxy: &Proxy,
        request: &Request,
        rendered: impl FnOnce(&Answer) -> Result<String, Failure>,
    ) -> ExitCode {
        let json = self.json(&proxy.reach);
        let answer = || {
            let answer = self.client(&proxy.reach, proxy.config.as_deref())?.call(request)?;
            answer.shown(json, rendered)
        };
        print::finish(answer(), json)
    }

    /// Sends a change and ends the command with what came of it.
    pub fn change(&self, proxy: &Proxy, request: &Request) -> ExitCode {
        self.ask(proxy, request, change::rendered)
    }
}

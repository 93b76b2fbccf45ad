//! What moves at run time, and the one function that moves it: [`apply()`].
//!
//! The file, an admin command and a rollout all become a [`Command`]; `apply` says what comes of it as a value, or why it
//! is refused. Who applied it, when and why comes in as an [`Origin`]. The same commands in the same order give the same
//! [`State`], whatever happened in between.
//!
//! # Precedence (DESIGN section 5)
//!
//! - The last change of a service's split wins: a file whose weights of the service differ from the file before, or a
//!   command. A file that leaves them alone leaves the weights of a command alone; that holds across a restart too,
//!   because the state remembers what the file said.
//! - A kill switch is a latch. That of a command and that of the file (`kill: true`) are two, and each is released where it
//!   was set: `unkill`, or the file without the key. Any of them sends everything to stable.
//! - A running rollout owns its service's split: weights of the file are recorded, and applied when it ends; weights of a
//!   command pause it first.
//! - Setting a kill switch bumps the epoch of the services it is for: who was kept in the canary by a cookie is not any
//!   more, also after `unkill`.

mod apply;
mod revocation;
mod rollouts;
mod stable_watch;
mod state;

pub use apply::{Change, apply, moves_toward_canary, traffic};
pub use revocation::Revocation;
pub use rollouts::{Ask, Seen, Steer};
pub use state::{FileSplit, FileVersion, Latch, ROLLOUT, RolloutState, ServiceState, State, WeightsSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// Weights by the names of versions.
pub type Weights = BTreeMap<String, u32>;

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// The file given beside the command is in force from now on.
    Load,
    /// The same, at the beginning of a process: the state is that of one that ended.
    Restore,
    /// The weights of a service: one for each of its versions, 0 to 1,000,000, not all of them 0.
    Weights { service: String, weights: Weights },
    /// Everything to stable.
    Kill(Scope),
    /// The end of a kill switch that a command set.
    Unkill(Scope),
    /// Something happens to the rollout of a service.
    Rollout { service: String, steer: Steer },
}

/// Whose kill switch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    All,
    Service(String),
}

impl fmt::Display for Scope {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => out.write_str("all services"),
            Self::Service(name) => write!(out, "service {name}"),
        }
    }
}

/// Who asks, from where, when and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// A person or a part: `ada (uid 1000)`, `token`, `file`.
    pub who: String,
    /// `unix`, the client's address, or the path of the file.
    pub from: String,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Origin {
    /// A rollout, which acts by itself.
    pub fn rollout(at_ms: u64) -> Self {
        Self {
            who: ROLLOUT.to_owned(),
            from: ROLLOUT.to_owned(),
            at_ms,
            reason: None,
        }
    }
}

/// What an audit event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The process began to serve.
    Started,
    /// Another process takes over.
    Upgraded,
    /// A file came into force.
    Reload,
    /// A file was not taken.
    ReloadFailed,
    Weights,
    Kill,
    Unkill,
    /// Of a rollout, as are those that follow: anything that none of them is.
    Rollout,
    /// It began.
    Start,
    /// The next step, or one back.
    Step,
    /// It waits for one.
    Approval,
    Pause,
    Resume,
    /// The candidate gets everything.
    Promote,
    /// It is delivered.
    Success,
    Rollback,
}

impl EventKind {
    pub const ALL: [Self; 16] = [
        Self::Started,
        Self::Upgraded,
        Self::Reload,
        Self::ReloadFailed,
        Self::Weights,
        Self::Kill,
        Self::Unkill,
        Self::Rollout,
        Self::Start,
        Self::Step,
        Self::Approval,
        Self::Pause,
        Self::Resume,
        Self::Promote,
        Self::Success,
        Self::Rollback,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Upgraded => "upgraded",
            Self::Reload => "reload",
            Self::ReloadFailed => "reload_failed",
            Self::Weights => "weights",
            Self::Kill => "kill",
            Self::Unkill => "unkill",
            Self::Rollout => "rollout",
            Self::Start => "start",
            Self::Step => "step",
            Self::Approval => "approval",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Promote => "promote",
            Self::Success => "success",
            Self::Rollback => "rollback",
        }
    }
}

/// One thing that happened, before it has a number.
#[derive(Debug, Clone, PartialEq)]
pub struct Happened {
    pub kind: EventKind,
    /// `None`: all services, or none in particular.
    pub service: Option<String>,
    /// What was in force, and what is; `null` where there is nothing to compare.
    pub before: Value,
    pub after: Value,
    /// The same in a sentence.
    pub text: String,
}

/// Why a command changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no service is called `{name}`")]
    UnknownService { name: String, similar: Option<String> },
    #[error("service {service} has no version `{name}`")]
    UnknownVersion {
        service: String,
        name: String,
        known: Vec<String>,
    },
    #[error("no weight is given for {missing} of service {service}")]
    MissingVersion { service: String, missing: String },
    #[error("the weight {weight} of {version} is above 1000000")]
    WeightTooLarge { version: String, weight: u32 },
    #[error("all weights are 0")]
    NoWeight,
    #[error("the file holds the kill switch of {scope}")]
    KilledByFile { scope: Scope },
    #[error("service {service} is killed by the switch for all services, not by one of its own")]
    KilledWithAll { service: String },
    #[error("service {service} has no rollout in the file")]
    NoRollout { service: String },
    /// Its machine says so, and what can be done instead.
    #[error("{why}")]
    Rollout { why: String },
}

impl Refusal {
    /// What to do about it.
    pub fn help(&self) -> String {
        match self {
            Self::UnknownService {
                similar: Some(similar), ..
            } => format!("did you mean `{similar}`? `rollgate status` lists the services"),
            Self::UnknownService { similar: None, .. } => "`rollgate status` lists the services".to_owned(),
            Self::UnknownVersion { known, .. } => format!("its versions are {}", known.join(", ")),
            Self::MissingVersion { .. } => {
                "name every version of the service: one that is left out could be meant to stay or to get nothing"
                    .to_owned()
            }
            Self::WeightTooLarge { .. } => "weights are relative: use 0 to 1000000".to_owned(),
            Self::NoWeight => {
                "give at least one version a weight above 0; to send everything to stable, use `kill`".to_owned()
            }
            Self::KilledByFile { scope } => {
                format!(
                    "remove `kill` of {scope} from the file; a kill switch that a command set is then released by `unkill`"
                )
            }
            Self::NoRollout { .. } => {
                "add `rollout` to the service in the file, or move its weights by hand: `rollgate weights`".to_owned()
            }
            Self::Rollout { .. } => "`rollgate status` shows how it stands".to_owned(),
            Self::KilledWithAll { .. } => "`rollgate unkill --all` releases the switch for all services".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;

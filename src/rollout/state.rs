//! How far a rollout is: [`State`], a few scalars that survive the process.

use super::share::Share;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Weights by the names of versions.
pub type Weights = BTreeMap<String, u32>;

/// The state of a service's rollout. A field that a store of an older build lacks has its default; one that a newer build
/// wrote is not looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// The version this is about; `None`: none was ever seen.
    pub candidate: Option<Box<str>>,
    pub phase: Phase,
    /// How often a rollout began on this service.
    pub attempt: u64,
    /// The step in force, from 1; 0: before the first.
    pub step: u32,
    /// What the rollout gave the candidate, or an admin command while it is paused. Of no meaning while the rollout does
    /// not own the split.
    pub share: Share,
    /// The segments admitted to the candidate.
    pub segments: Vec<Box<str>>,
    /// How many of stable's requests are copied for it.
    pub mirror: Share,
    /// How long the step has been in force, without pauses, and without gaps in which nobody looked: see
    /// [`super::LONGEST_GAP`].
    pub elapsed_ms: u64,
    /// Numbers what judgements and answers of gates are about: those of another window are not looked at. It grows with
    /// each step entered, each restart of evidence and each edit of the plan.
    pub window: u64,
    /// Whether the step was approved.
    pub approved: bool,
    /// Whether a person promoted the candidate, and gates have yet to say yes.
    pub promoting: bool,
    /// The gates that said yes, as bits by position.
    pub gates_open: u32,
    /// When gates were last asked, in [`State::elapsed_ms`].
    pub asked_ms: Option<u64>,
    /// What a gate last said instead of yes.
    pub gate_said: Option<Box<str>>,
    /// How often this rollout went back a step.
    pub step_backs: u32,
    /// Whether a kill switch holds the service.
    pub killed: bool,
    /// What the shell last said forbids traffic for the candidate.
    pub obstacle: Option<Box<str>>,
    /// What the end of the step waits for.
    pub wait: Wait,
    /// Weights of the file that were edited while the rollout owned the split; applied when it ends.
    pub recorded: Option<Weights>,
    /// Of this process alone.
    #[serde(skip)]
    pub live: Live,
}

/// What means nothing after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Live {
    /// The uptime at the last event.
    pub(super) seen_ms: Option<u64>,
    /// The uptime when this member of a train was last ready to go on.
    pub(super) ready_ms: Option<u64>,
}

/// Where a rollout is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Phase {
    /// There is a candidate or not; nothing was started.
    #[default]
    Idle,
    /// In a step, or before the first.
    Progressing,
    Paused(Reason),
    /// All but its approval is in order.
    WaitingApproval,
    /// The candidate has everything, and is still judged.
    Baking,
    /// Delivered.
    Succeeded,
    RolledBack(Reason),
}

impl Phase {
    /// Of each phase, what [`Phase::word`] says.
    pub const WORDS: [&str; 7] = [
        "idle",
        "progressing",
        "paused",
        "waiting_approval",
        "baking",
        "succeeded",
        "rolled_back",
    ];

    /// As in metrics and JSON.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Progressing => "progressing",
            Self::Paused(_) => "paused",
            Self::WaitingApproval => "waiting_approval",
            Self::Baking => "baking",
            Self::Succeeded => "succeeded",
            Self::RolledBack(_) => "rolled_back",
        }
    }

    /// Why, for a phase that has a reason.
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Paused(reason) | Self::RolledBack(reason) => Some(reason),
            _ => None,
        }
    }
}

/// Why it was paused or rolled back.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reason {
    pub cause: Cause,
    /// For people.
    pub text: Box<str>,
}

/// The kinds of reasons: a fixed list, so that they can be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A person said so.
    Command,
    /// A check failed.
    Check,
    /// The guard's number of failures was reached.
    Guard,
    /// The wait for evidence was over.
    NoEvidence,
    Killed,
    /// An admin command set the service's weights.
    Weights,
    /// Another service of the train was rolled back.
    Train,
    /// The file names another candidate.
    Superseded,
    /// Written by another build.
    #[serde(other)]
    Other,
}

impl Cause {
    pub const ALL: [Self; 9] = [
        Self::Command,
        Self::Check,
        Self::Guard,
        Self::NoEvidence,
        Self::Killed,
        Self::Weights,
        Self::Train,
        Self::Superseded,
        Self::Other,
    ];

    /// As a label of metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Check => "check",
            Self::Guard => "guard",
            Self::NoEvidence => "no_evidence",
            Self::Killed => "killed",
            Self::Weights => "weights",
            Self::Train => "train",
            Self::Superseded => "superseded",
            Self::Other => "other",
        }
    }
}

/// What the end of a step waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    Hold,
    Evidence,
    Approval,
    /// The end of a kill switch.
    Unkill,
    /// Something the shell said.
    Obstacle,
    /// The end of a freeze window.
    Freeze,
    Gate,
    /// The other services of its train.
    Train,
    /// The next look. Also what another build knows and this does not.
    #[default]
    #[serde(other)]
    Look,
}

impl Wait {
    pub const ALL: [Self; 9] = [
        Self::Hold,
        Self::Evidence,
        Self::Approval,
        Self::Unkill,
        Self::Obstacle,
        Self::Freeze,
        Self::Gate,
        Self::Train,
        Self::Look,
    ];

    /// As in metrics and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Evidence => "evidence",
            Self::Approval => "approval",
            Self::Unkill => "unkill",
            Self::Obstacle => "obstacle",
            Self::Freeze => "freeze",
            Self::Gate => "gate",
            Self::Train => "train",
            Self::Look => "look",
        }
    }
}

impl State {
    /// Whether the rollout decides the service's split: then a file's weights are recorded, not applied.
    pub fn owns_split(&self) -> bool {
        self.is_advancing() || matches!(self.phase, Phase::Paused(_))
    }

    /// Whether copies are judged, and not what users got.
    pub fn is_mirroring(&self) -> bool {
        self.owns_split() && self.mirror > Share::ZERO
    }

    /// Whether anybody gets the candidate.
    pub(super) fn has_users(&self) -> bool {
        self.share > Share::ZERO || !self.segments.is_empty()
    }

    /// Whether it goes on by itself, or by an approval.
    pub fn is_advancing(&self) -> bool {
        matches!(self.phase, Phase::Progressing | Phase::WaitingApproval | Phase::Baking)
    }
}

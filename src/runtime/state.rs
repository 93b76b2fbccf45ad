//! What must survive the process.

use super::stable_watch::StableWatch;
use super::{Origin, Weights};
use crate::analysis::{Finding, Judge};
use crate::rollout;
use crate::routing::Role;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything that moves at run time, by names: positions are the file's business. Cheap to copy: a change touches the
/// services it is about.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// The kill switch for all services, set by a command.
    pub kill: Option<Latch>,
    /// That of the file in force.
    pub file_kill: bool,
    /// The epoch of services that were never seen: that of the ones forgotten, so that no old cookie becomes valid.
    pub floor_epoch: u32,
    pub services: BTreeMap<Arc<str>, Arc<ServiceState>>,
}

/// What moves of one service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceState {
    /// What the file in force says of the split: another text of it wins over [`ServiceState::set`].
    pub file: FileSplit,
    /// `kill: true` in the file.
    #[serde(default)]
    pub file_kill: bool,
    /// Cookies of another epoch are void.
    #[serde(default)]
    pub epoch: u32,
    /// Weights that a command set; `None`: those of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<WeightsSet>,
    /// The kill switch, set by a command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill: Option<Latch>,
    /// `None`: the service never had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutState>,
}

/// Who sets weights for a rollout.
pub const ROLLOUT: &str = "rollout";

/// How far the rollout of a service is, with its evidence.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RolloutState {
    pub machine: rollout::State,
    /// The weights in force when the rollout took the split: see [`rollout::at_share`].
    pub before: Weights,
    /// All that was seen; `None` before the first rollout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judge: Option<Box<Judge>>,
    /// Failed requests of the candidate since this rollout began, whoever sent them.
    pub failures: u64,
    /// Whether stable itself fails much: then nothing goes on.
    pub stable: StableWatch,
    /// What the judge said at the last look, in the order of the checks.
    #[serde(skip)]
    pub findings: Vec<Finding>,
}

/// The part of the file that says how a service is split.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSplit {
    /// In file order.
    pub versions: Vec<FileVersion>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileVersion {
    pub name: String,
    pub role: Role,
    pub weight: u32,
}

/// Weights over those of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightsSet {
    pub weights: Weights,
    pub by: Origin,
}

/// A kill switch that is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latch {
    pub by: Origin,
}

impl FileSplit {
    pub fn weights(&self) -> Weights {
        let weight = |version: &FileVersion| (version.name.clone(), version.weight);
        self.versions.iter().map(weight).collect()
    }
}

impl ServiceState {
    /// The weights that are asked for, whatever a kill switch does.
    pub fn weights(&self) -> Weights {
        self.set
            .as_ref()
            .map_or_else(|| self.file.weights(), |set| set.weights.clone())
    }

    /// Whether its rollout decides the split.
    pub fn is_rolled_out(&self) -> bool {
        self.rollout
            .as_ref()
            .is_some_and(|rollout| rollout.machine.owns_split())
    }

    /// Whether a switch of this service is on.
    pub fn is_killed(&self) -> bool {
        self.file_kill || self.kill.is_some()
    }
}

impl State {
    pub fn service(&self, name: &str) -> Option<&ServiceState> {
        self.services.get(name).map(Arc::as_ref)
    }

    /// How far the rollout of a service is; `None`: it never had one.
    pub fn rollout(&self, name: &str) -> Option<&RolloutState> {
        self.service(name)?.rollout.as_ref()
    }

    /// Whether the switch for all services is on.
    pub fn all_killed(&self) -> bool {
        self.file_kill || self.kill.is_some()
    }

    /// Changes one service; one that was never seen begins empty.
    pub(super) fn edit(&mut self, name: &str, edit: impl FnOnce(&mut ServiceState)) {
        let floor_epoch = self.floor_epoch;
        let service = self.services.entry(name.into()).or_insert_with(|| {
            Arc::new(ServiceState {
                epoch: floor_epoch,
                ..ServiceState::default()
            })
        });
        edit(Arc::make_mut(service));
    }
}

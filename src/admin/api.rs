//! What the API says, as values: the server writes them, the command line reads them.

use crate::runtime::Weights;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `GET /v1/status`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Of the program.
    pub version: String,
    pub pid: u32,
    pub uptime_s: u64,
    /// Rises by one with each change that comes into force; also the `ETag` of this answer.
    pub generation: u64,
    pub ready: bool,
    /// Stopping, or being replaced.
    pub draining: bool,
    /// The kill switch for all services.
    pub kill: Option<Kill>,
    pub config: ConfigStatus,
    pub state: StateStatus,
    pub services: Vec<ServiceStatus>,
}

/// How the file is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfigStatus {
    pub file: String,
    /// SHA-256 of the text in force, in hexadecimal.
    pub hash: String,
    pub last_reload_successful: bool,
    /// What is wrong with the text on the disk, as `check` prints it.
    pub error: Option<String>,
    /// RFC 3339.
    pub last_success: String,
    /// Keys whose value holds only after a restart.
    pub restart_required: Vec<String>,
}

/// How the state directory is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StateStatus {
    pub directory: String,
    /// Whether all that is in force would survive a crash.
    pub durable: bool,
    /// Why not.
    pub error: Option<String>,
}

/// A kill switch that is on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kill {
    /// `admin`: released by `unkill`. `file`: by the file without the key. `both`.
    pub source: String,
    pub who: Option<String>,
    /// RFC 3339.
    pub since: Option<String>,
    pub reason: Option<String>,
}

/// `GET /v1/services`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Services {
    pub generation: u64,
    pub services: Vec<ServiceStatus>,
}

/// `GET /v1/services/{service}`, and each of `GET /v1/services`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub name: String,
    /// Whether everything goes to stable, by its own switch or the one for all.
    pub killed: bool,
    /// Its own switch.
    pub kill: Option<Kill>,
    /// Where the weights come from: `file`, `admin`, `rollout`.
    pub weights_source: String,
    /// Rises with each kill and rollback: cookies of another epoch are void.
    pub epoch: u32,
    pub versions: Vec<VersionStatus>,
    /// `null`: none is configured.
    pub rollout: Option<Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionStatus {
    pub name: String,
    /// `stable` or `canary`
    pub role: String,
    pub weight: u32,
    /// What it is to get of requests that no rule decides, in percent, 0 to 100; under a kill switch stable has 100.
    pub share_target: f64,
    /// What it got over the last 60 s, in percent; `null` without requests.
    pub share_observed: Option<f64>,
    /// Requests a second over the last 60 s.
    pub rate: f64,
    /// Failed requests of the last 60 s, in percent, 0 to 100; `null` without requests.
    pub error_rate: Option<f64>,
    /// Milliseconds, over the last 60 s or somewhat longer; `null` without requests.
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub in_flight: i64,
    /// Since the version appeared.
    pub requests_total: u64,
    pub failures_total: u64,
    pub endpoints: Vec<EndpointStatus>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// As in the file.
    pub endpoint: String,
    /// Whether it may get requests.
    pub healthy: bool,
    pub in_flight: u64,
}

/// Body of `PUT /v1/services/{service}/weights`. Every version is named.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsRequest {
    pub weights: Weights,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Body of `PUT` and `DELETE` of a kill switch, of a reload and of the rollout verbs; may be absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReasonRequest {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The answer to a change: no request accepted afterwards is routed the old way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    /// The generation in force; also the `ETag`.
    pub generation: u64,
    /// Whether anything is other than before.
    pub changed: bool,
    /// What was done, in a sentence.
    pub message: String,
    /// Whether it would survive a crash of this moment.
    pub durable: bool,
    /// Why not: it holds, and is written as soon as that works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_durable: Option<String>,
    /// Of a reload: keys whose value holds only after a restart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restart_required: Vec<String>,
}

/// `GET /v1/events`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Events {
    /// Oldest first.
    pub events: Vec<crate::control::event_log::Event>,
    /// The number of the last event there is: `after` of the next question, once this one brings nothing more.
    pub last: u64,
}

/// An error (RFC 9457).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// `about:blank`, or `urn:rollgate:problem:` and a word that stays the same.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    /// What is wrong.
    pub detail: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Of a configuration: each problem with its place, as `check --json` has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Value>,
}

//! What the API says, as values: the server writes them, the command line reads them.

use crate::config;
use crate::config::snapshot::Unsupported;
use crate::control::load::LoadError;
use crate::routing::ClientCert;
use crate::runtime::Weights;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use utoipa::ToSchema;

/// `GET /v1/status`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
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
    /// Certificates that need an operator; empty when all is well.
    // A process of before this field, which is about to be replaced, does not tell of any.
    #[serde(default)]
    #[schema(required)]
    pub certificate_problems: Vec<CertificateProblem>,
    pub services: Vec<ServiceStatus>,
}

/// How the file is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StateStatus {
    pub directory: String,
    /// Whether all that is in force would survive a crash.
    pub durable: bool,
    /// Why not.
    pub error: Option<String>,
}

/// A certificate, or a file of authorities, that is not what is on the disk, or not valid now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CertificateProblem {
    pub file: String,
    /// What it is for as a server; empty for one that is shown to endpoints, and for authorities.
    pub names: Vec<String>,
    /// When the first of its chain expires, RFC 3339; `null` for authorities.
    pub expires: Option<String>,
    /// What is wrong, in a sentence.
    pub problem: String,
}

/// A kill switch that is on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Kill {
    /// `admin`: released by `unkill`. `file`: by the file without the key. `both`.
    pub source: String,
    pub who: Option<String>,
    /// RFC 3339.
    pub since: Option<String>,
    pub reason: Option<String>,
}

/// `GET /v1/services`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Services {
    pub generation: u64,
    pub services: Vec<ServiceStatus>,
}

/// `GET /v1/services/{service}`, and each of `GET /v1/services`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
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
    pub rollout: Option<RolloutStatus>,
}

/// How far the rollout of a service is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RolloutStatus {
    /// The version to deliver.
    pub candidate: String,
    /// `idle`, `progressing`, `paused`, `waiting_approval`, `baking`, `succeeded`, `rolled_back`
    pub phase: String,
    /// Why it is paused or was rolled back.
    pub reason: Option<String>,
    /// The kind of that reason: `command`, `check`, `guard`, `no_evidence`, `killed`, `weights`, `train`, `superseded`.
    pub cause: Option<String>,
    /// All of this in a sentence.
    pub summary: String,
    /// The step in force, from 1; 0 before the first.
    pub step: u32,
    /// How many steps the plan has.
    pub steps: u32,
    /// What the candidate is given now, in percent, 0 to 100.
    pub share: f64,
    /// The segments that are admitted to it now.
    pub segments: Vec<String>,
    /// How many of the requests to stable are copied for it now, in percent, 0 to 100.
    pub mirror: f64,
    /// How long the step has been in force, in seconds, without pauses.
    pub elapsed_s: f64,
    /// How long it lasts at least.
    pub hold_s: f64,
    /// What its end waits for: `look`, `hold`, `evidence`, `approval`, `unkill`, `obstacle`, `freeze`, `gate`, `train`.
    pub waits_for: String,
    /// What forbids traffic for the candidate at the moment.
    pub obstacle: Option<String>,
    /// Which rollout of the service it is, from 1; 0: none ever began.
    pub attempt: u64,
    /// Failed requests of the candidate in this rollout.
    pub failures: u64,
    /// After how many of them it is rolled back, whatever the checks say.
    pub max_failures: Option<u64>,
    /// Weights that the file got meanwhile: they are applied when the rollout ends.
    pub recorded_weights: Option<BTreeMap<String, u32>>,
    pub checks: Vec<CheckStatus>,
    /// The steps of the plan, in order.
    pub plan: Vec<StepStatus>,
}

/// A step of the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepStatus {
    /// In percent, 0 to 100.
    pub share: f64,
    /// Segments that are admitted whatever the share.
    pub segments: Vec<String>,
    /// How many of the requests to stable are copied for the candidate, in percent, 0 to 100; above 0, nobody gets it.
    pub mirror: f64,
    /// How long it lasts at least, in seconds.
    pub hold_s: f64,
    /// Whether a person must approve before the next step.
    pub approval: bool,
}

/// What a check says at this moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckStatus {
    /// As in the file.
    pub metric: String,
    /// `pass`, `fail`, `no_evidence`, `error`
    pub verdict: String,
    /// One plain sentence, with the numbers.
    pub reason: String,
    /// What a failure does: `rollback`, `pause`, `step_back`; `nothing` for a number that is only reported.
    pub on_fail: String,
    /// How many to one what was seen speaks against the candidate; `null`: it does not go by evidence, or too little was
    /// seen.
    pub evidence: Option<f64>,
    /// How many to one it takes to fail.
    pub needed: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
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

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EndpointStatus {
    /// As in the file.
    pub endpoint: String,
    /// Whether it may get requests.
    pub healthy: bool,
    pub in_flight: u64,
}

/// Body of `PUT /v1/services/{service}/weights`. Every version is named.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "weights": { "v1": 90, "v2": 10 }, "reason": "looks good" }))]
pub struct WeightsRequest {
    /// By version: 0 to 1,000,000, not all of them 0.
    #[serde(deserialize_with = "weights")]
    #[schema(schema_with = weights_schema)]
    pub weights: Weights,
    /// One line.
    #[schema(max_length = 1000, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Body of `PUT` and `DELETE` of a kill switch, of a reload and of the rollout verbs; may be absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReasonRequest {
    /// One line.
    #[schema(max_length = 1000, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The answer to a change: no request accepted afterwards is routed the old way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Events {
    /// Oldest first.
    pub events: Vec<crate::control::event_log::Event>,
    /// The number of the last event there is: `after` of the next question, once this one brings nothing more.
    pub last: u64,
}

/// An error (RFC 9457).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
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
    #[schema(value_type = Vec<FileProblem>)]
    pub problems: Vec<Value>,
}

/// `GET /v1/config`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Config {
    pub file: String,
    pub generation: u64,
    /// SHA-256 of the text, in hexadecimal.
    pub hash: String,
    /// The text in force.
    pub text: String,
}

/// Body of `POST /v1/config/validate`, unless it is the text itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "text": "listeners: [{ address: \"127.0.0.1:8080\" }]\nservices:\n  - name: shop\n    versions: \
    [{ name: v1, pool: { endpoints: [\"127.0.0.1:9001\"] } }]\n" }))]
pub struct ValidateRequest {
    /// A configuration, at most 1 MiB.
    pub text: String,
}

/// What `check --json` prints, and `POST /v1/config/validate` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Checked {
    pub ok: bool,
    pub problems: Vec<FileProblem>,
    /// What is right, and still worth a look: keys that this version does not act on, certificates that are not valid now,
    /// and, for `check`, files that are not there.
    pub warnings: Vec<FileWarning>,
}

/// One problem of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileProblem {
    /// `services[0].versions[1].weight`; empty: the file as a whole.
    pub path: String,
    /// From 1; `null`: the file could not be read.
    pub line: Option<usize>,
    pub column: Option<usize>,
    pub message: String,
    /// What was probably meant.
    pub suggestion: Option<String>,
}

/// What is right, and still worth a look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileWarning {
    pub path: String,
    pub line: usize,
    pub column: usize,
    pub message: String,
    /// Whether `run` and a reload refuse the file for it.
    pub refuses_to_run: bool,
}

impl Checked {
    /// What is to be said of what was loaded. A file that cannot be read is one problem without a path.
    pub fn of(loaded: &Result<config::Snapshot, LoadError>) -> Self {
        let (problems, warnings) = match loaded {
            Ok(snapshot) => (Vec::new(), snapshot.unsupported.iter().map(Into::into).collect()),
            Err(LoadError::Invalid { problems, .. }) => (problems.iter().map(Into::into).collect(), Vec::new()),
            Err(LoadError::Read { source, .. }) => {
                let unread = FileProblem {
                    path: String::new(),
                    line: None,
                    column: None,
                    message: source.to_string(),
                    suggestion: None,
                };
                (vec![unread], Vec::new())
            }
        };
        Self {
            ok: loaded.is_ok(),
            problems,
            warnings,
        }
    }
}

impl From<&config::Problem> for FileProblem {
    fn from(problem: &config::Problem) -> Self {
        Self {
            path: problem.path.clone(),
            line: Some(problem.line),
            column: Some(problem.column),
            message: problem.message.clone(),
            suggestion: problem.suggestion.clone(),
        }
    }
}

impl From<&Unsupported> for FileWarning {
    fn from(key: &Unsupported) -> Self {
        Self {
            path: key.path.clone(),
            line: key.line,
            column: key.column,
            message: key.message.clone(),
            refuses_to_run: key.refuses_to_run,
        }
    }
}

/// Body of `POST /v1/explain`: a request as it would come, or a `service`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    #[serde(default = "get")]
    #[schema(default = "GET", max_length = 32, pattern = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
    pub method: String,
    /// As in `Host`. Absent: that of `headers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// With the query, if there is one. Absent: `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// One value, or several, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, FieldValues>,
    /// Absent: 127.0.0.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub client_ip: Option<IpAddr>,
    /// The certificate that the client has shown, and that was verified. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cert: Option<ExplainedCert>,
    /// A request that has come to this service, whatever its routes say: not beside `host` and `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// A client's certificate, as far as rules look at it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExplainedCert {
    /// The common name of its subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_cn: Option<String>,
    /// Its alternative names: DNS names, email addresses, URIs, IP addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub san: Vec<String>,
}

impl From<ExplainedCert> for ClientCert {
    fn from(cert: ExplainedCert) -> Self {
        Self {
            subject_cn: cert.subject_cn.map(Into::into),
            san: cert.san.into_iter().map(Into::into).collect(),
        }
    }
}

/// What stands in the lines of one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum FieldValues {
    One(String),
    Several(Vec<String>),
}

fn get() -> String {
    "GET".to_owned()
}

/// `GET /v1/rejected`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RejectedMessages {
    /// The last 16, oldest first.
    pub rejected: Vec<RejectedMessage>,
}

/// A request or an answer that was refused as a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RejectedMessage {
    /// RFC 3339.
    pub time: String,
    /// `request` or `answer`
    pub message: String,
    /// The client's address, or the endpoint as in the file.
    pub from: String,
    /// As in `rollgate_refusals_total`, or `protocol` for an answer.
    pub reason: String,
    /// What the client was answered.
    pub status: u16,
    /// What is wrong, in a sentence.
    pub detail: String,
    /// What came, line by line, escaped; instead of values that may be secret, their length.
    pub head: Vec<String>,
}

/// Weights by version, none twice: a map that names a version twice has two meanings.
fn weights<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Weights, D::Error> {
    struct Once;

    impl<'de> Visitor<'de> for Once {
        type Value = Weights;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("a map from versions to weights")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Weights, A::Error> {
            let mut weights = Weights::new();
            while let Some((version, weight)) = map.next_entry::<String, u32>()? {
                if weights.contains_key(&version) {
                    return Err(A::Error::custom(format!("the version `{version}` is there twice")));
                }
                weights.insert(version, weight);
            }
            Ok(weights)
        }
    }

    deserializer.deserialize_map(Once)
}

fn weights_schema() -> utoipa::openapi::schema::Object {
    use utoipa::openapi::schema::{ObjectBuilder, Type};
    let weight = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(0))
        .maximum(Some(1_000_000));
    ObjectBuilder::new()
        .description(Some(
            "By version: 0 to 1,000,000, not all of them 0. Every version is named.",
        ))
        .additional_properties(Some(weight))
        .build()
}

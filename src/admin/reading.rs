//! What is: services, versions, endpoints, switches, the file and the state.

use super::api::{
    ConfigStatus, EndpointStatus, Kill, RejectedMessage, RejectedMessages, ServiceStatus, Services, StateStatus,
    Status, VersionStatus,
};
use super::problem::{ApiError, Kind, answer};
use super::{Admin, certificates, rollouts};
use crate::config::problem::nearest;
use crate::control::commands::NotDone;
use crate::routing::Role;
use crate::runtime::{Latch, Origin, ROLLOUT, Refusal};
use crate::shared::{InForce, Rejected};
use crate::telemetry::{ShareWindow, endpoints, rfc3339};
use axum::extract::{FromRequestParts, Path, State};
use axum::http::header::ETAG;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use ring::digest::{SHA256, digest};
use serde::Serialize;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

/// The name in `/v1/services/{service}`.
pub struct ServiceName(pub String);

impl FromRequestParts<Arc<Admin>> for ServiceName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, admin: &Arc<Admin>) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, admin).await;
        path.map(|Path(name)| Self(name)).map_err(|_| {
            ApiError::new(
                Kind::BadRequest,
                "The name of the service in the path is no text.",
                "Send it in UTF-8, percent-encoded.",
            )
        })
    }
}

/// What the whole process is at.
#[utoipa::path(get, path = "/v1/status", tag = "status", responses(
    (status = 200, description = "What is in force.", body = Status, headers(("ETag", description = "The generation."))),
))]
pub async fn status(State(admin): State<Arc<Admin>>) -> Response {
    let in_force = admin.shared.load();
    let status = Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_s: admin.shared.uptime().as_secs(),
        generation: in_force.generation,
        ready: admin.shared.ready.load(Ordering::Relaxed) && !admin.shared.is_draining(),
        draining: admin.shared.is_draining(),
        kill: kill(in_force.state.kill.as_ref(), in_force.state.file_kill),
        config: config_status(&admin),
        state: state_status(&admin),
        certificate_problems: certificates::problems(&admin.shared),
        services: all_services(&admin, &in_force),
    };
    tagged(in_force.generation, &status)
}

/// All services.
#[utoipa::path(get, path = "/v1/services", tag = "status", responses(
    (status = 200, description = "In the order of the file.", body = Services, headers(("ETag", description = "The generation."))),
))]
pub async fn services(State(admin): State<Arc<Admin>>) -> Response {
    let in_force = admin.shared.load();
    let services = Services {
        generation: in_force.generation,
        services: all_services(&admin, &in_force),
    };
    tagged(in_force.generation, &services)
}

/// One service.
#[utoipa::path(get, path = "/v1/services/{service}", tag = "status", params(super::document::ServicePath), responses(
    (status = 200, description = "What is in force.", body = ServiceStatus, headers(("ETag", description = "The generation."))),
))]
pub async fn service(State(admin): State<Arc<Admin>>, ServiceName(name): ServiceName) -> Result<Response, ApiError> {
    let in_force = admin.shared.load();
    let index = position(&in_force, &name)?;
    let window = admin.window.lock().unwrap_or_else(PoisonError::into_inner);
    let status = service_status(&in_force, index, &window, now_ms(&admin));
    Ok(tagged(in_force.generation, &status))
}

/// The last messages that were refused as such.
#[utoipa::path(get, path = "/v1/rejected", tag = "status", security(("token" = [])), responses(
    (status = 200, description = "Oldest first.", body = RejectedMessages),
))]
pub async fn rejected(State(admin): State<Arc<Admin>>) -> Response {
    let message = |rejected: Arc<Rejected>| RejectedMessage {
        time: rfc3339(rejected.at),
        message: if rejected.is_answer { "answer" } else { "request" }.to_owned(),
        from: rejected.from.clone(),
        reason: rejected.reason.to_owned(),
        status: rejected.status,
        detail: rejected.why.clone(),
        head: rejected.head.clone(),
    };
    let rejected = admin.shared.rejected.latest().into_iter().map(message).collect();
    json(&RejectedMessages { rejected })
}

/// The position of the service of this name.
///
/// # Errors
/// There is none.
pub fn position(in_force: &InForce, name: &str) -> Result<usize, ApiError> {
    let names = || in_force.snapshot.policy.services.iter().map(|service| &*service.name);
    names().position(|service| service == name).ok_or_else(|| {
        let unknown = Refusal::UnknownService {
            name: name.to_owned(),
            similar: nearest(name, names()),
        };
        NotDone::from(unknown).into()
    })
}

pub fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => answer(StatusCode::OK, "application/json", body),
        Err(error) => axum::response::IntoResponse::into_response(ApiError::new(
            Kind::Internal,
            error.to_string(),
            "Please report it.",
        )),
    }
}

/// With the generation as `ETag`, for the next change's `If-Match`.
pub fn tagged(generation: u64, value: &impl Serialize) -> Response {
    let mut response = json(value);
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{generation}\"")) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

/// SHA-256, in hexadecimal.
pub fn hash(text: &str) -> String {
    let digest = digest(&SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn now_ms(admin: &Admin) -> u64 {
    u64::try_from(admin.shared.uptime().as_millis()).unwrap_or(u64::MAX)
}

fn config_status(admin: &Admin) -> ConfigStatus {
    let reload = admin
        .shared
        .reload
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    ConfigStatus {
        file: admin.file.display().to_string(),
        hash: hash(&reload.text),
        last_reload_successful: reload.error.is_none(),
        error: reload.error,
        last_success: rfc3339(UNIX_EPOCH + Duration::from_secs(reload.last_success_s)),
        restart_required: reload.restart_required,
    }
}

fn state_status(admin: &Admin) -> StateStatus {
    let error = admin.kept.not_durable();
    StateStatus {
        directory: admin.state_dir.display().to_string(),
        durable: error.is_none(),
        error,
    }
}

/// A switch that is on: that of a command, that of the file, or both.
fn kill(latch: Option<&Latch>, by_file: bool) -> Option<Kill> {
    let by = |origin: &Origin, source: &str| Kill {
        source: source.to_owned(),
        who: Some(origin.who.clone()),
        since: Some(rfc3339(UNIX_EPOCH + Duration::from_millis(origin.at_ms))),
        reason: origin.reason.clone(),
    };
    match (latch, by_file) {
        (Some(latch), true) => Some(by(&latch.by, "both")),
        (Some(latch), false) => Some(by(&latch.by, "admin")),
        (None, true) => Some(Kill {
            source: "file".to_owned(),
            who: None,
            since: None,
            reason: None,
        }),
        (None, false) => None,
    }
}

fn all_services(admin: &Admin, in_force: &InForce) -> Vec<ServiceStatus> {
    let window = admin.window.lock().unwrap_or_else(PoisonError::into_inner);
    let now_ms = now_ms(admin);
    (0..in_force.services.len())
        .filter_map(|index| service_status(in_force, index, &window, now_ms))
        .collect()
}

/// `None`: there is no service at this position.
fn service_status(in_force: &InForce, index: usize, window: &ShareWindow, now_ms: u64) -> Option<ServiceStatus> {
    let policy = in_force.snapshot.policy.services.get(index)?;
    let (live, traffic) = (in_force.services.get(index)?, in_force.traffic.services.get(index)?);
    let state = in_force.state.service(&policy.name);
    let requests = live.versions.iter().map(|version| window.requests(&version.stats));
    let requests: Vec<u64> = requests.collect();
    let all = requests.iter().sum::<u64>();
    let versions = policy.versions.iter().zip(&live.versions).zip(requests).enumerate();
    let versions = versions.map(|(number, ((version, live), requests))| {
        let (signals, stats) = (window.signals(&live.stats), &live.stats);
        VersionStatus {
            name: version.name.to_string(),
            role: match version.role {
                Role::Stable => "stable",
                Role::Canary => "canary",
            }
            .to_owned(),
            weight: traffic.split.weight(number),
            share_target: in_force.share_target(index, number),
            share_observed: (all > 0).then(|| requests as f64 * 100.0 / all as f64),
            rate: signals.rate,
            error_rate: signals.error_rate,
            p50_ms: signals.p50_ms,
            p99_ms: signals.p99_ms,
            in_flight: stats.in_flight(),
            requests_total: stats.begun(),
            failures_total: stats.failed(),
            endpoints: endpoints(&live.pool, now_ms)
                .into_iter()
                .map(|now| EndpointStatus {
                    endpoint: now.label.to_owned(),
                    healthy: now.healthy,
                    in_flight: now.in_flight,
                })
                .collect(),
        }
    });
    Some(ServiceStatus {
        name: policy.name.to_string(),
        killed: in_force.is_killed(index),
        kill: state.and_then(|state| kill(state.kill.as_ref(), state.file_kill)),
        weights_source: match state.and_then(|state| state.set.as_ref()) {
            Some(set) if set.by.who == ROLLOUT => "rollout",
            Some(_) => "admin",
            None => "file",
        }
        .to_owned(),
        epoch: traffic.epoch,
        versions: versions.collect(),
        rollout: rollouts::status(in_force, index),
    })
}

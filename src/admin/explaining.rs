//! Why a request would get the version it would get, of this process, now.

use super::Admin;
use super::api::{ExplainRequest, FieldValues};
use super::body::Json;
use super::problem::{ApiError, Kind};
use super::reading::{json, position};
use crate::config::host_and_port;
use crate::explain::{Described, Explanation, Moment, Subject, explain, without_port};
use crate::routing::{CookieKey, Facts, ServiceId, VersionId};
use crate::shared::InForce;
use axum::extract::State;
use axum::response::Response;
use ring::rand::{SecureRandom, SystemRandom};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

/// Why a request would get the version it would get: by the function that decides live requests, with what is in force.
/// Nothing is moved by asking.
#[utoipa::path(post, path = "/v1/explain", tag = "status", request_body = ExplainRequest, responses(
    (status = 200, description = "What would become of it.", body = Explanation),
))]
pub async fn why(State(admin): State<Arc<Admin>>, Json(request): Json<ExplainRequest>) -> Result<Response, ApiError> {
    let in_force = admin.shared.load();
    if let Some(service) = &request.service {
        position(&in_force, service)?;
    }
    let described = described(request)?;
    let live = Live {
        now_ms: u64::try_from(admin.shared.uptime().as_millis()).unwrap_or(u64::MAX),
        in_force: &in_force,
    };
    let moment = Moment {
        facts: &live,
        knows_health: true,
    };
    let explanation = explain(&in_force.snapshot.policy, &in_force.traffic, &described, moment);
    explanation
        .map(|explanation| json(&explanation))
        .map_err(|error| unacceptable(error.to_string()))
}

fn unacceptable(detail: String) -> ApiError {
    ApiError::new(
        Kind::Unacceptable,
        detail,
        "Describe the request as it would come: {\"host\": \"shop.example.com\", \"path\": \"/cart?a=b\"}.",
    )
}

fn described(request: ExplainRequest) -> Result<Described, ApiError> {
    let is_method = request.method.len() <= 32 && request.method.parse::<axum::http::Method>().is_ok();
    if !is_method {
        return Err(unacceptable("`method` is no method".to_owned()));
    }
    let subject = match (request.service, &request.host, &request.path) {
        (Some(service), None, None) => Subject::Service(service),
        (Some(_), ..) => {
            return Err(unacceptable(
                "`service` stands alone: `host` and `path` find one".to_owned(),
            ));
        }
        (None, host, path) => url(host.as_deref(), path.as_deref().unwrap_or("/"))?,
    };
    let mut headers = Vec::new();
    for (name, values) in request.headers {
        if name.parse::<axum::http::HeaderName>().is_err() {
            return Err(unacceptable("`headers` has a name that is none".to_owned()));
        }
        let values = match values {
            FieldValues::One(value) => vec![value],
            FieldValues::Several(values) => values,
        };
        headers.extend(values.into_iter().map(|value| (name.clone(), value)));
    }
    Ok(Described {
        method: request.method,
        subject,
        headers,
        client_ip: request.client_ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        client_cert: request.client_cert.map(Into::into),
    })
}

fn url(host: Option<&str>, path: &str) -> Result<Subject, ApiError> {
    if host.is_some_and(|host| host_and_port(host).is_none()) {
        return Err(unacceptable("`host` is none".to_owned()));
    }
    let target: axum::http::uri::PathAndQuery = match path.parse() {
        Ok(target) if path.starts_with('/') => target,
        _ => return Err(unacceptable("`path` must begin with `/`, as in a request".to_owned())),
    };
    Ok(Subject::Url {
        host: host.map(|host| without_port(host).to_owned()),
        path: target.path().to_owned(),
        query: target.query().unwrap_or_default().to_owned(),
    })
}

/// The facts of this process, looked at and left as they are.
struct Live<'a> {
    in_force: &'a InForce,
    now_ms: u64,
}

impl Facts for Live<'_> {
    fn now_s(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    }

    fn turn(&self, service: ServiceId, rule: Option<u32>) -> u64 {
        let live = self.in_force.services.get(service.0 as usize);
        let turn = live.map(|live| {
            let of_rule = rule.and_then(|rule| live.rule_turns.get(rule as usize));
            of_rule.unwrap_or(&live.turn)
        });
        turn.map_or(0, |turn| turn.load(Ordering::Relaxed))
    }

    fn usable(&self, service: ServiceId, version: VersionId) -> bool {
        let live = self.in_force.services.get(service.0 as usize);
        let version = live.and_then(|live| live.versions.get(version.0 as usize));
        version.is_some_and(|version| version.pool.usable(self.now_ms))
    }

    fn cookie_key(&self) -> &CookieKey {
        &self.in_force.cookie_key
    }

    /// Of a user who is not there: any will do.
    fn fresh_id(&self) -> u128 {
        let mut bytes = [0; 16];
        // Without randomness, an id like any other.
        let _ = SystemRandom::new().fill(&mut bytes);
        u128::from_le_bytes(bytes)
    }
}

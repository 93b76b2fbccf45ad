//! What is to be otherwise: weights, kill switches, the file, rollouts. The writer does it; here it is only asked.

use super::Admin;
use super::api::{Changed, ReasonRequest, WeightsRequest};
use super::body::{Json, JsonOrNothing};
use super::guard::Caller;
use super::problem::{ApiError, Kind};
use super::reading::{ServiceName, position, tagged};
use crate::control::commands::{Done, NotDone, Order};
use crate::rollout::Verb;
use crate::runtime::{Command, Origin, Scope, Steer};
use axum::extract::rejection::{ExtensionRejection, PathRejection};
use axum::extract::{Extension, FromRequestParts, Path};
use axum::http::HeaderMap;
use axum::http::header::IF_MATCH;
use axum::http::request::Parts;
use axum::response::Response;
use std::pin::Pin;
use std::sync::Arc;

/// Has another process take over; its id.
///
/// # Errors
/// Why it does not: nothing has changed.
pub type Upgrade = Arc<dyn Fn(Origin) -> Pin<Box<dyn Future<Output = Result<u32, String>> + Send>> + Send + Sync>;

/// Characters of a reason.
const MAX_REASON: usize = 1000;

/// Of whom a change is asked, who asks, and on what condition.
pub struct Asked {
    admin: Arc<Admin>,
    caller: Caller,
    headers: HeaderMap,
}

impl FromRequestParts<Arc<Admin>> for Asked {
    type Rejection = ExtensionRejection;

    async fn from_request_parts(parts: &mut Parts, admin: &Arc<Admin>) -> Result<Self, ExtensionRejection> {
        let Extension(caller) = Extension::from_request_parts(parts, admin).await?;
        Ok(Self {
            admin: Arc::clone(admin),
            caller,
            headers: parts.headers.clone(),
        })
    }
}

impl Asked {
    /// Has the writer do it.
    async fn submit(self, order: Order, reason: Option<String>) -> Result<Response, ApiError> {
        let reason = checked(reason)?;
        let expected = expected(&self.headers, self.admin.shared.load().generation)?;
        let origin = self.caller.origin(reason);
        let done = self.admin.commander.submit(order, origin, expected).await?;
        let Done {
            generation,
            changed,
            text,
            not_durable,
            restart_required,
        } = done;
        let changed = Changed {
            generation,
            changed,
            message: text,
            durable: not_durable.is_none(),
            not_durable,
            restart_required,
        };
        Ok(tagged(generation, &changed))
    }
}

/// Declares a handler that asks one thing of the writer.
macro_rules! documented {
    ($(#[$doc:meta])* ($method:ident, $path:literal, $($more:tt)*) $handler:item) => {
        $(#[$doc])*
        #[utoipa::path(
            $method,
            path = $path,
            tag = "changes",
            security(("token" = [])),
            responses((status = 200, description = "Done.", body = Changed, headers(("ETag", description = "The generation.")))),
            $($more)*
        )]
        $handler
    };
}

documented! {
    /// Set the weights of a service. Toward a canary they are on the disk before they are in force.
    (put, "/v1/services/{service}/weights",
        params(super::document::ServicePath, super::document::IfMatch), request_body = WeightsRequest)
    pub async fn weights(
        asked: Asked,
        ServiceName(service): ServiceName,
        Json(request): Json<WeightsRequest>,
    ) -> Result<Response, ApiError> {
        let command = Command::Weights {
            service,
            weights: request.weights,
        };
        asked.submit(Order::Change(command), request.reason).await
    }
}

documented! {
    /// Send everything of a service to stable, until its kill switch is released.
    (put, "/v1/services/{service}/kill",
        params(super::document::ServicePath, super::document::IfMatch), request_body = Option<ReasonRequest>)
    pub async fn kill(
        asked: Asked,
        ServiceName(service): ServiceName,
        JsonOrNothing(request): JsonOrNothing<ReasonRequest>,
    ) -> Result<Response, ApiError> {
        let command = Command::Kill(Scope::Service(service));
        asked.submit(Order::Change(command), request.reason).await
    }
}

documented! {
    /// Release the kill switch of a service.
    (delete, "/v1/services/{service}/kill",
        params(super::document::ServicePath, super::document::IfMatch), request_body = Option<ReasonRequest>)
    pub async fn unkill(
        asked: Asked,
        ServiceName(service): ServiceName,
        JsonOrNothing(request): JsonOrNothing<ReasonRequest>,
    ) -> Result<Response, ApiError> {
        let command = Command::Unkill(Scope::Service(service));
        asked.submit(Order::Change(command), request.reason).await
    }
}

documented! {
    /// Send everything of every service to stable, until this kill switch is released.
    (put, "/v1/kill", params(super::document::IfMatch), request_body = Option<ReasonRequest>)
    pub async fn kill_all(
        asked: Asked,
        JsonOrNothing(request): JsonOrNothing<ReasonRequest>,
    ) -> Result<Response, ApiError> {
        asked.submit(Order::Change(Command::Kill(Scope::All)), request.reason).await
    }
}

documented! {
    /// Release the kill switch for all services.
    (delete, "/v1/kill", params(super::document::IfMatch), request_body = Option<ReasonRequest>)
    pub async fn unkill_all(
        asked: Asked,
        JsonOrNothing(request): JsonOrNothing<ReasonRequest>,
    ) -> Result<Response, ApiError> {
        asked.submit(Order::Change(Command::Unkill(Scope::All)), request.reason).await
    }
}

documented! {
    /// Read the file now, and put it in force if it is right.
    (post, "/v1/config/reload", params(super::document::IfMatch), request_body = Option<ReasonRequest>)
    pub async fn reload(
        asked: Asked,
        JsonOrNothing(request): JsonOrNothing<ReasonRequest>,
    ) -> Result<Response, ApiError> {
        asked.submit(Order::Reload, request.reason).await
    }
}

documented! {
    /// Start the program anew, as it is on the disk now, and let it take over. Answered when it serves, or when it is certain
    /// that it will not: then nothing has changed.
    (post, "/v1/upgrade", params(super::document::IfMatch), request_body = Option<ReasonRequest>)
    pub async fn upgrade(
        asked: Asked,
        JsonOrNothing(request): JsonOrNothing<ReasonRequest>,
    ) -> Result<Response, ApiError> {
        let reason = checked(request.reason)?;
        let generation = asked.admin.shared.load().generation;
        if let Some(expected) = expected(&asked.headers, generation)?.filter(|expected| *expected != generation) {
            let current = generation;
            return Err(NotDone::Stale { expected, current }.into());
        }
        let pid = (asked.admin.upgrade)(asked.caller.origin(reason)).await.map_err(|why| {
            ApiError::new(
                Kind::NotUpgraded,
                why,
                "Nothing has changed: this process goes on serving. Its log, and that of the new one, may say more.",
            )
        })?;
        let changed = Changed {
            generation,
            changed: true,
            message: format!("process {pid} serves now, and this one drains"),
            durable: true,
            not_durable: None,
            restart_required: Vec::new(),
        };
        Ok(tagged(generation, &changed))
    }
}

documented! {
    /// Steer the rollout of a service.
    (post, "/v1/services/{service}/rollout/{verb}",
        params(super::document::ServicePath, super::document::VerbPath, super::document::IfMatch),
        request_body = Option<ReasonRequest>)
    pub async fn rollout(
        asked: Asked,
        path: Result<Path<(String, String)>, PathRejection>,
        JsonOrNothing(request): JsonOrNothing<ReasonRequest>,
    ) -> Result<Response, ApiError> {
        let path = path.ok().and_then(|Path((service, word))| Some((service, Verb::from_word(&word)?)));
        let (service, verb) = path.ok_or_else(no_such_verb)?;
        position(&asked.admin.shared.load(), &service)?;
        let steer = Steer::Verb(verb);
        asked.submit(Order::Change(Command::Rollout { service, steer }), request.reason).await
    }
}

fn no_such_verb() -> ApiError {
    let verbs = Verb::ALL.map(Verb::word).join(", ");
    ApiError::new(
        Kind::NotFound,
        "A rollout has no such verb.",
        format!("Its verbs are: {verbs}."),
    )
}

/// It is shown on terminals and in logs.
fn checked(reason: Option<String>) -> Result<Option<String>, ApiError> {
    let Some(reason) = reason
        .map(|reason| reason.trim().to_owned())
        .filter(|reason| !reason.is_empty())
    else {
        return Ok(None);
    };
    if reason.chars().count() > MAX_REASON || reason.chars().any(char::is_control) {
        return Err(ApiError::new(
            Kind::Unacceptable,
            format!("The reason has more than {MAX_REASON} characters, or control characters in it."),
            "Give it in a line; refer to where there is more.",
        ));
    }
    Ok(Some(reason))
}

/// The generation that `If-Match` asks for (RFC 9110 section 13.1.1); `None`: any will do. A number will do without the
/// quotes, which shells make hard to write.
fn expected(headers: &HeaderMap, current: u64) -> Result<Option<u64>, ApiError> {
    let bad = || {
        ApiError::new(
            Kind::BadRequest,
            "`If-Match` is not understood.",
            "Send an `ETag` as it came, such as `\"12\"`, or `*`.",
        )
    };
    let mut tags = Vec::new();
    for field in headers.get_all(IF_MATCH) {
        for tag in field.to_str().map_err(|_| bad())?.split(',').map(str::trim) {
            if tag == "*" {
                return Ok(None);
            }
            let strong = tag.strip_prefix("W/").unwrap_or(tag);
            let quoted = strong.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            let bare = || Some(tag).filter(|tag| tag.parse::<u64>().is_ok());
            let opaque = quoted.or_else(bare).ok_or_else(bad)?;
            // A weak tag never matches, and one that is no number is not ours.
            tags.push(opaque.parse::<u64>().ok().filter(|_| strong == tag));
        }
    }
    match tags.as_slice() {
        [] => Ok(None),
        _ if tags.contains(&Some(current)) => Ok(Some(current)),
        // No generation is 0: the writer says what is in force.
        [first, ..] => Ok(Some(first.unwrap_or(0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IF_MATCH, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn tags_that_are_asked_for() {
        for (values, wanted) in [
            (&[][..], None),
            (&["*"], None),
            (&["\"7\""], Some(7)),
            (&["\"6\""], Some(6)),
            (&["7"], Some(7)),
            (&["\"6\", \"7\""], Some(7)),
            (&["\"6\"", "\"7\""], Some(7)),
            (&["W/\"7\""], Some(0)),
            (&["\"other\""], Some(0)),
        ] {
            assert_eq!(expected(&headers(values), 7).ok(), Some(wanted), "{values:?}");
        }
        for bad in ["seven", "", "\"7", "\"7\",,"] {
            let ApiError(problem) = expected(&headers(&[bad]), 7).unwrap_err();
            assert_eq!(problem.status, 400, "{bad}");
        }
    }

    #[test]
    fn reasons_are_one_line() {
        assert_eq!(checked(Some("  ".to_owned())).unwrap(), None);
        assert_eq!(checked(Some(" why ".to_owned())).unwrap().as_deref(), Some("why"));
        assert!(checked(Some("ä".repeat(1000))).is_ok());
        for bad in ["a".repeat(1001), "a\u{1b}[2J".to_owned(), "a\nb".to_owned()] {
            assert_eq!(checked(Some(bad)).unwrap_err().0.status, 422);
        }
    }
}

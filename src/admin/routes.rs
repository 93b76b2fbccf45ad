//! What is served where, and who may ask for it.

use super::document;
use super::problem::{ApiError, Kind, answer};
use super::{Admin, changes, configuration, dashboard, events, explaining, guard, reading};
use crate::telemetry::{Process, metrics};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use tokio::time::timeout;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

type Routes = OpenApiRouter<Arc<Admin>>;

/// For anyone, by any name.
fn probes() -> Routes {
    OpenApiRouter::default()
        .routes(routes!(live))
        .routes(routes!(ready))
        .routes(routes!(page))
}

/// For anyone who asks by a name of ours: what only reads.
fn readings() -> Routes {
    OpenApiRouter::default()
        .routes(routes!(reading::status))
        .routes(routes!(reading::services))
        .routes(routes!(reading::service))
        .routes(routes!(explaining::why))
        .routes(routes!(events::events))
}

/// For who is trusted: what changes something, and what may hold secrets.
fn changes() -> Routes {
    OpenApiRouter::default()
        .routes(routes!(changes::weights))
        .routes(routes!(changes::kill, changes::unkill))
        .routes(routes!(changes::kill_all, changes::unkill_all))
        .routes(routes!(changes::rollout))
        .routes(routes!(configuration::config))
        .routes(routes!(configuration::validate))
        .routes(routes!(changes::reload))
        .routes(routes!(changes::upgrade))
        .routes(routes!(reading::rejected))
}

/// The OpenAPI document of all of it, as JSON.
pub fn openapi() -> String {
    let (_, document) = probes().merge(readings()).merge(changes()).split_for_parts();
    document::completed(document)
}

pub(super) fn router(admin: Arc<Admin>) -> Router {
    let document: Arc<str> = openapi().into();
    let document = get(move || std::future::ready(answer(StatusCode::OK, "application/json", document.to_string())));
    let readings = Router::from(readings())
        .route("/openapi.json", document)
        .route("/", get(dashboard::page))
        .route_layer(from_fn_with_state(Arc::clone(&admin), guard::everyone));
    let changes = Router::from(changes()).route_layer(from_fn_with_state(Arc::clone(&admin), guard::trusted));
    Router::from(probes())
        .merge(readings)
        .merge(changes)
        .fallback(async || {
            ApiError::new(
                Kind::NotFound,
                "There is nothing at this path.",
                "`/openapi.json` says what is where.",
            )
        })
        .method_not_allowed_fallback(async || {
            ApiError::new(
                Kind::MethodNotAllowed,
                "This path does not take this method.",
                "`Allow` says which it takes.",
            )
        })
        .layer(from_fn_with_state(Arc::clone(&admin), in_time))
        .with_state(admin)
}

/// However an answer comes about, it is there in time.
async fn in_time(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Result<Response, ApiError> {
    let limit = match request.uri().path() {
        "/v1/upgrade" => admin.limits.upgrade,
        _ => admin.limits.answer,
    };
    timeout(limit, next.run(request)).await.map_err(|_| {
        ApiError::new(
            Kind::Late,
            format!("There was no answer within {} s.", limit.as_secs()),
            "A change that was asked for may still be carried out: look at the status before asking again.",
        )
    })
}

/// Whether the process answers at all: restart it if not.
#[utoipa::path(get, path = "/livez", tag = "probes", responses(
    (status = 200, description = "It does.", body = String, content_type = "text/plain"),
))]
async fn live() -> Response {
    line(StatusCode::OK, "alive\n")
}

/// Whether to send traffic here.
#[utoipa::path(get, path = "/readyz", tag = "probes", responses(
    (status = 200, description = "Yes.", body = String, content_type = "text/plain"),
    (status = 503, description = "Not yet, or not any more.", body = String, content_type = "text/plain"),
))]
async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    if admin.shared.is_draining() {
        line(StatusCode::SERVICE_UNAVAILABLE, "draining: the process is stopping\n")
    } else if !admin.shared.ready.load(Ordering::Relaxed) {
        line(
            StatusCode::SERVICE_UNAVAILABLE,
            "starting: not every pool has been checked yet\n",
        )
    } else {
        line(StatusCode::OK, "ready\n")
    }
}

/// Golden signals for Prometheus, in the text format 0.0.4.
#[utoipa::path(get, path = "/metrics", tag = "probes", responses(
    (status = 200, description = "All series.", body = String, content_type = "text/plain"),
))]
async fn page(State(admin): State<Arc<Admin>>) -> Result<Response, ApiError> {
    let rendered = {
        let window = admin.window.lock().unwrap_or_else(PoisonError::into_inner);
        metrics::render(&admin.shared, &window, &Process::read())
    };
    match rendered {
        Ok(text) => Ok(answer(StatusCode::OK, metrics::CONTENT_TYPE, text)),
        Err(error) => {
            tracing::error!(%error, "admin: /metrics could not be rendered");
            Err(ApiError::new(
                Kind::Internal,
                "The page could not be rendered.",
                "The log says why. Please report it.",
            ))
        }
    }
}

fn line(status: StatusCode, text: &'static str) -> Response {
    answer(status, "text/plain; charset=utf-8", text)
}

//! What is served where. Nothing here changes anything, and probes and scrapers come by any name, so no route looks
//! at `Host`.

use super::Admin;
use crate::telemetry::{Process, metrics};
use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

pub(super) fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/metrics", get(page))
        .fallback(async || problem(StatusCode::NOT_FOUND, "There is nothing at this path."))
        .method_not_allowed_fallback(async || {
            problem(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD are served here.")
        })
        .with_state(admin)
}

async fn live() -> Response {
    line(StatusCode::OK, "alive\n")
}

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

async fn page(State(admin): State<Arc<Admin>>) -> Response {
    let rendered = {
        let window = admin.window.lock().unwrap_or_else(PoisonError::into_inner);
        metrics::render(&admin.shared, &window, &Process::read())
    };
    match rendered {
        Ok(text) => answer(StatusCode::OK, metrics::CONTENT_TYPE, text),
        Err(error) => {
            tracing::error!(%error, "admin: /metrics could not be rendered");
            problem(
                StatusCode::INTERNAL_SERVER_ERROR,
                "The page could not be rendered; the log says why.",
            )
        }
    }
}

fn line(status: StatusCode, text: &'static str) -> Response {
    answer(status, "text/plain; charset=utf-8", text.to_owned())
}

/// RFC 9457.
fn problem(status: StatusCode, detail: &str) -> Response {
    let body = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "detail": detail,
    });
    answer(status, "application/problem+json", body.to_string())
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Response {
    let headers: [(HeaderName, &'static str); 3] = [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, body).into_response()
}

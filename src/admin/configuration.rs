//! The configuration's text: what is in force, and whether another would be right.

use super::Admin;
use super::api::{Checked, Config, Problem, ValidateRequest};
use super::body::{media_type, parse, read};
use super::problem::{ApiError, Kind, answer};
use super::reading::{hash, json, tagged};
use crate::config::yaml;
use crate::control::load::{self, LoadError};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use std::sync::{Arc, PoisonError};

/// Bytes of the body of a validation: the largest text, and a little for what is around it.
const MAX_TEXT_BODY: usize = yaml::MAX_FILE_BYTES + 64 * 1024;

/// The text in force. It may hold secrets.
#[utoipa::path(get, path = "/v1/config", tag = "configuration", security(("token" = [])), responses(
    (status = 200, description = "As it was read.", body = Config, headers(("ETag", description = "The generation."))),
))]
pub async fn config(State(admin): State<Arc<Admin>>) -> Response {
    let generation = admin.shared.load().generation;
    let text = {
        let reload = admin.shared.reload.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&reload.text)
    };
    let config = Config {
        file: admin.file.display().to_string(),
        generation,
        hash: hash(&text),
        text: text.to_string(),
    };
    tagged(generation, &config)
}

/// A text that is not right: a problem, and all that `check --json` prints.
#[derive(Serialize)]
struct NotRight {
    #[serde(flatten)]
    checked: Checked,
    #[serde(flatten)]
    problem: Box<Problem>,
}

/// Whether a text would be taken, by the code that would load it. Relative paths in it start from the directory of the
/// file in force. Nothing is changed.
#[utoipa::path(post, path = "/v1/config/validate", tag = "configuration", security(("token" = [])),
    request_body(description = "The text, as it is or as JSON; at most 1 MiB.", content(
        (ValidateRequest = "application/json"), (String = "application/yaml"), (String = "text/plain"),
    )),
    responses(
        (status = 200, description = "It is right.", body = Checked),
    ),
)]
pub async fn validate(State(admin): State<Arc<Admin>>, request: Request) -> Result<Response, ApiError> {
    let (headers, bytes) = read(request, &admin, MAX_TEXT_BODY).await?;
    let text = match media_type(&headers).as_str() {
        "application/json" => parse::<ValidateRequest>(&bytes)?.text.into_bytes(),
        "application/yaml" | "text/plain" => bytes.to_vec(),
        _ => {
            return Err(ApiError::new(
                Kind::MediaType,
                "The body must be a configuration.",
                "Send `Content-Type: application/yaml` and the text, or `application/json` and {\"text\": …}.",
            ));
        }
    };
    let loaded = compiled(&admin, text).await?;
    let checked = Checked::of(&loaded);
    match loaded {
        Ok(_) => Ok(json(&checked)),
        Err(error) => {
            let ApiError(mut problem) = ApiError::of_file(error.to_string(), error.problems());
            // They are those of `checked`.
            problem.problems = Vec::new();
            let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::UNPROCESSABLE_ENTITY);
            let body = serde_json::to_string(&NotRight { checked, problem }).unwrap_or_default();
            Ok(answer(status, "application/problem+json", body))
        }
    }
}

/// One text at a time, off this thread: the largest takes a good part of a second.
async fn compiled(admin: &Admin, text: Vec<u8>) -> Result<Result<crate::config::Snapshot, LoadError>, ApiError> {
    let defect = |error: String| ApiError::new(Kind::Internal, error, "Please report it.");
    let _turn = admin
        .compiling
        .acquire()
        .await
        .map_err(|error| defect(error.to_string()))?;
    let file = admin.file.clone();
    tokio::task::spawn_blocking(move || load::compile(&file, &text))
        .await
        .map_err(|error| defect(error.to_string()))
}

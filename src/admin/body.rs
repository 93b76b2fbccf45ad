//! Bodies of requests: bounded in size and in time, of the kind that is expected.

use super::Admin;
use super::problem::{ApiError, Kind};
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::{DeserializeOwned, IgnoredAny};
use std::sync::Arc;
use tokio::time::timeout;

/// Bytes of a body, but for a configuration's.
const MAX_BODY: usize = 64 * 1024;

const JSON: &str = "application/json";

/// A JSON body that must be there.
pub struct Json<T>(pub T);

/// A JSON body that may be absent.
pub struct JsonOrNothing<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<Admin>> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, admin: &Arc<Admin>) -> Result<Self, ApiError> {
        let (headers, bytes) = read(request, admin, MAX_BODY).await?;
        expect_json(&headers)?;
        parse(&bytes).map(Self)
    }
}

impl<T: DeserializeOwned + Default> FromRequest<Arc<Admin>> for JsonOrNothing<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, admin: &Arc<Admin>) -> Result<Self, ApiError> {
        let (headers, bytes) = read(request, admin, MAX_BODY).await?;
        if bytes.is_empty() || (bytes == "null" && media_type(&headers) == JSON) {
            return Ok(Self(T::default()));
        }
        expect_json(&headers)?;
        parse(&bytes).map(Self)
    }
}

/// The whole body, at most `most` bytes.
///
/// # Errors
/// It is larger, comes too slowly, or breaks off.
pub async fn read(request: Request, admin: &Admin, most: usize) -> Result<(HeaderMap, Bytes), ApiError> {
    let (head, body) = request.into_parts();
    let too_large = || {
        ApiError::new(
            Kind::BodyTooLarge,
            format!("The body has more than {most} bytes."),
            "Send less.",
        )
    };
    let announced = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let announced = announced.and_then(|value| value.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > most as u64) {
        return Err(too_large());
    }
    match timeout(admin.limits.body, collected(body, most)).await {
        Ok(Ok(bytes)) => Ok((head.headers, bytes)),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => Err(too_large()),
        Ok(Err(_)) => Err(ApiError::new(
            Kind::BadRequest,
            "The body broke off.",
            "Send all of it.",
        )),
        Err(_) => Err(ApiError::new(
            Kind::BodyTimeout,
            format!("The body did not arrive within {} s.", admin.limits.body.as_secs()),
            "Send it faster.",
        )),
    }
}

async fn collected(body: Body, most: usize) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
    Ok(Limited::new(body, most).collect().await?.to_bytes())
}

/// The media type, in small letters and without parameters; empty if there is none.
pub fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.unwrap_or_default().split(';').next().unwrap_or_default();
    essence.trim().to_ascii_lowercase()
}

/// A page of another site may send other types without asking first.
fn expect_json(headers: &HeaderMap) -> Result<(), ApiError> {
    if media_type(headers) == JSON {
        return Ok(());
    }
    Err(ApiError::new(
        Kind::MediaType,
        "The body must be JSON and say so.",
        "Send `Content-Type: application/json`.",
    ))
}

/// The object that `bytes` hold.
///
/// # Errors
/// They are no JSON (400), or not the object that is expected (422).
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let problem = |kind, detail: String| ApiError::new(kind, detail, "`/openapi.json` says what is expected here.");
    serde_json::from_slice::<IgnoredAny>(bytes).map_err(|error| problem(Kind::MalformedJson, error.to_string()))?;
    // A list of the values, in order, would do for serde.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(problem(Kind::Unacceptable, "expected an object".to_owned()));
    }
    serde_json::from_slice(bytes).map_err(|error| problem(Kind::Unacceptable, error.to_string()))
}

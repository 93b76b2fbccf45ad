//! Errors of the API (RFC 9457): each has a word that stays the same, and says what to do.

use super::api::Problem;
use crate::control::commands::NotDone;
use crate::runtime::Refusal;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Declares every kind of problem: its word, its status and its title.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $status:ident, $title:literal;)*) => {
        /// What kind of problem.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Kind { $($(#[$doc])* $name,)* }

        impl Kind {
            #[cfg(test)]
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The end of `type`.
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            pub fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

kinds! {
    NotFound = "not-found", NOT_FOUND, "There is nothing at this path";
    MethodNotAllowed = "method-not-allowed", METHOD_NOT_ALLOWED, "The path does not take this method";
    UnknownService = "unknown-service", NOT_FOUND, "There is no such service";
    BadRequest = "bad-request", BAD_REQUEST, "The request is not understood";
    MalformedJson = "malformed-json", BAD_REQUEST, "The body is no JSON";
    Unacceptable = "unacceptable", UNPROCESSABLE_ENTITY, "The body is not what is expected here";
    UnknownVersion = "unknown-version", UNPROCESSABLE_ENTITY, "The service has no such version";
    MissingVersion = "missing-version", UNPROCESSABLE_ENTITY, "A version of the service has no weight";
    WeightTooLarge = "weight-too-large", UNPROCESSABLE_ENTITY, "The weight is too large";
    NoWeight = "no-weight", UNPROCESSABLE_ENTITY, "All weights are 0";
    BadConfiguration = "bad-configuration", UNPROCESSABLE_ENTITY, "The configuration is not right";
    RefusesToRun = "refuses-to-run", UNPROCESSABLE_ENTITY, "The configuration needs what this version lacks";
    Unreadable = "unreadable-file", UNPROCESSABLE_ENTITY, "The configuration cannot be read";
    KilledByFile = "killed-by-file", CONFLICT, "The file holds the kill switch";
    KilledWithAll = "killed-with-all", CONFLICT, "The kill switch is the one for all services";
    Overtaken = "overtaken", CONFLICT, "A kill switch came on meanwhile";
    NoRollout = "no-rollout", CONFLICT, "The service has no rollout";
    RolloutRefuses = "rollout-refuses", CONFLICT, "The rollout cannot do this now";
    NotUpgraded = "not-upgraded", CONFLICT, "No other process took over";
    Stale = "stale-generation", PRECONDITION_FAILED, "Something changed meanwhile";
    BodyTooLarge = "body-too-large", PAYLOAD_TOO_LARGE, "The body is too large";
    BodyTimeout = "body-timeout", REQUEST_TIMEOUT, "The body did not arrive in time";
    MediaType = "media-type", UNSUPPORTED_MEDIA_TYPE, "The body is of another kind than expected";
    WrongHost = "wrong-host", MISDIRECTED_REQUEST, "The name is not ours";
    ForeignOrigin = "foreign-origin", FORBIDDEN, "Another site's page asks";
    ForbiddenUser = "forbidden-user", FORBIDDEN, "The socket is not for this user";
    ReadOnly = "read-only", FORBIDDEN, "Over TCP this needs a token, and none is configured";
    Unauthorized = "unauthorized", UNAUTHORIZED, "A token is needed";
    TokenFile = "token-file", SERVICE_UNAVAILABLE, "The tokens cannot be read";
    NotDurable = "not-durable", SERVICE_UNAVAILABLE, "The change cannot be made durable";
    Busy = "busy", SERVICE_UNAVAILABLE, "Too much is asked at once";
    Stopping = "stopping", SERVICE_UNAVAILABLE, "No change is taken any more";
    History = "history", SERVICE_UNAVAILABLE, "The older events cannot be read";
    Late = "late", GATEWAY_TIMEOUT, "There was no answer in time";
    Internal = "internal", INTERNAL_SERVER_ERROR, "This is a defect of rollgate";
}

/// An error on its way to who asked.
#[derive(Debug)]
pub struct ApiError(pub Box<Problem>);

impl ApiError {
    /// `detail`: what is wrong here. `help`: what to do about it.
    pub fn new(kind: Kind, detail: impl Into<String>, help: impl Into<String>) -> Self {
        Self(Box::new(Problem {
            kind: format!("urn:rollgate:problem:{}", kind.word()),
            title: kind.title().to_owned(),
            status: kind.status().as_u16(),
            detail: detail.into(),
            help: Some(help.into()),
            problems: Vec::new(),
        }))
    }

    /// A configuration that is not right. `detail`: as `check` prints it.
    pub fn of_file(detail: String, problems: &[crate::config::Problem]) -> Self {
        let kind = if problems.is_empty() {
            Kind::Unreadable
        } else {
            Kind::BadConfiguration
        };
        let help =
            "Correct the file. What was in force stays; `rollgate check` says the same of a file before it is used.";
        let mut error = Self::new(kind, detail, help);
        error.0.problems = problems.iter().map(|problem| json!(problem)).collect();
        error
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self(problem) = self;
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // Plain data: it can be written.
        let body = serde_json::to_string(&problem).unwrap_or_default();
        let mut response = answer(status, "application/problem+json", body);
        let extra: Option<(HeaderName, &'static str)> = match status {
            StatusCode::UNAUTHORIZED => Some((WWW_AUTHENTICATE, "Bearer realm=\"rollgate\"")),
            StatusCode::SERVICE_UNAVAILABLE => Some((RETRY_AFTER, "1")),
            _ => None,
        };
        if let Some((name, value)) = extra {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// Any of our answers: never stored, never taken for something else.
pub fn answer(status: StatusCode, content_type: &'static str, body: impl Into<axum::body::Body>) -> Response {
    let headers: [(HeaderName, &'static str); 3] = [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, body.into()).into_response()
}

impl From<NotDone> for ApiError {
    fn from(not_done: NotDone) -> Self {
        let detail = not_done.to_string();
        let (kind, help) = match &not_done {
            NotDone::Refused(refusal) => (kind_of(refusal), refusal.help()),
            NotDone::Stale { .. } => (
                Kind::Stale,
                "Read the state again, and send the change with its `ETag` if it is still meant.".to_owned(),
            ),
            NotDone::NotDurable(_) => (
                Kind::NotDurable,
                "A change toward a canary must be on the disk before it is in force. Nothing was changed; look at \
                 `state.error` of the status. A kill switch works all the same."
                    .to_owned(),
            ),
            NotDone::File(error) => return Self::of_file(detail, error.problems()),
            NotDone::RefusesToRun(_) => (
                Kind::RefusesToRun,
                "Take these keys out of the file. What was in force stays.".to_owned(),
            ),
            NotDone::Unreadable(_) => (
                Kind::Unreadable,
                "See to it that the file is there and may be read. What was in force stays.".to_owned(),
            ),
            NotDone::Overtaken => (
                Kind::Overtaken,
                "Look at the status: if the change is still meant, ask again.".to_owned(),
            ),
            NotDone::Busy(_) => (Kind::Busy, "Ask again in a moment.".to_owned()),
            NotDone::Stopping(_) => (
                Kind::Stopping,
                "Ask the process that takes over, or again when it runs.".to_owned(),
            ),
        };
        Self::new(kind, detail, help)
    }
}

fn kind_of(refusal: &Refusal) -> Kind {
    match refusal {
        Refusal::UnknownService { .. } => Kind::UnknownService,
        Refusal::UnknownVersion { .. } => Kind::UnknownVersion,
        Refusal::MissingVersion { .. } => Kind::MissingVersion,
        Refusal::WeightTooLarge { .. } => Kind::WeightTooLarge,
        Refusal::NoWeight => Kind::NoWeight,
        Refusal::KilledByFile { .. } => Kind::KilledByFile,
        Refusal::KilledWithAll { .. } => Kind::KilledWithAll,
        Refusal::NoRollout { .. } => Kind::NoRollout,
        Refusal::Rollout { .. } => Kind::RolloutRefuses,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// What a client may have to tell apart is documented.
    #[test]
    fn every_kind_is_in_the_guide() {
        let guide = include_str!("../../docs/api.md");
        for kind in Kind::ALL {
            let word = format!("`{}`", kind.word());
            let rows = || {
                guide
                    .lines()
                    .filter(|line| line.starts_with("| ") && line.contains(&word))
            };
            assert_eq!(rows().count(), 1, "{word}");
            assert!(rows().all(|row| row.contains(kind.status().as_str())), "{word}");
        }
    }

    #[test]
    fn words_are_of_one_kind_and_titles_are_sentences() {
        let words: HashSet<&str> = Kind::ALL.iter().map(|kind| kind.word()).collect();
        assert_eq!(words.len(), Kind::ALL.len());
        for kind in Kind::ALL {
            assert!(kind.word().bytes().all(|b| b.is_ascii_lowercase() || b == b'-'));
            assert!(kind.status().is_client_error() || kind.status().is_server_error());
            assert!(kind.title().starts_with(char::is_uppercase));
        }
    }
}

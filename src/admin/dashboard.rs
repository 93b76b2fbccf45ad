//! The dashboard: one page that asks the API as anybody else does. What it shows anyone may read; to change something it needs a
//! token, which it keeps as long as it is open.

use super::problem::answer;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY, X_FRAME_OPTIONS};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};

const PAGE: &str = include_str!("dashboard.html");

/// `GET /`
pub async fn page() -> Response {
    let mut answer = answer(StatusCode::OK, "text/html; charset=utf-8", PAGE);
    let headers = answer.headers_mut();
    if let Ok(policy) = HeaderValue::from_str(&policy()) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    answer
}

/// Nothing but the page's own script and style, and nothing from or to elsewhere (CSP level 3).
fn policy() -> String {
    let hash = |tag| STANDARD.encode(digest(&SHA256, inside(tag).as_bytes()));
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash("script"),
        hash("style")
    )
}

/// What is between the tags called `name`, of which there is one pair.
fn inside(name: &str) -> &'static str {
    let begin = PAGE.split_once(&format!("<{name}>")).map_or("", |(_, rest)| rest);
    begin.split_once(&format!("</{name}>")).map_or("", |(inside, _)| inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_and_asks_nobody_else() {
        assert!(inside("script").contains("fetch(") && inside("style").contains("body {"));
        assert_eq!(PAGE.matches("<script").count(), 1);
        assert_eq!(PAGE.matches("<style").count(), 1);
        for foreign in [
            "http://",
            "https://",
            "//cdn",
            "innerHTML",
            "onclick=",
            "style=",
            "eval(",
        ] {
            assert!(!PAGE.contains(foreign), "{foreign}");
        }
    }
}

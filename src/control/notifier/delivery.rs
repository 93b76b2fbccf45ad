//! One attempt to tell one receiver.

use super::message::Notification;
use super::queue::Turn;
use crate::control::http_client::{Answer, HttpClient, Outgoing, first_words};
use crate::rollout::{Receiver, Url};
use http::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{Method, StatusCode};
use std::time::{Duration, SystemTime};

/// The same for all attempts to deliver one notification to one receiver, so that it can tell repeats
/// (draft-ietf-httpapi-idempotency-key-header).
const ID: HeaderName = HeaderName::from_static("idempotency-key");

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Delivered,
    /// It will never be taken: why.
    Refused(String),
    /// It may be taken later: why not now, and how long the receiver asks to be left alone.
    Failed {
        why: String,
        wait: Option<Duration>,
    },
}

pub fn address(to: &Receiver) -> &Url {
    match to {
        Receiver::Slack(url) | Receiver::Webhook(url) => url,
    }
}

pub async fn deliver(client: &HttpClient, turn: &Turn) -> Outcome {
    let unreadable =
        |error: serde_json::Error| Outcome::Refused(format!("what was kept of it makes no sense: {error}"));
    let notification: Notification = match serde_json::from_str(&turn.entry.body) {
        Ok(notification) => notification,
        Err(error) => return unreadable(error),
    };
    let body = match turn.to {
        Receiver::Slack(_) => notification.slack(),
        Receiver::Webhook(_) => notification.json(&turn.entry.id),
    };
    let body = match body {
        Ok(body) => body,
        Err(error) => return unreadable(error),
    };
    let url = address(&turn.to);
    let outgoing = Outgoing {
        method: Method::POST,
        url,
        headers: &[(CONTENT_TYPE, "application/json"), (ID, &turn.entry.id)],
        body,
    };
    match client.send(outgoing).await {
        Ok(answer) => judge(&answer, url, SystemTime::now()),
        Err(failure) => Outcome::Failed {
            why: failure.to_string(),
            wait: None,
        },
    }
}

/// The status alone counts: what was taken is taken, though the rest of the answer be broken.
fn judge(answer: &Answer, url: &Url, now: SystemTime) -> Outcome {
    let status = answer.status;
    if status.is_success() {
        return Outcome::Delivered;
    }
    let words = answer
        .body
        .as_deref()
        .map_or(String::new(), |body| first_words(body, url));
    let why = match &*words {
        "" => format!("it answers {}", status.as_u16()),
        words => format!("it answers {}: {words}", status.as_u16()),
    };
    let passing = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status);
    match status.as_u16() {
        300..400 => Outcome::Refused(format!("{why}; redirects are not followed")),
        400..500 if !passing => Outcome::Refused(why),
        _ => Outcome::Failed {
            why,
            wait: answer
                .headers
                .get(RETRY_AFTER)
                .and_then(|value| retry_after(value.to_str().ok()?, now)),
        },
    }
}

/// RFC 9110, section 10.2.3: seconds, or a date.
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;
    use std::time::UNIX_EPOCH;

    fn judged(status: u16, wait: Option<&str>) -> Outcome {
        let mut headers = HeaderMap::new();
        if let Some(wait) = wait {
            headers.insert(RETRY_AFTER, wait.parse().unwrap());
        }
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body: Ok(b"no /secret".to_vec()),
        };
        // Sun, 06 Nov 1994 08:49:37 GMT
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        judge(&answer, &Url::new("http://127.0.0.1/secret"), now)
    }

    #[test]
    fn success_is_taken_and_client_errors_are_final_and_the_rest_is_tried_again() {
        for status in [200, 202, 204, 299] {
            assert_eq!(judged(status, None), Outcome::Delivered);
        }
        for status in [300, 301, 308, 400, 401, 404, 410, 413, 422] {
            assert!(matches!(judged(status, Some("5")), Outcome::Refused(_)), "{status}");
        }
        for status in [408, 429, 500, 502, 503, 504, 599] {
            assert!(
                matches!(judged(status, None), Outcome::Failed { wait: None, .. }),
                "{status}"
            );
        }
        assert_eq!(judged(410, None), Outcome::Refused("it answers 410: no /…".to_owned()));
    }

    #[test]
    fn a_receiver_may_ask_for_time() {
        for (asked, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("soon", None),
            ("-1", None),
            ("1.5", None),
        ] {
            let Outcome::Failed { wait, .. } = judged(503, Some(asked)) else {
                panic!("{asked}");
            };
            assert_eq!(wait, seconds.map(Duration::from_secs), "{asked}");
        }
    }
}

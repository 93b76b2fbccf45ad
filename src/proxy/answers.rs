//! The answers the proxy gives of itself: short, plain, never cached.

use crate::http1::Version;
use std::io::Write;

/// What one of our own answers says.
pub struct OwnAnswer<'a> {
    pub status: u16,
    /// One line for the person who sees it: what, and what to do.
    pub text: &'a str,
    pub request_id: &'a str,
    pub date: &'a str,
    /// What the client speaks.
    pub client: Version,
    /// The connection closes behind it.
    pub close: bool,
    /// The answer to `HEAD`: the same head, and no body.
    pub head_only: bool,
    /// Further field lines, each with its end.
    pub fields: &'a str,
}

impl OwnAnswer<'_> {
    /// Writes the head to `out`; returns the body.
    pub fn write(&self, out: &mut Vec<u8>) -> Vec<u8> {
        let reason = reason_phrase(self.status);
        let mut body = format!("{} {reason}: {}\nrequest {}\n", self.status, self.text, self.request_id).into_bytes();
        let extra = match self.status {
            // CONNECT and TRACE are what is not allowed (RFC 9110 section 15.5.6).
            405 => "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n",
            503 => "Retry-After: 1\r\n",
            _ => "",
        };
        let connection = match (self.client, self.close) {
            (Version::Http2, _) => "",
            (_, true) => "Connection: close\r\n",
            (_, false) => "Connection: keep-alive\r\n",
        };
        // Writing to a vector does not fail.
        let _ = write!(
            out,
            "HTTP/1.1 {} {reason}\r\nDate: {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\n{extra}{}X-Request-Id: {}\r\nVia: 1.1 rollgate\r\n{connection}\r\n",
            self.status,
            self.date,
            body.len(),
            self.fields,
            self.request_id,
        );
        if self.head_only {
            body.clear();
        }
        body
    }
}
/// The phrase of RFC 9110 section 15 for the statuses the proxy answers of itself.
fn reason_phrase(status: u16) -> &'static str {
    http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Error")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_that_of_the_body_and_head_has_none() {
        for status in [400, 404, 413, 431, 500, 502, 503, 504] {
            let mut answer = OwnAnswer {
                status,
                text: "no route",
                request_id: "abc",
                date: "Sun, 06 Nov 1994 08:49:37 GMT",
                client: Version::Http11,
                close: true,
                head_only: false,
                fields: "X-More: 1\r\n",
            };
            let mut head = Vec::new();
            let body = answer.write(&mut head);
            let text = String::from_utf8(head.clone()).unwrap();
            assert!(
                text.contains(&format!("\r\nContent-Length: {}\r\n", body.len())),
                "{text}"
            );
            assert!(text.ends_with("\r\nConnection: close\r\n\r\n"), "{text}");
            assert!(text.contains("\r\nX-More: 1\r\n"));
            answer.head_only = true;
            let mut only = Vec::new();
            assert!(answer.write(&mut only).is_empty());
            assert_eq!(only, head);
            answer.client = Version::Http2;
            only.clear();
            answer.write(&mut only);
            assert!(!String::from_utf8(only).unwrap().contains("Connection"));
        }
    }
}

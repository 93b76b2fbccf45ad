//! The answers the proxy gives of itself: short, plain, never cached.

use crate::http1::Version;
use crate::http2::grpc;
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
    /// To a call of gRPC: the status is told as `grpc-status`, in a head that nothing follows.
    pub is_grpc: bool,
    /// What the file says, in place of `text`. It is not ours to say whether it may be cached.
    pub content: Option<Content<'a>>,
}

/// A body with its media type.
#[derive(Debug, Clone, Copy)]
pub struct Content<'a> {
    pub media_type: &'a str,
    pub body: &'a str,
}

impl OwnAnswer<'_> {
    /// Writes the head to `out`; returns the body.
    pub fn write(&self, out: &mut Vec<u8>) -> Vec<u8> {
        if self.is_grpc {
            self.write_grpc(out);
            return Vec::new();
        }
        let reason = reason_phrase(self.status);
        let said = match self.content {
            Some(_) => String::new(),
            None => format!("{} {reason}: {}\nrequest {}\n", self.status, self.text, self.request_id),
        };
        let Content { media_type, body } = self.content.unwrap_or(Content {
            media_type: "text/plain; charset=utf-8",
            body: &said,
        });
        let extra = match self.status {
            _ if self.content.is_some() => "",
            // CONNECT and TRACE are what is not allowed (RFC 9110 section 15.5.6).
            405 => "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\nCache-Control: no-store\r\n",
            503 => "Retry-After: 1\r\nCache-Control: no-store\r\n",
            _ => "Cache-Control: no-store\r\n",
        };
        // RFC 9110 section 8.6: a 204 has no length, and that of a 304 would be of what is not sent.
        let described = match self.status {
            204 | 304 => String::new(),
            205 => "Content-Length: 0\r\n".to_owned(),
            _ => format!("Content-Type: {media_type}\r\nContent-Length: {}\r\n", body.len()),
        };
        let connection = match (self.client, self.close) {
            (Version::Http2, _) => "",
            (_, true) => "Connection: close\r\n",
            (_, false) => "Connection: keep-alive\r\n",
        };
        // Writing to a vector does not fail.
        let _ = write!(
            out,
            "HTTP/1.1 {} {reason}\r\nDate: {}\r\n{described}{extra}{}X-Request-Id: {}\r\nVia: 1.1 \
             rollgate\r\n{connection}\r\n",
            self.status, self.date, self.fields, self.request_id,
        );
        let mut body = body.as_bytes().to_vec();
        if self.head_only {
            body.clear();
        }
        body
    }

    fn write_grpc(&self, out: &mut Vec<u8>) {
        // Writing to a vector does not fail.
        let _ = write!(
            out,
            "HTTP/1.1 200 OK\r\nDate: {}\r\nContent-Type: application/grpc\r\nGrpc-Status: {}\r\nGrpc-Message: ",
            self.date,
            grpc::status_for(self.status),
        );
        grpc::write_message(out, &format!("{} (request {})", self.text, self.request_id));
        let _ = write!(
            out,
            "\r\n{}X-Request-Id: {}\r\nVia: 1.1 rollgate\r\n\r\n",
            self.fields, self.request_id
        );
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
                is_grpc: false,
                content: None,
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

    #[test]
    fn a_call_of_grpc_is_told_in_a_head_that_nothing_follows() {
        let answer = OwnAnswer {
            status: 503,
            text: "no endpoint: 100% down",
            request_id: "abc",
            date: "Sun, 06 Nov 1994 08:49:37 GMT",
            client: Version::Http2,
            close: false,
            head_only: false,
            fields: "",
            is_grpc: true,
            content: None,
        };
        let mut head = Vec::new();
        assert!(answer.write(&mut head).is_empty());
        let text = String::from_utf8(head).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(text.contains("\r\nGrpc-Status: 14\r\nGrpc-Message: no endpoint: 100%25 down (request abc)\r\n"));
        assert!(text.ends_with("\r\n\r\n") && !text.contains("Content-Length"), "{text}");
    }
}

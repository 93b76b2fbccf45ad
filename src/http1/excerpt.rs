//! A head that was refused, for the eyes of an operator: what frames and routes is shown, what may be secret is not.

use super::{is_token_byte, trim_ows};
use std::fmt::Write;

/// Lines shown; what is behind them is counted.
const MAX_LINES: usize = 32;
/// Bytes shown of a line, before escaping.
const MAX_LINE: usize = 256;
/// Bytes shown behind the first control character of a line: enough to know what it is, too few for a secret.
const BEHIND_CONTROL: usize = 8;

/// Bytes shown of a beginning that is no start line.
const MAX_UNKNOWN: usize = 8;

/// Fields whose value says how the message is framed, or where it goes. All other values are replaced by their length.
const SHOWN: [&[u8]; 11] = [
    b"host",
    b"content-length",
    b"transfer-encoding",
    b"connection",
    b"proxy-connection",
    b"keep-alive",
    b"expect",
    b"upgrade",
    b"te",
    b"trailer",
    b"content-type",
];

/// The lines of `bytes`, which may be no HTTP at all, in printable ASCII: bytes outside it as `\x16`, line ends as `\r\n`
/// or `\n`. At most 33 lines of about 1 KiB.
pub fn excerpt(bytes: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        if lines.len() == MAX_LINES {
            lines.push(format!("({} more bytes)", rest.len()));
            break;
        }
        let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
        let (line, behind) = rest.split_at_checked(end).unwrap_or((rest, b""));
        lines.push(if lines.is_empty() { start(line) } else { field(line) });
        rest = behind;
        if matches!(line, b"\r\n" | b"\n") && lines.len() > 1 {
            // What follows is a body.
            break;
        }
    }
    lines
}

/// A request or status line. Anything else may be a piece of a body: its beginning.
fn start(line: &[u8]) -> String {
    let token = line.iter().take_while(|&&byte| is_token_byte(byte)).count();
    let is_request = token > 0 && line.get(token) == Some(&b' ');
    if is_request || line.starts_with(b"HTTP/") || line.len() <= MAX_UNKNOWN {
        return shown(line);
    }
    let kept = line.get(..MAX_UNKNOWN).unwrap_or_default();
    format!("{}({} more bytes)", kept.escape_ascii(), line.len() - kept.len())
}

/// A field line: its name, and its value if that may be shown.
fn field(line: &[u8]) -> String {
    let (content, end) = split_end(line);
    let Some(colon) = memchr::memchr(b':', content) else {
        return if content.is_empty() {
            shown(end)
        } else {
            format!("({} bytes without a colon){}", content.len(), shown(end))
        };
    };
    let (name, value) = content.split_at_checked(colon).unwrap_or((content, b""));
    let token = name.iter().take_while(|&&byte| is_token_byte(byte)).count();
    let (token, odd) = name.split_at_checked(token).unwrap_or((name, b""));
    if odd.is_empty() && SHOWN.contains(&&*token.to_ascii_lowercase()) {
        return shown(line);
    }
    let mut text = shown(token);
    // A blank before the colon is worth seeing; more than that may be anything.
    text += &match odd.len() {
        0..=2 => shown(odd),
        more => format!("({more} bytes)"),
    };
    let hidden = trim_ows(value.get(1..).unwrap_or_default()).len();
    // Writing to a string cannot fail.
    let _ = write!(text, ": ({hidden} bytes){}", shown(end));
    text
}

/// The line and what ends it: CRLF, LF or nothing.
fn split_end(line: &[u8]) -> (&[u8], &[u8]) {
    let end = match line {
        [.., b'\r', b'\n'] => 2,
        [.., b'\n'] => 1,
        _ => 0,
    };
    line.split_at_checked(line.len() - end).unwrap_or((line, b""))
}

/// Escaped, up to a little behind the first control character (a CR in the middle may hide another field).
fn shown(line: &[u8]) -> String {
    let (content, end) = split_end(line);
    let control = content
        .iter()
        .position(|byte| byte.is_ascii_control() && *byte != b'\t');
    let limit = control.map_or(content.len(), |at| at + BEHIND_CONTROL).min(MAX_LINE);
    let kept = content.get(..limit).unwrap_or(content);
    let mut text = kept.escape_ascii().to_string();
    if kept.len() < content.len() {
        let _ = write!(text, "({} more bytes)", content.len() - kept.len());
    }
    let _ = write!(text, "{}", end.escape_ascii());
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn framing_is_shown_and_secrets_are_not() {
        let head = b"POST /a?b HTTP/1.1\r\nHost: a\x00b\r\nContent-Length : 5\r\ncontent-length: 5\r\nAuthorization: Bearer secret\r\n\
                     Cookie: id=secret\n secret\r\nX-Odd\rAuthorization: secret\r\nno colon secret\r\n\r\nsecret body";
        assert_eq!(
            excerpt(head),
            [
                r"POST /a?b HTTP/1.1\r\n",
                r"Host: a\x00b\r\n",
                r"Content-Length : (1 bytes)\r\n",
                r"content-length: 5\r\n",
                r"Authorization: (13 bytes)\r\n",
                r"Cookie: (9 bytes)\n",
                r"(7 bytes without a colon)\r\n",
                r"X-Odd(14 bytes): (6 bytes)\r\n",
                r"(15 bytes without a colon)\r\n",
                r"\r\n",
            ]
        );
    }

    #[test]
    fn what_is_no_http_is_shown_by_its_beginning() {
        assert_eq!(
            excerpt(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03"),
            [r"\x16\x03\x01\x02\x00\x01\x00\x01(2 more bytes)"]
        );
        assert_eq!(excerpt(b"password=secret&a=b"), ["password(11 more bytes)"]);
        assert_eq!(excerpt(b"HTTP/1.1 200 OK\n"), [r"HTTP/1.1 200 OK\n"]);
        assert_eq!(excerpt(b"\r\nGET / HTTP/1.1\r\n").len(), 2);
        assert_eq!(excerpt(b""), Vec::<String>::new());
        let many = "a: b\r\n".repeat(100);
        let lines = excerpt(many.as_bytes());
        assert_eq!((lines.len(), lines[32].as_str()), (33, "(408 more bytes)"));
    }

    proptest! {
        /// Wherever line ends, blanks and controls are: no value of a field that is not listed, of nine characters or more.
        #[test]
        fn no_secret_is_shown(
            before in proptest::collection::vec(proptest::sample::select(vec!["\r", "\n", "\r\n", ":", " ", "\t", "\0", "Host", "a", "x: y"]), 0..12),
            name in proptest::sample::select(vec!["Authorization", "cookie", "Set-Cookie", "x-api-key", "Host\rCookie", "Host \r Cookie"]),
            gap in proptest::sample::select(vec![":", " :", ": ", ":\t", "\0:"]),
        ) {
            let text = format!("GET / HTTP/1.1\r\n{}\r\n{name}{gap}SECRETSECRET\r\n\r\n", before.concat());
            let lines = excerpt(text.as_bytes());
            prop_assert!(!lines.concat().contains("SECRETSECRET"), "{lines:?}");
        }

        #[test]
        fn any_bytes_are_printable_and_bounded(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let lines = excerpt(&bytes);
            prop_assert!(lines.len() <= MAX_LINES + 1);
            for line in lines {
                prop_assert!(line.len() <= 1200 && line.bytes().all(|b| (0x20..0x7f).contains(&b)), "{line}");
            }
        }
    }
}

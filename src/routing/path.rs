//! The one form of a path that routes are compared with, so that no other way to write it leads elsewhere.

use std::borrow::Cow;

/// Why a path leads nowhere: what stands behind a proxy might resolve it to another one than the proxy compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PathFault {
    #[error("the path has a segment that is `.` or `..`")]
    DotSegment,
    #[error("the path has a backslash")]
    Backslash,
    #[error("the path has an encoded NUL")]
    Nul,
    #[error("the path has a `%` without two hexadecimal digits behind it")]
    Escape,
}

/// `path` in canonical form: unreserved characters are not encoded (RFC 3986 section 6.2.2.2), the digits of other escapes
/// are capitals, and slashes that follow each other are one. What else is encoded stays so: an encoded slash is none.
/// Canonical already, as nearly all are, it is borrowed.
///
/// # Errors
/// It has no such form. A segment is `.` or `..` however it is written, also with parameters (`..;a`), and also where
/// only an encoded slash or backslash parts it from its neighbours: servers differ in whether they decode those first.
pub fn canonical_path(path: &str) -> Result<Cow<'_, str>, PathFault> {
    if is_plain(path.as_bytes()) {
        return Ok(Cow::Borrowed(path));
    }
    let canonical = if is_canonical(path)? {
        Cow::Borrowed(path)
    } else {
        Cow::Owned(rebuilt(path))
    };
    if has_dot_segment(&canonical) {
        return Err(PathFault::DotSegment);
    }
    Ok(canonical)
}

/// Whether there is nothing in `path` that needs a closer look. It reads all of it, many bytes a step.
fn is_plain(path: &[u8]) -> bool {
    let is_odd = |byte: u8| (byte == b'%') | (byte == b'\\');
    let follows_slash = |byte: u8| (byte == b'/') | (byte == b'.');
    let pairs = path.iter().zip(path.iter().skip(1));
    let odd = pairs.fold(false, |odd, (&byte, &next)| {
        odd | is_odd(next) | ((byte == b'/') & follows_slash(next))
    });
    !odd && path.first().is_none_or(|&first| !is_odd(first))
}

/// What a path is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Char(char),
    /// An encoded byte that stays so.
    Escape(u8),
}

/// The units of a path, each with whether it is written in its canonical form.
struct Units<'a>(std::str::Chars<'a>);

impl Iterator for Units<'_> {
    type Item = Result<(Unit, bool), PathFault>;

    fn next(&mut self) -> Option<Self::Item> {
        let digit = |digit: Option<char>| digit.and_then(|digit| Some((digit, digit.to_digit(16)?)));
        Some(match self.0.next()? {
            '\\' => Err(PathFault::Backslash),
            '%' => match (digit(self.0.next()), digit(self.0.next())) {
                (Some((high, a)), Some((low, b))) => match u8::try_from(a << 4 | b).unwrap_or_default() {
                    0 => Err(PathFault::Nul),
                    byte if is_unreserved(byte) => Ok((Unit::Char(char::from(byte)), false)),
                    byte => Ok((Unit::Escape(byte), ![high, low].iter().any(char::is_ascii_lowercase))),
                },
                _ => Err(PathFault::Escape),
            },
            char => Ok((Unit::Char(char), true)),
        })
    }
}

/// RFC 3986 section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn is_canonical(path: &str) -> Result<bool, PathFault> {
    let mut canonical = !path.contains("//");
    for unit in Units(path.chars()) {
        canonical &= unit?.1;
    }
    Ok(canonical)
}

/// `path`, of which all units are good, in canonical form; never longer than it was.
fn rebuilt(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for (unit, _) in Units(path.chars()).flatten() {
        match unit {
            Unit::Char('/') if out.ends_with('/') => {}
            Unit::Char(char) => out.push(char),
            Unit::Escape(byte) => {
                let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or('0').to_ascii_uppercase();
                out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
            }
        }
    }
    out
}

/// Of a path in canonical form.
fn has_dot_segment(canonical: &str) -> bool {
    let segments = canonical
        .split('/')
        .flat_map(|part| part.split("%2F"))
        .flat_map(|part| part.split("%5C"));
    segments
        .filter(|segment| segment.starts_with('.'))
        .any(|segment| matches!(without_parameters(segment), "." | ".."))
}

/// What stands before the parameters of a segment (RFC 3986 section 3.3).
fn without_parameters(segment: &str) -> &str {
    let name = segment.split(';').next().unwrap_or_default();
    name.split("%3B").next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn form(path: &str) -> String {
        canonical_path(path).unwrap().into_owned()
    }

    #[test]
    fn what_is_canonical_is_borrowed() {
        for path in [
            "/",
            "*",
            "",
            "/a/b",
            "/a/",
            "/.well-known/x",
            "/...",
            "/..a/.b",
            "/a;b=..",
            "/a.",
            "/a..b",
            "/%20%2F%C3%A9%25",
            "/a%2F.b",
            "/a:b@c!$&'()*+,=-._~",
            "/%5Cuser",
        ] {
            assert!(
                matches!(canonical_path(path), Ok(Cow::Borrowed(same)) if same == path),
                "{path}"
            );
        }
    }

    #[test]
    fn other_ways_to_write_a_path() {
        for (path, expected) in [
            ("//admin", "/admin"),
            ("/a///b//", "/a/b/"),
            ("/%61dmin", "/admin"),
            ("/%41%7e%2D%5f%2e%39", "/A~-_.9"),
            ("/a%2fb", "/a%2Fb"),
            ("/%c3%A9", "/%C3%A9"),
            ("/%252e%252e/", "/%252e%252e/"),
            ("/%2561", "/%2561"),
            ("/a/%2fb", "/a/%2Fb"),
            ("/.well%2dknown", "/.well-known"),
        ] {
            assert_eq!(form(path), expected, "{path}");
        }
    }

    #[test]
    fn paths_that_lead_nowhere() {
        for path in [
            "/.",
            "/..",
            "/./",
            "/a/../b",
            "/a/..",
            "/../a",
            "//..",
            "/%2e",
            "/%2E%2e/a",
            "/.%2e",
            "/a/%2e%2e;x/b",
            "/..;",
            "/..;a=b/c",
            "/.;/a",
            "/a%2f..%2fb",
            "/a/..%2F",
            "/a%5c..",
            "/..%5Ca",
            "/..%3bx",
            "/a%2f%2e",
            "%2e",
        ] {
            assert_eq!(canonical_path(path), Err(PathFault::DotSegment), "{path}");
        }
        for (path, fault) in [
            ("/a\\b", PathFault::Backslash),
            ("\\", PathFault::Backslash),
            ("/..\\", PathFault::Backslash),
            ("/%00", PathFault::Nul),
            ("/a%00.png", PathFault::Nul),
            ("/%", PathFault::Escape),
            ("/100%", PathFault::Escape),
            ("/%4", PathFault::Escape),
            ("/%zz", PathFault::Escape),
            ("/%%36%31", PathFault::Escape),
            ("/%+1", PathFault::Escape),
        ] {
            assert_eq!(canonical_path(path), Err(fault), "{path}");
        }
    }

    fn path() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            4 => "[a-z.;/]{1,3}",
            2 => prop::sample::select(vec!["/", "//", ".", "..", "%2e", "%2F", "%2f", "%5c", "%61", "%25", "%3b", "%c3", "%00", "\\", "%"])
                .prop_map(str::to_owned),
            1 => "[!-~é]",
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    /// What a server might make of a path: all that is encoded decoded, parameters cut off, backslashes taken for slashes.
    fn resolves_elsewhere(path: &str) -> bool {
        let mut decoded = Vec::new();
        let mut rest = path.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            let pair = after.get(..2).and_then(|pair| str::from_utf8(pair).ok());
            match pair
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                .filter(|_| byte == b'%')
            {
                Some(value) => {
                    decoded.push(value);
                    rest = &after[2..];
                }
                None => {
                    decoded.push(byte);
                    rest = after;
                }
            }
        }
        decoded.split(|byte| matches!(byte, b'/' | b'\\')).any(|segment| {
            let name = segment.split(|&byte| byte == b';').next().unwrap();
            matches!(name, b"." | b"..")
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        /// What has a form has one: it is its own, no longer than what was written, and nobody can resolve it elsewhere.
        #[test]
        fn the_form_is_final(path in path()) {
            if let Ok(form) = canonical_path(&path) {
                prop_assert!(matches!(canonical_path(&form), Ok(Cow::Borrowed(again)) if again == form), "{form}");
                prop_assert!(form.len() <= path.len() && form.starts_with('/') && !form.contains("//"));
                prop_assert!(!resolves_elsewhere(&form) && !resolves_elsewhere(&path), "{path}");
                prop_assert_eq!(form == path.as_str(), matches!(form, Cow::Borrowed(_)));
            }
        }

        /// However an unreserved character is written, and however many slashes: it is the same path.
        #[test]
        fn ways_to_write_a_path_are_one(segments in prop::collection::vec("[a-zA-Z0-9~_-]{1,5}(%2F|%20|[!;:@é])?", 1..5), seed: u64) {
            let plain = format!("/{}", segments.join("/"));
            let mut bits = seed;
            let mut draw = || { bits = bits.rotate_left(1); bits & 1 == 1 };
            let mut written = String::new();
            let mut escape = 0;
            for char in plain.chars() {
                let in_escape = escape > 0;
                escape = if char == '%' { 2_u8 } else { escape.saturating_sub(1) };
                match char {
                    '/' if draw() => written.push_str("///"),
                    _ if in_escape && draw() => written.push(char.to_ascii_lowercase()),
                    _ if !in_escape && char.is_ascii_alphanumeric() && draw() => written += &format!("%{:02x}", char as u32),
                    _ => written.push(char),
                }
            }
            prop_assert_eq!(canonical_path(&written), Ok(Cow::Owned(plain)));
        }

        /// The quick look overlooks nothing.
        #[test]
        fn what_is_plain_is_canonical(path in path()) {
            if is_plain(path.as_bytes()) {
                prop_assert_eq!(is_canonical(&path), Ok(true));
                prop_assert!(!has_dot_segment(&path));
            }
        }
    }
}

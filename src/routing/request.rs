//! The request as the decision sees it: borrowed, protocol-independent.

use std::borrow::Cow;
use std::net::IpAddr;

/// Read access to the header fields of a request, whatever protocol carried it.
pub trait HeaderFields {
    /// The value of the `n`th field line (from 0) called `name`, in the order received; `None` past the last.
    /// `name` is lowercase ASCII; field names are compared without regard to case.
    fn nth(&self, name: &str, n: usize) -> Option<&[u8]>;

    /// Asks `test` of each field line called `name`, in order, until one satisfies it. One pass over the fields where
    /// the implementation has a better way than asking for line after line.
    fn any<'s>(&'s self, name: &str, test: &mut dyn FnMut(&'s [u8]) -> bool) -> bool {
        (0..).map_while(|n| self.nth(name, n)).any(test)
    }
}

/// Whether a field called `sent` is the one called `lowercase`: what an implementation of [`HeaderFields`] compares names
/// with. As `eq_ignore_ascii_case`, eight bytes a step.
#[inline]
pub fn is_field_name(sent: &[u8], lowercase: &[u8]) -> bool {
    if sent.len() != lowercase.len() {
        return false;
    }
    let ((sent_words, sent_rest), (words, rest)) = (sent.as_chunks::<8>(), lowercase.as_chunks::<8>());
    let same = |(sent, expected): (&[u8; 8], &[u8; 8])| {
        lowercase_word(u64::from_le_bytes(*sent)) == u64::from_le_bytes(*expected)
    };
    if !sent_words.iter().zip(words).all(same) {
        return false;
    }
    match (sent.last_chunk(), lowercase.last_chunk()) {
        // The last eight bytes again, of which some are compared already.
        (Some(sent), Some(expected)) => same((sent, expected)),
        _ => sent_rest.eq_ignore_ascii_case(rest),
    }
}

/// Eight bytes, the ASCII capitals among them in lowercase.
fn lowercase_word(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let low = word & (0x7f * ONES);
    // The top bit of each byte: whether it is at least `A`, and whether it is above `Z`.
    let from_a = low + u64::from(0x80 - b'A') * ONES;
    let above_z = low + u64::from(0x7f - b'Z') * ONES;
    let is_capital = (from_a ^ above_z) & !word & (0x80 * ONES);
    word | (is_capital >> 2)
}

/// One request, borrowed from the connection that carries it.
#[derive(Clone, Copy)]
pub struct RequestView<'a> {
    /// The method, case-sensitive (RFC 9110 section 9.1).
    pub method: &'a str,
    /// The host without port, as sent (any case). Empty for an HTTP/1.0 request without one.
    pub host: &'a str,
    /// The path of the target, from the first `/`, without the query; `*` for `OPTIONS *`. In canonical form
    /// ([`super::canonical_path`]).
    pub path: &'a str,
    /// The query without its `?`; empty when there is none.
    pub query: &'a str,
    /// The header fields as received.
    pub fields: &'a dyn HeaderFields,
    /// The client's address: the peer's, or what a trusted proxy says of it.
    pub client_ip: IpAddr,
    /// The certificate the peer has shown and was verified by; `None`: none was.
    pub client_cert: Option<&'a ClientCert>,
}

/// Who a client is by its certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientCert {
    /// Common name of the subject.
    pub subject_cn: Option<Box<str>>,
    /// Alternative names as text.
    pub san: Box<[Box<str>]>,
}

impl<'a> RequestView<'a> {
    /// The first cookie called `name` (case-sensitive) in the order of the `cookie` field lines, as sent: no decoding,
    /// quotes kept (RFC 6265 section 5.4). A part without `=` is no cookie.
    pub fn cookie(&self, name: &str) -> Option<&'a [u8]> {
        let mut found = None;
        self.fields.any("cookie", &mut |pairs| {
            found = cookies_in(pairs, name).next();
            found.is_some()
        });
        found
    }

    /// Every cookie called `name`, as [`RequestView::cookie`]. A browser sends several where they were set for
    /// different domains or paths.
    pub fn cookies<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let fields = self.fields;
        (0..)
            .map_while(move |line| fields.nth("cookie", line))
            .flat_map(move |pairs| cookies_in(pairs, name))
    }

    /// The first query parameter called `name`, decoded as a form (`%41`, `+` for a space; a broken escape stays as it
    /// is). `?name` alone is present and empty. Borrowed where nothing had to be decoded.
    pub fn query_parameter(&self, name: &str) -> Option<Cow<'a, [u8]>> {
        let parameters = Parts {
            rest: Some(self.query.as_bytes()),
            at: b'&',
        };
        parameters
            .filter(|parameter| may_be_called(parameter, name))
            .find_map(|parameter| {
                let (key, value) = match memchr::memchr(b'=', parameter) {
                    Some(at) => (parameter.get(..at)?, parameter.get(at + 1..)?),
                    None => (parameter, &b""[..]),
                };
                if !FormDecoded(key).eq(name.bytes()) {
                    return None;
                }
                Some(match memchr::memchr2(b'%', b'+', value) {
                    None => Cow::Borrowed(value),
                    Some(_) => Cow::Owned(FormDecoded(value).collect()),
                })
            })
    }

    /// The client's address, an IPv4 address carried in IPv6 (`::ffff:192.0.2.1`) as IPv4: on a dual-stack listener the
    /// same client must look the same.
    pub fn canonical_client_ip(&self) -> IpAddr {
        self.client_ip.to_canonical()
    }
}

/// Every cookie called `name` in one field line.
fn cookies_in<'a, 'n>(pairs: &'a [u8], name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
    Parts {
        rest: Some(pairs),
        at: b';',
    }
    .filter_map(move |pair| {
        let value = pair.trim_ascii_start().strip_prefix(name.as_bytes())?;
        Some(value.trim_ascii_start().strip_prefix(b"=")?.trim_ascii())
    })
}

/// The parts of a text between the bytes `at`.
struct Parts<'a> {
    rest: Option<&'a [u8]>,
    at: u8,
}

impl<'a> Iterator for Parts<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        let end = memchr::memchr(self.at, rest);
        self.rest = end.and_then(|end| rest.get(end + 1..));
        Some(end.and_then(|end| rest.get(..end)).unwrap_or(rest))
    }
}

/// Whether a query parameter can have this name: a quick look at its first byte.
fn may_be_called(parameter: &[u8], name: &str) -> bool {
    match (parameter.first(), name.as_bytes().first()) {
        (Some(b'%' | b'+'), _) => true,
        (Some(first), Some(wanted)) => first == wanted,
        (Some(first), None) => *first == b'=',
        (None, _) => false,
    }
}

/// The bytes of a form-encoded text, decoded one by one.
struct FormDecoded<'a>(&'a [u8]);

impl Iterator for FormDecoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        if let [b'%', high, low, rest @ ..] = self.0
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            self.0 = rest;
            return Some(high << 4 | low);
        }
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(if byte == b'+' { b' ' } else { byte })
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Field lines for tests.
    #[derive(Debug, Default, Clone)]
    pub struct Lines(pub Vec<(String, Vec<u8>)>);

    impl Lines {
        pub fn of(lines: &[(&str, &str)]) -> Self {
            Self(
                lines
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
                    .collect(),
            )
        }
    }

    impl HeaderFields for Lines {
        fn nth(&self, name: &str, n: usize) -> Option<&[u8]> {
            self.0
                .iter()
                .filter(|(key, _)| key.eq_ignore_ascii_case(name))
                .nth(n)
                .map(|(_, value)| value.as_slice())
        }
    }

    /// A request of 192.0.2.7 to `http://shop.example.com/`.
    pub fn request(fields: &Lines) -> RequestView<'_> {
        RequestView {
            method: "GET",
            host: "shop.example.com",
            path: "/",
            query: "",
            fields,
            client_ip: "192.0.2.7".parse().unwrap(),
            client_cert: None,
        }
    }

    #[test]
    fn cookies_are_found_in_every_line() {
        let fields = Lines::of(&[
            ("Cookie", "a=1; bb=2;c = 3 ;; novalue; e=; d=x=y"),
            ("x", "y"),
            ("cookie", "a=9; f=\"q\""),
        ]);
        let view = request(&fields);
        for (name, value) in [
            ("a", Some("1")),
            ("bb", Some("2")),
            ("b", None),
            ("c", Some("3")),
            ("novalue", None),
            ("e", Some("")),
            ("d", Some("x=y")),
            ("f", Some("\"q\"")),
            ("A", None),
            ("", None),
        ] {
            assert_eq!(view.cookie(name), value.map(str::as_bytes), "{name}");
        }
    }

    #[test]
    fn parameters_are_decoded() {
        let fields = Lines::default();
        let query = "a=1&a=2&%62=x%20y+z&c&=empty&&d=%zz%4&e==%3D";
        let view = RequestView {
            query,
            ..request(&fields)
        };
        for (name, value) in [
            ("a", Some("1")),
            ("b", Some("x y z")),
            ("c", Some("")),
            ("d", Some("%zz%4")),
            ("e", Some("==")),
            ("f", None),
            ("", Some("empty")),
        ] {
            assert_eq!(
                view.query_parameter(name).as_deref(),
                value.map(str::as_bytes),
                "{name}"
            );
        }
        assert!(matches!(view.query_parameter("a"), Some(Cow::Borrowed(_))));
        assert_eq!(request(&fields).query_parameter(""), None);
    }

    #[test]
    fn every_byte_of_a_name_counts() {
        for len in 0..20 {
            let name = "content-length-x-y-z".as_bytes()[..len].to_vec();
            assert!(is_field_name(&name, &name) && is_field_name(&name.to_ascii_uppercase(), &name));
            for at in 0..len {
                for byte in 0..=255 {
                    let mut sent = name.to_ascii_uppercase();
                    sent[at] = byte;
                    assert_eq!(
                        is_field_name(&sent, &name),
                        sent.eq_ignore_ascii_case(&name),
                        "{at} {byte}"
                    );
                }
            }
            assert!(!is_field_name(&name, b"content-length-x-y-z-"));
        }
    }

    proptest! {
        #[test]
        fn names_compare_as_the_standard_library_does(
            (sent, other) in prop::collection::vec((any::<u8>(), any::<u8>()), 0..40).prop_map(|pairs| {
                pairs.into_iter().unzip::<u8, u8, Vec<u8>, Vec<u8>>()
            }),
        ) {
            let lower = sent.to_ascii_lowercase();
            prop_assert!(is_field_name(&sent, &lower));
            let other = other.to_ascii_lowercase();
            prop_assert_eq!(is_field_name(&sent, &other), sent.eq_ignore_ascii_case(&other));
        }

        #[test]
        fn no_input_panics(query in ".{0,60}", cookie in prop::collection::vec(any::<u8>(), 0..60), name in ".{0,4}") {
            let fields = Lines(vec![("cookie".to_owned(), cookie)]);
            let view = RequestView { query: &query, ..request(&fields) };
            let _ = (view.cookie(&name), view.query_parameter(&name));
        }
    }
}

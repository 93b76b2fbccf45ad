//! The request as the decision sees it: borrowed, protocol-independent.

use std::borrow::Cow;
use std::net::IpAddr;

/// Read access to the header fields of a request, whatever protocol carried it.
pub trait HeaderFields {
    /// The value of the `n`th field line (from 0) called `name`, in the order received; `None` past the last.
    /// `name` is lowercase ASCII; field names are compared without regard to case.
    fn nth(&self, name: &str, n: usize) -> Option<&[u8]>;
}

/// One request, borrowed from the connection that carries it.
#[derive(Clone, Copy)]
pub struct RequestView<'a> {
    /// The method, case-sensitive (RFC 9110 section 9.1).
    pub method: &'a str,
    /// The host without port, as sent (any case). Empty for an HTTP/1.0 request without one.
    pub host: &'a str,
    /// The path of the target, from the first `/`, without the query; `*` for `OPTIONS *`.
    pub path: &'a str,
    /// The query without its `?`; empty when there is none.
    pub query: &'a str,
    /// The header fields as received.
    pub fields: &'a dyn HeaderFields,
    /// The client's address: the peer's, or what a trusted proxy says of it.
    pub client_ip: IpAddr,
}

impl<'a> RequestView<'a> {
    /// The first cookie called `name` (case-sensitive) in the order of the `cookie` field lines, as sent: no decoding,
    /// quotes kept (RFC 6265 section 5.4). A part without `=` is no cookie.
    pub fn cookie(&self, name: &str) -> Option<&'a [u8]> {
        self.cookies(name).next()
    }

    /// Every cookie called `name`, as [`RequestView::cookie`]. A browser sends several where they were set for
    /// different domains or paths.
    pub fn cookies<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let fields = self.fields;
        (0..)
            .map_while(move |line| fields.nth("cookie", line))
            .flat_map(|pairs| pairs.split(|&byte| byte == b';'))
            .filter_map(move |pair| {
                let value = pair.trim_ascii().strip_prefix(name.as_bytes())?;
                Some(value.trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start())
            })
    }

    /// The first query parameter called `name`, decoded as a form (`%41`, `+` for a space; a broken escape stays as it
    /// is). `?name` alone is present and empty. Borrowed where nothing had to be decoded.
    pub fn query_parameter(&self, name: &str) -> Option<Cow<'a, [u8]>> {
        let query: &'a [u8] = self.query.as_bytes();
        query.split(|&byte| byte == b'&').find_map(|parameter| {
            let equals = memchr::memchr(b'=', parameter);
            let (key, value) = match equals {
                Some(at) => (parameter.get(..at)?, parameter.get(at + 1..)?),
                None => (parameter, &b""[..]),
            };
            if parameter.is_empty() || !FormDecoded(key).eq(name.bytes()) {
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

    proptest! {
        #[test]
        fn no_input_panics(query in ".{0,60}", cookie in prop::collection::vec(any::<u8>(), 0..60), name in ".{0,4}") {
            let fields = Lines(vec![("cookie".to_owned(), cookie)]);
            let view = RequestView { query: &query, ..request(&fields) };
            let _ = (view.cookie(&name), view.query_parameter(&name));
        }
    }
}

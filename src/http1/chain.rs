//! What proxies in front tell of a request: who its client is, by which scheme and for which host it came. Each writes at the
//! end of what it was told, so the end is what the proxy next to us has written, and what is in front of the first entry that
//! is not a trusted proxy's may be anybody's invention.
//!
//! `X-Forwarded-*` is what proxies write; `Forwarded` (RFC 7239) stands in where none of them came. Beside them it is most
//! likely the client's own, which a proxy that does not know it has passed on.

use super::target::parse_authority;
use crate::routing::HeaderFields;
use std::net::IpAddr;

const X_FORWARDED: [&str; 3] = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];

/// Entries of a list that are looked at; a longer chain is believed no further.
const MAX_HOPS: usize = 64;

/// What the chain tells beside the client's address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Chain {
    /// Whether the client came by https; `None`: it tells nothing of that.
    pub https: Option<bool>,
    /// Which entry of a list is the client's, from the end.
    place: u8,
    /// It was told by `Forwarded`.
    pub(super) is_forwarded: bool,
}

impl Chain {
    /// Of the fields of a request whose peer is trusted. The client is the nearest hop of the chain that is not; an entry that
    /// is no address ends the chain: the last good one stands, `peer` if there is none.
    ///
    /// The scheme is the one at the client's own place, counted from the end: proxies add to `X-Forwarded-Proto` as they do to
    /// `X-Forwarded-For`, and what a client claimed itself is further in front. A shorter list is one that a proxy began anew: its
    /// first entry.
    pub fn read(peer: IpAddr, fields: &dyn HeaderFields, is_trusted: impl Fn(IpAddr) -> bool) -> (IpAddr, Self) {
        let is_forwarded = X_FORWARDED.iter().all(|name| fields.nth(name, 0).is_none());
        let (name, read): (_, fn(&str) -> Option<IpAddr>) = if is_forwarded {
            ("forwarded", forwarded_for)
        } else {
            ("x-forwarded-for", address_of)
        };
        let (mut client, mut place) = (peer, 0);
        for (hop, entry) in (0..).zip(entries(fields, name)) {
            let Some(address) = read(entry) else { break };
            (client, place) = (address, hop);
            if !is_trusted(client) {
                break;
            }
        }
        let scheme = if is_forwarded {
            at(fields, "forwarded", place).and_then(|element| parameter(element, "proto"))
        } else {
            at(fields, "x-forwarded-proto", place)
        };
        let chain = Self {
            https: scheme.and_then(is_https),
            place,
            is_forwarded,
        };
        (client, chain)
    }

    /// The host that `Forwarded` says the client asked for.
    pub(super) fn forwarded_host<'f>(&self, fields: &'f dyn HeaderFields) -> Option<&'f str> {
        let element = at(fields, "forwarded", self.place).filter(|_| self.is_forwarded)?;
        parameter(element, "host").filter(|host| parse_authority(host.as_bytes()).is_ok())
    }

    /// Whether the entry at `index` of `count` is the client's.
    pub(super) fn is_client(&self, index: usize, count: usize) -> bool {
        index == count.saturating_sub(1 + usize::from(self.place))
    }
}

/// The entries of a list over all lines of its field, from the end.
fn entries<'f>(fields: &'f dyn HeaderFields, name: &'static str) -> impl Iterator<Item = &'f str> {
    let lines = (0..MAX_HOPS).take_while(|&n| fields.nth(name, n).is_some()).count();
    let lines = (0..lines).rev().filter_map(move |n| fields.nth(name, n));
    let all = lines.flat_map(|line| line.rsplit(|&byte| byte == b','));
    all.map(|entry| str::from_utf8(entry).unwrap_or_default().trim())
        .take(MAX_HOPS)
}

/// The entry at this place from the end; of a shorter list the first.
fn at<'f>(fields: &'f dyn HeaderFields, name: &'static str, place: u8) -> Option<&'f str> {
    entries(fields, name).take(1 + usize::from(place)).last()
}

/// Some proxies write the schemes of WebSocket.
fn is_https(scheme: &str) -> Option<bool> {
    let is_one_of = |names: [&str; 2]| names.iter().any(|name| scheme.eq_ignore_ascii_case(name));
    match (is_one_of(["https", "wss"]), is_one_of(["http", "ws"])) {
        (false, false) => None,
        (https, _) => Some(https),
    }
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
pub(super) fn address_of(text: &str) -> Option<IpAddr> {
    let bare = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None if text.matches(':').count() == 1 => text.split_once(':')?.0,
        None => text,
    };
    bare.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// Whose hop an element of `Forwarded` is (RFC 7239 section 5.2); obfuscated names are no address.
pub(super) fn forwarded_for(element: &str) -> Option<IpAddr> {
    address_of(parameter(element, "for")?)
}

/// A parameter of an element of `Forwarded`, without its quotes.
fn parameter<'e>(element: &'e str, wanted: &str) -> Option<&'e str> {
    let value = element.split(';').find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        name.eq_ignore_ascii_case(wanted).then_some(value)
    })?;
    Some(value.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fields(Vec<(&'static str, &'static str)>);

    impl HeaderFields for Fields {
        fn nth(&self, name: &str, n: usize) -> Option<&[u8]> {
            self.0
                .iter()
                .filter(|(field, _)| *field == name)
                .nth(n)
                .map(|(_, value)| value.as_bytes())
        }
    }

    /// By a peer at 10.0.0.1; 10.0.0.0/8 is trusted.
    fn told(fields: &[(&'static str, &'static str)]) -> (String, Option<bool>, Option<String>) {
        let fields = Fields(fields.to_vec());
        let trusted = |address: IpAddr| matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 10);
        let (client, chain) = Chain::read("10.0.0.1".parse().unwrap(), &fields, trusted);
        (
            client.to_string(),
            chain.https,
            chain.forwarded_host(&fields).map(str::to_owned),
        )
    }

    fn client(fields: &[(&'static str, &'static str)]) -> String {
        told(fields).0
    }

    fn https(fields: &[(&'static str, &'static str)]) -> Option<bool> {
        told(fields).1
    }

    #[test]
    fn the_nearest_untrusted_hop_is_the_client() {
        for (expected, lines) in [
            ("1.2.3.4", &["6.6.6.6, 1.2.3.4, 10.0.0.9"][..]),
            ("1.2.3.4", &["6.6.6.6", "1.2.3.4:99"]),
            ("2001:dead::1", &["[2001:dead::1]:8080"]),
            ("10.9.9.9", &["10.9.9.9, 10.8.8.8"]),
        ] {
            let fields: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
            assert_eq!(client(&fields), expected, "{lines:?}");
        }
    }

    #[test]
    fn what_is_no_address_ends_the_chain() {
        assert_eq!(client(&[("x-forwarded-for", "1.2.3.4, unknown")]), "10.0.0.1");
        assert_eq!(client(&[("x-forwarded-for", "1.2.3.4, unknown, 10.0.0.2")]), "10.0.0.2");
        assert_eq!(client(&[("forwarded", "for=1.2.3.4, for=_hidden")]), "10.0.0.1");
        assert_eq!(told(&[]), ("10.0.0.1".to_owned(), None, None));
    }

    #[test]
    fn forwarded_is_read_where_x_forwarded_is_absent() {
        let forwarded = (
            "forwarded",
            r#"for=6.6.6.6;proto=http;host=evil, For="[2001:dead::7]:47011"; Proto=HTTPS; host="shop.test:8443", for=10.0.0.2;proto=http"#,
        );
        let expected = ("2001:dead::7".to_owned(), Some(true), Some("shop.test:8443".to_owned()));
        assert_eq!(told(&[forwarded]), expected);
        assert_eq!(https(&[("forwarded", "for=1.2.3.4")]), None);
        for bad in ["host=\"<x> y\"", "host=\"\"", "host=a/b", "host=u@a"] {
            let element = Box::leak(format!("for=1.2.3.4;{bad}").into_boxed_str());
            assert_eq!(told(&[("forwarded", element)]).2, None, "{bad}");
        }
    }

    /// A proxy that writes `X-Forwarded-*` and does not know `Forwarded` passes it on as its client sent it.
    #[test]
    fn beside_any_x_forwarded_nothing_of_forwarded_is_believed() {
        let forwarded = ("forwarded", "for=6.6.6.6;proto=https;host=evil.test");
        for (field, expected) in [
            (("x-forwarded-for", "1.2.3.4"), ("1.2.3.4", None)),
            (("x-forwarded-proto", "http"), ("10.0.0.1", Some(false))),
            (("x-forwarded-host", "shop.test"), ("10.0.0.1", None)),
        ] {
            let (client, https, host) = told(&[forwarded, field]);
            assert_eq!(((&*client, https), host), (expected, None), "{field:?}");
        }
    }

    #[test]
    fn the_scheme_is_the_one_at_the_clients_place() {
        let chain = |hops, schemes| https(&[("x-forwarded-for", hops), ("x-forwarded-proto", schemes)]);
        for (expected, hops, schemes) in [
            (Some(true), "1.2.3.4, 10.0.0.2", "https, http"),
            (Some(false), "1.2.3.4, 10.0.0.2", "http,https"),
            // Written by one proxy alone, or begun anew.
            (Some(true), "1.2.3.4, 10.0.0.2", "https"),
            // What the client claims itself.
            (Some(false), "1.2.3.4", "https, http"),
            (Some(true), "1.2.3.4", "https, https"),
        ] {
            assert_eq!(chain(hops, schemes), expected, "{hops} {schemes}");
        }
        let lines = [("x-forwarded-proto", "https"), ("x-forwarded-proto", "http")];
        assert_eq!(https(&lines), Some(false), "lines are one list");
        for (expected, scheme) in [
            (Some(true), "HTTPS"),
            (Some(true), "wss"),
            (Some(false), "Http"),
            (Some(false), "ws"),
            (None, "on"),
            (None, ""),
        ] {
            assert_eq!(https(&[("x-forwarded-proto", scheme)]), expected, "{scheme}");
        }
    }
}

//! What an endpoint cannot know that is told another host and path than the client asked for: under which prefix it is
//! reached, and how an address in its answer is led back.

use super::target::parse_authority;
use crate::routing::path_below;

/// How what an endpoint is told differs from what the client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved<'a> {
    /// Sent in place of the client's.
    pub host: Option<&'a str>,
    /// That the endpoint listens on, where it is known.
    pub port: Option<u16>,
    /// The prefix that was taken from this request's path; may be empty.
    pub stripped: &'a str,
    /// The prefix that was put before it; may be empty.
    pub added: &'a str,
}

/// An address in a header field, in parts.
struct Address<'a> {
    /// With its colon; empty where the authority stands alone.
    scheme: &'a str,
    /// `None`: a path alone.
    authority: Option<&'a str>,
    /// May be empty.
    path: &'a str,
    /// From `?` or `#` on.
    rest: &'a str,
}

impl<'a> Address<'a> {
    /// `None`: it is relative to the path asked for, or of another scheme.
    fn parse(text: &'a str) -> Option<Self> {
        let scheme = ["http:", "https:", ""].into_iter().find_map(|scheme| {
            let begins = text.get(..scheme.len())?.eq_ignore_ascii_case(scheme);
            text.get(..scheme.len()).filter(|_| begins)
        })?;
        let after = text.get(scheme.len()..)?;
        let (authority, after) = match after.strip_prefix("//") {
            Some(after) => {
                let (authority, after) = after.split_at_checked(after.find(['/', '?', '#']).unwrap_or(after.len()))?;
                (Some(authority), after)
            }
            None if scheme.is_empty() && after.starts_with('/') => (None, after),
            None => return None,
        };
        let (path, rest) = after.split_at_checked(after.find(['?', '#']).unwrap_or(after.len()))?;
        Some(Self {
            scheme,
            authority,
            path,
            rest,
        })
    }
}

impl Moved<'_> {
    /// The address `location` of the endpoint as the client can ask for it, who asked for `client` (a host with or without
    /// port) by https or not. `None`: it stays as it is, since it names another host, a path that has no name outside, or
    /// is the client's already.
    pub fn lead_back(&self, location: &str, client: &str, https: bool) -> Option<String> {
        let address = Address::parse(location)?;
        let (before, path) = self.public(if address.path.is_empty() { "/" } else { address.path })?;
        let led = format!("{before}{path}{}", address.rest);
        let Some(authority) = address.authority else {
            // Two slashes would begin the name of a host.
            return (led != location && !led.starts_with("//")).then_some(led);
        };
        if client.is_empty() {
            return None;
        }
        let (named, told) = (parts(authority)?, parts(self.host.unwrap_or(client))?);
        let is_secure = address.scheme.eq_ignore_ascii_case("https:");
        let standard = if is_secure { 443 } else { 80 };
        let is_told = named.1.unwrap_or(standard) == told.1.unwrap_or(standard);
        // Servers may name the port they listen on, whatever they are told.
        let is_own = named.1.is_some() && named.1 == self.port;
        if !named.0.eq_ignore_ascii_case(told.0) || !(is_told || is_own) {
            return None;
        }
        let led = match (address.scheme, https) {
            (scheme, _) if is_told && self.host.is_none() => format!("{scheme}//{authority}{led}"),
            ("", _) => format!("//{client}{led}"),
            (_, true) => format!("https://{client}{led}"),
            // By http the client would be sent where it comes from, for ever. The port that it named speaks http.
            (_, false) if is_secure => format!("https://{}{led}", parts(client)?.0),
            (_, false) => format!("http://{client}{led}"),
        };
        (led != location).then_some(led)
    }

    /// An endpoint's path as it is called outside, in two parts. One that has the prefix already was made by an endpoint that
    /// knows of it (`X-Forwarded-Prefix`); where one prefix begins with the other, the longer one tells more.
    fn public<'p>(&'p self, path: &'p str) -> Option<(&'p str, &'p str)> {
        if self.stripped.len() > self.added.len() && path_below(path, self.stripped).is_some() {
            return Some(("", path));
        }
        match (self.stripped, path_below(path, self.added)?) {
            ("", "") => Some(("", "/")),
            parts => Some(parts),
        }
    }
}

/// The host and the port of an authority; `None`: it is none that this proxy takes.
fn parts(authority: &str) -> Option<(&str, Option<u16>)> {
    let parsed = parse_authority(authority.as_bytes()).ok()?;
    Some((authority.get(..parsed.host_len)?, parsed.port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::exchange_prefix;
    use proptest::prelude::*;

    const MOVED: Moved<'_> = Moved {
        host: Some("shop.internal"),
        port: Some(9001),
        stripped: "/shop",
        added: "/inner",
    };

    fn led(moved: Moved<'_>, location: &str) -> String {
        let led = moved.lead_back(location, "shop.example:8443", true);
        led.unwrap_or_else(|| format!("{location} (as it is)"))
    }

    #[test]
    fn what_names_the_endpoint_is_led_back() {
        for (location, expected) in [
            (
                "http://shop.internal/inner/a?b=/inner#c",
                "https://shop.example:8443/shop/a?b=/inner#c",
            ),
            ("HTTP://Shop.Internal:80/inner", "https://shop.example:8443/shop"),
            ("https://shop.internal/inner/", "https://shop.example:8443/shop/"),
            ("//shop.internal/inner/a", "//shop.example:8443/shop/a"),
            ("http://shop.internal:9001/inner/a", "https://shop.example:8443/shop/a"),
            ("/inner/a?x", "/shop/a?x"),
            ("/inner", "/shop"),
        ] {
            assert_eq!(led(MOVED, location), expected, "{location}");
        }
        let root = Moved { added: "", ..MOVED };
        assert_eq!(led(root, "http://shop.internal"), "https://shop.example:8443/shop/");
        assert_eq!(led(root, "/login"), "/shop/login");
        let host = Moved {
            stripped: "",
            added: "",
            ..MOVED
        };
        assert_eq!(led(host, "http://shop.internal?x"), "https://shop.example:8443/?x");
        let prefix = Moved { host: None, ..MOVED };
        assert_eq!(
            led(prefix, "http://shop.example:8443/inner/a"),
            "http://shop.example:8443/shop/a"
        );
        let only_added = Moved { stripped: "", ..MOVED };
        assert_eq!(led(only_added, "/inner"), "/");
        let deeper = Moved {
            added: "/shop/v2",
            ..MOVED
        };
        assert_eq!(led(deeper, "/shop/v2/a"), "/shop/a");
    }

    #[test]
    fn an_endpoint_that_wants_https_gets_it() {
        let host = Moved {
            stripped: "",
            added: "",
            ..MOVED
        };
        for (location, by_http, by_https) in [
            (
                "https://shop.internal/a",
                "https://shop.example/a",
                "https://shop.example:8080/a",
            ),
            (
                "http://shop.internal/a",
                "http://shop.example:8080/a",
                "https://shop.example:8080/a",
            ),
            (
                "HTTPS://shop.internal:9001/a",
                "https://shop.example/a",
                "https://shop.example:8080/a",
            ),
        ] {
            for (https, expected) in [(false, by_http), (true, by_https)] {
                let led = host.lead_back(location, "shop.example:8080", https);
                assert_eq!(led.as_deref(), Some(expected), "{location} {https}");
            }
        }
    }

    #[test]
    fn what_does_not_stays_as_it_is() {
        for location in [
            "http://shop.internal:81/inner/a",
            "http://other.internal/inner/a",
            "http://shop.internal.evil/inner",
            "http://u@shop.internal/inner",
            "http://shop.internal/elsewhere",
            "/elsewhere",
            "/innermost",
            "/shop/a",
            "a/b",
            "../a",
            "?a",
            "",
            "mailto:a@shop.internal",
            "ftp://shop.internal/inner",
            "http:/inner",
            "//",
        ] {
            assert_eq!(MOVED.lead_back(location, "shop.example", false), None, "{location}");
        }
        let only_added = Moved { stripped: "", ..MOVED };
        assert_eq!(
            only_added.lead_back("/inner//evil.example", "a", false),
            None,
            "another host"
        );
        assert_eq!(
            MOVED.lead_back("http://shop.internal/inner", "", false),
            None,
            "the client named none"
        );
        let host = Moved {
            stripped: "",
            added: "",
            ..MOVED
        };
        assert_eq!(host.lead_back("/a", "a", false), None);
    }

    fn prefix() -> impl Strategy<Value = String> {
        "(/[a-c]{1,2}){0,2}"
    }

    proptest! {
        /// What a client asks for, told the endpoint and sent back by it, is what the client asked for.
        #[test]
        fn there_and_back(path in "/([x-z]{1,2}/){0,3}", stripped in prefix(), added in prefix(), whole: bool) {
            let moved = Moved { host: Some("in.example:81"), port: None, stripped: &stripped, added: &added };
            let asked = format!("{stripped}{path}");
            let (before, left) = exchange_prefix(&asked, &stripped, &added);
            let sent = format!("{}{before}{left}", if whole { "http://in.example:81" } else { "" });
            let back = moved.lead_back(&sent, "out.example", false).unwrap_or(sent);
            prop_assert_eq!(back, format!("{}{asked}", if whole { "http://out.example" } else { "" }));
        }

        /// Whatever an endpoint says: a path stays a path, https stays https, and another host is never made the client's, nor
        /// the other way.
        #[test]
        fn no_way_to_another_host(
            location in "((https?:)?//)?[ab5./:?#-]{0,12}", stripped in prefix(), added in prefix(), own: bool, https: bool,
        ) {
            let moved = Moved { host: own.then_some("b"), port: Some(5), stripped: &stripped, added: &added };
            if let Some(led) = moved.lead_back(&location, "a", https) {
                let (was, is) = (Address::parse(&location).unwrap(), Address::parse(&led).unwrap());
                prop_assert!(was.scheme != "https:" || is.scheme == "https:", "{} -> {}", location, led);
                prop_assert_eq!(was.authority.is_some(), is.authority.is_some(), "{} -> {}", location, led);
                if let (Some(was), Some(is)) = (was.authority, is.authority) {
                    let told = if own { "b" } else { "a" };
                    prop_assert_eq!((parts(was).unwrap().0, parts(is).unwrap().0), (told, "a"));
                }
            }
        }
    }
}

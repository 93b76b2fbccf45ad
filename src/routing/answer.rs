//! Routes that no service serves: the proxy itself answers as the file says.

use std::fmt;

/// What a route answers by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteAnswer {
    Redirect(Redirect),
    Respond(Respond),
}

/// Where a client is sent. What is not given stays as the client asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 307 or 308.
    pub status: u16,
    pub scheme: Option<Scheme>,
    /// Without a port.
    pub host: Option<Box<str>>,
    /// `None`: that of the scheme, where scheme or host are given.
    pub port: Option<u16>,
    pub path: NewPath,
}

/// A fixed answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Respond {
    /// 200 to 599.
    pub status: u16,
    pub content_type: Box<str>,
    pub body: Box<str>,
}

/// The path that a client is sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewPath {
    Same,
    Whole(Box<str>),
    /// Prefixes without slashes at their ends; `/` is the empty one.
    Prefix {
        from: Box<str>,
        to: Box<str>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// What a client asked for, in parts.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub scheme: Scheme,
    /// As sent, without port; may be empty.
    pub host: &'a str,
    /// As sent, with its colon; empty without one.
    pub port: &'a str,
    /// As sent, or `*`.
    pub path: &'a str,
    /// That path in canonical form.
    pub canonical_path: &'a str,
    /// Without its question mark.
    pub query: &'a str,
}

impl Redirect {
    /// The whole address that the client is sent to, its query kept; `None`: nobody names a host. Always with a host: a
    /// path alone that begins with two slashes would be taken for one.
    pub fn location(&self, asked: &Asked<'_>) -> Option<String> {
        let scheme = self.scheme.unwrap_or(asked.scheme);
        let host = self.host.as_deref().unwrap_or(asked.host);
        let elsewhere = self.scheme.is_some() || self.host.is_some();
        let port = match self.port {
            Some(port) if port == scheme.default_port() => String::new(),
            Some(port) => format!(":{port}"),
            None if elsewhere => String::new(),
            None => asked.port.to_owned(),
        };
        let of = |path| if path == "*" { "/" } else { path };
        let (before, path) = match &self.path {
            NewPath::Same => ("", of(asked.path)),
            NewPath::Whole(path) => ("", &**path),
            NewPath::Prefix { from, to } => exchange_prefix(of(asked.canonical_path), from, to),
        };
        let mark = if asked.query.is_empty() { "" } else { "?" };
        let scheme = scheme.as_str();
        (!host.is_empty()).then(|| format!("{scheme}://{host}{port}{before}{path}{mark}{}", asked.query))
    }
}

/// `path` with `to` before it and without `from`, by whole segments: two parts, one behind the other. A path that does not
/// begin with `from` keeps all it has. Neither prefix ends with a slash; empty ones change nothing.
pub fn exchange_prefix<'a>(path: &'a str, from: &str, to: &'a str) -> (&'a str, &'a str) {
    match (to, path_below(path, from).unwrap_or(path)) {
        ("", "") => ("", "/"),
        parts => parts,
    }
}

/// What of `path` is below `prefix`, by whole segments; empty where it is the prefix itself.
pub fn path_below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let left = path.strip_prefix(prefix)?;
    (left.is_empty() || left.starts_with('/')).then_some(left)
}

impl RouteAnswer {
    pub fn status(&self) -> u16 {
        match self {
            Self::Redirect(redirect) => redirect.status,
            Self::Respond(respond) => respond.status,
        }
    }
}

/// For people: `redirect 301`, `respond 404`.
impl fmt::Display for RouteAnswer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self {
            Self::Redirect(_) => "redirect",
            Self::Respond(_) => "respond",
        };
        write!(out, "{word} {}", self.status())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Asked<'_> = Asked {
        scheme: Scheme::Http,
        host: "shop.example",
        port: ":8080",
        path: "/old/a",
        canonical_path: "/old/a",
        query: "q=1",
    };

    fn to() -> Redirect {
        Redirect {
            status: 302,
            scheme: None,
            host: None,
            port: None,
            path: NewPath::Same,
        }
    }

    #[test]
    fn what_is_not_given_stays() {
        let location = |redirect: Redirect| redirect.location(&ASKED).unwrap();
        let whole = NewPath::Whole("/new".into());
        assert_eq!(
            location(Redirect { path: whole, ..to() }),
            "http://shop.example:8080/new?q=1"
        );
        let https = Some(Scheme::Https);
        assert_eq!(
            location(Redirect { scheme: https, ..to() }),
            "https://shop.example/old/a?q=1"
        );
        let there = |port| Redirect {
            port,
            scheme: https,
            ..to()
        };
        assert_eq!(location(there(Some(443))), "https://shop.example/old/a?q=1");
        assert_eq!(location(there(Some(8443))), "https://shop.example:8443/old/a?q=1");
        let host = Some("new.example".into());
        assert_eq!(location(Redirect { host, ..to() }), "http://new.example/old/a?q=1");
        assert_eq!(
            location(Redirect { port: Some(80), ..to() }),
            "http://shop.example/old/a?q=1"
        );
    }

    #[test]
    fn a_prefix_is_exchanged_and_leads_to_no_other_host() {
        let location = |path, from: &str, to_prefix: &str| {
            let path_rule = NewPath::Prefix {
                from: from.into(),
                to: to_prefix.into(),
            };
            let asked = Asked {
                path,
                canonical_path: path,
                query: "",
                ..ASKED
            };
            Redirect {
                path: path_rule,
                ..to()
            }
            .location(&asked)
            .unwrap()
        };
        for (path, from, new, expected) in [
            ("/old/a", "/old", "/new", "/new/a"),
            ("/old", "/old", "/new", "/new"),
            ("/old", "/old", "", "/"),
            ("/old/", "/old", "", "/"),
            ("/old//evil.example", "/old", "", "//evil.example"),
            ("/", "", "/new", "/new/"),
            ("*", "", "/new", "/new/"),
        ] {
            assert_eq!(
                location(path, from, new),
                format!("http://shop.example:8080{expected}"),
                "{path}"
            );
        }
    }

    #[test]
    fn without_a_host_there_is_no_address() {
        let asked = Asked {
            host: "",
            port: "",
            ..ASKED
        };
        assert_eq!(to().location(&asked), None);
        let host = Some("new.example".into());
        assert!(Redirect { host, ..to() }.location(&asked).is_some());
    }
}

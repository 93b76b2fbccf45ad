//! The grammars of single words: names, tokens, hosts, paths, addresses, URLs.

use crate::config::snapshot::Host;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The methods in use, for suggestions.
pub const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"];

/// Why `name` cannot be a name; `None` when it can.
pub fn name_problem(name: &str) -> Option<&'static str> {
    let safe = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if name.is_empty() {
        Some("it is empty")
    } else if name.len() > 64 {
        Some("it is longer than 64 characters")
    } else if !name.bytes().all(safe) {
        Some("expected letters, digits, `.`, `_` and `-`")
    } else {
        None
    }
}

/// A token of RFC 9110 section 5.6.2.
pub fn is_token(text: &str) -> bool {
    let tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(tchar)
}

/// A host name as in DNS and in `Host`: labels of letters, digits, `-` and `_`, at most 63 each and 253 in all.
pub fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    host.len() <= 253 && host.split('.').all(label)
}

/// An address in brackets, as it stands in `Host`.
pub fn is_bracketed_v6(host: &str) -> bool {
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
}

/// What a `Host` field may hold: the name in small letters (an IPv6 address in brackets), and the port if there is one.
pub fn host_and_port(text: &str) -> Option<(String, Option<u16>)> {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !text.ends_with(']') => {
            let digits = !port.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
            (name, Some(port.parse::<u16>().ok().filter(|_| digits)?))
        }
        _ => (text, None),
    };
    (is_host_name(name) || is_bracketed_v6(name)).then(|| (name.to_ascii_lowercase(), port))
}

/// A path as it may stand in a request's target: visible ASCII without `?` and `#`.
pub fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#'))
}

/// A path with or without a query.
pub fn is_target(target: &str) -> bool {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    is_path(path) && query.bytes().all(|b| b.is_ascii_graphic() && b != b'#')
}

/// `http://` or `https://`, with a host.
pub fn is_http_url(url: &str) -> bool {
    let Ok(uri) = url.parse::<http::Uri>() else {
        return false;
    };
    matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
}

/// `host:port`, `name:port` or `[v6]:port`, port 1 to 65535.
///
/// # Errors
/// What is wrong with it, and what may have been meant.
pub fn endpoint(text: &str) -> Result<(Host, u16), (&'static str, Option<String>)> {
    const FORM: &str = "expected `host:port`, `name:port` or `[v6]:port`";
    if let Some((scheme, rest)) = text.split_once("://") {
        let rest = rest.trim_end_matches('/');
        let default_port = if scheme == "https" { 443 } else { 80 };
        let meant = [rest.to_owned(), format!("{rest}:{default_port}")];
        let meant = meant.into_iter().find(|meant| endpoint(meant).is_ok());
        return Err(("expected an address without a scheme", meant));
    }
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return Err((FORM, Some(format!("[{address}]:80"))));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        let meant = format!("{text}:80");
        let meant = endpoint(&meant).is_ok().then_some(meant);
        return Err(("expected an address with a port", meant));
    };
    let digits = !port.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
    let port = match port.parse::<u16>() {
        Ok(port) if digits && port > 0 => port,
        _ => return Err(("expected a port from 1 to 65535 after the last `:`", None)),
    };
    if is_bracketed_v6(host) {
        let address = text.parse::<SocketAddr>().map_err(|_| (FORM, None))?;
        return Ok((Host::Address(address.ip()), port));
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        // A bare v6 address would leave its end and its port apart only by luck.
        return if address.is_ipv4() {
            Ok((Host::Address(address), port))
        } else {
            Err((FORM, None))
        };
    }
    let all_numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if is_host_name(host) && !all_numeric {
        return Ok((Host::Name(host.to_ascii_lowercase().into()), port));
    }
    Err((FORM, None))
}

/// The address of a socket that is listened on; port 0 lets the kernel pick.
///
/// # Errors
/// What is wrong with it, and what may have been meant.
pub fn listen_address(text: &str) -> Result<SocketAddr, (&'static str, Option<String>)> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    let meant = match text.rsplit_once(':') {
        None => [format!("0.0.0.0:{text}"), format!("{text}:8080")],
        Some(("" | "*", port)) => [format!("0.0.0.0:{port}"), String::new()],
        Some(("localhost", port)) => [format!("127.0.0.1:{port}"), String::new()],
        Some((host, port)) => [format!("[{host}]:{port}"), format!("[{text}]:8080")],
    };
    let meant = meant.into_iter().find(|meant| meant.parse::<SocketAddr>().is_ok());
    Err(("expected an IP address and a port, such as `0.0.0.0:8080`", meant))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_have_a_host_and_a_port() {
        for (text, host, port) in [
            ("127.0.0.1:9001", Host::Address(IpAddr::from([127, 0, 0, 1])), 9001),
            ("[::1]:80", Host::Address(IpAddr::V6(Ipv6Addr::LOCALHOST)), 80),
            ("Shop.Internal:65535", Host::Name("shop.internal".into()), 65535),
            ("my_app:1", Host::Name("my_app".into()), 1),
        ] {
            assert_eq!(endpoint(text), Ok((host, port)), "{text}");
        }
        for text in [
            "",
            ":80",
            "host",
            "host:",
            "host:0",
            "host:65536",
            "host:+80",
            "host:8o",
            "::1:80",
            "[::1]",
            "[zz]:80",
            "a b:80",
            "300.1.1.1:80",
            "-a:80",
            "a..b:80",
            "host:80/",
            "user@host:80",
            "[fe80::1%eth0]:80",
        ] {
            assert!(endpoint(text).is_err(), "{text}");
        }
        let meant = |text: &str| endpoint(text).unwrap_err().1;
        assert_eq!(meant("http://127.0.0.1:9001/").as_deref(), Some("127.0.0.1:9001"));
        assert_eq!(meant("https://shop").as_deref(), Some("shop:443"));
        assert_eq!(meant("::1").as_deref(), Some("[::1]:80"));
        assert_eq!(meant("shop").as_deref(), Some("shop:80"));
    }

    #[test]
    fn listeners_are_addresses_not_names() {
        assert!(listen_address("0.0.0.0:0").is_ok());
        assert!(listen_address("[::]:8080").is_ok());
        let meant = |text: &str| listen_address(text).unwrap_err().1;
        assert_eq!(meant(":8080").as_deref(), Some("0.0.0.0:8080"));
        assert_eq!(meant("8080").as_deref(), Some("0.0.0.0:8080"));
        assert_eq!(meant("localhost:8080").as_deref(), Some("127.0.0.1:8080"));
        assert_eq!(meant("127.0.0.1").as_deref(), Some("127.0.0.1:8080"));
        assert_eq!(meant("::").as_deref(), Some("[::]:8080"));
        assert_eq!(meant("shop.example.com:80"), None);
    }

    #[test]
    fn hosts_may_have_a_port() {
        let found = |text| host_and_port(text).map(|(name, port)| (name, port.unwrap_or(0)));
        for (text, name, port) in [
            ("Admin.Example.com", "admin.example.com", 0),
            ("localhost:9900", "localhost", 9900),
            ("10.0.0.1", "10.0.0.1", 0),
            ("[::1]", "[::1]", 0),
            ("[::1]:80", "[::1]", 80),
        ] {
            assert_eq!(found(text), Some((name.to_owned(), port)), "{text}");
        }
        for text in [
            "", ":80", "a:", "a:x", "a:+1", "a:65536", "http://a", "a/b", "a b", "::1", "[::1", "*.a", "u@a",
        ] {
            assert_eq!(found(text), None, "{text}");
        }
    }

    #[test]
    fn words_are_strict() {
        assert!(is_token("x-version") && !is_token("x version") && !is_token("") && !is_token("x:"));
        assert!(
            is_path("/")
                && is_path("/a%20b")
                && !is_path("a")
                && !is_path("/a?b")
                && !is_path("/ä")
                && !is_path("/a b")
        );
        assert!(
            is_target("/a?b=c") && is_target("/a") && !is_target("?a") && !is_target("/a?b#c") && !is_target("/a?b c")
        );
        assert!(is_host_name("a-b.example") && !is_host_name("a..b") && !is_host_name("a:80") && !is_host_name(""));
        assert!(is_http_url("http://127.0.0.1:9090/x?y") && is_http_url("https://h/…"));
        assert!(!is_http_url("ftp://x") && !is_http_url("http://") && !is_http_url("x") && !is_http_url("http://a b"));
    }
}

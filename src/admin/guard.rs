//! Who may ask for what: see [`super`].

use super::Admin;
use super::connection::{Link, Peer};
use super::problem::{ApiError, Kind};
use crate::config::host_and_port;
use crate::config::snapshot::AdminHost;
use crate::runtime::Origin;
use axum::extract::{Extension, Request, State};
use axum::http::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use axum::http::{HeaderMap, Uri};
use axum::middleware::Next;
use axum::response::Response;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Between two lines of the log about wrong tokens.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Who asks, once that is known.
#[derive(Debug, Clone)]
pub struct Caller {
    /// `ada (uid 1000)`, `token ci`.
    who: String,
    /// `unix`, or the client's address.
    from: String,
}

impl Caller {
    /// Of a change that is asked for now.
    pub fn origin(self, reason: Option<String>) -> Origin {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Origin {
            who: self.who,
            from: self.from,
            at_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            reason,
        }
    }
}

/// For everything but probes and metrics, which balancers and scrapers ask for by any name.
pub async fn everyone(
    State(admin): State<Arc<Admin>>,
    Extension(link): Extension<Arc<Link>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    no_stranger(&admin, link.peer, request.headers(), request.uri())?;
    Ok(next.run(request).await)
}

/// For what changes something, and for what may hold secrets.
pub async fn trusted(
    State(admin): State<Arc<Admin>>,
    Extension(link): Extension<Arc<Link>>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    no_stranger(&admin, link.peer, request.headers(), request.uri())?;
    let caller = match link.peer {
        Peer::Unix { uid, .. } => Caller {
            who: admin.users.describe(uid).await,
            from: "unix".to_owned(),
        },
        Peer::Tcp { client, .. } => bearer(&admin, client, request.headers()).await?,
    };
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

fn no_stranger(admin: &Admin, peer: Peer, headers: &HeaderMap, uri: &Uri) -> Result<(), ApiError> {
    match peer {
        Peer::Unix { admitted: true, .. } => {}
        Peer::Unix { uid, .. } => {
            return Err(ApiError::new(
                Kind::ForbiddenUser,
                format!("The socket is its owner's and root's; you are uid {uid}."),
                "Ask as the user that rollgate runs as, or widen `admin.socket_mode`.",
            ));
        }
        Peer::Tcp { local, .. } => {
            let hosts = &admin.shared.load().snapshot.admin.hosts;
            our_host(local, hosts, headers, uri)?;
        }
    }
    own_origin(headers)
}

/// Against pages whose name was made to point here (DNS rebinding): they come by that name.
fn our_host(local: SocketAddr, hosts: &[AdminHost], headers: &HeaderMap, uri: &Uri) -> Result<(), ApiError> {
    let mut fields = headers.get_all(HOST).iter();
    let (Some(host), None) = (fields.next(), fields.next()) else {
        return Err(ApiError::new(
            Kind::BadRequest,
            "There is no `Host`, or more than one.",
            "Send the address you connected to.",
        ));
    };
    // An absolute target names the host as well (RFC 9112 section 3.2.2).
    let named = host
        .to_str()
        .ok()
        .into_iter()
        .chain(uri.authority().map(|name| name.as_str()));
    let is_ours = |name: &str| host_and_port(name).is_some_and(|(name, port)| is_our_name(&name, port, local, hosts));
    if host.to_str().is_ok() && named.into_iter().all(is_ours) {
        return Ok(());
    }
    Err(ApiError::new(
        Kind::WrongHost,
        "This address is not asked for by that `Host`.",
        format!(
            "Ask by {local} or localhost:{}, or list the name in `admin.hosts`.",
            local.port()
        ),
    ))
}

fn is_our_name(name: &str, port: Option<u16>, local: SocketAddr, hosts: &[AdminHost]) -> bool {
    let ip = local.ip().to_canonical();
    let own = match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(v6) => v6.parse().is_ok_and(|address: std::net::Ipv6Addr| ip == address),
        None => name == "localhost" || name.parse().is_ok_and(|address: std::net::Ipv4Addr| ip == address),
    };
    // 80 is what a URL without a port means.
    (own && port.unwrap_or(80) == local.port())
        || hosts
            .iter()
            .any(|host| *host.name == *name && host.port.is_none_or(|wanted| port == Some(wanted)))
}

/// Against other sites' pages (CSRF): the browser says where a request comes from. Also over the unix socket, which may
/// be reached through a tunnel.
fn own_origin(headers: &HeaderMap) -> Result<(), ApiError> {
    let foreign = |what: &str| {
        ApiError::new(
            Kind::ForeignOrigin,
            format!("`{what}` says that the page of another site asks."),
            "Ask from this address's own page, or from a program that sends no such field.",
        )
    };
    let cross_site = |value: &axum::http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"cross-site");
    if headers.get_all(SEC_FETCH_SITE).iter().any(cross_site) {
        return Err(foreign("Sec-Fetch-Site"));
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let same = |origin: &axum::http::HeaderValue| {
        origin
            .to_str()
            .is_ok_and(|origin| host.is_some_and(|host| is_origin_of(origin, host)))
    };
    if headers.get_all(ORIGIN).iter().all(same) {
        Ok(())
    } else {
        Err(foreign("Origin"))
    }
}

/// Whether `origin` (`http://name:port`) is what a browser shows of a page of `host`. A proxy in front may speak TLS.
fn is_origin_of(origin: &str, host: &str) -> bool {
    let without = |text: &str, port: &str| text.strip_suffix(port).unwrap_or(text).to_ascii_lowercase();
    let (name, port) = match (origin.strip_prefix("http://"), origin.strip_prefix("https://")) {
        (Some(name), _) => (name, ":80"),
        (None, Some(name)) => (name, ":443"),
        (None, None) => return false,
    };
    without(name, port) == without(host, port)
}

async fn bearer(admin: &Admin, client: SocketAddr, headers: &HeaderMap) -> Result<Caller, ApiError> {
    let Some(file) = admin.shared.load().snapshot.admin.token_file.clone() else {
        return Err(ApiError::new(
            Kind::ReadOnly,
            "Without `admin.token_file` this can only be asked over the unix socket.",
            "Ask over `admin.socket`, or configure `admin.token_file` (it holds from the next reload).",
        ));
    };
    let tokens = admin.tokens.tokens(file).await.map_err(|_| {
        ApiError::new(
            Kind::TokenFile,
            "`admin.token_file` cannot be used, so no token is good.",
            "The log of the process says why. The unix socket needs no token.",
        )
    })?;
    let from = client.ip().to_canonical();
    let presented = presented(headers);
    let name = presented.and_then(|token| tokens.name_of(token));
    if let Some(name) = name {
        let who = if name == "token" {
            name.to_owned()
        } else {
            format!("token {name}")
        };
        return Ok(Caller {
            who,
            from: from.to_string(),
        });
    }
    let detail = match presented {
        None => "There is no token in the request.",
        Some(_) => {
            admin.wrong_tokens.told(&from.to_string());
            tokio::time::sleep(admin.limits.wrong_token).await;
            "The token is not one of `admin.token_file`."
        }
    };
    Err(ApiError::new(
        Kind::Unauthorized,
        detail,
        "Send `Authorization: Bearer` and a token of that file.",
    ))
}

/// The token of the one `Authorization: Bearer` (RFC 6750 section 2.1).
fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else {
        return None;
    };
    let (scheme, token) = field.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// How often wrong tokens came: told in the log, but not each.
#[derive(Default)]
pub struct WrongTokens(Mutex<(u64, Option<Instant>)>);

impl WrongTokens {
    fn told(&self, from: &str) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, told) = &mut *state;
        *count += 1;
        if told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
            *told = Some(Instant::now());
            tracing::warn!(
                from,
                count = *count,
                "admin: a wrong token; `count` of them since the start"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ours() {
        let hosts = [
            ("admin.example.com", None),
            ("10.9.9.9", Some(9900)),
            ("[fd00::1]", None),
        ]
        .map(|(name, port)| AdminHost {
            name: name.into(),
            port,
        });
        let v4: SocketAddr = "127.0.0.1:9900".parse().unwrap();
        let v6: SocketAddr = "[::1]:80".parse().unwrap();
        let mapped: SocketAddr = "[::ffff:127.0.0.1]:9900".parse().unwrap();
        let ours = |local, host: &str| {
            let (name, port) = host_and_port(host).unwrap();
            is_our_name(&name, port, local, &hosts)
        };
        for (local, host, expected) in [
            (v4, "127.0.0.1:9900", true),
            (v4, "LocalHost:9900", true),
            (v4, "localhost", false),
            (v4, "127.0.0.1", false),
            (v4, "127.0.0.1:80", false),
            (v4, "127.0.0.2:9900", false),
            (v4, "evil.example:9900", false),
            (v4, "localhost.evil.example:9900", false),
            (v4, "admin.example.com", true),
            (v4, "Admin.Example.com:443", true),
            (v4, "10.9.9.9:9900", true),
            (v4, "10.9.9.9", false),
            (v4, "[fd00::1]:1", true),
            (v6, "[::1]", true),
            (v6, "[0:0::1]:80", true),
            (v6, "localhost", true),
            (v6, "127.0.0.1", false),
            (mapped, "127.0.0.1:9900", true),
        ] {
            assert_eq!(ours(local, host), expected, "{host} at {local}");
        }
    }

    #[test]
    fn origins_of_ours() {
        for (origin, host, expected) in [
            ("http://127.0.0.1:9900", "127.0.0.1:9900", true),
            ("http://LOCALHOST:9900", "localhost:9900", true),
            ("http://admin.example.com", "admin.example.com:80", true),
            ("https://admin.example.com", "admin.example.com", true),
            ("https://admin.example.com", "admin.example.com:443", true),
            ("http://localhost:3000", "localhost:9900", false),
            ("http://evil.example", "127.0.0.1:9900", false),
            ("null", "127.0.0.1:9900", false),
            ("ftp://127.0.0.1:9900", "127.0.0.1:9900", false),
            ("http://127.0.0.1:9900/", "127.0.0.1:9900", false),
            ("", "", false),
        ] {
            assert_eq!(is_origin_of(origin, host), expected, "{origin} at {host}");
        }
    }

    #[test]
    fn one_bearer_token() {
        let presented_by = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, axum::http::HeaderValue::from_static(value));
            }
            presented(&headers).map(|token| String::from_utf8(token.to_vec()).unwrap())
        };
        assert_eq!(presented_by(&["Bearer abc"]).as_deref(), Some("abc"));
        assert_eq!(presented_by(&["bearer  abc "]).as_deref(), Some("abc"));
        for none in [&[][..], &["Basic abc"], &["Bearer"], &["Bearer a", "Bearer b"]] {
            assert_eq!(presented_by(none), None, "{none:?}");
        }
    }
}

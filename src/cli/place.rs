//! Where the proxy's admin API is, and the token that it wants.

use super::failure::Failure;
use crate::config::yaml::{self, Node, Value};
use crate::control::load;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The socket is looked for here when nothing says where it is, in this order.
pub const DEFAULT_SOCKETS: [&str; 2] = ["run/rollgate.sock", "/run/rollgate/rollgate.sock"];

/// Bytes of a token file that are read.
const MAX_TOKEN_BYTES: usize = 4096;

/// An address of the admin API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Unix(PathBuf),
    Http {
        /// A name, or an IP address without brackets.
        host: String,
        port: u16,
    },
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                "" => Err("expected a path after `unix:`".to_owned()),
                path => Ok(Self::Unix(path.into())),
            };
        }
        if text.starts_with("https://") {
            return Err("TLS is not spoken to the admin API: use the socket, or a tunnel such as `ssh -L`".to_owned());
        }
        if text.starts_with("http://") {
            return http_place(text);
        }
        let meant = match text.contains('/') || text.ends_with(".sock") {
            true => format!("unix:{text}"),
            false => format!("http://{text}"),
        };
        Err(format!(
            "expected `unix:PATH` or `http://HOST:PORT`; did you mean `{meant}`?"
        ))
    }
}

fn http_place(text: &str) -> Result<Place, String> {
    let uri: http::Uri = text.parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    if uri.path() != "/" || uri.query().is_some() || authority.contains('@') {
        return Err("expected `http://HOST:PORT` and nothing else".to_owned());
    }
    let host = uri.host().unwrap_or("");
    let port = match authority.strip_prefix(host) {
        Some("") => Some(80),
        Some(port) => port.strip_prefix(':').and_then(|port| port.parse().ok()),
        None => None,
    };
    match port {
        Some(port) if !host.is_empty() => Ok(Place::Http {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
        }),
        _ => Err("expected `http://HOST:PORT`".to_owned()),
    }
}

impl Place {
    /// What the `Host` field says: for a socket any name would do.
    pub fn authority(&self) -> String {
        match self {
            Self::Unix(_) => "localhost".to_owned(),
            Self::Http { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Http { host, port } => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(out, "unix:{}", path.display()),
            Self::Http { .. } => write!(out, "http://{}", self.authority()),
        }
    }
}

/// What the environment says. Not `Debug`: there may be a token in it.
#[derive(Clone, Default)]
pub struct Environment {
    /// `ROLLGATE_ADMIN`
    pub admin: Option<String>,
    /// `ROLLGATE_CONFIG`
    pub config: Option<PathBuf>,
    /// `ROLLGATE_TOKEN_FILE`
    pub token_file: Option<PathBuf>,
    /// `ROLLGATE_TOKEN`
    pub token: Option<String>,
}

impl Environment {
    /// That of the process. Variables without a value count as absent.
    pub fn of_process() -> Self {
        let value = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let text = |name: &str| value(name).map(|value| value.to_string_lossy().into_owned());
        Self {
            admin: text("ROLLGATE_ADMIN"),
            config: value("ROLLGATE_CONFIG").map(PathBuf::from),
            token_file: value("ROLLGATE_TOKEN_FILE").map(PathBuf::from),
            token: text("ROLLGATE_TOKEN"),
        }
    }
}

/// Where to ask, and how that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub place: Place,
    /// As `--admin`, `ROLLGATE_ADMIN` or `admin.socket of rollgate.yaml`.
    pub said_by: String,
    /// The token file that the configuration names.
    pub token_file: Option<PathBuf>,
    /// For stderr: why this place, where that may surprise.
    pub note: Option<String>,
}

/// Where to ask. What was typed wins over the environment: `admin`, else what the file `config` says; else
/// `ROLLGATE_ADMIN`, else the file of `ROLLGATE_CONFIG`; else the first of `defaults` that exists.
///
/// # Errors
/// A value makes no sense, the file cannot be read or says nothing of it, or there is no socket anywhere.
pub fn find(
    admin: Option<&Place>,
    config: Option<&Path>,
    environment: &Environment,
    defaults: &[&Path],
) -> Result<Found, Failure> {
    let found = |place: Place, said_by: &str| Found {
        place,
        said_by: said_by.to_owned(),
        token_file: None,
        note: None,
    };
    if let Some(place) = admin {
        return Ok(found(place.clone(), "--admin"));
    }
    if let (None, Some(text)) = (config, &environment.admin) {
        let place = text
            .parse()
            .map_err(|error| Failure::usage(format!("ROLLGATE_ADMIN is {text:?}: {error}")))?;
        return Ok(found(place, "ROLLGATE_ADMIN"));
    }
    let file = config.or(environment.config.as_deref());
    let note = match file.map(admin_keys).transpose()? {
        Some(Some(keys)) => return keys.place(),
        Some(None) => file.map(|file| {
            format!(
                "{} is no YAML, so what its `admin` says is not known; the default sockets are tried",
                file.display()
            )
        }),
        None => None,
    };
    let existing = defaults.iter().find(|path| path.symlink_metadata().is_ok());
    match existing {
        Some(path) => Ok(Found {
            note,
            ..found(Place::Unix(path.to_path_buf()), "the default")
        }),
        None => Err(nowhere(defaults, note)),
    }
}

fn nowhere(defaults: &[&Path], note: Option<String>) -> Failure {
    let paths: Vec<String> = defaults.iter().map(|path| path.display().to_string()).collect();
    let failure = Failure::unreachable(format!(
        "no socket at {}: is rollgate running here?",
        paths.join(" nor at ")
    ));
    note.into_iter().fold(failure, Failure::help).help(
        "say where it is: `--admin unix:PATH` or `--admin http://HOST:PORT` (or ROLLGATE_ADMIN), or `--config FILE` \
         with the file that it runs with",
    )
}

/// What a file says of its admin interface.
struct AdminKeys {
    file: PathBuf,
    socket: Option<String>,
    address: Option<String>,
    token_file: Option<String>,
}

/// Reads no more than these keys, so that a file which is wrong elsewhere, or half written, still leads to the proxy that
/// runs with the last good one. `None`: not even these can be read.
fn admin_keys(file: &Path) -> Result<Option<AdminKeys>, Failure> {
    let bytes = load::read(file).map_err(|error| {
        Failure::failed(error.to_string()).help("`--admin` says where the proxy is without the file")
    })?;
    let text = String::from_utf8_lossy(&bytes);
    let Some(root) = yaml::parse(&text).map_or_else(|_| admin_block(&text), |(root, _)| Some(root)) else {
        return Ok(None);
    };
    let admin = value_of(&root, "admin");
    let key = |key: &str| match &value_of(admin?, key)?.value {
        Value::Scalar { text, .. } => Some(text.to_string()),
        _ => None,
    };
    Ok(Some(AdminKeys {
        file: file.to_owned(),
        socket: key("socket"),
        address: key("address"),
        token_file: key("token_file"),
    }))
}

/// Of a text that is no YAML as a whole: from the line of `admin` to the next key at the top, if that is YAML.
fn admin_block(text: &str) -> Option<Node> {
    let mut lines = text
        .split_inclusive('\n')
        .skip_while(|line| !line.starts_with("admin:"));
    let first = lines.next()?;
    let rest: String = lines
        .take_while(|line| line.starts_with([' ', '#', '\n', '\r']))
        .collect();
    yaml::parse(&format!("{first}{rest}")).ok().map(|(root, _)| root)
}

fn value_of<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    match &node.value {
        Value::Mapping(entries) => entries.iter().find(|entry| *entry.key == *key).map(|entry| &entry.node),
        _ => None,
    }
}

impl AdminKeys {
    fn place(self) -> Result<Found, Failure> {
        let file = self.file.display();
        let base = self.file.parent().unwrap_or(Path::new(""));
        let token_file = self.token_file.map(|token_file| base.join(token_file));
        let (place, key) = match (self.socket, self.address) {
            (Some(socket), _) => (Place::Unix(base.join(socket)), "admin.socket"),
            (None, Some(address)) => (tcp_place(&address, &self.file)?, "admin.address"),
            (None, None) => {
                return Err(
                    Failure::failed(format!("{file} has neither `admin.socket` nor `admin.address`")).help(
                        "without one of them a running proxy cannot be asked: add `admin: { socket: run/rollgate.sock }` \
                         and restart it",
                    ),
                );
            }
        };
        Ok(Found {
            place,
            said_by: format!("{key} of {file}"),
            token_file,
            note: None,
        })
    }
}

fn tcp_place(address: &str, file: &Path) -> Result<Place, Failure> {
    let file = file.display();
    let address: SocketAddr = address.parse().map_err(|_| {
        Failure::failed(format!(
            "{file}: admin.address is {address:?}, not an IP address and port"
        ))
    })?;
    if address.port() == 0 {
        return Err(
            Failure::failed(format!("{file}: admin.address has port 0, so the kernel picked one"))
                .help("the log of the proxy says which: `--admin http://127.0.0.1:PORT`"),
        );
    }
    let host = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Ok(Place::Http {
        host: host.to_string(),
        port: address.port(),
    })
}

/// A bearer token: shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The value of `Authorization`.
    pub fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Token(..)")
    }
}

/// The token for `found`: of `file`, else of `ROLLGATE_TOKEN_FILE`, `ROLLGATE_TOKEN`, or the file that the configuration
/// names. A socket needs none, and is given none.
///
/// # Errors
/// What was asked for by name cannot be read, or is no token.
pub fn token(file: Option<&Path>, environment: &Environment, found: &Found) -> Result<Option<Token>, Failure> {
    if matches!(found.place, Place::Unix(_)) {
        return Ok(None);
    }
    if let Some(file) = file.or(environment.token_file.as_deref()) {
        return read_token(file).map(Some);
    }
    if let Some(text) = &environment.token {
        return token_of(text, "ROLLGATE_TOKEN").map(Some);
    }
    // Who may not read it may still look at what needs no token.
    Ok(found.token_file.as_deref().and_then(|file| read_token(file).ok()))
}

fn read_token(file: &Path) -> Result<Token, Failure> {
    use std::io::Read;
    let name = file.display().to_string();
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|opened| opened.take(MAX_TOKEN_BYTES as u64 + 1).read_to_string(&mut text))
        .map_err(|error| Failure::failed(format!("the token file {name} cannot be read: {error}")))?;
    token_of(&text, &name)
}

fn token_of(text: &str, source: &str) -> Result<Token, Failure> {
    let token = text.trim();
    let fits = !token.is_empty() && token.len() <= MAX_TOKEN_BYTES && token.bytes().all(|byte| byte.is_ascii_graphic());
    if fits {
        Ok(Token(token.to_owned()))
    } else {
        Err(Failure::failed(format!(
            "{source} holds no token: expected one word of visible ASCII characters, at most {MAX_TOKEN_BYTES}"
        )))
    }
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;

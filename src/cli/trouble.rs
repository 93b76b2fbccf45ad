//! Why there is no answer of the proxy, and what to do about it.

use super::client::Request;
use super::failure::{Exit, Failure};
use super::place::{Found, Place};
use hyper::Method;
use std::error::Error;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

/// What came instead of an answer.
#[derive(Debug)]
pub enum Trouble {
    /// The request cannot be written as HTTP.
    Request(String),
    Connect(io::Error),
    ConnectTimeout(Duration),
    /// Connected, and no answer in time.
    Silent(Duration),
    /// Connected, and closed or reset before the answer was whole.
    Cut(String),
    /// What came is not HTTP.
    NotHttp(String),
    TooLarge,
}

impl Trouble {
    pub fn of_exchange(error: hyper::Error) -> Self {
        if error.is_parse() || error.is_parse_too_large() {
            Self::NotHttp(error.to_string())
        } else {
            Self::Cut(error.source().map_or(error.to_string(), ToString::to_string))
        }
    }

    /// Of a body that was collected within a limit.
    pub fn of_body(error: &(dyn Error + Send + Sync + 'static)) -> Self {
        if error.is::<http_body_util::LengthLimitError>() {
            Self::TooLarge
        } else {
            Self::Cut(error.to_string())
        }
    }
}

/// What `trouble` on the way to `found` means for who asked.
pub fn failure(trouble: &Trouble, found: &Found, request: &Request) -> Failure {
    let place = &found.place;
    match trouble {
        Trouble::Request(error) => Failure::usage(format!("{} cannot be asked for: {error}", request.path)),
        Trouble::Connect(error) => match place {
            Place::Unix(path) => no_socket(path, error, &found.said_by),
            Place::Http { .. } => no_connection(place, error, &found.said_by),
        },
        Trouble::ConnectTimeout(after) => {
            Failure::unreachable(format!("{place} takes no connection within {}", seconds(*after))).help(match place {
                Place::Unix(_) => "the process is stuck or stopped (SIGSTOP), or too many ask at once",
                Place::Http { .. } => "a firewall may drop it, or the host is down; on the host itself, use the socket",
            })
        }
        Trouble::Silent(after) => unknown_fate(
            Failure::unreachable(format!("{place} does not answer within {}", seconds(*after)))
                .help("the process may be stuck or stopped (SIGSTOP): its log on stderr may say more"),
            request,
        ),
        Trouble::Cut(error) => unknown_fate(
            Failure::unreachable(format!(
                "{place} closed the connection before the answer was whole: {error}"
            ))
            .help("the process may just have stopped, or been replaced: try again"),
            request,
        ),
        Trouble::NotHttp(error) => {
            Failure::unreachable(format!("{place} does not answer in HTTP: {error}")).help(format!(
                "{} says to ask there: is it the admin API, and without TLS?",
                found.said_by
            ))
        }
        Trouble::TooLarge => Failure::new(Exit::Failed, format!("the answer of {place} is too large")),
    }
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs())
}

/// A change that was sent may have been carried out.
fn unknown_fate(failure: Failure, request: &Request) -> Failure {
    if request.method == Method::GET {
        failure
    } else {
        failure.help(
            "whether the change was made is not known: `rollgate status` tells, and sending it again does no harm",
        )
    }
}

fn no_socket(path: &Path, error: &io::Error, said_by: &str) -> Failure {
    let shown = path.display();
    let where_else = format!(
        "{said_by} says to ask there; `admin.socket` of the configuration that it runs with says where it is: `--config \
         FILE`, or `--admin unix:PATH`"
    );
    match error.kind() {
        ErrorKind::NotFound => {
            Failure::unreachable(format!("no socket at {shown}: is rollgate running here?")).help(where_else)
        }
        ErrorKind::ConnectionRefused if !is_socket(path) => {
            Failure::unreachable(format!("{shown} is not a socket")).help(where_else)
        }
        ErrorKind::ConnectionRefused => {
            Failure::unreachable(format!("nobody listens on the socket {shown}: the process that made it has ended"))
                .help("start it: `rollgate run --config FILE` makes the socket anew")
        }
        ErrorKind::PermissionDenied => {
            Failure::unreachable(format!("{shown}: permission denied; {}", whose(path))).help(
                "ask as that user (`sudo -u USER rollgate …`), or let a group in with `admin.socket_mode: 0660` (after a \
                 restart)",
            )
        }
        _ if error.raw_os_error().is_none() => {
            // The only one that comes without the system: longer than a socket's address can be.
            Failure::unreachable(format!("{shown}: {error}"))
                .help("a socket's path has at most 107 bytes: give it relative to the working directory")
        }
        _ => Failure::unreachable(format!("{shown}: {error}")),
    }
}

fn is_socket(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// Who may use the socket, and who asks.
fn whose(path: &Path) -> String {
    let me = nix::unistd::geteuid().as_raw();
    match path.metadata() {
        Ok(metadata) => format!(
            "it belongs to {}, group {}, mode {:04o}; you are {}",
            user(metadata.uid()),
            group(metadata.gid()),
            metadata.mode() & 0o7777,
            user(me)
        ),
        Err(_) => format!("a directory on the way there is closed to {}", user(me)),
    }
}

fn user(id: u32) -> String {
    let known = nix::unistd::User::from_uid(id.into()).ok().flatten();
    known.map_or(format!("uid {id}"), |user| format!("{} (uid {id})", user.name))
}

fn group(id: u32) -> String {
    let known = nix::unistd::Group::from_gid(id.into()).ok().flatten();
    known.map_or(format!("gid {id}"), |group| format!("{} (gid {id})", group.name))
}

fn no_connection(place: &Place, error: &io::Error, said_by: &str) -> Failure {
    match error.kind() {
        ErrorKind::ConnectionRefused => Failure::unreachable(format!("nothing listens at {place}")).help(format!(
            "{said_by} says to ask there; is rollgate running, and is that its `admin.address`?"
        )),
        _ => Failure::unreachable(format!("{place}: {error}")).help(format!("{said_by} says to ask there")),
    }
}

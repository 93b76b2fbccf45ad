//! The side of the process that takes over: what it gets from the one before, and what it says to it.

use super::handover::{Broken, Link, Message, PROTOCOL};
use super::sockets::Inherited;
use anyhow::{Context, bail};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Set for a process that takes over: its stdin is the link.
pub const VARIABLE: &str = "ROLLGATE_SUCCESSOR";

/// How long the process before may take to offer its sockets.
const OFFERED_WITHIN: Duration = Duration::from_secs(10);

/// How long it may take to freeze its state.
const GO_WITHIN: Duration = Duration::from_secs(60);

/// The process before, which serves until we do.
pub struct Predecessor(Link);

impl Predecessor {
    /// The process that started this one to be its successor, with what it hands over; `None`: nobody did.
    ///
    /// # Errors
    /// It cannot be understood.
    pub fn from_environment() -> anyhow::Result<Option<(Self, Inherited)>> {
        if std::env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        let link = link().with_context(|| {
            format!("{VARIABLE} is set, but stdin is not the socket of a process to take over from: unset it")
        })?;
        let mut predecessor = Self(link);
        match predecessor.inherit() {
            Ok(inherited) => Ok(Some((predecessor, inherited))),
            Err(error) => {
                predecessor.refuse(&format!("{error:#}"));
                Err(error)
            }
        }
    }

    fn inherit(&mut self) -> anyhow::Result<Inherited> {
        const CONTEXT: &str = "taking over from the process before";
        let mut inherited = Inherited::default();
        match self.0.receive(OFFERED_WITHIN).context(CONTEXT)? {
            Message::Hello { protocol: PROTOCOL } => {}
            Message::Hello { protocol } => bail!(
                "the process before hands over by protocol {protocol}, this program by {PROTOCOL}: stop and start instead"
            ),
            other => bail!("{CONTEXT}: it began with {other:?}"),
        }
        loop {
            match self.0.receive(OFFERED_WITHIN).context(CONTEXT)? {
                Message::Socket(role) => {
                    let socket = self.0.next_descriptor();
                    let socket = socket.with_context(|| format!("{CONTEXT}: {role:?} came without its descriptor"))?;
                    inherited.0.push((role, socket));
                }
                Message::Offered => return Ok(inherited),
                other => bail!("{CONTEXT}: {other:?} among its sockets"),
            }
        }
    }

    /// Says that this process could serve; returns when it is to, with the lock of the state. Blocks.
    ///
    /// # Errors
    /// It is not to.
    pub fn wait_for_go(&mut self) -> anyhow::Result<Option<OwnedFd>> {
        let went = match self.0.send(&Message::Ready, None) {
            Ok(()) => self.0.receive(GO_WITHIN),
            Err(_) => Err(Broken::Closed),
        };
        match went {
            Ok(Message::Go { lock: false }) => Ok(None),
            Ok(Message::Go { lock: true }) => {
                let lock = self.0.next_descriptor();
                lock.context("the process before said go without the lock of the state")
                    .map(Some)
            }
            // It cannot serve any more, and nobody else has its sockets.
            Err(Broken::Closed) => {
                tracing::warn!("the process before has ended without a word: taking over at once");
                Ok(None)
            }
            Ok(other) => bail!("the process before said {other:?} instead of go"),
            Err(error) => Err(error).context("waiting for the process before"),
        }
    }

    /// Says that this process serves.
    pub fn serving(self) {
        if let Err(error) = self.0.send(&Message::Serving, None) {
            tracing::warn!(%error, "the process before could not be told that this one serves");
        }
    }

    /// Says why this process will not serve.
    pub fn refuse(self, reason: &str) {
        if let Err(error) = self.0.send(&Message::failed(reason), None) {
            tracing::warn!(%error, "the process before could not be told why this one fails");
        }
    }
}

/// The link on stdin, which becomes empty: the process before must see our end.
fn link() -> io::Result<Link> {
    let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    stream.peer_addr()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    stream.set_nonblocking(false)?;
    Link::over(stream)
}

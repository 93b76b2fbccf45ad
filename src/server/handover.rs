//! The wire between a process and the one that takes over from it: a pair of unix sockets, one of them the new process's
//! stdin. Messages are JSON, one a line; a descriptor travels with the line that says what it is.
//!
//! ```text
//! old                                   new
//!   hello, socket…, offered  ───────►     reads the file, takes what it needs of the sockets, binds the rest
//!                            ◄───────   ready
//!   freezes its state, go    ───────►     opens the state (go brings its lock), accepts
//!                            ◄───────   serving
//!   stops accepting, drains
//! ```
//!
//! Until `serving` the old process serves as if nothing were going on. `failed`, the end of the connection and silence all
//! end the attempt.

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Raised when a message changes its meaning: processes that disagree do not hand over.
pub const PROTOCOL: u32 = 1;

/// Bytes of a message, its line end included.
const MAX_MESSAGE: usize = 64 * 1024;

/// Bytes of a reason that is sent: a file may be wrong in a thousand places.
const MAX_REASON: usize = 16 * 1024;

/// Descriptors received and not asked for yet: as many as a file has listeners, and a few.
const MAX_DESCRIPTORS: usize = 80;

/// How long the other side may leave a message in the kernel's buffer.
const SEND_WITHIN: Duration = Duration::from_secs(5);

/// What a descriptor is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A listener, by its address in the file.
    Listener(SocketAddr),
    /// `admin.address`, as in the file.
    AdminAddress(SocketAddr),
    /// `admin.socket`, by its path.
    AdminSocket(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// The first one, from the old process.
    Hello { protocol: u32 },
    /// With the descriptor.
    Socket(Role),
    /// No more sockets.
    Offered,
    /// The new process could serve.
    Ready,
    /// It is to. With the descriptor of the lock of the state, if there is one.
    Go { lock: bool },
    /// It does.
    Serving,
    /// It cannot, and ends.
    Failed { reason: String },
}

impl Message {
    pub fn failed(reason: &str) -> Self {
        let mut end = reason.len().min(MAX_REASON);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let (kept, rest) = reason.split_at(end);
        let cut = if rest.is_empty() { "" } else { " …" };
        Self::Failed {
            reason: format!("{kept}{cut}"),
        }
    }
}

/// Why nothing was received.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The other process has ended, or has closed the connection.
    #[error("the other process has ended")]
    Closed,
    #[error("nothing was heard of the other process for {} s", .0.as_secs_f32())]
    Silent(Duration),
    #[error("the other process cannot be understood: {0}")]
    Unclear(String),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// One end. Blocks: not for a thread that serves.
pub struct Link {
    stream: UnixStream,
    unread: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

impl Link {
    /// Both ends: ours, and the stdin of the process that takes over.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Self::over(ours)?, theirs.into()))
    }

    /// # Errors
    /// The stream is no socket.
    pub fn over(stream: UnixStream) -> io::Result<Self> {
        stream.set_write_timeout(Some(SEND_WITHIN))?;
        Ok(Self {
            stream,
            unread: Vec::new(),
            descriptors: VecDeque::new(),
        })
    }

    /// Sends a message, with a descriptor where it needs one.
    ///
    /// # Errors
    /// The other process has gone, or does not read.
    pub fn send(&self, message: &Message, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        let sent = send(&self.stream, &line, descriptor)?;
        // The descriptor has gone with the first byte.
        (&self.stream).write_all(line.get(sent..).unwrap_or_default())
    }

    /// The next message, within `within`.
    ///
    /// # Errors
    /// There is none, or it is none of ours.
    pub fn receive(&mut self, within: Duration) -> Result<Message, Broken> {
        let until = Instant::now() + within;
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.unread) {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return serde_json::from_slice(&line).map_err(|error| Broken::Unclear(error.to_string()));
            }
            if self.unread.len() > MAX_MESSAGE {
                return Err(Broken::Unclear(format!("a message of more than {MAX_MESSAGE} bytes")));
            }
            let rest = until.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Err(Broken::Silent(within));
            }
            // Zero would be no timeout at all.
            self.stream.set_read_timeout(Some(rest))?;
            match self.fill() {
                Ok(0) => return Err(Broken::Closed),
                Ok(_) => {}
                Err(error) if is_timeout(&error) => return Err(Broken::Silent(within)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(Broken::Closed),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The descriptors that came with the messages received so far, in their order.
    pub fn next_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptors.pop_front()
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let received = recvmsg(&self.stream, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        if self.descriptors.len() > MAX_DESCRIPTORS {
            return Err(io::Error::other("more descriptors than a file has listeners"));
        }
        self.unread
            .extend_from_slice(bytes.get(..received.bytes).unwrap_or_default());
        Ok(received.bytes)
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Sends what the socket takes of `bytes`, with the descriptor; returns how many that were.
///
/// # Errors
/// As `sendmsg(2)`.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if descriptor.is_some() {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptor.as_slice()));
    }
    Ok(sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?)
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    /// For what does not come.
    const SOON: Duration = Duration::from_millis(50);
    /// For what has come.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn pair() -> (Link, Link) {
        let (ours, theirs) = Link::pair().unwrap();
        (ours, Link::over(theirs.into()).unwrap())
    }

    #[test]
    fn each_descriptor_arrives_with_its_name_however_late_it_is_read() {
        let (old, mut new) = pair();
        let sockets: Vec<_> = (0..66)
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
            .collect();
        for socket in &sockets {
            let role = Role::Listener(socket.local_addr().unwrap());
            old.send(&Message::Socket(role), Some(socket.as_fd())).unwrap();
        }
        old.send(&Message::Offered, None).unwrap();
        for socket in &sockets {
            let address = socket.local_addr().unwrap();
            assert_eq!(new.receive(PATIENCE).unwrap(), Message::Socket(Role::Listener(address)));
            let received = TcpListener::from(new.next_descriptor().unwrap());
            assert_eq!(received.local_addr().unwrap(), address);
        }
        assert_eq!(new.receive(PATIENCE).unwrap(), Message::Offered);
        assert!(new.next_descriptor().is_none());
    }

    #[test]
    fn silence_the_end_and_nonsense_are_told_apart() {
        let (old, mut new) = pair();
        assert!(matches!(new.receive(SOON), Err(Broken::Silent(_))));
        (&old.stream).write_all(b"{\"never\":1}\n{\"go\":").unwrap();
        assert!(matches!(new.receive(PATIENCE), Err(Broken::Unclear(_))));
        assert!(matches!(new.receive(SOON), Err(Broken::Silent(_))), "half a message");
        drop(old);
        assert!(matches!(new.receive(PATIENCE), Err(Broken::Closed)));
    }

    #[test]
    fn what_never_ends_is_not_kept_for_ever() {
        let (old, mut new) = pair();
        let writing = std::thread::spawn(move || {
            // Fails when the reader has given up.
            let _ = (&old.stream).write_all(&vec![b'x'; 4 * MAX_MESSAGE]);
        });
        assert!(matches!(new.receive(PATIENCE), Err(Broken::Unclear(_))));
        drop(new);
        writing.join().unwrap();
    }

    #[test]
    fn a_long_reason_is_cut_where_a_letter_ends() {
        let (old, mut new) = pair();
        let reason = "ü".repeat(MAX_REASON);
        old.send(&Message::failed(&reason), None).unwrap();
        let Message::Failed { reason } = new.receive(PATIENCE).unwrap() else {
            panic!("another message");
        };
        assert!(reason.ends_with("ü …") && reason.len() < MAX_REASON + 10);
    }
}

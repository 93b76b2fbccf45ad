//! The one thread that writes the log.

use super::Message;
use crate::config::snapshot::LogPath;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How often a file is looked at for having been rotated.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// How long a non-blocking descriptor may refuse bytes before the batch is given up.
const PATIENCE: Duration = Duration::from_secs(1);
const RETRY_AFTER: Duration = Duration::from_millis(5);
/// Addresses and paths of users: readable by owner and group.
const FILE_MODE: u32 = 0o640;

/// Where lines go.
pub(super) struct Sink {
    output: File,
    /// What a file is checked against for rotation; `None` for stdout and stderr.
    rotated: Option<Rotation>,
}

struct Rotation {
    path: PathBuf,
    /// Device and inode of the open file.
    identity: (u64, u64),
}

impl Sink {
    /// # Errors
    /// When the file cannot be opened for appending, or the process has no such stream.
    pub(super) fn open(path: &LogPath) -> io::Result<Self> {
        match path {
            // A descriptor of our own, not the locked handle: a pipe that stalls must not stop who else prints.
            LogPath::Stdout => Ok(Self::stream(io::stdout().as_fd().try_clone_to_owned()?.into())),
            LogPath::Stderr => Ok(Self::stream(io::stderr().as_fd().try_clone_to_owned()?.into())),
            LogPath::File(path) => Self::file(path),
        }
    }

    pub(super) fn stream(output: File) -> Self {
        Self { output, rotated: None }
    }

    fn file(path: &Path) -> io::Result<Self> {
        let output = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(FILE_MODE)
            .open(path)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        let metadata = output.metadata()?;
        let rotated = Rotation {
            path: path.to_path_buf(),
            identity: (metadata.dev(), metadata.ino()),
        };
        Ok(Self {
            output,
            rotated: Some(rotated),
        })
    }

    /// Opens the path anew when it no longer names the open file (renamed, removed or replaced), and says whether it
    /// was.
    fn follow_rotation(&mut self) -> io::Result<bool> {
        let Some(rotated) = &self.rotated else { return Ok(false) };
        let same =
            std::fs::metadata(&rotated.path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == rotated.identity);
        if !same {
            *self = Self::file(&rotated.path.clone())?;
        }
        Ok(!same)
    }
}

pub(super) struct Writer {
    sink: Sink,
    receiver: Receiver<Message>,
    dropped: Arc<AtomicU64>,
    next_check: Instant,
    /// The last write stopped within a line.
    torn: bool,
    /// The last write failed, and that was said.
    failing: bool,
    /// The path could not be opened anew, and that was said: lines still go to the file that was moved away.
    lost: bool,
}

impl Writer {
    pub(super) fn new(sink: Sink, receiver: Receiver<Message>, dropped: Arc<AtomicU64>) -> Self {
        Self {
            sink,
            receiver,
            dropped,
            next_check: Instant::now() + CHECK_EVERY,
            torn: false,
            failing: false,
            lost: false,
        }
    }

    /// Until it is told to close, or nobody can send any more.
    pub(super) fn run(mut self) {
        loop {
            let wait = self.next_check.saturating_duration_since(Instant::now());
            match self.receiver.recv_timeout(wait) {
                Ok(Message::Batch(batch)) => self.write(&batch),
                Ok(Message::Close) => break,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= self.next_check {
                self.next_check = Instant::now() + CHECK_EVERY;
                self.follow_rotation();
            }
        }
        // What was queued behind the order to close: at most a queue's length, senders or not.
        while let Ok(Message::Batch(batch)) = self.receiver.try_recv() {
            self.write(&batch);
        }
    }

    fn follow_rotation(&mut self) {
        let result = self.sink.follow_rotation();
        let was_lost = std::mem::replace(&mut self.lost, result.is_err());
        match result {
            Ok(true) => self.torn = false,
            Ok(false) => {}
            Err(error) if was_lost => tracing::debug!(%error, "access log: still not opened anew"),
            Err(error) => {
                tracing::warn!(%error, "access log: cannot be opened anew; lines go to the file that was moved");
            }
        }
    }

    fn write(&mut self, batch: &[u8]) {
        if self.torn {
            match write_whole(&mut self.sink.output, b"\n") {
                Ok(()) => self.torn = false,
                Err((_, error)) => return self.lose(batch, &error),
            }
        }
        match write_whole(&mut self.sink.output, batch) {
            Ok(()) => self.failing = false,
            Err((written, error)) => {
                let (sent, unsent) = batch.split_at_checked(written).unwrap_or((batch, &[]));
                self.torn = sent.last().is_some_and(|&byte| byte != b'\n');
                self.lose(unsent, &error);
            }
        }
    }

    /// Counts the lines of `unsent`. Says why once, until it works again: a full disk would otherwise fill the other
    /// log as well.
    fn lose(&mut self, unsent: &[u8], error: &io::Error) {
        let lines = memchr::memchr_iter(b'\n', unsent).count() as u64;
        self.dropped.fetch_add(lines, Ordering::Relaxed);
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(%error, "access log: cannot write; lines that are lost are counted");
        }
    }
}

/// All of `bytes`, or how many of them were written and why not more.
fn write_whole(output: &mut File, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut written = 0;
    let mut give_up: Option<Instant> = None;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match output.write(rest) {
            Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
            Ok(n) => {
                written += n;
                give_up = None;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let limit = *give_up.get_or_insert_with(|| Instant::now() + PATIENCE);
                if Instant::now() >= limit {
                    return Err((written, error));
                }
                std::thread::sleep(RETRY_AFTER);
            }
            Err(error) => return Err((written, error)),
        }
    }
    Ok(())
}

//! The access log: one request, one JSON line; formatted on the worker thread, written by one thread of its own.
//!
//! A worker never waits for the log. It fills its own buffer and hands it over whole through a bounded queue; when
//! the queue is full the batch is dropped and its lines are counted (`rollgate_access_log_dropped_total`).

mod line;
mod writer;

pub use line::{Line, rfc3339};

use crate::config::snapshot;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};
use writer::Writer;

/// Bytes of a batch that is handed over before the tick.
const HANDOVER: usize = 16 * 1024;
/// Room of a worker's buffer: a batch and the line that completes it.
const BUFFER: usize = HANDOVER + 4 * 1024;
/// Batches that may wait for the writer: with [`HANDOVER`], about 16 MiB, some 40,000 lines.
const QUEUE: usize = 1024;

/// What workers send to the writer.
enum Message {
    Batch(Vec<u8>),
    /// Write what is queued, then end.
    Close,
}

/// The open log: gives every worker its [`LogShard`].
pub struct AccessLog {
    sender: SyncSender<Message>,
    /// Disconnected once the writer has ended.
    ended: Receiver<()>,
    sample: f64,
    dropped: Arc<AtomicU64>,
}

impl AccessLog {
    /// Opens the log and starts its writer; `dropped` counts lines that were not written, for whatever reason.
    ///
    /// # Errors
    /// When the file cannot be opened for appending, or the thread cannot be started.
    pub fn open(spec: &snapshot::AccessLog, dropped: Arc<AtomicU64>) -> io::Result<Self> {
        let sink = writer::Sink::open(&spec.path)?;
        Self::start(sink, spec.sample, dropped, QUEUE)
    }

    fn start(sink: writer::Sink, sample: f64, dropped: Arc<AtomicU64>, queue: usize) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(queue);
        let (alive, ended) = sync_channel(0);
        let writer = Writer::new(sink, receiver, Arc::clone(&dropped));
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || {
                writer.run();
                drop(alive);
            })?;
        Ok(Self {
            sender,
            ended,
            sample,
            dropped,
        })
    }

    /// One worker thread's part.
    pub fn shard(&self) -> LogShard {
        LogShard {
            sender: self.sender.clone(),
            buffer: Vec::new(),
            lines: 0,
            sample: self.sample,
            draw: fastrand::Rng::new(),
            clock: line::Clock::default(),
            dropped: Arc::clone(&self.dropped),
        }
    }

    /// Writes what was handed over, waiting at most `wait`; shards flushed afterwards lose their lines. Returns
    /// whether all of it was written in time.
    pub fn close(self, wait: Duration) -> bool {
        let deadline = Instant::now() + wait;
        let mut message = Message::Close;
        loop {
            message = match self.sender.try_send(message) {
                Ok(()) | Err(TrySendError::Disconnected(_)) => break,
                Err(TrySendError::Full(back)) if Instant::now() < deadline => back,
                Err(TrySendError::Full(_)) => return false,
            };
            std::thread::sleep(Duration::from_millis(2));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        // Nothing is ever sent: it ends by disconnection, when the writer has, or by the timeout.
        matches!(
            self.ended.recv_timeout(left),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected)
        )
    }
}

/// A worker thread's end of the log. Flushes when dropped.
pub struct LogShard {
    sender: SyncSender<Message>,
    buffer: Vec<u8>,
    /// In the buffer.
    lines: u64,
    sample: f64,
    draw: fastrand::Rng,
    clock: line::Clock,
    dropped: Arc<AtomicU64>,
}

impl LogShard {
    /// Takes over the sample fraction of the configuration a request runs on: an edit holds at once. `None`, a file
    /// without a log, changes nothing: an open log is closed by a restart only.
    pub fn follow(&mut self, spec: Option<&snapshot::AccessLog>) {
        if let Some(spec) = spec {
            self.sample = spec.sample;
        }
    }

    /// Logs the request if it is in the sample, failed or was refused. Never blocks.
    pub fn record(&mut self, line: &Line<'_>) {
        if !self.is_logged(line) {
            return;
        }
        if self.buffer.capacity() == 0 {
            self.buffer.reserve_exact(BUFFER);
        }
        line.write(&mut self.buffer, &mut self.clock);
        self.lines += 1;
        if self.buffer.len() >= HANDOVER {
            self.flush();
        }
    }

    fn is_logged(&mut self, line: &Line<'_>) -> bool {
        self.sample >= 1.0
            || line.status >= 500
            || line.failure.is_some()
            || line.refusal.is_some()
            || self.draw.f64() < self.sample
    }

    /// Hands what was recorded to the writer; drops and counts it when the queue is full. Called at each tick.
    pub fn flush(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        if lines == 0 {
            return;
        }
        // A quiet thread keeps its buffer, so that a queue of small batches holds small memory.
        let batch = if self.buffer.len() < HANDOVER / 2 {
            let copy = self.buffer.as_slice().to_vec();
            self.buffer.clear();
            copy
        } else {
            std::mem::take(&mut self.buffer)
        };
        if self.sender.try_send(Message::Batch(batch)).is_err() {
            self.dropped.fetch_add(lines, Ordering::Relaxed);
        }
    }
}

impl Drop for LogShard {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests;

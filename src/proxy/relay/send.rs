//! The request's way to the endpoint, and the watch over its client.

use super::{Attempt, Failed, Upload};
use crate::http1::ChunkError;
use crate::outcome::{Refusal, Termination};
use crate::proxy::body::{BodyError, BodyReader, BodyWriter};
use crate::proxy::buffer::{Buffer, HeadBytes};
use crate::proxy::downstream::Link;
use crate::proxy::stream::Stream;
use std::time::{Duration, Instant};

/// How long the answer to a client that has finished sending (a half-close) may take to begin: most such clients are
/// gone, and cannot be told from those that wait.
const HALF_CLOSED_PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of a request's body kept so that an idempotent request may be repeated.
const REPLAY_BYTES: usize = 64 * 1024;

/// A body that arrives slower than this for longer than [`SLOW_BODY_GRACE`] of waiting is refused (408).
const SLOW_BODY_BYTES_PER_S: u64 = 240;
const SLOW_BODY_GRACE: Duration = Duration::from_secs(10);

impl Attempt<'_> {
    /// Sends the request; then watches the client. Ends only when the attempt cannot go on.
    pub(super) async fn send(&self, head: HeadBytes, upload: &mut Upload<'_, '_>) -> Failed {
        match self.send_request(head, upload).await {
            Ok(()) => {
                self.progress.uploaded.set(true);
                if !self.progress.answer_begun() {
                    self.client.slot.set_phase(self.first_byte);
                }
            }
            // The endpoint may have answered before it stopped reading: its answer says more than this error.
            Err(SendError::Upstream) => {}
            Err(SendError::Failed(failed)) => return failed,
        }
        self.watch(upload.reader).await
    }

    async fn send_request(&self, head: HeadBytes, upload: &mut Upload<'_, '_>) -> Result<(), SendError> {
        let accepted = self.accepted(&self.progress.sent);
        let writer = self.upstream.writer(head, upload.coding, accepted);
        let mut writer = writer.ok_or(SendError::Upstream)?;
        self.send_pieces(&mut writer, upload).await
    }

    async fn send_pieces(&self, writer: &mut BodyWriter<'_>, upload: &mut Upload<'_, '_>) -> Result<(), SendError> {
        if let Some(replay) = upload.replay.as_ref().filter(|replay| !replay.is_empty()) {
            self.progress.writing_upstream.set(true);
            let written = writer.write(replay).await;
            self.progress.writing_upstream.set(false);
            written?;
        }
        let slot = &self.client.slot;
        let waited = &self.progress.waited;
        while !upload.reader.is_done() {
            if !upload.reader.has_buffered() {
                // Nothing more to send with the head: the client may be waiting for what it brings about (100).
                writer.flush().await?;
            }
            if self.waits_for_100() {
                slot.set_phase(self.first_byte);
            }
            let before = Instant::now();
            self.progress.reading_client.set(true);
            let piece = upload.reader.next().await;
            self.progress.reading_client.set(false);
            let Some(piece) = piece.map_err(bad_body)? else {
                upload.reader.choose_trailers(|came| self.rules.request_trailers(came));
                writer.finish(upload.reader.trailers()).await?;
                return Ok(());
            };
            // A client may well wait for its first word, but not with a call's messages.
            if self.progress.body_begun.replace(true) || self.is_grpc {
                waited.set(waited.get() + before.elapsed());
            }
            upload.bytes += piece.len() as u64;
            self.record.received(upload.bytes);
            if !self.is_grpc && upload.bytes > self.limits.max_body {
                return Err(SendError::Failed(Failed::Refused(
                    Refusal::BodyTooLarge,
                    "the body is larger than limits.max_body",
                )));
            }
            if !self.is_grpc && is_slow(upload.bytes, waited.get()) {
                return Err(SendError::Failed(Failed::Refused(
                    Refusal::RequestTimeout,
                    "the body did not arrive in time",
                )));
            }
            upload.replay = upload.replay.take().and_then(|kept| keep(kept, piece));
            self.progress.body_lost.set(upload.replay.is_none());
            slot.set_phase(self.timeouts.idle);
            upload.reader.choose_trailers(|came| self.rules.request_trailers(came));
            self.progress.writing_upstream.set(true);
            let written = writer.pass(upload.reader).await;
            self.progress.writing_upstream.set(false);
            written?;
            if upload.reader.is_done() {
                return Ok(());
            }
        }
        // No body, or all of it sent again.
        upload.reader.choose_trailers(|came| self.rules.request_trailers(came));
        writer.finish(upload.reader.trailers()).await?;
        Ok(())
    }

    /// Reads ahead what the client sends behind its request, as far as there is room, and notices that it leaves.
    async fn watch(&self, body: &mut BodyReader<'_>) -> Failed {
        match (&self.client.link, body.buffer()) {
            (Link::Wire(stream), Some(input)) => self.watch_wire(stream, input).await,
            (Link::Frames(outgoing, _), _) => {
                outgoing.gone().await;
                Failed::Client(self.client_left())
            }
            (Link::Wire(_), None) | (Link::Nowhere, _) => std::future::pending().await,
        }
    }

    async fn watch_wire(&self, stream: &Stream, input: &mut Buffer) -> Failed {
        let limit = self.limits.max_head;
        self.progress.pipelined.set(!input.is_empty());
        while input.unread().len() < limit {
            match stream.fill(input, limit).await {
                Ok(0) => {
                    self.progress.half_closed.set(true);
                    if !self.progress.answer_begun() {
                        self.progress
                            .hurried
                            .set(self.client.slot.shorten_phase(HALF_CLOSED_PATIENCE));
                    }
                    break;
                }
                Ok(_) => self.progress.pipelined.set(true),
                Err(_) => return Failed::Client(self.client_left()),
            }
        }
        std::future::pending().await
    }
}

enum SendError {
    /// The endpoint takes no more.
    Upstream,
    Failed(Failed),
}

impl From<std::io::Error> for SendError {
    fn from(_: std::io::Error) -> Self {
        Self::Upstream
    }
}

/// The error of a request's body: a broken coding is refused, the rest is a client that left.
fn bad_body(error: BodyError) -> SendError {
    SendError::Failed(match error {
        BodyError::Malformed(ChunkError::TrailersTooLarge) => {
            let why = "the trailers are larger than limits.max_head, or more than 100 fields";
            Failed::Refused(Refusal::HeadTooLarge, why)
        }
        broken if broken.is_malformed() => Failed::Refused(Refusal::BadRequest, "the body's coding is broken"),
        _ => Failed::Client(Termination::ClientAbort),
    })
}

/// `kept` with `piece`, or nothing when that is too much to keep.
fn keep(mut kept: Vec<u8>, piece: &[u8]) -> Option<Vec<u8>> {
    (kept.len() + piece.len() <= REPLAY_BYTES).then(|| {
        kept.extend_from_slice(piece);
        kept
    })
}

fn is_slow(bytes: u64, waited: Duration) -> bool {
    waited > SLOW_BODY_GRACE && bytes < waited.as_secs() * SLOW_BODY_BYTES_PER_S
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_slow_only_after_the_grace_and_below_the_rate() {
        assert!(!is_slow(0, Duration::from_secs(10)));
        assert!(is_slow(2_000, Duration::from_secs(20)));
        assert!(!is_slow(5_000, Duration::from_secs(20)));
    }

    #[test]
    fn a_replay_is_kept_up_to_its_bound() {
        let kept = keep(Vec::new(), &[1; REPLAY_BYTES]).unwrap();
        assert_eq!(kept.len(), REPLAY_BYTES);
        assert!(keep(kept, b"x").is_none());
    }
}

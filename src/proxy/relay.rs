//! One attempt: the request to an endpoint and its answer back, both at once, in one task.
//!
//! Two futures share the attempt's state: [`Attempt::send`] takes the request's body from the client to the endpoint
//! and then watches whether the client is still there; [`Attempt::receive`] brings the answer. The deadline slot of the
//! connection covers both: whoever makes progress pushes the phase's deadline on.

use super::body::{BodyError, BodyReader, BodyWriter, Coding, Framing};
use super::buffer::{Buffer, HeadBytes};
use super::deadlines::Expired;
use super::downstream::Client;
use super::stream::Stream;
use super::tunnel;
use crate::config::snapshot::{Limits, Timeouts};
use crate::http1::{
    Framing as AnswerFraming, HeadError, HeadLimits, RequestBody, RequestHead, ResponseAdditions, ResponseBody,
    ResponseHead, parse_response, write_response,
};
use crate::outcome::{FailureKind, Refusal, Termination};
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Interim answers (1xx) relayed for one request; more of them is a broken endpoint.
const MAX_INTERIM: u32 = 16;

/// How long the answer to a client that has finished sending (a half-close) may take to begin: most such clients are
/// gone, and cannot be told from those that wait.
const HALF_CLOSED_PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of a request's body kept so that an idempotent request may be repeated.
const REPLAY_BYTES: usize = 64 * 1024;

/// A body that arrives slower than this for longer than [`SLOW_BODY_GRACE`] of waiting is refused (408).
const SLOW_BODY_BYTES_PER_S: u64 = 240;
const SLOW_BODY_GRACE: Duration = Duration::from_secs(10);

/// Why an attempt gave no whole answer.
#[derive(Debug)]
pub enum Failed {
    /// The request cannot be served whatever the version: the client is told so, if nothing was answered yet.
    Refused(Refusal),
    /// The client has gone, or takes nothing any more.
    Client(Termination),
    /// The endpoint's failure.
    Upstream {
        termination: Termination,
        nothing_received: bool,
        why: String,
    },
    /// `limits.request_timeout` has passed.
    Deadline,
}

impl Failed {
    fn upstream(termination: Termination, why: impl Into<String>) -> Self {
        Self::Upstream {
            termination,
            nothing_received: false,
            why: why.into(),
        }
    }
}

/// A whole answer.
pub struct Answered {
    pub status: u16,
    /// The endpoint's connection can carry another request.
    pub reusable: bool,
    /// The client's connection can carry another request.
    pub keep_alive: bool,
    pub upgraded: bool,
    /// The `grpc-status` or anything else that decides success comes with other protocols; here the status does.
    pub failure: Option<FailureKind>,
}

/// The request's body and what is needed to send it again.
pub struct Upload<'c> {
    pub reader: BodyReader<'c>,
    pub coding: Coding,
    /// What was read of it, while all of it is kept. `None`: not repeatable.
    pub replay: Option<Vec<u8>>,
    pub bytes: u64,
}

impl<'c> Upload<'c> {
    /// The body of `head`, read from the client's connection.
    pub fn new(head: &RequestHead, stream: &'c Stream, input: &'c mut Buffer) -> Self {
        let (framing, coding) = match head.body {
            RequestBody::None => (Framing::Done, Coding::Plain),
            RequestBody::Length(bytes) => (Framing::length(bytes), Coding::Plain),
            RequestBody::Chunked => (Framing::chunked(), Coding::Chunked),
        };
        let replay = head.method_kind.is_idempotent().then(Vec::new);
        Self {
            reader: BodyReader::new(stream, input, framing),
            coding,
            replay,
            bytes: 0,
        }
    }
}

/// What an attempt needs to know; it changes only cells.
pub struct Attempt<'a> {
    pub client: &'a Client,
    pub upstream: &'a Stream,
    pub request: &'a RequestHead,
    pub limits: &'a Limits,
    pub timeouts: &'a Timeouts,
    /// What is added to the final answer.
    pub set_cookie: Option<&'a [u8]>,
    pub expose_version: Option<&'a str>,
    pub progress: Progress,
}

/// How far an attempt has come: read after it has ended, however it ended.
#[derive(Default)]
pub struct Progress {
    /// The whole request is sent.
    pub uploaded: Cell<bool>,
    /// The endpoint takes no more of the request.
    upload_broken: Cell<bool>,
    /// Bytes the endpoint's socket accepted.
    pub sent: Cell<u64>,
    /// Bytes the client's socket accepted, of the final answer.
    pub answered: Cell<u64>,
    /// The status of the final answer, once its head is there.
    pub status: Cell<Option<u16>>,
    pub first_byte: Cell<Option<Instant>>,
    /// The client has finished sending, and waits (or has gone).
    pub half_closed: Cell<bool>,
    reading_client: Cell<bool>,
    writing_client: Cell<bool>,
}

impl Progress {
    /// The final answer has begun: nothing else can be answered any more.
    pub fn answer_begun(&self) -> bool {
        self.status.get().is_some()
    }
}

impl Attempt<'_> {
    /// Runs the attempt to its end. `head`: the request's head as it is sent.
    pub async fn run(&self, head: &[u8], upload: &mut Upload<'_>, answer: &mut Buffer) -> Result<Answered, Failed> {
        self.client.slot.set_phase(self.timeouts.idle);
        let result = {
            let mut send = pin!(self.send(head, upload));
            let mut receive = pin!(self.receive(answer));
            let both = poll_fn(|context| poll_both(send.as_mut(), receive.as_mut(), context));
            match self.client.slot.guard(both).await {
                Ok(result) => result,
                Err(expired) => return Err(self.too_late(expired)),
            }
        }?;
        match result {
            Received::Whole(answered) => Ok(answered),
            Received::Upgraded(status) => {
                tunnel::run(
                    self.client,
                    self.upstream,
                    upload.reader.buffer(),
                    answer,
                    self.timeouts.idle,
                )
                .await;
                Ok(Answered {
                    status,
                    reusable: false,
                    keep_alive: false,
                    upgraded: true,
                    failure: None,
                })
            }
        }
    }

    /// Sends the request; then watches the client. Ends only when the attempt cannot go on.
    async fn send(&self, head: &[u8], upload: &mut Upload<'_>) -> Failed {
        match self.send_request(head, upload).await {
            Ok(()) => {
                self.progress.uploaded.set(true);
                if !self.progress.answer_begun() {
                    self.client.slot.set_phase(self.timeouts.first_byte);
                }
            }
            // The endpoint may have answered before it stopped reading: its answer says more than this error.
            Err(SendError::Upstream) => self.progress.upload_broken.set(true),
            Err(SendError::Failed(failed)) => return failed,
        }
        self.watch(upload.reader.buffer()).await
    }

    async fn send_request(&self, head: &[u8], upload: &mut Upload<'_>) -> Result<(), SendError> {
        let mut writer = BodyWriter::new(self.upstream, head, upload.coding);
        let sent = self.send_pieces(&mut writer, upload).await;
        self.progress.sent.set(writer.written);
        sent
    }

    async fn send_pieces(&self, writer: &mut BodyWriter<'_>, upload: &mut Upload<'_>) -> Result<(), SendError> {
        if let Some(replay) = upload.replay.as_ref().filter(|replay| !replay.is_empty()) {
            writer.write(replay).await?;
        }
        let slot = &self.client.slot;
        let mut waited = Duration::ZERO;
        while !upload.reader.is_done() {
            if !upload.reader.has_buffered() {
                // Nothing more to send with the head: the client may be waiting for what it brings about (100).
                writer.flush().await?;
                self.progress.sent.set(writer.written);
            }
            let before = Instant::now();
            self.progress.reading_client.set(true);
            let piece = upload.reader.next().await;
            self.progress.reading_client.set(false);
            let Some(piece) = piece.map_err(bad_body)? else { break };
            waited += before.elapsed();
            upload.bytes += piece.len() as u64;
            if upload.bytes > self.limits.max_body {
                return Err(SendError::Failed(Failed::Refused(Refusal::BodyTooLarge)));
            }
            if is_slow(upload.bytes, waited) {
                return Err(SendError::Failed(Failed::Refused(Refusal::RequestTimeout)));
            }
            upload.replay = upload.replay.take().and_then(|kept| keep(kept, piece));
            slot.set_phase(self.timeouts.idle);
            writer.write(piece).await?;
            slot.set_phase(self.timeouts.idle);
        }
        writer.finish(upload.reader.trailers()).await?;
        Ok(())
    }

    /// Reads ahead what the client sends behind its request, as far as there is room, and notices that it leaves.
    async fn watch(&self, input: &mut Buffer) -> Failed {
        let limit = self.limits.max_head;
        while input.unread().len() < limit {
            match self.client.stream.fill(input, limit).await {
                Ok(0) => {
                    self.progress.half_closed.set(true);
                    if !self.progress.answer_begun() {
                        self.client.slot.shorten_phase(HALF_CLOSED_PATIENCE);
                    }
                    break;
                }
                Ok(_) => {}
                Err(_) => return Failed::Client(self.client_left()),
            }
        }
        std::future::pending().await
    }

    /// The answer: interim heads, the final head, the body.
    async fn receive(&self, answer: &mut Buffer) -> Result<Received, Failed> {
        let mut interim = 0;
        loop {
            let (head, bytes) = self.next_head(answer).await?;
            match head.status {
                101 => {
                    let mut out = HeadBytes::new();
                    self.write_head(&mut out, &head, &bytes, AnswerFraming::None, false);
                    self.to_client(BodyWriter::new(&self.client.stream, &out, Coding::Plain).flush())
                        .await?;
                    self.progress.status.set(Some(101));
                    return Ok(Received::Upgraded(101));
                }
                100..=199 => {
                    interim += 1;
                    if interim > MAX_INTERIM {
                        return Err(Failed::upstream(
                            Termination::UpstreamProtocol,
                            "too many interim answers",
                        ));
                    }
                    self.relay_interim(&head, &bytes).await?;
                }
                _ => return self.relay(&head, &bytes, answer).await.map(Received::Whole),
            }
        }
    }

    /// The next head of the endpoint, with its bytes.
    async fn next_head(&self, answer: &mut Buffer) -> Result<(ResponseHead, HeadBytes), Failed> {
        let limits = HeadLimits {
            bytes: self.limits.max_head,
            ..HeadLimits::default()
        };
        let (method, upgrade) = (self.request.method_kind, self.request.upgrade);
        let mut parser = self.client.worker.head_parser();
        loop {
            match parse_response(answer.unread(), method, upgrade, &limits, &mut parser).map_err(broken_head)? {
                Some(head) => {
                    let bytes = HeadBytes::copy_of(answer.unread().get(..head.len).unwrap_or_default());
                    answer.consume(head.len);
                    return Ok((head, bytes));
                }
                None => self.read_more(answer).await?,
            }
        }
    }

    async fn read_more(&self, answer: &mut Buffer) -> Result<(), Failed> {
        let nothing_received = answer.is_empty() && self.progress.first_byte.get().is_none();
        let reset = |why: String| Failed::Upstream {
            termination: Termination::UpstreamReset,
            nothing_received,
            why,
        };
        match self.upstream.fill(answer, self.limits.max_head).await {
            Ok(0) => Err(reset("the endpoint closed the connection before its answer".into())),
            Ok(_) => {
                if self.progress.first_byte.get().is_none() {
                    self.progress.first_byte.set(Some(Instant::now()));
                }
                Ok(())
            }
            Err(error) => Err(reset(format!("reading the answer: {error}"))),
        }
    }

    /// 100 and 103 reach a client that knows of them (HTTP/1.0 does not: RFC 9110 section 15.2).
    async fn relay_interim(&self, head: &ResponseHead, bytes: &[u8]) -> Result<(), Failed> {
        if self.progress.uploaded.get() {
            self.client.slot.set_phase(self.timeouts.first_byte);
        }
        if self.request.minor == 0 {
            return Ok(());
        }
        let mut out = HeadBytes::new();
        self.write_head(&mut out, head, bytes, AnswerFraming::None, false);
        self.to_client(BodyWriter::new(&self.client.stream, &out, Coding::Plain).flush())
            .await
    }

    /// Relays the final answer, head and body.
    async fn relay(&self, head: &ResponseHead, bytes: &[u8], answer: &mut Buffer) -> Result<Answered, Failed> {
        let (framing, answer_framing, coding) = self.framings(head);
        let close = answer_framing == AnswerFraming::UntilClose || !self.may_keep_alive();
        let mut out = HeadBytes::new();
        self.write_head(&mut out, head, bytes, answer_framing, close);
        self.client.slot.set_phase(self.timeouts.idle);

        let mut reader = BodyReader::new(self.upstream, answer, framing);
        let mut writer = BodyWriter::new(&self.client.stream, &out, coding);
        let relayed = self.relay_body(head.status, &mut reader, &mut writer).await;
        self.progress.answered.set(writer.written);
        if let Err(failed) = relayed {
            if answer_framing == AnswerFraming::UntilClose && self.progress.answer_begun() {
                self.client.stream.reset_on_close();
            }
            return Err(failed);
        }
        let until_close = matches!(head.body, ResponseBody::UntilClose);
        drop(reader);
        let whole = self.progress.uploaded.get() && answer.is_empty();
        Ok(Answered {
            status: head.status,
            reusable: whole && head.keep_alive && !until_close,
            keep_alive: !close && self.progress.uploaded.get(),
            upgraded: false,
            failure: (500..=599).contains(&head.status).then_some(FailureKind::Status5xx),
        })
    }

    async fn relay_body(
        &self,
        status: u16,
        reader: &mut BodyReader<'_>,
        writer: &mut BodyWriter<'_>,
    ) -> Result<(), Failed> {
        loop {
            if !reader.has_buffered() && !reader.is_done() {
                self.begin(status, writer.flush()).await?;
            }
            let piece = reader.next().await.map_err(cut)?;
            let Some(piece) = piece else { break };
            self.client.slot.set_phase(self.timeouts.idle);
            self.begin(status, writer.write(piece)).await?;
            self.progress.answered.set(writer.written);
            self.client.slot.set_phase(self.timeouts.idle);
            if reader.is_done() {
                break;
            }
        }
        self.begin(status, writer.finish(reader.trailers())).await
    }

    /// A write of the final answer: from the first one on, nothing else can be answered.
    async fn begin(&self, status: u16, write: impl Future<Output = std::io::Result<()>>) -> Result<(), Failed> {
        self.progress.status.set(Some(status));
        self.to_client(write).await
    }

    /// How the answer's body is read, how its length is told to the client, and how it is written.
    fn framings(&self, head: &ResponseHead) -> (Framing, AnswerFraming, Coding) {
        match head.body {
            ResponseBody::None => (Framing::Done, AnswerFraming::None, Coding::Plain),
            ResponseBody::Length(bytes) => (Framing::length(bytes), AnswerFraming::Length(bytes), Coding::Plain),
            _ if self.request.minor == 0 => (framing_of(&head.body), AnswerFraming::UntilClose, Coding::Plain),
            _ => (framing_of(&head.body), AnswerFraming::Chunked, Coding::Chunked),
        }
    }

    /// Whether the client's connection may live on, as far as is known when the answer's head is written. A request
    /// that is still being sent then may never end: its connection closes.
    fn may_keep_alive(&self) -> bool {
        self.request.keep_alive
            && self.progress.uploaded.get()
            && !self.progress.half_closed.get()
            && !self.client.worker.is_draining()
    }

    fn write_head(&self, out: &mut Vec<u8>, head: &ResponseHead, bytes: &[u8], framing: AnswerFraming, close: bool) {
        let date = self.client.worker.date();
        let additions = ResponseAdditions {
            client_minor: self.request.minor,
            close,
            keep_alive_10: !close && self.request.minor == 0,
            set_cookie: self.set_cookie.filter(|_| head.status >= 200),
            version: self.expose_version.filter(|_| head.status >= 200),
            framing,
            date: (head.status >= 200).then_some(&*date),
            via: true,
        };
        write_response(out, head, bytes, &additions);
    }

    /// A write to the client; its failure is the client's leaving.
    async fn to_client(&self, write: impl Future<Output = std::io::Result<()>>) -> Result<(), Failed> {
        self.progress.writing_client.set(true);
        let written = write.await;
        self.progress.writing_client.set(false);
        written.map_err(|_| Failed::Client(self.client_left()))
    }

    fn client_left(&self) -> Termination {
        if self.progress.answer_begun() {
            Termination::ClientAbortAnswer
        } else {
            Termination::ClientAbort
        }
    }

    /// Whose fault it is that a deadline passed.
    fn too_late(&self, expired: Expired) -> Failed {
        let progress = &self.progress;
        if progress.writing_client.get() {
            return Failed::Client(Termination::ClientTimeout);
        }
        if expired == Expired::Total && !progress.reading_client.get() {
            return Failed::Deadline;
        }
        if progress.answer_begun() {
            return Failed::upstream(Termination::UpstreamIdle, "silence for timeouts.idle within the answer");
        }
        if progress.reading_client.get() {
            return Failed::Refused(Refusal::RequestTimeout);
        }
        if progress.half_closed.get() {
            return Failed::Client(Termination::ClientAbort);
        }
        Failed::upstream(Termination::UpstreamTimeout, "no first byte within timeouts.first_byte")
    }
}

enum Received {
    Whole(Answered),
    Upgraded(u16),
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

/// The answer when it is there; else the failure of the sending side.
fn poll_both(
    send: Pin<&mut impl Future<Output = Failed>>,
    receive: Pin<&mut impl Future<Output = Result<Received, Failed>>>,
    context: &mut Context<'_>,
) -> Poll<Result<Received, Failed>> {
    if let Poll::Ready(failed) = send.poll(context) {
        return Poll::Ready(Err(failed));
    }
    receive.poll(context)
}

fn framing_of(body: &ResponseBody) -> Framing {
    match body {
        ResponseBody::None => Framing::Done,
        ResponseBody::Length(bytes) => Framing::length(*bytes),
        ResponseBody::Chunked => Framing::chunked(),
        ResponseBody::UntilClose => Framing::UntilClose,
    }
}

/// The error of a request's body: a broken coding is refused, the rest is a client that left.
fn bad_body(error: BodyError) -> SendError {
    SendError::Failed(match error {
        BodyError::Malformed(_) => Failed::Refused(Refusal::BadRequest),
        BodyError::Closed | BodyError::Io(_) => Failed::Client(Termination::ClientAbort),
    })
}

fn cut(error: BodyError) -> Failed {
    let termination = match error {
        BodyError::Malformed(_) => Termination::UpstreamProtocol,
        BodyError::Closed | BodyError::Io(_) => Termination::UpstreamTruncated,
    };
    Failed::upstream(termination, error.to_string())
}

fn broken_head(error: HeadError) -> Failed {
    Failed::upstream(Termination::UpstreamProtocol, error.to_string())
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

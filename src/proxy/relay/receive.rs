//! The answer's way to the client.

use super::{Answered, Attempt, Failed, Received, Told, Verdict};
use crate::http1::{
    Framing as AnswerFraming, HeadError, HeadLimits, ResponseAdditions, ResponseBody, ResponseHead, Version,
    parse_response, response_trailers, write_response,
};
use crate::http2::{self, grpc};
use crate::outcome::{FailureKind, Termination, is_grpc_failure};
use crate::proxy::body::{BodyError, BodyReader, BodyWriter, Coding, FrameReader, Framing};
use crate::proxy::buffer::{Buffer, HeadBytes};
use crate::proxy::downstream::Link;
use crate::proxy::stream::Stream;
use crate::proxy::upstream::{self, Lease};
use crate::routing::HeaderFields;
use crate::shared::explain_tls;
use h2::Reason;
use std::time::Instant;

/// Interim answers (1xx) relayed for one request; more of them is a broken endpoint.
const MAX_INTERIM: u32 = 16;

/// A head of the endpoint, with its bytes and, on a stream, the body behind it.
struct Head {
    head: ResponseHead,
    bytes: HeadBytes,
    body: Option<Box<FrameReader>>,
}

impl Attempt<'_> {
    /// The answer: interim heads, the final head, the body.
    pub(super) async fn receive(&self, answer: &mut Buffer) -> Result<Received, Failed> {
        let mut interim = 0;
        loop {
            let Head { mut head, bytes, body } = self.next_head(answer).await?;
            self.keep_values(&mut head, &bytes);
            match head.status {
                101 => {
                    // RFC 9110 section 7.8: not within the request. What is left of its body would go into the tunnel.
                    if !self.progress.uploaded.get() {
                        let why = "the endpoint changed the protocol before it had the whole request";
                        return Err(Failed::upstream(Termination::UpstreamProtocol, why));
                    }
                    // The request asked for it, so its client knows of it.
                    self.relay_interim(&head, &bytes).await?;
                    self.client.answering.set(true);
                    self.progress.status.set(Some(101));
                    let web_socket = head.web_socket;
                    return Ok(Received::Upgraded { web_socket });
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
                status => {
                    let verdict = self.verdict_at_once(&head, &bytes, body.as_deref());
                    if let Some(kind) = verdict.failure.filter(|&kind| self.withholds(kind)) {
                        return Err(Failed::Withheld { status, kind });
                    }
                    self.note_event_stream(&head, &bytes)?;
                    let relayed = self.relay(&head, &bytes, body, answer).await;
                    self.client.worker.recycle(head);
                    return relayed.map(Received::Whole);
                }
            }
        }
    }

    /// Keeps the application's numbers in `head`, whose fields go no further: also when no rollout runs.
    fn keep_values(&self, head: &mut ResponseHead, bytes: &[u8]) {
        let names = self.number_names();
        if names.len() > 0 {
            self.record.tells(head.take_numbers(bytes, names));
        }
    }

    /// The fields of the application's numbers.
    fn number_names(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        let rollout = self.service.and_then(|service| service.rollout.as_ref());
        let metrics = rollout.map(|rollout| &*rollout.analysis.metrics).unwrap_or_default();
        metrics.iter().map(|metric| &*metric.from_header)
    }

    /// The trailer fields of this answer that go on, of those that `came`.
    fn answer_trailers(&self, head: &ResponseHead, bytes: &[u8], came: &[u8]) -> Vec<u8> {
        let rules = self.rules.told().edits.map(|edits| edits.fields);
        let numbers: Vec<_> = self.number_names().collect();
        response_trailers(came, (head, bytes), rules, self.is_of_grpc(head, bytes), &numbers)
    }

    /// Whether this is the answer of a call, by an endpoint that speaks gRPC: any client may ask so.
    fn is_of_grpc(&self, head: &ResponseHead, bytes: &[u8]) -> bool {
        let fields = head.fields(bytes);
        self.is_grpc && head.status == 200 && fields.nth("content-type", 0).is_some_and(grpc::is_grpc)
    }

    fn withholds(&self, kind: FailureKind) -> bool {
        !self.progress.body_lost.get() && self.withholds.is_some_and(|ask| ask(kind))
    }

    /// What the head of an answer says before its body. gRPC may say its status there when nothing follows.
    fn verdict_at_once(&self, head: &ResponseHead, bytes: &[u8], body: Option<&FrameReader>) -> Verdict {
        let whole = body.is_some_and(FrameReader::is_done) || matches!(head.body, ResponseBody::None);
        if whole || (500..=599).contains(&head.status) {
            self.verdict(head, bytes, b"")
        } else {
            Verdict::default()
        }
    }

    /// What a whole answer says, `trailers` behind it. Only an endpoint that answers in gRPC is judged by it.
    fn verdict(&self, head: &ResponseHead, bytes: &[u8], trailers: &[u8]) -> Verdict {
        match head.status {
            500..=599 => Verdict {
                failure: Some(FailureKind::Status5xx),
                grpc_status: None,
            },
            _ if self.is_of_grpc(head, bytes) => {
                let in_head = || head.fields(bytes).nth("grpc-status", 0).and_then(grpc::status);
                let grpc_status = grpc::status_in(trailers).or_else(in_head);
                Verdict {
                    failure: is_grpc_failure(grpc_status).then_some(FailureKind::Grpc),
                    grpc_status,
                }
            }
            _ => Verdict::default(),
        }
    }

    /// An event stream goes on for as long as something comes: its silence is bounded, its length is not. Where nobody
    /// reads it, it is over.
    fn note_event_stream(&self, head: &ResponseHead, bytes: &[u8]) -> Result<(), Failed> {
        let fields = head.fields(bytes);
        if head.status != 200 || !fields.nth("content-type", 0).is_some_and(is_event_stream) {
            return Ok(());
        }
        self.progress.endless.set(true);
        self.client.slot.clear_total();
        if matches!(self.client.link, Link::Nowhere) {
            self.answers(head.status);
            return Err(Failed::Client(Termination::Ok));
        }
        Ok(())
    }

    /// The next head of the endpoint.
    async fn next_head(&self, answer: &mut Buffer) -> Result<Head, Failed> {
        let limits = self.limits.heads();
        match self.upstream {
            upstream::Link::Wire(connection) => self.next_on_wire(&connection.stream, answer, &limits).await,
            // Boxed: the rarer case, and the larger.
            upstream::Link::Frames(lease) => Box::pin(self.next_of_stream(lease, &limits)).await,
        }
    }

    async fn next_on_wire(&self, stream: &Stream, answer: &mut Buffer, limits: &HeadLimits) -> Result<Head, Failed> {
        let (method, upgrading) = (self.request.method_kind, self.upgrading());
        let mut parser = self.client.worker.head_parser();
        loop {
            match parse_response(answer.unread(), method, upgrading, limits, &mut parser).map_err(broken_head)? {
                Some(head) => {
                    let bytes = HeadBytes::copy_of(answer.unread().get(..head.len).unwrap_or_default());
                    answer.consume(head.len);
                    return Ok(Head {
                        head,
                        bytes,
                        body: None,
                    });
                }
                None => self.read_more(stream, answer).await?,
            }
        }
    }

    async fn read_more(&self, stream: &Stream, answer: &mut Buffer) -> Result<(), Failed> {
        let nothing_received = answer.is_empty() && self.progress.first_byte.get().is_none();
        let reset = |why: String| Failed::Upstream {
            termination: Termination::UpstreamReset,
            nothing_received,
            unprocessed: false,
            why,
        };
        match stream.fill(answer, self.limits.max_head).await {
            Ok(0) => Err(reset("the endpoint closed the connection before its answer".into())),
            Ok(_) => {
                self.heard();
                Ok(())
            }
            // In TLS 1.3 an endpoint's refusal comes after our handshake is done.
            Err(error) => Err(reset(format!("reading the answer: {}", explain_tls(&error)))),
        }
    }

    async fn next_of_stream(&self, lease: &Lease, limits: &HeadLimits) -> Result<Head, Failed> {
        let (parts, body) = lease.next_head(*limits).await.map_err(|error| self.no_head(&error))?;
        self.heard();
        let ended = body.as_deref().is_some_and(FrameReader::is_done);
        let (mut bytes, mut parser) = (HeadBytes::new(), self.client.worker.head_parser());
        let method = self.request.method_kind;
        let head = http2::read_answer(&mut bytes, &parts, ended, method, limits, &mut parser);
        let head = head.map_err(broken_head)?;
        Ok(Head { head, bytes, body })
    }

    /// Why a stream has brought no head, and what that says of another attempt.
    fn no_head(&self, error: &h2::Error) -> Failed {
        if error.is_library() {
            return Failed::upstream(Termination::UpstreamProtocol, error.to_string());
        }
        // A stream that was begun before GOAWAY is told of the connection's end instead (RFC 9113 section 6.8).
        let refused = error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM);
        let nothing_received = self.progress.first_byte.get().is_none();
        Failed::Upstream {
            termination: Termination::UpstreamReset,
            nothing_received,
            unprocessed: refused && error.is_remote() && nothing_received,
            why: format!("waiting for the answer: {error}"),
        }
    }

    /// The endpoint has said something.
    fn heard(&self) {
        if self.progress.first_byte.get().is_none() {
            self.progress.first_byte.set(Some(Instant::now()));
            if self.is_grpc && !self.progress.uploaded.get() {
                self.progress.endless.set(true);
            }
        }
    }

    /// 100 and 103 reach a client that knows of them (HTTP/1.0 does not: RFC 9110 section 15.2).
    async fn relay_interim(&self, head: &ResponseHead, bytes: &[u8]) -> Result<(), Failed> {
        if self.request.version > Version::Http10 {
            let mut out = HeadBytes::new();
            self.write_head(&mut out, head, bytes, AnswerFraming::None, false);
            let accepted = self.accepted(&self.progress.interim);
            self.progress.writing_client.set(true);
            let written = self.client.link.interim(out, accepted).await;
            self.wrote(written)?;
        }
        if self.progress.uploaded.get() {
            self.client.slot.set_phase(self.first_byte);
        }
        Ok(())
    }

    /// Relays the final answer, head and body.
    async fn relay(
        &self,
        head: &ResponseHead,
        bytes: &[u8],
        body: Option<Box<FrameReader>>,
        answer: &mut Buffer,
    ) -> Result<Answered, Failed> {
        let answer_framing = head.forward_framing(self.request.version);
        let coding = match answer_framing {
            AnswerFraming::Chunked => Coding::Chunked,
            _ => Coding::Plain,
        };
        let close = answer_framing == AnswerFraming::UntilClose || !self.may_keep_alive();
        let mut out = HeadBytes::new();
        self.write_head(&mut out, head, bytes, answer_framing, close);
        self.client.slot.set_phase(self.timeouts.idle);

        let framing = framing_of(&head.body, self.limits.heads());
        let mut reader = match (self.upstream, body) {
            (upstream::Link::Wire(connection), _) => BodyReader::wire(&connection.stream, answer, framing),
            (_, Some(mut body)) => {
                if matches!(framing, Framing::Done) {
                    body.leave();
                }
                BodyReader::Frames(body)
            }
            // Only the last head comes here, and it brings one.
            (_, None) => {
                return Err(Failed::upstream(
                    Termination::Internal,
                    "an answer without a body to read",
                ));
            }
        };
        let mut writer = self
            .client
            .link
            .writer(out, coding, self.accepted(&self.progress.answered));
        self.progress
            .cut_by_reset
            .set(answer_framing == AnswerFraming::UntilClose);
        self.relay_body(head, bytes, &mut reader, &mut writer).await?;
        if let (true, Link::Wire(stream)) = (self.progress.cut_by_reset.get(), &self.client.link) {
            stream.close_in_order();
        }
        let until_close = matches!(head.body, ResponseBody::UntilClose);
        let verdict = self.verdict(head, bytes, reader.received_trailers());
        drop(reader);
        let whole = self.progress.uploaded.get() && answer.is_empty();
        Ok(Answered {
            status: head.status,
            reusable: whole && head.keep_alive && !until_close,
            keep_alive: !close && self.progress.uploaded.get(),
            upgraded: false,
            termination: Termination::Ok,
            verdict,
        })
    }

    async fn relay_body(
        &self,
        head: &ResponseHead,
        bytes: &[u8],
        reader: &mut BodyReader<'_>,
        writer: &mut BodyWriter<'_>,
    ) -> Result<(), Failed> {
        loop {
            if !reader.has_buffered() && !reader.is_done() {
                self.answers(head.status);
                let written = writer.flush().await;
                self.wrote(written)?;
            }
            if reader.next().await.map_err(cut)?.is_none() {
                break;
            }
            self.client.slot.set_phase(self.timeouts.idle);
            self.answers(head.status);
            reader.choose_trailers(|came| self.answer_trailers(head, bytes, came));
            let written = writer.pass(reader).await;
            self.wrote(written)?;
            if reader.is_done() {
                // Its end went with the last piece.
                return Ok(());
            }
        }
        self.answers(head.status);
        reader.choose_trailers(|came| self.answer_trailers(head, bytes, came));
        let written = writer.finish(reader.trailers()).await;
        self.wrote(written)
    }

    /// The final answer is about to be written: from the first time on, nothing else can be answered.
    fn answers(&self, status: u16) {
        if let (false, Link::Wire(stream)) = (self.progress.answer_begun(), &self.client.link)
            && self.progress.cut_by_reset.get()
        {
            // Until the answer is whole: however it is broken off, nothing else would show the client that it was.
            stream.reset_on_close();
        }
        self.progress.status.set(Some(status));
        self.client.answering.set(true);
        self.progress.writing_client.set(true);
    }

    /// A write to the client has ended; its failure is the client's leaving.
    fn wrote(&self, written: std::io::Result<()>) -> Result<(), Failed> {
        self.progress.writing_client.set(false);
        written.map_err(|_| Failed::Client(self.client_left()))
    }

    /// Whether the client's connection may live on, as far as is known when the answer's head is written. A request
    /// that is still being sent then may never end: its connection closes.
    fn may_keep_alive(&self) -> bool {
        self.request.keep_alive
            && self.progress.uploaded.get()
            && (!self.progress.half_closed.get() || self.progress.pipelined.get())
            && !self.client.worker.answers_close()
            && !self.client.is_old(self.limits.connection_age)
    }

    fn write_head(&self, out: &mut Vec<u8>, head: &ResponseHead, bytes: &[u8], framing: AnswerFraming, close: bool) {
        let date = self.client.worker.date();
        let is_final = head.is_final();
        let Told { version, hsts, edits } = if is_final { self.rules.told() } else { Told::default() };
        let additions = ResponseAdditions {
            client: self.request.version,
            close,
            keep_alive_10: !close && self.request.version == Version::Http10,
            set_cookie: self.set_cookie.filter(|_| is_final),
            version,
            framing,
            date: is_final.then_some(&*date),
            hsts,
            via: true,
            upgrading: self.upgrading(),
            edits,
        };
        write_response(out, head, bytes, &additions);
    }
}

/// Whether this is the media type of server-sent events, with any parameters.
fn is_event_stream(media_type: &[u8]) -> bool {
    const NAME: &[u8] = b"text/event-stream";
    media_type.split_at_checked(NAME.len()).is_some_and(|(name, rest)| {
        name.eq_ignore_ascii_case(NAME) && matches!(rest.first(), None | Some(b';' | b' ' | b'\t'))
    })
}

fn framing_of(body: &ResponseBody, limits: HeadLimits) -> Framing {
    match body {
        ResponseBody::None => Framing::Done,
        ResponseBody::Length(bytes) => Framing::length(*bytes),
        ResponseBody::Chunked => Framing::chunked(limits),
        ResponseBody::UntilClose => Framing::UntilClose,
    }
}

fn cut(error: BodyError) -> Failed {
    let termination = if error.is_malformed() {
        Termination::UpstreamProtocol
    } else {
        Termination::UpstreamTruncated
    };
    Failed::upstream(termination, error.to_string())
}

fn broken_head(error: HeadError) -> Failed {
    Failed::upstream(Termination::UpstreamProtocol, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_stream_is_known_by_its_media_type() {
        for yes in [
            "text/event-stream",
            "Text/Event-Stream; charset=utf-8",
            "text/event-stream ;a=b",
        ] {
            assert!(is_event_stream(yes.as_bytes()), "{yes}");
        }
        for no in ["text/event-streams", "text/event", "application/json", ""] {
            assert!(!is_event_stream(no.as_bytes()), "{no}");
        }
    }
}

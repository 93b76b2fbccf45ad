//! How an exchange ends: what is still told to the client, and what becomes of its connection.

use super::attempts::Failure;
use super::{Exchange, hsts, text};
use crate::http1::{MethodKind, Version};
use crate::http2::grpc;
use crate::outcome::{Refusal, Termination};
use crate::proxy::answers::{Content, OwnAnswer};
use crate::proxy::body::{Accepted, Coding};
use crate::proxy::buffer::HeadBytes;
use crate::proxy::downstream::{Client, Next, took_the_answer};
use crate::proxy::headers::hex_id;
use crate::proxy::record::{keep_refused, log_unread};
use crate::proxy::relay::{Answered, Failed, Progress};
use h2::Reason;
use std::cell::Cell;
use std::time::Duration;

/// How long a client may take over one of our own answers.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// What is known of what could not be read as a request.
pub struct Unread<'a> {
    /// As far as they have come, where there are any.
    pub bytes: &'a [u8],
    /// It asks for no body (RFC 9110 section 9.3.2): where there are frames, one would break the protocol.
    pub head_only: bool,
    /// A call of gRPC.
    pub is_grpc: bool,
}

/// Refuses what could not be read as a request.
pub async fn refuse_unread(client: &Client, refusal: Refusal, why: &str, unread: &Unread<'_>) -> Next {
    keep_refused(&client.worker, client.peer.ip(), refusal, why, unread.bytes);
    let request_id = hex_id(client.worker.draw_id());
    let request_id = text(&request_id);
    let version = client.link.version();
    let mut logged = log_unread(&client.worker, client.peer.ip(), version, refusal, request_id);
    logged.grpc_status = unread.is_grpc.then(|| grpc::status_for(refusal.status()));
    let answer = Own {
        status: refusal.status(),
        why,
        request_id,
        version,
        close: true,
        head_only: unread.head_only,
        fields: "",
        content: None,
        is_grpc: unread.is_grpc,
    };
    if send_own(client, &answer, &logged.response_bytes).await {
        Next::Linger
    } else {
        Next::Close
    }
}

/// What is said in an answer of our own.
#[derive(Default)]
pub(super) struct Said<'a> {
    pub status: u16,
    pub why: &'a str,
    /// Further field lines, each with its end.
    pub fields: &'a str,
    /// In place of `why`.
    pub content: Option<Content<'a>>,
}

/// What one of our own answers says.
struct Own<'a> {
    status: u16,
    why: &'a str,
    request_id: &'a str,
    version: Version,
    close: bool,
    head_only: bool,
    /// Further field lines, each with its end.
    fields: &'a str,
    content: Option<Content<'a>>,
    is_grpc: bool,
}

/// One of our own answers; whether the client took all of it, and in `bytes` how much of its body. In a time of its own: the
/// exchange's may be over.
async fn send_own(client: &Client, answer: &Own<'_>, bytes: &Cell<u64>) -> bool {
    let mut head = HeadBytes::new();
    let date = client.worker.date().to_owned();
    let mut fields = answer.fields.to_owned();
    if let Some(hsts) = hsts(&client.worker.local(), client) {
        fields += &format!("Strict-Transport-Security: {hsts}\r\n");
    }
    let body = OwnAnswer {
        status: answer.status,
        text: answer.why,
        request_id: answer.request_id,
        date: &date,
        client: answer.version,
        close: answer.close,
        head_only: answer.head_only,
        fields: &fields,
        is_grpc: answer.is_grpc,
        content: answer.content,
    }
    .write(&mut head);
    client.slot.off_canary();
    client.slot.clear_total();
    client.slot.set_phase(ANSWER_PATIENCE);
    let accepted = Accepted {
        bytes,
        slot: &client.slot,
        idle: ANSWER_PATIENCE,
    };
    let mut writer = client.link.writer(head, Coding::Plain, accepted);
    let write = async {
        if !body.is_empty() {
            writer.write(&body).await?;
        }
        writer.finish(b"").await
    };
    matches!(client.slot.guard(write).await, Ok(Ok(())))
}

impl Exchange<'_> {
    pub(super) async fn answered(&self, answered: &Answered, progress: &Progress) -> Next {
        self.record
            .ends(answered.status, answered.termination, answered.verdict.failure);
        self.record.says(answered.verdict.grpc_status);
        if answered.upgraded {
            self.record.upgraded();
            return Next::Linger;
        }
        if progress.half_closed.get() && !answered.keep_alive {
            if !Box::pin(took_the_answer(self.client)).await {
                self.record.client_left(Termination::ClientAbortAnswer);
            }
            return Next::Close;
        }
        match (answered.keep_alive, progress.uploaded.get()) {
            (true, _) => Next::KeepAlive,
            (false, true) if !progress.pipelined.get() => Next::Close,
            (false, _) => Next::Linger,
        }
    }

    /// The last attempt has failed: tells the client what can still be told.
    pub(super) async fn give_up(&self, failure: Failure) -> Next {
        let Failure {
            failed,
            answer_begun,
            uploaded,
            ..
        } = failure;
        match failed {
            // Where the client itself had not sent all, it kept the version waiting, as when our time for it is up first.
            Failed::Client(_) if (uploaded || answer_begun) && self.client_waited_long_enough() => {
                self.record.ends(self.shown(504), Termination::Deadline, None);
                self.record.says(self.is_grpc.then(|| grpc::status_for(504)));
                self.excuse(answer_begun, uploaded);
                Next::Close
            }
            Failed::Client(termination) => {
                self.record.client_left(termination);
                Next::Close
            }
            Failed::Refused(refusal, why) if !answer_begun => self.refuse(refusal, why).await,
            Failed::Refused(..) => {
                self.record.client_left(Termination::ClientAbortAnswer);
                Next::Close
            }
            Failed::Upstream { termination, why, .. } if !answer_begun => {
                let status = status_of(termination, &why);
                self.fail(status, termination, told_of(termination, status, &why), !uploaded)
                    .await
            }
            Failed::Upstream { termination, why, .. } => self.cut_since(termination, &why),
            // Whoever withholds an answer has another one.
            Failed::Withheld { status, .. } => {
                self.fail(status, Termination::Internal, "the answer was withheld", true)
                    .await
            }
            Failed::Deadline => {
                let next = if answer_begun {
                    self.cut(Termination::Deadline)
                } else {
                    self.fail(504, Termination::Deadline, self.time_limit_key(), !uploaded)
                        .await
                };
                self.excuse(answer_begun, uploaded);
                next
            }
            Failed::Idle => self.cut(Termination::Idle),
            Failed::Revoked if !answer_begun => {
                let why = "the version was stopped, by a kill switch or a rollback, and had not answered";
                self.fail(503, Termination::Revoked, why, !uploaded).await
            }
            Failed::Revoked => self.cut(Termination::Revoked),
            Failed::Drained if !answer_begun => {
                let why = "the proxy stops, and the version had not answered";
                self.fail(503, Termination::Drain, why, !uploaded).await
            }
            Failed::Drained => self.cut(Termination::Drain),
        }
    }

    /// What was not kept when the whole request took too long.
    fn time_limit_key(&self) -> &'static str {
        if self.client_waited_long_enough() {
            return "no answer within the grpc-timeout of its client";
        }
        match self.route_timeouts().and_then(|timeouts| timeouts.request) {
            Some(_) => "no answer within timeouts.request of the route",
            None => "no answer within limits.request_timeout",
        }
    }

    /// Takes a failure back that was nobody's.
    fn excuse(&self, answer_begun: bool, uploaded: bool) {
        if self.is_nobodys_delay(answer_begun, uploaded) {
            self.record.excused();
        }
    }

    /// The answer ends in the middle, and the client sees that.
    pub(super) fn cut(&self, termination: Termination) -> Next {
        self.cut_since(termination, "")
    }

    fn cut_since(&self, termination: Termination, why: &str) -> Next {
        let status = match termination {
            Termination::Deadline => 504,
            Termination::Internal => 500,
            _ => 503,
        };
        if self.is_grpc && self.client.link.end_call(status, cut_text(termination, why)) {
            self.record.says(Some(grpc::status_for(status)));
        } else {
            self.client.link.cut(match termination {
                Termination::Deadline | Termination::Idle | Termination::Revoked | Termination::Drain => Reason::CANCEL,
                _ => Reason::INTERNAL_ERROR,
            });
        }
        self.record.ends_cut(termination);
        Next::Close
    }

    pub(super) async fn no_endpoint(&self) -> Next {
        let why = told_of(Termination::NoEndpoint, 503, "");
        self.fail(503, Termination::NoEndpoint, why, self.has_body()).await
    }

    /// Answers for the proxy's or a version's failure. `unread`: something of the request was not read.
    pub(super) async fn fail(&self, status: u16, termination: Termination, why: &str, unread: bool) -> Next {
        self.record.ends(self.shown(status), termination, None);
        self.own_answer(status, why, unread).await
    }

    /// Answers a request that no version may see.
    pub(super) async fn refuse(&self, refusal: Refusal, why: &str) -> Next {
        self.record.refused(refusal, self.shown(refusal.status()));
        keep_refused(&self.client.worker, self.client_ip, refusal, why, self.bytes);
        self.own_answer(refusal.status(), why, self.has_body()).await
    }

    /// The status of HTTP that the client gets where `status` is meant: gRPC tells the others another way.
    pub(super) fn shown(&self, status: u16) -> u16 {
        if self.is_grpc { 200 } else { status }
    }

    pub(super) async fn own_answer(&self, status: u16, why: &str, unread: bool) -> Next {
        let said = Said {
            status,
            why,
            ..Said::default()
        };
        self.say(said, unread).await
    }

    /// Answers. `unread`: something of the request was not read.
    pub(super) async fn say(&self, said: Said<'_>, unread: bool) -> Next {
        let ends = self.client.worker.answers_close() || self.client.is_old(self.limits().connection_age);
        let close = unread || ends || !self.head.keep_alive;
        // What is no error, or said by the file, has no form of gRPC.
        let is_grpc = self.is_grpc && said.status >= 400 && said.content.is_none();
        self.record.says(is_grpc.then(|| grpc::status_for(said.status)));
        let answer = Own {
            status: said.status,
            why: said.why,
            request_id: self.request_id(),
            version: self.head.version,
            close,
            head_only: self.head.method_kind == MethodKind::Head,
            fields: said.fields,
            content: said.content,
            is_grpc,
        };
        match (
            send_own(self.client, &answer, self.record.response_bytes()).await,
            close,
        ) {
            // Half an answer, or none: what came next would be taken for it.
            (false, _) => Next::Close,
            (true, false) => Next::KeepAlive,
            (true, true) => Next::Linger,
        }
    }
}

const TRAILERS_TOO_LARGE: &str = "the trailers of the answer are larger than limits.max_head, or more than 100 fields";

/// Why the answer to a call of gRPC ends in the middle.
fn cut_text(termination: Termination, why: &str) -> &'static str {
    match termination {
        Termination::UpstreamProtocol if why.contains("limits.max_head") => TRAILERS_TOO_LARGE,
        Termination::Deadline => "the time for the call has passed",
        Termination::Idle => "nothing was sent for timeouts.idle",
        Termination::Revoked => "the version was stopped, by a kill switch or a rollback",
        Termination::Drain => "the proxy stops",
        Termination::Internal => "the proxy failed; its log says more",
        _ => "the endpoint broke off",
    }
}

/// What a client is told of an endpoint's failure: names, addresses and the words of systems behind us are for the log.
fn told_of(termination: Termination, status: u16, why: &str) -> &str {
    match termination {
        Termination::UpstreamConnect if status == 504 => "no connection to the endpoint within timeouts.connect",
        Termination::NoEndpoint => "no endpoint of the version is usable",
        Termination::UpstreamConnect => "no connection to the endpoint",
        // Our own words.
        Termination::UpstreamTimeout => why,
        Termination::UpstreamReset => "the endpoint closed the connection before its answer",
        Termination::UpstreamProtocol if why.contains("limits.max_head") => TRAILERS_TOO_LARGE,
        Termination::UpstreamProtocol => "the answer of the endpoint is broken",
        Termination::Internal => "the proxy has no room for another connection to the endpoint, or stream on one",
        _ => "the endpoint failed",
    }
}

/// The status that tells a client how an endpoint failed.
pub fn status_of(termination: Termination, why: &str) -> u16 {
    match termination {
        Termination::Internal | Termination::NoEndpoint => 503,
        Termination::UpstreamTimeout => 504,
        _ if why.contains("timeouts.connect") => 504,
        _ => 502,
    }
}

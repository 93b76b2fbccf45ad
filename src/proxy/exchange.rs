//! One request's life: facts, decision, endpoint, relay, outcome. The same for every protocol.

use super::answers::OwnAnswer;
use super::buffer::{Buffer, HeadBytes};
use super::downstream::{Client, Next, took_the_answer};
use super::headers::{client_address, hex_id, is_trusted, traceparent};
use super::panics;
use super::record::{Record, log_unread};
use super::relay::{Answered, Attempt, Failed, Progress, Upload};
use super::upstream;
use super::worker::{Local, Moment};
use crate::config::snapshot::{Balance, Limits, Snapshot};
use crate::http1::{MethodKind, RequestAdditions, RequestBody, RequestHead, write_request};
use crate::outcome::{FailureKind, Refusal, Termination};
use crate::routing::{self, Decision, HashName, HeaderFields, Reason, RequestView, VersionId};
use crate::shared::{Endpoint, Tried, VersionInForce};
use std::cell::Cell;
use std::io::IoSlice;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// Attempts one request may cost, the first one included.
const MAX_ATTEMPTS: u8 = 3;

/// Serves the request whose head has arrived; its body and what follows is behind it in `input`.
pub async fn run(client: &Client, head: &RequestHead, bytes: &[u8], input: &mut Buffer) -> Next {
    let exchange = Exchange::new(client, head, bytes);
    match panics::catch(exchange.serve(input)).await {
        Ok(next) => next,
        Err(()) => {
            client.worker.stats.panicked();
            exchange
                .fail(500, Termination::Internal, "the proxy failed; its log says more", true)
                .await
        }
    }
}

/// Refuses what could not be read as a request.
pub async fn refuse_unread(client: &Client, refusal: Refusal, why: &str) -> Next {
    let request_id = hex_id(client.worker.draw_id());
    let request_id = text(&request_id);
    log_unread(client, refusal, request_id);
    send_own(client, refusal.status(), why, request_id, true, false).await;
    Next::Linger
}

/// One of our own answers. That a client does not take it changes nothing for us.
async fn send_own(client: &Client, status: u16, why: &str, request_id: &str, close: bool, head_only: bool) {
    let mut out = HeadBytes::new();
    let date = client.worker.date().to_owned();
    OwnAnswer {
        status,
        text: why,
        request_id,
        date: &date,
        close,
        head_only,
    }
    .write(&mut out);
    let (mut parts, written) = ([IoSlice::new(&out)], Cell::new(0));
    let _ = client.slot.guard(client.stream.write_all(&mut parts, &written)).await;
}

fn text(ascii: &[u8]) -> &str {
    std::str::from_utf8(ascii).unwrap_or_default()
}

/// Why an attempt failed, and what that says of another one.
struct Failure {
    failed: Failed,
    /// On a connection that had carried requests before, with nothing received: most likely it was closed meanwhile.
    stale: bool,
    /// The endpoint has accepted bytes of the request.
    sent: bool,
    /// The client has the head of an answer already.
    answer_begun: bool,
    /// The client has sent the whole request.
    uploaded: bool,
}

/// One request being served.
pub(super) struct Exchange<'c> {
    pub client: &'c Client,
    pub head: &'c RequestHead,
    pub bytes: &'c [u8],
    pub local: Rc<Local>,
    pub started: Instant,
    pub client_ip: IpAddr,
    peer_trusted: bool,
    fresh_id: [u8; 32],
    /// What is known of its end so far; told when the exchange is dropped, however it ended.
    pub record: Record,
}

impl<'c> Exchange<'c> {
    fn new(client: &'c Client, head: &'c RequestHead, bytes: &'c [u8]) -> Self {
        let local = client.worker.local();
        let trusted = &local.in_force.snapshot.trusted_proxies;
        let (client_ip, peer_trusted) = if is_trusted(client.peer, trusted) {
            (client_address(client.peer, &head.fields(bytes), trusted), true)
        } else {
            (client.peer, false)
        };
        let fresh_id = hex_id(client.worker.draw_id());
        let (started, record) = (Instant::now(), Record::default());
        Self {
            client,
            head,
            bytes,
            started,
            client_ip,
            peer_trusted,
            fresh_id,
            record,
            local,
        }
    }

    /// The request's id: the one a trusted peer gave it, or a fresh one.
    pub fn request_id(&self) -> &str {
        self.head
            .request_id(self.bytes, self.peer_trusted)
            .unwrap_or_else(|| text(&self.fresh_id))
    }

    fn snapshot(&self) -> &Snapshot {
        &self.local.in_force.snapshot
    }

    fn limits(&self) -> &Limits {
        &self.snapshot().limits
    }

    fn now_ms(&self) -> u64 {
        self.client.worker.shared.uptime_ms_at(Instant::now())
    }

    async fn serve(&self, input: &mut Buffer) -> Next {
        self.client.slot.set_total(self.limits().request_timeout);
        if matches!(self.head.body, RequestBody::Length(bytes) if bytes > self.limits().max_body) {
            return self
                .refuse(Refusal::BodyTooLarge, "the body is larger than limits.max_body")
                .await;
        }
        if self.head.max_forwards == Some(0) {
            return self.answer_as_the_last().await;
        }
        match self.decide() {
            None => {
                self.refuse(Refusal::NoRoute, "no route for this host, path and method")
                    .await
            }
            Some(decision) => self.serve_decided(decision, input).await,
        }
    }

    /// `Max-Forwards` has run out: no endpoint may be asked (RFC 9110 section 7.6.2). A TRACE is not reflected: what it
    /// holds may be secret.
    async fn answer_as_the_last(&self) -> Next {
        const WHY: &str = "Max-Forwards is 0, and this is a proxy";
        if self.head.method_kind == crate::http1::MethodKind::Trace {
            return self.refuse(Refusal::MethodNotAllowed, WHY).await;
        }
        self.record.ends(200, Termination::Ok, None);
        let unread = !matches!(self.head.body, RequestBody::None);
        self.own_answer(200, WHY, unread).await
    }

    fn decide(&self) -> Option<Decision> {
        let fields = self.head.fields(self.bytes);
        let request = self.view(&fields);
        let now_ms = self.client.worker.shared.uptime_ms_at(self.started);
        let moment = Moment {
            worker: &self.client.worker,
            local: &self.local,
            now_ms,
        };
        let in_force = &self.local.in_force;
        routing::decide(&in_force.snapshot.policy, &in_force.traffic, &request, &moment)
    }

    fn view<'v>(&'v self, fields: &'v dyn HeaderFields) -> RequestView<'v> {
        RequestView {
            method: self.head.method(self.bytes),
            host: self.head.host(self.bytes),
            path: self.head.path(self.bytes),
            query: self.head.query(self.bytes),
            fields,
            client_ip: self.client_ip,
        }
    }

    async fn serve_decided(&self, decision: Decision, input: &mut Buffer) -> Next {
        let serving = decision.version.unwrap_or(decision.chosen);
        let (Some(chosen), Some(version)) = (
            self.local.version(decision.service, decision.chosen),
            self.local.version(decision.service, serving),
        ) else {
            return self
                .fail(
                    500,
                    Termination::Internal,
                    "the decision names a version that is not there",
                    true,
                )
                .await;
        };
        let thread = self.client.worker.index;
        if decision.reason == Reason::Fallback {
            chosen.stats.charge(thread, FailureKind::NoEndpoint);
        }
        version.stats.begin(thread);
        let usable = decision.version.is_some();
        let cookie = self.cookie(&decision);
        self.record.decided(decision, Arc::clone(&version.stats));
        if !usable {
            return self.no_endpoint().await;
        }
        self.attempts(serving, version, cookie.as_deref(), input).await
    }

    /// Tries endpoints until one answers, or nothing may be tried any more.
    async fn attempts(
        &self,
        serving: VersionId,
        version: &VersionInForce,
        cookie: Option<&[u8]>,
        input: &mut Buffer,
    ) -> Next {
        let mut upload = Upload::new(self.head, &self.client.stream, input);
        let mut tried = Tried::default();
        let mut fresh = false;
        self.with_budget(serving, |budget, now_ms| budget.request(now_ms));
        let Some(mut endpoint) = self.pick(version, &tried) else {
            return self.no_endpoint().await;
        };
        loop {
            self.record.tries(&endpoint);
            let failure = match self.attempt(version, &endpoint, fresh, cookie, &mut upload).await {
                Ok(next) => return next,
                Err(failure) => failure,
            };
            if !self.may_repeat(&failure, &upload) {
                return self.give_up(failure).await;
            }
            if failure.stale && !fresh {
                fresh = true;
            } else {
                tried.add(&endpoint);
                let other = self.pick(version, &tried);
                let allowed = || self.with_budget(serving, |budget, now_ms| budget.try_retry(now_ms)) == Some(true);
                match other.filter(|_| allowed()) {
                    Some(other) => endpoint = other,
                    None => return self.give_up(failure).await,
                }
                fresh = false;
            }
            self.client.worker.stats.retried();
        }
    }

    fn with_budget<T>(
        &self,
        serving: VersionId,
        ask: impl FnOnce(&mut crate::shared::RetryBudget, u64) -> T,
    ) -> Option<T> {
        let service = self.record.service()?;
        let budget = self.local.budget(service, serving)?;
        Some(ask(&mut budget.borrow_mut(), self.now_ms()))
    }

    fn pick(&self, version: &VersionInForce, tried: &Tried) -> Option<Arc<Endpoint>> {
        let worker = &self.client.worker;
        let key = (version.pool.spec.balance == Balance::Hash)
            .then(|| self.key_hash())
            .flatten();
        version
            .pool
            .pick(worker.index, self.now_ms(), worker.draw(), key, tried)
            .cloned()
    }

    /// The user's hash, for consistent hashing over endpoints: of the affinity key, or of the client's address.
    fn key_hash(&self) -> Option<u32> {
        let service = self.snapshot().policy.services.get(self.record.service()?.0 as usize)?;
        let fields = self.head.fields(self.bytes);
        let key = service
            .affinity
            .as_ref()
            .and_then(|affinity| affinity.user_key(&self.view(&fields)));
        // Salted otherwise than the versions' split: users of one bucket spread over endpoints.
        let hash = |bytes: &[u8]| Some(HashName::Rollgate1.bucket("endpoint", bytes));
        match key {
            Some(key) => hash(key.as_bytes()),
            None => hash(self.client_ip.to_string().as_bytes()),
        }
    }

    /// Whether the request may be sent again: nothing of it may be done twice that may not be (RFC 9110 section 9.2.2).
    fn may_repeat(&self, failure: &Failure, upload: &Upload<'_>) -> bool {
        let Failed::Upstream {
            termination,
            nothing_received,
            ..
        } = &failure.failed
        else {
            return false;
        };
        let body_is_kept = upload.bytes == 0 || upload.replay.is_some();
        let harmless = match termination {
            Termination::UpstreamConnect => true,
            Termination::UpstreamReset => *nothing_received && (!failure.sent || self.head.method_kind.is_idempotent()),
            _ => false,
        };
        harmless && body_is_kept && !failure.answer_begun && self.record.attempts() < MAX_ATTEMPTS
    }

    /// One attempt on `endpoint`. `fresh`: on a new connection.
    async fn attempt(
        &self,
        version: &VersionInForce,
        endpoint: &Arc<Endpoint>,
        fresh: bool,
        cookie: Option<&[u8]>,
        upload: &mut Upload<'_>,
    ) -> Result<Next, Failure> {
        let worker = &self.client.worker;
        let timeouts = &version.pool.spec.timeouts;
        let _in_flight = endpoint.begin(worker.index);
        let began = Instant::now();
        let connected = if fresh {
            upstream::open(endpoint, timeouts.connect).await
        } else {
            upstream::connect(worker, endpoint, timeouts, !self.head.method_kind.is_idempotent()).await
        };
        let connection = match connected {
            Ok(connection) => connection,
            Err(error) => {
                version.pool.failed_as(endpoint, FailureKind::Connect, self.now_ms());
                return Err(Failure::to_connect(&error));
            }
        };
        let mut out = HeadBytes::new();
        self.write_head(&mut out, endpoint);
        let mut answer = Buffer::default();
        let attempt = Attempt {
            client: self.client,
            upstream: &connection.stream,
            request: self.head,
            limits: self.limits(),
            timeouts,
            set_cookie: cookie,
            expose_version: self.exposed_version(),
            progress: Progress::default(),
        };
        let result = attempt.run(&out, upload, &mut answer).await;
        let progress = attempt.progress;
        self.record.progressed(&progress, upload.bytes, began);
        match result {
            Ok(answered) => {
                match answered.failure {
                    Some(kind) => version.pool.failed_as(endpoint, kind, self.now_ms()),
                    None => version.pool.succeeded(endpoint, self.now_ms()),
                }
                if answered.reusable {
                    worker
                        .idle
                        .borrow_mut()
                        .give(endpoint, connection.stream, Instant::now(), timeouts.idle);
                }
                Ok(self.answered(&answered, &progress).await)
            }
            Err(failed) => {
                let failure = Failure::of(failed, &progress, connection.reused);
                if let (Failed::Upstream { termination, .. }, false) = (&failure.failed, failure.stale) {
                    let kind = termination.failure().unwrap_or(FailureKind::Reset);
                    version.pool.failed_as(endpoint, kind, self.now_ms());
                }
                Err(failure)
            }
        }
    }

    fn write_head(&self, out: &mut Vec<u8>, endpoint: &Endpoint) {
        let worker = &self.client.worker;
        let fresh_trace = traceparent(worker.draw_id(), worker.draw());
        let additions = RequestAdditions {
            client_ip: self.client.peer,
            peer_trusted: self.peer_trusted,
            https: false,
            forwarded: self.snapshot().forwarded,
            request_id: text(&self.fresh_id),
            traceparent: text(&fresh_trace),
            version: self.record.version_name(&self.local),
            // For a client of HTTP/1.0 that names no host. Servers refuse an empty one (nginx answers 400).
            default_host: &endpoint.label,
        };
        write_request(out, self.head, self.bytes, &additions);
    }

    fn exposed_version(&self) -> Option<&str> {
        let service = self.snapshot().services.get(self.record.service()?.0 as usize)?;
        service.expose_version.then(|| self.record.version_name(&self.local))
    }

    /// The `Set-Cookie` value the decision asks for.
    fn cookie(&self, decision: &Decision) -> Option<Vec<u8>> {
        let set = decision.set_cookie.as_ref()?;
        let mut value = Vec::with_capacity(160);
        let service = self.snapshot().policy.services.get(decision.service.0 as usize)?;
        let spec = service.affinity.as_ref()?.cookie.as_ref()?;
        set.header_value(spec, false, &mut value);
        Some(value)
    }

    async fn answered(&self, answered: &Answered, progress: &Progress) -> Next {
        self.record.ends(answered.status, Termination::Ok, answered.failure);
        if answered.upgraded {
            self.record.upgraded();
            return Next::Close;
        }
        if progress.half_closed.get() {
            if !took_the_answer(self.client).await {
                self.record.client_left(Termination::ClientAbortAnswer);
            }
            return Next::Close;
        }
        match (answered.keep_alive, progress.uploaded.get()) {
            (true, _) => Next::KeepAlive,
            (false, true) => Next::Close,
            (false, false) => Next::Linger,
        }
    }

    /// The last attempt has failed: tells the client what can still be told.
    async fn give_up(&self, failure: Failure) -> Next {
        let Failure {
            failed,
            answer_begun,
            uploaded,
            ..
        } = failure;
        match failed {
            Failed::Client(termination) => {
                self.record.client_left(termination);
                Next::Close
            }
            Failed::Refused(refusal) if !answer_begun => self.refuse(refusal, refusal_text(refusal)).await,
            Failed::Refused(_) => {
                self.record.client_left(Termination::ClientAbortAnswer);
                Next::Close
            }
            Failed::Upstream { termination, why, .. } if !answer_begun => {
                let late = termination == Termination::UpstreamTimeout || why.contains("timeouts.connect");
                self.fail(if late { 504 } else { 502 }, termination, &why, !uploaded)
                    .await
            }
            Failed::Upstream { termination, .. } => self.cut(termination),
            Failed::Deadline if !answer_begun => {
                self.fail(
                    504,
                    Termination::Deadline,
                    "no answer within limits.request_timeout",
                    !uploaded,
                )
                .await
            }
            Failed::Deadline => self.cut(Termination::Deadline),
        }
    }

    /// The answer ends in the middle, and the client sees that.
    fn cut(&self, termination: Termination) -> Next {
        self.record.ends_cut(termination);
        Next::Close
    }

    async fn no_endpoint(&self) -> Next {
        let unread = !matches!(self.head.body, RequestBody::None);
        self.fail(
            503,
            Termination::NoEndpoint,
            "no endpoint of the version is usable",
            unread,
        )
        .await
    }

    /// Answers for the proxy's or a version's failure. `unread`: something of the request was not read.
    async fn fail(&self, status: u16, termination: Termination, why: &str, unread: bool) -> Next {
        self.record.ends(status, termination, None);
        self.own_answer(status, why, unread).await
    }

    /// Answers a request that no version may see.
    async fn refuse(&self, refusal: Refusal, why: &str) -> Next {
        self.record.refused(refusal);
        let unread = !matches!(self.head.body, RequestBody::None);
        self.own_answer(refusal.status(), why, unread).await
    }

    async fn own_answer(&self, status: u16, why: &str, unread: bool) -> Next {
        let close = unread || !self.head.keep_alive || self.client.worker.is_draining();
        let head_only = self.head.method_kind == MethodKind::Head;
        send_own(self.client, status, why, self.request_id(), close, head_only).await;
        match (close, unread) {
            (false, _) => Next::KeepAlive,
            (true, false) => Next::Close,
            (true, true) => Next::Linger,
        }
    }
}

fn refusal_text(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::BodyTooLarge => "the body is larger than limits.max_body",
        Refusal::RequestTimeout => "the body did not arrive in time",
        _ => "the body's coding is broken",
    }
}

impl Failure {
    fn to_connect(error: &std::io::Error) -> Self {
        let failed = Failed::Upstream {
            termination: Termination::UpstreamConnect,
            nothing_received: true,
            why: format!("connecting to the endpoint: {error}"),
        };
        Self {
            failed,
            stale: false,
            sent: false,
            answer_begun: false,
            uploaded: false,
        }
    }

    fn of(failed: Failed, progress: &Progress, reused: bool) -> Self {
        let nothing = matches!(
            &failed,
            Failed::Upstream {
                nothing_received: true,
                ..
            }
        );
        Self {
            failed,
            stale: reused && nothing,
            sent: progress.sent.get() > 0,
            answer_begun: progress.answer_begun(),
            uploaded: progress.uploaded.get(),
        }
    }
}

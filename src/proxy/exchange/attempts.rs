//! Endpoint after endpoint, until one answers or nothing may be tried any more.

use super::{Exchange, text};
use crate::config::snapshot::{Balance, Service, Timeouts};
use crate::http1::{RequestAdditions, RequestHead, Upgrading, Version, write_request};
use crate::outcome::{FailureKind, Refusal, Termination};
use crate::proxy::body::BodyReader;
use crate::proxy::buffer::{Buffer, HeadBytes};
use crate::proxy::downstream::Next;
use crate::proxy::record::{Followed, keep_broken};
use crate::proxy::relay::{Attempt, Failed, Progress, Upload};
use crate::proxy::upstream::{self, Age, Link, NotBegun, OnBehalf};
use crate::routing::{Decision, HashName, VersionId};
use crate::shared::{Endpoint, RetryBudget, Tried, VersionInForce};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Attempts one request may cost, the first one included.
const MAX_ATTEMPTS: u8 = 3;

/// How a request is tried again on its version.
struct Again {
    /// `None`: the same.
    endpoint: Option<Arc<Endpoint>>,
    age: Age,
}

/// Why an attempt failed, and what that says of another one.
pub(super) struct Failure {
    pub(super) failed: Failed,
    /// On a connection that had carried requests before, with nothing received: most likely it was closed meanwhile.
    stale: bool,
    /// The endpoint has accepted bytes of the request.
    sent: bool,
    /// The client has the head of an answer already.
    pub(super) answer_begun: bool,
    /// The client has sent the whole request.
    pub(super) uploaded: bool,
}

impl Exchange<'_> {
    /// The request's body; kept, as far as that is allowed, where it may be needed again.
    pub(super) fn upload<'c, 'b>(
        &self,
        serving: VersionId,
        version: &VersionInForce,
        body: &'c mut BodyReader<'b>,
    ) -> Upload<'c, 'b> {
        // On streams also what is not idempotent may come back untouched.
        let again = self.head.method_kind.is_idempotent() || version.pool.spec.http2;
        let kept = again || self.rescue(serving).is_some() || self.mirror(serving).is_some();
        Upload::new(self.head, body, kept)
    }

    /// Tries endpoints until one answers, or nothing may be tried any more.
    pub(super) async fn attempts(
        &self,
        mut serving: VersionId,
        mut version: &VersionInForce,
        cookie: Option<&[u8]>,
        upload: &mut Upload<'_, '_>,
    ) -> Next {
        if self.is_call_to(version) {
            self.keep_grpc_timeout();
        }
        let mut tried = Tried::default();
        let mut age = Age::Any;
        self.with_budget(serving, |budget| budget.request(self.started_ms()));
        let mut endpoint = self.pick(version, &tried);
        loop {
            let failure = match &endpoint {
                None => Failure::no_endpoint(!self.has_body()),
                Some(endpoint) => {
                    self.record.tries(endpoint);
                    let attempt = self.attempt((serving, version), endpoint, age, cookie, upload);
                    match attempt.await {
                        Ok(next) => return next,
                        Err(failure) => failure,
                    }
                }
            };
            if let Failed::Upstream { why, .. } = &failure.failed {
                self.record.failed_since(why);
            }
            if let Some(again) = self.repeats((serving, version), &failure, age, &mut tried, &endpoint, upload) {
                age = again.age;
                endpoint = again.endpoint.or(endpoint);
                continue;
            }
            match self.rescuer(serving, &failure, upload) {
                Some(rescuer) => {
                    (serving, version) = rescuer;
                    (tried, age) = (Tried::default(), Age::Any);
                    endpoint = self.pick(version, &tried);
                }
                None => return Box::pin(self.give_up(failure)).await,
            }
        }
    }

    /// Where the request is tried again on the same version, if it may be.
    fn repeats(
        &self,
        (serving, version): (VersionId, &VersionInForce),
        failure: &Failure,
        age: Age,
        tried: &mut Tried,
        endpoint: &Option<Arc<Endpoint>>,
        upload: &Upload<'_, '_>,
    ) -> Option<Again> {
        if !self.may_repeat(failure, upload) {
            return None;
        }
        if age == Age::Any && (failure.stale || failure.is_untouched()) {
            return Some(Again {
                endpoint: None,
                age: Age::New,
            });
        }
        tried.add(endpoint.as_ref()?);
        let other = self.pick(version, tried);
        if failure.is_untouched() {
            // No endpoint has done anything for it yet. The first stream of a connection is one that its endpoint takes.
            return Some(self.again(other, Age::Own));
        }
        let other = Some(other?);
        let allowed = self.with_budget(serving, |budget| budget.try_retry(self.now_ms())) == Some(true);
        allowed.then(|| self.again(other, Age::Any))
    }

    fn again(&self, other: Option<Arc<Endpoint>>, age: Age) -> Again {
        if other.is_some() {
            self.client.worker.stats.retried();
        }
        Again { endpoint: other, age }
    }

    pub(super) fn with_budget<T>(&self, serving: VersionId, ask: impl FnOnce(&mut RetryBudget) -> T) -> Option<T> {
        let service = self.record.service()?;
        let budget = self.local.budget(service, serving)?;
        Some(ask(&mut budget.borrow_mut()))
    }

    pub(super) fn pick(&self, version: &VersionInForce, tried: &Tried) -> Option<Arc<Endpoint>> {
        let worker = &self.client.worker;
        let key = (version.pool.spec.balance == Balance::Hash)
            .then(|| self.key_hash())
            .flatten();
        let now_ms = if tried.is_empty() {
            self.started_ms()
        } else {
            self.now_ms()
        };
        version
            .pool
            .pick(worker.index, now_ms, worker.draw(), key, tried)
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
    fn may_repeat(&self, failure: &Failure, upload: &Upload<'_, '_>) -> bool {
        let Failed::Upstream {
            termination,
            nothing_received,
            unprocessed,
            ..
        } = &failure.failed
        else {
            return false;
        };
        let harmless = match termination {
            Termination::UpstreamConnect | Termination::Internal => true,
            Termination::UpstreamReset if *unprocessed => true,
            Termination::UpstreamReset => *nothing_received && (!failure.sent || self.head.method_kind.is_idempotent()),
            _ => false,
        };
        harmless && upload.can_repeat() && !failure.answer_begun && self.record.attempts() < MAX_ATTEMPTS
    }

    /// One attempt on `endpoint`, on a connection of this age.
    async fn attempt(
        &self,
        (serving, version): (VersionId, &VersionInForce),
        endpoint: &Arc<Endpoint>,
        age: Age,
        cookie: Option<&[u8]>,
        upload: &mut Upload<'_, '_>,
    ) -> Result<Next, Failure> {
        let timeouts = &version.pool.spec.timeouts;
        let in_flight = endpoint.begin(self.client.worker.index);
        let first = self.record.attempts() == 1;
        let began = if first { self.started } else { Instant::now() };
        let connected = self.connect(&self.on_behalf(), endpoint, timeouts, age).await;
        let mut link = connected.map_err(|error| {
            self.blame_for_connecting(version, endpoint, &error);
            Failure::to_connect(&error, upload.reader.is_done())
        })?;
        let mut out = HeadBytes::new();
        self.write_head(&mut out, self.head, endpoint, serving);
        let ended = upload.reader.is_done() && upload.replay.as_ref().is_none_or(Vec::is_empty);
        let begun = link.begin(&mut out, ended);
        begun.map_err(|why| Failure::to_begin(why, upload.reader.is_done()))?;
        let mut answer = Buffer::default();
        let withholds = |kind| self.takes_rescue(serving, kind);
        let attempt = Attempt {
            client: self.client,
            upstream: &link,
            request: self.head,
            asked: self.upgrading().asked,
            is_grpc: self.is_call_to(version),
            limits: self.limits(),
            timeouts: self.attempt_timeouts(serving).unwrap_or(timeouts),
            first_byte: self.first_byte(serving, timeouts),
            set_cookie: cookie,
            rules: self,
            service: self.service(),
            record: &self.record,
            withholds: self.rescue(serving).is_some().then_some(&withholds),
            progress: Progress::default(),
        };
        let result = {
            let _followed = Followed {
                attempt: &attempt,
                began,
            };
            attempt.run(out, upload, &mut answer).await
        };
        let progress = attempt.progress;
        if self.is_call_to(version) {
            self.record.called(&progress, self.started);
        }
        match result {
            Ok(answered) => {
                match answered.verdict.failure {
                    Some(kind) => version.pool.failed(endpoint, kind, self.now_ms()),
                    None => version.pool.succeeded(endpoint),
                }
                if let (true, Link::Wire(connection)) = (answered.reusable, link) {
                    self.on_behalf().keep(endpoint, connection, timeouts.idle);
                }
                drop(in_flight);
                Ok(self.answered(&answered, &progress).await)
            }
            Err(failed) => {
                if let Failed::Upstream {
                    termination: Termination::UpstreamProtocol,
                    why,
                    ..
                } = &failed
                {
                    // What follows a head that was passed on is a body.
                    let bytes = if progress.answer_begun() { b"" } else { answer.unread() };
                    keep_broken(&self.client.worker, endpoint, why, bytes);
                }
                let failure = Failure::of(failed, &progress, &link);
                if let Failed::Withheld { kind, .. } = failure.failed {
                    version.pool.failed(endpoint, kind, self.now_ms());
                }
                if let (Failed::Upstream { termination, .. }, true) = (&failure.failed, self.blames(&failure)) {
                    let kind = termination.failure().unwrap_or(FailureKind::Reset);
                    version.pool.failed(endpoint, kind, self.now_ms());
                }
                Err(failure)
            }
        }
    }

    /// A call of gRPC, to endpoints that may speak it. What a client says to others is of no effect, or any client could
    /// have what is allowed to calls alone.
    pub(super) fn is_call_to(&self, version: &VersionInForce) -> bool {
        self.is_grpc && version.pool.spec.http2
    }

    /// What the route says of an attempt on `serving`.
    pub(super) fn attempt_timeouts(&self, serving: VersionId) -> Option<&Timeouts> {
        self.route_timeouts()?.attempts.get(serving.0 as usize)
    }

    /// How long the endpoint may take to begin its answer: as long as a call's client says that it waits, unless its route
    /// says otherwise.
    pub(super) fn first_byte(&self, serving: VersionId, timeouts: &Timeouts) -> Duration {
        match self.attempt_timeouts(serving) {
            Some(of_route) => of_route.first_byte,
            None => {
                let of_client = self.grpc_timeout.get().unwrap_or_default();
                timeouts.first_byte.max(of_client.min(self.limits().request_timeout))
            }
        }
    }

    fn on_behalf(&self) -> OnBehalf<'_> {
        OnBehalf {
            client: self.client,
            client_ip: self.client_ip,
        }
    }

    async fn connect(
        &self,
        on_behalf: &OnBehalf<'_>,
        endpoint: &Arc<Endpoint>,
        timeouts: &Timeouts,
        age: Age,
    ) -> io::Result<Link> {
        let sure = !self.head.method_kind.is_idempotent();
        upstream::connect(on_behalf, endpoint, timeouts, age, sure).await
    }

    /// Whether the endpoint is to blame: not for a connection that has ended, unless it began nothing as often as it was asked.
    fn blames(&self, failure: &Failure) -> bool {
        !failure.stale && (!failure.is_untouched() || self.record.attempts() >= MAX_ATTEMPTS)
    }

    fn blame_for_connecting(&self, version: &VersionInForce, endpoint: &Endpoint, error: &io::Error) {
        if !upstream::is_ours(error) {
            version.pool.failed(endpoint, FailureKind::Connect, self.now_ms());
        } else if !upstream::is_full(error) {
            // No endpoint is to blame: what is idle gives its descriptors up.
            self.client.worker.idle.borrow_mut().clear();
            self.client.worker.multiplexed.borrow_mut().clear();
        }
    }

    /// The head as it is sent to an endpoint of `version`, a version of the request's service.
    pub(super) fn write_head(&self, out: &mut Vec<u8>, head: &RequestHead, endpoint: &Endpoint, version: VersionId) {
        let additions = RequestAdditions {
            to: if endpoint.transport.http2 {
                Version::Http2
            } else {
                Version::Http11
            },
            client_ip: self.client.peer.ip(),
            peer_trusted: self.peer_trusted,
            chain: self.chain,
            https: self.client.link.is_tls(),
            forwarded: self.snapshot().forwarded,
            via: self.snapshot().via,
            request_id: text(&self.fresh_id),
            traceparent: text(&self.fresh_trace),
            version: self.name_of(version),
            // For a client of HTTP/1.0 that names no host. Servers refuse an empty one (nginx answers 400).
            default_host: &endpoint.label,
            upgrading: self.upgrading(),
            rewrite: self.rewrite(version),
        };
        write_request(out, head, self.bytes, &additions);
    }

    /// What the request asks to change the protocol to, of what its service lets through.
    pub(super) fn upgrading(&self) -> Upgrading<'_> {
        let allowed = self.service().map(|service| &*service.upgrades);
        self.head.upgrading(self.bytes, allowed.unwrap_or_default())
    }

    pub(super) fn service(&self) -> Option<&Service> {
        self.snapshot().services.get(self.record.service()?.0 as usize)
    }

    /// The `Set-Cookie` value the decision asks for.
    pub(super) fn cookie(&self, decision: &Decision) -> Option<Vec<u8>> {
        let set = decision.set_cookie.as_ref()?;
        let mut value = Vec::with_capacity(160);
        let service = self.snapshot().policy.services.get(decision.service.0 as usize)?;
        let spec = service.affinity.as_ref()?.cookie.as_ref()?;
        set.header_value(spec, self.is_https(), &mut value);
        Some(value)
    }
}

impl Failure {
    fn no_endpoint(uploaded: bool) -> Self {
        Self {
            failed: Failed::Upstream {
                termination: Termination::NoEndpoint,
                nothing_received: true,
                unprocessed: true,
                why: "no endpoint of the version is usable".to_owned(),
            },
            stale: false,
            sent: false,
            answer_begun: false,
            uploaded,
        }
    }

    fn to_connect(error: &io::Error, uploaded: bool) -> Self {
        let termination = if upstream::is_ours(error) {
            Termination::Internal
        } else {
            Termination::UpstreamConnect
        };
        let failed = Failed::Upstream {
            termination,
            nothing_received: true,
            unprocessed: true,
            why: format!("connecting to the endpoint: {error}"),
        };
        Self {
            failed,
            stale: false,
            sent: false,
            answer_begun: false,
            uploaded,
        }
    }

    /// The request was not even begun on its stream.
    fn to_begin(why: NotBegun, uploaded: bool) -> Self {
        let failed = match why {
            // What it holds is the client's affair.
            NotBegun::Untranslatable => {
                let why = "the version's endpoints speak HTTP/2, which has no place for a byte of the target";
                Failed::Refused(Refusal::BadRequest, why)
            }
            NotBegun::Gone(error) => Failed::Upstream {
                termination: Termination::UpstreamReset,
                nothing_received: true,
                unprocessed: true,
                why: format!("beginning the request: {error}"),
            },
        };
        Self {
            failed,
            stale: false,
            sent: false,
            answer_begun: false,
            uploaded,
        }
    }

    /// Surely no endpoint has begun with the request, and another connection may find one that does (RFC 9113 section 8.7).
    fn is_untouched(&self) -> bool {
        matches!(
            self.failed,
            Failed::Upstream {
                termination: Termination::UpstreamReset,
                unprocessed: true,
                ..
            }
        )
    }

    fn of(failed: Failed, progress: &Progress, link: &Link) -> Self {
        let stale = matches!(
            failed,
            Failed::Upstream {
                nothing_received: true,
                unprocessed: false,
                ..
            } if link.reused()
        );
        Self {
            failed,
            stale,
            sent: link.has_begun() || progress.sent.get() > 0,
            answer_begun: progress.answer_begun(),
            uploaded: progress.uploaded.get(),
        }
    }
}

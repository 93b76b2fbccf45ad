//! What is known of an exchange's end, and its one telling: counters and a line of the access log, exactly once,
//! however the exchange ended (a panic and a process that stops included).

use super::exchange::Exchange;
use super::relay::{Attempt, Progress};
use super::worker::{Local, Worker};
use crate::http1::{Version, excerpt};
use crate::outcome::{CLIENT_ABORT_STATUS, CUT_STATUS, FailureKind, Outcome, OwnAnswerKind, Refusal, Termination};
use crate::routing::{Decision, Reason, RouteId, ServiceId, VersionId};
use crate::shared::{Counted, Ended, Ending, Endpoint, Evidence, Rejected, VersionStats};
use crate::telemetry::access_log::Line;
use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// See the module. Filled as the exchange goes on.
#[derive(Default)]
pub struct Record {
    decided: RefCell<Option<(Decision, Arc<VersionStats>)>>,
    endpoint: RefCell<Option<Arc<Endpoint>>>,
    attempts: Cell<u8>,
    status: Cell<u16>,
    termination: Cell<Option<Termination>>,
    failure: Cell<Option<FailureKind>>,
    grpc_status: Cell<Option<u32>>,
    refusal: Cell<Option<Refusal>>,
    /// Who had no room for it: a service, or one of its versions.
    turned_away: Cell<Option<(ServiceId, Option<VersionId>)>>,
    own_answer: Cell<Option<OwnAnswerKind>>,
    request_bytes: Cell<u64>,
    response_bytes: Cell<u64>,
    upstream_time: Cell<Option<Duration>>,
    /// Why the last attempt that failed did.
    error: Cell<Option<Box<str>>>,
    /// What counts as its duration, where that is not all the time it took.
    latency: Cell<Option<Duration>>,
    /// The application's numbers in the answer, in the order of `analysis.metrics`.
    values: Cell<Box<[Option<f64>]>>,
    /// Its duration says nothing of the version: an upgraded connection, a stream.
    upgraded: Cell<bool>,
    /// The canary that failed before stable served.
    rescued: Cell<Option<VersionId>>,
    /// What the judge is to learn of it.
    watched: Cell<Option<Counted>>,
    ended: Cell<Option<Instant>>,
}

impl Record {
    /// A version serves (its request is counted as begun already).
    pub fn decided(&self, decision: Decision, stats: Arc<VersionStats>) {
        *self.decided.borrow_mut() = Some((decision, stats));
    }

    pub fn service(&self) -> Option<ServiceId> {
        self.decided.borrow().as_ref().map(|(decision, _)| decision.service)
    }

    /// What `of` makes of the decision; `None` before it.
    pub fn decision<R>(&self, of: impl FnOnce(&Decision) -> R) -> Option<R> {
        self.decided.borrow().as_ref().map(|(decision, _)| of(decision))
    }

    /// The route that led to the service.
    pub fn route(&self) -> Option<RouteId> {
        self.decided.borrow().as_ref().and_then(|(decision, _)| decision.route)
    }

    /// The version that serves, after the decision.
    pub fn serving(&self) -> Option<(ServiceId, VersionId)> {
        let decided = self.decided.borrow();
        let (decision, _) = decided.as_ref()?;
        Some((decision.service, decision.version.unwrap_or(decision.chosen)))
    }

    /// The name of the version that serves; empty before the decision.
    pub fn version_name<'l>(&self, local: &'l Local) -> &'l str {
        let Some((service, version)) = self.serving() else {
            return "";
        };
        let service = local.in_force.snapshot.policy.services.get(service.0 as usize);
        service
            .and_then(|service| service.versions.get(version.0 as usize))
            .map_or("", |version| &version.name)
    }

    /// `canary` has failed, and been told so; `stable` serves from now on, whose request is counted as begun already.
    pub fn rescued(&self, canary: VersionId, stable: VersionId, stats: Arc<VersionStats>) {
        self.rescued.set(Some(canary));
        if let Some((decision, serving)) = self.decided.borrow_mut().as_mut() {
            decision.version = Some(stable);
            *serving = stats;
        }
    }

    /// The judge is to learn how it ends.
    pub fn watched(&self, counted: Counted) {
        self.watched.set(Some(counted));
    }

    /// The judge of a rollout learns how the attempt ended; nothing of what follows.
    pub fn judged(&self, evidence: &Evidence, thread: usize, outcome: Outcome, duration: Duration) {
        let Some(counted) = self.watched.take() else { return };
        let ending = Ending {
            outcome,
            duration: (!self.upgraded.get()).then_some(duration),
            values: &self.values.take(),
        };
        evidence.end(thread, counted, &ending);
    }

    pub fn rescued_from(&self) -> Option<VersionId> {
        self.rescued.get()
    }

    /// Whether a version's failure is on record as the end.
    pub fn has_failed(&self) -> bool {
        self.failure.get().is_some()
    }

    /// How a request that began at `started` was answered, with the time to the first byte of its answer. `None`: it was not,
    /// or its client did not wait for it.
    pub fn answer(&self, started: Instant) -> Option<Ended> {
        let outcome = self.outcome(self.termination.get()?);
        let whole = || self.ended.get().map(|ended| ended.saturating_duration_since(started));
        let duration = self.upstream_time.get().or_else(whole)?;
        (outcome != Outcome::ClientAbort && !self.upgraded.get()).then(|| Ended {
            status: self.status.get(),
            grpc_status: self.grpc_status.get(),
            outcome,
            duration,
            upgraded: false,
        })
    }

    /// The port of the endpoint that was tried last.
    pub fn endpoint_port(&self) -> Option<u16> {
        let endpoint = self.endpoint.borrow();
        endpoint.as_ref()?.label.rsplit_once(':')?.1.parse().ok()
    }

    /// Another endpoint is tried.
    pub fn tries(&self, endpoint: &Arc<Endpoint>) {
        self.attempts.set(self.attempts.get().saturating_add(1));
        *self.endpoint.borrow_mut() = Some(Arc::clone(endpoint));
        self.values.take();
    }

    /// The head of an answer holds these numbers of the application.
    pub fn tells(&self, values: Box<[Option<f64>]>) {
        self.values.set(values);
    }

    /// An attempt has failed, for the operator to know why.
    pub fn failed_since(&self, why: &str) {
        self.error.set(Some(why.into()));
    }

    pub fn attempts(&self) -> u8 {
        self.attempts.get()
    }

    /// So much of the request's body has come.
    pub fn received(&self, bytes: u64) {
        self.request_bytes.set(bytes);
    }

    /// Of the body of the answer that the client gets.
    pub fn response_bytes(&self) -> &Cell<u64> {
        &self.response_bytes
    }

    fn progressed(&self, progress: &Progress, began: Instant) {
        self.request_bytes
            .set(self.request_bytes.get() + progress.tunneled.get());
        self.response_bytes.set(progress.answered.get());
        self.upstream_time.set(
            progress
                .first_byte
                .get()
                .map(|first| first.saturating_duration_since(began)),
        );
        if let Some(status) = progress.status.get() {
            self.status.set(status);
        }
        if progress.endless.get() {
            self.upgraded();
        }
    }

    /// An attempt to answer a call of gRPC has ended; the call began at `started`. A stream may last as long as both sides
    /// like: what counts is the time to its first byte, without that in which more of the request was waited for.
    pub fn called(&self, progress: &Progress, started: Instant) {
        let first_byte = progress.first_byte.get();
        let latency = first_byte.map(|first| first.saturating_duration_since(started));
        self.latency
            .set(latency.map(|latency| latency.saturating_sub(progress.waited.get())));
    }

    /// Its failure is nobody's.
    pub fn excused(&self) {
        self.failure.set(None);
    }

    pub fn ends(&self, status: u16, termination: Termination, failure: Option<FailureKind>) {
        self.ended.set(self.ended.get().or_else(|| Some(Instant::now())));
        self.status.set(status);
        self.termination.set(Some(termination));
        self.failure.set(failure.or(termination.failure()));
    }

    /// Ended within the answer, whose status is on record.
    pub fn ends_cut(&self, termination: Termination) {
        self.ends(self.status.get(), termination, None);
    }

    pub fn client_left(&self, termination: Termination) {
        self.status.set(CLIENT_ABORT_STATUS);
        self.termination.set(Some(termination));
        self.failure.set(None);
    }

    /// `status`: what its client gets.
    pub fn refused(&self, refusal: Refusal, status: u16) {
        self.refusal.set(Some(refusal));
        self.ends(status, Termination::Refused, None);
    }

    /// The service it was for has no room for it, or that version of it.
    pub fn turned_away(&self, service: ServiceId, version: Option<VersionId>) {
        self.turned_away.set(Some((service, version)));
    }

    /// The `grpc-status` that its client gets.
    pub fn says(&self, grpc_status: Option<u32>) {
        self.grpc_status.set(grpc_status);
    }

    /// The proxy answers by itself, as the file says.
    pub fn answered_itself(&self, status: u16, kind: OwnAnswerKind) {
        self.own_answer.set(Some(kind));
        self.ends(status, Termination::Ok, None);
    }

    pub fn upgraded(&self) {
        self.upgraded.set(true);
    }

    fn outcome(&self, termination: Termination) -> Outcome {
        match (self.failure.get(), termination) {
            (Some(kind), _) => Outcome::Failure(kind),
            (None, Termination::Ok) => Outcome::Success,
            // What was asked for came, and went on for as long as anybody wanted it.
            (None, Termination::Idle) if self.status.get() == 101 => Outcome::Success,
            (None, _) => Outcome::ClientAbort,
        }
    }
}

/// An attempt under way. How far it has come is on record when this is dropped: it may end without a word, by a panic or with
/// its thread.
pub struct Followed<'r, 'a> {
    pub attempt: &'r Attempt<'a>,
    pub began: Instant,
}

impl Drop for Followed<'_, '_> {
    fn drop(&mut self) {
        self.attempt.record.progressed(&self.attempt.progress, self.began);
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        let record = &self.record;
        let worker = &self.client.worker;
        self.client.slot.off_canary();
        // Before it is told: whoever sees that nothing is in flight finds room.
        self.places.leave();
        // Nobody set an end: the thread ends, and its exchanges with it.
        let termination = record.termination.get().unwrap_or_else(|| {
            if record.status.get() == 0 {
                record.status.set(CUT_STATUS);
            }
            Termination::Drain
        });
        let ended = record.ended.get().unwrap_or_else(Instant::now);
        let duration = ended.saturating_duration_since(self.started);
        worker.stats.terminated(termination);
        if let Some(refusal) = record.refusal.get() {
            worker.stats.refused(refusal);
        }
        if let Some(kind) = record.own_answer.get() {
            worker.stats.answered_itself(kind);
        }
        let latency = record.latency.get().unwrap_or(duration);
        let decided = record.decided.borrow();
        if let Some((decision, stats)) = decided.as_ref() {
            let outcome = record.outcome(termination);
            if let Some(evidence) = self.evidence(decision.service) {
                record.judged(evidence, worker.index, outcome, latency);
            }
            let (status, upgraded) = (record.status.get(), record.upgraded.get());
            stats.end(
                worker.index,
                &Ended {
                    status,
                    grpc_status: record.grpc_status.get(),
                    outcome,
                    duration: latency,
                    upgraded,
                },
            );
        }
        if let Some(log) = worker.log.borrow_mut().as_mut() {
            let endpoint = record.endpoint.borrow();
            let error = record.error.take();
            let line = self.line(decided.as_ref().map(|(decision, _)| decision), termination, duration);
            log.follow(self.local.in_force.snapshot.access_log.as_ref());
            log.record(&Line {
                endpoint: endpoint.as_ref().map(|endpoint| &*endpoint.label),
                error: error.as_deref(),
                ..line
            });
        }
    }
}

impl Exchange<'_> {
    fn line<'l>(&'l self, decision: Option<&'l Decision>, termination: Termination, duration: Duration) -> Line<'l> {
        let record = &self.record;
        let turned_away = record.turned_away.get();
        let id = decision.map(|decision| decision.service);
        let services = &self.local.in_force.snapshot.policy.services;
        let service = id
            .or(turned_away.map(|(service, _)| service))
            .and_then(|service| services.get(service.0 as usize));
        let named = |version: VersionId| Some(&*service?.versions.get(version.0 as usize)?.name);
        let reason = decision.map(|decision| decision.reason);
        let rule = match reason {
            Some(Reason::Rule(rule)) => service.and_then(|service| service.rules.get(rule as usize)),
            _ => None,
        };
        Line {
            time: SystemTime::now()
                .checked_sub(duration)
                .unwrap_or(SystemTime::UNIX_EPOCH),
            client_ip: self.client_ip,
            method: self.head.method(self.bytes),
            host: self.head.host(self.bytes),
            path: self.head.target(self.bytes),
            protocol: self.head.version.as_str(),
            status: record.status.get(),
            service: service.map(|service| &*service.name),
            version: decision
                .map(|_| record.version_name(&self.local))
                .or_else(|| named(turned_away?.1?)),
            rescued: record.rescued.get().and_then(named),
            reason: reason
                .map(reason_word)
                .or_else(|| record.own_answer.get().map(OwnAnswerKind::as_str)),
            rule: rule.map(|rule| &*rule.name),
            bucket: decision.and_then(|decision| decision.bucket),
            endpoint: None,
            attempts: record.attempts.get(),
            request_bytes: record.request_bytes.get(),
            response_bytes: record.response_bytes.get(),
            duration,
            upstream_time: record.upstream_time.get(),
            termination,
            request_id: self.request_id(),
            trace_id: self.trace_id(),
            user_agent: self
                .head
                .fields(self.bytes)
                .find(|(name, _)| name.eq_ignore_ascii_case("user-agent"))
                .map(|(_, value)| value),
            grpc_status: record.grpc_status.get(),
            failure: record.failure.get(),
            refusal: record.refusal.get(),
            error: None,
        }
    }
}

/// The reason without the rule's name, which the line carries apart.
fn reason_word(reason: Reason) -> &'static str {
    match reason {
        Reason::Killed => "killed",
        Reason::Rule(_) => "rule",
        Reason::Ring => "ring",
        Reason::Kept => "kept",
        Reason::Bucket => "bucket",
        Reason::Weight => "weight",
        Reason::Fallback => "fallback",
    }
}

/// Keeps a request that was refused as a message, for the operator.
pub fn keep_refused(worker: &Worker, from: IpAddr, refusal: Refusal, why: &str, bytes: &[u8]) {
    if matches!(refusal, Refusal::NoRoute | Refusal::MaxConnections) {
        return;
    }
    worker.shared.rejected.keep(|| Rejected {
        at: SystemTime::now(),
        is_answer: false,
        from: from.to_canonical().to_string(),
        reason: refusal.as_str(),
        status: refusal.status(),
        why: why.to_owned(),
        head: excerpt(bytes),
    });
}

/// Keeps an endpoint's answer that broke HTTP. `bytes`: its head, if that is what is broken.
pub fn keep_broken(worker: &Worker, endpoint: &Endpoint, why: &str, bytes: &[u8]) {
    worker.shared.rejected.keep(|| Rejected {
        at: SystemTime::now(),
        is_answer: true,
        from: endpoint.label.to_string(),
        reason: FailureKind::Protocol.as_str(),
        status: 502,
        why: why.to_owned(),
        head: excerpt(bytes),
    });
}

/// See [`log_unread`].
pub struct Telling<'a> {
    worker: &'a Worker,
    peer: IpAddr,
    version: Version,
    refusal: Refusal,
    request_id: &'a str,
    /// How a call of gRPC was told, in an answer of 200.
    pub grpc_status: Option<u32>,
    /// Of the body of its answer.
    pub response_bytes: Cell<u64>,
}

/// The telling of what could not be read as a request: it is counted now, and in the log when what is returned is dropped.
/// `version`: what its connection speaks, as far as is known.
pub fn log_unread<'a>(
    worker: &'a Worker,
    peer: IpAddr,
    version: Version,
    refusal: Refusal,
    request_id: &'a str,
) -> Telling<'a> {
    worker.stats.refused(refusal);
    worker.stats.terminated(Termination::Refused);
    Telling {
        worker,
        peer,
        version,
        refusal,
        request_id,
        grpc_status: None,
        response_bytes: Cell::new(0),
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        let mut log = self.worker.log.borrow_mut();
        let Some(log) = log.as_mut() else { return };
        log.record(&Line {
            time: SystemTime::now(),
            client_ip: self.peer,
            method: "",
            host: "",
            path: "",
            protocol: self.version.as_str(),
            status: self.grpc_status.map_or(self.refusal.status(), |_| 200),
            service: None,
            version: None,
            rescued: None,
            reason: None,
            rule: None,
            bucket: None,
            endpoint: None,
            attempts: 0,
            request_bytes: 0,
            response_bytes: self.response_bytes.get(),
            duration: Duration::ZERO,
            upstream_time: None,
            termination: Termination::Refused,
            request_id: self.request_id,
            trace_id: None,
            user_agent: None,
            grpc_status: self.grpc_status,
            failure: None,
            refusal: Some(self.refusal),
            error: None,
        });
    }
}

//! One request's life: facts, decision, attempts, ending. The same for every protocol.

mod attempts;
mod copying;
mod endings;
mod evidence;
mod limits;
mod own_answers;
mod rescue;
mod rewriting;

pub(super) use endings::status_of;
pub use endings::{Unread, refuse_unread};
pub(super) use limits::place_for_copy;

use self::limits::{Beyond, Places};
use super::body::BodyReader;
use super::downstream::{Client, Next};
use super::headers::{hex_id, is_trusted, traceparent};
use super::panics;
use super::record::Record;
use super::worker::{Local, Moment};
use crate::config::snapshot::{Limits, RouteTimeouts, Snapshot};
use crate::http1::{Chain, MethodKind, RequestBody, RequestHead, Version};
use crate::http2::grpc;
use crate::outcome::{FailureKind, Refusal, Termination};
use crate::routing::{
    self, Decision, Destination, HeaderFields, Reason, RequestView, Role, RouteAnswer, Routed, VersionId,
};
use crate::shared::VersionInForce;
use std::cell::Cell;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much earlier than by our clock a client's own deadline may come: its clock began to run before ours.
const EARLY: Duration = Duration::from_millis(100);

/// A client that gives less time than this for a call means it to fail, or does not mean it: no version is to blame.
const LEAST_DEADLINE: Duration = Duration::from_millis(10);

/// Serves the request whose head has arrived.
pub async fn run(client: &Client, head: &RequestHead, bytes: &[u8], body: &mut BodyReader<'_>) -> Next {
    client.answering.set(false);
    let exchange = Exchange::new(client, head, bytes);
    let served = panics::catch(pin!(exchange.serve(body))).await;
    match served {
        Ok(next) => next,
        Err(()) => {
            client.worker.stats.panicked();
            if client.answering.get() {
                return exchange.cut(Termination::Internal);
            }
            Box::pin(exchange.fail(500, Termination::Internal, "the proxy failed; its log says more", true)).await
        }
    }
}

fn is_grpc(head: &RequestHead, bytes: &[u8]) -> bool {
    let fields = head.fields(bytes);
    fields.nth("content-type", 0).is_some_and(grpc::is_grpc)
}

/// What a client that came by TLS is told of it, if anything.
fn hsts<'l>(local: &'l Local, client: &Client) -> Option<&'l str> {
    let hsts = local.listener(client.listener)?.hsts.as_deref()?;
    client.link.is_tls().then_some(hsts)
}

fn text(ascii: &[u8]) -> &str {
    std::str::from_utf8(ascii).unwrap_or_default()
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
    /// What a trusted peer says of the client beside its address.
    chain: Chain,
    /// A call of gRPC, to be answered as such.
    is_grpc: bool,
    /// How long its client waits, where that counts.
    grpc_timeout: Cell<Option<Duration>>,
    fresh_id: [u8; 32],
    fresh_trace: [u8; 55],
    /// What it takes up of its service's and its version's `max_in_flight`.
    pub places: Places,
    /// What is known of its end so far; told when the exchange is dropped, however it ended.
    pub record: Record,
}

impl<'c> Exchange<'c> {
    fn new(client: &'c Client, head: &'c RequestHead, bytes: &'c [u8]) -> Self {
        let local = client.worker.local();
        let trusted = &local.in_force.snapshot.trusted_proxies;
        let peer = client.peer.ip();
        let peer_trusted = is_trusted(peer, trusted);
        let (client_ip, chain) = if peer_trusted {
            Chain::read(peer, &head.fields(bytes), |hop| is_trusted(hop, trusted))
        } else {
            (peer, Chain::default())
        };
        let fresh_id = hex_id(client.worker.draw_id());
        let fresh_trace = traceparent(client.worker.draw_id(), client.worker.draw());
        let (started, record) = (Instant::now(), Record::default());
        Self {
            client,
            head,
            bytes,
            started,
            client_ip,
            peer_trusted,
            chain,
            is_grpc: head.version == Version::Http2 && is_grpc(head, bytes),
            grpc_timeout: Cell::new(None),
            fresh_id,
            fresh_trace,
            places: Places::default(),
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

    /// The trace the request belongs to: its own `traceparent`, or a fresh one, the same for every attempt.
    pub fn trace_id(&self) -> Option<&str> {
        let traceparent = self.head.traceparent(self.bytes);
        traceparent.unwrap_or_else(|| text(&self.fresh_trace)).get(3..35)
    }

    /// A call of gRPC may take as long as its client waits for it, and its route allows: a stream has no other end.
    fn keep_grpc_timeout(&self) {
        let fields = self.head.fields(self.bytes);
        let of_client = fields.nth("grpc-timeout", 0).and_then(grpc::timeout);
        self.grpc_timeout.set(of_client);
        let of_route = self.route_timeouts().and_then(|timeouts| timeouts.request);
        match of_client.into_iter().chain(of_route).min() {
            Some(limit) => self.client.slot.set_total(limit),
            None => self.client.slot.clear_total(),
        }
    }

    /// The client had said how long it would wait, and has waited: it leaves of itself then, a moment before or after us.
    fn client_waited_long_enough(&self) -> bool {
        self.grpc_timeout.get().is_some_and(|timeout| {
            let early = (timeout / 10).min(EARLY);
            self.started.elapsed() >= timeout.saturating_sub(early)
        })
    }

    /// A deadline has passed, which says nothing of the version: its client gave less than hardly anybody could have kept, or
    /// the answer had begun, and its length is the affair of both sides, or of a client that has not sent all.
    fn is_nobodys_delay(&self, answer_begun: bool, uploaded: bool) -> bool {
        let of_client = self.grpc_timeout.get();
        let is_of_client = of_client.is_some_and(|timeout| answer_begun || timeout < LEAST_DEADLINE);
        is_of_client || (self.is_grpc && answer_begun && !uploaded)
    }

    fn snapshot(&self) -> &Snapshot {
        &self.local.in_force.snapshot
    }

    fn limits(&self) -> &Limits {
        &self.snapshot().limits
    }

    /// What the route says of time.
    fn route_timeouts(&self) -> Option<&RouteTimeouts> {
        let all = &self.snapshot().route_timeouts;
        all.get(self.record.route()?.0 as usize)?.as_ref()
    }

    /// How long the request may take.
    fn time_limit(&self) -> Duration {
        let of_route = self.route_timeouts().and_then(|timeouts| timeouts.request);
        of_route.unwrap_or(self.limits().request_timeout)
    }

    /// When the head had arrived, in milliseconds of uptime.
    fn started_ms(&self) -> u64 {
        self.client.worker.shared.uptime_ms_at(self.started)
    }

    fn now_ms(&self) -> u64 {
        self.client.worker.shared.uptime_ms_at(Instant::now())
    }

    async fn serve(&self, body: &mut BodyReader<'_>) -> Next {
        self.client.slot.set_total(self.time_limit());
        if matches!(self.head.body, RequestBody::Length(bytes) if bytes > self.limits().max_body) {
            return Box::pin(self.refuse(Refusal::BodyTooLarge, "the body is larger than limits.max_body")).await;
        }
        if self.head.max_forwards == Some(0) {
            return Box::pin(self.answer_as_the_last()).await;
        }
        if let Some(port) = self.redirect_port() {
            return Box::pin(self.redirect_to_https(port)).await;
        }
        match self.routed() {
            Serving::Version(serving, version, cookie) => {
                let mut upload = self.upload(serving, version, body);
                let next = self.attempts(serving, version, cookie.as_deref(), &mut upload).await;
                self.settle_rescue();
                self.mirror_it(&mut upload);
                next
            }
            Serving::Nobody => Box::pin(self.refuse(Refusal::NoRoute, "no route for this host, path and method")).await,
            Serving::Beyond(beyond) => Box::pin(self.turn_away(beyond)).await,
            Serving::Proxy(answer) => Box::pin(self.answer_by_route(answer)).await,
            Serving::Unusable => Box::pin(self.no_endpoint()).await,
            Serving::Absent => {
                let why = "the decision names a version that is not there";
                Box::pin(self.fail(500, Termination::Internal, why, true)).await
            }
        }
    }

    fn has_body(&self) -> bool {
        !matches!(self.head.body, RequestBody::None)
    }

    /// Whether the client came by https: to us, or, as a trusted proxy says, to what is in front.
    fn is_https(&self) -> bool {
        self.chain.https.unwrap_or_else(|| self.client.link.is_tls())
    }

    /// The port at which the client is to come back by https.
    fn redirect_port(&self) -> Option<u16> {
        let port = self.local.listener(self.client.listener)?.redirect_to_https?;
        (!self.is_https()).then_some(port)
    }

    /// `Max-Forwards` has run out: no endpoint may be asked (RFC 9110 section 7.6.2). A TRACE is not reflected: what it
    /// holds may be secret.
    async fn answer_as_the_last(&self) -> Next {
        const WHY: &str = "Max-Forwards is 0, and this is a proxy";
        if self.head.method_kind == MethodKind::Trace {
            return Box::pin(self.refuse(Refusal::MethodNotAllowed, WHY)).await;
        }
        self.record.ends(200, Termination::Ok, None);
        self.own_answer(200, WHY, self.has_body()).await
    }

    fn view<'v>(&'v self, fields: &'v dyn HeaderFields) -> RequestView<'v> {
        RequestView {
            method: self.head.method(self.bytes),
            host: self.head.host(self.bytes),
            path: self.head.canonical_path(self.bytes),
            query: self.head.query(self.bytes),
            fields,
            client_ip: self.client_ip,
            client_cert: self.client.certificate.as_deref(),
        }
    }

    /// What becomes of the request. What the service has no room for takes no turn of its split.
    fn routed(&self) -> Serving<'_> {
        let fields = self.head.fields(self.bytes);
        let request = self.view(&fields);
        let in_force = &self.local.in_force;
        let policy = &in_force.snapshot.policy;
        let Some(found) = policy.routes.find(&request) else {
            return Serving::Nobody;
        };
        if let Destination::Service(service) = found.1.to
            && let Err(beyond) = self.admit(service, &request)
        {
            return Serving::Beyond(beyond);
        }
        let moment = Moment {
            worker: &self.client.worker,
            local: &self.local,
            now_ms: self.started_ms(),
        };
        match routing::decide_on(found, policy, &in_force.traffic, &request, &moment) {
            Routed::Nowhere => Serving::Nobody,
            Routed::Answer(answer) => Serving::Proxy(answer),
            Routed::Service(decision) => self.begin(decision, &request),
        }
    }

    /// The version serves from here on, and is on record.
    fn begin(&self, decision: Decision, request: &RequestView<'_>) -> Serving<'_> {
        let serving = decision.version.unwrap_or(decision.chosen);
        let (Some(chosen), Some(version)) = (
            self.local.version(decision.service, decision.chosen),
            self.local.version(decision.service, serving),
        ) else {
            return Serving::Absent;
        };
        if let Err(beyond) = self.admit_to_version(decision.service, serving, request) {
            return Serving::Beyond(beyond);
        }
        let thread = self.client.worker.index;
        if decision.reason == Reason::Fallback && decision.version.is_some() {
            chosen.stats.charge(thread, FailureKind::NoEndpoint);
        }
        version.stats.begin(thread);
        self.watch(&decision);
        let usable = decision.version.is_some();
        let cookie = self.cookie(&decision);
        if version.pool.role() == Role::Canary {
            self.client.slot.runs_on_canary(&self.local, decision.service, serving);
        }
        self.record.decided(decision, Arc::clone(&version.stats));
        if self.route_timeouts().is_some() {
            self.client.slot.set_total(self.time_limit());
        }
        if usable {
            Serving::Version(serving, version, cookie)
        } else {
            Serving::Unusable
        }
    }
}

/// Who serves.
enum Serving<'l> {
    /// With the cookie that the decision asks for.
    Version(VersionId, &'l VersionInForce, Option<Vec<u8>>),
    /// No route takes the request.
    Nobody,
    Proxy(&'l RouteAnswer),
    /// Nobody has room for it.
    Beyond(Beyond),
    /// The version has no usable endpoint, and nobody stands in.
    Unusable,
    Absent,
}

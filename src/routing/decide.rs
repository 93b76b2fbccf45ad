//! The one entrance: [`decide`].

use super::affinity::UserKey;
use super::cookie::{Bound, Cookie, version_of_tag, version_tag};
use super::{
    Affinity, Condition, CookieKey, CookieSpec, Destination, RequestView, Route, RouteAnswer, RouteId, RouteTable,
    SegmentId, ServiceId, SetCookie, Split, VersionId,
};
use std::fmt;

/// What the file says about routing; immutable once compiled.
#[derive(Debug, Default)]
pub struct Policy {
    pub routes: RouteTable,
    pub segments: Box<[Segment]>,
    pub services: Box<[Service]>,
}

/// A named condition.
#[derive(Debug)]
pub struct Segment {
    pub name: Box<str>,
    pub when: Condition,
}

#[derive(Debug)]
pub struct Service {
    pub name: Box<str>,
    /// In file order.
    pub versions: Box<[Version]>,
    /// The one version whose role is stable.
    pub stable: VersionId,
    pub affinity: Option<Affinity>,
    pub rules: Box<[Rule]>,
    pub fallback: Fallback,
}

#[derive(Debug)]
pub struct Version {
    pub name: Box<str>,
    pub role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Stable,
    Canary,
}

/// A condition that overrides the split.
#[derive(Debug)]
pub struct Rule {
    pub name: Box<str>,
    pub when: Condition,
    /// Only clients of this segment count: a header anyone may send is no permission.
    pub from: Option<SegmentId>,
    pub target: Target,
}

#[derive(Debug)]
pub enum Target {
    Version(VersionId),
    Split(Split),
}

/// What happens when the chosen version has no usable endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fallback {
    #[default]
    Stable,
    Fail,
}

/// What moves at run time. `services` runs parallel to [`Policy::services`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// The kill switch for all services.
    pub killed: bool,
    pub services: Box<[ServiceTraffic]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceTraffic {
    pub split: Split,
    pub killed: bool,
    /// Cookies of another epoch are void.
    pub epoch: u32,
    /// Segments admitted to the candidate by the rollout's current step, and the candidate.
    pub ring: Option<(VersionId, Box<[SegmentId]>)>,
    /// What the rollout's current step copies.
    pub mirror: Option<StepMirror>,
}

/// A mirror step: some of the requests that stable answers are copied for the candidate, and judged beside their originals.
/// It decides nothing about the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepMirror {
    /// The candidate.
    pub version: VersionId,
    /// Of 100,000 requests.
    pub share: u32,
    /// Copies made under another number than that in force are not judged any more.
    pub window: u64,
}

/// The facts of the moment, given by the shell: the decision itself has no clock and no randomness.
pub trait Facts {
    /// Seconds since the Unix epoch.
    fn now_s(&self) -> u64;
    /// The next number of a sequence for requests without a key: the service's own, or that of one of its rules (by
    /// position), so that each split is exact by itself. Called at most once a decision.
    fn turn(&self, service: ServiceId, rule: Option<u32>) -> u64;
    /// Whether the version has an endpoint that may take this request.
    fn usable(&self, service: ServiceId, version: VersionId) -> bool;
    fn cookie_key(&self) -> &CookieKey;
    /// An unguessable id for a user who has none. Called at most once a decision.
    fn fresh_id(&self) -> u128;
}

/// Why a version was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Killed,
    /// Position in [`Service::rules`].
    Rule(u32),
    Ring,
    Kept,
    Bucket,
    Weight,
    Fallback,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub service: ServiceId,
    /// `None`: none was looked for.
    pub route: Option<RouteId>,
    /// The version that was chosen: failures are charged to it.
    pub chosen: VersionId,
    /// The version that serves: `chosen`, or stable by fallback. `None`: answer 503 (`fallback: fail`).
    pub version: Option<VersionId>,
    pub reason: Reason,
    /// The user's bucket, 0..100000, where the split or its cookie looked at one.
    pub bucket: Option<u32>,
    pub set_cookie: Option<SetCookie>,
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Routed<'p> {
    /// No route takes it: 404.
    Nowhere,
    /// The proxy answers by itself.
    Answer(&'p RouteAnswer),
    Service(Decision),
}

impl Routed<'_> {
    /// The decision, if a service is to serve.
    pub fn decision(self) -> Option<Decision> {
        match self {
            Self::Service(decision) => Some(decision),
            Self::Nowhere | Self::Answer(_) => None,
        }
    }
}

impl Reason {
    /// The reason as logs, metrics of traces and `explain` show it: `rule:<name>`, or the word alone.
    pub fn text(self, service: &Service) -> ReasonText<'_> {
        ReasonText { reason: self, service }
    }
}

/// See [`Reason::text`].
#[derive(Debug, Clone, Copy)]
pub struct ReasonText<'a> {
    reason: Reason,
    service: &'a Service,
}

impl fmt::Display for ReasonText<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self.reason {
            Reason::Killed => "killed",
            Reason::Rule(index) => {
                let rule = self.service.rules.get(index as usize);
                return write!(out, "rule:{}", rule.map_or("", |rule| &rule.name));
            }
            Reason::Ring => "ring",
            Reason::Kept => "kept",
            Reason::Bucket => "bucket",
            Reason::Weight => "weight",
            Reason::Fallback => "fallback",
        })
    }
}

/// What becomes of this request: which version gets it, in this order:
///
/// 1. the route; without one nobody does, and some are answered by the proxy itself
/// 2. kill switch of the service or of all: stable; nothing below is looked at, cookies are left alone
/// 3. the first rule that matches; one with a split draws by the user's bucket, or by turn for a user without a key
/// 4. a segment admitted by the rollout's current step: the candidate
/// 5. a valid affinity cookie of this epoch (`keep`): the canary it names, while its weight is above zero (the
///    operator's zero means zero)
/// 6. the split: by bucket where there is a key, else by turn. With a cookie configured every user has a key: the
///    cookie's id, or a fresh one that the answer will set
/// 7. the chosen version is a canary without a usable endpoint: stable, or nobody (`fallback: fail`). Stable is always
///    used: what to do when all of it looks dead is its pool's business.
///
/// Total: never panics, whatever the arguments; no allocation unless a cookie has to be made or a parameter decoded.
pub fn decide<'p>(policy: &'p Policy, traffic: &Traffic, request: &RequestView<'_>, facts: &dyn Facts) -> Routed<'p> {
    match policy.routes.find(request) {
        None => Routed::Nowhere,
        Some(found) => decide_on(found, policy, traffic, request, facts),
    }
}

/// [`decide`] after its first step: this route takes the request.
pub fn decide_on<'p>(
    (id, route): (RouteId, &'p Route),
    policy: &Policy,
    traffic: &Traffic,
    request: &RequestView<'_>,
    facts: &dyn Facts,
) -> Routed<'p> {
    let service = match &route.to {
        Destination::Service(service) => *service,
        Destination::Answer(answer) => return Routed::Answer(answer),
    };
    let decided = decide_in(service, policy, traffic, request, facts);
    decided.map_or(Routed::Nowhere, |decision| {
        Routed::Service(Decision {
            route: Some(id),
            ..decision
        })
    })
}

/// [`decide`] without its first step: the request is already known to be for `service`. `None`: there is no such
/// service.
pub fn decide_in(
    service: ServiceId,
    policy: &Policy,
    traffic: &Traffic,
    request: &RequestView<'_>,
    facts: &dyn Facts,
) -> Option<Decision> {
    let id = service;
    let service = policy.services.get(id.0 as usize)?;
    let Some(live) = traffic.services.get(id.0 as usize) else {
        // The two run parallel; were they not, stable is the safe side.
        return Some(Decision::plain(id, service.stable, Reason::Fallback));
    };
    if traffic.killed || live.killed {
        return Some(Decision::plain(id, service.stable, Reason::Killed));
    }
    let case = Case {
        id,
        policy,
        service,
        live,
        request,
        facts,
    };
    let choice = case
        .by_rules()
        .or_else(|| case.by_ring())
        .unwrap_or_else(|| case.by_split());
    Some(case.conclude(choice))
}

impl Decision {
    fn plain(service: ServiceId, version: VersionId, reason: Reason) -> Self {
        Self {
            service,
            route: None,
            chosen: version,
            version: Some(version),
            reason,
            bucket: None,
            set_cookie: None,
        }
    }
}

/// One request of one service.
struct Case<'a> {
    id: ServiceId,
    policy: &'a Policy,
    service: &'a Service,
    live: &'a ServiceTraffic,
    request: &'a RequestView<'a>,
    facts: &'a dyn Facts,
}

/// A version, before anyone asks whether it can be used.
struct Choice<'a> {
    version: VersionId,
    reason: Reason,
    bucket: Option<u32>,
    /// Present where a cookie may have to be set.
    holder: Option<Holder<'a>>,
}

/// A user of a service with an affinity cookie.
struct Holder<'a> {
    spec: &'a CookieSpec,
    /// What the request brought instead of an id.
    key: Option<UserKey<'a>>,
    /// The id of a user without a key; 0 for one with a key.
    id: u128,
    /// The valid cookie that came with the request.
    cookie: Option<Cookie>,
    /// What the cookie has to say from now on of the version the user is kept in.
    kept: Option<VersionId>,
    /// Whether `kept` is news: then it holds only if that version really serves.
    admitted: bool,
}

impl<'a> Case<'a> {
    fn by_rules(&self) -> Option<Choice<'a>> {
        let (index, rule) = self.service.rules.iter().enumerate().find(|(_, rule)| {
            rule.from.is_none_or(|segment| self.is_in(segment))
                && rule.when.matches(self.request, &self.policy.segments)
        })?;
        let reason = Reason::Rule(index as u32);
        Some(match &rule.target {
            Target::Version(version) => Choice::plain(*version, reason),
            Target::Split(split) => {
                let mut choice = self.draw(split, Some(index as u32), self.user());
                // A rule admits nobody for longer than it matches: what the cookie says stays as it is.
                if let Some(holder) = &mut choice.holder {
                    holder.kept = holder
                        .cookie
                        .and_then(|cookie| version_of_tag(self.service, cookie.kept));
                }
                Choice { reason, ..choice }
            }
        })
    }

    fn by_ring(&self) -> Option<Choice<'a>> {
        let (candidate, segments) = self.live.ring.as_ref()?;
        let admitted = segments.iter().any(|&segment| self.is_in(segment));
        admitted.then(|| Choice::plain(*candidate, Reason::Ring))
    }

    fn by_split(&self) -> Choice<'a> {
        let user = self.user();
        let keep = self.service.affinity.as_ref().is_some_and(|affinity| affinity.keep);
        if keep
            && let (_, Some(holder)) = &user
            && let Some(version) = holder
                .cookie
                .and_then(|cookie| version_of_tag(self.service, cookie.kept))
            && self.is_canary(version)
            && self.live.split.weight(version.0 as usize) > 0
        {
            let holder = user.1.map(|holder| Holder {
                kept: Some(version),
                ..holder
            });
            let affinity = self.service.affinity.as_ref().zip(user.0.as_ref());
            return Choice {
                bucket: affinity.map(|(affinity, key)| affinity.hash.bucket(&affinity.salt, key.as_bytes())),
                holder,
                ..Choice::plain(version, Reason::Kept)
            };
        }
        let mut choice = self.draw(&self.live.split, None, user);
        if keep
            && self.is_canary(choice.version)
            && let Some(holder) = &mut choice.holder
        {
            holder.kept = Some(choice.version);
            holder.admitted = true;
        }
        choice
    }

    /// The user's key, and what concerns the cookie.
    fn user(&self) -> (Option<UserKey<'a>>, Option<Holder<'a>>) {
        let Some(affinity) = &self.service.affinity else {
            return (None, None);
        };
        let key = affinity.user_key(self.request);
        let Some(spec) = &affinity.cookie else {
            return (key, None);
        };
        // Who has a key needs a cookie only to be kept.
        if key.is_some() && !affinity.keep {
            return (key, None);
        }
        let bound = self.bound(&key);
        let cookie = Cookie::of_request(self.request, spec, bound, self.facts.cookie_key(), self.facts.now_s());
        let id = match (&key, cookie) {
            (Some(_), _) => 0,
            (None, Some(cookie)) => cookie.id,
            (None, None) => self.facts.fresh_id(),
        };
        let holder = Holder {
            spec,
            key,
            id,
            cookie,
            kept: None,
            admitted: false,
        };
        (Some(key.unwrap_or_else(|| UserKey::of_id(id))), Some(holder))
    }

    fn draw(&self, split: &Split, rule: Option<u32>, user: (Option<UserKey<'a>>, Option<Holder<'a>>)) -> Choice<'a> {
        let (key, holder) = user;
        let drawn = self.service.affinity.as_ref().zip(key.as_ref());
        let (index, bucket, reason) = match drawn {
            Some((Affinity { hash, salt, .. }, key)) => {
                let drawn = split.by_user(*hash, salt, key.as_bytes(), self.service);
                (drawn.index, Some(drawn.bucket), Reason::Bucket)
            }
            None => (split.by_turn(self.facts.turn(self.id, rule)), None, Reason::Weight),
        };
        Choice {
            version: VersionId(index as u32),
            reason,
            bucket,
            holder,
        }
    }

    fn conclude(&self, choice: Choice<'a>) -> Decision {
        let stable = self.service.stable;
        // The split has a weight for a version that is not there: the same mistake as above, the same answer.
        let known = self.service.versions.get(choice.version.0 as usize).is_some();
        let chosen = if known { choice.version } else { stable };
        let usable = chosen == stable || self.facts.usable(self.id, chosen);
        let (version, reason) = match (usable, self.service.fallback) {
            (true, _) => (Some(chosen), choice.reason),
            (false, Fallback::Stable) => (Some(stable), Reason::Fallback),
            (false, Fallback::Fail) => (None, Reason::Fallback),
        };
        Decision {
            service: self.id,
            route: None,
            chosen,
            version,
            reason,
            bucket: choice.bucket,
            set_cookie: choice.holder.and_then(|holder| self.set_cookie(holder, usable)),
        }
    }

    /// The cookie to set, if the one that came (or did not come) will not do.
    fn set_cookie(&self, holder: Holder<'a>, usable: bool) -> Option<SetCookie> {
        let kept = holder.kept.filter(|_| usable || !holder.admitted);
        let tag = kept.map_or(0, |version| version_tag(self.service, version));
        let worth_having = holder.key.is_none() || tag != 0;
        let now_s = self.facts.now_s();
        let needed = match &holder.cookie {
            None => worth_having,
            Some(cookie) => tag != cookie.kept || (worth_having && cookie.is_old(holder.spec, now_s)),
        };
        needed.then(|| {
            let cookie = Cookie {
                id: holder.id,
                issued_s: now_s,
                kept: tag,
            };
            let value = cookie.seal(self.bound(&holder.key), self.facts.cookie_key());
            SetCookie::new(holder.id, kept, value)
        })
    }

    fn bound<'b>(&'b self, key: &'b Option<UserKey<'a>>) -> Bound<'b> {
        Bound {
            service: &self.service.name,
            user: key.as_ref().map(UserKey::as_bytes),
            epoch: self.live.epoch,
        }
    }

    fn is_in(&self, segment: SegmentId) -> bool {
        Condition::Segment(segment).matches(self.request, &self.policy.segments)
    }

    fn is_canary(&self, version: VersionId) -> bool {
        version != self.service.stable
            && self
                .service
                .versions
                .get(version.0 as usize)
                .is_some_and(|version| version.role == Role::Canary)
    }
}

impl Choice<'_> {
    fn plain(version: VersionId, reason: Reason) -> Self {
        Self {
            version,
            reason,
            bucket: None,
            holder: None,
        }
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;

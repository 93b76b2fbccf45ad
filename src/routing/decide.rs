//! The one entrance: [`decide`].

use super::{
    Affinity, Condition, CookieKey, RequestView, RouteTable, SegmentId, ServiceId, SetCookie, Split, VersionId,
};

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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
#[derive(Debug, Default)]
pub struct Traffic {
    /// The kill switch for all services.
    pub killed: bool,
    pub services: Box<[ServiceTraffic]>,
}

#[derive(Debug, Clone)]
pub struct ServiceTraffic {
    pub split: Split,
    pub killed: bool,
    /// Cookies of another epoch are void.
    pub epoch: u32,
    /// Segments admitted to the candidate by the rollout's current step, and the candidate.
    pub ring: Option<(VersionId, Box<[SegmentId]>)>,
}

/// The facts of the moment, given by the shell: the decision itself has no clock and no randomness.
pub trait Facts {
    /// Seconds since the Unix epoch.
    fn now_s(&self) -> u64;
    /// The next number of the service's sequence for requests without a key. Called at most once a decision.
    fn turn(&self, service: ServiceId) -> u64;
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
    /// The version that was chosen: failures are charged to it.
    pub chosen: VersionId,
    /// The version that serves: `chosen`, or stable by fallback. `None`: answer 503 (`fallback: fail`).
    pub version: Option<VersionId>,
    pub reason: Reason,
    /// The user's bucket, 0..100000, where the split looked at one.
    pub bucket: Option<u32>,
    pub set_cookie: Option<SetCookie>,
}

/// DESIGN section 4. `None`: no route (404). Total: never panics, whatever the arguments.
pub fn decide(
    _policy: &Policy,
    _traffic: &Traffic,
    _request: &RequestView<'_>,
    _facts: &dyn Facts,
) -> Option<Decision> {
    unimplemented!("routing helper")
}

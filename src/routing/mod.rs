//! Which version gets this request: one pure function, [`decide`], over what the file says ([`Policy`]), what moves at
//! run time ([`Traffic`]), the request ([`RequestView`]) and the facts of the moment ([`Facts`]).

mod affinity;
mod bucket;
mod condition;
mod decide;
mod request;
mod route_table;
mod split;

pub use affinity::{Affinity, CookieKey, CookieSpec, KeySource, SetCookie};
pub use bucket::HashName;
pub use condition::{Condition, Operator, Source};
pub use decide::{
    Decision, Facts, Fallback, Policy, Reason, Role, Rule, Segment, Service, ServiceTraffic, Target, Traffic, Version,
    decide,
};
pub use request::{HeaderFields, RequestView};
pub use route_table::{HostPattern, PathPattern, Route, RouteTable};
pub use split::Split;

/// Position of a service in [`Policy::services`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceId(pub u32);

/// Position of a version in [`Service::versions`], in file order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VersionId(pub u32);

/// Position of a segment in [`Policy::segments`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentId(pub u32);

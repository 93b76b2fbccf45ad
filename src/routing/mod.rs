//! Which version gets this request: one pure function, [`decide()`], over what the file says ([`Policy`]), what moves at
//! run time ([`Traffic`]), the request ([`RequestView`]) and the facts of the moment ([`Facts`]).

mod affinity;
mod answer;
mod bucket;
mod condition;
mod cookie;
mod decide;
mod path;
mod request;
mod route_table;
mod split;

pub use affinity::{Affinity, CookieSpec, KeySource, UserKey, first_key};
pub use answer::{Asked, NewPath, Redirect, Respond, RouteAnswer, Scheme, exchange_prefix, path_below};
pub use bucket::{BUCKETS, HashName};
pub use condition::{ClientCertPart, Condition, MAX_CONDITION_DEPTH, MAX_CONDITION_STEPS, Operator, Source};
pub use cookie::{COOKIE_SKEW_S, COOKIE_VALUE_LEN, CookieKey, SetCookie};
pub use decide::{
    Decision, Facts, Fallback, Policy, Reason, ReasonText, Role, Routed, Rule, Segment, Service, ServiceTraffic,
    StepMirror, Target, Traffic, Version, decide, decide_in, decide_on,
};
pub use path::{PathFault, canonical_path};
pub use request::{ClientCert, HeaderFields, RequestView, is_field_name};
pub use route_table::{Destination, HostPattern, MAX_HOST_LEN, PathPattern, Route, RouteTable};
pub use split::{Drawn, Split};

/// Position of a service in [`Policy::services`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceId(pub u32);

/// Position of a route in [`RouteTable::routes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub u32);

/// Position of a version in [`Service::versions`], in file order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VersionId(pub u32);

/// Position of a segment in [`Policy::segments`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentId(pub u32);

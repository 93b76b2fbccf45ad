//! Request -> service, with the precedence of the Kubernetes Gateway API: exact host before wildcard before none; exact
//! path before longest prefix; a method before none; then file order.

use super::{RequestView, ServiceId};

/// Which hosts a route is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    /// Every host.
    Any,
    /// This host, lowercase, without port.
    Exact(Box<str>),
    /// `*.suffix`: any host that ends in `.suffix`, with one label or more before it; held here lowercase, without `*.`.
    Wildcard(Box<str>),
}

/// Which paths a route is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathPattern {
    /// This path and no other.
    Exact(Box<str>),
    /// This path and everything below it, by whole segments: `/a` matches `/a` and `/a/b`, not `/ab`.
    Prefix(Box<str>),
}

/// One route of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub host: HostPattern,
    pub path: PathPattern,
    /// Empty: every method.
    pub methods: Box<[Box<str>]>,
    pub service: ServiceId,
}

/// The routes of all services, ready for look-up.
#[derive(Debug, Default)]
pub struct RouteTable {
    routes: Vec<Route>,
}

impl RouteTable {
    /// `routes` in file order.
    pub fn new(routes: Vec<Route>) -> Self {
        Self { routes }
    }

    /// All routes, in file order.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// The service of the most specific route that matches; `None`: no route (404).
    pub fn find(&self, _request: &RequestView<'_>) -> Option<ServiceId> {
        unimplemented!("routing helper")
    }
}

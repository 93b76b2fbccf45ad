//! Request -> service (or an answer of our own), with the precedence of the Kubernetes Gateway API: exact host before wildcard before none; exact
//! path before longest prefix; a method before none; then file order.

use super::{RequestView, RouteAnswer, RouteId, ServiceId};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

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
    /// This path and everything below it, by whole segments: `/a` matches `/a` and `/a/b`, not `/ab`. Slashes at its end
    /// do not matter; `/` matches everything, also the `*` of `OPTIONS *`.
    Prefix(Box<str>),
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    Service(ServiceId),
    Answer(Box<RouteAnswer>),
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub host: HostPattern,
    pub path: PathPattern,
    /// Empty: every method.
    pub methods: Box<[Box<str>]>,
    pub to: Destination,
}

/// A host longer than this is none (RFC 1035 section 2.3.4 allows 253): only routes for every host take it.
pub const MAX_HOST_LEN: usize = 255;

/// The routes of all services, ready for look-up: a hash look-up for the host and for each label of it, then one for
/// each `/` of the path not longer than the longest prefix. The number of routes does not matter.
#[derive(Debug, Default)]
pub struct RouteTable {
    routes: Vec<Route>,
    exact: Map<PathTable>,
    wildcard: Map<PathTable>,
    any: PathTable,
}

/// Positions in the routes that share host and path: those that name methods first, then in file order.
type Candidates = Vec<usize>;

#[derive(Debug, Default)]
struct PathTable {
    exact: Map<Candidates>,
    /// Keys without slashes at their end: `/` is the empty one.
    prefix: Map<Candidates>,
    longest_prefix: usize,
}

impl RouteTable {
    /// `routes` in file order.
    pub fn new(routes: Vec<Route>) -> Self {
        let mut table = Self::default();
        for (index, route) in routes.iter().enumerate() {
            let paths = match &route.host {
                HostPattern::Any => &mut table.any,
                HostPattern::Exact(host) => table.exact.entry(host_key(host)).or_default(),
                HostPattern::Wildcard(suffix) => table.wildcard.entry(host_key(suffix)).or_default(),
            };
            let candidates = paths.candidates(&route.path);
            let at = if route.methods.is_empty() {
                candidates.len()
            } else {
                candidates.partition_point(|&other| routes.get(other).is_some_and(|route| !route.methods.is_empty()))
            };
            candidates.insert(at, index);
        }
        table.routes = routes;
        table
    }

    /// All routes, in file order.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// The most specific route that matches; `None`: no route (404). A dot at the end of the host does not matter. Where
    /// host and path match but no method does, the search goes on with less specific ones.
    pub fn find(&self, request: &RequestView<'_>) -> Option<(RouteId, &Route)> {
        let mut buffer = [0; MAX_HOST_LEN];
        if let Some(host) = lowercase(request.host, &mut buffer) {
            if let Some(route) = self.exact.get(host).and_then(|paths| self.find_path(paths, request)) {
                return Some(route);
            }
            if !self.wildcard.is_empty() {
                let dots = memchr::memchr_iter(b'.', host).filter(|&dot| dot > 0);
                for suffix in dots.filter_map(|dot| host.get(dot + 1..)) {
                    if let Some(route) = self
                        .wildcard
                        .get(suffix)
                        .and_then(|paths| self.find_path(paths, request))
                    {
                        return Some(route);
                    }
                }
            }
        }
        self.find_path(&self.any, request)
    }

    fn find_path(&self, paths: &PathTable, request: &RequestView<'_>) -> Option<(RouteId, &Route)> {
        let path = request.path.as_bytes();
        let by_method = |candidates: &Candidates| self.find_method(candidates, request.method);
        if let Some(route) = paths.exact.get(path).and_then(by_method) {
            return Some(route);
        }
        let whole = (path.len() <= paths.longest_prefix).then_some(path);
        // Also the slash just after the longest prefix ends one.
        let upper = path.get(..=paths.longest_prefix).unwrap_or(path);
        let parents = memchr::memrchr_iter(b'/', upper).filter_map(|slash| path.get(..slash));
        let root = path.first().is_none_or(|&first| first != b'/').then_some(&b""[..]);
        whole
            .into_iter()
            .chain(parents)
            .chain(root)
            .find_map(|prefix| paths.prefix.get(prefix).and_then(by_method))
    }

    fn find_method(&self, candidates: &Candidates, method: &str) -> Option<(RouteId, &Route)> {
        candidates
            .iter()
            .filter_map(|&index| Some((RouteId(u32::try_from(index).ok()?), self.routes.get(index)?)))
            .find(|(_, route)| route.methods.is_empty() || route.methods.iter().any(|one| **one == *method))
    }
}

impl PathTable {
    fn candidates(&mut self, path: &PathPattern) -> &mut Candidates {
        match path {
            PathPattern::Exact(path) => self.exact.entry(path.as_bytes().into()).or_default(),
            PathPattern::Prefix(path) => {
                let key = path.trim_end_matches('/').as_bytes();
                self.longest_prefix = self.longest_prefix.max(key.len());
                self.prefix.entry(key.into()).or_default()
            }
        }
    }
}

fn host_key(host: &str) -> Box<[u8]> {
    host.strip_suffix('.')
        .unwrap_or(host)
        .to_ascii_lowercase()
        .into_bytes()
        .into()
}

/// `host` in lowercase, without a dot at its end, in `buffer`; `None` if it is empty or too long.
fn lowercase<'b>(host: &str, buffer: &'b mut [u8; MAX_HOST_LEN]) -> Option<&'b [u8]> {
    let host = host.strip_suffix('.').unwrap_or(host).as_bytes();
    let lower = buffer.get_mut(..host.len()).filter(|lower| !lower.is_empty())?;
    // In one pass: copying first and reading back at once would wait for the stores.
    lower
        .iter_mut()
        .zip(host)
        .for_each(|(to, from)| *to = from.to_ascii_lowercase());
    Some(lower)
}

type Map<V> = HashMap<Box<[u8]>, V, BuildHasherDefault<KeyHasher>>;

/// A quick hash for the maps of this file, eight bytes a step (the step of rustc's FxHash). Their keys come from the
/// configuration alone, so that a hash which others can foresee costs a request nothing but one comparison more.
#[derive(Debug, Default)]
struct KeyHasher(u64);

impl KeyHasher {
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, mut rest) = bytes.as_chunks::<8>();
        for &word in words {
            self.add(u64::from_le_bytes(word));
        }
        if let Some((&word, after)) = rest.split_first_chunk::<4>() {
            self.add(u64::from(u32::from_le_bytes(word)));
            rest = after;
        }
        for &byte in rest {
            self.add(u64::from(byte));
        }
    }

    fn write_usize(&mut self, length: usize) {
        self.add(length as u64);
    }

    fn finish(&self) -> u64 {
        // The map takes its position from the bottom, where a product is weak.
        self.0 ^ (self.0 >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::tests::{Lines, request};
    use super::*;
    use proptest::prelude::*;

    fn route(host: &str, path: &str, methods: &[&str], service: u32) -> Route {
        Route {
            host: match host.strip_prefix("*.") {
                Some(suffix) => HostPattern::Wildcard(suffix.into()),
                None if host == "*" => HostPattern::Any,
                None => HostPattern::Exact(host.into()),
            },
            path: match path.strip_prefix("=") {
                Some(path) => PathPattern::Exact(path.into()),
                None => PathPattern::Prefix(path.into()),
            },
            methods: methods.iter().map(|&method| method.into()).collect(),
            to: Destination::Service(ServiceId(service)),
        }
    }

    fn service_of(route: &Route) -> u32 {
        match route.to {
            Destination::Service(service) => service.0,
            Destination::Answer(_) => panic!("{route:?}"),
        }
    }

    fn find(table: &RouteTable, method: &str, host: &str, path: &str) -> Option<u32> {
        let fields = Lines::default();
        let view = RequestView {
            method,
            host,
            path,
            ..request(&fields)
        };
        table.find(&view).map(|(_, route)| service_of(route))
    }

    #[test]
    fn precedence() {
        let table = RouteTable::new(vec![
            route("*", "/", &[], 0),
            route("*.example.com", "/", &[], 1),
            route("*.shop.example.com", "/", &[], 2),
            route("shop.example.com", "/", &[], 3),
            route("shop.example.com", "/checkout", &[], 4),
            route("shop.example.com", "/checkout/pay/", &[], 5),
            route("shop.example.com", "=/checkout", &["POST"], 6),
            route("shop.example.com", "/checkout", &["PUT"], 7),
            route("shop.example.com", "/checkout", &["PUT", "PATCH"], 8),
            route("api.example.com", "/v1", &["GET"], 9),
        ]);
        for (method, host, path, service) in [
            ("GET", "other.org", "/", 0),
            ("GET", "", "/x", 0),
            ("OPTIONS", "other.org", "*", 0),
            ("GET", "example.com", "/", 0),
            ("GET", "a.example.com", "/", 1),
            ("GET", "a.b.example.com", "/", 1),
            ("GET", ".example.com", "/", 0),
            ("GET", "a.shop.example.com", "/", 2),
            ("GET", "SHOP.Example.COM", "/", 3),
            ("GET", "shop.example.com.", "/", 3),
            ("GET", "shop.example.com..", "/", 0),
            ("GET", "shop.example.com", "/checkoutx", 3),
            ("GET", "shop.example.com", "/Checkout", 3),
            ("GET", "shop.example.com", "/checkout", 4),
            ("GET", "shop.example.com", "/checkout/", 4),
            ("GET", "shop.example.com", "/checkout/pay", 5),
            ("GET", "shop.example.com", "/checkout/pay/now", 5),
            ("GET", "shop.example.com", "/checkout/payment", 4),
            ("POST", "shop.example.com", "/checkout", 6),
            ("POST", "shop.example.com", "/checkout/", 4),
            ("PUT", "shop.example.com", "/checkout/x", 7),
            ("PATCH", "shop.example.com", "/checkout", 8),
            ("put", "shop.example.com", "/checkout", 4),
            // Host and path match, the method does not: on to the next less specific host.
            ("GET", "api.example.com", "/v1/x", 9),
            ("POST", "api.example.com", "/v1/x", 1),
        ] {
            assert_eq!(find(&table, method, host, path), Some(service), "{method} {host}{path}");
        }
        assert_eq!(find(&RouteTable::default(), "GET", "a", "/"), None);
        assert_eq!(
            find(&RouteTable::new(vec![route("a", "/b", &[], 0)]), "GET", "a", "/"),
            None
        );
    }

    #[test]
    fn ten_thousand_routes_of_one_host() {
        let table = RouteTable::new(
            (0..10_000)
                .map(|n| route("a.example", &format!("/s{n}"), &[], n))
                .collect(),
        );
        for n in [0, 1, 5_000, 9_999] {
            assert_eq!(find(&table, "GET", "a.example", &format!("/s{n}/x/y")), Some(n));
        }
        assert_eq!(find(&table, "GET", "a.example", "/s10000"), None);
        // Neither a long path nor a long host costs more than a short one.
        assert_eq!(find(&table, "GET", "a.example", &"/".repeat(60_000)), None);
        assert_eq!(find(&table, "GET", &"a.".repeat(30_000), "/s1"), None);
    }

    /// What the precedence says, word for word.
    fn naive(routes: &[Route], method: &str, host: &str, path: &str) -> Option<u32> {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let rank = |(index, route): (usize, &Route)| {
            let host_rank = match &route.host {
                HostPattern::Any => 0,
                HostPattern::Exact(exact) => (host == **exact).then_some(usize::MAX)?,
                HostPattern::Wildcard(suffix) => {
                    let below = host.strip_suffix(&**suffix)?.strip_suffix('.')?;
                    (!below.is_empty()).then_some(suffix.len() + 1)?
                }
            };
            let path_rank = match &route.path {
                PathPattern::Exact(exact) => (path == &**exact).then_some(usize::MAX)?,
                PathPattern::Prefix(prefix) => {
                    let prefix = prefix.trim_end_matches('/');
                    let below = path.strip_prefix(prefix)?;
                    (prefix.is_empty() || below.is_empty() || below.starts_with('/')).then_some(prefix.len())?
                }
            };
            let takes = route.methods.is_empty() || route.methods.iter().any(|one| **one == *method);
            takes.then_some((
                host_rank,
                path_rank,
                !route.methods.is_empty(),
                std::cmp::Reverse(index),
            ))
        };
        let best = routes.iter().enumerate().filter_map(rank).max()?;
        Some(service_of(&routes[best.3.0]))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn same_as_the_naive_search(
            patterns in prop::collection::vec((
                "(\\*|(\\*\\.)?[ab](\\.[ab]){0,2})",
                "=?/([ab]{1,2}/?){0,3}",
                prop::collection::vec(prop::sample::select(vec!["GET", "PUT"]), 0..2),
            ), 0..12),
            requests in prop::collection::vec((
                prop::sample::select(vec!["GET", "PUT", "POST"]),
                "(\\.?[abAB](\\.[abAB]?){0,3}\\.?)?",
                "(/[ab]{0,2}){0,4}|\\*",
            ), 1..20),
        ) {
            let routes: Vec<Route> = patterns
                .iter()
                .enumerate()
                .map(|(n, (host, path, methods))| route(host, path, methods, n as u32))
                .collect();
            let table = RouteTable::new(routes.clone());
            for (method, host, path) in &requests {
                prop_assert_eq!(
                    find(&table, method, host, path),
                    naive(&routes, method, host, path),
                    "{} {}{} in {:?}", method, host, path, routes
                );
            }
        }
    }
}

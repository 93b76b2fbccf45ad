//! All routes of all services, and those that no request could reach.

use super::{Context, MAX_ROUTES, text};
use crate::config::decode::List;
use crate::config::problem::{Path, shown};
use crate::config::schema::{self, Root};
use crate::config::snapshot::{self, RouteTimeouts, Timeouts};
use crate::routing::{Destination, HostPattern, PathPattern, Route, RouteTable, ServiceId, canonical_path};
use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Where a route stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The proxy's own, by position.
    Own(usize),
    /// Its service, and its position there.
    Of(usize, usize),
    /// A service without routes, which takes all.
    All(usize),
}

/// What a route is for, as it is written.
#[derive(Clone, Copy)]
pub(super) struct Matcher<'r> {
    pub host: &'r Option<String>,
    pub path: &'r Option<String>,
    pub path_prefix: &'r Option<String>,
    pub methods: &'r Option<List<String>>,
}

/// The places that take each method of one host and path; `None`: every method.
type ByMethod = HashMap<Option<Box<str>>, Place>;

/// Routes by what they match, so that finding an overlap costs one look-up a method.
#[derive(Default)]
struct Taken {
    places: HashMap<(String, String), ByMethod>,
}

impl Taken {
    /// The place of an earlier route that takes all that `route` would: where it is some of its methods, the order of the
    /// file decides. A route without methods is overlapped only by another without, since a method is preferred to none.
    fn insert(&mut self, route: &Route, place: Place) -> Option<Place> {
        let host = match &route.host {
            HostPattern::Any => String::new(),
            HostPattern::Exact(host) => format!("={host}"),
            HostPattern::Wildcard(host) => format!("*{host}"),
        };
        let path = match &route.path {
            PathPattern::Exact(path) => format!("={path}"),
            PathPattern::Prefix(path) => format!("*{path}"),
        };
        let methods = self.places.entry((host, path)).or_default();
        let wanted: Vec<Option<Box<str>>> = match &*route.methods {
            [] => vec![None],
            named => named.iter().cloned().map(Some).collect(),
        };
        let (mut first, mut reached) = (None, false);
        for method in wanted {
            match methods.entry(method) {
                Entry::Occupied(taken) => first = first.or(Some(*taken.get())),
                Entry::Vacant(free) => {
                    free.insert(place);
                    reached = true;
                }
            }
        }
        first.filter(|_| !reached)
    }
}

impl Context<'_> {
    /// Routes that lead to no service.
    fn own_routes(&mut self, routes: &List<schema::AnswerRoute>, taken: &mut Taken) -> Option<Box<[Route]>> {
        let path = Path::ROOT.key("routes");
        routes.compile(|index, route| {
            let here = path.index(index);
            let answer = self.route_answer(route, &here);
            let matcher = Matcher {
                host: &route.host,
                path: &route.path,
                path_prefix: &route.path_prefix,
                methods: &route.methods,
            };
            let route = self.route(matcher, Destination::Answer(Box::new(answer?)), &here)?;
            self.overlap(taken, &route, Place::Own(index), &here);
            Some(route)
        })
    }

    /// The table of all routes, in the order of the file.
    pub(super) fn routes(&mut self, root: &Root) -> Option<RouteTable> {
        let services_path = Path::ROOT.key("services");
        let services = root.services.get()?;
        let written: usize = services
            .iter()
            .map(|(_, service)| service.routes.as_ref().map_or(1, |routes| routes.len()))
            .fold(root.routes.len(), usize::saturating_add);
        if written > MAX_ROUTES {
            let message = format!("expected at most {MAX_ROUTES} routes over all services, found {written}");
            self.problems.add(&services_path, message);
            return None;
        }
        let mut taken = Taken::default();
        let own = self.own_routes(&root.routes, &mut taken);
        let per_service = services.compile(|index, service| {
            let here = services_path.index(index);
            self.routes_of(service, index, &here, &mut taken)
        })?;
        let all = own?.into_iter().chain(per_service.into_iter().flatten());
        Some(RouteTable::new(all.collect()))
    }

    fn routes_of(
        &mut self,
        service: &schema::Service,
        index: usize,
        path: &Path<'_>,
        taken: &mut Taken,
    ) -> Option<Box<[Route]>> {
        let id = ServiceId(u32::try_from(index).ok()?);
        let routes_path = path.key("routes");
        let Some(routes) = &service.routes else {
            // Absent, or wrong and reported: then it is not known what the service takes.
            if self.problems.any_below(&routes_path) {
                return None;
            }
            let everything = Route {
                host: HostPattern::Any,
                path: PathPattern::Prefix("/".into()),
                methods: Box::default(),
                to: Destination::Service(id),
            };
            self.overlap(taken, &everything, Place::All(index), path);
            return Some(Box::new([everything]));
        };
        if !self.count(routes, 1, MAX_ROUTES, "routes", &routes_path) {
            return None;
        }
        routes.compile(|position, route| {
            let here = routes_path.index(position);
            let matcher = Matcher {
                host: &route.host,
                path: &route.path,
                path_prefix: &route.path_prefix,
                methods: &route.methods,
            };
            let route = self.route(matcher, Destination::Service(id), &here)?;
            self.overlap(taken, &route, Place::Of(index, position), &here);
            Some(route)
        })
    }

    /// What routes say of time, parallel to the routes of the table; `pools`: by service and version.
    pub(super) fn route_timeouts(root: &Root, pools: &[snapshot::Service]) -> Box<[Option<RouteTimeouts>]> {
        let services = root.services.get().into_iter().flat_map(|services| services.iter());
        let of_service = services.zip(pools).flat_map(|((_, service), live)| {
            let written = service.routes.as_ref().map_or(vec![None], |routes| {
                routes
                    .iter()
                    .map(|(_, route)| timeouts(&route.timeouts, live))
                    .collect()
            });
            written.into_iter()
        });
        let own = root.routes.iter().map(|_| None);
        let all: Vec<Option<RouteTimeouts>> = own.chain(of_service).collect();
        if all.iter().all(Option::is_none) {
            return Box::default();
        }
        all.into()
    }

    fn overlap(&mut self, taken: &mut Taken, route: &Route, place: Place, path: &Path<'_>) {
        let Some(first) = taken.insert(route, place) else {
            return;
        };
        let (own, services) = (Path::ROOT.key("routes"), Path::ROOT.key("services"));
        let (service, routes);
        let first = match first {
            Place::Own(index) => own.index(index),
            Place::All(index) => services.index(index),
            Place::Of(index, position) => {
                service = services.index(index);
                routes = service.key("routes");
                routes.index(position)
            }
        };
        let (line, _) = self.problems.position(&first);
        let message = match place {
            Place::All(_) => format!("no `routes`, so it would take every request; {first} (line {line}) does already"),
            Place::Own(_) | Place::Of(..) => format!("overlaps {first} (line {line}): the same host, path and method"),
        };
        self.problems.add(path, message);
    }

    pub(super) fn route(&mut self, route: Matcher<'_>, to: Destination, path: &Path<'_>) -> Option<Route> {
        let host = match route.host {
            None => Some(HostPattern::Any),
            Some(host) => self.host_pattern(host, &path.key("host")),
        };
        let pattern = match (route.path, route.path_prefix) {
            (None, None) => Some(PathPattern::Prefix("/".into())),
            (Some(exact), None) => self
                .route_path(exact, &path.key("path"))
                .map(|p| PathPattern::Exact(p.into())),
            (None, Some(prefix)) => self.route_path(prefix, &path.key("path_prefix")).map(|p| {
                // By whole segments, so that `/a/` and `/a` are the same.
                let trimmed = p.trim_end_matches('/');
                PathPattern::Prefix(if trimmed.is_empty() { "/".into() } else { trimmed.into() })
            }),
            (Some(_), Some(_)) => {
                self.problems
                    .add(path, "`path` and `path_prefix` are given: expected only one of them");
                None
            }
        };
        let methods = match route.methods {
            None => Some(Box::default()),
            Some(methods) => self.methods(methods, &path.key("methods")),
        };
        // A part that is wrong is absent here, which would mean "every": such a route is not compared with others.
        let known = !self.problems.any_below(path);
        known.then_some(Route {
            host: host?,
            path: pattern?,
            methods: methods?,
            to,
        })
    }

    /// A path that requests are compared with.
    pub(super) fn route_path<'t>(&mut self, written: &'t str, path: &Path<'_>) -> Option<&'t str> {
        let problem = match canonical_path(self.any_path(written, path)?) {
            Ok(Cow::Borrowed(good)) => return Some(good),
            Ok(Cow::Owned(canonical)) => {
                let message = format!(
                    "expected a path in canonical form, which requests are compared in, found {}",
                    shown(written)
                );
                (message, Some(canonical))
            }
            Err(fault) => (format!("{fault}: no request has it, found {}", shown(written)), None),
        };
        self.problems.add_with(path, problem.0, problem.1);
        None
    }

    /// A path as it may stand in a request.
    pub(super) fn any_path<'t>(&mut self, written: &'t str, path: &Path<'_>) -> Option<&'t str> {
        if text::is_path(written) {
            return Some(written);
        }
        let meant = format!("/{written}");
        let suggestion = (!written.starts_with('/') && text::is_path(&meant)).then_some(meant);
        let message = format!(
            "expected a path that begins with `/`, in visible ASCII without `?` and `#`, found {}",
            shown(written)
        );
        self.problems.add_with(path, message, suggestion);
        None
    }

    fn host_pattern(&mut self, written: &str, path: &Path<'_>) -> Option<HostPattern> {
        let host = written.to_ascii_lowercase();
        if host == "*" {
            return Some(HostPattern::Any);
        }
        if let Some(suffix) = host.strip_prefix("*.")
            && text::is_host_name(suffix)
        {
            return Some(HostPattern::Wildcard(suffix.into()));
        }
        if text::is_host_name(&host) || text::is_bracketed_v6(&host) {
            return Some(HostPattern::Exact(host.into()));
        }
        let without_scheme = host.split_once("://").map_or(host.as_str(), |(_, rest)| rest);
        let bare = without_scheme
            .split(['/', ':'])
            .next()
            .unwrap_or_default()
            .trim_end_matches('.');
        let suggestion = (bare != host && text::is_host_name(bare)).then(|| bare.to_owned());
        let message = format!(
            "expected a host without scheme and port, or `*.` and a domain, found {}",
            shown(written)
        );
        self.problems.add_with(path, message, suggestion);
        None
    }
}

fn timeouts(written: &schema::RouteTimeouts, service: &snapshot::Service) -> Option<RouteTimeouts> {
    let schema::RouteTimeouts {
        request,
        first_byte,
        idle,
    } = written;
    if request.is_none() && first_byte.is_none() && idle.is_none() {
        return None;
    }
    let attempt = |pool: &snapshot::Pool| Timeouts {
        connect: pool.timeouts.connect,
        first_byte: first_byte.map_or(pool.timeouts.first_byte, |period| period.0),
        idle: idle.map_or(pool.timeouts.idle, |period| period.0),
    };
    Some(RouteTimeouts {
        request: request.map(|period| period.0),
        attempts: service.pools.iter().map(attempt).collect(),
    })
}

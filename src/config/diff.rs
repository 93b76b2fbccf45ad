//! What changed between two configurations, and what of it needs a restart.

use super::snapshot::{Listener, Snapshot};
use crate::routing::{Affinity, Condition, Destination, Operator, Policy, Route, Rule, SegmentId, Target};
use std::collections::HashMap;

/// What changed. Empty lists: nothing of that kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Diff {
    /// Keys whose new value holds only after a restart: `listeners[0].address`, `threads`.
    pub restart_required: Vec<String>,
    /// Services by name, in the order of the new file.
    pub services_added: Vec<String>,
    /// Services by name, in the order of the old file.
    pub services_removed: Vec<String>,
    /// Services of both files that differ, in the order of the new one.
    pub services_changed: Vec<ServiceChange>,
    /// Segments by name that were added, removed or changed.
    pub segments_changed: Vec<String>,
    /// Other keys at the top of the file that changed and hold at once: `limits`, `kill`.
    pub settings_changed: Vec<String>,
}

/// What differs in a service of both files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceChange {
    pub name: String,
    /// The weights in the file: only then does a reload touch the weights in force. Also when versions come or go.
    pub weights: bool,
    /// Endpoints or how they are used, of any version.
    pub pools: bool,
    /// Routes, versions, roles, rules, affinity, fallback, mirror, rescue, `kill`, `expose_version`, header rules, limits, `upgrades`.
    pub routing: bool,
    /// The plan of its rollout: its candidate, steps, checks, or anything else of it.
    pub rollout: bool,
}

impl Diff {
    /// Whether the two configurations do the same.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What `new` changes in `old`. Both are compiled from files; what moved at run time is not looked at.
pub fn diff(old: &Snapshot, new: &Snapshot) -> Diff {
    let mut diff = Diff {
        restart_required: restart_required(old, new),
        settings_changed: settings_changed(old, new),
        segments_changed: segments_changed(&old.policy, &new.policy),
        ..Diff::default()
    };
    let old_by_name: HashMap<&str, usize> = old
        .policy
        .services
        .iter()
        .enumerate()
        .map(|(index, service)| (&*service.name, index))
        .collect();
    let (old_routes, new_routes) = (routes_by_service(old), routes_by_service(new));
    for (index, service) in new.policy.services.iter().enumerate() {
        let Some(&before) = old_by_name.get(&*service.name) else {
            diff.services_added.push(service.name.to_string());
            continue;
        };
        let routes_differ = old_routes.get(before) != new_routes.get(index);
        if let Some(change) = service_change((old, before), (new, index), routes_differ) {
            diff.services_changed.push(change);
        }
    }
    let new_names: std::collections::HashSet<&str> = new.policy.services.iter().map(|s| &*s.name).collect();
    let removed = old
        .policy
        .services
        .iter()
        .filter(|service| !new_names.contains(&*service.name));
    diff.services_removed = removed.map(|service| service.name.to_string()).collect();
    diff
}

/// The keys whose value in `new` holds only after a restart of a process that started with `old`.
pub fn restart_required(old: &Snapshot, new: &Snapshot) -> Vec<String> {
    let mut keys = Vec::new();
    let pairs = listener_pairs(old, new);
    if old.listeners.len() != new.listeners.len() {
        keys.push("listeners".to_owned());
    } else {
        let unknown = pairs.iter().enumerate().filter(|(_, (before, _))| before.is_none());
        keys.extend(unknown.map(|(index, _)| format!("listeners[{index}].address")));
    }
    let log_path = |snapshot: &Snapshot| snapshot.access_log.as_ref().map(|log| log.path.clone());
    let fixed = [
        ("threads", old.threads != new.threads),
        ("access_log.path", log_path(old) != log_path(new)),
        ("admin.address", old.admin.address != new.admin.address),
        ("admin.socket", old.admin.socket != new.admin.socket),
        ("admin.socket_mode", old.admin.socket_mode != new.admin.socket_mode),
        ("state_dir", old.state_dir != new.state_dir),
    ];
    keys.extend(
        fixed
            .into_iter()
            .filter(|(_, differs)| *differs)
            .map(|(key, _)| key.to_owned()),
    );
    keys
}

/// Each listener of `new`, with the one of `old` that has its address: by preference at the same place, and none twice. Its
/// socket goes by that, and not by its place.
fn listener_pairs<'s>(old: &'s Snapshot, new: &'s Snapshot) -> Vec<(Option<&'s Listener>, &'s Listener)> {
    let at_its_place = |index: usize, listener: &Listener| {
        let before = old.listeners.get(index);
        before.filter(|before| before.address == listener.address)
    };
    let mut others: Vec<&Listener> = old.listeners.iter().collect();
    let stay = |(index, before): (usize, &Listener)| {
        new.listeners
            .get(index)
            .is_some_and(|now| now.address == before.address)
    };
    let mut places = old.listeners.iter().enumerate();
    others.retain(|_| !places.next().is_some_and(stay));
    let pair = |(index, now): (usize, &'s Listener)| {
        let before = at_its_place(index, now).or_else(|| {
            let found = others.iter().position(|before| before.address == now.address)?;
            Some(others.swap_remove(found))
        });
        (before, now)
    };
    new.listeners.iter().enumerate().map(pair).collect()
}

fn settings_changed(old: &Snapshot, new: &Snapshot) -> Vec<String> {
    let sample = |snapshot: &Snapshot| snapshot.access_log.as_ref().map(|log| log.sample);
    // Another number or address is a matter of a restart.
    let listeners_differ = listener_pairs(old, new)
        .iter()
        .any(|(before, now)| before.is_some_and(|before| before != *now));
    let settings = [
        ("listeners", listeners_differ),
        ("access_log.sample", sample(old) != sample(new)),
        ("trusted_proxies", old.trusted_proxies != new.trusted_proxies),
        ("forwarded", old.forwarded != new.forwarded),
        ("via", old.via != new.via),
        ("kill", old.killed != new.killed),
        ("routes", own_routes(&old.policy) != own_routes(&new.policy)),
        ("limits", old.limits != new.limits),
        ("admin.token_file", old.admin.token_file != new.admin.token_file),
        ("admin.hosts", old.admin.hosts != new.admin.hosts),
    ];
    settings
        .into_iter()
        .filter(|(_, differs)| *differs)
        .map(|(key, _)| key.to_owned())
        .collect()
}

fn segments_changed(old: &Policy, new: &Policy) -> Vec<String> {
    let by_name: HashMap<&str, &Condition> = old.segments.iter().map(|s| (&*s.name, &s.when)).collect();
    let mut changed: Vec<String> = new
        .segments
        .iter()
        .filter(|segment| {
            let before = by_name.get(&*segment.name);
            !before.is_some_and(|before| same_condition((old, before), (new, &segment.when)))
        })
        .map(|segment| segment.name.to_string())
        .collect();
    let kept: std::collections::HashSet<&str> = new.segments.iter().map(|segment| &*segment.name).collect();
    let removed = old.segments.iter().filter(|segment| !kept.contains(&*segment.name));
    changed.extend(removed.map(|segment| segment.name.to_string()));
    changed
}

/// The routes that lead to no service.
fn own_routes(policy: &Policy) -> Vec<&Route> {
    let own = |route: &&Route| matches!(route.to, Destination::Answer(_));
    policy.routes.routes().iter().filter(own).collect()
}

/// The routes of each service, as texts that do not depend on where the service stands.
fn routes_by_service(snapshot: &Snapshot) -> Vec<Vec<String>> {
    let policy = &snapshot.policy;
    let mut routes = vec![Vec::new(); policy.services.len()];
    for (position, route) in policy.routes.routes().iter().enumerate() {
        let timeouts = snapshot.route_timeouts.get(position);
        let Destination::Service(service) = route.to else {
            continue;
        };
        let index = usize::try_from(service.0).unwrap_or(usize::MAX);
        if let Some(slot) = routes.get_mut(index) {
            let Route {
                host, path, methods, ..
            } = route;
            slot.push(format!(
                "{host:?} {path:?} {methods:?} {:?}",
                timeouts.and_then(Option::as_ref)
            ));
        }
    }
    routes
}

fn service_change(
    (old, before): (&Snapshot, usize),
    (new, after): (&Snapshot, usize),
    routes_differ: bool,
) -> Option<ServiceChange> {
    let (old_policy, new_policy) = (old.policy.services.get(before)?, new.policy.services.get(after)?);
    let (old_rest, new_rest) = (old.services.get(before)?, new.services.get(after)?);
    let versions = |service: &crate::routing::Service| -> Vec<(String, crate::routing::Role)> {
        service.versions.iter().map(|v| (v.name.to_string(), v.role)).collect()
    };
    let versions_differ = versions(old_policy) != versions(new_policy);
    let rules_differ = old_policy.rules.len() != new_policy.rules.len()
        || !old_policy
            .rules
            .iter()
            .zip(&new_policy.rules)
            .all(|(a, b)| same_rule((&old.policy, a), (&new.policy, b)));
    let change = ServiceChange {
        name: new_policy.name.to_string(),
        weights: old_rest.split != new_rest.split || versions_differ,
        pools: old_rest.pools != new_rest.pools || versions_differ,
        routing: routes_differ
            || versions_differ
            || rules_differ
            || old_policy.fallback != new_policy.fallback
            || old_rest.killed != new_rest.killed
            || old_rest.kill_drain != new_rest.kill_drain
            || old_rest.expose_version != new_rest.expose_version
            || old_rest.rescue != new_rest.rescue
            || old_rest.rewrites != new_rest.rewrites
            || old_rest.limits != new_rest.limits
            || old_rest.upgrades != new_rest.upgrades
            || old_rest.mirror != new_rest.mirror
            || !same_affinity(old_policy.affinity.as_ref(), new_policy.affinity.as_ref()),
        rollout: old_rest.rollout != new_rest.rollout,
    };
    (change.weights || change.pools || change.routing || change.rollout).then_some(change)
}

fn same_affinity(a: Option<&Affinity>, b: Option<&Affinity>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => {
            (&a.key, &a.salt, a.hash, &a.cookie, a.keep) == (&b.key, &b.salt, b.hash, &b.cookie, b.keep)
        }
        _ => false,
    }
}

/// Whether two rules do the same, given that their services have the same versions.
fn same_rule((old, a): (&Policy, &Rule), (new, b): (&Policy, &Rule)) -> bool {
    let target = match (&a.target, &b.target) {
        (Target::Version(a), Target::Version(b)) => a == b,
        (Target::Split(a), Target::Split(b)) => a == b,
        _ => false,
    };
    let from = match (a.from, b.from) {
        (None, None) => true,
        (Some(a), Some(b)) => segment_name(old, a) == segment_name(new, b),
        _ => false,
    };
    a.name == b.name && target && from && same_condition((old, &a.when), (new, &b.when))
}

fn segment_name(policy: &Policy, id: SegmentId) -> Option<&str> {
    let index = usize::try_from(id.0).ok()?;
    policy.segments.get(index).map(|segment| &*segment.name)
}

/// Whether two conditions are the same, segments by name. The recursion is bounded by the depth of the file.
fn same_condition((old, a): (&Policy, &Condition), (new, b): (&Policy, &Condition)) -> bool {
    let all = |a: &[Condition], b: &[Condition]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_condition((old, a), (new, b)))
    };
    match (a, b) {
        (
            Condition::Test { source, operator },
            Condition::Test {
                source: other_source,
                operator: other_operator,
            },
        ) => source == other_source && same_operator(operator, other_operator),
        (Condition::ClientIp(a), Condition::ClientIp(b)) => a == b,
        (Condition::Segment(a), Condition::Segment(b)) => segment_name(old, *a) == segment_name(new, *b),
        (Condition::Any(a), Condition::Any(b)) | (Condition::All(a), Condition::All(b)) => all(a, b),
        (Condition::Not(a), Condition::Not(b)) => same_condition((old, a), (new, b)),
        _ => false,
    }
}

fn same_operator(a: &Operator, b: &Operator) -> bool {
    match (a, b) {
        (Operator::Equals(a), Operator::Equals(b))
        | (Operator::StartsWith(a), Operator::StartsWith(b))
        | (Operator::EndsWith(a), Operator::EndsWith(b))
        | (Operator::Contains(a), Operator::Contains(b)) => a == b,
        (Operator::In(a), Operator::In(b)) => a == b,
        (Operator::Matches(a), Operator::Matches(b)) => a.as_str() == b.as_str(),
        (Operator::Exists(a), Operator::Exists(b)) => a == b,
        (Operator::GreaterThan(a), Operator::GreaterThan(b)) | (Operator::LessThan(a), Operator::LessThan(b)) => a == b,
        _ => false,
    }
}

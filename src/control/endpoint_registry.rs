//! Live pools across publications: what did not change keeps its health, its ejections and its counters.

use super::resolver::Resolved;
use super::tls::TlsFiles;
use crate::config::snapshot::Host;
use crate::config::{Snapshot, snapshot};
use crate::routing::Role;
use crate::shared::{Endpoint, EndpointTls, Pool, Transport};
use rustls::pki_types::ServerName;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

/// The pools of the last publication, by service and version. For the writer alone.
pub struct EndpointRegistry {
    threads: usize,
    pools: HashMap<(Box<str>, Box<str>), Arc<Pool>>,
}

impl EndpointRegistry {
    /// `threads`: worker threads of the data plane.
    pub fn new(threads: usize) -> Self {
        Self {
            threads,
            pools: HashMap::new(),
        }
    }

    /// The pools of a snapshot, parallel to its services and their versions. Pools of versions that left are forgotten.
    pub fn pools(&mut self, snapshot: &Snapshot, resolved: &Resolved, tls: &TlsFiles) -> Box<[Box<[Arc<Pool>]>]> {
        let mut next = HashMap::new();
        let services = snapshot.policy.services.iter().zip(&snapshot.services);
        let pools = services
            .map(|(service, settings)| {
                let versions = service.versions.iter().zip(&settings.pools);
                versions
                    .map(|(version, spec)| {
                        let pool = self.pool((&service.name, &version.name), version.role, spec, resolved, tls);
                        next.insert((service.name.clone(), version.name.clone()), Arc::clone(&pool));
                        pool
                    })
                    .collect()
            })
            .collect();
        self.pools = next;
        pools
    }

    /// The pool of one version, remembered until [`Self::pools`] does without it. The same `Arc` if nothing changed; else a
    /// new one with the old endpoints, as far as label, address, weight and the way to connect are the same. A version that has endpoints keeps
    /// them until a name of its new list resolves: a pool that served is never emptied.
    pub fn pool(
        &mut self,
        (service, version): (&str, &str),
        role: Role,
        spec: &snapshot::Pool,
        resolved: &Resolved,
        tls: &TlsFiles,
    ) -> Arc<Pool> {
        let name = (Box::from(service), Box::from(version));
        let before = self.pools.get(&name);
        let owner = format!("{service}/{version}");
        let assumed_healthy = role == Role::Stable;
        let new = |written: &snapshot::Endpoint, address| {
            Endpoint::new(
                &*owner,
                written.label.clone(),
                address,
                written.weight,
                assumed_healthy,
                self.threads,
            )
            .over(transport(spec, written, address, tls))
        };
        let mut endpoints = endpoints(before, spec, resolved, new);
        if let Some(before) = before
            && endpoints.is_empty()
        {
            endpoints.extend(before.endpoints.iter().map(Arc::clone));
            if *before.spec != *spec && !endpoints.is_empty() {
                tracing::error!(
                    version = owner,
                    "no name of the new endpoints resolves: the ones before are kept"
                );
            }
        }
        if let Some(before) = before {
            let same = before.role() == role
                && *before.spec == *spec
                && before.endpoints.len() == endpoints.len()
                && before.endpoints.iter().zip(&endpoints).all(|(a, b)| Arc::ptr_eq(a, b));
            if same {
                return Arc::clone(before);
            }
        }
        let spec = match before {
            Some(before) if *before.spec == *spec => Arc::clone(&before.spec),
            _ => Arc::new(spec.clone()),
        };
        let pool = Arc::new(Pool::new(spec, endpoints.into(), role, self.threads));
        self.pools.insert(name, Arc::clone(&pool));
        pool
    }
}

/// One endpoint an address, in the file's order, each label with each address once.
fn endpoints(
    before: Option<&Arc<Pool>>,
    spec: &snapshot::Pool,
    resolved: &Resolved,
    new: impl Fn(&snapshot::Endpoint, SocketAddr) -> Endpoint,
) -> Vec<Arc<Endpoint>> {
    // An endpoint is also how connections to it are made: idle ones of before are of no use to another way.
    let way = |spec: &snapshot::Pool| (spec.tls.clone(), spec.send_proxy_protocol, spec.http2);
    let known: HashMap<(&str, SocketAddr), &Arc<Endpoint>> = before
        .iter()
        .filter(|pool| way(&pool.spec) == way(spec))
        .flat_map(|pool| pool.endpoints.iter())
        .map(|endpoint| ((&*endpoint.label, endpoint.address), endpoint))
        .collect();
    let mut seen = HashSet::new();
    let mut endpoints = Vec::with_capacity(spec.endpoints.len());
    for written in &spec.endpoints {
        for &address in resolved.addresses(written) {
            if !seen.insert((&*written.label, address)) {
                continue;
            }
            endpoints.push(match known.get(&(&*written.label, address)) {
                Some(known) if known.weight == written.weight => Arc::clone(known),
                Some(known) => Arc::new(known.reweighted(written.weight)),
                None => Arc::new(new(written, address)),
            });
        }
    }
    endpoints
}

/// How connections to an endpoint are made. Without `sni` its host is asked for and checked: an address as such, whatever
/// name resolved to it.
fn transport(spec: &snapshot::Pool, written: &snapshot::Endpoint, address: SocketAddr, tls: &TlsFiles) -> Transport {
    let name = |spec: &snapshot::PoolTls| {
        let name = match (&spec.sni, &written.host) {
            (Some(name), _) | (None, Host::Name(name)) => ServerName::try_from(name.to_string()).ok(),
            (None, Host::Address(_)) => None,
        };
        name.unwrap_or_else(|| ServerName::from(address.ip()))
    };
    Transport {
        send_proxy_protocol: spec.send_proxy_protocol,
        http2: spec.http2,
        tls: spec.tls.as_ref().map(|spec| EndpointTls {
            settings: tls.pool(spec),
            name: name(spec),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::resolver::tests::pool as pool_spec;
    use crate::opening::ProxyVersion;
    use std::time::Duration;

    fn spec(endpoints: &[(&str, u32)]) -> snapshot::Pool {
        let labels: Vec<&str> = endpoints.iter().map(|&(label, _)| label).collect();
        let mut spec = pool_spec(&labels);
        for (endpoint, &(_, weight)) in spec.endpoints.iter_mut().zip(endpoints) {
            endpoint.weight = weight;
        }
        spec
    }

    fn pool(registry: &mut EndpointRegistry, role: Role, spec: &snapshot::Pool) -> Arc<Pool> {
        let resolved = Resolved::literals(&spec.endpoints);
        registry.pool(("shop", "v1"), role, spec, &resolved, &TlsFiles::default())
    }

    #[test]
    fn an_unchanged_pool_stays_the_same() {
        let mut registry = EndpointRegistry::new(2);
        let spec = spec(&[("127.0.0.1:1", 1), ("127.0.0.1:2", 2)]);
        let first = pool(&mut registry, Role::Stable, &spec);
        assert_eq!(first.endpoints.len(), 2);
        assert!(Arc::ptr_eq(&first, &pool(&mut registry, Role::Stable, &spec.clone())));
    }

    #[test]
    fn endpoints_outlive_a_change_beside_them() {
        let mut registry = EndpointRegistry::new(2);
        let first = pool(
            &mut registry,
            Role::Canary,
            &spec(&[("127.0.0.1:1", 1), ("127.0.0.1:2", 2)]),
        );
        let in_flight = first.endpoints[1].begin(0);
        let mut changed = spec(&[("127.0.0.1:3", 1), ("127.0.0.1:2", 2)]);
        changed.timeouts.idle = Duration::from_secs(5);
        let second = pool(&mut registry, Role::Canary, &changed);
        assert!(!Arc::ptr_eq(&first, &second));
        assert_eq!(second.spec.timeouts.idle, Duration::from_secs(5));
        assert!(Arc::ptr_eq(&first.endpoints[1], &second.endpoints[1]));
        assert_eq!(second.endpoints[1].in_flight(), 1);
        assert!(
            !second.endpoints[0].healthy(),
            "a canary's new endpoint must show itself"
        );
        drop(in_flight);
        assert_eq!(second.endpoints[1].in_flight(), 0);
    }

    #[test]
    fn a_change_of_role_or_weight_keeps_what_is_known() {
        let mut registry = EndpointRegistry::new(1);
        let first = pool(&mut registry, Role::Canary, &spec(&[("127.0.0.1:1", 1)]));
        first.endpoints[0].probe_ended(None, &first.spec.health_check, 0, 1);
        let stable = pool(&mut registry, Role::Stable, &spec(&[("127.0.0.1:1", 1)]));
        assert_eq!(stable.role(), Role::Stable);
        assert!(Arc::ptr_eq(&first.endpoints[0], &stable.endpoints[0]));
        let heavier = pool(&mut registry, Role::Canary, &spec(&[("127.0.0.1:1", 7)]));
        assert!(heavier.usable(1), "it was probed under its old weight");
        assert_eq!(heavier.endpoints[0].weight, 7);
    }

    #[test]
    fn another_way_to_connect_is_another_endpoint() {
        let mut registry = EndpointRegistry::new(1);
        let plain = spec(&[("127.0.0.1:1", 1)]);
        let proxied = snapshot::Pool {
            send_proxy_protocol: Some(ProxyVersion::V1),
            ..plain.clone()
        };
        let first = pool(&mut registry, Role::Stable, &plain);
        let second = pool(&mut registry, Role::Stable, &proxied);
        assert!(!Arc::ptr_eq(&first.endpoints[0], &second.endpoints[0]));
        assert_eq!(
            second.endpoints[0].transport.send_proxy_protocol,
            Some(ProxyVersion::V1)
        );
        let heavier = snapshot::Pool {
            endpoints: spec(&[("127.0.0.1:1", 3)]).endpoints,
            ..proxied
        };
        let third = pool(&mut registry, Role::Stable, &heavier);
        assert_eq!(
            third.endpoints[0].transport.send_proxy_protocol,
            Some(ProxyVersion::V1),
            "kept with another weight"
        );
    }

    #[test]
    fn a_repeated_endpoint_counts_once() {
        let mut registry = EndpointRegistry::new(1);
        let pool = pool(
            &mut registry,
            Role::Stable,
            &spec(&[("127.0.0.1:1", 1), ("127.0.0.1:1", 1)]),
        );
        assert_eq!(pool.endpoints.len(), 1);
    }

    #[test]
    fn a_pool_that_served_is_not_emptied_by_names_that_do_not_resolve() {
        let mut registry = EndpointRegistry::new(1);
        let first = pool(&mut registry, Role::Stable, &spec(&[("127.0.0.1:1", 1)]));
        let names = spec(&[("app:80", 1)]);
        for _ in 0..2 {
            let kept = registry.pool(
                ("shop", "v1"),
                Role::Stable,
                &names,
                &Resolved::default(),
                &TlsFiles::default(),
            );
            assert_eq!(kept.endpoints.len(), 1);
            assert!(Arc::ptr_eq(&kept.endpoints[0], &first.endpoints[0]));
        }
        let resolved = pool(&mut registry, Role::Stable, &spec(&[("app:80", 1), ("127.0.0.1:2", 1)]));
        let labels: Vec<&str> = resolved.endpoints.iter().map(|endpoint| &*endpoint.label).collect();
        assert_eq!(labels, ["127.0.0.1:2"]);
        let new = registry.pool(
            ("shop", "v2"),
            Role::Canary,
            &names,
            &Resolved::default(),
            &TlsFiles::default(),
        );
        assert!(new.endpoints.is_empty(), "what never served has nothing to keep");
    }

    #[test]
    fn what_left_is_forgotten() {
        let mut registry = EndpointRegistry::new(1);
        let spec = spec(&[("127.0.0.1:1", 1)]);
        let gone = Arc::downgrade(&pool(&mut registry, Role::Stable, &spec));
        assert!(gone.upgrade().is_some());
        let empty = crate::control::resolver::tests::snapshot(&[]);
        assert_eq!(
            registry.pools(&empty, &Resolved::default(), &TlsFiles::default()).len(),
            0
        );
        assert!(gone.upgrade().is_none());
    }

    #[test]
    fn pools_run_parallel_to_services_and_versions() {
        let mut registry = EndpointRegistry::new(1);
        let snapshot = crate::control::resolver::tests::snapshot(&["127.0.0.1:1", "127.0.0.1:2"]);
        let (resolved, tls) = (
            Resolved::literals(&snapshot.services[0].pools[0].endpoints),
            TlsFiles::default(),
        );
        let pools = registry.pools(&snapshot, &resolved, &tls);
        assert_eq!((pools.len(), pools[0].len(), pools[0][0].endpoints.len()), (1, 1, 2));
        let again = registry.pools(&snapshot, &resolved, &tls);
        assert!(Arc::ptr_eq(&pools[0][0], &again[0][0]));
    }
}

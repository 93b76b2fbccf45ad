//! What a publication is made of: the snapshot's names, resolved, and the live parts of what was in force before.

use super::cookie_key::Keeper;
use super::endpoint_registry::EndpointRegistry;
use super::listeners::listeners;
use super::resolver::Resolver;
use super::store::Store;
use super::tls::TlsFiles;
use crate::config::{Snapshot, snapshot};
use crate::rollout::HeaderMetric;
use crate::routing::{Rule, Service, Version};
use crate::runtime::{self, State};
use crate::shared::{
    Departed, Evidence, InForce, MirrorStats, Pool, ServiceInForce, ServiceLimits, VersionInForce, VersionStats,
};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// How long a publication waits for names that were never looked up.
pub const LOOKUP_BOUND: Duration = Duration::from_secs(2);

/// What a publication is made with, and what it keeps of the one before.
pub struct Assembly {
    threads: usize,
    registry: EndpointRegistry,
    resolver: Arc<Resolver>,
    key: Keeper,
    tls: Arc<TlsFiles>,
    failures: Arc<Notify>,
}

impl Assembly {
    /// `threads`: worker threads of the data plane.
    pub fn new(threads: usize, resolver: Arc<Resolver>, key: Keeper) -> Self {
        Self {
            threads,
            registry: EndpointRegistry::new(threads),
            resolver,
            key,
            tls: Arc::default(),
            failures: Arc::default(),
        }
    }

    /// Rung at each failed request of a service with a rollout.
    pub fn failures(&self) -> Arc<Notify> {
        Arc::clone(&self.failures)
    }

    /// The certificate files in use.
    pub fn tls(&self) -> Arc<TlsFiles> {
        Arc::clone(&self.tls)
    }

    /// Where the key of affinity cookies is kept from now on.
    pub fn keep_key_in(&mut self, store: Store) {
        self.key.keep_in(store);
    }

    pub fn resolver(&self) -> Arc<Resolver> {
        Arc::clone(&self.resolver)
    }

    /// The next thing in force, with `snapshot` and `state` in it. What did not change is carried over from `previous`:
    /// health, ejections, counters, idle connections. Names never looked up are waited for, `bound` at the longest.
    pub async fn next(
        &mut self,
        snapshot: Arc<Snapshot>,
        state: Arc<State>,
        previous: Option<&InForce>,
        bound: Duration,
    ) -> InForce {
        let resolved = self.resolver.resolve_all(&snapshot, bound).await;
        if previous.is_none() {
            // Later snapshots are prepared where they are loaded: here nothing waits for a disk once something is served.
            for unusable in self.tls.prepare(&snapshot) {
                tracing::error!(%unusable, "what was right a moment ago is not any more");
            }
        }
        let pools = self.registry.pools(&snapshot, &resolved, &self.tls);
        let before = previous.map(LiveParts::of).unwrap_or_default();
        let services = snapshot.policy.services.iter().zip(&snapshot.services).zip(pools);
        let services = services.map(|((service, file), pools)| ServiceInForce {
            evidence: file
                .rollout
                .as_ref()
                .map(|plan| before.evidence(service, &plan.analysis.metrics, self)),
            mirror: file.mirror.as_ref().and_then(|mirror| {
                let version = service.versions.get(mirror.version.0 as usize)?;
                Some(before.mirror(service, &version.name, self.threads))
            }),
            ..before.carried((service, file), pools, self.threads)
        });
        InForce {
            generation: previous.map_or(1, |previous| previous.generation + 1),
            services: services.collect(),
            departed: previous
                .map(|previous| Departed::after(previous, &snapshot))
                .unwrap_or_default(),
            listeners: listeners(&snapshot, previous, &self.tls),
            traffic: runtime::traffic(&state, &snapshot),
            state,
            cookie_key: self.key.key(&snapshot).await,
            snapshot,
        }
    }
}

/// What was in force, by the names of services.
#[derive(Default)]
struct LiveParts<'p> {
    services: HashMap<&'p str, (&'p Service, &'p ServiceInForce, &'p [HeaderMetric])>,
    departed: &'p [Departed],
}

impl<'p> LiveParts<'p> {
    fn of(in_force: &'p InForce) -> Self {
        let metrics = in_force.snapshot.services.iter().map(|file| {
            let plan = file.rollout.as_ref();
            plan.map_or(&[][..], |plan| &plan.analysis.metrics)
        });
        let services = in_force.snapshot.policy.services.iter().zip(&*in_force.services);
        let services = services.zip(metrics);
        Self {
            services: services
                .map(|((service, live), metrics)| (&*service.name, (service, live, metrics)))
                .collect(),
            departed: &in_force.departed,
        }
    }

    /// The live part of `service` with its new pools: statistics and sequences of what stays, by name, go on.
    fn carried(
        &self,
        (service, rest): (&Service, &snapshot::Service),
        pools: Box<[Arc<Pool>]>,
        threads: usize,
    ) -> ServiceInForce {
        let before = self.services.get(&*service.name);
        let stats = |version: &Version| {
            let (policy, live, _) = before?;
            let same = |other: &Version| other.name == version.name && other.role == version.role;
            let index = policy.versions.iter().position(same)?;
            live.versions.get(index).map(|version| Arc::clone(&version.stats))
        };
        // Whatever its role: what was in flight on a canary that has become stable goes on.
        let revoked = |version: &Version| {
            let (policy, live, _) = before?;
            let index = policy.versions.iter().position(|other| other.name == version.name)?;
            live.versions.get(index).map(|version| Arc::clone(&version.revoked))
        };
        let returned = |version: &Version| {
            let mut departed = self.departed.iter();
            let same = departed.find(|left| left.service == service.name && left.version == version.name)?;
            Some(Arc::clone(&same.revoked))
        };
        let turn = |rule: &Rule| {
            let (policy, live, _) = before?;
            let index = policy.rules.iter().position(|other| other.name == rule.name)?;
            live.rule_turns.get(index).map(Arc::clone)
        };
        let versions = service
            .versions
            .iter()
            .zip(pools)
            .map(|(version, pool)| VersionInForce {
                stats: stats(version).unwrap_or_else(|| Arc::new(VersionStats::new(threads))),
                pool,
                revoked: revoked(version).or_else(|| returned(version)).unwrap_or_default(),
            });
        let none = ServiceLimits::default();
        let limits = before.map_or(&none, |(_, live, _)| &live.limits);
        let names = service.versions.iter().map(|version| &*version.name);
        ServiceInForce {
            limits: limits.next(&rest.limits, names),
            turn: before.map_or_else(Arc::default, |(_, live, _)| Arc::clone(&live.turn)),
            rule_turns: service
                .rules
                .iter()
                .map(|rule| turn(rule).unwrap_or_default())
                .collect(),
            versions: versions.collect(),
            evidence: None,
            mirror: None,
            rollbacks: before.map_or_else(Arc::default, |(_, live, _)| Arc::clone(&live.rollbacks)),
        }
    }

    /// The counts of copies of `service` for this version, which go on while it is the same.
    fn mirror(&self, service: &Service, version: &str, threads: usize) -> Arc<MirrorStats> {
        let before = self
            .services
            .get(&*service.name)
            .and_then(|(_, live, _)| live.mirror.as_ref());
        let carried = before.filter(|before| &*before.version == version).map(Arc::clone);
        carried.unwrap_or_else(|| Arc::new(MirrorStats::new(version, threads)))
    }

    /// What was collected of `service`; another version or number of the application, or one in another place, and it begins
    /// anew.
    fn evidence(&self, service: &Service, metrics: &[HeaderMetric], assembly: &Assembly) -> Arc<Evidence> {
        let same = |policy: &Service| {
            let known = policy.versions.iter().map(|version| (&version.name, version.role));
            known.eq(service.versions.iter().map(|version| (&version.name, version.role)))
        };
        let before = self.services.get(&*service.name);
        let before = before.filter(|(policy, _, known)| same(policy) && *known == metrics);
        let carried = before.and_then(|(_, live, _)| live.evidence.clone());
        let (versions, threads) = (service.versions.len(), assembly.threads);
        carried.unwrap_or_else(|| Arc::new(Evidence::new(versions, threads, metrics.len(), assembly.failures())))
    }
}

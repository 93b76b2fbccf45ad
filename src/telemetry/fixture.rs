//! A process in miniature for tests: what is in force without a file, a listener or a thread.

use crate::config::snapshot::{self, Snapshot};
use crate::routing::{CookieKey, Fallback, Policy, Role, Service, ServiceTraffic, Split, Traffic, Version, VersionId};
use crate::shared::{Endpoint, InForce, Pool, ServiceInForce, ServiceLimits, Shared, VersionInForce, VersionStats};
use std::sync::Arc;
use std::time::Duration;

/// A version: name, role, weight and the labels of its endpoints.
pub struct V<'a>(pub &'a str, pub Role, pub u32, pub &'a [&'a str]);

/// Services with their versions, in file order, and `threads` worker threads.
pub fn in_force(generation: u64, threads: usize, services: &[(&str, &[V<'_>])]) -> InForce {
    InForce {
        generation,
        snapshot: Arc::new(snapshot(services)),
        state: Arc::default(),
        traffic: Traffic {
            killed: false,
            services: services.iter().map(|(_, versions)| traffic(versions)).collect(),
        },
        cookie_key: CookieKey::new(&[7; 32]),
        listeners: Arc::default(),
        departed: Arc::default(),
        services: services
            .iter()
            .map(|(_, versions)| ServiceInForce {
                turn: Arc::default(),
                rule_turns: Box::default(),
                limits: ServiceLimits::default(),
                evidence: None,
                mirror: None,
                rollbacks: Arc::default(),
                versions: versions
                    .iter()
                    .map(|V(_, _, _, labels)| VersionInForce {
                        stats: Arc::new(VersionStats::new(threads)),
                        pool: Arc::new(live_pool(labels)),
                        revoked: Arc::default(),
                    })
                    .collect(),
            })
            .collect(),
    }
}

pub fn shared(first: InForce, threads: usize) -> Arc<Shared> {
    Arc::new(Shared::new(first, threads))
}

fn traffic(versions: &[V<'_>]) -> ServiceTraffic {
    ServiceTraffic {
        split: split(versions),
        killed: false,
        epoch: 0,
        ring: None,
        mirror: None,
    }
}

fn split(versions: &[V<'_>]) -> Split {
    let weights: Vec<u32> = versions.iter().map(|V(_, _, weight, _)| *weight).collect();
    Split::new(weights).unwrap()
}

fn live_pool(labels: &[&str]) -> Pool {
    let endpoint = |&label: &&str| {
        let address = ([127, 0, 0, 1], 9001).into();
        Arc::new(Endpoint::new("shop/v1", label, address, 1, true, 1))
    };
    let endpoints = labels.iter().map(endpoint).collect();
    Pool::new(Arc::new(pool(labels)), endpoints, Role::Stable, 1)
}

fn pool(labels: &[&str]) -> snapshot::Pool {
    snapshot::Pool {
        endpoints: labels
            .iter()
            .map(|&label| snapshot::Endpoint {
                label: label.into(),
                host: snapshot::Host::Address([127, 0, 0, 1].into()),
                port: 9001,
                weight: 1,
            })
            .collect(),
        balance: snapshot::Balance::default(),
        health_check: snapshot::HealthCheck {
            probe: snapshot::Probe::Connection,
            every: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            healthy_after: 2,
            unhealthy_after: 3,
        },
        ejection: snapshot::Ejection {
            consecutive_failures: 5,
            base: Duration::from_secs(30),
            at_most: 0.5,
        },
        timeouts: snapshot::Timeouts {
            connect: Duration::from_secs(1),
            first_byte: Duration::from_secs(30),
            idle: Duration::from_secs(60),
        },
        tls: None,
        http2: false,
        send_proxy_protocol: None,
    }
}

fn snapshot(services: &[(&str, &[V<'_>])]) -> Snapshot {
    Snapshot {
        listeners: Box::default(),
        threads: None,
        access_log: None,
        trusted_proxies: Box::default(),
        forwarded: false,
        via: false,
        limits: snapshot::Limits {
            max_connections: 1,
            header_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(60),
            keepalive_timeout: Duration::from_secs(60),
            connection_age: Duration::from_secs(3600),
            max_streams: 128,
            max_body: 1,
            max_head: 1,
            drain_timeout: Duration::ZERO,
            drain_delay: Duration::ZERO,
            upgrade_timeout: Duration::from_secs(30),
        },
        admin: snapshot::Admin::default(),
        state_dir: "state".into(),
        policy: Policy {
            services: services.iter().map(|(name, versions)| policy(name, versions)).collect(),
            ..Policy::default()
        },
        services: services
            .iter()
            .map(|(_, versions)| snapshot::Service {
                split: split(versions),
                killed: false,
                kill_drain: Some(Duration::from_secs(30)),
                mirror: None,
                rescue: None,
                rollout: None,
                expose_version: false,
                limits: snapshot::ServiceLimits::default(),
                upgrades: Box::default(),
                rewrites: versions.iter().map(|_| None).collect(),
                pools: versions.iter().map(|V(_, _, _, labels)| pool(labels)).collect(),
            })
            .collect(),
        killed: false,
        route_timeouts: Box::default(),
        unsupported: Box::default(),
        files: Box::default(),
    }
}

fn policy(name: &str, versions: &[V<'_>]) -> Service {
    let stable = versions.iter().position(|V(_, role, _, _)| *role == Role::Stable);
    Service {
        name: name.into(),
        versions: versions
            .iter()
            .map(|V(name, role, _, _)| Version {
                name: (*name).into(),
                role: *role,
            })
            .collect(),
        stable: VersionId(u32::try_from(stable.unwrap()).unwrap()),
        affinity: None,
        rules: Box::default(),
        fallback: Fallback::Stable,
    }
}

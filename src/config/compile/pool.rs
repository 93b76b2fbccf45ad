//! One pool: its endpoints, and how they are used.

use super::{Context, MAX_ENDPOINTS, text};
use crate::config::problem::{Path, shown};
use crate::config::schema::{self, EndpointText};
use crate::config::snapshot::{Balance, Ejection, Endpoint, HealthCheck, Host, Pool, Probe, Timeouts};
use crate::opening::ProxyVersion;
use std::collections::HashMap;
use std::time::Duration;

/// Below it, probes would be the load.
const SHORTEST_PROBE_INTERVAL: Duration = Duration::from_millis(10);

/// Bytes of the name of a service whose health is asked for: more than any has.
const SERVICE_NAME_MOST: usize = 127;

impl Context<'_> {
    pub(super) fn pool(&mut self, pool: &schema::Pool, path: &Path<'_>) -> Option<Pool> {
        let endpoints = self.endpoints(pool, &path.key("endpoints"));
        let health_check = self.health_check(pool, &path.key("health_check"));
        let http2 = self.speaks_http2(pool, &path.key("protocol"));
        let tls = self.pool_tls(pool, &path.key("tls"));
        Some(Pool {
            endpoints: endpoints?,
            balance: match pool.balance {
                schema::Balance::PowerOfTwo => Balance::PowerOfTwo,
                schema::Balance::LeastRequests => Balance::LeastRequests,
                schema::Balance::RoundRobin => Balance::RoundRobin,
                schema::Balance::Hash => Balance::Hash,
            },
            health_check: health_check?,
            ejection: Ejection {
                consecutive_failures: u32::try_from(pool.ejection.consecutive_failures.0).ok()?,
                base: pool.ejection.r#for.0,
                at_most: pool.ejection.at_most.fraction(),
            },
            timeouts: Timeouts {
                connect: pool.timeouts.connect.0,
                first_byte: pool.timeouts.first_byte.0,
                idle: pool.timeouts.idle.0,
            },
            tls: tls?,
            http2: http2?,
            send_proxy_protocol: pool.send_proxy_protocol.map(|form| match form {
                schema::ProxyProtocol::V1 => ProxyVersion::V1,
                schema::ProxyProtocol::V2 => ProxyVersion::V2,
            }),
        })
    }

    fn speaks_http2(&mut self, pool: &schema::Pool, path: &Path<'_>) -> Option<bool> {
        let (message, suggestion) = match (pool.protocol, &pool.tls) {
            (schema::Protocol::Http1, _) => return Some(false),
            (schema::Protocol::H2, Some(_)) | (schema::Protocol::H2c, None) => return Some(true),
            (schema::Protocol::H2, None) => ("`h2` is HTTP/2 over TLS, and this pool has no `tls`", "h2c"),
            (schema::Protocol::H2c, Some(_)) => ("`h2c` is HTTP/2 in plain text, and this pool has `tls`", "h2"),
        };
        self.problems.add_with(path, message, Some(suggestion.to_owned()));
        None
    }

    fn endpoints(&mut self, pool: &schema::Pool, path: &Path<'_>) -> Option<Box<[Endpoint]>> {
        let endpoints = pool.endpoints.get()?;
        if !self.count(endpoints, 1, MAX_ENDPOINTS, "endpoints", path) {
            return None;
        }
        let mut taken: HashMap<(Host, u16), usize> = HashMap::new();
        endpoints.compile(|index, endpoint| {
            let here = path.index(index);
            let (label, weight, place) = match endpoint {
                EndpointText::Address(address) => (address, 1, here),
                EndpointText::Full(full) => (full.address.get()?, full.weight.0, here.key("address")),
            };
            let (host, port) = match text::endpoint(label) {
                Ok(address) => address,
                Err((message, suggestion)) => {
                    let message = format!("{message}, found {}", shown(label));
                    self.problems.add_with(&place, message, suggestion);
                    return None;
                }
            };
            if let Some(first) = taken.insert((host.clone(), port), index) {
                let message = format!("`{label}` is there already: {}", path.index(first));
                self.problems.add(&place, message);
                return None;
            }
            Some(Endpoint {
                label: label.as_str().into(),
                host,
                port,
                weight: u32::try_from(weight).ok()?,
            })
        })
    }

    fn health_check(&mut self, pool: &schema::Pool, path: &Path<'_>) -> Option<HealthCheck> {
        let check = &pool.health_check;
        let probe = self.probe(check, pool.protocol != schema::Protocol::Http1, path)?;
        if check.every.0 < SHORTEST_PROBE_INTERVAL {
            self.problems
                .add(&path.key("every"), "expected a duration of `10ms` or more");
            return None;
        }
        Some(HealthCheck {
            probe,
            every: check.every.0,
            timeout: check.timeout.0,
            healthy_after: u32::try_from(check.healthy_after.0).ok()?,
            unhealthy_after: u32::try_from(check.unhealthy_after.0).ok()?,
        })
    }

    fn probe(&mut self, check: &schema::HealthCheck, http2: bool, path: &Path<'_>) -> Option<Probe> {
        match (check.path.as_deref(), check.grpc.as_deref()) {
            (None, None) => Some(Probe::Connection),
            (Some(probe), None) if text::is_target(probe) => Some(Probe::Get(probe.into())),
            (Some(probe), None) => {
                let meant = format!("/{probe}");
                let suggestion = (!probe.starts_with('/') && text::is_target(&meant)).then_some(meant);
                let message = format!("expected a path that begins with `/`, found {}", shown(probe));
                self.problems.add_with(&path.key("path"), message, suggestion);
                None
            }
            (None, Some(service)) if http2 && service.len() <= SERVICE_NAME_MOST => Some(Probe::Grpc(service.into())),
            (None, Some(_)) if http2 => {
                let message = format!("expected a name of {SERVICE_NAME_MOST} bytes at most");
                self.problems.add(&path.key("grpc"), message);
                None
            }
            (None, Some(_)) => {
                let message = "needs `protocol: h2c` or `h2` on the pool: gRPC is spoken over HTTP/2";
                self.problems.add(&path.key("grpc"), message);
                None
            }
            (Some(_), Some(_)) => {
                self.problems
                    .add(&path.key("grpc"), "stands in place of `path`: one of them can be asked");
                None
            }
        }
    }
}

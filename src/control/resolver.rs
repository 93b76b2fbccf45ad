//! Names of endpoints -> addresses, off the request path: looked up before a snapshot is published, and again as time
//! passes.

use crate::config::Snapshot;
use crate::config::snapshot::{Endpoint, Host};
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::{self, JoinSet};
use tokio::time::Instant;

/// Addresses used of one name; more are left out.
pub const ADDRESSES_MOST: usize = 64;

/// A name that resolved is looked up again after so long.
const REFRESH: Duration = Duration::from_secs(10);
/// After the first failure, and after each one of a name that never resolved.
const RETRY: Duration = Duration::from_secs(1);
/// The retry of a name whose last addresses are still in use doubles up to this.
const RETRY_LONGEST: Duration = Duration::from_secs(30);
/// Lookups under way at once; each may hold a thread of the blocking pool.
const LOOKUPS_MOST: usize = 64;

type Answer = io::Result<Vec<SocketAddr>>;
type Lookup = dyn Fn(Box<str>) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync;

/// The addresses of a snapshot's endpoints at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolved {
    addresses: HashMap<(Host, u16), Box<[SocketAddr]>>,
}

impl Resolved {
    /// The addresses of an endpoint, sorted, at most [`ADDRESSES_MOST`]; none for a name that did not resolve.
    pub fn addresses(&self, endpoint: &Endpoint) -> &[SocketAddr] {
        self.addresses
            .get(&(endpoint.host.clone(), endpoint.port))
            .map_or(&[], |addresses| addresses)
    }

    /// Of the endpoints that are written as addresses: no lookup.
    pub fn literals<'a>(endpoints: impl IntoIterator<Item = &'a Endpoint>) -> Self {
        Self::with(endpoints, |_| None)
    }

    fn with<'a>(
        endpoints: impl IntoIterator<Item = &'a Endpoint>,
        known: impl Fn(&str) -> Option<Arc<[SocketAddr]>>,
    ) -> Self {
        let addresses = endpoints.into_iter().map(|endpoint| {
            let port = endpoint.port;
            let addresses: Box<[SocketAddr]> = match &endpoint.host {
                Host::Address(ip) => [SocketAddr::new(*ip, port)].into(),
                Host::Name(name) => known(name)
                    .iter()
                    .flat_map(|addresses| addresses.iter())
                    .map(|&(mut address)| {
                        address.set_port(port);
                        address
                    })
                    .collect(),
            };
            ((endpoint.host.clone(), port), addresses)
        });
        Self {
            addresses: addresses.collect(),
        }
    }
}

/// Looks names up, keeps what it learned, and says when that changed.
pub struct Resolver {
    lookup: Box<Lookup>,
    /// The names of the last snapshot asked for.
    names: Mutex<HashMap<Box<str>, Name>>,
    /// Names were added: for [`Resolver::run`].
    asked: Notify,
    /// The first answer for a name came: for [`Resolver::resolve_all`].
    answered: Notify,
    changes: watch::Sender<u64>,
}

struct Name {
    /// Sorted, port 0.
    addresses: Arc<[SocketAddr]>,
    /// New, without an answer yet, and a publication waits for it: it will see the answer without being told.
    awaited: bool,
    failures: u32,
    due: Instant,
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new()
    }
}

impl Resolver {
    /// Uses the system's resolver (`/etc/hosts`, `/etc/resolv.conf`).
    pub fn new() -> Self {
        Self::with_lookup(|name| Box::pin(async move { Ok(tokio::net::lookup_host((&*name, 0)).await?.collect()) }))
    }

    fn with_lookup(
        lookup: impl Fn(Box<str>) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            lookup: Box::new(lookup),
            names: Mutex::default(),
            asked: Notify::new(),
            answered: Notify::new(),
            changes: watch::Sender::new(0),
        }
    }

    /// The addresses for a snapshot that is about to be published, by the one writer. Waits for names that the snapshot
    /// before did not have, `bound` at the longest; for the others what is known is taken, be it nothing, so that a name
    /// that does not resolve delays the change that brings it and no other. From now on [`Self::run`], which must be
    /// running, follows the names of this snapshot and no others.
    pub async fn resolve_all(&self, snapshot: &Snapshot, bound: Duration) -> Resolved {
        if self.follow(snapshot) {
            self.asked.notify_one();
            let all_answered = async {
                while self.names().values().any(|name| name.awaited) {
                    self.answered.notified().await;
                }
            };
            // Past the bound, what has not been answered is told by `run`.
            let _ = tokio::time::timeout(bound, all_answered).await;
        }
        let mut names = self.names();
        for name in names.values_mut() {
            name.awaited = false;
        }
        Resolved::with(endpoints(snapshot), |name| {
            names.get(name).map(|name| Arc::clone(&name.addresses))
        })
    }

    /// Marked changed each time that [`Self::run`] learned other addresses than a publication has seen; changes that come
    /// together are told once.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Looks the names up again and again, until it is dropped: every 10 s or so; a name that never resolved every second;
    /// one that no longer does keeps its last addresses and is tried after 1, 2, 4 … 30 s.
    pub async fn run(&self) -> Infallible {
        let mut lookups = JoinSet::new();
        let mut under_way: HashMap<task::Id, Box<str>> = HashMap::new();
        loop {
            let (due, next) = self.due(&under_way);
            for name in due {
                let id = lookups.spawn((self.lookup)(name.clone())).id();
                under_way.insert(id, name);
            }
            let wake = next.unwrap_or_else(|| Instant::now() + REFRESH);
            tokio::select! {
                () = self.asked.notified() => {}
                () = tokio::time::sleep_until(wake), if under_way.len() < LOOKUPS_MOST => {}
                Some(ended) = lookups.join_next_with_id() => {
                    let (id, answer) = match ended {
                        Ok((id, answer)) => (id, answer),
                        Err(error) => (error.id(), Err(io::Error::other(error))),
                    };
                    if let Some(name) = under_way.remove(&id) && self.learn(&name, answer) {
                        self.changes.send_modify(|count| *count += 1);
                    }
                }
            }
        }
    }

    /// Makes the names of `snapshot` the ones that are followed. Returns whether there are new ones, now awaited.
    fn follow(&self, snapshot: &Snapshot) -> bool {
        let wanted: HashSet<&str> = endpoints(snapshot)
            .filter_map(|endpoint| match &endpoint.host {
                Host::Name(name) => Some(&**name),
                Host::Address(_) => None,
            })
            .collect();
        let mut names = self.names();
        names.retain(|name, _| wanted.contains(&**name));
        let mut added = false;
        for name in wanted {
            if !names.contains_key(name) {
                let fresh = Name {
                    addresses: [].into(),
                    awaited: true,
                    failures: 0,
                    due: Instant::now(),
                };
                names.insert(name.into(), fresh);
                added = true;
            }
        }
        added
    }

    /// The names to look up now, and when the next one will be due. Each name is looked up once at a time.
    fn due(&self, under_way: &HashMap<task::Id, Box<str>>) -> (Vec<Box<str>>, Option<Instant>) {
        let busy: HashSet<&str> = under_way.values().map(|name| &**name).collect();
        let now = Instant::now();
        let names = self.names();
        let waiting = || names.iter().filter(|(name, _)| !busy.contains(&***name));
        let due = waiting()
            .filter(|(_, name)| name.due <= now)
            .take(LOOKUPS_MOST.saturating_sub(busy.len()))
            .map(|(name, _)| name.clone())
            .collect();
        let next = waiting().map(|(_, name)| name.due).filter(|&due| due > now).min();
        (due, next)
    }

    /// Takes note of an answer. Returns whether the addresses changed and nobody waits to see it.
    fn learn(&self, name: &str, answer: Answer) -> bool {
        let mut names = self.names();
        // It left while it was looked up.
        let Some(known) = names.get_mut(name) else { return false };
        let awaited = std::mem::take(&mut known.awaited);
        if awaited {
            self.answered.notify_one();
        }
        let failure = match answer {
            Ok(found) if !found.is_empty() => {
                let addresses = sorted(found);
                let changed = known.addresses != addresses;
                if changed || known.failures > 0 {
                    tracing::info!(name, addresses = ?addresses.iter().map(SocketAddr::ip).collect::<Vec<_>>(), "name resolved");
                }
                known.addresses = addresses;
                known.failures = 0;
                known.due = Instant::now() + REFRESH.mul_f64(0.9 + 0.2 * fastrand::f64());
                return changed && !awaited;
            }
            Ok(_) => io::Error::other("no address"),
            Err(error) => error,
        };
        if known.failures == 0 {
            tracing::warn!(name, %failure, addresses_kept = known.addresses.len(), "name does not resolve");
        }
        known.due = Instant::now() + retry_after(known.failures, !known.addresses.is_empty());
        known.failures = known.failures.saturating_add(1);
        false
    }

    fn names(&self) -> MutexGuard<'_, HashMap<Box<str>, Name>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `failures` before this one.
fn retry_after(failures: u32, has_addresses: bool) -> Duration {
    if !has_addresses {
        return RETRY;
    }
    RETRY.saturating_mul(1 << failures.min(16)).min(RETRY_LONGEST)
}

fn sorted(mut addresses: Vec<SocketAddr>) -> Arc<[SocketAddr]> {
    for address in &mut addresses {
        address.set_port(0);
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(ADDRESSES_MOST);
    addresses.into()
}

fn endpoints(snapshot: &Snapshot) -> impl Iterator<Item = &Endpoint> {
    let pools = snapshot.services.iter().flat_map(|service| &service.pools);
    pools.flat_map(|pool| &pool.endpoints)
}

#[cfg(test)]
#[path = "resolver_tests.rs"]
pub(crate) mod tests;

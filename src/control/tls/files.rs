//! The files in use, and what is made of them.

use super::inventory::{Entry, Inventory, Material, Source};
use super::material::Unusable;
use super::{Look, Stamps, build, judge};
use crate::config::Snapshot;
use crate::config::snapshot::{ListenerTls, PoolTls};
use crate::shared::{CertificateStatus, ClientTls, ServerTls};
use rustls::crypto::CryptoProvider;
use rustls::server::ProducesTickets;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Looks after which files that nothing uses any more are forgotten: what was read for a configuration is kept until that
/// comes into force.
const FORGOTTEN_AFTER: u32 = 60;

/// See the module. Its lock is never held while a file is read: whoever publishes does not wait for a disk.
pub struct TlsFiles {
    provider: Arc<CryptoProvider>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    inventory: Inventory,
    servers: Vec<Made<ListenerTls, ServerTls>>,
    clients: Vec<Made<PoolTls, ClientTls>>,
}

/// What is in force, as long as it is, and what it was made by.
struct Made<S, T> {
    spec: S,
    tls: Weak<T>,
}

impl<S: Clone, T> Made<S, T> {
    fn new(spec: &S, tls: &Arc<T>) -> Self {
        Self {
            spec: spec.clone(),
            tls: Arc::downgrade(tls),
        }
    }

    fn is_in_force(&self) -> bool {
        self.tls.strong_count() > 0
    }
}

impl Default for TlsFiles {
    fn default() -> Self {
        Self {
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            inner: Mutex::default(),
        }
    }
}

impl TlsFiles {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what `snapshot` names and is not in use yet; returns what of it cannot be used. What is in use already is
    /// followed on the disk and needs no reading: a certificate that is broken there now does not stand against a new
    /// configuration. Blocks on the disk.
    pub fn prepare(&self, snapshot: &Snapshot) -> Vec<Unusable> {
        let known: HashSet<Source> = self.inner().inventory.0.keys().cloned().collect();
        let mut asked = HashSet::new();
        let sources = Source::of(snapshot).filter(|source| !known.contains(source) && asked.insert(source.clone()));
        let mut unusable = Vec::new();
        for source in sources.collect::<Vec<_>>() {
            let stamps = source.stamps();
            match source.read(&self.provider) {
                Ok(material) => {
                    let entry = Entry {
                        material,
                        judged: stamps.clone(),
                        seen: stamps,
                        error: None,
                        unused: 0,
                    };
                    self.inner().inventory.0.insert(source, entry);
                }
                Err(error) => unusable.push(error),
            }
        }
        unusable
    }

    /// Of what was read, the certificates that are not valid now, and why.
    pub fn untimely(&self) -> Vec<(PathBuf, &'static str)> {
        let inner = self.inner();
        let untimely = inner.inventory.untimely();
        untimely.map(|(files, why)| (files.cert.clone(), why)).collect()
    }

    /// TLS of a listener; the same as `before` while its settings are. What [`Self::prepare`] did not find usable is left
    /// out; without any certificate no handshake succeeds.
    pub fn listener(&self, spec: &ListenerTls, before: Option<(&ListenerTls, &Arc<ServerTls>)>) -> Arc<ServerTls> {
        if let Some((_, same)) = before.filter(|(before, _)| *before == spec) {
            return Arc::clone(same);
        }
        // Who has shown a certificate once may resume, but not where others vouch for clients now.
        let kept = before.filter(|(before, _)| before.clients == spec.clients);
        let ticketer = kept.and_then(|(_, tls)| Some(Arc::clone(&tls.load()?.ticketer)));
        let mut inner = self.inner();
        let known = before.map_or(&[][..], |(before, _)| &before.certificates);
        let added = spec.certificates.iter().filter(|files| !known.contains(files));
        inner.inventory.tell_of_times(added);
        let config = ticketer.map_or_else(build::ticketer, Ok);
        let config = config.and_then(|ticketer| inner.inventory.server(spec, ticketer, &self.provider));
        let tls = Arc::new(ServerTls::new(usable(config)));
        inner.servers.push(Made::new(spec, &tls));
        tls
    }

    /// TLS to the endpoints of a pool: one for all pools with the same settings. If it cannot be made, no handshake
    /// succeeds.
    pub fn pool(&self, spec: &PoolTls) -> Arc<ClientTls> {
        let mut inner = self.inner();
        let mut same = inner.clients.iter().filter(|client| client.spec == *spec);
        if let Some(tls) = same.find_map(|client| client.tls.upgrade()) {
            return tls;
        }
        if !spec.verify {
            tracing::warn!("`verify: false`: a pool's endpoints are taken for whom they say they are");
        }
        inner.inventory.tell_of_times(spec.client.iter());
        let tls = Arc::new(ClientTls::new(usable(inner.inventory.client(spec, &self.provider))));
        inner.clients.push(Made::new(spec, &tls));
        tls
    }

    /// Looks at the files in use once, and puts into use what has changed. Blocks on the disk.
    pub fn look(&self) {
        let followed: Vec<(Source, Stamps, Stamps)> = {
            let mut inner = self.inner();
            inner.forget();
            let entries = inner.inventory.0.iter();
            entries
                .map(|(source, entry)| (source.clone(), entry.judged.clone(), entry.seen.clone()))
                .collect()
        };
        for (source, judged, seen) in followed {
            let now = source.stamps();
            let read = match judge(&judged, &seen, &now) {
                Look::Same if now == seen => continue,
                Look::Same | Look::Wait => None,
                Look::Read => Some(source.read(&self.provider)),
            };
            self.inner().looked(&source, now, read, &self.provider);
        }
    }

    /// How the files in use are, by path.
    pub fn status(&self) -> Box<[CertificateStatus]> {
        let inner = self.inner();
        let used = inner.used();
        let status = used
            .iter()
            .filter_map(|(source, serves)| inner.inventory.0.get(source)?.status(source, *serves));
        worst_by_file(status.collect())
    }
}

/// One for each file, whatever it is used for and however often: with an error if there is one for any use, with the
/// time of the first to expire, in whichever order they come.
fn worst_by_file(mut status: Vec<CertificateStatus>) -> Box<[CertificateStatus]> {
    status.sort_by(|a, b| {
        let rank = |one: &CertificateStatus| (one.error.is_none(), one.expires_s.is_none(), one.expires_s);
        (&a.file, rank(a), &a.error, &a.names).cmp(&(&b.file, rank(b), &b.error, &b.names))
    });
    status.dedup_by(|later, worst| {
        let same = later.file == worst.file;
        if same {
            worst.expires_s = [worst.expires_s, later.expires_s].into_iter().flatten().min();
            worst.begins_s = worst.begins_s.max(later.begins_s);
            if worst.names.is_empty() {
                worst.names = std::mem::take(&mut later.names);
            }
        }
        same
    });
    status.into()
}

fn usable<T>(made: Result<T, String>) -> Option<T> {
    made.map_err(|error| tracing::error!(error, "TLS settings cannot be used: no handshake will succeed"))
        .ok()
}

impl Inner {
    /// What is in use, and whether a listener serves with it.
    fn used(&self) -> HashMap<Source, bool> {
        let clients = self.clients.iter().filter(|client| client.is_in_force());
        let clients = clients.flat_map(|client| Source::of_pool(&client.spec));
        let servers = self.servers.iter().filter(|server| server.is_in_force());
        let servers = servers.flat_map(|server| Source::of_listener(&server.spec));
        // The later ones win: what both use serves.
        clients.map(|s| (s, false)).chain(servers.map(|s| (s, true))).collect()
    }

    /// Lets go of what is not in force any more.
    fn forget(&mut self) {
        self.servers.retain(Made::is_in_force);
        self.clients.retain(Made::is_in_force);
        let used = self.used();
        self.inventory.0.retain(|source, entry| {
            entry.unused = if used.contains_key(source) { 0 } else { entry.unused + 1 };
            entry.unused < FORGOTTEN_AFTER
        });
    }

    /// Takes note of a look, and of what was read.
    fn looked(
        &mut self,
        source: &Source,
        now: Stamps,
        read: Option<Result<Material, Unusable>>,
        provider: &Arc<CryptoProvider>,
    ) {
        let Some(entry) = self.inventory.0.get_mut(source) else {
            return;
        };
        entry.seen.clone_from(&now);
        let Some(read) = read else { return };
        entry.judged = now;
        match read {
            Ok(material) => {
                entry.error = None;
                if material.is(&entry.material) {
                    return;
                }
                material.tell(source);
                entry.material = material;
                self.make_anew(source, provider);
            }
            Err(unusable) => {
                let error = unusable.to_string();
                tracing::error!(
                    error,
                    "a certificate file cannot be used; the last good one stays in use"
                );
                entry.error = Some(error);
            }
        }
    }

    /// Replaces what was made of `source`. What fails to be made stays as it was.
    fn make_anew(&mut self, source: &Source, provider: &Arc<CryptoProvider>) {
        let inventory = &self.inventory;
        let failed = |error: String| tracing::error!(error, "TLS settings cannot be renewed; those before stay in use");
        for Made { spec, tls } in &self.servers {
            let Some(tls) = tls
                .upgrade()
                .filter(|_| Source::of_listener(spec).any(|one| one == *source))
            else {
                continue;
            };
            let ticketer = match (source, tls.load()) {
                (Source::Pair(_), Some(config)) => Ok(Arc::clone(&config.ticketer)),
                _ => build::ticketer(),
            };
            let config =
                ticketer.and_then(|ticketer: Arc<dyn ProducesTickets>| inventory.server(spec, ticketer, provider));
            config.map_or_else(failed, |config| tls.replace(config));
        }
        for Made { spec, tls } in &self.clients {
            let Some(tls) = tls
                .upgrade()
                .filter(|_| Source::of_pool(spec).any(|one| one == *source))
            else {
                continue;
            };
            let config = inventory.client(spec, provider);
            config.map_or_else(failed, |config| tls.replace(config));
        }
    }
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;

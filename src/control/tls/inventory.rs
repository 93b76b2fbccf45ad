//! What was read of which files.

use super::listed::Authorities;
use super::material::{self, Pair, Unusable};
use super::{Stamps, build, now_s};
use crate::config::Snapshot;
use crate::config::snapshot::{CertificateFiles, ListenerTls, PoolTls};
use crate::control::stamp::Stamp;
use crate::shared::CertificateStatus;
use rustls::crypto::CryptoProvider;
use rustls::server::ProducesTickets;
use rustls::{ClientConfig, ServerConfig};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files that are of use only together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    Pair(CertificateFiles),
    Authorities(PathBuf),
    /// The authorities of the system: read once.
    System,
}

impl Source {
    /// What `snapshot` needs.
    pub fn of(snapshot: &Snapshot) -> impl Iterator<Item = Self> {
        let listeners = snapshot.listeners.iter().filter_map(|listener| listener.tls.as_ref());
        let pools = snapshot.services.iter().flat_map(|service| &service.pools);
        let pools = pools.filter_map(|pool| pool.tls.as_ref());
        listeners
            .flat_map(Self::of_listener)
            .chain(pools.flat_map(Self::of_pool))
    }

    pub fn of_listener(spec: &ListenerTls) -> impl Iterator<Item = Self> {
        let pairs = spec.certificates.iter().cloned().map(Self::Pair);
        pairs.chain(spec.clients.iter().map(|clients| Self::Authorities(clients.ca.clone())))
    }

    pub fn of_pool(spec: &PoolTls) -> impl Iterator<Item = Self> {
        let authorities = spec.verify.then(|| Self::authorities_of(spec));
        authorities.into_iter().chain(spec.client.clone().map(Self::Pair))
    }

    fn authorities_of(spec: &PoolTls) -> Self {
        spec.ca.clone().map_or(Self::System, Self::Authorities)
    }

    fn files(&self) -> Vec<&Path> {
        match self {
            Self::Pair(files) => vec![&files.cert, &files.key],
            Self::Authorities(file) => vec![file],
            Self::System => Vec::new(),
        }
    }

    /// As the files are now, links followed. Blocks on the disk.
    pub fn stamps(&self) -> Stamps {
        self.files().into_iter().map(Stamp::at).collect()
    }

    /// What is in the files. Blocks on the disk.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn read(&self, provider: &CryptoProvider) -> Result<Material, Unusable> {
        match self {
            Self::Pair(files) => {
                let pair = material::pair(&files.cert, &files.key, provider)?;
                Ok(Material::Pair(Arc::new(pair)))
            }
            Self::Authorities(file) => Ok(Material::Authorities(material::authorities(file)?)),
            Self::System => Ok(Material::Authorities(Authorities {
                roots: Arc::new(material::system_roots()?),
                listed: Arc::default(),
            })),
        }
    }
}

#[derive(Clone)]
pub enum Material {
    Pair(Arc<Pair>),
    Authorities(Authorities),
}

impl Material {
    /// Whether this is what `other` is: files that were only touched. Of a pair the certificate tells; the key belongs to it.
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Pair(one), Self::Pair(other)) => one.certified.cert == other.certified.cert,
            (Self::Authorities(one), Self::Authorities(other)) => one.listed == other.listed,
            _ => false,
        }
    }

    /// Tells of a new one, and of a certificate whose time is not now.
    pub fn tell(&self, source: &Source) {
        let Source::Pair(files) = source else {
            let file = source.files().first().map(|file| file.display().to_string());
            return tracing::info!(file, "authorities are replaced");
        };
        let Self::Pair(pair) = self else { return };
        let cert = files.cert.display();
        tracing::info!(%cert, names = ?pair.names, "a certificate is replaced");
        tell_of_time(files, pair);
    }
}

/// Logs that a certificate is not valid now: clients will say so, and may not be heard.
fn tell_of_time(files: &CertificateFiles, pair: &Pair) {
    if let Some(why) = pair.untimely(now_s()) {
        tracing::warn!(cert = %files.cert.display(), "{why}");
    }
}

/// What is known of a source.
pub struct Entry {
    pub material: Material,
    /// As the files were when they were last read, whether or not they could be used.
    pub judged: Stamps,
    /// As they were at the last look.
    pub seen: Stamps,
    /// Why what is on the disk is not in use.
    pub error: Option<String>,
    /// Looks since something used it.
    pub unused: u32,
}

impl Entry {
    /// `None` for what has no file. `serves`: on a listener.
    pub fn status(&self, source: &Source, serves: bool) -> Option<CertificateStatus> {
        let pair = match &self.material {
            Material::Pair(pair) => Some(pair),
            Material::Authorities(_) => None,
        };
        let names = pair.filter(|_| serves).map(|pair| pair.names.clone());
        Some(CertificateStatus {
            file: source.files().first()?.display().to_string().into(),
            names: names.unwrap_or_default().into(),
            begins_s: pair.map(|pair| pair.begins_s),
            expires_s: pair.map(|pair| pair.expires_s),
            error: self.error.as_deref().map(Into::into),
        })
    }
}

/// By source.
#[derive(Default)]
pub struct Inventory(pub HashMap<Source, Entry>);

impl Inventory {
    fn pair(&self, files: &CertificateFiles) -> Option<Arc<Pair>> {
        match &self.0.get(&Source::Pair(files.clone()))?.material {
            Material::Pair(pair) => Some(Arc::clone(pair)),
            Material::Authorities(_) => None,
        }
    }

    /// Logs which of these are not valid now.
    pub fn tell_of_times<'f>(&self, files: impl Iterator<Item = &'f CertificateFiles>) {
        for files in files {
            if let Some(pair) = self.pair(files) {
                tell_of_time(files, &pair);
            }
        }
    }

    /// The certificates that are not valid now, and why.
    pub fn untimely(&self) -> impl Iterator<Item = (&CertificateFiles, &'static str)> {
        let now_s = now_s();
        self.0
            .iter()
            .filter_map(move |(source, entry)| match (source, &entry.material) {
                (Source::Pair(files), Material::Pair(pair)) => Some((files, pair.untimely(now_s)?)),
                _ => None,
            })
    }

    fn authorities(&self, source: &Source) -> Option<&Authorities> {
        match &self.0.get(source)?.material {
            Material::Authorities(authorities) => Some(authorities),
            Material::Pair(_) => None,
        }
    }

    /// TLS of a listener. Certificates that are not here are left out.
    ///
    /// # Errors
    /// Authorities are not here, or none of them can be used.
    pub fn server(
        &self,
        spec: &ListenerTls,
        ticketer: Arc<dyn ProducesTickets>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<ServerConfig>, String> {
        let pairs: Vec<Arc<Pair>> = spec.certificates.iter().filter_map(|files| self.pair(files)).collect();
        let clients = spec.clients.as_ref();
        let authorities = clients.and_then(|clients| self.authorities(&Source::Authorities(clients.ca.clone())));
        build::server(spec, &pairs, authorities, ticketer, provider)
    }

    /// TLS to the endpoints of a pool.
    ///
    /// # Errors
    /// Authorities or the certificate that is shown are not here.
    pub fn client(&self, spec: &PoolTls, provider: &Arc<CryptoProvider>) -> Result<Arc<ClientConfig>, String> {
        let authorities = self.authorities(&Source::authorities_of(spec));
        let shown = match &spec.client {
            None => None,
            Some(files) => Some(self.pair(files).ok_or("the certificate for endpoints is not there")?),
        };
        build::client(spec, authorities, shown.as_ref(), provider)
    }
}

//! TLS as both planes use it. The control plane makes it and replaces it when files change; the data plane and the probes
//! shake hands by what is there at that moment. Connections that are open keep what they have.

use crate::opening::ProxyVersion;
use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig, ServerConfig};
use std::io;
use std::sync::Arc;

/// Protocols that a TLS listener offers (ALPN), the preferred first. Clients that name none speak HTTP/1.
pub const LISTENER_PROTOCOLS: [&[u8]; 3] = [b"h2", b"http/1.1", b"http/1.0"];

/// TLS of a listener.
pub struct ServerTls(ArcSwapOption<ServerConfig>);

impl ServerTls {
    /// `None`: nobody can connect until it is replaced.
    pub fn new(config: Option<Arc<ServerConfig>>) -> Self {
        Self(ArcSwapOption::new(config))
    }

    /// For one handshake.
    pub fn load(&self) -> Option<Arc<ServerConfig>> {
        self.0.load_full()
    }

    pub fn replace(&self, config: Arc<ServerConfig>) {
        self.0.store(Some(config));
    }
}

/// TLS to the endpoints of a pool.
pub struct ClientTls(ArcSwap<Edition>);

struct Edition {
    config: Option<Arc<ClientConfig>>,
    number: u64,
}

impl ClientTls {
    /// `None`: no connection can be made until it is replaced.
    pub fn new(config: Option<Arc<ClientConfig>>) -> Self {
        Self(ArcSwap::from_pointee(Edition { config, number: 1 }))
    }

    /// For one handshake, and the number of this edition.
    pub fn load(&self) -> (Option<Arc<ClientConfig>>, u64) {
        let edition = self.0.load();
        (edition.config.clone(), edition.number)
    }

    /// Rises by one with each replacement: a connection made by an earlier edition trusted others.
    pub fn edition(&self) -> u64 {
        self.0.load().number
    }

    pub fn replace(&self, config: Arc<ClientConfig>) {
        let number = self.edition() + 1;
        let config = Some(config);
        self.0.store(Arc::new(Edition { config, number }));
    }
}

/// How a connection to an endpoint is made.
#[derive(Clone, Default)]
pub struct Transport {
    /// The PROXY protocol header that it begins with.
    pub send_proxy_protocol: Option<ProxyVersion>,
    /// HTTP/2 is spoken on it, and nothing else.
    pub http2: bool,
    pub tls: Option<EndpointTls>,
}

/// TLS to one endpoint.
#[derive(Clone)]
pub struct EndpointTls {
    pub settings: Arc<ClientTls>,
    /// Asked for, and checked. An address is checked and not asked for.
    pub name: ServerName<'static>,
}

impl Transport {
    /// Which edition of its TLS settings a connection made now belongs to; 0 for plain text.
    pub fn edition(&self) -> u64 {
        self.tls.as_ref().map_or(0, |tls| tls.settings.edition())
    }
}

/// Why there is no TLS with an endpoint, or no more of it, and what to do where that is known.
pub fn explain(error: &io::Error) -> String {
    use rustls::CertificateError as Bad;
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    let help = match inner {
        Some(rustls::Error::InvalidCertificate(bad)) => match bad {
            Bad::UnknownIssuer => ": `tls.ca` must have the authority that signed it",
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => ": `tls.sni` must be a name it has",
            Bad::Expired | Bad::ExpiredContext { .. } => ": it must be renewed",
            // The word of the library behind rustls, which has none of its own for it.
            Bad::Other(other) if other.to_string() == "CaUsedAsEndEntity" => {
                ": it is an authority's: `tls.ca` must have this very certificate"
            }
            _ => "",
        },
        Some(rustls::Error::AlertReceived(AlertDescription::CertificateRequired)) => ": `tls.cert` must be set",
        Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
            ": the endpoint does not speak the `protocol` of its pool (HTTP/1.1 unless it is set)"
        }
        _ => "",
    };
    format!("{error}{help}")
}

/// A certificate file in use, and how its last load went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateStatus {
    /// Its path.
    pub file: Box<str>,
    /// The names it is for; empty for one that is shown to endpoints, and for authorities.
    pub names: Box<[String]>,
    /// When all of its chain is valid, in seconds since the Unix epoch; `None` for authorities.
    pub begins_s: Option<i64>,
    /// When the first certificate of its chain expires, in seconds since the Unix epoch; `None` for authorities.
    pub expires_s: Option<i64>,
    /// Why what is on the disk is not in use; `None`: it is.
    pub error: Option<Box<str>>,
}

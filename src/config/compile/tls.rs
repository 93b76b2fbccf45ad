//! TLS, of listeners and of pools.

use super::{Context, MAX_LIST, text};
use crate::config::problem::{Path, shown};
use crate::config::schema;
use crate::config::snapshot::{CertificateFiles, ClientCertificates, ListenerTls, PoolTls, TlsVersion};

impl Context<'_> {
    /// The outer `None`: something is wrong; the inner: plain text. `path` is the listener's.
    pub(super) fn listener_tls(&mut self, listener: &schema::Listener, path: &Path<'_>) -> Option<Option<ListenerTls>> {
        let Some(tls) = &listener.tls else { return Some(None) };
        if listener.redirect_to_https.0.is_some() {
            let message = "requests of a listener with `tls` came by https: leave it out";
            self.problems.add_key(&path.key("redirect_to_https"), message, None);
        }
        let path = path.key("tls");
        let certificates = self.certificates(tls, &path.key("certificates"));
        let clients = match &tls.client_ca {
            None if tls.client_auth.is_some() => {
                let message = "without `client_ca` clients are not asked for a certificate, and all of them are let in";
                self.problems.add_key(&path.key("client_auth"), message, None);
                None
            }
            None => Some(None),
            Some(ca) => self.named_file(ca, &path.key("client_ca")).map(|ca| {
                let required = tls.client_auth != Some(schema::ClientAuth::Optional);
                Some(ClientCertificates { ca, required })
            }),
        };
        if let Some(hsts) = &tls.hsts {
            let path = path.key("hsts");
            if hsts.max_age.0.as_secs() == 0 {
                self.problems
                    .add(&path.key("max_age"), "expected a duration of `1s` or more");
            }
        }
        Some(Some(ListenerTls {
            certificates: certificates?,
            clients: clients?,
            min_version: match tls.min_version {
                schema::TlsVersion::V1_2 => TlsVersion::V1_2,
                schema::TlsVersion::V1_3 => TlsVersion::V1_3,
            },
        }))
    }

    fn certificates(&mut self, tls: &schema::ListenerTls, path: &Path<'_>) -> Option<Box<[CertificateFiles]>> {
        let certificates = tls.certificates.get()?;
        if !self.count(certificates, 1, MAX_LIST, "certificates", path) {
            return None;
        }
        certificates.compile(|index, certificate| {
            let here = path.index(index);
            let mut file = |key: &str, file: Option<&String>| self.named_file(file?, &here.key(key));
            let (cert, key) = (file("cert", certificate.cert.get()), file("key", certificate.key.get()));
            Some(CertificateFiles { cert: cert?, key: key? })
        })
    }

    /// The outer `None`: something is wrong; the inner: plain text.
    pub(super) fn pool_tls(&mut self, pool: &schema::Pool, path: &Path<'_>) -> Option<Option<PoolTls>> {
        let Some(tls) = &pool.tls else { return Some(None) };
        let mut right = true;
        // An empty name would not be asked for: what must never follow is that nothing is checked.
        if let Some(sni) = tls.sni.as_ref().filter(|sni| !text::is_host_name(sni)) {
            let host = sni.rsplit_once(':').map(|(host, _)| host);
            let suggestion = host.filter(|host| text::is_host_name(host)).map(str::to_owned);
            let message = format!("expected a host name, found {}", shown(sni));
            self.problems.add_with(&path.key("sni"), message, suggestion);
            right = false;
        }
        if tls.ca.is_some() && !tls.verify {
            let message = "has no effect with `verify: false`: leave one of them out";
            self.problems.add_key(&path.key("ca"), message, None);
            right = false;
        }
        let mut file = |key: &str, file: &Option<String>| match file {
            None => None,
            Some(file) => {
                let file = self.named_file(file, &path.key(key));
                right &= file.is_some();
                file
            }
        };
        let (ca, cert, key) = (file("ca", &tls.ca), file("cert", &tls.cert), file("key", &tls.key));
        if tls.cert.is_some() != tls.key.is_some() {
            let message = "`cert` and `key` go together";
            let there = if tls.cert.is_some() { "cert" } else { "key" };
            self.problems.add_key(&path.key(there), message, None);
            right = false;
        }
        right.then(|| {
            Some(PoolTls {
                sni: tls.sni.as_ref().map(|sni| sni.to_ascii_lowercase().into()),
                ca,
                verify: tls.verify,
                http2: pool.protocol == schema::Protocol::H2,
                client: cert.zip(key).map(|(cert, key)| CertificateFiles { cert, key }),
            })
        })
    }
}

/// The value of `Strict-Transport-Security` (RFC 6797 section 6.1).
pub(super) fn hsts(tls: &schema::ListenerTls) -> Option<Box<str>> {
    let hsts = tls.hsts.as_ref()?;
    let below = if hsts.include_subdomains {
        "; includeSubDomains"
    } else {
        ""
    };
    Some(format!("max-age={}{below}", hsts.max_age.0.as_secs()).into())
}

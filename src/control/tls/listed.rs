//! Who shows a certificate that is itself in the file of authorities is trusted.
//!
//! An authority's certificate is for signing others, and rustls takes none for that of a server or client; but what
//! `openssl req -x509` makes is one, and to list it is the usual way to trust exactly one endpoint or client (curl, nginx,
//! HAProxy and Go accept it). Equality of every byte takes the place of a signature by an authority. Time, purpose and
//! name are checked as ever, and so is, by rustls, that the peer holds the key.

use crate::opening::read_certificate;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use std::collections::HashSet;
use std::sync::Arc;

/// Who vouches for peers.
#[derive(Debug, Clone)]
pub struct Authorities {
    pub roots: Arc<RootCertStore>,
    /// Certificates of peers that are trusted as they are; those of a file, not those of the system.
    pub listed: Arc<HashSet<CertificateDer<'static>>>,
}

impl Authorities {
    /// # Errors
    /// There are none.
    pub fn of_servers(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, String> {
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(&self.roots), Arc::clone(provider));
        Ok(Arc::new(OrListed {
            verifier: verifier.build().map_err(|error| error.to_string())? as Arc<dyn ServerCertVerifier>,
            listed: Arc::clone(&self.listed),
        }))
    }

    /// `required`: who shows no certificate is turned away.
    ///
    /// # Errors
    /// There are none.
    pub fn of_clients(
        &self,
        required: bool,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, String> {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.roots), Arc::clone(provider));
        let verifier = if required {
            verifier
        } else {
            verifier.allow_unauthenticated()
        };
        Ok(Arc::new(OrListed {
            verifier: verifier.build().map_err(|error| error.to_string())?,
            listed: Arc::clone(&self.listed),
        }))
    }
}

/// A verifier, and the certificates that are not left to it.
#[derive(Debug)]
struct OrListed<V> {
    verifier: V,
    listed: Arc<HashSet<CertificateDer<'static>>>,
}

/// What a certificate is shown for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Server,
    Client,
}

/// Whether a certificate that is listed may be used `now`, for `purpose`.
fn is_valid(der: &CertificateDer<'_>, purpose: Purpose, now: UnixTime) -> Result<(), Error> {
    let certificate = read_certificate(der).map_err(|_| CertificateError::BadEncoding)?;
    let at = |seconds: i64| {
        let since_epoch = u64::try_from(seconds).unwrap_or_default();
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(since_epoch))
    };
    let (not_before, not_after) = (at(certificate.not_before_s), at(certificate.not_after_s));
    if now < not_before {
        return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
    }
    if now > not_after {
        return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
    }
    let is_meant = match purpose {
        Purpose::Server => certificate.for_servers,
        Purpose::Client => certificate.for_clients,
    };
    is_meant
        .then_some(())
        .ok_or_else(|| CertificateError::InvalidPurpose.into())
}

impl ServerCertVerifier for OrListed<Arc<dyn ServerCertVerifier>> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.listed.contains(end_entity) {
            let verifier = &self.verifier;
            return verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        }
        is_valid(end_entity, Purpose::Server, now)?;
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

impl ClientCertVerifier for OrListed<Arc<dyn ClientCertVerifier>> {
    fn offer_client_auth(&self) -> bool {
        self.verifier.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.verifier.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if !self.listed.contains(end_entity) {
            return self.verifier.verify_client_cert(end_entity, intermediates, now);
        }
        is_valid(end_entity, Purpose::Client, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

#[cfg(test)]
#[path = "listed_tests.rs"]
mod tests;

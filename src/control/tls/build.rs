//! Keys and certificates -> what handshakes go by.

use super::listed::Authorities;
use super::material::Pair;
use super::now_s;
use super::tickets::Tickets;
use crate::config::snapshot::{ListenerTls, PoolTls, TlsVersion};
use crate::opening::ServerNames;
use crate::shared::LISTENER_PROTOCOLS;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, DigitallySignedStruct, ServerConfig, SignatureAlgorithm, SignatureScheme, SupportedProtocolVersion,
};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// TLS of a listener with these certificates, and these authorities of clients where it asks for certificates. `ticketer`
/// seals the sessions that clients may resume: whoever holds one of its tickets has been let in.
///
/// # Errors
/// The authorities cannot be used.
pub fn server(
    spec: &ListenerTls,
    pairs: &[Arc<Pair>],
    clients: Option<&Authorities>,
    ticketer: Arc<dyn ProducesTickets>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<ServerConfig>, String> {
    let versions: &[&SupportedProtocolVersion] = match spec.min_version {
        TlsVersion::V1_2 => &[&TLS13, &TLS12],
        TlsVersion::V1_3 => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?;
    let builder = match (&spec.clients, clients) {
        (Some(wanted), Some(authorities)) => {
            builder.with_client_cert_verifier(authorities.of_clients(wanted.required, provider)?)
        }
        (Some(_), None) => return Err("there are no authorities for clients' certificates".to_owned()),
        (None, _) => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Certificates::new(pairs)));
    config.alpn_protocols = LISTENER_PROTOCOLS.iter().map(|protocol| protocol.to_vec()).collect();
    // Tickets alone: they need no memory here, and work in whichever thread the client comes back to.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = ticketer;
    Ok(Arc::new(config))
}

/// Tickets sealed by a key that is replaced every six hours, and taken for twelve, at most until the certificate ends that
/// the client has shown.
///
/// # Errors
/// The kernel gives no random bytes.
pub fn ticketer() -> Result<Arc<dyn ProducesTickets>, String> {
    let sealer = rustls::crypto::ring::Ticketer::new().map_err(|error| error.to_string())?;
    Ok(Arc::new(Tickets { sealer }))
}

/// The certificates of a listener by name.
#[derive(Debug)]
struct Certificates {
    choices: Vec<Choice>,
    names: ServerNames,
}

#[derive(Debug)]
struct Choice {
    key: Arc<CertifiedKey>,
    /// In seconds since the Unix epoch.
    valid_s: RangeInclusive<i64>,
}

impl Certificates {
    fn new(pairs: &[Arc<Pair>]) -> Self {
        let names: Vec<Vec<String>> = pairs.iter().map(|pair| pair.names.clone()).collect();
        Self {
            choices: pairs
                .iter()
                .map(|pair| Choice {
                    key: Arc::clone(&pair.certified),
                    valid_s: pair.begins_s..=pair.expires_s,
                })
                .collect(),
            names: ServerNames::new(&names),
        }
    }

    /// Of those for the name, one that the client can verify: one that is valid now before one that has expired or is not
    /// valid yet; then one that is not RSA before one that is, since it is far cheaper to sign with; then the first.
    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme], now_s: i64) -> Option<&Arc<CertifiedKey>> {
        let of_name = self.names.find(name).iter();
        let of_name = of_name.filter_map(|&position| self.choices.get(position));
        let usable = of_name.filter(|choice| choice.key.key.choose_scheme(schemes).is_some());
        let best = usable.min_by_key(|choice| {
            let is_rsa = choice.key.key.algorithm() == SignatureAlgorithm::RSA;
            (!choice.valid_s.contains(&now_s), is_rsa)
        });
        best.map(|choice| &choice.key)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(client.server_name(), client.signature_schemes(), now_s())
            .cloned()
    }
}

/// TLS to the endpoints of a pool: with these authorities, and what is shown to endpoints that ask.
///
/// # Errors
/// Something of it cannot be used.
pub fn client(
    spec: &PoolTls,
    authorities: Option<&Authorities>,
    shown: Option<&Arc<Pair>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| error.to_string())?;
    let verifier = match authorities {
        Some(authorities) if spec.verify => authorities.of_servers(provider)?,
        None if spec.verify => return Err("there are no authorities to verify endpoints by".to_owned()),
        _ => Arc::new(Unverified(provider.signature_verification_algorithms)),
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match shown {
        Some(pair) => builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(Arc::clone(
            &pair.certified,
        )))),
        None => builder.with_no_client_auth(),
    };
    let protocol: &[u8] = if spec.http2 { b"h2" } else { b"http/1.1" };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}

/// `verify: false`: whoever answers is taken for the endpoint, as long as it holds the key of the certificate it shows.
#[derive(Debug)]
struct Unverified(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

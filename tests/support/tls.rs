//! Authorities, certificates and TLS sockets for tests.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    SupportedProtocolVersion,
};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::SystemTime;

/// Who vouches for certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate with its key, both PEM.
#[derive(Clone)]
pub struct Leaf {
    pub cert: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert = params.self_signed(&key).unwrap();
        Self {
            pem: cert.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Writes its certificate.
    pub fn write(&self, file: &Path) {
        std::fs::write(file, &self.pem).unwrap();
    }

    /// For a server with these names (`127.0.0.1` is an address).
    pub fn server(&self, names: &[&str]) -> Leaf {
        self.sign(params(names), KeyPair::generate().unwrap())
    }

    /// As [`Self::server`], with an RSA key.
    pub fn rsa_server(&self, names: &[&str]) -> Leaf {
        let made = Command::new("openssl")
            .args([
                "genpkey",
                "-quiet",
                "-algorithm",
                "RSA",
                "-pkeyopt",
                "rsa_keygen_bits:2048",
            ])
            .output()
            .unwrap_or_else(|error| panic!("openssl is needed for this test ({error}); `make test` installs it"));
        assert!(made.status.success(), "{made:?}");
        let pem = String::from_utf8(made.stdout).unwrap();
        self.sign(params(names), KeyPair::from_pem(&pem).unwrap())
    }

    /// For a server, and no longer valid.
    pub fn expired_server(&self, names: &[&str]) -> Leaf {
        let mut params = params(names);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 2, 1);
        self.sign(params, KeyPair::generate().unwrap())
    }

    /// For a server, and not valid yet.
    pub fn early_server(&self, names: &[&str]) -> Leaf {
        let mut params = params(names);
        params.not_before = rcgen::date_time_ymd(3000, 1, 1);
        self.sign(params, KeyPair::generate().unwrap())
    }

    /// For a client.
    pub fn client(&self, cn: &str, email: &str) -> Leaf {
        self.client_until(cn, email, rcgen::date_time_ymd(4096, 1, 1).into())
    }

    /// For a client, valid until then.
    pub fn client_until(&self, cn: &str, email: &str, end: SystemTime) -> Leaf {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(DnType::CommonName, cn);
        params.subject_alt_names = vec![SanType::Rfc822Name(email.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = end.into();
        self.sign(params, KeyPair::generate().unwrap())
    }

    fn sign(&self, params: CertificateParams, key: KeyPair) -> Leaf {
        Leaf {
            cert: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

/// For `name`, signed by itself, as `openssl req -x509` makes it: an authority's, and for any purpose.
pub fn self_signed(name: &str) -> Leaf {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Leaf {
        cert: params.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

impl Leaf {
    /// Writes `name.pem` and `name.key`, each beside and renamed over; the line of a configuration that names them.
    pub fn write(&self, directory: &Path, name: &str) -> String {
        let (cert, key) = (
            directory.join(format!("{name}.pem")),
            directory.join(format!("{name}.key")),
        );
        put(&key, &self.key);
        put(&cert, &self.cert);
        format!("{{ cert: {}, key: {} }}", cert.display(), key.display())
    }

    fn chain(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(self.cert.as_bytes())
            .map(Result::unwrap)
            .collect()
    }

    fn private(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }

    /// As [`Self::serves`], of one whose key need not be that of the certificate.
    pub fn pretends(&self) -> Arc<ServerConfig> {
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(self.unchecked())));
        Arc::new(config)
    }

    fn unchecked(&self) -> CertifiedKey {
        let key = provider().key_provider.load_private_key(self.private()).unwrap();
        CertifiedKey::new(self.chain(), key)
    }

    /// What a server with this certificate shakes hands by; it asks clients for certificates of `clients`, if there is one.
    pub fn serves(&self, clients: Option<&Authority>) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let verifier =
                    rustls::server::WebPkiClientVerifier::builder_with_provider(roots(authority).into(), provider());
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let mut config = builder.with_single_cert(self.chain(), self.private()).unwrap();
        config.ticketer = rustls::crypto::ring::Ticketer::new().unwrap();
        Arc::new(config)
    }
}

fn put(file: &Path, text: &str) {
    let other = file.with_extension("new");
    std::fs::write(&other, text).unwrap();
    std::fs::rename(other, file).unwrap();
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(authority: &Authority) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap())
        .unwrap();
    roots
}

/// A client's side of TLS: whom it trusts, what it speaks, what it shows. Its sessions are kept for resumption.
#[derive(Clone)]
pub struct Trust(Arc<ClientConfig>);

impl Trust {
    pub fn new(authority: &Authority) -> Self {
        Self::made(authority, &[&TLS13, &TLS12], None)
    }

    pub fn tls12(authority: &Authority) -> Self {
        Self::made(authority, &[&TLS12], None)
    }

    pub fn tls13(authority: &Authority) -> Self {
        Self::made(authority, &[&TLS13], None)
    }

    /// Shows `leaf` when it is asked.
    pub fn showing(authority: &Authority, leaf: &Leaf) -> Self {
        Self::made(authority, &[&TLS13, &TLS12], Some(leaf))
    }

    /// As [`Self::showing`], in TLS 1.2.
    pub fn tls12_showing(authority: &Authority, leaf: &Leaf) -> Self {
        Self::made(authority, &[&TLS12], Some(leaf))
    }

    /// Shows `leaf`, and signs with the key of `other`.
    pub fn pretending(authority: &Authority, leaf: &Leaf, other: &Leaf) -> Self {
        let shown = Leaf {
            cert: leaf.cert.clone(),
            key: other.key.clone(),
        };
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .unwrap()
            .with_root_certificates(roots(authority))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown.unchecked())));
        Self(Arc::new(config))
    }

    fn made(authority: &Authority, versions: &[&'static SupportedProtocolVersion], shown: Option<&Leaf>) -> Self {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots(authority));
        Self(Arc::new(match shown {
            None => builder.with_no_client_auth(),
            Some(leaf) => builder.with_client_auth_cert(leaf.chain(), leaf.private()).unwrap(),
        }))
    }

    /// Speaks another protocol (ALPN).
    pub fn speaking(&self, protocols: &[&str]) -> Self {
        let mut config = (*self.0).clone();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Self(Arc::new(config))
    }

    /// For clients of other libraries.
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0)
    }

    /// A connection to `name`, its handshake done.
    ///
    /// # Errors
    /// The handshake fails.
    pub fn connect(&self, tcp: TcpStream, name: &str) -> io::Result<Wire> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let session = ClientConnection::new(Arc::clone(&self.0), name).unwrap();
        let mut stream = StreamOwned::new(session, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Wire::Client(Box::new(stream)))
    }
}

/// A socket, plain or with TLS.
pub enum Wire {
    Plain(TcpStream),
    Client(Box<StreamOwned<ClientConnection, TcpStream>>),
    Server(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Wire {
    /// The server's side; the handshake happens with the first read.
    pub fn server(tcp: TcpStream, config: &Arc<ServerConfig>) -> Self {
        let session = ServerConnection::new(Arc::clone(config)).unwrap();
        Self::Server(Box::new(StreamOwned::new(session, tcp)))
    }

    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Client(tls) => &tls.sock,
            Self::Server(tls) => &tls.sock,
        }
    }

    /// Another handle of the socket.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn try_clone(&self) -> io::Result<TcpStream> {
        self.tcp().try_clone()
    }

    fn common(&self) -> &rustls::CommonState {
        match self {
            Self::Plain(_) => panic!("a plain connection"),
            Self::Client(tls) => &tls.conn,
            Self::Server(tls) => &tls.conn,
        }
    }

    /// `TLSv1_2` or `TLSv1_3`.
    pub fn version(&self) -> String {
        format!("{:?}", self.common().protocol_version().unwrap())
    }

    pub fn is_resumed(&self) -> bool {
        self.common().handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    pub fn alpn(&self) -> Option<String> {
        let protocol = self.common().alpn_protocol()?;
        Some(String::from_utf8_lossy(protocol).into_owned())
    }

    /// The peer's own certificate.
    pub fn peer_certificate(&self) -> Option<Vec<u8>> {
        Some(self.common().peer_certificates()?.first()?.to_vec())
    }

    /// The name a client asked a server for.
    pub fn sni(&self) -> Option<String> {
        match self {
            Self::Server(tls) => tls.conn.server_name().map(str::to_owned),
            _ => None,
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(buffer),
            Self::Client(tls) => tls.read(buffer),
            Self::Server(tls) => tls.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes),
            Self::Client(tls) => tls.write(bytes),
            Self::Server(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.flush(),
            Self::Client(tls) => tls.flush(),
            Self::Server(tls) => tls.flush(),
        }
    }
}

/// DER of a certificate in PEM.
pub fn der(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

/// The path of a file for tools that take no PEM on their command line.
pub fn file(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

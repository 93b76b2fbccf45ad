//! Files -> keys and certificates, or what the operator has to do about them.

use super::listed::Authorities;
use crate::opening::read_certificate;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of a file that are read; a longer one is refused.
const FILE_BYTES: u64 = 1 << 20;

/// What begins a certificate in PEM (RFC 7468 section 5.1).
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Why files cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", file.display())]
pub struct Unusable {
    /// The one to look at; empty for the authorities of the system.
    pub file: PathBuf,
    /// It is not there.
    pub missing: bool,
    pub why: String,
}

impl Unusable {
    fn new(file: &Path, why: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            missing: false,
            why: why.into(),
        }
    }
}

/// A certificate with its key.
pub struct Pair {
    pub certified: Arc<CertifiedKey>,
    /// The names it is for as a server.
    pub names: Vec<String>,
    /// Of its chain, the first to expire, in seconds since the Unix epoch.
    pub expires_s: i64,
    /// When the whole chain has begun to be valid.
    pub begins_s: i64,
}

impl Pair {
    /// Why it is not valid at this second since the Unix epoch; `None`: it is.
    pub fn untimely(&self, now_s: i64) -> Option<&'static str> {
        if self.expires_s < now_s {
            return Some("this certificate, or one of its chain, has expired");
        }
        (self.begins_s > now_s).then_some("this certificate, or one of its chain, is not valid yet")
    }
}

/// The certificate with its chain in `cert`, the key in `key`.
///
/// # Errors
/// One of them cannot be read, is not PEM, or they do not belong together.
pub fn pair(cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<Pair, Unusable> {
    let chain = chain(cert, &read(cert)?)?;
    let mut facts = Vec::with_capacity(chain.len());
    for (position, der) in chain.iter().enumerate() {
        let read = read_certificate(der);
        facts.push(read.map_err(|error| Unusable::new(cert, format!("certificate {} in it: {error}", position + 1)))?);
    }
    let private = private_key(key, &read(key)?)?;
    let belongs_to = |chain| CertifiedKey::from_der(chain, private.clone_key(), provider);
    let certified = belongs_to(chain.clone()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            let is_further_down = chain.iter().any(|der| belongs_to(vec![der.clone()]).is_ok());
            let (position, help) = if is_further_down {
                ("first ", ", but to another one in it: that one has to come first")
            } else {
                ("", "")
            };
            let cert = cert.display();
            Unusable::new(
                key,
                format!("this key does not belong to the {position}certificate in {cert}{help}"),
            )
        }
        rustls::Error::InvalidCertificate(error) => Unusable::new(
            cert,
            format!("this certificate cannot be used; it has to be one of X.509 version 3: {error:?}"),
        ),
        error => Unusable::new(
            key,
            format!("this key cannot be used (RSA of 2048 to 8192 bits, ECDSA on P-256 or P-384, Ed25519): {error}"),
        ),
    })?;
    let expires = facts.iter().map(|certificate| certificate.not_after_s).min();
    let begins = facts.iter().map(|certificate| certificate.not_before_s).max();
    Ok(Pair {
        certified: Arc::new(certified),
        names: facts
            .into_iter()
            .next()
            .map(|leaf| leaf.server_names)
            .unwrap_or_default(),
        expires_s: expires.unwrap_or_default(),
        begins_s: begins.unwrap_or_default(),
    })
}

/// The authorities in `file`, and peers that are trusted as they are.
///
/// # Errors
/// It cannot be read, or holds something else.
pub fn authorities(file: &Path) -> Result<Authorities, Unusable> {
    let mut roots = RootCertStore::empty();
    let certificates = chain(file, &read(file)?)?;
    for (position, der) in certificates.iter().enumerate() {
        let added = roots.add(der.clone());
        added.map_err(|error| Unusable::new(file, format!("certificate {} in it: {error}", position + 1)))?;
    }
    Ok(Authorities {
        roots: Arc::new(roots),
        listed: Arc::new(certificates.into_iter().collect()),
    })
}

/// The authorities that the system trusts. Those it has in a form that cannot be read are left out.
///
/// # Errors
/// There are none.
pub fn system_roots() -> Result<RootCertStore, Unusable> {
    const INSTEAD: &str = "install ca-certificates, set SSL_CERT_FILE, or `ca` for a pool";
    let found = rustls_native_certs::load_native_certs();
    let unusable = |why| Unusable::new(Path::new(""), why);
    let found =
        found.map_err(|error| unusable(format!("the system's authorities cannot be read: {error}: {INSTEAD}")))?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found);
    if roots.is_empty() {
        return Err(unusable(format!("the system has no authorities: {INSTEAD}")));
    }
    Ok(roots)
}

fn read(file: &Path) -> Result<Vec<u8>, Unusable> {
    let attempt = || {
        // Before it is opened: opening a pipe waits for its writer.
        if !std::fs::metadata(file)?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut bytes = Vec::new();
        File::open(file)?.take(FILE_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_BYTES {
            return Err(io::Error::other("larger than 1 MiB"));
        }
        Ok(bytes)
    };
    let mut bytes = attempt().map_err(|error| Unusable {
        file: file.to_owned(),
        missing: error.kind() == io::ErrorKind::NotFound,
        why: format!("cannot read it: {error}"),
    })?;
    // Some editors begin a text with it.
    if bytes.starts_with(BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(bytes)
}

fn chain(file: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let chain = chain.map_err(|error| Unusable::new(file, format!("broken PEM: {}", of_pem(&error))))?;
    if chain.is_empty() {
        let why = format!("no certificate in it: expected PEM with `{CERTIFICATE}`");
        return Err(Unusable::new(file, why));
    }
    let begun = begun(bytes);
    if begun > chain.len() {
        let why = format!(
            "only {} of {begun} certificates in it can be read: each `{CERTIFICATE}` must be at the beginning of a line",
            chain.len()
        );
        return Err(Unusable::new(file, why));
    }
    Ok(chain)
}

/// How many certificates somebody wrote: one that does not begin a line is passed over by the reader of PEM, and would be
/// missed by clients alone. Those in lines that are commented out are not meant.
fn begun(bytes: &[u8]) -> usize {
    let lines = bytes.split(|byte| matches!(byte, b'\n' | b'\r'));
    let meant = lines.filter(|line| !line.trim_ascii_start().starts_with(b"#"));
    meant
        .map(|line| memchr::memmem::find_iter(line, CERTIFICATE).count())
        .sum()
}

fn private_key(file: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, Unusable> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| {
        // As PKCS #8 has it, and as OpenSSL had it before (RFC 1421 section 4.6.1.1).
        let marks = ["-----BEGIN ENCRYPTED PRIVATE KEY-----", "Proc-Type: 4,ENCRYPTED"];
        let is_encrypted = marks
            .iter()
            .any(|mark| memchr::memmem::find(bytes, mark.as_bytes()).is_some());
        let why = match error {
            _ if is_encrypted => {
                "the key is encrypted: decrypt it (`openssl pkey -in KEY -out PLAIN_KEY`) and let nobody else read it"
                    .to_owned()
            }
            pem::Error::NoItemsFound => {
                "no private key in it: expected PEM with `-----BEGIN PRIVATE KEY-----`".to_owned()
            }
            error => format!("broken PEM: {}", of_pem(&error)),
        };
        Unusable::new(file, why)
    })
}

/// Without the bytes that the library would show: they may be those of a key.
fn of_pem(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section does not end",
        pem::Error::IllegalSectionStart { .. } => "a section begins wrongly",
        pem::Error::Base64Decode(_) => "a section is not base64",
        _ => "it cannot be decoded",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair};

    fn provider() -> CryptoProvider {
        rustls::crypto::ring::default_provider()
    }

    fn made(names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let cert = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        (cert.pem(), key.serialize_pem())
    }

    fn loaded(cert: &[u8], key: &[u8]) -> Result<Pair, Unusable> {
        let directory = tempfile::tempdir().unwrap();
        let (cert_file, key_file) = (directory.path().join("a.pem"), directory.path().join("a.key"));
        std::fs::write(&cert_file, cert).unwrap();
        std::fs::write(&key_file, key).unwrap();
        pair(&cert_file, &key_file, &provider())
    }

    /// A certificate without its version and its extensions, which then begins with its serial number (RFC 5280 section 4.1).
    fn of_version_1() -> Vec<u8> {
        use base64::prelude::{BASE64_STANDARD, Engine};
        let sequence = |content: &[u8]| {
            let length = u16::try_from(content.len()).unwrap().to_be_bytes();
            [&[0x30, 0x82], &length[..], content].concat()
        };
        let (pem, _) = made(&["a.test"]);
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let (_, whole) = x509_parser::parse_x509_certificate(&der).unwrap();
        let body = whole.tbs_certificate.as_ref();
        // Behind the header of the sequence (4 bytes) and the version (5); before the extensions.
        let key = whole.tbs_certificate.subject_pki.raw;
        let end = body.windows(key.len()).position(|window| window == key).unwrap() + key.len();
        let of_version_1 = sequence(&body[9..end]);
        let rest = &der[4 + body.len()..];
        let text = BASE64_STANDARD.encode(sequence(&[&of_version_1, rest].concat()));
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n").into_bytes()
    }

    fn why(cert: &[u8], key: &[u8]) -> (String, String) {
        let unusable = loaded(cert, key).err().unwrap();
        let name = unusable.file.file_name().unwrap().to_string_lossy().into_owned();
        (name, unusable.why)
    }

    #[test]
    fn a_pair_is_loaded_with_its_names() {
        let (cert, key) = made(&["shop.test", "*.shop.test"]);
        let pair = loaded(cert.as_bytes(), key.as_bytes()).unwrap();
        assert_eq!(pair.names, ["shop.test", "*.shop.test"]);
        assert!(pair.begins_s < pair.expires_s);
        let marked = [BYTE_ORDER_MARK, cert.as_bytes()].concat();
        assert!(loaded(&marked, key.as_bytes()).is_ok(), "a byte order mark");
        let both = format!("text before\n{key}{cert}");
        assert!(loaded(both.as_bytes(), both.as_bytes()).is_ok(), "one file for both");
    }

    #[test]
    fn the_first_of_a_chain_to_expire_counts() {
        let (cert, key) = made(&["shop.test"]);
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.not_after = rcgen::date_time_ymd(2026, 2, 1);
        let issuer = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        let pair = loaded(format!("{cert}{issuer}").as_bytes(), key.as_bytes()).unwrap();
        assert_eq!((pair.expires_s, pair.certified.cert.len()), (1_769_904_000, 2));
    }

    #[test]
    fn no_certificate_of_a_chain_is_passed_over() {
        let ((cert, key), (issuer, _)) = (made(&["a.test"]), made(&["issuer"]));
        let cert = cert.trim_end();
        for (joined, read) in [
            (format!("{cert}{issuer}"), None),
            (format!("{cert}\n\u{feff}{issuer}"), None),
            (format!("{cert}\nissuer: {issuer}"), None),
            (format!("{cert}\n# {CERTIFICATE}\n{issuer}"), Some(2)),
            (format!("{cert}\r\n{issuer}"), Some(2)),
        ] {
            match (loaded(joined.as_bytes(), key.as_bytes()), read) {
                (Ok(pair), Some(count)) => assert_eq!(pair.certified.cert.len(), count),
                (Err(unusable), None) => {
                    let why = unusable.to_string();
                    assert!(
                        why.contains("a.pem: only 1 of 2 certificates in it can be read"),
                        "{why}"
                    );
                }
                (got, _) => panic!("{joined}: {:?}", got.err()),
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        std::fs::write(&file, format!("{cert}{issuer}")).unwrap();
        assert!(authorities(&file).unwrap_err().why.contains("only 1 of 2"));
    }

    #[test]
    fn what_is_wrong_is_said_of_the_file_it_is_wrong_with() {
        let ((cert, key), (other, _)) = (made(&["a.test"]), made(&["b.test"]));
        let (cert, key) = (cert.as_bytes(), key.as_bytes());
        let expect = |(file, why): (String, String), expected: (&str, &str)| {
            assert!(file == expected.0 && why.contains(expected.1), "{file}: {why}");
        };
        expect(why(b"", key), ("a.pem", "no certificate in it"));
        expect(why(key, key), ("a.pem", "no certificate in it"));
        expect(why(cert, b""), ("a.key", "no private key in it"));
        expect(why(cert, cert), ("a.key", "no private key in it"));
        expect(
            why(other.as_bytes(), key),
            ("a.key", "does not belong to the certificate in"),
        );
        expect(
            why(&[other.as_bytes(), cert].concat(), key),
            ("a.key", "in it: that one has to come first"),
        );
        let encrypted = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
        expect(why(cert, encrypted), ("a.key", "the key is encrypted"));
        let encrypted = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END EC \
                         PRIVATE KEY-----\n";
        expect(why(cert, encrypted.as_bytes()), ("a.key", "the key is encrypted"));
        expect(
            why(&of_version_1(), key),
            ("a.pem", "it has to be one of X.509 version 3"),
        );
        let section = |content: &str| format!("-----BEGIN CERTIFICATE-----\n{content}\n-----END CERTIFICATE-----\n");
        expect(why(section("$$$$").as_bytes(), key), ("a.pem", "not base64"));
        expect(
            why(section("AAAA").as_bytes(), key),
            ("a.pem", "certificate 1 in it: not an X.509"),
        );
        expect(
            why(b"-----BEGIN CERTIFICATE-----\nAAAA\n", key),
            ("a.pem", "does not end"),
        );
        let short = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        expect(why(cert, short), ("a.key", "this key cannot be used"));
        expect(why(&vec![b'x'; (1 << 20) + 1], key), ("a.pem", "larger than 1 MiB"));
        let missing = pair(
            Path::new("/nonexistent/a.pem"),
            Path::new("/nonexistent/a.key"),
            &provider(),
        );
        let missing = missing.err().unwrap();
        assert!(missing.missing && missing.why.contains("No such file"), "{missing:?}");
        let directory = tempfile::tempdir().unwrap();
        let unusable = authorities(directory.path()).unwrap_err();
        assert!(!unusable.missing && unusable.why.contains("not a regular file"));
    }

    #[test]
    fn no_part_of_the_files_is_taken_for_the_whole_and_none_panics() {
        let (cert, key) = made(&["a.test"]);
        let (cert, key) = (cert.trim_end().as_bytes(), key.trim_end().as_bytes());
        for end in (0..cert.len()).step_by(7) {
            assert!(loaded(&cert[..end], key).is_err(), "{end} bytes of the certificate");
        }
        for end in (0..key.len()).step_by(5) {
            assert!(loaded(cert, &key[..end]).is_err(), "{end} bytes of the key");
        }
        for at in (0..cert.len()).step_by(11) {
            let mut other = cert.to_vec();
            other[at] ^= 0x15;
            let _ = loaded(&other, key);
        }
    }

    #[test]
    fn an_error_shows_nothing_of_a_key() {
        let secret = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg";
        for key in [
            format!("-----BEGIN PRIVATE KEY-----\n{secret}$$$\n-----END PRIVATE KEY-----\n"),
            format!("-----BEGIN PRIVATE KEY-----\n{secret}\n"),
            format!("-----BEGIN {secret}\n"),
        ] {
            let (cert, _) = made(&["a.test"]);
            let (_, why) = why(cert.as_bytes(), key.as_bytes());
            assert!(!why.contains("MIGH"), "{why}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_bytes_are_decided(cert in prop::collection::vec(any::<u8>(), 0..80), sections in any::<bool>()) {
            let text = if sections {
                [b"-----BEGIN CERTIFICATE-----\n", &cert[..], b"\n-----END CERTIFICATE-----\n"].concat()
            } else {
                cert
            };
            prop_assert!(loaded(&text, &text).is_err());
        }
    }
}

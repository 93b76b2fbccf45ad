use super::*;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::CertificateError as Bad;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// As `openssl req -x509` makes it: signed by itself, and an authority's. Valid in 2026.
fn made(name: &str, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2027, 1, 1);
    change(&mut params);
    let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    certificate.der().clone()
}

fn listing(certificates: &[&CertificateDer<'static>]) -> Authorities {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add((*certificate).clone()).unwrap();
    }
    Authorities {
        roots: Arc::new(roots),
        listed: Arc::new(certificates.iter().map(|&certificate| certificate.clone()).collect()),
    }
}

const NEW_YEAR_2026_S: u64 = 1_767_225_600;
const NEW_YEAR_2027_S: u64 = 1_798_761_600;

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
}

fn server(authorities: &Authorities, shown: &CertificateDer<'_>, name: &str, now_s: u64) -> Result<(), Error> {
    let verifier = authorities.of_servers(&provider()).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    verifier
        .verify_server_cert(shown, &[], &name, &[], at(now_s))
        .map(|_| ())
}

fn client(authorities: &Authorities, shown: &CertificateDer<'_>, now_s: u64) -> Result<(), Error> {
    let verifier = authorities.of_clients(true, &provider()).unwrap();
    verifier.verify_client_cert(shown, &[], at(now_s)).map(|_| ())
}

#[test]
fn one_that_is_listed_is_trusted_at_its_time_and_by_its_name() {
    let listed = made("shop.test", |_| ());
    let authorities = listing(&[&made("other.test", |_| ()), &listed]);
    for now_s in [NEW_YEAR_2026_S, NEW_YEAR_2027_S] {
        assert_eq!(server(&authorities, &listed, "shop.test", now_s), Ok(()));
        assert_eq!(client(&authorities, &listed, now_s), Ok(()));
    }
    for (now_s, early) in [(NEW_YEAR_2026_S - 1, true), (NEW_YEAR_2027_S + 1, false), (0, true)] {
        for refused in [
            server(&authorities, &listed, "shop.test", now_s),
            client(&authorities, &listed, now_s),
        ] {
            match refused.unwrap_err() {
                Error::InvalidCertificate(Bad::NotValidYetContext { .. }) => assert!(early),
                Error::InvalidCertificate(Bad::ExpiredContext { .. }) => assert!(!early),
                other => panic!("{other}"),
            }
        }
    }
    let refused = server(&authorities, &listed, "other.test", NEW_YEAR_2026_S).unwrap_err();
    assert!(
        matches!(refused, Error::InvalidCertificate(Bad::NotValidForNameContext { .. })),
        "{refused}"
    );
}

#[test]
fn one_that_is_not_listed_byte_for_byte_is_not() {
    let listed = made("shop.test", |_| ());
    let authorities = listing(&[&listed]);
    let twin = made("shop.test", |_| ());
    assert!(server(&authorities, &twin, "shop.test", NEW_YEAR_2026_S).is_err());
    assert!(client(&authorities, &twin, NEW_YEAR_2026_S).is_err());
    for at in 0..listed.len() {
        let mut other = listed.to_vec();
        other[at] ^= 1;
        let other = CertificateDer::from(other);
        assert!(
            server(&authorities, &other, "shop.test", NEW_YEAR_2026_S).is_err(),
            "{at}"
        );
        assert!(client(&authorities, &other, NEW_YEAR_2026_S).is_err(), "{at}");
    }
}

#[test]
fn what_it_is_meant_for_counts() {
    let only = |purpose| made("shop.test", |params| params.extended_key_usages = vec![purpose]);
    let (of_server, of_client) = (
        only(ExtendedKeyUsagePurpose::ServerAuth),
        only(ExtendedKeyUsagePurpose::ClientAuth),
    );
    let authorities = listing(&[&of_server, &of_client]);
    assert_eq!(server(&authorities, &of_server, "shop.test", NEW_YEAR_2026_S), Ok(()));
    assert_eq!(client(&authorities, &of_client, NEW_YEAR_2026_S), Ok(()));
    let refused = Err(Error::InvalidCertificate(Bad::InvalidPurpose));
    assert_eq!(server(&authorities, &of_client, "shop.test", NEW_YEAR_2026_S), refused);
    assert_eq!(client(&authorities, &of_server, NEW_YEAR_2026_S), refused);
}

#[test]
fn an_authority_vouches_for_others_as_ever() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap().der().clone();
    let issuer = Issuer::new(params, key);
    let leaf = CertificateParams::new(vec!["shop.test".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
    let authorities = listing(&[&authority]);
    assert_eq!(server(&authorities, leaf.der(), "shop.test", NEW_YEAR_2026_S), Ok(()));
    assert!(server(&authorities, leaf.der(), "other.test", NEW_YEAR_2026_S).is_err());
    assert_eq!(client(&authorities, leaf.der(), NEW_YEAR_2026_S), Ok(()));
    assert_eq!(
        authorities
            .of_clients(true, &provider())
            .unwrap()
            .root_hint_subjects()
            .len(),
        1
    );
    let optional = authorities.of_clients(false, &provider()).unwrap();
    assert!(optional.offer_client_auth() && !optional.client_auth_mandatory());
}

//! What a certificate says (RFC 5280), as far as the proxy acts on it.

use std::net::{Ipv4Addr, Ipv6Addr};
use x509_parser::der_parser::asn1_rs::Tag;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{AttributeTypeAndValue, FromDer, X509Certificate};

/// A certificate's facts. Nothing here says that anybody vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The first common name of the subject.
    pub subject_cn: Option<String>,
    /// Subject alternative names as text: DNS names, email addresses, URIs, IP addresses.
    pub san: Vec<String>,
    /// The names it is for as a server: its DNS names; without any, the common name.
    pub server_names: Vec<String>,
    /// Whether its key may be used by a server, as far as its extended key usage says (RFC 5280 section 4.2.1.12).
    pub for_servers: bool,
    /// Likewise by a client.
    pub for_clients: bool,
    /// Seconds since the Unix epoch.
    pub not_before_s: i64,
    /// Seconds since the Unix epoch.
    pub not_after_s: i64,
}

/// Bytes that are no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an X.509 certificate")]
pub struct NoCertificate;

/// Reads a certificate in DER. Names that are no text are left out.
///
/// # Errors
/// The bytes are no certificate.
pub fn read_certificate(der: &[u8]) -> Result<Certificate, NoCertificate> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| NoCertificate)?;
    let subject_cn = certificate.subject().iter_common_name().find_map(text_of);
    let names = certificate.subject_alternative_name().map_err(|_| NoCertificate)?;
    let names = names.map(|names| &*names.value.general_names).unwrap_or_default();
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    };
    let mut server_names: Vec<String> = names.iter().filter_map(dns).collect();
    if server_names.is_empty() {
        server_names.extend(subject_cn.clone());
    }
    let usage = certificate.extended_key_usage().map_err(|_| NoCertificate)?;
    let usage = usage.map(|usage| usage.value);
    Ok(Certificate {
        subject_cn,
        san: names.iter().filter_map(text).collect(),
        server_names,
        for_servers: usage.is_none_or(|usage| usage.any || usage.server_auth),
        for_clients: usage.is_none_or(|usage| usage.any || usage.client_auth),
        not_before_s: certificate.validity().not_before.timestamp(),
        not_after_s: certificate.validity().not_after.timestamp(),
    })
}

/// The value of an attribute as text: of any kind of string, BMPString (UCS-2, X.680 section 8) included.
fn text_of(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let value = attribute.attr_value();
    if value.tag() != Tag::BmpString {
        return attribute.as_str().ok().map(str::to_owned);
    }
    let (units, rest) = value.data.as_chunks::<2>();
    let units: Vec<u16> = units.iter().map(|&unit| u16::from_be_bytes(unit)).collect();
    String::from_utf16(&units).ok().filter(|_| rest.is_empty())
}

fn text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(text) | GeneralName::RFC822Name(text) | GeneralName::URI(text) => Some((*text).to_owned()),
        GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
            Ok(v4) => Some(Ipv4Addr::from(v4).to_string()),
            Err(_) => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|v6| Ipv6Addr::from(v6).to_string()),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn made(names: &[&str], cn: Option<&str>, san: &[SanType]) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(cn) = cn {
            params.distinguished_name.push(DnType::CommonName, cn);
        }
        params.subject_alt_names.extend_from_slice(san);
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2027, 1, 1);
        params
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap()
            .der()
            .to_vec()
    }

    #[test]
    fn names_and_dates_are_read() {
        let san = [
            SanType::Rfc822Name("ops@example.com".try_into().unwrap()),
            SanType::URI("spiffe://example.com/ops".try_into().unwrap()),
            SanType::IpAddress("2001:db8::1".parse().unwrap()),
            SanType::IpAddress("192.0.2.1".parse().unwrap()),
        ];
        let certificate = read_certificate(&made(&["shop.test", "*.shop.test"], Some("ops"), &san)).unwrap();
        assert_eq!(certificate.subject_cn.as_deref(), Some("ops"));
        assert_eq!(certificate.server_names, ["shop.test", "*.shop.test"]);
        assert_eq!(
            certificate.san,
            [
                "shop.test",
                "*.shop.test",
                "ops@example.com",
                "spiffe://example.com/ops",
                "2001:db8::1",
                "192.0.2.1"
            ]
        );
        assert_eq!(certificate.not_before_s, 1_767_225_600);
        assert_eq!(certificate.not_after_s, 1_798_761_600);
    }

    #[test]
    fn a_common_name_of_two_bytes_a_letter_is_text() {
        let bmp = |name: &str| {
            let mut params = CertificateParams::new(vec![]).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            let name = rcgen::string::BmpString::try_from(name).unwrap();
            params
                .distinguished_name
                .push(DnType::CommonName, rcgen::DnValue::BmpString(name));
            params
                .self_signed(&KeyPair::generate().unwrap())
                .unwrap()
                .der()
                .to_vec()
        };
        let certificate = read_certificate(&bmp("Ops Büro")).unwrap();
        assert_eq!(certificate.subject_cn.as_deref(), Some("Ops Büro"));
    }

    #[test]
    fn without_alternative_names_the_common_name_is_the_servers() {
        let certificate = read_certificate(&made(&[], Some("old.test"), &[])).unwrap();
        assert_eq!(
            (certificate.server_names, certificate.san),
            (vec!["old.test".to_owned()], vec![])
        );
        let nameless = read_certificate(&made(&[], None, &[])).unwrap();
        assert!(nameless.subject_cn.is_none() && nameless.server_names.is_empty());
    }

    #[test]
    fn no_part_of_a_certificate_and_no_other_byte_in_it_panics() {
        let der = made(&["shop.test"], Some("shop"), &[]);
        for end in 0..der.len() {
            assert_eq!(read_certificate(&der[..end]), Err(NoCertificate), "{end}");
        }
        for at in 0..der.len() {
            for byte in [0, 1, 0x30, 0x7f, 0x80, 0xff] {
                let mut other = der.clone();
                other[at] = byte;
                let _ = read_certificate(&other);
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_decided(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(read_certificate(&bytes), Err(NoCertificate));
        }
    }
}

use super::*;
use proptest::prelude::*;

fn written(version: ProxyVersion, addresses: Option<&Addresses>) -> Vec<u8> {
    let mut out = Vec::new();
    write_proxy_header(&mut out, version, addresses);
    out
}

fn addresses(source: &str, destination: &str) -> Addresses {
    Addresses {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [V2_SIGNATURE, &[command, family], &length, payload].concat()
}

#[test]
fn headers_of_the_specification() {
    let line = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\nGET / HTTP/1.1\r\n";
    let header = parse_proxy_header(line).unwrap().unwrap();
    assert_eq!(header.len, 47);
    assert_eq!(
        header.addresses,
        Some(addresses("192.168.0.1:56324", "192.168.0.11:443"))
    );
    let longest = format!("PROXY UNKNOWN {0} {0} 65535 65535\r\n", ["ffff"; 8].join(":"));
    assert_eq!(longest.len(), V1_MAX_BYTES);
    let header = parse_proxy_header(longest.as_bytes()).unwrap().unwrap();
    assert_eq!((header.len, header.addresses), (V1_MAX_BYTES, None));
    let header = parse_proxy_header(b"PROXY UNKNOWN\r\n").unwrap().unwrap();
    assert_eq!((header.len, header.addresses), (15, None));
    let six = b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n";
    let header = parse_proxy_header(six).unwrap().unwrap();
    assert_eq!(
        header.addresses,
        Some(addresses("[2001:db8::1]:1", "[2001:db8::2]:65535"))
    );
}

#[test]
fn lines_that_break_the_specification() {
    for line in [
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n",
        "PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3.4 ::1 1 2\r\n",
        "PROXY TCP6 1.2.3.4 ::1 1 2\r\n",
        "PROXY TCP6 [::1] ::1 1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4  2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
        "PROXY UNKNOWNX\r\n",
    ] {
        assert_eq!(
            parse_proxy_header(line.as_bytes()),
            Err(ProxyHeaderError::Line),
            "{line:?}"
        );
    }
    assert_eq!(
        parse_proxy_header(b"PROXY UNKNOWN \xb5\r\n"),
        Err(ProxyHeaderError::Line)
    );
    let endless = format!("PROXY UNKNOWN {}", " ".repeat(V1_MAX_BYTES));
    assert_eq!(parse_proxy_header(endless.as_bytes()), Err(ProxyHeaderError::Line));
}

#[test]
fn other_protocols_are_known_by_their_first_bytes() {
    for bytes in ["GET / HTTP/1.1", "P GET", "\u{16}\u{3}\u{1}", "\r\nGET", "\r\n\r\n\r"] {
        assert_eq!(
            parse_proxy_header(bytes.as_bytes()),
            Err(ProxyHeaderError::Missing),
            "{bytes:?}"
        );
    }
    assert_eq!(parse_proxy_header(b""), Ok(None));
}

#[test]
fn binary_headers_that_tell_no_address() {
    for (command, family, payload) in [
        (0x20, 0x00, &[][..]),
        (0x20, 0x11, &[1, 2, 3]),
        (0x20, 0xff, &[]),
        (0x21, 0x00, &[9; 40]),
        (0x21, 0x12, &[9; 12]),
        (0x21, 0x31, &[9; 216]),
        (0x21, 0x32, &[]),
    ] {
        let bytes = v2(command, family, payload);
        let header = parse_proxy_header(&bytes).unwrap().unwrap();
        assert_eq!((header.len, header.addresses), (bytes.len(), None), "{family:x}");
    }
}

#[test]
fn binary_headers_that_break_the_specification() {
    for (command, family, payload, error) in [
        (0x22, 0x11, &[0; 12][..], ProxyHeaderError::Command),
        (0x11, 0x11, &[0; 12], ProxyHeaderError::Command),
        (0x31, 0x11, &[0; 12], ProxyHeaderError::Command),
        (0x21, 0x13, &[0; 12], ProxyHeaderError::Family),
        (0x21, 0x41, &[0; 12], ProxyHeaderError::Family),
        (0x21, 0x11, &[0; 11], ProxyHeaderError::Short),
        (0x21, 0x21, &[0; 35], ProxyHeaderError::Short),
        (0x21, 0x11, &[0; MAX_HEADER_BYTES - 15], ProxyHeaderError::Long),
    ] {
        assert_eq!(parse_proxy_header(&v2(command, family, payload)), Err(error));
    }
    let largest = v2(0x21, 0x11, &[7; MAX_HEADER_BYTES - 16]);
    assert_eq!(parse_proxy_header(&largest).unwrap().unwrap().len, MAX_HEADER_BYTES);
}

#[test]
fn families_that_differ_are_told_as_v6() {
    let mixed = addresses("192.0.2.1:5", "[2001:db8::9]:443");
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let header = parse_proxy_header(&written(version, Some(&mixed))).unwrap().unwrap();
        assert_eq!(
            header.addresses,
            Some(addresses("[::ffff:192.0.2.1]:5", "[2001:db8::9]:443"))
        );
    }
    let mapped = addresses("[::ffff:192.0.2.1]:5", "192.0.2.2:80");
    let line = written(ProxyVersion::V1, Some(&mapped));
    assert_eq!(line, b"PROXY TCP4 192.0.2.1 192.0.2.2 5 80\r\n");
}

fn any_addresses() -> impl Strategy<Value = Addresses> {
    let v4 = (any::<[u8; 4]>(), any::<[u8; 4]>()).prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b)));
    let v6 = (any::<[u8; 16]>(), any::<[u8; 16]>()).prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b)));
    (prop_oneof![v4, v6], any::<u16>(), any::<u16>()).prop_map(|((source, destination), from, to)| Addresses {
        source: SocketAddr::new(source, from),
        destination: SocketAddr::new(destination, to),
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_and_no_beginning_of_it_is(
        addresses in prop::option::of(any_addresses()),
        first in any::<bool>(),
        rest in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let version = if first { ProxyVersion::V1 } else { ProxyVersion::V2 };
        let bytes = written(version, addresses.as_ref());
        for end in 0..bytes.len() {
            prop_assert_eq!(parse_proxy_header(&bytes[..end]), Ok(None));
        }
        let header = parse_proxy_header(&[&bytes[..], &rest[..]].concat()).unwrap().unwrap();
        prop_assert_eq!(header, ProxyHeader { len: bytes.len(), addresses });
    }

    #[test]
    fn fields_behind_the_addresses_change_nothing(
        addresses in any_addresses(),
        fields in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut bytes = written(ProxyVersion::V2, Some(&addresses));
        let length = u16::from_be_bytes([bytes[14], bytes[15]]) + u16::try_from(fields.len()).unwrap();
        bytes[14..16].copy_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&fields);
        let header = parse_proxy_header(&bytes).unwrap().unwrap();
        prop_assert_eq!(header, ProxyHeader { len: bytes.len(), addresses: Some(addresses) });
    }

    #[test]
    fn any_bytes_are_decided_within_the_bound(bytes in prop::collection::vec(any::<u8>(), 0..200), signed in any::<bool>()) {
        let bytes = if signed { [V2_SIGNATURE, &bytes[..]].concat() } else { bytes };
        if let Ok(Some(header)) = parse_proxy_header(&bytes) {
            prop_assert!(header.len <= bytes.len().min(MAX_HEADER_BYTES));
        }
        let full = [&bytes[..], &vec![b' '; MAX_HEADER_BYTES][..]].concat();
        prop_assert_ne!(parse_proxy_header(&full), Ok(None), "undecided past the bound");
    }
}

//! Who the client is, and the identifiers a request carries.

use crate::routing::HeaderFields;
use ipnet::IpNet;
use std::net::IpAddr;

/// Hops of a forwarding chain that are looked at; a longer one is believed no further.
const MAX_HOPS: usize = 64;

/// Whether `address` is one of `networks`.
pub fn is_trusted(address: IpAddr, networks: &[IpNet]) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// The client's address: the peer's own, or, where the peer is a trusted proxy, the nearest address of the forwarding
/// chain that is not trusted. `X-Forwarded-For` is preferred to `Forwarded` (RFC 7239). An entry that is no address
/// ends the chain: the last good one stands.
pub fn client_address(peer: IpAddr, fields: &dyn HeaderFields, trusted: &[IpNet]) -> IpAddr {
    if !is_trusted(peer, trusted) {
        return peer;
    }
    let (name, read): (_, fn(&str) -> Option<IpAddr>) = match fields.nth("x-forwarded-for", 0) {
        Some(_) => ("x-forwarded-for", address_of),
        None => ("forwarded", forwarded_for),
    };
    let lines = (0..MAX_HOPS).take_while(|&n| fields.nth(name, n).is_some()).count();
    let mut client = peer;
    let mut hops = 0;
    for line in (0..lines).rev().filter_map(|n| fields.nth(name, n)) {
        for entry in line.rsplit(|&byte| byte == b',') {
            let address = std::str::from_utf8(entry).ok().and_then(|entry| read(entry.trim()));
            let Some(address) = address else { return client };
            client = address;
            hops += 1;
            if hops == MAX_HOPS || !is_trusted(client, trusted) {
                return client;
            }
        }
    }
    client
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn address_of(text: &str) -> Option<IpAddr> {
    let bare = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None if text.matches(':').count() == 1 => text.split_once(':')?.0,
        None => text,
    };
    bare.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// The `for` parameter of one element of `Forwarded` (RFC 7239 section 5.2); obfuscated names are no address.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let value = element.split(';').find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        name.eq_ignore_ascii_case("for").then_some(value)
    })?;
    address_of(value.trim_matches('"'))
}

/// 32 lowercase hexadecimal digits: a request id.
pub fn hex_id(id: u128) -> [u8; 32] {
    let mut text = [b'0'; 32];
    write_hex(&mut text, id);
    text
}

/// A fresh W3C `traceparent` (level 1), not sampled: the proxy records no span of its own for it.
pub fn traceparent(trace: u128, span: u64) -> [u8; 55] {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    // All-zero ids are invalid.
    if let Some(digits) = text.get_mut(3..35) {
        write_hex(digits, trace.max(1));
    }
    if let Some(digits) = text.get_mut(36..52) {
        write_hex(digits, u128::from(span.max(1)));
    }
    text
}

fn write_hex(digits: &mut [u8], value: u128) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
    for (pair, byte) in digits.rchunks_exact_mut(2).zip(value.to_le_bytes()) {
        if let [high, low] = pair {
            (*high, *low) = (digit(byte >> 4), digit(byte & 15));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fields(Vec<(&'static str, &'static str)>);

    impl HeaderFields for Fields {
        fn nth(&self, name: &str, n: usize) -> Option<&[u8]> {
            self.0
                .iter()
                .filter(|(field, _)| *field == name)
                .nth(n)
                .map(|(_, value)| value.as_bytes())
        }
    }

    fn client(peer: &str, fields: &[(&'static str, &'static str)]) -> String {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        client_address(peer.parse().unwrap(), &Fields(fields.to_vec()), &trusted).to_string()
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_says() {
        assert_eq!(client("192.0.2.7", &[("x-forwarded-for", "1.2.3.4")]), "192.0.2.7");
    }

    #[test]
    fn the_nearest_untrusted_hop_is_the_client() {
        assert_eq!(
            client("10.0.0.1", &[("x-forwarded-for", "6.6.6.6, 1.2.3.4, 10.0.0.9")]),
            "1.2.3.4"
        );
        assert_eq!(
            client(
                "10.0.0.1",
                &[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "1.2.3.4:99")]
            ),
            "1.2.3.4"
        );
        assert_eq!(
            client("10.0.0.1", &[("x-forwarded-for", "[2001:dead::1]:8080")]),
            "2001:dead::1"
        );
        assert_eq!(
            client("10.0.0.1", &[("x-forwarded-for", "10.9.9.9, 10.8.8.8")]),
            "10.9.9.9"
        );
    }

    #[test]
    fn what_is_no_address_ends_the_chain() {
        assert_eq!(
            client("10.0.0.1", &[("x-forwarded-for", "1.2.3.4, unknown")]),
            "10.0.0.1"
        );
        assert_eq!(
            client("10.0.0.1", &[("x-forwarded-for", "1.2.3.4, unknown, 10.0.0.2")]),
            "10.0.0.2"
        );
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn forwarded_is_read_where_x_forwarded_for_is_absent() {
        let fields = [("forwarded", r#"for=6.6.6.6, For="[2001:dead::7]:47011";proto=https"#)];
        assert_eq!(client("10.0.0.1", &fields), "2001:dead::7");
    }

    #[test]
    fn identifiers_have_their_published_form() {
        assert_eq!(&hex_id(0xabc)[..], b"00000000000000000000000000000abc");
        let text = String::from_utf8(traceparent(0, 0x1f).to_vec()).unwrap();
        assert_eq!(text, "00-00000000000000000000000000000001-000000000000001f-00");
    }
}

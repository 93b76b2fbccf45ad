//! Who is trusted, and the identifiers a request carries.

use ipnet::IpNet;
use std::net::IpAddr;

/// Whether `address` is one of `networks`.
pub fn is_trusted(address: IpAddr, networks: &[IpNet]) -> bool {
    networks.iter().any(|network| network.contains(&address))
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

    #[test]
    fn identifiers_have_their_published_form() {
        assert_eq!(&hex_id(0xabc)[..], b"00000000000000000000000000000abc");
        let text = String::from_utf8(traceparent(0, 0x1f).to_vec()).unwrap();
        assert_eq!(text, "00-00000000000000000000000000000001-000000000000001f-00");
    }
}

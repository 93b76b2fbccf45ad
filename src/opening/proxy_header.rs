//! The PROXY protocol, versions 1 and 2 (the specification is HAProxy's `doc/proxy-protocol.txt`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes of a header that are read at most. Version 2 could have 64 KiB; what balancers put behind the addresses (an id,
/// the name of a certificate) takes some hundred.
pub const MAX_HEADER_BYTES: usize = 4096;

/// Bytes of a line of version 1 at most, with its end.
const V1_MAX_BYTES: usize = 107;
const V1_BEGIN: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const V2_FIXED_BYTES: usize = 16;

/// Which form of the header is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyVersion {
    V1,
    V2,
}

/// Who connected, and to where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Addresses {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// A header that was received whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Its bytes; what follows is the connection's own.
    pub len: usize,
    /// `None`: the sender speaks for itself (LOCAL), or of a connection without IP addresses (UNKNOWN, a unix socket): the
    /// addresses of the TCP connection stand.
    pub addresses: Option<Addresses>,
}

/// Why bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyHeaderError {
    #[error("the connection does not begin with a PROXY protocol header")]
    Missing,
    #[error("a PROXY header of version 1 that is malformed")]
    Line,
    #[error("a PROXY header of version 2 with an unknown version or command")]
    Command,
    #[error("a PROXY header of version 2 with an unknown address family or transport")]
    Family,
    #[error("a PROXY header of version 2 that is shorter than its addresses")]
    Short,
    #[error("a PROXY header longer than {MAX_HEADER_BYTES} bytes")]
    Long,
}

/// The header that `bytes` begin with; `None`: it has not come whole yet. Additional fields of version 2 (TLVs) are
/// skipped unread. Decides as early as it can: bytes that cannot become a header are an error at once.
///
/// # Errors
/// The bytes are no header, or a longer one than [`MAX_HEADER_BYTES`].
pub fn parse_proxy_header(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    if begins(bytes, V2_SIGNATURE) {
        parse_v2(bytes)
    } else if begins(bytes, V1_BEGIN) {
        parse_v1(bytes)
    } else {
        Err(ProxyHeaderError::Missing)
    }
}

/// Whether `bytes`, as far as they have come, are the beginning of what starts with `begin`.
fn begins(bytes: &[u8], begin: &[u8]) -> bool {
    bytes.iter().zip(begin).all(|(a, b)| a == b)
}

fn parse_v1(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let within = bytes.get(..V1_MAX_BYTES).unwrap_or(bytes);
    let Some(end) = memchr::memchr(b'\n', within) else {
        return if bytes.len() < V1_MAX_BYTES {
            Ok(None)
        } else {
            Err(ProxyHeaderError::Line)
        };
    };
    let line = bytes
        .get(V1_BEGIN.len()..end)
        .and_then(|line| line.strip_suffix(b"\r"))
        .and_then(|line| std::str::from_utf8(line).ok())
        .ok_or(ProxyHeaderError::Line)?;
    let addresses = if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        None
    } else {
        Some(v1_addresses(line).ok_or(ProxyHeaderError::Line)?)
    };
    Ok(Some(ProxyHeader {
        len: end + 1,
        addresses,
    }))
}

/// `TCP4 192.0.2.1 192.0.2.9 56324 443`
fn v1_addresses(line: &str) -> Option<Addresses> {
    let mut words = line.split(' ');
    let family = words.next()?;
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (source, destination) = (address()?, address()?);
    let mut port = || words.next().and_then(decimal_port);
    let addresses = Addresses {
        source: SocketAddr::new(source, port()?),
        destination: SocketAddr::new(destination, port()?),
    };
    words.next().is_none().then_some(addresses)
}

/// Digits only, without leading zeros, as the specification asks.
fn decimal_port(word: &str) -> Option<u16> {
    let good = word == "0" || (word.bytes().all(|b| b.is_ascii_digit()) && !word.starts_with('0'));
    word.parse().ok().filter(|_| good)
}

fn parse_v2(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let command = match bytes.get(12) {
        None => return Ok(None),
        Some(0x20) => Command::Local,
        Some(0x21) => Command::Proxy,
        Some(_) => return Err(ProxyHeaderError::Command),
    };
    let family = match bytes.get(13) {
        None => return Ok(None),
        Some(0x11) => Family::Tcp4,
        Some(0x21) => Family::Tcp6,
        // Unspecified, datagrams, unix sockets: valid, and no address of a TCP connection.
        Some(0x00 | 0x12 | 0x22 | 0x31 | 0x32) => Family::Other,
        // A connection of its own has none to tell: what stands there is ignored.
        Some(_) if command == Command::Local => Family::Other,
        Some(_) => return Err(ProxyHeaderError::Family),
    };
    let Some(&[high, low]) = bytes.get(14..V2_FIXED_BYTES) else {
        return Ok(None);
    };
    let len = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if len > MAX_HEADER_BYTES {
        return Err(ProxyHeaderError::Long);
    }
    let needed = match (command, family) {
        (Command::Local, _) | (_, Family::Other) => 0,
        (Command::Proxy, Family::Tcp4) => 12,
        (Command::Proxy, Family::Tcp6) => 36,
    };
    if len < V2_FIXED_BYTES + needed {
        return Err(ProxyHeaderError::Short);
    }
    let Some(payload) = bytes.get(V2_FIXED_BYTES..len) else {
        return Ok(None);
    };
    let addresses = match needed {
        0 => None,
        12 => v2_addresses::<4>(payload),
        _ => v2_addresses::<16>(payload),
    };
    Ok(Some(ProxyHeader { len, addresses }))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Command {
    Local,
    Proxy,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Tcp4,
    Tcp6,
    Other,
}

/// Source, destination, source's port, destination's port; an address has `N` bytes.
fn v2_addresses<const N: usize>(payload: &[u8]) -> Option<Addresses>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = payload.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (source_port, rest) = rest.split_first_chunk()?;
    let (destination_port, _) = rest.split_first_chunk()?;
    Some(Addresses {
        source: SocketAddr::new(IpAddr::from(*source), u16::from_be_bytes(*source_port)),
        destination: SocketAddr::new(IpAddr::from(*destination), u16::from_be_bytes(*destination_port)),
    })
}

/// Writes a header. `None`: of a connection of our own (a probe): UNKNOWN in version 1, LOCAL in version 2. Addresses of
/// different families are both told as IPv6, the IPv4 one mapped.
pub fn write_proxy_header(out: &mut Vec<u8>, version: ProxyVersion, addresses: Option<&Addresses>) {
    let addresses = addresses.map(|addresses| {
        let (source, destination) = (addresses.source.ip(), addresses.destination.ip());
        let pair = match (source.to_canonical(), destination.to_canonical()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Pair::V4(source, destination),
            (source, destination) => Pair::V6(as_v6(source), as_v6(destination)),
        };
        (pair, addresses.source.port(), addresses.destination.port())
    });
    match version {
        ProxyVersion::V1 => write_v1(out, addresses),
        ProxyVersion::V2 => write_v2(out, addresses),
    }
}

enum Pair {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

fn write_v1(out: &mut Vec<u8>, addresses: Option<(Pair, u16, u16)>) {
    let line = match addresses {
        None => "PROXY UNKNOWN\r\n".to_owned(),
        Some((Pair::V4(source, destination), from, to)) => format!("PROXY TCP4 {source} {destination} {from} {to}\r\n"),
        Some((Pair::V6(source, destination), from, to)) => format!("PROXY TCP6 {source} {destination} {from} {to}\r\n"),
    };
    out.extend_from_slice(line.as_bytes());
}

fn write_v2(out: &mut Vec<u8>, addresses: Option<(Pair, u16, u16)>) {
    out.extend_from_slice(V2_SIGNATURE);
    let (from, to) = match addresses {
        None => return out.extend_from_slice(&[0x20, 0x00, 0, 0]),
        Some((Pair::V4(source, destination), from, to)) => {
            out.extend_from_slice(&[0x21, 0x11, 0, 12]);
            out.extend_from_slice(&source.octets());
            out.extend_from_slice(&destination.octets());
            (from, to)
        }
        Some((Pair::V6(source, destination), from, to)) => {
            out.extend_from_slice(&[0x21, 0x21, 0, 36]);
            out.extend_from_slice(&source.octets());
            out.extend_from_slice(&destination.octets());
            (from, to)
        }
    };
    out.extend_from_slice(&from.to_be_bytes());
    out.extend_from_slice(&to.to_be_bytes());
}

#[cfg(test)]
#[path = "proxy_header_tests.rs"]
mod tests;

//! What a connection opens with, before its first request: the PROXY protocol header, which certificate a name gets, and what
//! a certificate says. Bytes and names in, values out.

mod certificate;
mod proxy_header;
mod server_names;

pub use certificate::{Certificate, NoCertificate, read_certificate};
pub use proxy_header::{
    Addresses, MAX_HEADER_BYTES, ProxyHeader, ProxyHeaderError, ProxyVersion, parse_proxy_header, write_proxy_header,
};
pub use server_names::ServerNames;

//! What a connection opens with, before its first request: the PROXY protocol header, and which certificate a name gets.
//! Bytes and names in, values out.

mod proxy_header;
mod server_names;

pub use proxy_header::{
    Addresses, MAX_HEADER_BYTES, ProxyHeader, ProxyHeaderError, ProxyVersion, parse_proxy_header, write_proxy_header,
};
pub use server_names::ServerNames;

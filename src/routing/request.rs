//! The request as the decision sees it: borrowed, protocol-independent.

use std::net::IpAddr;

/// Read access to the header fields of a request, whatever protocol carried it.
pub trait HeaderFields {
    /// The value of the `n`th field line (from 0) called `name`, in the order received; `None` past the last.
    /// `name` is lowercase ASCII; field names are compared without regard to case.
    fn nth(&self, name: &str, n: usize) -> Option<&[u8]>;
}

/// One request, borrowed from the connection that carries it.
#[derive(Clone, Copy)]
pub struct RequestView<'a> {
    /// The method, case-sensitive (RFC 9110 section 9.1).
    pub method: &'a str,
    /// The host without port, as sent (any case). Empty for an HTTP/1.0 request without one.
    pub host: &'a str,
    /// The path of the target, from the first `/`, without the query; `*` for `OPTIONS *`.
    pub path: &'a str,
    /// The query without its `?`; empty when there is none.
    pub query: &'a str,
    /// The header fields as received.
    pub fields: &'a dyn HeaderFields,
    /// The client's address: the peer's, or what a trusted proxy says of it.
    pub client_ip: IpAddr,
}

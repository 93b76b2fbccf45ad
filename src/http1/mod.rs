//! The HTTP/1.1 wire format (RFC 9112), synchronous and pure: bytes in, values out. Strict where the RFC leaves a
//! choice: what two parsers might read differently is refused.

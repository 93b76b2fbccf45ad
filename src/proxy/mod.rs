//! The data plane: one exchange engine for every protocol, on pingora-core's server and descriptors.
//!
//! A request: [`accept`] takes its connection, `opening` its PROXY header and TLS handshake, `downstream` reads its head, `exchange` decides and picks, `relay` carries
//! both directions at once, `record` tells how it ended.

pub mod accept;
mod answers;
mod body;
mod buffer;
mod deadlines;
mod downstream;
mod exchange;
mod handshakes;
mod headers;
mod io;
mod mirror;
mod opening;
mod panics;
mod record;
mod relay;
mod stream;
mod tunnel;
mod upstream;
mod worker;

//! What the outside sees of the traffic: the access log, and the page of `/metrics`.

pub mod access_log;
mod endpoints;
#[cfg(test)]
pub(crate) mod fixture;
pub mod metrics;
mod process;
mod shares;

pub use access_log::rfc3339;
pub use endpoints::{EndpointNow, endpoints};
pub use process::Process;
pub use shares::{ShareWindow, Signals};

//! What the outside sees of the traffic: the access log, and the page of `/metrics`.

pub mod access_log;

//! Rollgate: an edge reverse proxy that releases software.
//!
//! The map of the house. Imports go one way, from the top of this list to the bottom; a test holds it.
//!
//! - pure rooms, without I/O, clock, randomness, logging or async: [`config`], [`routing`], [`explain`], [`balancing`],
//!   [`http1`], [`http2`], [`opening`], [`outcome`], [`analysis`], [`rollout`], [`runtime`]
//! - what both planes may touch: [`shared`]
//! - [`telemetry`]: metrics and the access log
//! - the shell: [`proxy`] (the data plane), [`control`] (the control plane), [`admin`], [`server`], [`cli`]

#![forbid(unsafe_code)]

pub mod admin;
pub mod analysis;
pub mod balancing;
pub mod cli;
pub mod config;
pub mod control;
pub mod demo;
pub mod explain;
pub mod http1;
pub mod http2;
pub mod opening;
pub mod outcome;
pub mod proxy;
pub mod rollout;
pub mod routing;
pub mod runtime;
pub mod server;
pub mod shared;
pub mod telemetry;

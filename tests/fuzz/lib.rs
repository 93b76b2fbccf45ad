//! The rooms that are fuzzed, compiled by themselves: sanitizers need not build the servers around them.

#[path = "../../src/config/mod.rs"]
pub mod config;
#[path = "../../src/http1/mod.rs"]
pub mod http1;
#[path = "../../src/opening/mod.rs"]
pub mod opening;
#[path = "../../src/outcome.rs"]
pub mod outcome;
#[path = "../../src/routing/mod.rs"]
pub mod routing;

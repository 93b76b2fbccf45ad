//! The control plane: what happens off the request path, on its own threads.

pub mod endpoint_registry;
pub mod health_checker;
pub mod resolver;

//! The control plane: whatever changes the configuration in force, off the request path.

pub mod assembly;
pub mod commands;
pub mod cookie_key;
pub mod damping;
pub mod endpoint_registry;
pub mod event_log;
pub mod file_rule;
pub mod file_watcher;
#[cfg(test)]
mod fixture;
pub mod gates;
pub mod health_checker;
pub mod http_client;
pub mod listeners;
pub mod load;
pub mod loading;
pub mod notifier;
pub mod numbers;
pub mod prometheus_query;
pub mod records;
pub mod resolver;
pub mod rollout_driver;
pub mod stamp;
pub mod store;
pub mod tls;
pub mod writer;

//! The control plane: whatever changes the configuration in force, off the request path.

pub mod assembly;
pub mod commands;
pub mod cookie_key;
pub mod damping;
pub mod endpoint_registry;
pub mod event_log;
pub mod file_rule;
pub mod file_watcher;
pub mod health_checker;
pub mod listeners;
pub mod load;
pub mod loading;
pub mod records;
pub mod resolver;
pub mod rollout_driver;
pub mod stamp;
pub mod store;
pub mod tls;
pub mod writer;

//! The control plane: whatever changes the configuration in force, off the request path.

pub mod file_rule;
pub mod file_watcher;

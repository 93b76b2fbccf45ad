//! The commands, one file a family.

pub mod explain;

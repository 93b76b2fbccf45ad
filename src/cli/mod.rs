//! The command line: one file a command family.

pub mod check;

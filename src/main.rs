#![forbid(unsafe_code)]

//! Parses the arguments, runs the command, exits with its code.

use clap::Parser;
use std::process::ExitCode;

/// Less memory an idle connection, and less of it lost to fragmentation, than the system's allocator (see
/// `docs/dependencies.md`).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    rollgate::cli::Cli::parse().run()
}

//! `rollgate completions` and `rollgate man`: made from the same declaration as the help.

use super::failure::Failure;
use super::print;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What the foot of a page says.
const SOURCE: &str = concat!("rollgate ", env!("CARGO_PKG_VERSION"));

/// Prints the script for `shell`.
pub fn completions(shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::Cli::command(), "rollgate", &mut script);
    print::finish(Ok(String::from_utf8_lossy(&script).into_owned()), false)
}

/// Prints the page of the whole program, or writes that and one for each command into `out`.
pub fn man(out: Option<&Path>) -> ExitCode {
    let mut command = super::Cli::command();
    command.build();
    let written = match out {
        None => page(&command).map_err(|error| Failure::failed(error.to_string())),
        Some(directory) => pages(&command, directory)
            .map(|files| files.iter().map(|file| format!("{}\n", file.display())).collect())
            .map_err(|error| Failure::failed(format!("{}: {error}", directory.display()))),
    };
    print::finish(written, false)
}

/// `rollgate.1`, `rollgate-status.1` and so on, in `directory`; returns their paths.
fn pages(command: &Command, directory: &Path) -> io::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(directory)?;
    let commands = command.get_subcommands().filter(|command| command.get_name() != "help");
    std::iter::once(command)
        .chain(commands)
        .map(|command| {
            let name = command.get_display_name().unwrap_or(command.get_name());
            let file = directory.join(format!("{name}.1"));
            std::fs::write(&file, page(command)?)?;
            Ok(file)
        })
        .collect()
}

fn page(command: &Command) -> io::Result<String> {
    let mut page = Vec::new();
    let man = Man::new(command.clone()).manual("Rollgate").source(SOURCE);
    man.render(&mut page)?;
    // The name that clap_mangen has for what stands after a help text: here they are examples and notes.
    Ok(String::from_utf8_lossy(&page).replace(".SH EXTRA", ".SH NOTES"))
}

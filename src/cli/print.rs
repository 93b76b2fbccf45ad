//! Where answers go, and their colours. Texts are made with colours; what is no terminal, or a user who set `NO_COLOR`,
//! gets them without.

use super::failure::{Exit, Failure};
use anstyle::{AnsiColor, Style};
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

pub const PLAIN: Style = Style::new();
pub const HEADING: Style = Style::new().bold();
pub const BAD: Style = AnsiColor::Red.on_default();
pub const WARNING: Style = AnsiColor::Yellow.on_default();
pub const HELP: Style = AnsiColor::Cyan.on_default();

/// Prints to stdout.
///
/// # Errors
/// Nobody reads it any more (a closed pipe), or the disk is full.
pub fn out(text: &str) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints to stdout. Nobody there to read it any more is no failure of the command.
pub fn print(text: &str) {
    let _ = out(text);
}

/// Whether stdout is a screen that can be drawn anew.
pub fn has_screen() -> bool {
    io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Draws the screen anew.
///
/// # Errors
/// As [`out`].
pub fn screen(text: &str) -> io::Result<()> {
    // The cursor home, and everything below it away: in one write, and not through what removes colours, or it would not
    // arrive.
    const CLEAR: &str = "\u{1b}[H\u{1b}[J";
    let mut raw = io::stdout().lock();
    let text = match anstream::AutoStream::choice(&raw) {
        anstream::ColorChoice::Never => plain(text),
        _ => text.to_owned(),
    };
    raw.write_all(format!("{CLEAR}{text}").as_bytes())?;
    raw.flush()
}

/// Prints to stderr, where it does not mix with the answer.
pub fn note(text: &str) {
    let _ = anstream::stderr().lock().write_all(text.as_bytes());
}

/// Ends a command: its answer on stdout, or why there is none: with `json` on stdout too, otherwise on stderr.
pub fn finish(result: Result<String, Failure>, json: bool) -> ExitCode {
    match result {
        Ok(text) => {
            print(&text);
            Exit::Done.into()
        }
        Err(failure) => {
            if json {
                print(&failure.render_json());
            } else {
                note(&failure.render());
            }
            failure.exit.into()
        }
    }
}

/// `text` without colours.
pub fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

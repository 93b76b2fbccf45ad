//! `rollgate run`.

use crate::server;
use std::io::IsTerminal;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// What is logged of a proxy in earnest: ours, and of the framework what is wrong. Of TLS and HTTP/2 only what is
/// wrong with us: any client can bring about their warnings.
pub const DEFAULT_FILTER: &str = "info,h2=error,pingora_core=warn,pingora_runtime=warn,rustls=error";

/// Runs the proxy until it is told to stop. `json`: its log is for programs.
pub fn run(config: &Path, recover_state: bool, json: bool) -> ExitCode {
    let _log = start_log(json, DEFAULT_FILTER);
    match server::run(config, recover_state) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

/// Says why, one line a reason.
pub fn report(error: &anyhow::Error) -> ExitCode {
    for line in format!("{error:#}").lines() {
        tracing::error!("{line}");
    }
    ExitCode::FAILURE
}

/// Lines that may wait for stderr; more are dropped, and counted in a line of their own.
const QUEUE: usize = 4096;

/// The log goes to stderr: stdout is the access log's, if it wants it. A thread of its own writes it, so that nobody who
/// logs, worker threads among them, waits for a pipe that stalls. What is dropped last: it writes what is queued, waiting
/// a second or so at most. `json`: one object a line. `filter`: what is logged unless `RUST_LOG` says otherwise.
pub fn start_log(json: bool, filter: &str) -> WorkerGuard {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(filter));
    let (writer, guard) = queued(std::io::stderr(), QUEUE);
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    if json {
        log.json().flatten_event(true).init();
    } else {
        log.init();
    }
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "a panic: please report it")));
    guard
}

fn queued(output: impl Write + Send + 'static, lines: usize) -> (NonBlocking, WorkerGuard) {
    let lost = Arc::new(OnceLock::new());
    let output = Output {
        inner: output,
        lost: Arc::clone(&lost),
        told: 0,
    };
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(lines)
        .thread_name("log")
        .finish(output);
    // Set once, here.
    let _ = lost.set(writer.error_counter());
    (writer, guard)
}

/// Where lines go, and the word of those that were lost on the way.
struct Output<W> {
    inner: W,
    lost: Arc<OnceLock<ErrorCounter>>,
    /// Of the lost ones, how many were told.
    told: usize,
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let lost = self.lost.get().map_or(0, ErrorCounter::dropped_lines);
        let untold = lost.saturating_sub(self.told);
        if untold > 0 {
            self.told = lost;
            writeln!(
                self.inner,
                "{untold} lines of this log were lost: its reader was too slow"
            )?;
        }
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};

    /// The reader of the pipe does not read: who logs goes on, and what was not written is what was counted.
    #[test]
    fn a_stalled_reader_costs_lines_and_never_time() {
        const LINES: usize = 20_000;
        let (reader, output) = std::io::pipe().unwrap();
        let (mut writer, guard) = queued(output, 16);
        for _ in 0..LINES {
            writer.write_all(b"a line of about as many bytes as one has\n").unwrap();
        }
        let lost = writer.error_counter().dropped_lines();
        assert!(lost > 0);
        let lines =
            std::thread::spawn(move || BufReader::new(reader).lines().map_while(Result::ok).collect::<Vec<_>>());
        drop((writer, guard));
        let (told, kept): (Vec<_>, Vec<_>) = lines
            .join()
            .unwrap()
            .into_iter()
            .partition(|line| line.contains("were lost"));
        let told: usize = told
            .iter()
            .filter_map(|line| line.split(' ').next()?.parse::<usize>().ok())
            .sum();
        assert_eq!((kept.len() + lost, told), (LINES, lost));
    }

    #[test]
    fn what_is_queued_is_written_before_the_end() {
        let (reader, output) = std::io::pipe().unwrap();
        let (mut writer, guard) = queued(output, QUEUE);
        writer.write_all(b"first\n").unwrap();
        writer.write_all(b"last\n").unwrap();
        drop((writer, guard));
        let lines: Vec<_> = BufReader::new(reader).lines().map_while(Result::ok).collect();
        assert_eq!(lines, ["first", "last"]);
    }
}

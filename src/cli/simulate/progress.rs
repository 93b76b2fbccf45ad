//! How far a long simulation is, on stderr where that is a terminal.

use crate::cli::print;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// What takes no longer needs no bar.
const LONG: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_millis(200);
const WIDTH: usize = 40;
/// To the first column, and the line away.
const CLEAR: &str = "\r\u{1b}[K";

pub struct Progress {
    runs: u64,
    run: u64,
    limit: Duration,
    /// When it is drawn next; `None`: nobody would see it.
    next: Option<Instant>,
    drawn: bool,
}

impl Progress {
    /// Of so many runs, each of which ends at `limit` at the latest.
    pub fn new(runs: u64, limit: Duration) -> Self {
        Self {
            runs,
            run: 0,
            limit,
            next: std::io::stderr().is_terminal().then(|| Instant::now() + LONG),
            drawn: false,
        }
    }

    pub fn begins(&mut self, run: u64) {
        self.run = run;
    }

    /// The run has come to `at`.
    pub fn is_at(&mut self, at: Duration) {
        let Some(next) = self.next else { return };
        let now = Instant::now();
        if now < next {
            return;
        }
        self.next = Some(now + EVERY);
        self.drawn = true;
        print::note(&format!("{CLEAR}{}", self.bar(at)));
    }

    /// Takes it away.
    pub fn end(self) {
        if self.drawn {
            print::note(CLEAR);
        }
    }

    /// Of many runs those that are over, of one the time that may yet come.
    fn bar(&self, at: Duration) -> String {
        let part = match self.runs {
            1 => at.as_secs_f64() / self.limit.as_secs_f64().max(1.0),
            runs => self.run as f64 / runs as f64,
        };
        let full = ((part.clamp(0.0, 1.0) * WIDTH as f64) as usize).min(WIDTH);
        let told = match self.runs {
            1 => format!("{} simulated", crate::rollout::about(at)),
            runs => format!("{} of {runs} runs", self.run),
        };
        format!("[{}{}] {told}", "#".repeat(full), ".".repeat(WIDTH - full))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_full_as_it_is_far() {
        let hour = Duration::from_secs(3_600);
        let mut many = Progress::new(200, hour);
        many.begins(50);
        assert_eq!(
            many.bar(hour),
            format!("[{}{}] 50 of 200 runs", "#".repeat(10), ".".repeat(30))
        );
        let one = Progress::new(1, hour);
        assert_eq!(
            one.bar(hour / 2),
            format!("[{}{}] 30m simulated", "#".repeat(20), ".".repeat(20))
        );
        assert!(one.bar(hour * 2).starts_with(&format!("[{}]", "#".repeat(40))));
    }
}

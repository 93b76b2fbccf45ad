//! Whether a source of configurations flaps between good and bad: a pure rule, obeyed by [`super::writer`].
//!
//! A generator that puts out good and bad files in turn (Cloudflare, 2025-11-18) must not have the routing follow each
//! good one. Only changes of verdict count: any number of good files in a row is never held, nor of bad ones.

use std::collections::VecDeque;
use std::time::Duration;

/// So many changes of verdict within [`WINDOW`] are flapping.
pub const CHANGES: usize = 3;
/// How long a change of verdict counts; also the longest hold of a source that never rests.
pub const WINDOW: Duration = Duration::from_secs(600);
/// A text is held until no other has come for so long.
pub const QUIET: Duration = Duration::from_secs(60);

/// The last changes of verdict. Times are since any fixed moment and never go back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damping {
    /// The last verdict.
    good: bool,
    /// When it changed, oldest first: at most [`CHANGES`].
    changes: VecDeque<Duration>,
}

impl Default for Damping {
    /// The process began with a good file.
    fn default() -> Self {
        Self {
            good: true,
            changes: VecDeque::with_capacity(CHANGES),
        }
    }
}

impl Damping {
    /// A text was compiled: it was good or bad.
    pub fn judged(&mut self, good: bool, now: Duration) {
        if good == self.good {
            return;
        }
        self.good = good;
        if self.changes.len() == CHANGES {
            self.changes.pop_front();
        }
        self.changes.push_back(now);
    }

    /// Whether a text that comes `now` is to be held, and how long unless another one comes; `None`: compile it.
    pub fn hold(&self, now: Duration) -> Option<Duration> {
        let oldest = self.changes.front().filter(|_| self.changes.len() == CHANGES)?;
        let rest = WINDOW.checked_sub(now.saturating_sub(*oldest))?;
        (!rest.is_zero()).then_some(rest.min(QUIET))
    }

    /// The source has been quiet, or somebody asked for the file: begin anew.
    pub fn release(&mut self) {
        self.changes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Verdicts at these seconds, in turn bad and good.
    fn flapped(at: &[u64]) -> Damping {
        let mut damping = Damping::default();
        for (number, &second) in at.iter().enumerate() {
            damping.judged(number % 2 == 1, s(second));
        }
        damping
    }

    #[test]
    fn the_third_change_within_ten_minutes_holds_what_follows() {
        assert_eq!(flapped(&[10, 20]).hold(s(21)), None);
        assert_eq!(flapped(&[10, 20, 30]).hold(s(31)), Some(QUIET));
        assert_eq!(flapped(&[10, 300, 609]).hold(s(609)), Some(s(1)));
        assert_eq!(flapped(&[10, 300, 610]).hold(s(610)), None, "the first is forgotten");
        assert_eq!(flapped(&[10, 300, 610, 620]).hold(s(620)), Some(QUIET));
    }

    #[test]
    fn verdicts_that_do_not_change_never_count() {
        let mut damping = Damping::default();
        for second in 0..100 {
            damping.judged(true, s(second));
            assert_eq!(damping.hold(s(second)), None);
        }
        for second in 100..200 {
            damping.judged(false, s(second));
            assert_eq!(damping.hold(s(second)), None, "one change");
        }
        damping.judged(true, s(200));
        assert_eq!(damping.hold(s(200)), None, "two");
    }

    #[test]
    fn a_source_that_never_rests_is_heard_after_ten_minutes() {
        let damping = flapped(&[0, 1, 2]);
        assert!((3..600).all(|second| damping.hold(s(second)).is_some()));
        assert_eq!(damping.hold(s(599)), Some(s(1)));
        assert_eq!(damping.hold(s(600)), None);
    }

    #[test]
    fn a_release_begins_anew() {
        let mut damping = flapped(&[0, 1, 2]);
        damping.release();
        assert_eq!(
            damping,
            Damping {
                good: false,
                ..Damping::default()
            }
        );
        damping.judged(true, s(3));
        assert_eq!(damping.hold(s(4)), None);
    }
}

//! Whether stable itself fails much: what breaks both versions is nothing that a comparison can see.

use crate::analysis::Arm;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Stable fails much when it fails one in so many of its requests, of which there have been so many.
const MUCH: u64 = 5;
const ENOUGH: u64 = 5;

/// Without a request of stable for so long, nothing is known of it any more.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// Requests of stable since they last said something, and what they said. Looks may come at any times, and with few requests
/// each: none is left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StableWatch {
    fails: bool,
    ended: u64,
    bad: u64,
    /// Since one of them ended.
    silent: Duration,
}

impl StableWatch {
    /// What ended since the last look.
    pub(super) fn see(&mut self, stable: &Arm) {
        if stable.ended > 0 {
            self.silent = Duration::ZERO;
        }
        self.ended = self.ended.saturating_add(stable.ended);
        self.bad = self.bad.saturating_add(stable.bad);
    }

    /// So much time has passed since this was called last: what was seen meanwhile counts if it is enough.
    pub(super) fn tick(&mut self, elapsed: Duration) {
        self.silent = self.silent.saturating_add(elapsed);
        if self.ended >= ENOUGH {
            self.fails = self.bad.saturating_mul(MUCH) >= self.ended;
            (self.ended, self.bad) = (0, 0);
        }
        if self.silent >= FORGOTTEN {
            *self = Self::default();
        }
    }

    /// Whether it fails a fifth of its requests or more, as far as is known.
    pub(super) fn fails(&self) -> bool {
        self.fails
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn arm(ended: u64, bad: u64) -> Arm {
        Arm {
            begun: ended,
            ended,
            bad,
        }
    }

    #[test]
    fn nothing_is_said_of_few_and_nothing_for_long_without_any() {
        let mut watch = StableWatch::default();
        watch.see(&arm(4, 4));
        watch.tick(SECOND);
        assert!(!watch.fails());
        watch.see(&arm(1, 0));
        assert!(!watch.fails(), "before the tick");
        watch.tick(SECOND);
        assert!(watch.fails());
        for _ in 0..58 {
            watch.tick(SECOND);
            assert!(watch.fails());
        }
        watch.tick(SECOND);
        assert_eq!(watch, StableWatch::default());
    }

    #[test]
    fn a_fifth_is_much() {
        for (bad, much) in [(19, false), (20, true)] {
            let mut watch = StableWatch::default();
            watch.see(&arm(100, bad));
            watch.tick(SECOND);
            assert_eq!(watch.fails(), much);
        }
    }

    proptest! {
        /// However looks at failures cut it up, what ended within a tick says the same.
        #[test]
        fn looks_between_ticks_change_nothing(requests in prop::collection::vec(any::<bool>(), 0..60), cuts in prop::collection::vec(any::<bool>(), 60)) {
            let (mut whole, mut cut) = (StableWatch::default(), StableWatch::default());
            let bad = requests.iter().filter(|bad| **bad).count() as u64;
            whole.see(&arm(requests.len() as u64, bad));
            let mut part = arm(0, 0);
            for (bad, now) in requests.iter().zip(cuts) {
                (part.ended, part.bad) = (part.ended + 1, part.bad + u64::from(*bad));
                if now {
                    cut.see(&std::mem::replace(&mut part, arm(0, 0)));
                }
            }
            cut.see(&part);
            whole.tick(SECOND);
            cut.tick(SECOND);
            prop_assert_eq!(whole, cut);
        }
    }
}

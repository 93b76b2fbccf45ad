//! Passive ejection: an endpoint that fails again and again is left alone for a while.

/// The longest ejection, milliseconds, unless the base is longer.
pub const LONGEST_MS: u64 = 30_000;

/// How many endpoints of a pool of `endpoints` may be ejected at once: `at_most` (0.0 to 1.0) of them, rounded down. Two
/// at 50 %: one. One at 50 %: none, so the only endpoint of a stable pool is never ejected. 0: none, ever.
pub fn most_ejected(endpoints: usize, at_most: f64) -> usize {
    // The tiny term undoes binary fractions: 29 % of 100 is 29, not 28.999….
    (endpoints as f64 * at_most + 1e-9).floor() as usize
}

/// An endpoint's ejections: the present or last one, and how many came in a row. Milliseconds of any steady clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ejections {
    began_ms: u64,
    until_ms: u64,
    length_ms: u64,
    in_a_row: u32,
    /// Successful probes in a row, begun during this ejection.
    proofs: u32,
    /// The endpoint could not be reached (rather than answered badly): a probe that reaches it is proof.
    unreachable: bool,
}

impl Ejections {
    /// When the last ejection ends or ended; 0: there was none.
    pub fn until_ms(&self) -> u64 {
        self.until_ms
    }

    /// Ejections in a row, each soon after the one before.
    pub fn in_a_row(&self) -> u32 {
        self.in_a_row
    }

    /// After one more ejection that begins now. Its length is `base_ms`, doubled each time it comes within twice the length of
    /// the last one after that one's end, up to the larger of `base_ms` and [`LONGEST_MS`].
    #[must_use]
    pub fn eject(self, now_ms: u64, base_ms: u64, unreachable: bool) -> Self {
        let soon = self.in_a_row > 0 && now_ms <= self.until_ms.saturating_add(self.length_ms.saturating_mul(2));
        let in_a_row = if soon { self.in_a_row.saturating_add(1) } else { 1 };
        let doubled = 1_u64.checked_shl(in_a_row - 1).unwrap_or(u64::MAX);
        let length_ms = base_ms.saturating_mul(doubled).min(base_ms.max(LONGEST_MS));
        Self {
            began_ms: now_ms,
            until_ms: now_ms.saturating_add(length_ms),
            length_ms,
            in_a_row,
            proofs: 0,
            unreachable,
        }
    }

    /// After an active probe that began at `began_ms`.
    ///
    /// An endpoint ejected because it could not be reached comes back before its time once it has been reached: the n-th
    /// ejection in a row needs n successful probes in a row, so that one that flaps is away for longer each time. One
    /// that answered badly stays: a health page that works proves nothing about the others.
    #[must_use]
    pub fn probed(mut self, success: bool, began_ms: u64, now_ms: u64) -> Self {
        if !self.unreachable || now_ms >= self.until_ms || began_ms < self.began_ms {
            return self;
        }
        self.proofs = if success { self.proofs + 1 } else { 0 };
        if self.proofs >= self.in_a_row {
            self.until_ms = now_ms;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_cap_rounds_down() {
        assert_eq!(most_ejected(2, 0.5), 1);
        assert_eq!(most_ejected(3, 0.5), 1);
        assert_eq!(most_ejected(1, 0.5), 0);
        assert_eq!(most_ejected(1, 1.0), 1);
        assert_eq!(most_ejected(100, 0.29), 29);
        assert_eq!(most_ejected(1000, 0.0), 0);
        assert_eq!(most_ejected(0, 1.0), 0);
        assert_eq!(most_ejected(10, f64::NAN), 0);
        assert_eq!(most_ejected(10, -1.0), 0);
    }

    #[test]
    fn an_endpoint_that_fails_on_is_away_longer_each_time_up_to_half_a_minute() {
        let mut ejections = Ejections::default();
        let mut now_ms = 1_000;
        let mut lengths = Vec::new();
        for _ in 0..8 {
            ejections = ejections.eject(now_ms, 1_000, false);
            lengths.push(ejections.until_ms() - now_ms);
            now_ms = ejections.until_ms() + 500;
        }
        assert_eq!(lengths, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
    }

    #[test]
    fn a_base_above_the_longest_stays() {
        let first = Ejections::default().eject(0, 60_000, false);
        assert_eq!(first.until_ms(), 60_000);
        assert_eq!(first.eject(60_000, 60_000, false).until_ms(), 120_000);
    }

    #[test]
    fn good_conduct_is_remembered() {
        let first = Ejections::default().eject(0, 1_000, false);
        assert_eq!(
            first.eject(3_000, 1_000, false).in_a_row(),
            2,
            "within twice its last time"
        );
        assert_eq!(first.eject(3_001, 1_000, false).in_a_row(), 1, "later");
    }

    #[test]
    fn reaching_it_again_ends_the_ejection_of_an_unreachable_endpoint() {
        let away = Ejections::default().eject(1_000, 30_000, true);
        assert_eq!(away.probed(true, 999, 1_100), away, "that probe began before");
        assert_eq!(away.probed(false, 1_200, 1_300).until_ms(), 31_000);
        let back = away.probed(true, 1_500, 1_600);
        assert_eq!(back.until_ms(), 1_600);

        let again = back.eject(2_000, 30_000, true);
        let one = again.probed(true, 2_100, 2_200);
        assert_eq!(one.until_ms(), 32_000, "the second time one probe is not enough");
        assert_eq!(
            one.probed(false, 2_300, 2_300).probed(true, 2_400, 2_400).until_ms(),
            32_000,
            "in a row"
        );
        assert_eq!(one.probed(true, 3_000, 3_100).until_ms(), 3_100);
    }

    #[test]
    fn a_probe_says_nothing_about_bad_answers() {
        let away = Ejections::default().eject(1_000, 30_000, false);
        assert_eq!(away.probed(true, 1_500, 1_600), away);
    }

    proptest! {
        #[test]
        fn lengths_stay_between_the_base_and_the_cap(
            base_ms in 0_u64..100_000,
            pauses in proptest::collection::vec(0_u64..200_000, 1..80),
        ) {
            let mut ejections = Ejections::default();
            let mut now_ms = 0;
            for pause in pauses {
                ejections = ejections.eject(now_ms, base_ms, false);
                let length = ejections.until_ms() - now_ms;
                prop_assert!(length >= base_ms && length <= base_ms.max(LONGEST_MS));
                now_ms = ejections.until_ms() + pause;
            }
        }
    }
}

//! Who judges: Rollgate, and what others do, each asked after every tick whether it rolls back.

use super::world::Seen;
use rollgate::analysis::{Check, Counts, Histogram, Judge, Names, Observed, Rules, Test, Verdict, Window};
use std::time::Duration;

pub const NAMES: Names<'static> = Names {
    candidate: "v2",
    stable: "v1",
};

pub trait Rule {
    /// Takes a tick; `at` is the second it ends. Whether the candidate is rolled back.
    fn rolls_back(&mut self, seen: &Seen, at: f64) -> bool;
}

pub fn check(metric: &str, test: Test) -> Check {
    Check {
        metric: metric.to_owned(),
        test,
    }
}

pub fn rules(confidence: f64, checks: Vec<Check>) -> Rules {
    Rules {
        confidence,
        min_requests: 200,
        checks,
    }
}

pub fn errors_compared() -> Check {
    check("error_rate", Test::ErrorsCompared { tolerance: 0.0 })
}

pub fn p99_compared() -> Check {
    check(
        "latency_p99",
        Test::LatencyCompared {
            quantile: 0.99,
            tolerance: 0.2,
        },
    )
}

/// Rollgate, ticking as often as it is asked.
pub struct Rollgate {
    judge: Judge,
    ticked: f64,
    none: Observed,
}

impl Rollgate {
    pub fn new(rules: Rules) -> Self {
        Self {
            judge: Judge::new(rules),
            ticked: 0.0,
            none: Observed::default(),
        }
    }
}

impl Rule for Rollgate {
    fn rolls_back(&mut self, seen: &Seen, at: f64) -> bool {
        let window = Window {
            candidate: &seen.candidate,
            forced: &self.none,
            stable: &seen.stable,
            share: seen.share,
            warming: false,
            mirrored: false,
        };
        self.judge.tick(&window, Duration::from_secs_f64(at - self.ticked));
        self.ticked = at;
        self.judge
            .findings(NAMES)
            .iter()
            .any(|finding| finding.verdict == Verdict::Fail)
    }
}

/// The counts of the minute that has just ended, once a minute.
#[derive(Default)]
struct Minutes {
    counts: Counts,
    /// Of the candidate and of stable.
    durations: [Histogram; 2],
    ended: u64,
}

impl Minutes {
    fn take(&mut self, seen: &Seen, at: f64) -> Option<(Counts, [Histogram; 2])> {
        self.counts.add(counts(seen));
        self.durations[0].merge(&seen.candidate.durations);
        self.durations[1].merge(&seen.stable.durations);
        let minute = (at / 60.0) as u64;
        if minute == self.ended {
            return None;
        }
        self.ended = minute;
        Some((std::mem::take(&mut self.counts), std::mem::take(&mut self.durations)))
    }
}

fn counts(seen: &Seen) -> Counts {
    Counts {
        candidate: seen.candidate.requests,
        stable: seen.stable.requests,
    }
}

fn rate(bad: u64, ended: u64) -> f64 {
    bad as f64 / (ended as f64).max(1.0)
}

/// Flagger: each minute the candidate must succeed at 99 % and take at most `p99_ms`; rolled back at `threshold` failed
/// minutes, which are never forgotten. A minute without requests is not counted, to its favour.
pub struct Flagger {
    minutes: Minutes,
    threshold: u32,
    p99_ms: f64,
    failed: u32,
}

impl Flagger {
    pub fn new(threshold: u32, p99_ms: f64) -> Self {
        Self {
            minutes: Minutes::default(),
            threshold,
            p99_ms,
            failed: 0,
        }
    }
}

impl Rule for Flagger {
    fn rolls_back(&mut self, seen: &Seen, at: f64) -> bool {
        if let Some((counts, durations)) = self.minutes.take(seen, at) {
            let errors = rate(counts.candidate.bad, counts.candidate.ended) > 0.01;
            let slow = durations[0]
                .quantile(0.99)
                .is_some_and(|p99| p99.middle_us() > self.p99_ms * 1_000.0);
            self.failed += u32::from(errors || slow);
        }
        self.failed >= self.threshold
    }
}

/// Each minute the candidate may fail 1.1 times as often as stable, and its p99 may be 1.1 times stable's.
#[derive(Default)]
pub struct Ratio(Minutes);

impl Rule for Ratio {
    fn rolls_back(&mut self, seen: &Seen, at: f64) -> bool {
        self.0.take(seen, at).is_some_and(|(counts, durations)| {
            let stable = rate(counts.stable.bad, counts.stable.ended);
            let p99 = |durations: &Histogram| durations.quantile(0.99).map(|p99| p99.middle_us());
            let slow = p99(&durations[0])
                .zip(p99(&durations[1]))
                .is_some_and(|(candidate, stable)| candidate > 1.1 * stable);
            rate(counts.candidate.bad, counts.candidate.ended) > 1.1 * stable || slow
        })
    }
}

/// A z-test at 5 %, one-sided, of all counts since the start, looked at each minute.
#[derive(Default)]
pub struct PeekedZ(Minutes, Counts);

impl Rule for PeekedZ {
    fn rolls_back(&mut self, seen: &Seen, at: f64) -> bool {
        let Some((counts, _)) = self.0.take(seen, at) else {
            return false;
        };
        self.1.add(counts);
        let (candidate, stable) = (self.1.candidate, self.1.stable);
        let (n, m) = (candidate.ended as f64, stable.ended as f64);
        let pooled = rate(candidate.bad + stable.bad, candidate.ended + stable.ended);
        let deviation = (pooled * (1.0 - pooled) * (1.0 / n.max(1.0) + 1.0 / m.max(1.0))).sqrt();
        let difference = rate(candidate.bad, candidate.ended) - rate(stable.bad, stable.ended);
        deviation > 0.0 && difference / deviation > 1.645
    }
}

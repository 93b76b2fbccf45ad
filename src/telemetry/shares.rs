//! What each version in force did lately: its share of the requests, their rate, failures and durations.

use crate::analysis::Histogram;
use crate::shared::{InForce, VersionStats};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Counts kept, one a second: the oldest are 60 s old.
const SAMPLES: usize = 61;
/// Of the durations, every how many samples they are kept, and how often: the oldest are 60 to 90 s old.
const DURATIONS_EVERY: usize = 30;
const DURATIONS: usize = 3;

/// The last 60 seconds of each version in force. Bounded by the versions of the configuration: each costs 1 KB, and 18
/// bytes for each bucket that its durations fall into (a hundred or two; 1,365 at most).
#[derive(Default)]
pub struct ShareWindow {
    /// By address of the statistics, which the ring keeps alive: an address is not used twice.
    rings: HashMap<usize, Ring>,
}

/// Counts of a moment, their low 32 bits: enough for the difference between two within a minute.
#[derive(Clone, Copy, Default)]
struct Counts {
    begun: u32,
    ended: u32,
    failed: u32,
}

struct Ring {
    stats: Arc<VersionStats>,
    /// Oldest first.
    counts: VecDeque<Counts>,
    /// Oldest first.
    durations: VecDeque<Durations>,
    /// Begins anywhere, so that not all versions are looked at in the same second.
    samples: usize,
    /// In force when the last sample was taken.
    seen: bool,
}

/// What a version did over the last 60 seconds, or since it appeared when that is later.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Signals {
    /// Requests begun a second.
    pub rate: f64,
    /// Failures charged, in percent of the requests that ended, 0 to 100; `None`: there were neither.
    pub error_rate: Option<f64>,
    /// Half of the requests took no longer, in milliseconds, to within 1 %; of the last 60 to 90 s. `None`: none ended.
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
}

impl Counts {
    fn of(stats: &VersionStats) -> Self {
        let (begun, in_flight) = (stats.begun(), stats.in_flight());
        Self {
            begun: begun as u32,
            ended: begun.wrapping_sub(in_flight as u64) as u32,
            failed: stats.failed() as u32,
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            begun: self.begun.wrapping_sub(before.begun),
            ended: self.ended.wrapping_sub(before.ended),
            failed: self.failed.wrapping_sub(before.failed),
        }
    }
}

/// Durations counted until then: the cells that are not empty, and the low 32 bits of their counts.
#[derive(Default)]
struct Durations {
    buckets: Box<[u16]>,
    counts: Box<[u32]>,
}

impl Durations {
    fn of(histogram: &Histogram) -> Self {
        let cells = || histogram.cells();
        Self {
            buckets: cells()
                .map(|(bucket, _)| u16::try_from(bucket).unwrap_or(u16::MAX))
                .collect(),
            counts: cells().map(|(_, count)| count as u32).collect(),
        }
    }

    /// What `now` has beyond this.
    fn until(&self, now: &Histogram) -> Histogram {
        let mut before = self
            .buckets
            .iter()
            .map(|&bucket| usize::from(bucket))
            .zip(&self.counts)
            .peekable();
        let mut since = Histogram::default();
        for (bucket, count) in now.cells() {
            // Both are in order, and no cell becomes empty again.
            let less = before.next_if(|(at, _)| *at == bucket).map_or(0, |(_, &count)| count);
            since.add(bucket, u64::from((count as u32).wrapping_sub(less)));
        }
        since
    }
}

impl Ring {
    fn new(stats: &Arc<VersionStats>) -> Self {
        Self {
            stats: Arc::clone(stats),
            counts: VecDeque::with_capacity(SAMPLES),
            durations: VecDeque::with_capacity(DURATIONS),
            samples: address(stats) / std::mem::align_of::<VersionStats>() % DURATIONS_EVERY,
            seen: true,
        }
    }

    fn sample(&mut self) {
        push(&mut self.counts, SAMPLES, Counts::of(&self.stats));
        if self.samples.is_multiple_of(DURATIONS_EVERY) {
            push(&mut self.durations, DURATIONS, Durations::of(&self.stats.histogram()));
        }
        self.samples = self.samples.wrapping_add(1);
    }

    fn signals(&self) -> Signals {
        let lately = Counts::of(&self.stats).since(oldest(&self.counts));
        let seconds = self.counts.len().clamp(2, SAMPLES) - 1;
        // A version whose requests another one answered, or none, has failures and no requests.
        let out_of = lately.ended.max(lately.failed);
        let before = self.durations.front().filter(|_| self.durations.len() == DURATIONS);
        let now = self.stats.histogram();
        let durations = before.map_or_else(|| now.clone(), |before| before.until(&now));
        let quantile_ms = |q| durations.quantile(q).map(|quantile| quantile.middle_us() / 1000.0);
        Signals {
            rate: f64::from(lately.begun) / seconds as f64,
            error_rate: (out_of > 0).then(|| f64::from(lately.failed) * 100.0 / f64::from(out_of)),
            p50_ms: quantile_ms(0.5),
            p99_ms: quantile_ms(0.99),
        }
    }
}

fn push<T>(ring: &mut VecDeque<T>, most: usize, sample: T) {
    if ring.len() == most {
        ring.pop_front();
    }
    ring.push_back(sample);
}

/// The oldest sample of a full ring; before that, the window reaches back to when everything was 0.
fn oldest(ring: &VecDeque<Counts>) -> Counts {
    let full = ring.len() == SAMPLES;
    ring.front().copied().filter(|_| full).unwrap_or_default()
}

impl ShareWindow {
    /// Takes a sample of every version in force and forgets those that left; to be called once a second.
    pub fn sample(&mut self, in_force: &InForce) {
        for version in in_force.services.iter().flat_map(|service| &service.versions) {
            let ring = self
                .rings
                .entry(address(&version.stats))
                .or_insert_with(|| Ring::new(&version.stats));
            ring.seen = true;
            ring.sample();
        }
        self.rings.retain(|_, ring| std::mem::take(&mut ring.seen));
    }

    /// Requests that began on the version within the window; all of them while the version is younger than that.
    pub fn requests(&self, version: &Arc<VersionStats>) -> u64 {
        match self.rings.get(&address(version)) {
            Some(ring) => u64::from(Counts::of(version).since(oldest(&ring.counts)).begun),
            None => version.begun(),
        }
    }

    /// The version's golden signals over the window; none before its first sample.
    pub fn signals(&self, version: &Arc<VersionStats>) -> Signals {
        self.rings
            .get(&address(version))
            .map_or_else(Signals::default, Ring::signals)
    }
}

fn address(stats: &Arc<VersionStats>) -> usize {
    Arc::as_ptr(stats) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{FailureKind, Outcome};
    use crate::routing::Role;
    use crate::shared::Ended;
    use crate::telemetry::fixture::{V, in_force};
    use proptest::prelude::*;
    use std::time::Duration;

    fn end(stats: &VersionStats, outcome: Outcome, ms: u64) {
        stats.begin(0);
        let ended = Ended {
            status: 200,
            grpc_status: None,
            outcome,
            duration: Duration::from_millis(ms),
            upgraded: false,
        };
        stats.end(0, &ended);
    }

    #[test]
    fn a_minute_passes() {
        let in_force = in_force(1, 1, &[("shop", &[V("v1", Role::Stable, 1, &[])])]);
        let stats = &in_force.services[0].versions[0].stats;
        let mut window = ShareWindow::default();
        assert_eq!(window.signals(stats), Signals::default());
        window.sample(&in_force);
        assert_eq!(window.signals(stats).error_rate, None);
        for _ in 0..30 {
            end(stats, Outcome::Success, 7);
            end(stats, Outcome::Failure(FailureKind::Status5xx), 300);
            window.sample(&in_force);
        }
        let busy = window.signals(stats);
        assert_eq!((busy.rate, busy.error_rate), (2.0, Some(50.0)));
        let (p50, p99) = (busy.p50_ms.unwrap(), busy.p99_ms.unwrap());
        assert!(
            (p50 - 7.0).abs() <= 0.07 && (p99 - 300.0).abs() <= 3.0,
            "to within 1 %: {busy:?}"
        );
        for _ in 0..30 {
            window.sample(&in_force);
        }
        assert_eq!(window.signals(stats).rate, 1.0);
        assert_eq!(window.requests(stats), 60);
        for _ in 0..90 {
            window.sample(&in_force);
        }
        assert_eq!(
            window.signals(stats),
            Signals {
                error_rate: None,
                ..Signals::default()
            }
        );
        assert_eq!(window.requests(stats), 0);
    }

    #[test]
    fn a_version_that_only_fails_has_a_rate_of_failures() {
        let in_force = in_force(1, 1, &[("shop", &[V("v1", Role::Stable, 1, &[])])]);
        let stats = &in_force.services[0].versions[0].stats;
        let mut window = ShareWindow::default();
        window.sample(&in_force);
        stats.charge(0, FailureKind::NoEndpoint);
        let signals = window.signals(stats);
        assert_eq!(
            (signals.rate, signals.error_rate, signals.p99_ms),
            (0.0, Some(100.0), None)
        );
        stats.begin(0);
        assert_eq!(window.signals(stats).rate, 1.0, "what is in flight has begun");
    }

    proptest! {
        /// What is kept of a histogram, subtracted from a later one, is what came between.
        #[test]
        fn what_came_between(
            before in proptest::collection::vec(0..200_000_000_u64, 0..100),
            between in proptest::collection::vec(0..200_000_000_u64, 0..100),
        ) {
            let (mut histogram, mut expected) = (Histogram::default(), Histogram::default());
            before.iter().for_each(|&us| histogram.record(us));
            let kept = Durations::of(&histogram);
            between.iter().for_each(|&us| { histogram.record(us); expected.record(us); });
            prop_assert_eq!(kept.until(&histogram), expected);
        }
    }
}

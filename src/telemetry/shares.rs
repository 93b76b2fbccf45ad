//! What each version in force did lately: its share of the requests, their rate, failures and durations.

use crate::shared::{DURATION_BOUNDS_US, Durations, InForce, VersionStats};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Counts kept, one a second: the oldest are 60 s old.
const SAMPLES: usize = 61;
/// Of the durations, every how many samples one is kept, and how many: the oldest is 60 to 70 s old.
const DURATIONS_EVERY: u32 = 10;
const DURATIONS: usize = 7;

/// The last 60 seconds of each version in force. Bounded by the versions of the configuration, 1.3 KB each.
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
    /// Oldest first; their low 32 bits.
    durations: VecDeque<[u32; DURATION_BOUNDS_US.len() + 1]>,
    samples: u32,
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
    /// Half of the requests took no longer, in milliseconds; see [`quantile_ms`]. `None`: none ended.
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

impl Ring {
    fn new(stats: &Arc<VersionStats>) -> Self {
        Self {
            stats: Arc::clone(stats),
            counts: VecDeque::with_capacity(SAMPLES),
            durations: VecDeque::with_capacity(DURATIONS),
            samples: 0,
            seen: true,
        }
    }

    fn sample(&mut self) {
        push(&mut self.counts, SAMPLES, Counts::of(&self.stats));
        if self.samples.is_multiple_of(DURATIONS_EVERY) {
            push(
                &mut self.durations,
                DURATIONS,
                self.stats.durations().map(|count| count as u32),
            );
        }
        self.samples = self.samples.wrapping_add(1);
    }

    fn signals(&self) -> Signals {
        let lately = Counts::of(&self.stats).since(oldest(&self.counts, SAMPLES));
        let seconds = self.counts.len().clamp(2, SAMPLES) - 1;
        // A version whose requests another one answered, or none, has failures and no requests.
        let out_of = lately.ended.max(lately.failed);
        let before = oldest(&self.durations, DURATIONS);
        let mut durations = self.stats.durations();
        for (count, before) in durations.iter_mut().zip(before) {
            *count = u64::from((*count as u32).wrapping_sub(before));
        }
        Signals {
            rate: f64::from(lately.begun) / seconds as f64,
            error_rate: (out_of > 0).then(|| f64::from(lately.failed) * 100.0 / f64::from(out_of)),
            p50_ms: quantile_ms(&durations, 0.5),
            p99_ms: quantile_ms(&durations, 0.99),
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
fn oldest<T: Copy + Default>(ring: &VecDeque<T>, most: usize) -> T {
    let full = ring.len() == most;
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
            Some(ring) => u64::from(Counts::of(version).since(oldest(&ring.counts, SAMPLES)).begun),
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

/// The duration in milliseconds that the part `q` (0 to 1) of the requests did not exceed; `None` without requests.
///
/// Within a bucket requests are taken to be spread evenly, as Prometheus does. The error is at most the width of the
/// bucket: bounds are a factor of 2 to 3 apart, so the value may be off by as much. Beyond 60 s it is 60 s.
fn quantile_ms(durations: &Durations, q: f64) -> Option<f64> {
    let total: u64 = durations.iter().sum();
    let rank = q * total as f64;
    let mut below = 0.0;
    let mut lower = 0.0;
    let last = DURATION_BOUNDS_US.last().copied().unwrap_or_default();
    for (&count, upper) in durations.iter().zip(DURATION_BOUNDS_US.into_iter().chain([last])) {
        let (count, upper) = (count as f64, upper as f64 / 1000.0);
        if count > 0.0 && below + count >= rank {
            return Some(lower + (upper - lower) * ((rank - below) / count).clamp(0.0, 1.0));
        }
        below += count;
        lower = upper;
    }
    None
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
            (5.0..=10.0).contains(&p50) && (250.0..=500.0).contains(&p99),
            "{busy:?}"
        );
        for _ in 0..30 {
            window.sample(&in_force);
        }
        assert_eq!(window.signals(stats).rate, 1.0);
        assert_eq!(window.requests(stats), 60);
        for _ in 0..40 {
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
        /// The estimate is in the bucket that holds the true quantile.
        #[test]
        fn quantiles_are_in_the_right_bucket(us in proptest::collection::vec(0..90_000_000_u64, 1..200), q in 0.0..1.0_f64) {
            let stats = VersionStats::new(1);
            for &us in &us {
                stats.begin(0);
                stats.end(0, &Ended {
                    status: 200, outcome: Outcome::Success, duration: Duration::from_micros(us), upgraded: false,
                });
            }
            let mut sorted = us.clone();
            sorted.sort_unstable();
            let exact = sorted[((q * us.len() as f64).ceil() as usize).clamp(1, us.len()) - 1];
            let bucket = DURATION_BOUNDS_US.partition_point(|&bound| bound < exact);
            let lower = bucket.checked_sub(1).map_or(0, |below| DURATION_BOUNDS_US[below]) as f64 / 1000.0;
            let upper = DURATION_BOUNDS_US.get(bucket).map_or(60_000.0, |&bound| bound as f64 / 1000.0);
            let estimate = quantile_ms(&stats.durations(), q).unwrap();
            prop_assert!((lower..=upper).contains(&estimate), "{estimate} not in {lower}..={upper}");
        }
    }
}

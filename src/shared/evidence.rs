//! What the judge of a rollout sees of a service: requests of each version as they begin and end, without those that say
//! nothing of it.
//!
//! Not counted: client aborts, requests that another version's failure brought (rescue, fallback), and a
//! user after the first failure: one user repeating a failing request must not roll a version back alone. That whoever has
//! failed is left out from then on, and with every request, keeps the count fair: whether a request counts is known before
//! it is made, so those that count still fail as often as any (Wald). Users are told apart by their buckets; requests
//! without one all count.
//!
//! Copies of a rollout's mirror step are counted apart, as pairs with the requests that they are copies of: the original
//! when its copy begins, the copy when it ends (why: `analysis::evidence`). Of a user's pairs none counts after the first in
//! which either failed. Other copies are not counted.

use super::cell::{Cell, FloatCell};
use super::durations::Durations;
use crate::analysis::{Moments, Observed};
use crate::outcome::Outcome;
use crate::routing::BUCKETS;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Notify;

/// What sent a request to its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The split, or a cookie that a split gave: comparable between versions.
    Split,
    /// A rule or a ring: these users are not like the others.
    Forced,
    /// A mirror step, as a copy: no user saw the answer.
    Copied,
    /// Anything; and a mirror step copied it. It is counted as sent by the split, too.
    Original,
}

/// A copy under way that is evidence: what its end must be told with.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    version: u32,
    bucket: u32,
}

/// What is remembered of a user, as bits: a request failed; an original or a copy of a pair did; a copy had another status.
const FAILED: u8 = 1;
const ORIGINAL_FAILED: u8 = 2;
const COPY_FAILED: u8 = 4;
const MISMATCHED: u8 = 8;

/// A request of a version that evidence is collected of: what its end must be told with.
#[derive(Debug, Clone, Copy)]
pub struct Counted {
    // Small numbers: every request under way holds one.
    version: u32,
    /// [`NOBODY`] without a user.
    bucket: u32,
    /// `None`: it does not count.
    sent: Option<Sent>,
}

/// No bucket is as large.
const NOBODY: u32 = u32::MAX;

/// How it ended.
#[derive(Debug, Clone, Copy)]
pub struct Ending<'a> {
    pub outcome: Outcome,
    /// `None` for upgraded connections.
    pub duration: Option<Duration>,
    /// The application's numbers, in the order of the file.
    pub values: &'a [Option<f64>],
}

/// What one thread saw of one version, by one way of sending.
#[repr(align(128))]
struct Shard {
    begun: Cell,
    ended: Cell,
    bad: Cell,
    /// Of copies.
    mismatched: Cell,
    /// Failures of requests that do not count, too.
    failed: Cell,
    durations: Durations,
    values: Box<[Values]>,
}

/// [`Moments`] with one writing thread. Whoever reads meanwhile may miss a part of the last value until the next look.
#[derive(Default)]
struct Values {
    count: Cell,
    sum: FloatCell,
    sum_of_squares: FloatCell,
}

impl Values {
    fn record(&self, value: f64) {
        if value.is_finite() {
            self.count.add(1);
            self.sum.add(value);
            self.sum_of_squares.add(value * value);
        }
    }

    fn get(&self) -> Moments {
        Moments {
            count: self.count.get(),
            sum: self.sum.get(),
            sum_of_squares: self.sum_of_squares.get(),
        }
    }
}

impl Shard {
    fn end(&self, ending: &Ending<'_>, bad: bool) {
        self.ended.add(1);
        if let Some(duration) = ending.duration {
            self.durations
                .record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        }
        for (values, value) in self.values.iter().zip(ending.values) {
            value.iter().for_each(|value| values.record(*value));
        }
        if bad {
            self.bad.add(1);
        }
    }
}

type ByWay = [OnceLock<Box<Shard>>; 4];

/// See the module. One a service with a rollout; kept while its versions stay.
pub struct Evidence {
    /// By version, thread and way of sending; allocated when first used.
    shards: Box<[Box<[ByWay]>]>,
    /// How many numbers of the application there are.
    metrics: usize,
    /// By bucket.
    failed: Box<[AtomicU8]>,
    /// Rung at each failure.
    bell: Arc<Notify>,
}

impl Evidence {
    /// Of a service with `versions`, for `threads` threads, numbered from 0; `metrics`: numbers of the application, of which
    /// there are at most 8. `bell` is rung at each failure.
    pub fn new(versions: usize, threads: usize, metrics: usize, bell: Arc<Notify>) -> Self {
        let by_thread = |_| (0..threads.max(1)).map(|_| Default::default()).collect();
        Self {
            shards: (0..versions).map(by_thread).collect(),
            metrics,
            failed: (0..BUCKETS).map(|_| AtomicU8::new(0)).collect(),
            bell,
        }
    }

    fn shard(&self, thread: usize, version: u32, sent: Sent) -> Option<&Shard> {
        let slot = self.shards.get(version as usize)?.get(thread)?.get(sent as usize)?;
        Some(slot.get_or_init(|| {
            Box::new(Shard {
                begun: Cell::default(),
                ended: Cell::default(),
                bad: Cell::default(),
                mismatched: Cell::default(),
                failed: Cell::default(),
                durations: Durations::default(),
                values: (0..self.metrics).map(|_| Values::default()).collect(),
            })
        }))
    }

    fn has_failed(&self, bucket: u32) -> bool {
        self.known(bucket) & !MISMATCHED != 0
    }

    fn known(&self, bucket: u32) -> u8 {
        let cell = self.failed.get(bucket as usize);
        cell.map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    fn remember(&self, bucket: u32, what: u8) {
        if let Some(cell) = self.failed.get(bucket as usize) {
            cell.fetch_or(what, Ordering::Relaxed);
        }
    }

    /// A request begins on `version` (its position), sent there by `sent` (`None`: it says nothing of the version), of the
    /// user with this bucket, if there is one. Each begin is followed by one [`Self::end`], on the same thread.
    #[inline]
    pub fn begin(&self, thread: usize, version: u32, sent: Option<Sent>, bucket: Option<u32>) -> Counted {
        let bucket = bucket.unwrap_or(NOBODY);
        let sent = sent.filter(|_| !self.has_failed(bucket));
        if let Some(shard) = sent.and_then(|sent| self.shard(thread, version, sent)) {
            shard.begun.add(1);
        }
        Counted { version, bucket, sent }
    }

    /// It ended.
    #[inline]
    pub fn end(&self, thread: usize, counted: Counted, ending: &Ending<'_>) {
        let failed = matches!(ending.outcome, Outcome::Failure(_));
        if let Some(sent) = counted.sent
            && ending.outcome != Outcome::ClientAbort
            // Another request of the same user may have failed meanwhile: one of the two is enough.
            && !self.has_failed(counted.bucket)
            && let Some(shard) = self.shard(thread, counted.version, sent)
        {
            shard.end(ending, failed);
        }
        if failed {
            self.fail(thread, counted);
        }
    }

    #[cold]
    fn fail(&self, thread: usize, counted: Counted) {
        let sent = counted.sent.unwrap_or(Sent::Forced);
        if let Some(shard) = self.shard(thread, counted.version, sent) {
            shard.failed.add(1);
        }
        self.remember(counted.bucket, FAILED);
        self.bell.notify_one();
    }

    /// A copy for `version` (its position) of a request that `stable` answered begins, of the user with this bucket, if there
    /// is one. `None`: the pair does not count. Followed by one [`Self::end_copy`] on the same thread, unless nobody knows how
    /// the copy would have ended.
    pub fn begin_copy(
        &self,
        thread: usize,
        (version, stable): (u32, u32),
        bucket: Option<u32>,
        original: &Ending<'_>,
    ) -> Option<Pair> {
        let bucket = bucket.unwrap_or(NOBODY);
        if self.known(bucket) & (ORIGINAL_FAILED | COPY_FAILED) != 0 {
            return None;
        }
        let failed = matches!(original.outcome, Outcome::Failure(_));
        if failed {
            self.remember(bucket, ORIGINAL_FAILED);
        }
        let shard = self.shard(thread, stable, Sent::Original)?;
        shard.begun.add(1);
        shard.end(original, failed);
        self.shard(thread, version, Sent::Copied)?.begun.add(1);
        Some(Pair { version, bucket })
    }

    /// It ended; `mismatched`: with another status than its original, which had not failed. A failure hurts no user, and is
    /// nothing for the guard.
    pub fn end_copy(&self, thread: usize, pair: Pair, ending: &Ending<'_>, mismatched: bool) {
        let failed = matches!(ending.outcome, Outcome::Failure(_));
        // Another copy for the same user may have failed meanwhile: one of the two is enough.
        let counts = failed && self.known(pair.bucket) & COPY_FAILED == 0;
        if let Some(shard) = self.shard(thread, pair.version, Sent::Copied) {
            shard.end(ending, counts);
            if mismatched && self.known(pair.bucket) & MISMATCHED == 0 {
                shard.mismatched.add(1);
            }
        }
        if mismatched {
            self.remember(pair.bucket, MISMATCHED);
        }
        if failed {
            self.remember(pair.bucket, COPY_FAILED);
            self.bell.notify_one();
        }
    }

    fn of_version(&self, version: usize) -> impl Iterator<Item = &ByWay> {
        self.shards.get(version).into_iter().flatten()
    }

    /// All that was counted of `version`, summed over the threads.
    pub fn observed(&self, version: usize, sent: Sent) -> Observed {
        let mut observed = Observed {
            values: vec![Moments::default(); self.metrics],
            ..Observed::default()
        };
        for shard in self.of_version(version).filter_map(|by| by.get(sent as usize)?.get()) {
            let requests = &mut observed.requests;
            // The end before the beginning: a request that does both meanwhile has begun.
            requests.bad = requests.bad.wrapping_add(shard.bad.get());
            requests.ended = requests.ended.wrapping_add(shard.ended.get());
            requests.begun = requests.begun.wrapping_add(shard.begun.get());
            observed.mismatched = observed.mismatched.wrapping_add(shard.mismatched.get());
            shard.durations.add_to(&mut observed.durations);
            for (sum, values) in observed.values.iter_mut().zip(&shard.values) {
                sum.add(values.get());
            }
        }
        observed
    }

    /// Failed requests of `version`, those that do not count included.
    pub fn failures(&self, version: usize) -> u64 {
        let shards = self.of_version(version).flatten().filter_map(OnceLock::get);
        shards.map(|shard| shard.failed.get()).sum()
    }

    /// Another rollout begins: every user counts again.
    pub fn forgive(&self) {
        for cell in &self.failed {
            cell.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::FailureKind;
    use proptest::prelude::*;

    const FAILED: Outcome = Outcome::Failure(FailureKind::Status5xx);

    fn evidence() -> Evidence {
        Evidence::new(2, 2, 1, Arc::default())
    }

    fn request(evidence: &Evidence, thread: usize, sent: Option<Sent>, bucket: Option<u32>, outcome: Outcome) {
        let counted = evidence.begin(thread, 1, sent, bucket);
        let ending = Ending {
            outcome,
            duration: Some(Duration::from_millis(2)),
            values: &[Some(3.0)],
        };
        evidence.end(thread, counted, &ending);
    }

    #[test]
    fn a_user_who_repeats_a_failing_request_counts_once() {
        let evidence = evidence();
        for _ in 0..1000 {
            request(&evidence, 0, Some(Sent::Split), Some(77), FAILED);
        }
        request(&evidence, 1, Some(Sent::Split), Some(77), Outcome::Success);
        let observed = evidence.observed(1, Sent::Split);
        assert_eq!(
            (observed.requests.begun, observed.requests.ended, observed.requests.bad),
            (1, 1, 1)
        );
        assert_eq!(evidence.failures(1), 1000, "the guard counts what happens");
        evidence.forgive();
        request(&evidence, 0, Some(Sent::Split), Some(77), FAILED);
        assert_eq!(evidence.observed(1, Sent::Split).requests.bad, 2);
    }

    fn ending(outcome: Outcome) -> Ending<'static> {
        Ending {
            outcome,
            duration: Some(Duration::from_millis(2)),
            values: &[],
        }
    }

    fn counts(evidence: &Evidence) -> [(u64, u64, u64); 2] {
        [(0, Sent::Original), (1, Sent::Copied)].map(|(version, sent)| {
            let requests = evidence.observed(version, sent).requests;
            (requests.begun, requests.ended, requests.bad)
        })
    }

    #[test]
    fn an_original_counts_when_its_copy_begins_and_the_copy_when_it_ends() {
        let evidence = evidence();
        let pair = evidence.begin_copy(0, (1, 0), None, &ending(Outcome::Success)).unwrap();
        assert_eq!(counts(&evidence), [(1, 1, 0), (1, 0, 0)]);
        evidence.end_copy(1, pair, &ending(FAILED), true);
        assert_eq!(counts(&evidence), [(1, 1, 0), (1, 1, 1)]);
        // No user has seen it, and nothing of it is what the split sent.
        assert_eq!(evidence.failures(1), 0);
        for sent in [Sent::Split, Sent::Forced] {
            assert_eq!(evidence.observed(1, sent), evidence.observed(0, sent));
        }
        let bell = Arc::clone(&evidence.bell);
        assert!(tokio_test_ready(bell.notified())(), "it is looked at, at once");
    }

    #[test]
    fn a_user_whose_copies_fail_counts_once_and_so_does_one_whose_requests_do() {
        let evidence = evidence();
        let begin = |bucket, outcome| evidence.begin_copy(0, (1, 0), Some(bucket), &ending(outcome));
        // Under way at the same time.
        let (first, second) = (begin(7, Outcome::Success).unwrap(), begin(7, Outcome::Success).unwrap());
        evidence.end_copy(0, first, &ending(FAILED), true);
        evidence.end_copy(0, second, &ending(FAILED), true);
        assert_eq!(counts(&evidence), [(2, 2, 0), (2, 2, 1)]);
        assert!(begin(7, Outcome::Success).is_none());
        request(&evidence, 0, Some(Sent::Split), Some(7), FAILED);
        assert_eq!(evidence.observed(1, Sent::Split).requests.bad, 0, "he has counted");
        // Whoever fails on stable has one pair in which both may fail.
        let both = begin(8, FAILED).unwrap();
        evidence.end_copy(0, both, &ending(FAILED), false);
        assert!(begin(8, Outcome::Success).is_none());
        assert_eq!(counts(&evidence), [(3, 3, 1), (3, 3, 2)]);
        assert_eq!(evidence.observed(1, Sent::Copied).mismatched, 1);
        // Another status is no failure: it counts once, and nothing else of its user is left out.
        for _ in 0..3 {
            let pair = begin(9, Outcome::Success).unwrap();
            evidence.end_copy(0, pair, &ending(Outcome::Success), true);
        }
        assert_eq!(evidence.observed(1, Sent::Copied).mismatched, 2);
        assert_eq!(counts(&evidence), [(6, 6, 1), (6, 6, 2)]);
        request(&evidence, 0, Some(Sent::Split), Some(9), Outcome::Success);
        assert_eq!(evidence.observed(1, Sent::Split).requests.ended, 1);
        evidence.forgive();
        assert!(begin(7, Outcome::Success).is_some() && begin(8, Outcome::Success).is_some());
    }

    #[test]
    fn each_failure_rings() {
        let evidence = evidence();
        request(&evidence, 0, Some(Sent::Forced), None, Outcome::Success);
        let bell = Arc::clone(&evidence.bell);
        let mut rung = tokio_test_ready(bell.notified());
        assert!(!rung());
        request(&evidence, 0, None, None, FAILED);
        assert!(rung());
    }

    /// Whether a future is ready, asked again and again.
    fn tokio_test_ready(future: impl Future<Output = ()>) -> impl FnMut() -> bool {
        let mut future = Box::pin(future);
        move || {
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            future.as_mut().poll(&mut context).is_ready()
        }
    }

    proptest! {
        #[test]
        fn every_request_that_counts_is_in_one_arm(
            requests in proptest::collection::vec((0..2_usize, 0..3_u8, 0..3_u8), 0..200),
        ) {
            let evidence = evidence();
            let mut expected = [[0_u64; 2]; 2];
            for &(thread, sent, outcome) in &requests {
                let sent = [Some(Sent::Split), Some(Sent::Forced), None][usize::from(sent)];
                let outcome = [Outcome::Success, FAILED, Outcome::ClientAbort][usize::from(outcome)];
                request(&evidence, thread, sent, None, outcome);
                if let Some(sent) = sent && outcome != Outcome::ClientAbort {
                    expected[sent as usize][0] += 1;
                    expected[sent as usize][1] += u64::from(outcome == FAILED);
                }
            }
            for sent in [Sent::Split, Sent::Forced] {
                let observed = evidence.observed(1, sent);
                let [ended, bad] = expected[sent as usize];
                prop_assert_eq!((observed.requests.ended, observed.requests.bad), (ended, bad));
                prop_assert_eq!(observed.durations.count(), ended);
                prop_assert_eq!((observed.values[0].count, observed.values[0].sum), (ended, 3.0 * ended as f64));
                prop_assert!(observed.requests.begun >= ended);
                prop_assert_eq!(evidence.observed(0, sent).requests.begun, 0);
            }
            let failures = requests.iter().filter(|(_, _, outcome)| *outcome == 1).count() as u64;
            prop_assert_eq!(evidence.failures(1), failures);
        }
    }
}

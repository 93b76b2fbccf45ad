//! Durations in fixed buckets: log-linear, 64 to an octave, from 50 µs to 134 s.
//!
//! A bucket is at most 1/64 of its lower bound wide (1 µs below 64 µs), so its middle is within 1 % of every duration in
//! it. Everything is counted and added exactly; only where a duration lies within its bucket is lost. The buckets never
//! change, so histograms of threads, proxies and processes add up cell by cell. (The layout is that of HdrHistogram.)

use serde::{Deserialize, Serialize};

/// Buckets to an octave, as a power of two.
const OCTAVE_BITS: u32 = 6;
/// What is shorter is counted in the first bucket.
const MIN_US: u64 = 50;
/// What is longer is counted in the last bucket.
const MAX_US: u64 = (1 << 27) - 1;
/// Number of buckets.
pub const BUCKETS: usize = place(MAX_US) + 1 - FIRST;
const FIRST: usize = place(MIN_US);

/// Buckets counted from a duration of 0, for durations below 2^27.
const fn place(us: u64) -> usize {
    let octave = (us | (1 << OCTAVE_BITS)).ilog2() - OCTAVE_BITS;
    ((octave as usize) << OCTAVE_BITS) + (us >> octave) as usize
}

/// The bucket of a duration in microseconds, below [`BUCKETS`]. Integers only and no jump: a few nanoseconds.
#[inline]
#[must_use]
pub const fn bucket_of(us: u64) -> usize {
    let us = if us < MIN_US { MIN_US } else { us };
    let us = if us > MAX_US { MAX_US } else { us };
    place(us) - FIRST
}

/// The durations of a bucket in microseconds: from the first, up to and without the second. The first bucket also has
/// all that is shorter, the last all that is longer.
#[must_use]
pub const fn bounds_of(bucket: usize) -> (u64, u64) {
    let place = (if bucket < BUCKETS { bucket } else { BUCKETS - 1 }) + FIRST;
    let octave = (place >> OCTAVE_BITS).saturating_sub(1);
    let low = ((place - (octave << OCTAVE_BITS)) as u64) << octave;
    (low, low + (1 << octave))
}

/// A quantile, as exactly as the buckets tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantile {
    /// Microseconds; the true one is this or more (or it is below 50 µs).
    pub low_us: u64,
    /// Microseconds; the true one is below this (or it is above 134 s).
    pub high_us: u64,
}

impl Quantile {
    /// The middle, in microseconds: within 1 % of the true one.
    #[must_use]
    pub fn middle_us(self) -> f64 {
        (self.low_us as f64 + self.high_us as f64) / 2.0
    }
}

/// Counts of durations by bucket. Written as its cells that are not empty: `[[bucket, count], …]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u32, u64)>", into = "Vec<(u32, u64)>")]
pub struct Histogram {
    cells: Box<[u64; BUCKETS]>,
    /// The sum of the cells: an idle version costs nothing.
    count: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            cells: Box::new([0; BUCKETS]),
            count: 0,
        }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, us: u64) {
        self.add(bucket_of(us), 1);
    }

    /// Counts `count` durations of a bucket; a bucket that does not exist is ignored. For who reads shared cells.
    pub fn add(&mut self, bucket: usize, count: u64) {
        if let Some(cell) = self.cells.get_mut(bucket) {
            *cell = cell.saturating_add(count);
            self.count = self.count.saturating_add(count);
        }
    }

    /// Adds what another has counted.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        self.count = self.count.saturating_add(other.count);
        for (cell, more) in self.cells.iter_mut().zip(other.cells.iter()) {
            *cell = cell.saturating_add(*more);
        }
    }

    /// What was counted after `earlier`, a copy of this one taken before. A cell that has fallen (its counter began anew)
    /// gives nothing.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut later = self.clone();
        for (cell, less) in later.cells.iter_mut().zip(earlier.cells.iter()) {
            *cell = cell.saturating_sub(*less);
        }
        later.count = later.from_bucket(0);
        later
    }

    /// Durations counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Durations counted in this bucket and the longer ones.
    #[must_use]
    pub fn from_bucket(&self, bucket: usize) -> u64 {
        let cells = self.cells.get(bucket..).unwrap_or_default();
        cells.iter().fold(0, |sum, cell| sum.saturating_add(*cell))
    }

    /// Durations that are certainly longer than `us` microseconds: all but those up to 1.6 % longer.
    #[must_use]
    pub fn above(&self, us: u64) -> u64 {
        self.from_bucket(bucket_of(us) + 1)
    }

    /// The least duration that at least the fraction `quantile` (0.0 to 1.0) of those counted do not exceed; `None`
    /// without any.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<Quantile> {
        self.quantile_bucket(quantile).map(|bucket| {
            let (low_us, high_us) = bounds_of(bucket);
            Quantile { low_us, high_us }
        })
    }

    /// The bucket of [`Self::quantile`].
    #[must_use]
    pub fn quantile_bucket(&self, quantile: f64) -> Option<usize> {
        let count = self.count;
        // Whole numbers up to 2^53 are exact as f64; beyond, the rank is off by less than 1 in 10^15.
        let rank = ((count as f64 * quantile.clamp(0.0, 1.0)).ceil() as u64).clamp(1, count.max(1));
        let mut below = 0_u64;
        self.cells.iter().position(|cell| {
            below = below.saturating_add(*cell);
            below >= rank
        })
    }

    /// Bucket and count of the cells that are not empty, from short to long.
    pub fn cells(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        let cells = self.cells.iter().copied().enumerate();
        cells.filter(|(_, count)| *count > 0)
    }
}

impl From<Histogram> for Vec<(u32, u64)> {
    fn from(histogram: Histogram) -> Self {
        let cells = histogram.cells();
        cells.map(|(bucket, count)| (bucket as u32, count)).collect()
    }
}

/// A stored histogram that names a bucket that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a histogram has {BUCKETS} buckets: there is no bucket {0}")]
pub struct NoSuchBucket(u32);

impl TryFrom<Vec<(u32, u64)>> for Histogram {
    type Error = NoSuchBucket;

    fn try_from(cells: Vec<(u32, u64)>) -> Result<Self, NoSuchBucket> {
        let mut histogram = Self::default();
        for (bucket, count) in cells {
            if bucket as usize >= BUCKETS {
                return Err(NoSuchBucket(bucket));
            }
            histogram.add(bucket as usize, count);
        }
        Ok(histogram)
    }
}

#[cfg(test)]
#[path = "histogram_tests.rs"]
mod tests;

//! The durations that one thread saw, in the buckets of [`crate::analysis::Histogram`].

use super::cell::SmallCell;
use crate::analysis::{BUCKETS, Histogram, bucket_of};
use std::sync::OnceLock;

/// Cells allocated together: those of an octave, more or less.
const CHUNK: usize = 64;
const CHUNKS: usize = BUCKETS.div_ceil(CHUNK);

/// Written by one thread, read by any. A chunk is allocated when a duration first falls into it: a service whose answers
/// take 1 to 100 ms costs 2 KB, not 6.
pub struct Durations {
    chunks: [OnceLock<Box<[SmallCell; CHUNK]>>; CHUNKS],
}

impl Default for Durations {
    fn default() -> Self {
        Self {
            chunks: std::array::from_fn(|_| OnceLock::new()),
        }
    }
}

impl Durations {
    /// Counts a duration in microseconds.
    #[inline]
    pub fn record(&self, us: u64) {
        let bucket = bucket_of(us);
        if let Some(chunk) = self.chunks.get(bucket / CHUNK) {
            let cells = chunk.get_or_init(|| Box::new(std::array::from_fn(|_| SmallCell::default())));
            if let Some(cell) = cells.get(bucket % CHUNK) {
                cell.add_one();
            }
        }
    }

    /// Adds what was counted so far.
    pub fn add_to(&self, histogram: &mut Histogram) {
        for (chunk, first) in self.chunks.iter().zip((0..).step_by(CHUNK)) {
            let Some(cells) = chunk.get() else { continue };
            for (cell, bucket) in cells.iter().zip(first..) {
                histogram.add(bucket, u64::from(cell.get()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_counted_is_what_a_histogram_would_hold(durations in proptest::collection::vec(0..200_000_000_u64, 0..200)) {
            let (counted, mut expected) = (Durations::default(), Histogram::default());
            for &us in &durations {
                counted.record(us);
                expected.record(us);
            }
            let mut read = Histogram::default();
            counted.add_to(&mut read);
            prop_assert_eq!(read, expected);
        }
    }
}

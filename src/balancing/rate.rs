//! How often something may happen: a token bucket as one number, the generic cell rate algorithm (ITU-T I.371, annex A).
//!
//! The number is the *theoretical arrival time*: when the bucket will be full again. One in the past is a full bucket, so
//! that what has not happened for a while needs no memory.

use std::time::Duration;

/// So many in so much time, and so many at once. Times in nanoseconds of a steady clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Between two, in the long run.
    interval: u64,
    /// How far ahead the arrival time may be: all of the burst.
    depth: u64,
}

impl Rate {
    /// `requests` each `per`, of which `burst` may come at once. Both at least 1; an interval is rounded up to nanoseconds.
    pub fn new(requests: u64, per: Duration, burst: u64) -> Self {
        let per = u64::try_from(per.as_nanos()).unwrap_or(u64::MAX);
        let interval = per.div_ceil(requests.max(1)).max(1);
        Self {
            interval,
            depth: interval.saturating_mul(burst.max(1)),
        }
    }

    /// The arrival time after one more, now.
    ///
    /// # Errors
    /// It is too early: how long until one would not be.
    pub fn take(&self, arrival: u64, now: u64) -> Result<u64, Duration> {
        let next = arrival.max(now).saturating_add(self.interval);
        match next.saturating_sub(now).checked_sub(self.depth) {
            None | Some(0) => Ok(next),
            Some(early) => Err(Duration::from_nanos(early)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_burst_and_then_the_rate() {
        let rate = Rate::new(10, Duration::from_secs(1), 3);
        let mut arrival = 0;
        let mut take = |at_ms: u64| rate.take(arrival, at_ms * MS).map(|next| arrival = next);
        assert_eq!((0..3).map(|_| take(1000)).collect::<Vec<_>>(), [Ok(()); 3]);
        assert_eq!(take(1000), Err(Duration::from_millis(100)));
        assert_eq!(take(1030), Err(Duration::from_millis(70)));
        assert_eq!((take(1100), take(1100)), (Ok(()), Err(Duration::from_millis(100))));
        assert_eq!(
            (0..4).filter(|_| take(9000).is_ok()).count(),
            3,
            "what was saved is a burst, no more"
        );
    }

    #[test]
    fn extremes_neither_overflow_nor_block_for_ever() {
        let rate = Rate::new(u64::MAX, Duration::MAX, u64::MAX);
        assert!(rate.take(u64::MAX, u64::MAX).is_ok());
        let rate = Rate::new(0, Duration::ZERO, 0);
        assert!(rate.take(0, 0).is_ok() && rate.take(u64::MAX, 0).is_err());
    }

    proptest! {
        /// In any stretch of time: no more than the burst and what the rate gives, and whoever waits as told is let in.
        #[test]
        fn never_more_than_the_bound(requests in 1_u64..50, burst in 1_u64..20, pauses in prop::collection::vec(0_u64..200, 1..200)) {
            let per = Duration::from_secs(1);
            let rate = Rate::new(requests, per, burst);
            let (mut now, mut arrival) = (7_000 * MS, 0);
            let mut taken = Vec::new();
            for pause in pauses {
                now += pause * MS;
                match rate.take(arrival, now) {
                    Ok(next) => {
                        arrival = next;
                        taken.push(now);
                    }
                    Err(wait) => {
                        let then = now + u64::try_from(wait.as_nanos()).unwrap();
                        prop_assert!(rate.take(arrival, then).is_ok());
                        prop_assert!(rate.take(arrival, then - 1).is_err());
                    }
                }
            }
            for (first, begin) in taken.iter().enumerate() {
                for (last, end) in taken.iter().enumerate().skip(first) {
                    let earned = u128::from(end - begin) * u128::from(requests) / per.as_nanos();
                    prop_assert!((last - first + 1) as u128 <= u128::from(burst) + earned);
                }
            }
        }
    }
}

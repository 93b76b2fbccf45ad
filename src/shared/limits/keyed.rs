//! Buckets of many keys in a table of fixed size.

use super::{Taken, take};
use crate::balancing::Rate;
use std::array;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets in which a key is looked for: two cache lines.
const WAYS: usize = 8;

/// Attempts to get a bucket that others want, too; then the request is let in uncounted.
const ATTEMPTS: usize = 4;

/// A bucket for each of the last keys. A full bucket says nothing, so one that has had time to fill is free for the next
/// key. When none of a key's places is, the one that will be full first is forgotten, in its key's favour: whoever uses a
/// rate up is never the one that is forgotten before others.
///
/// Where two threads meet over one place, a key may be charged one request of another, or have two buckets for a moment; a
/// lock would cost more than that.
pub struct KeyedBuckets {
    sets: Box<[Set]>,
    /// By keys drawn at random: nobody can look for keys that share a place with another's.
    hasher: RandomState,
}

#[repr(align(128))]
struct Set([Bucket; WAYS]);

#[derive(Default)]
struct Bucket {
    /// The key's hash; 0: nobody's.
    key: AtomicU64,
    arrival: AtomicU64,
}

impl KeyedBuckets {
    /// Room for `keys` keys or somewhat more, 16 bytes each.
    pub fn new(keys: usize) -> Self {
        let sets = keys.div_ceil(WAYS).max(1).next_power_of_two();
        Self {
            sets: (0..sets).map(|_| Set(array::from_fn(|_| Bucket::default()))).collect(),
            hasher: RandomState::new(),
        }
    }

    /// When the key's bucket will be full again; one that has none is full.
    pub fn arrival(&self, key: &impl Hash) -> u64 {
        let (buckets, key) = self.places(key);
        let own = buckets.iter().find(|bucket| bucket.is_of(key));
        own.map_or(0, |own| own.arrival.load(Ordering::Relaxed))
    }

    /// See [`Rate::take`]; `None`: it is let in uncounted.
    pub fn take(&self, rate: &Rate, key: &impl Hash, now: u64) -> Result<Option<Taken<'_>>, Duration> {
        let (buckets, key) = self.places(key);
        for _ in 0..ATTEMPTS {
            if let Some(own) = buckets.iter().find(|bucket| bucket.is_of(key)) {
                return take(rate, &own.arrival, now).map(Some);
            }
            let Some(other) = buckets
                .iter()
                .min_by_key(|bucket| bucket.arrival.load(Ordering::Relaxed))
            else {
                break;
            };
            let held = other.key.load(Ordering::Relaxed);
            let claimed = other
                .key
                .compare_exchange(held, key, Ordering::Relaxed, Ordering::Relaxed);
            if claimed.is_ok() {
                other.arrival.store(0, Ordering::Relaxed);
                return take(rate, &other.arrival, now).map(Some);
            }
        }
        Ok(None)
    }

    /// Where the key's bucket may be, and what it is known by.
    fn places(&self, key: &impl Hash) -> (&[Bucket], u64) {
        let hash = self.hasher.hash_one(key);
        let place = usize::try_from(hash >> 32).unwrap_or_default() & (self.sets.len() - 1);
        let buckets = self.sets.get(place).map_or(&[][..], |Set(buckets)| buckets);
        (buckets, hash.max(1))
    }
}

impl Bucket {
    fn is_of(&self, key: u64) -> bool {
        self.key.load(Ordering::Relaxed) == key
    }
}

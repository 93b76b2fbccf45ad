//! Requests in flight of many keys, in a table of fixed size.

use std::array;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Places in which a key is looked for: one cache line.
const WAYS: usize = 8;

/// Attempts to get a place that others want, too; then the request is let in uncounted.
const ATTEMPTS: usize = 64;

/// Of a place: how many are inside, at most 1,000,000 and one a thread. The rest is what its key is known by.
const COUNT: u64 = (1 << 20) - 1;

/// How many requests of each key are inside. A key has a place while one is; a place is one number, so that it is taken,
/// counted in and given back at once. Where all places of a key are taken by others, its requests are let in uncounted: to
/// refuse them would let a few clients lock out the others.
pub struct KeyedGates {
    sets: Box<[Set]>,
    /// By keys drawn at random: nobody can look for keys that share a place with another's.
    hasher: RandomState,
}

#[derive(Default)]
#[repr(align(64))]
struct Set([AtomicU64; WAYS]);

/// A request that is counted, until it is dropped.
pub struct InsideOfKey {
    gates: Arc<KeyedGates>,
    set: usize,
    way: usize,
}

/// There are as many inside as may be.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl KeyedGates {
    /// Room for `keys` keys at a time, of 16 bytes each. Twice the places, so that hardly a key finds its own taken.
    pub fn new(keys: usize) -> Self {
        let sets = keys.saturating_mul(2).div_ceil(WAYS).max(1).next_power_of_two();
        Self {
            sets: (0..sets).map(|_| Set::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    /// One more of `key`; `None`: uncounted. Never more than `most` over all threads.
    pub fn enter(self: &Arc<Self>, key: &impl Hash, most: u32) -> Result<Option<InsideOfKey>, Full> {
        let hash = self.hasher.hash_one(key);
        let (set, key) = (hash as usize & (self.sets.len() - 1), hash & !COUNT);
        let Some(Set(places)) = self.sets.get(set) else {
            return Ok(None);
        };
        let most = u64::from(most);
        for _ in 0..ATTEMPTS {
            let seen: [u64; WAYS] =
                array::from_fn(|way| places.get(way).map_or(0, |place| place.load(Ordering::SeqCst)));
            if inside(&seen, key) >= most {
                return Err(Full);
            }
            let own = seen.iter().position(|&place| is_of(place, key));
            let Some(way) = own.or_else(|| seen.iter().position(|&place| place & COUNT == 0)) else {
                return Ok(None);
            };
            let (Some(place), Some(&before)) = (places.get(way), seen.get(way)) else {
                return Ok(None);
            };
            let next = if own.is_some() { before + 1 } else { key | 1 };
            if place
                .compare_exchange(before, next, Ordering::SeqCst, Ordering::SeqCst)
                .is_err()
            {
                continue;
            }
            let entered = InsideOfKey {
                gates: Arc::clone(self),
                set,
                way,
            };
            // Another thread may have begun the same key in another place at the same moment.
            let now: [u64; WAYS] =
                array::from_fn(|way| places.get(way).map_or(0, |place| place.load(Ordering::SeqCst)));
            return if inside(&now, key) > most {
                Err(Full)
            } else {
                Ok(Some(entered))
            };
        }
        Ok(None)
    }

    #[cfg(test)]
    pub(super) fn total(&self) -> u64 {
        let places = self.sets.iter().flat_map(|Set(places)| places);
        places.map(|place| place.load(Ordering::SeqCst) & COUNT).sum()
    }
}

fn is_of(place: u64, key: u64) -> bool {
    place & !COUNT == key && place & COUNT > 0
}

fn inside(places: &[u64; WAYS], key: u64) -> u64 {
    let own = places.iter().filter(|&&place| is_of(place, key));
    own.map(|place| place & COUNT).sum()
}

impl Drop for InsideOfKey {
    fn drop(&mut self) {
        // The place is its key's as long as one is inside.
        if let Some(place) = self
            .gates
            .sets
            .get(self.set)
            .and_then(|Set(places)| places.get(self.way))
        {
            place.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

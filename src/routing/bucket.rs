//! Salted, versioned hashes: a user's key -> a bucket.
//!
//! All three are MurmurHash3 x86_32 (Austin Appleby, public domain) over bytes. The hash is written out here, and not
//! taken from the `murmur3` crate (which is the oracle of its test), because that one reads from `std::io::Read` four
//! bytes at a time and can fail: here `salt ":" key` is hashed in parts, without joining them, for any length.
//!
//! | name | string | result |
//! |---|---|---|
//! | `rollgate-1` | `salt ":" key` | `(h * 100000) >> 32` |
//! | `unleash-1` | `salt ":" key` (the salt is Unleash's group) | `h % 100 + 1` |
//! | `flagd-2` | `salt key` (the salt is the flag's key; empty: an explicit bucketing value) | `(h * total) >> 32` |

/// A hash by name. A name never changes meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HashName {
    #[default]
    Rollgate1,
    Unleash1,
    Flagd2,
}

/// How many buckets there are: shares are exact to a thousandth of a percent.
pub const BUCKETS: u32 = 100_000;

/// The seed of Unleash's variants (Unleash client specification, `normalizedVariantValue`).
const UNLEASH_VARIANT_SEED: u32 = 86_028_157;

impl HashName {
    /// As written in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rollgate1 => "rollgate-1",
            Self::Unleash1 => "unleash-1",
            Self::Flagd2 => "flagd-2",
        }
    }

    /// The bucket of `key`, 0..100000. For `unleash-1` and `flagd-2`, whose own scales differ, the lower edge of the
    /// user's position on this one: what logs and `explain` show.
    pub fn bucket(self, salt: &str, key: &[u8]) -> u32 {
        match self {
            Self::Rollgate1 => scale(Murmur3::of_pair(0, salt, key).finish(), BUCKETS),
            Self::Unleash1 => (unleash_percentile(salt, key) - 1) * (BUCKETS / 100),
            Self::Flagd2 => scale(flagd_hash(salt, key), BUCKETS),
        }
    }
}

/// Unleash's position of a user in a gradual rollout, 1 to 100.
pub(super) fn unleash_percentile(salt: &str, key: &[u8]) -> u32 {
    Murmur3::of_pair(0, salt, key).finish() % 100 + 1
}

/// Unleash's position of a user among variants, 1 to `total`. `total` is above zero; zero counts as one.
pub(super) fn unleash_variant(salt: &str, key: &[u8], total: u64) -> u64 {
    u64::from(Murmur3::of_pair(UNLEASH_VARIANT_SEED, salt, key).finish()) % total.max(1) + 1
}

/// The hash of flagd's `fractional`: flag key and targeting key without anything between.
pub(super) fn flagd_hash(salt: &str, key: &[u8]) -> u32 {
    Murmur3::new(0).write(salt.as_bytes()).write(key).finish()
}

/// `hash` (of 2^32 values) on a scale of `steps`: 0..steps.
fn scale(hash: u32, steps: u32) -> u32 {
    ((u64::from(hash) * u64::from(steps)) >> 32) as u32
}

/// MurmurHash3 x86_32, fed in parts: the result depends on the bytes alone, not on where the parts are cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Murmur3 {
    state: u32,
    /// The 0 to 3 bytes not yet mixed in, lowest first.
    tail: u32,
    tail_bits: u32,
    /// Bytes seen, modulo 2^32, as in the reference code.
    length: u32,
}

impl Murmur3 {
    pub(super) fn new(seed: u32) -> Self {
        Self {
            state: seed,
            tail: 0,
            tail_bits: 0,
            length: 0,
        }
    }

    /// The state after `salt ":" key`.
    pub(super) fn of_pair(seed: u32, salt: &str, key: &[u8]) -> Self {
        Self::new(seed).write(salt.as_bytes()).write(b":").write(key)
    }

    pub(super) fn write(mut self, mut bytes: &[u8]) -> Self {
        self.length = self.length.wrapping_add(bytes.len() as u32);
        while self.tail_bits != 0 {
            let Some((&byte, rest)) = bytes.split_first() else {
                return self;
            };
            self.push(byte);
            bytes = rest;
        }
        let (words, rest) = bytes.as_chunks::<4>();
        for &word in words {
            self.mix(u32::from_le_bytes(word));
        }
        for &byte in rest {
            self.push(byte);
        }
        self
    }

    pub(super) fn finish(self) -> u32 {
        // An empty tail scrambles to zero, so that the exclusive or changes nothing.
        let mut h = self.state ^ scramble(self.tail) ^ self.length;
        h = (h ^ (h >> 16)).wrapping_mul(0x85eb_ca6b);
        h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
        h ^ (h >> 16)
    }

    fn push(&mut self, byte: u8) {
        self.tail |= u32::from(byte) << self.tail_bits;
        self.tail_bits += 8;
        if self.tail_bits == 32 {
            let word = self.tail;
            (self.tail, self.tail_bits) = (0, 0);
            self.mix(word);
        }
    }

    fn mix(&mut self, word: u32) {
        self.state = (self.state ^ scramble(word))
            .rotate_left(13)
            .wrapping_mul(5)
            .wrapping_add(0xe654_6b64);
    }
}

fn scramble(word: u32) -> u32 {
    word.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn published_vectors_of_unleash() {
        for (id, percentile) in [
            ("user-1", 95),
            ("user-2", 96),
            ("user-7", 81),
            ("user-42", 87),
            ("alice", 32),
            ("bob", 76),
        ] {
            assert_eq!(unleash_percentile("demo", id.as_bytes()), percentile, "{id}");
            assert_eq!(
                HashName::Unleash1.bucket("demo", id.as_bytes()),
                (percentile - 1) * 1000
            );
        }
        assert_eq!(unleash_variant("demo", b"user-1", 100), 93);
        assert_eq!(unleash_variant("demo", b"bob", 100), 5);
    }

    #[test]
    fn published_preimages_of_flagd() {
        for (key, hash, bucket) in [
            ("ejOoVL", 0, 0),
            ("bY9fO-", 1, 0),
            ("SI7p-", 0x7fff_ffff, 49_999),
            ("6LvT0", 0x8000_0000, 50_000),
            ("ceQdGm", u32::MAX, 99_999),
        ] {
            assert_eq!(flagd_hash("", key.as_bytes()), hash, "{key}");
            assert_eq!(HashName::Flagd2.bucket("", key.as_bytes()), bucket, "{key}");
            let (flag, targeting) = key.split_at(2);
            assert_eq!(flagd_hash(flag, targeting.as_bytes()), hash, "{key} in two parts");
        }
    }

    /// Computed once and frozen: `rollgate-1` never changes meaning.
    #[test]
    fn rollgate_1_is_frozen() {
        for key in ["", "alice", "bob", "user-42", "ユーザー"] {
            let joined = format!("checkout:{key}");
            let hash = murmur3::murmur3_32(&mut joined.as_bytes(), 0).unwrap();
            let bucket = ((u64::from(hash) * 100_000) >> 32) as u32;
            assert_eq!(HashName::Rollgate1.bucket("checkout", key.as_bytes()), bucket, "{key}");
        }
        let frozen: Vec<u32> = ["alice", "bob", "user-42"]
            .iter()
            .map(|key| HashName::Rollgate1.bucket("checkout", key.as_bytes()))
            .collect();
        assert_eq!(frozen, [74_783, 74_675, 55_472]);
    }

    proptest! {
        #[test]
        fn parts_hash_like_the_whole(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..23), 0..6),
            seed in any::<u32>(),
        ) {
            let whole = parts.concat();
            let expected = murmur3::murmur3_32(&mut whole.as_slice(), seed).unwrap();
            let mut hash = Murmur3::new(seed);
            for part in &parts {
                hash = hash.write(part);
            }
            prop_assert_eq!(hash.finish(), expected);
        }

        #[test]
        fn buckets_are_in_range(salt in ".{0,20}", key in prop::collection::vec(any::<u8>(), 0..300)) {
            for hash in [HashName::Rollgate1, HashName::Unleash1, HashName::Flagd2] {
                prop_assert!(hash.bucket(&salt, &key) < BUCKETS);
            }
            prop_assert!((1..=100).contains(&unleash_percentile(&salt, &key)));
        }
    }
}

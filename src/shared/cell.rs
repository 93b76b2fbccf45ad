//! A number that one thread writes and all may read, without a locked instruction.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

/// A counter with one writing thread: raised by a relaxed load and a relaxed store.
#[derive(Default)]
pub struct Cell(AtomicU64);

impl Cell {
    #[inline]
    pub fn add(&self, n: u64) {
        self.0
            .store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The same in half the room, for cells of which there are many: it wraps at 2^32.
#[derive(Default)]
pub struct SmallCell(AtomicU32);

impl SmallCell {
    #[inline]
    pub fn add_one(&self) {
        self.0
            .store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A gauge with one writing thread.
#[derive(Default)]
pub struct Level(AtomicI64);

impl Level {
    #[inline]
    pub fn add(&self, n: i64) {
        self.0
            .store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A sum with one writing thread.
#[derive(Default)]
pub struct FloatCell(AtomicU64);

impl FloatCell {
    #[inline]
    pub fn add(&self, more: f64) {
        self.0.store((self.get() + more).to_bits(), Ordering::Relaxed);
    }

    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

//! How notifications fare: counted by the control plane, shown by `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering};

/// How a notification for one receiver ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotificationEnd {
    Delivered,
    /// The receiver does not want it.
    Refused,
    /// It waited too long.
    Expired,
    /// Too many waited.
    Dropped,
    /// Its receiver has left the file.
    Withdrawn,
}

impl NotificationEnd {
    pub const ALL: [Self; 5] = [
        Self::Delivered,
        Self::Refused,
        Self::Expired,
        Self::Dropped,
        Self::Withdrawn,
    ];

    /// As a label of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Dropped => "dropped",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// Counts since the process began.
#[derive(Debug, Default)]
pub struct Notifications {
    ended: [AtomicU64; NotificationEnd::ALL.len()],
    waiting: AtomicU64,
}

impl Notifications {
    pub fn ended(&self, end: NotificationEnd) -> u64 {
        self.counter(end).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// Counts `number` more. Returns how many there were before.
    pub fn count(&self, end: NotificationEnd, number: u64) -> u64 {
        self.counter(end)
            .map_or(0, |counter| counter.fetch_add(number, Ordering::Relaxed))
    }

    /// How many wait for their receivers.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    pub fn set_waiting(&self, number: usize) {
        self.waiting.store(number as u64, Ordering::Relaxed);
    }

    fn counter(&self, end: NotificationEnd) -> Option<&AtomicU64> {
        self.ended.get(end as usize)
    }
}

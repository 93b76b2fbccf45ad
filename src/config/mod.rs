//! Text -> [`Snapshot`], or every problem at once.

pub mod snapshot;

pub use snapshot::Snapshot;

//! How two versions compare: the judge of a rollout. Pure: counts in, verdicts out.
//!
//! - [`Histogram`]: durations in fixed buckets; the data plane counts with [`bucket_of`].
//! - `mixture`: the martingale under every judgement on counts, and why one may look at any instant.
//! - [`Evidence`]: whether the candidate fails more often than stable. [`QuantileEvidence`]: whether it is slower.
//!   [`LimitEvidence`]: whether it is bad more often than an absolute limit.
//! - [`Power`]: what a comparison can find, before it begins.
//!
//! Each second costs a pass over the buckets of each version; a request costs nothing here.

mod evidence;
mod histogram;
mod limit;
mod mixture;
mod power;
mod quantile;

pub use evidence::{Arm, Counts, Evidence};
pub use histogram::{BUCKETS, Histogram, NoSuchBucket, Quantile, bounds_of, bucket_of};
pub use limit::LimitEvidence;
pub use power::{POWER, Power, Traffic};
pub use quantile::QuantileEvidence;

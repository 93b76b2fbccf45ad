//! How two versions compare: the judge of a rollout. Pure: counts in, verdicts out.
//!
//! - [`Histogram`]: durations in fixed buckets; the data plane counts with [`bucket_of`].
//! - `mixture`: the martingale under every judgement on counts, and why one may look at any instant.
//! - [`Evidence`]: whether the candidate fails more often than stable. [`QuantileEvidence`]: whether it is slower.
//!   [`LimitEvidence`]: whether it is bad more often than an absolute limit. [`MeanDifference`]: whether the mean of an
//!   application's own numbers differs; also for reports of A/B tests.
//! - [`Check`], [`Rules`]: what is judged. [`Judge`]: what was seen, a [`Window`] at a time. [`Finding`]: the verdict on a
//!   check, with its numbers and one plain sentence.
//! - [`Power`], [`LimitPower`]: what a comparison and a limit can find, before they begin. [`Latencies`]: a model for it.
//!
//! Each second costs a pass over the buckets of each version; a request costs nothing here. All that must survive a
//! restart is in [`Judge`], which is read as it was written, to the last bit (`serde_json` with `float_roundtrip`).

mod check;
mod evidence;
mod finding;
mod histogram;
mod judge;
mod latencies;
mod limit;
mod mean;
mod mixture;
mod power;
mod quantile;
mod wording;

pub use check::{Check, Limits, Rules, Test};
pub use evidence::{Arm, Counts, Evidence};
pub use finding::{Finding, Measured, Names, Verdict};
pub use histogram::{BUCKETS, Histogram, NoSuchBucket, Quantile, bounds_of, bucket_of};
pub use judge::{Judge, Observed, Window};
pub use latencies::Latencies;
pub use limit::LimitEvidence;
pub use mean::{BEGIN, Difference, MeanDifference, Moments, Worse, log_beyond};
pub use power::{LimitPower, POWER, Power, Traffic};
pub use quantile::QuantileEvidence;
pub use wording::percent;

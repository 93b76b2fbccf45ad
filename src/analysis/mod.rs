//! How two versions compare.

mod histogram;

pub use histogram::{BUCKETS, Histogram, NoSuchBucket, Quantile, bounds_of, bucket_of};

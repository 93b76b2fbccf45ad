//! The control plane.

pub mod load;

pub use load::{LoadError, load};

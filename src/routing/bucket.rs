//! Salted, versioned hashes: a user's key -> a bucket.

/// A hash by name. A name never changes meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HashName {
    #[default]
    Rollgate1,
    Unleash1,
    Flagd2,
}

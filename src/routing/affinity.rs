//! Same user, same version: where the key comes from, and the signed cookie with its epoch.

use super::{HashName, VersionId};

/// Affinity of a service.
#[derive(Debug, Clone)]
pub struct Affinity {
    /// The first one present (and not empty) wins.
    pub key: Box<[KeySource]>,
    pub salt: Box<str>,
    pub hash: HashName,
    /// Present: users without a key get an id, and (with `keep`) admission to the canary is recorded.
    pub cookie: Option<CookieSpec>,
    /// A user once admitted to the canary stays while the share falls.
    pub keep: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// Lowercase name.
    Header(Box<str>),
    Cookie(Box<str>),
    ClientIp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieSpec {
    pub name: Box<str>,
    /// Life in seconds.
    pub ttl_s: u64,
}

/// The secret that signs cookies. Never shown.
#[derive(Clone)]
pub struct CookieKey(ring::hmac::Key);

impl CookieKey {
    /// From at least 32 secret bytes.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret))
    }
}

/// A cookie to be set on the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetCookie {
    pub id: u128,
    pub kept: Option<VersionId>,
}

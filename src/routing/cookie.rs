//! The signed affinity cookie and its epoch.
//!
//! The value is 92 characters of unpadded URL-safe base64 over 69 bytes, big-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | format, 1 |
//! | 16 | id of a user who has no key; 0 for one who has |
//! | 4 | epoch of the service |
//! | 8 | when it was made, seconds since the Unix epoch |
//! | 8 | tag of the name of the canary the user was admitted to, 0 for none: a hash and not a position, so that the order of versions in the file may change and a removed version is simply gone |
//! | 32 | HMAC-SHA256 |
//!
//! The MAC is over a domain, the SHA-256 of (the 37 bytes before it, the service's name, the user's key if there is one), each
//! with its length: a cookie is good for one service and one user, and says nothing that its holder could choose. A
//! user without a key is whoever holds the cookie. Whatever fails any test is as if it were not there; nothing of it
//! is ever sent back.

use super::bucket::Murmur3;
use super::{CookieSpec, RequestView, Service, VersionId};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::{digest, hmac};
use std::io::Write;

/// The secret that signs cookies. Never shown.
#[derive(Clone)]
pub struct CookieKey(hmac::Key);

impl CookieKey {
    /// From at least 32 secret bytes.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }
}

const FORMAT: u8 = 1;
const DOMAIN: &[u8; 18] = b"rollgate-cookie-1\n";
const PAYLOAD_LEN: usize = 37;
const MAC_LEN: usize = 32;
const RAW_LEN: usize = PAYLOAD_LEN + MAC_LEN;

/// Bytes of a cookie's value: 4/3 of 69.
pub const COOKIE_VALUE_LEN: usize = RAW_LEN / 3 * 4;

/// How far in the future a cookie may have been made, in seconds: the clocks of two proxies differ.
pub const COOKIE_SKEW_S: u64 = 300;

/// How many cookies of the name are tried: a browser sends those of parent domains too, perhaps first.
const MAX_TRIED: usize = 4;

/// Whom and what a cookie must have been made for.
#[derive(Clone, Copy)]
pub(super) struct Bound<'a> {
    pub service: &'a str,
    /// The user's key; `None` for a user who has none.
    pub user: Option<&'a [u8]>,
    pub epoch: u32,
}

/// What a cookie says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cookie {
    pub id: u128,
    pub issued_s: u64,
    /// See [`version_tag`].
    pub kept: u64,
}

impl Cookie {
    /// The request's cookie, if it is one of ours, for this user, service and epoch, and not too old.
    pub(super) fn of_request(
        request: &RequestView<'_>,
        spec: &CookieSpec,
        bound: Bound<'_>,
        key: &CookieKey,
        now_s: u64,
    ) -> Option<Self> {
        request
            .cookies(&spec.name)
            .take(MAX_TRIED)
            .filter_map(|value| Self::open(value, bound, key))
            .find(|cookie| {
                let made_in_future = cookie.issued_s > now_s.saturating_add(COOKIE_SKEW_S);
                let expired = now_s.saturating_sub(cookie.issued_s) >= spec.ttl_s;
                !made_in_future && !expired
            })
    }

    /// Whether more than half its life is over.
    pub(super) fn is_old(&self, spec: &CookieSpec, now_s: u64) -> bool {
        now_s.saturating_sub(self.issued_s) > spec.ttl_s / 2
    }

    fn open(value: &[u8], bound: Bound<'_>, key: &CookieKey) -> Option<Self> {
        if value.len() != COOKIE_VALUE_LEN {
            return None;
        }
        let mut raw = [0; RAW_LEN];
        let len = URL_SAFE_NO_PAD.decode_slice(value, &mut raw).ok()?;
        let (payload, mac) = raw.get(..len)?.split_first_chunk::<PAYLOAD_LEN>()?;
        // ring compares in constant time.
        hmac::verify(&key.0, &to_sign(payload, bound), mac).ok()?;
        let (format, rest) = payload.split_first()?;
        let (id, rest) = rest.split_first_chunk()?;
        let (epoch, rest) = rest.split_first_chunk()?;
        let (issued_s, rest) = rest.split_first_chunk()?;
        let (kept, _) = rest.split_first_chunk()?;
        (*format == FORMAT && u32::from_be_bytes(*epoch) == bound.epoch).then_some(Self {
            id: u128::from_be_bytes(*id),
            issued_s: u64::from_be_bytes(*issued_s),
            kept: u64::from_be_bytes(*kept),
        })
    }

    pub(super) fn seal(&self, bound: Bound<'_>, key: &CookieKey) -> Box<[u8; COOKIE_VALUE_LEN]> {
        let mut raw = [0; RAW_LEN];
        let fields = [
            &[FORMAT][..],
            &self.id.to_be_bytes(),
            &bound.epoch.to_be_bytes(),
            &self.issued_s.to_be_bytes(),
            &self.kept.to_be_bytes(),
        ];
        fill(&mut raw, fields.into_iter().flatten());
        if let Some((payload, mac)) = raw.split_first_chunk_mut::<PAYLOAD_LEN>() {
            fill(mac, hmac::sign(&key.0, &to_sign(payload, bound)).as_ref());
        }
        let mut value = Box::new([0; COOKIE_VALUE_LEN]);
        // Cannot fail: the value has exactly the length that 69 bytes take.
        let _ = URL_SAFE_NO_PAD.encode_slice(raw, value.as_mut_slice());
        value
    }
}

fn fill<'a>(to: &mut [u8], from: impl IntoIterator<Item = &'a u8>) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
}

/// What the MAC is taken of: of fixed length, so that a user's key of any length needs no buffer.
fn to_sign(payload: &[u8; PAYLOAD_LEN], bound: Bound<'_>) -> [u8; DOMAIN.len() + MAC_LEN] {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(payload);
    for part in [Some(bound.service.as_bytes()), bound.user] {
        hash.update(&[u8::from(part.is_some())]);
        let part = part.unwrap_or_default();
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut message = [0; DOMAIN.len() + MAC_LEN];
    fill(&mut message, DOMAIN.iter().chain(hash.finish().as_ref()));
    message
}

/// What a cookie says of a version: 64 bits of its name. 0 means none, and no name has it.
pub(super) fn version_tag(service: &Service, version: VersionId) -> u64 {
    service.versions.get(version.0 as usize).map_or(0, |version| {
        let half = |seed| u64::from(Murmur3::new(seed).write(version.name.as_bytes()).finish());
        (half(0) << 32 | half(1)).max(1)
    })
}

/// The version a cookie's tag means; `None` if there is none (any more).
pub(super) fn version_of_tag(service: &Service, tag: u64) -> Option<VersionId> {
    (0..service.versions.len() as u32)
        .map(VersionId)
        .find(|&version| tag != 0 && version_tag(service, version) == tag)
}

/// A cookie to be set on the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetCookie {
    /// The id of a user who has no key; 0 for one who has.
    pub id: u128,
    /// The canary the user was admitted to.
    pub kept: Option<VersionId>,
    value: Box<[u8; COOKIE_VALUE_LEN]>,
}

impl SetCookie {
    pub(super) fn new(id: u128, kept: Option<VersionId>, value: Box<[u8; COOKIE_VALUE_LEN]>) -> Self {
        Self { id, kept, value }
    }

    /// The signed value: characters of base64url only.
    pub fn value(&self) -> &[u8] {
        self.value.as_slice()
    }

    /// Appends the value of a `Set-Cookie` field: name, value and attributes. `secure`: the request came over TLS.
    pub fn header_value(&self, spec: &CookieSpec, secure: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(spec.name.as_bytes());
        out.push(b'=');
        out.extend_from_slice(self.value());
        // Writing to a vector cannot fail.
        let _ = write!(out, "; Path=/; Max-Age={}; HttpOnly; SameSite=Lax", spec.ttl_s);
        if secure {
            out.extend_from_slice(b"; Secure");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::tests::{Lines, request};
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000;

    fn key() -> CookieKey {
        CookieKey::new(&[7; 32])
    }

    fn bound() -> Bound<'static> {
        Bound {
            service: "checkout",
            user: Some(b"alice"),
            epoch: 3,
        }
    }

    fn cookie() -> Cookie {
        Cookie {
            id: 0x1234_5678_9abc_def0,
            issued_s: NOW,
            kept: 99,
        }
    }

    fn spec() -> CookieSpec {
        CookieSpec {
            name: "rollgate".into(),
            ttl_s: 1000,
        }
    }

    fn read(value: &[u8], now_s: u64) -> Option<Cookie> {
        let fields = Lines(vec![("cookie".to_owned(), [b"rollgate=", value].concat())]);
        Cookie::of_request(&request(&fields), &spec(), bound(), &key(), now_s)
    }

    #[test]
    fn what_was_sealed_opens() {
        let value = cookie().seal(bound(), &key());
        assert_eq!(read(value.as_slice(), NOW), Some(cookie()));
        assert!(
            value
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        );
    }

    #[test]
    fn a_foreign_cookie_of_the_same_name_does_not_hide_ours() {
        let ours = cookie().seal(bound(), &key());
        for (foreign, found) in [(0, true), (1, true), (3, true), (4, false)] {
            let mut line = b"rollgate=other; ".repeat(foreign);
            line.extend_from_slice(&[b"rollgate=", ours.as_slice()].concat());
            let fields = Lines(vec![("cookie".to_owned(), line)]);
            let read = Cookie::of_request(&request(&fields), &spec(), bound(), &key(), NOW);
            assert_eq!(read.is_some(), found, "after {foreign}");
        }
    }

    #[test]
    fn only_for_its_user_service_epoch_and_key() {
        let value = cookie().seal(bound(), &key());
        let others = [
            Bound {
                service: "cart",
                ..bound()
            },
            Bound {
                service: "checkoutalice",
                user: Some(b""),
                ..bound()
            },
            Bound {
                user: Some(b"bob"),
                ..bound()
            },
            Bound {
                user: Some(b""),
                ..bound()
            },
            Bound { user: None, ..bound() },
            Bound { epoch: 2, ..bound() },
            Bound { epoch: 4, ..bound() },
        ];
        for other in others {
            assert_eq!(
                Cookie::open(value.as_slice(), other, &key()),
                None,
                "{} {:?}",
                other.service,
                other.user
            );
        }
        assert_eq!(Cookie::open(value.as_slice(), bound(), &CookieKey::new(&[8; 32])), None);
        let nobody = Bound { user: None, ..bound() };
        let empty = Bound {
            user: Some(b""),
            ..bound()
        };
        assert_eq!(
            Cookie::open(cookie().seal(nobody, &key()).as_slice(), empty, &key()),
            None
        );
    }

    #[test]
    fn only_in_its_time() {
        let value = cookie().seal(bound(), &key());
        for (now_s, expected) in [
            (NOW + 999, true),
            (NOW + 1000, false),
            (u64::MAX, false),
            (NOW - COOKIE_SKEW_S, true),
            (NOW - COOKIE_SKEW_S - 1, false),
            (0, false),
        ] {
            assert_eq!(read(value.as_slice(), now_s).is_some(), expected, "{now_s}");
        }
        assert!(!cookie().is_old(&spec(), NOW + 500));
        assert!(cookie().is_old(&spec(), NOW + 501));
        assert!(!cookie().is_old(&spec(), NOW - 1));
    }

    #[test]
    fn every_changed_bit_is_seen() {
        let value = cookie().seal(bound(), &key());
        for at in 0..value.len() {
            for bit in 0..8 {
                let mut changed = value.clone();
                changed[at] ^= 1 << bit;
                assert_eq!(
                    Cookie::open(changed.as_slice(), bound(), &key()),
                    None,
                    "byte {at} bit {bit}"
                );
            }
        }
        for len in 0..value.len() {
            assert_eq!(Cookie::open(&value[..len], bound(), &key()), None, "{len}");
        }
        assert_eq!(Cookie::open(&[value.as_slice(), b"A"].concat(), bound(), &key()), None);
    }

    #[test]
    fn the_header_has_all_attributes() {
        let set = SetCookie::new(1, None, cookie().seal(bound(), &key()));
        let value = String::from_utf8(set.value().to_vec()).unwrap();
        for (secure, end) in [(false, ""), (true, "; Secure")] {
            let mut out = b"set-cookie: ".to_vec();
            set.header_value(&spec(), secure, &mut out);
            let expected = format!("set-cookie: rollgate={value}; Path=/; Max-Age=1000; HttpOnly; SameSite=Lax{end}");
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_sealed_opens_as_it_was(id: u128, issued_s: u64, kept: u64, epoch: u32, user: Option<Vec<u8>>) {
            let cookie = Cookie { id, issued_s, kept };
            let bound = Bound { service: "s", user: user.as_deref(), epoch };
            prop_assert_eq!(Cookie::open(cookie.seal(bound, &key()).as_slice(), bound, &key()), Some(cookie));
        }

        #[test]
        fn nothing_forged_opens(value in prop::collection::vec(any::<u8>(), 0..120), text in "[A-Za-z0-9_-]{92}") {
            prop_assert_eq!(Cookie::open(&value, bound(), &key()), None);
            prop_assert_eq!(Cookie::open(text.as_bytes(), bound(), &key()), None);
        }
    }
}

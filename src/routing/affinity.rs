//! Same user, same version: where the key comes from. The signed cookie is in [`super::cookie`].

use super::{HashName, RequestView};
use std::fmt::Write;

/// Affinity of a service.
#[derive(Debug, Clone)]
pub struct Affinity {
    /// The first one present (and not empty) wins.
    pub key: Box<[KeySource]>,
    pub salt: Box<str>,
    pub hash: HashName,
    /// Present: users without a key get an id, and (with `keep`) admission to the canary is recorded.
    pub cookie: Option<CookieSpec>,
    /// A user once admitted to the canary stays while the share falls. Needs `cookie`: nothing else could record it.
    pub keep: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// Lowercase name. The first field line of that name counts.
    Header(Box<str>),
    /// The first cookie of that name counts.
    Cookie(Box<str>),
    ClientIp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieSpec {
    /// A token (RFC 6265 section 4.1.1), held when the file is compiled.
    pub name: Box<str>,
    /// Life in seconds.
    pub ttl_s: u64,
}

impl Affinity {
    /// The user's key: the bytes of the header or cookie as sent, or the client's address as text (IPv4 in IPv6 as IPv4).
    /// `None`: no source is present, or all are empty.
    pub fn user_key<'a>(&self, request: &RequestView<'a>) -> Option<UserKey<'a>> {
        first_key(&self.key, request).map(|(_, key)| key)
    }
}

/// The first of `sources` that the request has, by its position, with what it says.
pub fn first_key<'a>(sources: &[KeySource], request: &RequestView<'a>) -> Option<(usize, UserKey<'a>)> {
    let key_of = |source: &KeySource| {
        let value = match source {
            KeySource::Header(name) => request.fields.nth(name, 0)?,
            KeySource::Cookie(name) => request.cookie(name)?,
            KeySource::ClientIp => {
                let mut text = ShortText::default();
                // An address is at most 45 bytes long, so that this cannot fail.
                write!(text, "{}", request.canonical_client_ip()).ok()?;
                return Some(UserKey::Short(text));
            }
        };
        (!value.is_empty()).then_some(UserKey::Sent(value))
    };
    sources
        .iter()
        .enumerate()
        .find_map(|(index, source)| Some((index, key_of(source)?)))
}

/// A user's key: what the hash is taken of.
#[derive(Debug, Clone, Copy)]
pub enum UserKey<'a> {
    /// As the client sent it.
    Sent(&'a [u8]),
    /// The client's address, or the id of a signed cookie, as text.
    Short(ShortText),
}

impl UserKey<'_> {
    /// The key of a user known by the id of a signed cookie: 32 lowercase hexadecimal digits.
    pub fn of_id(id: u128) -> Self {
        let mut text = ShortText::default();
        for digit in (0..32).rev().map(|place| (id >> (place * 4)) as u32 & 15) {
            text.push(char::from_digit(digit, 16).map_or(b'0', |digit| digit as u8));
        }
        Self::Short(text)
    }

    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Sent(bytes) => bytes,
            Self::Short(text) => text.as_bytes(),
        }
    }
}

/// Up to 48 bytes without an allocation.
#[derive(Debug, Clone, Copy)]
pub struct ShortText {
    bytes: [u8; 48],
    len: usize,
}

impl Default for ShortText {
    fn default() -> Self {
        Self { bytes: [0; 48], len: 0 }
    }
}

impl ShortText {
    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }

    /// What does not fit is left out.
    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.len) {
            *slot = byte;
            self.len += 1;
        }
    }
}

impl Write for ShortText {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        text.bytes().for_each(|byte| self.push(byte));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::tests::{Lines, request};
    use super::*;

    fn affinity(key: &[KeySource]) -> Affinity {
        Affinity {
            key: key.into(),
            salt: "checkout".into(),
            hash: HashName::Rollgate1,
            cookie: None,
            keep: false,
        }
    }

    fn key_of(affinity: &Affinity, view: &RequestView<'_>) -> Option<String> {
        affinity
            .user_key(view)
            .map(|key| String::from_utf8(key.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn the_first_source_present_and_not_empty_wins() {
        let all = affinity(&[
            KeySource::Header("x-user-id".into()),
            KeySource::Cookie("uid".into()),
            KeySource::ClientIp,
        ]);
        for (lines, expected) in [
            (&[("X-User-Id", "alice"), ("cookie", "uid=bob")][..], "alice"),
            (&[("X-User-Id", ""), ("cookie", "uid=bob")], "bob"),
            (&[("cookie", "uid=; uid=carol")], "192.0.2.7"),
            (&[], "192.0.2.7"),
        ] {
            assert_eq!(
                key_of(&all, &request(&Lines::of(lines))).as_deref(),
                Some(expected),
                "{lines:?}"
            );
        }
        let fields = Lines::default();
        assert_eq!(
            key_of(&affinity(&[KeySource::Header("x-user-id".into())]), &request(&fields)),
            None
        );
        assert_eq!(key_of(&affinity(&[]), &request(&fields)), None);
    }

    #[test]
    fn an_address_has_one_text() {
        let by_ip = affinity(&[KeySource::ClientIp]);
        let fields = Lines::default();
        for (address, expected) in [
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:0db8::0001", "2001:db8::1"),
            (
                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            ),
        ] {
            let view = RequestView {
                client_ip: address.parse().unwrap(),
                ..request(&fields)
            };
            assert_eq!(key_of(&by_ip, &view).as_deref(), Some(expected));
        }
    }

    #[test]
    fn an_id_is_32_digits() {
        assert_eq!(UserKey::of_id(0xab).as_bytes(), format!("{:032x}", 0xab).as_bytes());
        assert_eq!(UserKey::of_id(u128::MAX).as_bytes(), "f".repeat(32).as_bytes());
    }
}

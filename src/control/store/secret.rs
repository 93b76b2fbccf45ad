//! The secret that signs affinity cookies: so that users stay known across restarts.

use super::opening::{Disk, Found};
use super::place::Place;
use crate::routing::CookieKey;
use ring::rand::{SecureRandom, SystemRandom};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// 32 bytes. Not `Debug`: it is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::control) struct Secret([u8; 32]);

impl Secret {
    pub(super) fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// # Errors
    /// The kernel gives no random bytes.
    pub(in crate::control) fn fresh() -> io::Result<Self> {
        let mut bytes = [0; 32];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| io::Error::other("the kernel gives no random bytes"))?;
        Ok(Self(bytes))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(in crate::control) fn key(&self) -> CookieKey {
        CookieKey::new(&self.0)
    }

    /// `None`: there is no such file.
    fn in_file(path: &Path) -> io::Result<Option<Self>> {
        let mut file = match std::fs::File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        if file.metadata()?.permissions().mode() & 0o077 != 0 {
            return Err(io::Error::other("it is open to others: chmod 600 it"));
        }
        let mut bytes = Vec::new();
        (&mut file).take(33).read_to_end(&mut bytes)?;
        let bytes = bytes
            .try_into()
            .map_err(|_| io::Error::other("it is not a key of 32 bytes"))?;
        Ok(Some(Self(bytes)))
    }
}

/// Takes over the secret in a file of its own, where versions without a database kept it and operators put one that
/// several proxies share. It wins over the one in the database, and the file goes once the database has it.
pub(super) fn take_over(place: &Place, found: &mut Found) {
    let path = place.key_file();
    let secret = match Secret::in_file(&path) {
        Ok(Some(secret)) => secret,
        Ok(None) => return,
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "the key of affinity cookies in this file is not taken over");
            return;
        }
    };
    found.content.secret = Some(secret.clone());
    // Without a database it stays where it is, to be found again.
    let Disk::Open(database) = &mut found.disk else { return };
    let state = database.state();
    let kept = database
        .write(&state, &[], Some(&secret))
        .map_err(|not_written| not_written.why);
    let moved = kept.and_then(|()| {
        let removed = std::fs::remove_file(&path).and_then(|()| place.sync());
        removed.map_err(|error| error.to_string())
    });
    match moved {
        Ok(()) => tracing::info!("the key of affinity cookies was taken over into the state"),
        Err(error) => tracing::warn!(
            path = %path.display(), error,
            "the key of affinity cookies in this file is used, and cannot be moved into the state"
        ),
    }
}

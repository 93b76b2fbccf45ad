//! The secret that signs affinity cookies: made once, kept in the state directory, so that users stay known across
//! restarts.

use crate::config::Snapshot;
use crate::routing::CookieKey;
use ring::rand::{SecureRandom, SystemRandom};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The file's name in the state directory.
const FILE: &str = "cookie.key";

/// The key of this process, and where it is kept.
pub struct Keeper {
    state_dir: PathBuf,
    key: CookieKey,
    /// It stays for the life of the process: it is the kept one, or cookies may have been signed with it.
    settled: bool,
}

impl Keeper {
    /// The key kept in `state_dir` if it can be read; none is made yet.
    ///
    /// # Errors
    /// The kernel gives no random bytes.
    pub fn new(state_dir: &Path) -> io::Result<Self> {
        let kept = read(&state_dir.join(FILE)).ok();
        let settled = kept.is_some();
        Ok(Self {
            state_dir: state_dir.to_owned(),
            key: kept.map_or_else(passing, |secret| Ok(CookieKey::new(&secret)))?,
            settled,
        })
    }

    /// The key for `snapshot`. The first one with a cookie makes it be read or made and kept; where that fails, the log
    /// says so and the passing one stays: no reason not to serve.
    pub fn key(&mut self, snapshot: &Snapshot) -> CookieKey {
        if !self.settled && uses_cookies(snapshot) {
            self.settled = true;
            match kept(&self.state_dir) {
                Ok(key) => self.key = key,
                Err(error) => tracing::error!(
                    state_dir = %self.state_dir.display(), %error,
                    "the key of affinity cookies cannot be kept: users get new cookies after a restart"
                ),
            }
        }
        self.key.clone()
    }
}

fn uses_cookies(snapshot: &Snapshot) -> bool {
    let mut affinities = snapshot
        .policy
        .services
        .iter()
        .filter_map(|service| service.affinity.as_ref());
    affinities.any(|affinity| affinity.cookie.is_some())
}

/// The key kept in `state_dir`, made there if it is not (directory 0700, file 0600).
///
/// # Errors
/// The file is there and is not a key, is open to others, or cannot be read or made.
pub fn kept(state_dir: &Path) -> io::Result<CookieKey> {
    let path = state_dir.join(FILE);
    match read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(state_dir, &path),
        read => read.map(|secret| CookieKey::new(&secret)),
    }
}

/// A key for the life of this process: cookies signed with it mean nothing afterwards.
///
/// # Errors
/// The kernel gives no random bytes.
pub fn passing() -> io::Result<CookieKey> {
    Ok(CookieKey::new(&fresh_secret()?))
}

fn read(path: &Path) -> io::Result<[u8; 32]> {
    let mode = std::fs::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(io::Error::other(format!(
            "{} is open to others: chmod 600 it",
            path.display()
        )));
    }
    let bytes = std::fs::read(path)?;
    bytes.try_into().map_err(|_| {
        let text = format!(
            "{} is not a key of 32 bytes: remove it, and users get new cookies",
            path.display()
        );
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}

fn make(state_dir: &Path, path: &Path) -> io::Result<CookieKey> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state_dir)?;
    let secret = fresh_secret()?;
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    let written = file.write_all(&secret).and_then(|()| file.sync_all());
    // Linked, not renamed: of two processes that make the key at once, one wins and both use its key.
    let linked = written.and_then(|()| std::fs::hard_link(&temporary, path));
    std::fs::remove_file(&temporary)?;
    match linked {
        Ok(()) => Ok(CookieKey::new(&secret)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read(path).map(|secret| CookieKey::new(&secret)),
        Err(error) => Err(error),
    }
}

fn fresh_secret() -> io::Result<[u8; 32]> {
    let mut secret = [0; 32];
    SystemRandom::new()
        .fill(&mut secret)
        .map_err(|_| io::Error::other("the kernel gives no random bytes"))?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        kept(&state).unwrap();
        let first = std::fs::read(state.join(FILE)).unwrap();
        kept(&state).unwrap();
        assert_eq!(std::fs::read(state.join(FILE)).unwrap(), first);
        assert_eq!(
            std::fs::metadata(state.join(FILE)).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(std::fs::read_dir(&state).unwrap().count(), 1);
    }

    fn snapshot(affinity: &str) -> Snapshot {
        let text = format!(
            "listeners: [{{ address: \"127.0.0.1:0\" }}]\nservices:\n  - name: s\n    {affinity}\n    versions: [{{ name: v1, \
             pool: {{ endpoints: [\"127.0.0.1:1\"] }} }}]\n"
        );
        crate::config::parse_bytes(text.as_bytes(), Path::new("")).unwrap()
    }

    #[test]
    fn the_first_snapshot_with_a_cookie_makes_the_key_and_no_other_does() {
        let directory = tempfile::tempdir().unwrap();
        let mut keeper = Keeper::new(directory.path()).unwrap();
        keeper.key(&snapshot("affinity: { key: [{ header: a }] }"));
        assert!(!directory.path().join(FILE).exists());
        let with_cookie = snapshot("affinity: { key: [{ header: a }], cookie: { name: c, ttl: 1h } }");
        keeper.key(&with_cookie);
        assert!(directory.path().join(FILE).exists());
        std::fs::remove_file(directory.path().join(FILE)).unwrap();
        keeper.key(&with_cookie);
        assert!(
            !directory.path().join(FILE).exists(),
            "it stays for the life of the process"
        );
    }

    #[test]
    fn what_is_not_a_key_or_open_to_others_is_an_error_and_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        std::fs::write(&path, b"short").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(kept(directory.path()).err().unwrap().to_string().contains("not a key"));
        assert_eq!(std::fs::read(&path).unwrap(), b"short");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(kept(directory.path()).err().unwrap().to_string().contains("chmod 600"));
    }
}

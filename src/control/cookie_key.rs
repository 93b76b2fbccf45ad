//! Which key signs affinity cookies: the one that is kept, made by the first configuration with a cookie.

use super::store::{Secret, Store};
use crate::config::Snapshot;
use crate::routing::CookieKey;
use std::io;

/// The key of this process, and where it is kept.
pub struct Keeper {
    /// `None`: it is not this process's yet.
    store: Option<Store>,
    key: CookieKey,
    /// It is the one of the store, and stays for the life of the process.
    settled: bool,
}

impl Keeper {
    /// A passing key, until [`Self::keep_in`].
    ///
    /// # Errors
    /// The kernel gives no random bytes.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            store: None,
            key: passing()?,
            settled: false,
        })
    }

    /// From now on the key is that of `store`.
    pub fn keep_in(&mut self, store: Store) {
        self.store = Some(store);
    }

    /// The key for `snapshot`. The first one with a cookie makes it be kept; where that fails, the log says so and it is used
    /// all the same: no reason not to serve.
    pub async fn key(&mut self, snapshot: &Snapshot) -> CookieKey {
        if let (false, Some(store)) = (self.settled, &self.store)
            && uses_cookies(snapshot)
        {
            match store.cookie_key().await {
                Ok(key) => {
                    self.key = key;
                    self.settled = true;
                }
                Err(error) => tracing::error!(%error, "there is no key of affinity cookies to keep"),
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

/// A key for the life of this process: cookies signed with it mean nothing afterwards.
///
/// # Errors
/// The kernel gives no random bytes.
pub fn passing() -> io::Result<CookieKey> {
    Ok(Secret::fresh()?.key())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::store::Options;
    use std::path::Path;
    use std::time::Duration;

    fn snapshot(affinity: &str) -> Snapshot {
        let text = format!(
            "listeners: [{{ address: \"127.0.0.1:0\" }}]\nservices:\n  - name: s\n    {affinity}\n    versions: [{{ name: v1, \
             pool: {{ endpoints: [\"127.0.0.1:1\"] }} }}]\n"
        );
        crate::config::parse_bytes(text.as_bytes(), Path::new("")).unwrap()
    }

    fn secrets(state_dir: &Path) -> i64 {
        let connection = rusqlite::Connection::open(state_dir.join("state.db")).unwrap();
        connection
            .query_row("SELECT count(*) FROM secrets", [], |row| row.get(0))
            .unwrap()
    }

    #[tokio::test]
    async fn the_first_snapshot_with_a_cookie_makes_the_key_and_no_other_does() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(directory.path(), Options::default()).unwrap();
        let mut keeper = Keeper::new().unwrap();
        keeper.keep_in(store.clone());
        keeper.key(&snapshot("affinity: { key: [{ header: a }] }")).await;
        assert_eq!(secrets(directory.path()), 0);
        let with_cookie = snapshot("affinity: { key: [{ header: a }], cookie: { name: c, ttl: 1h } }");
        keeper.key(&with_cookie).await;
        assert_eq!(secrets(directory.path()), 1);
        store.close(Duration::from_secs(10)).unwrap();
        keeper.key(&with_cookie).await;
        assert!(keeper.settled, "it stays for the life of the process");
    }
}

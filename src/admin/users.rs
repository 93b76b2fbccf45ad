//! The names of this machine's users.

use nix::unistd::{Uid, User};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::timeout;

/// Names remembered.
const MAX_KNOWN: usize = 64;

/// How long a name is waited for: a directory service that is down must not hold a kill switch up.
const PATIENCE: Duration = Duration::from_millis(200);

/// See the module.
#[derive(Default)]
pub struct Users(Mutex<HashMap<u32, String>>);

impl Users {
    /// `ada (uid 1000)`, or `uid 1000` where the name cannot be had in time.
    pub async fn describe(&self, uid: u32) -> String {
        let known = |users: &Self| {
            let names = users.0.lock().unwrap_or_else(PoisonError::into_inner);
            names.get(&uid).cloned()
        };
        let name = match known(self) {
            Some(name) => Some(name),
            None => self.look_up(uid).await,
        };
        match name {
            Some(name) => format!("{name} (uid {uid})"),
            None => format!("uid {uid}"),
        }
    }

    async fn look_up(&self, uid: u32) -> Option<String> {
        let asked = tokio::task::spawn_blocking(move || User::from_uid(Uid::from_raw(uid)));
        let user = timeout(PATIENCE, asked).await.ok()?.ok()?.ok()??;
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() >= MAX_KNOWN {
            names.clear();
        }
        names.insert(uid, user.name.clone());
        Some(user.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn root_has_a_name_and_nobody_knows_everyone() {
        let users = Users::default();
        assert_eq!(users.describe(0).await, "root (uid 0)");
        assert_eq!(users.describe(0).await, "root (uid 0)");
        assert_eq!(users.describe(4_000_000_000).await, "uid 4000000000");
    }
}

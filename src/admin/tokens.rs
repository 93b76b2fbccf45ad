//! The file of bearer tokens, read again when it changes.

use crate::config::tokens::Tokens;
use crate::control::load;
use crate::shared::Shared;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::timeout;

/// How long the disk is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Default)]
pub struct TokenFile(Arc<Mutex<Option<Known>>>);

/// What was read, and of what.
struct Known {
    file: PathBuf,
    stamp: Option<Stamp>,
    tokens: Result<Arc<Tokens>, String>,
}

/// Another stamp, another content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    identity: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    mode: u32,
}

impl Stamp {
    fn of(file: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(file).ok()?;
        Some(Self {
            identity: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            mode: metadata.mode(),
        })
    }
}

impl TokenFile {
    /// Reads the file that is configured, if one is, so that what is wrong with it is told before it is needed.
    pub async fn look(&self, shared: &Shared) {
        if let Some(file) = shared.load().snapshot.admin.token_file.clone() {
            // What is wrong is in the log.
            let _ = self.tokens(file).await;
        }
    }

    /// The tokens that `file` holds now.
    ///
    /// # Errors
    /// It cannot be read in time, or is not right. The log says why.
    pub async fn tokens(&self, file: PathBuf) -> Result<Arc<Tokens>, String> {
        let known = Arc::clone(&self.0);
        let reading = tokio::task::spawn_blocking(move || {
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            current(&mut known, file)
        });
        match timeout(PATIENCE, reading).await {
            Ok(Ok(tokens)) => tokens,
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the disk does not answer".to_owned()),
        }
    }
}

fn current(known: &mut Option<Known>, file: PathBuf) -> Result<Arc<Tokens>, String> {
    let stamp = Stamp::of(&file);
    if let Some(known) = known
        .as_ref()
        .filter(|known| known.file == file && known.stamp == stamp)
    {
        return known.tokens.clone();
    }
    let tokens = load::tokens(&file).map(Arc::new);
    match &tokens {
        Err(problem) => tracing::error!("admin.token_file: {problem}: nothing can be changed over TCP"),
        Ok(_) if stamp.is_some_and(|stamp| stamp.mode & 0o004 != 0) => {
            tracing::warn!(file = %file.display(), "admin.token_file: everyone on this machine can read it: chmod 600");
        }
        Ok(_) => {}
    }
    let answer = tokens.clone();
    *known = Some(Known { file, stamp, tokens });
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "0123456789abcdef";
    const OTHER: &str = "fedcba9876543210";

    #[tokio::test]
    async fn an_edit_holds_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        let tokens = TokenFile::default();
        let name = async |token: &str| -> Result<Option<String>, String> {
            let tokens = tokens.tokens(path.clone()).await?;
            Ok(tokens.name_of(token.as_bytes()).map(str::to_owned))
        };
        assert!(name(ONE).await.unwrap_err().contains("cannot read"));
        std::fs::write(&path, ONE).unwrap();
        assert_eq!(name(ONE).await.unwrap().as_deref(), Some("token"));
        assert_eq!(name(OTHER).await.unwrap(), None);
        std::fs::write(directory.path().join("new"), format!("ada: {OTHER}")).unwrap();
        std::fs::rename(directory.path().join("new"), &path).unwrap();
        assert_eq!(name(ONE).await.unwrap(), None);
        assert_eq!(name(OTHER).await.unwrap().as_deref(), Some("ada"));
        std::fs::write(&path, "short").unwrap();
        assert!(name(OTHER).await.unwrap_err().contains("16 to 1024"));
        std::fs::remove_file(&path).unwrap();
        assert!(name(OTHER).await.is_err());
    }
}

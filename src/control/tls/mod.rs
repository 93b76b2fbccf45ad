//! Certificates, keys and authorities: read, made into what handshakes go by, and followed on the disk.
//!
//! Every second the files in use are looked at (`stat`, through all links). When one is another than the one that was
//! read, it is read as soon as it has stayed the same for a second: half-written files and pairs of which only one half
//! has come are then rare, and are refused by what they say in any case. A poll sees renames, writes in place and link
//! swaps (certbot, Kubernetes) alike, on file systems with and without events; certificates are renewed days before they
//! must be, so that a second or two more do not matter. What cannot be used leaves what is in use as it is.

mod build;
mod files;
mod inventory;
mod listed;
mod material;
mod tickets;

pub use files::TlsFiles;
pub use material::Unusable;
pub(super) use material::system_roots;

use crate::control::stamp::Stamp;
use crate::shared::Shared;
use std::convert::Infallible;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// How often the files are looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Follows the files in use until it is dropped.
pub async fn follow(files: Arc<TlsFiles>, shared: Arc<Shared>) -> Infallible {
    loop {
        let (looking, told) = (Arc::clone(&files), Arc::clone(&shared));
        // On a thread that may wait for a disk.
        let looked = tokio::task::spawn_blocking(move || {
            looking.look();
            *told.certificates.lock().unwrap_or_else(PoisonError::into_inner) = looking.status();
        });
        if let Err(error) = looked.await {
            tracing::error!(%error, "looking at certificate files broke off, going on");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Seconds since the Unix epoch, as certificates count them.
fn now_s() -> i64 {
    i64::try_from(super::writer::now_s()).unwrap_or(i64::MAX)
}

/// What the files of one purpose looked like; `None`: not there.
pub(super) type Stamps = Vec<Option<Stamp>>;

/// What a look at files leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// They are those that were judged last.
    Same,
    /// They are others, which may be on the move.
    Wait,
    /// They are others, and have been for one look.
    Read,
}

/// `judged`: as they were when they were read last, whether or not they could be used. `seen`: at the last look.
pub(super) fn judge(judged: &Stamps, seen: &Stamps, now: &Stamps) -> Look {
    match (now == judged, now == seen) {
        (true, _) => Look::Same,
        (false, true) => Look::Read,
        (false, false) => Look::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_when_they_differ_and_have_rested() {
        let at = |file: &std::path::Path| vec![std::fs::metadata(file).ok().map(|metadata| Stamp::of(&metadata))];
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a");
        let missing = at(&file);
        std::fs::write(&file, "1").unwrap();
        let first = at(&file);
        std::fs::write(&file, "12").unwrap();
        let second = at(&file);
        assert_eq!(judge(&first, &first, &first), Look::Same);
        assert_eq!(judge(&first, &first, &second), Look::Wait);
        assert_eq!(judge(&first, &second, &second), Look::Read);
        assert_eq!(judge(&first, &second, &missing), Look::Wait);
        assert_eq!(judge(&first, &missing, &missing), Look::Read, "that it is gone is told");
        assert_eq!(judge(&first, &second, &first), Look::Same, "as it was");
    }
}

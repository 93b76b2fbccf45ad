//! What tells one content of a file from another without reading it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Identity of a file's content as far as the file system tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified_ns: i128,
    /// Of content or rights: what sets the time of the content back (`cp -p`, `rsync -t`) changes this one, and so does what
    /// makes a file readable.
    changed_ns: i128,
}

impl Stamp {
    /// Of the file as it is now, links followed; `None`: it is not there. Blocks on the disk.
    pub fn at(file: &Path) -> Option<Self> {
        std::fs::metadata(file).ok().map(|metadata| Self::of(&metadata))
    }

    pub fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

fn nanoseconds(seconds: i64, more: i64) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(more)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, metadata, write};

    #[test]
    fn another_content_of_the_same_size_and_time_is_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        write(&path, "one").unwrap();
        let before = metadata(&path).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        // The clock of a file system may tick some milliseconds apart.
        loop {
            write(&path, "two").unwrap();
            File::options()
                .write(true)
                .open(&path)
                .and_then(|file| file.set_modified(before.modified()?))
                .unwrap();
            let after = metadata(&path).unwrap();
            assert_eq!(after.modified().unwrap(), before.modified().unwrap());
            assert_eq!((after.len(), after.ino()), (before.len(), before.ino()));
            if Stamp::of(&after) != Stamp::of(&before) {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "never told apart");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        assert_eq!(
            Stamp::of(&metadata(&path).unwrap()),
            Stamp::of(&metadata(&path).unwrap())
        );
    }
}

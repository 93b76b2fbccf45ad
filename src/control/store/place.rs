//! Where a state lies: the directory, the names in it, and the lock that one process at a time holds.

use super::trouble::Trouble;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const DATABASE: &str = "state.db";

/// A directory of states. The names end in what SQLite adds.
#[derive(Debug, Clone)]
pub(super) struct Place {
    directory: PathBuf,
}

impl Place {
    /// # Errors
    /// The working directory is gone.
    pub fn new(state_dir: &Path) -> io::Result<Self> {
        // Absolute: a name that begins with `file:` would be a URI to SQLite.
        Ok(Self {
            directory: std::path::absolute(state_dir)?,
        })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn database(&self) -> PathBuf {
        self.directory.join(DATABASE)
    }

    /// SQLite's write-ahead log: without it, the database is an older one.
    fn log(&self) -> PathBuf {
        self.directory.join("state.db-wal")
    }

    fn index(&self) -> PathBuf {
        self.directory.join("state.db-shm")
    }

    /// A database that is being made.
    pub fn fresh(&self) -> PathBuf {
        self.directory.join("state.db.new")
    }

    /// The key of affinity cookies, as versions without a database kept it, or as an operator hands it in.
    pub fn key_file(&self) -> PathBuf {
        self.directory.join("cookie.key")
    }

    /// Makes the directory if it is not there (0700, its parents too).
    pub fn prepare(&self) -> Result<(), Trouble> {
        match fs::metadata(&self.directory) {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => Err(Trouble::inaccessible(&self.directory, "not a directory")),
            Err(error) if error.kind() == ErrorKind::NotFound => DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.directory)
                .map_err(|error| Trouble::unwritable(&self.directory, error)),
            Err(error) => Err(Trouble::inaccessible(&self.directory, error)),
        }
    }

    /// Whether there is a database.
    pub fn is_taken(&self) -> Result<bool, Trouble> {
        let database = self.database();
        match fs::metadata(&database) {
            Ok(found) if found.is_file() => Ok(true),
            Ok(_) => Err(Trouble::unreadable("it is not a regular file")),
            // A log without its database would be read into the next one that has its name.
            Err(error) if error.kind() == ErrorKind::NotFound => match fs::metadata(self.log()) {
                Ok(log) if log.len() > 0 => Err(Trouble::unreadable(
                    "it is missing, though the log of its last changes, state.db-wal, is there",
                )),
                _ => Ok(false),
            },
            Err(error) => Err(Trouble::inaccessible(&database, error)),
        }
    }

    /// Puts the fresh database where the state is looked for.
    pub fn install(&self) -> io::Result<()> {
        File::open(self.fresh())?.sync_all()?;
        fs::rename(self.fresh(), self.database())?;
        self.sync()
    }

    /// Removes a database that was begun and not installed.
    pub fn clear_fresh(&self) -> io::Result<()> {
        let fresh = self.fresh();
        remove(&fresh)?;
        remove(&with_suffix(&fresh, "-journal"))
    }

    /// Makes names that come and go durable.
    pub fn sync(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }

    /// Keeps what is there under another name, of which `time` is a part; returns that of the database. The database stays
    /// in its place too until another is installed over it: there is no instant without one.
    pub fn set_aside(&self, time: &str) -> io::Result<PathBuf> {
        let database = self.database();
        let mut aside = self.directory.join(format!("{DATABASE}.unreadable-{time}"));
        for number in 2.. {
            if !aside.try_exists()? && !with_suffix(&aside, "-wal").try_exists()? {
                break;
            }
            aside = self.directory.join(format!("{DATABASE}.unreadable-{time}-{number}"));
        }
        if database.try_exists()? {
            // Some file systems have no links.
            fs::hard_link(&database, &aside).or_else(|_| fs::copy(&database, &aside).map(drop))?;
        }
        match fs::rename(self.log(), with_suffix(&aside, "-wal")) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => remove(&self.index())?,
        }
        self.sync()?;
        Ok(aside)
    }

    /// Copies the database and its log into `directory`; returns the name of the copy.
    pub fn copy_into(&self, directory: &Path) -> io::Result<PathBuf> {
        let copy = directory.join(DATABASE);
        fs::copy(self.database(), &copy)?;
        match fs::copy(self.log(), with_suffix(&copy, "-wal")) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(copy),
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Which file a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity(u64, u64);

impl Identity {
    /// Does not open the file: closing it again would release the locks that SQLite holds on it in this process.
    pub fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|found| Self::from(&found))
    }
}

impl From<&fs::Metadata> for Identity {
    fn from(metadata: &fs::Metadata) -> Self {
        Self(metadata.dev(), metadata.ino())
    }
}

/// The right to the directory: an exclusive `flock` on a file in it, whose text is the holder's process id. It ends with
/// the last descriptor of this opening, in whichever process that is.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Takes the lock; with `handed`, a descriptor that has it already, keeps that.
    pub fn take(place: &Place, handed: Option<File>) -> Result<Self, Trouble> {
        let path = place.directory.join("lock");
        let same = |file: &File| {
            let (ours, there) = (file.metadata().ok()?, Identity::of(&path).ok()?);
            (Identity::from(&ours) == there).then_some(())
        };
        let mut file = match handed.filter(|file| same(file).is_some()) {
            Some(file) => file,
            None => open_lock(&path)?,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Trouble::InUse { pid: pid_in(&file) }),
            Err(TryLockError::Error(error)) => return Err(Trouble::inaccessible(&path, error)),
        }
        // Only a courtesy to whoever finds it locked: a full disk must not keep the process from starting.
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self(file))
    }

    /// Another descriptor of the same lock.
    pub fn share(&self) -> io::Result<File> {
        self.0.try_clone()
    }

    pub fn into_file(self) -> File {
        self.0
    }
}

fn open_lock(path: &Path) -> Result<File, Trouble> {
    let writing = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path);
    writing.or_else(|error| match File::open(path) {
        Ok(file) => Ok(file),
        Err(absent) if absent.kind() == ErrorKind::NotFound => Err(Trouble::unwritable(path, error)),
        Err(hidden) => Err(Trouble::inaccessible(path, hidden)),
    })
}

/// Who says to hold the lock.
fn pid_in(file: &File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// A directory that nobody else can look into, and that goes away.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// In memory if there is such a file system: it works when the disk is full.
    pub fn new() -> io::Result<Self> {
        let name = format!("rollgate-{}-{:016x}", std::process::id(), fastrand::u64(..));
        let make = |base: PathBuf| {
            let path = base.join(&name);
            DirBuilder::new().mode(0o700).create(&path).map(|()| Self(path))
        };
        make("/dev/shm".into()).or_else(|_| make(std::env::temp_dir()))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

//! What can be wrong with a state on the disk, and what an operator does about it.

use rusqlite::ErrorCode;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

/// Why a process does not start with this `state_dir`.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "state_dir {} is in use by {}: two proxies cannot share one. Stop that one, or give this one a `state_dir` of its own",
        .directory.display(), holder(*.pid)
    )]
    InUse { directory: PathBuf, pid: Option<u32> },
    /// Nothing was changed.
    #[error("{}", unreadable(.file, .found))]
    Unreadable { file: PathBuf, found: String },
    #[error("the state in {} cannot be read, nor be known to be absent: {why}", .directory.display())]
    Inaccessible { directory: PathBuf, why: String },
    #[error("{} cannot be set aside as --recover-state asks: {why}", .file.display())]
    CannotSetAside { file: PathBuf, why: String },
    #[error("the thread of the state: {0}")]
    Thread(#[from] io::Error),
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

fn unreadable(file: &Path, found: &str) -> String {
    let name = file.file_name().unwrap_or_default().display();
    format!(
        "the state in {} cannot be used: {found}. It was left as it is. Put a backup in its place (and remove {name}-wal and \
         {name}-shm), or start with `rollgate run --recover-state`: that keeps it as {name}.unreadable-TIME and begins anew, \
         with everything sent to stable until `rollgate unkill --all`",
        file.display()
    )
}

/// Why a state is not open for writing.
#[derive(Debug)]
pub(super) enum Trouble {
    InUse {
        pid: Option<u32>,
    },
    /// It is damaged, of a newer version, or nothing of ours.
    Unreadable {
        found: String,
    },
    /// It cannot be looked at.
    Inaccessible {
        why: String,
    },
    /// It cannot be written, or made. Whether it can be read is another question.
    Unwritable {
        why: String,
    },
}

impl Trouble {
    pub fn unreadable(found: impl Into<String>) -> Self {
        Self::Unreadable { found: found.into() }
    }

    pub fn inaccessible(path: &Path, error: impl Display) -> Self {
        Self::Inaccessible {
            why: format!("{}: {error}", path.display()),
        }
    }

    pub fn unwritable(path: &Path, error: impl Display) -> Self {
        Self::Unwritable {
            why: format!("{}: {error}", path.display()),
        }
    }

    /// What SQLite says of the database in `file`.
    pub fn of(file: &Path, error: &rusqlite::Error) -> Self {
        let text = told(error);
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::inaccessible(file, text),
            Some(
                ErrorCode::CannotOpen
                | ErrorCode::DiskFull
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::OutOfMemory
                | ErrorCode::PermissionDenied
                | ErrorCode::ReadOnly
                | ErrorCode::SystemIoFailure,
            ) => Self::unwritable(file, text),
            _ => Self::unreadable(text),
        }
    }

    pub fn at_start(self, directory: &Path, file: PathBuf) -> StoreError {
        let directory = directory.to_owned();
        match self {
            Self::InUse { pid } => StoreError::InUse { directory, pid },
            Self::Unreadable { found } => StoreError::Unreadable { file, found },
            Self::Inaccessible { why } | Self::Unwritable { why } => StoreError::Inaccessible { directory, why },
        }
    }

    /// Why nothing can be written meanwhile, of a process that runs.
    pub fn while_running(self) -> String {
        match self {
            Self::InUse { pid } => format!("state_dir is in use by {}", holder(pid)),
            Self::Unreadable { found: why } | Self::Inaccessible { why } | Self::Unwritable { why } => why,
        }
    }
}

/// An error of SQLite for an operator: some of its texts say little without the number.
pub(super) fn told(error: &rusqlite::Error) -> String {
    match error.sqlite_error() {
        Some(sqlite) if matches!(sqlite.code, ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another program holds a lock on it (an open `sqlite3`?)".to_owned()
        }
        Some(sqlite) => format!("{error} (SQLite's code {})", sqlite.extended_code),
        None => error.to_string(),
    }
}

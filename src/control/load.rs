//! The file on disk -> [`Snapshot`], with the files it names checked. `check`, `run` and a reload all load through here.

use super::stamp::Stamp;
use super::tls::{TlsFiles, Unusable};
use crate::config::snapshot::Unsupported;
use crate::config::tokens::{self, Tokens};
use crate::config::{self, Problem, Snapshot, yaml};
use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Why a file cannot be loaded.
#[derive(Debug)]
pub enum LoadError {
    /// It cannot be read.
    Read { file: PathBuf, source: std::io::Error },
    /// It was read, and this is wrong with it: one problem or more.
    Invalid {
        file: PathBuf,
        problems: Vec<Problem>,
        /// Where only files are wrong that it names: all it names, as they were before they were looked at.
        named: Vec<(PathBuf, Option<Stamp>)>,
    },
}

impl LoadError {
    /// What is wrong with the content; empty when it could not be read.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Read { .. } => &[],
            Self::Invalid { problems, .. } => problems,
        }
    }
}

/// One line a problem, `file:line:column: path: message`.
impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { file, source } => write!(f, "{}: {source}", file.display()),
            Self::Invalid { file, problems, .. } => {
                for (index, problem) in problems.iter().enumerate() {
                    let end_of_last = if index == 0 { "" } else { "\n" };
                    write!(f, "{end_of_last}{}:{problem}", file.display())?;
                }
                Ok(())
            }
        }
    }
}

/// Its display has the cause in it already.
impl std::error::Error for LoadError {}

/// The configuration in `file`. Blocks on the disk: not for the request path.
///
/// # Errors
/// The file cannot be read, or there are problems in it.
pub fn load(file: &Path) -> Result<Snapshot, LoadError> {
    let bytes = read(file)?;
    compile(file, &bytes)
}

/// As [`load`], for who only asks whether a file is right: files that it names and that are not here may be where it will
/// run, so that each is a warning. Where they are, what is in them counts.
///
/// # Errors
/// As [`load`], but for files that are not there.
pub fn check(file: &Path) -> Result<Snapshot, LoadError> {
    let bytes = read(file)?;
    let mut snapshot = parse(file, &bytes)?;
    let tls = TlsFiles::default();
    let (missing, wrong): (Vec<_>, Vec<_>) = named_files(&snapshot, &tls)
        .into_iter()
        .partition(|unusable| unusable.missing);
    if !wrong.is_empty() {
        let all = wrong.iter().chain(&missing);
        return Err(invalid(
            file,
            all.map(|unusable| problem(&snapshot, unusable)).collect(),
            Vec::new(),
        ));
    }
    let untimely = tls.untimely().into_iter().map(|(file, why)| Unusable {
        file,
        missing: false,
        why: why.to_owned(),
    });
    let warnings = missing.into_iter().chain(untimely).map(|unusable| {
        let Problem {
            path,
            line,
            column,
            message,
            ..
        } = problem(&snapshot, &unusable);
        Unsupported {
            path,
            line,
            column,
            message,
            refuses_to_run: unusable.missing,
        }
    });
    let mut warnings: Vec<Unsupported> = warnings.chain(snapshot.unsupported.iter().cloned()).collect();
    warnings.sort_by_key(|warning| (warning.line, warning.column));
    snapshot.unsupported = warnings.into();
    Ok(snapshot)
}

/// The bytes of `file`: at most one more than [`yaml::MAX_FILE_BYTES`], so that a huge file costs nothing.
///
/// # Errors
/// It cannot be read, or is no regular file (a pipe could keep its reader waiting for ever).
pub fn read(file: &Path) -> Result<Vec<u8>, LoadError> {
    let attempt = || {
        let metadata = std::fs::metadata(file)?;
        if !metadata.is_file() {
            return Err(std::io::Error::other("not a regular file"));
        }
        if metadata.len() > yaml::MAX_FILE_BYTES as u64 {
            return Err(std::io::Error::other(yaml::too_large(metadata.len())));
        }
        let mut bytes = Vec::new();
        File::open(file)?
            .take(yaml::MAX_FILE_BYTES as u64 + 1)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    attempt().map_err(|source| LoadError::Read {
        file: file.to_owned(),
        source,
    })
}

/// The configuration that `bytes`, read from `file`, hold; the files that it names are looked at: certificates with their
/// keys are loaded, others opened to see that they can be.
///
/// # Errors
/// Every problem, those of named files included when there is no other.
pub fn compile(file: &Path, bytes: &[u8]) -> Result<Snapshot, LoadError> {
    compile_beside(file, bytes, &TlsFiles::default())
}

/// As [`compile`], beside what is in force: files of TLS that `tls` has in use already are not looked at.
///
/// # Errors
/// As [`compile`].
pub fn compile_beside(file: &Path, bytes: &[u8], tls: &TlsFiles) -> Result<Snapshot, LoadError> {
    let snapshot = parse(file, bytes)?;
    // Before they are read: what changes while they are is then seen to have.
    let named = snapshot.files.iter().map(|named| &named.file);
    let named = named.map(|file| (file.clone(), Stamp::at(file))).collect();
    let unusable = named_files(&snapshot, tls);
    if unusable.is_empty() {
        return Ok(snapshot);
    }
    let problems = unusable.iter().map(|unusable| problem(&snapshot, unusable));
    Err(invalid(file, problems.collect(), named))
}

fn parse(file: &Path, bytes: &[u8]) -> Result<Snapshot, LoadError> {
    let base = file.parent().unwrap_or(Path::new(""));
    config::parse_bytes(bytes, base).map_err(|problems| invalid(file, problems, Vec::new()))
}

/// In the order of the file.
fn invalid(file: &Path, mut problems: Vec<Problem>, named: Vec<(PathBuf, Option<Stamp>)>) -> LoadError {
    problems.sort_by_key(|problem| (problem.line, problem.column));
    LoadError::Invalid {
        file: file.to_owned(),
        problems,
        named,
    }
}

/// Which of the files that `snapshot` names cannot be used.
fn named_files(snapshot: &Snapshot, tls: &TlsFiles) -> Vec<Unusable> {
    let mut unusable = tls.prepare(snapshot);
    // Those in use already may be missing for a moment; but where TLS has a problem anyway, all of its files are told of.
    let known: HashSet<PathBuf> = if unusable.is_empty() {
        snapshot.tls_files().map(Path::to_owned).collect()
    } else {
        unusable.iter().map(|unusable| unusable.file.clone()).collect()
    };
    let others = snapshot.files.iter().filter(|named| !known.contains(&named.file));
    unusable.extend(others.filter_map(|named| {
        let is_tokens = snapshot.admin.token_file.as_ref() == Some(&named.file);
        let unreadable = readable(&named.file).err();
        let missing = unreadable
            .as_ref()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound);
        let why = match unreadable {
            Some(error) => format!("cannot read it: {error}"),
            None if is_tokens => tokens(&named.file).err()?,
            None => return None,
        };
        Some(Unusable {
            file: named.file.clone(),
            missing,
            why,
        })
    }));
    unusable
}

/// Where `snapshot` names the file: the first place, if there are several.
fn problem(snapshot: &Snapshot, unusable: &Unusable) -> Problem {
    let named = snapshot.files.iter().find(|named| named.file == unusable.file);
    Problem {
        path: named.map_or_else(|| "services".to_owned(), |named| named.path.clone()),
        line: named.map_or(1, |named| named.line),
        column: named.map_or(1, |named| named.column),
        message: unusable.to_string(),
        suggestion: None,
    }
}

/// Whether `file` is a regular file that may be read.
fn readable(file: &Path) -> std::io::Result<()> {
    if !std::fs::metadata(file)?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    File::open(file).map(|_| ())
}

/// The tokens in `file`. Blocks on the disk.
///
/// # Errors
/// What is wrong, with the file's name and without any of its text.
pub fn tokens(file: &Path) -> Result<Tokens, String> {
    let read = || {
        readable(file)?;
        let mut text = String::new();
        File::open(file)?
            .take(tokens::MAX_FILE_BYTES as u64 + 1)
            .read_to_string(&mut text)?;
        if text.len() > tokens::MAX_FILE_BYTES {
            return Err(std::io::Error::other("it is larger than 64 KiB"));
        }
        Ok(text)
    };
    let text = read().map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    Tokens::parse(&text).map_err(|problem| format!("{}: {problem}", file.display()))
}

/// The keys that `run` and a reload refuse rather than do something else than the file says; `None`: there are none.
pub fn refused(file: &Path, snapshot: &Snapshot) -> Option<String> {
    let refused = snapshot.unsupported.iter().filter(|key| key.refuses_to_run);
    let lines: Vec<String> = refused
        .map(|key| {
            format!(
                "{}:{}:{}: {}: {}",
                file.display(),
                key.line,
                key.column,
                key.path,
                key.message
            )
        })
        .collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: &str = "listeners: [{ address: \"127.0.0.1:0\" }]\nservices:\n  - name: s\n    versions: [{ name: v1, \
                            pool: { endpoints: [\"127.0.0.1:1\"] } }]\n";

    fn written(text: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("rollgate.yaml");
        std::fs::write(&file, text).unwrap();
        (directory, file)
    }

    #[test]
    fn the_smallest_file_loads() {
        let (directory, file) = written(SMALLEST.as_bytes());
        let snapshot = load(&file).unwrap();
        assert_eq!(snapshot.state_dir, directory.path().join("state"));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("absent.yaml");
        let error = load(&missing).unwrap_err();
        assert!(matches!(error, LoadError::Read { .. }));
        assert!(error.to_string().contains("absent.yaml: No such file"), "{error}");
        let error = load(directory.path()).unwrap_err();
        assert!(error.to_string().ends_with("not a regular file"), "{error}");
    }

    #[test]
    fn fifty_megabytes_are_refused_unread() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("large.yaml");
        File::create(&file).unwrap().set_len(50 << 20).unwrap();
        let error = load(&file).unwrap_err().to_string();
        assert!(error.contains("the file is too large: 52428800 bytes"), "{error}");
    }

    #[test]
    fn every_line_names_the_file() {
        let (_directory, file) = written(b"listeners: 1\nservices: 2\n");
        let error = load(&file).unwrap_err();
        assert_eq!(error.problems().len(), 2);
        let name = file.display().to_string();
        assert!(error.to_string().lines().all(|line| line.starts_with(&name)), "{error}");
    }

    #[test]
    fn files_that_are_named_must_be_there() {
        let text = format!("{SMALLEST}admin: {{ token_file: admin.token }}\n");
        let (directory, file) = written(text.as_bytes());
        let error = load(&file).unwrap_err();
        assert_eq!(error.problems().len(), 1);
        assert_eq!(error.problems()[0].path, "admin.token_file");
        assert_eq!((error.problems()[0].line, error.problems()[0].column), (5, 22));
        let token_file = directory.path().join("admin.token");
        for (token, words) in [
            ("short".to_owned(), "line 1: a token has 16 to"),
            ("x".repeat(70_000), "larger than 64 KiB"),
            ("\u{0}".repeat(20), "letters, digits"),
        ] {
            std::fs::write(&token_file, token).unwrap();
            let error = load(&file).unwrap_err();
            assert!(error.problems()[0].message.contains(words), "{error}");
        }
        std::fs::write(&token_file, "0123456789abcdef\n").unwrap();
        assert_eq!(load(&file).unwrap().files.len(), 1);
    }
}

//! The unix socket in the file system: made so that nobody else is ever let in, and left behind by nobody.

use socket2::{Domain, SockAddr, Socket, Type};
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// Bytes of a path that a socket may have (`sun_path` of unix(7), less its final NUL).
const MAX_PATH: usize = 107;

/// Why there is no socket, with what to do.
#[derive(Debug, thiserror::Error)]
#[error("admin.socket: {}: {problem}", path.display())]
pub struct SocketError {
    path: PathBuf,
    problem: String,
}

/// The file of a socket, for who has to remove it.
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }

    /// Removes the file, unless another process's has taken its place. Not to be called where another process serves the
    /// socket from now on.
    pub fn remove(self) {
        if identity(&self.path).ok() == Some(self.identity) {
            // Otherwise it is stale, and replaced at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// A socket at `path` with the permission bits `mode`, whatever the process's umask, listening and not blocking. Its
/// directory is made if there is none, for us alone. The socket of a process that has gone is replaced.
///
/// # Errors
/// Another process answers at `path`, something else is there, or the socket cannot be made: with what to do.
pub fn listen_on_socket(path: &Path, mode: u32) -> Result<(UnixListener, SocketFile), SocketError> {
    listen(path, mode).map_err(|error| SocketError {
        path: path.to_owned(),
        problem: error.to_string(),
    })
}

/// The socket of the process before, at `path`, with the permission bits that are asked for now.
///
/// # Errors
/// Its file is not there any more.
pub fn take_over_socket(socket: OwnedFd, path: &Path, mode: u32) -> Result<(UnixListener, SocketFile), SocketError> {
    let taken = || {
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        Ok::<_, io::Error>((UnixListener::from(socket), SocketFile::of(path)?))
    };
    taken().map_err(|error| SocketError {
        path: path.to_owned(),
        problem: error.to_string(),
    })
}

fn listen(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    if path.as_os_str().len() > MAX_PATH {
        return Err(io::Error::other(format!("the path is longer than {MAX_PATH} bytes")));
    }
    make_directory(path)?;
    clear_the_way(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The file that `bind` makes has the bits of the descriptor less those of the umask: never more than `mode`.
    let descriptor = fs::File::from(OwnedFd::from(socket.try_clone()?));
    descriptor.set_permissions(Permissions::from_mode(mode))?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::of(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok((UnixListener::from(OwnedFd::from(socket)), file))
}

fn make_directory(path: &Path) -> io::Result<()> {
    let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) else {
        return Ok(());
    };
    let making = |error| io::Error::other(format!("making the directory {}: {error}", directory.display()));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(making)?;
    let mode = fs::metadata(directory)?.mode();
    // With the sticky bit, as `/tmp` has it, nobody can replace what is another's.
    if mode & 0o022 != 0 && mode & 0o1000 == 0 {
        tracing::warn!(
            directory = %directory.display(),
            mode = format!("{:o}", mode & 0o7777),
            "others may write to the directory of the admin socket, and put their own in its place: chmod go-w"
        );
    }
    Ok(())
}

/// Removes the socket of a process that has gone.
fn clear_the_way(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::other(
            "there is something else than a socket: remove it, or choose another path",
        ));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::other(
            "another process answers on it (`ss -lxp` shows which): stop it, or choose another path",
        )),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "replacing the admin socket of a process that has gone");
            fs::remove_file(path)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io::Error::other(format!(
            "whether another process answers on it cannot be known: {error}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn it_has_its_mode_in_a_directory_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/run/rollgate.sock");
        for bits in [0o600, 0o660, 0o666] {
            let (listener, file) = listen_on_socket(&path, bits).unwrap();
            assert_eq!((mode(&path), mode(path.parent().unwrap())), (bits, 0o700));
            UnixStream::connect(&path).unwrap();
            drop(listener);
            file.remove();
            assert!(!path.exists());
        }
    }

    #[test]
    fn the_socket_of_a_dead_process_is_replaced_and_that_of_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rollgate.sock");
        let live = UnixListener::bind(&path).unwrap();
        let error = listen_on_socket(&path, 0o600).err().unwrap().to_string();
        assert!(error.contains("another process answers"), "{error}");
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        UnixStream::connect(&path).expect("it is left alone");
        drop(live);
        let (_listener, _file) = listen_on_socket(&path, 0o600).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rollgate.sock");
        fs::write(&path, "precious").unwrap();
        let error = listen_on_socket(&path, 0o600).err().unwrap().to_string();
        assert!(error.contains("something else than a socket"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        let long = directory.path().join("x".repeat(120));
        let error = listen_on_socket(&long, 0o600).err().unwrap().to_string();
        assert!(error.contains("longer than 107 bytes"), "{error}");
    }

    #[test]
    fn a_socket_is_taken_over_where_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rollgate.sock");
        let (listener, file) = listen_on_socket(&path, 0o600).unwrap();
        let (taken, mine) = take_over_socket(listener.try_clone().unwrap().into(), &path, 0o660).unwrap();
        drop((listener, file));
        UnixStream::connect(&path).unwrap();
        assert_eq!(mode(&path), 0o660);
        drop(taken);
        mine.remove();
        assert!(!path.exists());
    }

    #[test]
    fn what_is_anothers_by_now_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rollgate.sock");
        let (_listener, file) = listen_on_socket(&path, 0o600).unwrap();
        fs::rename(&path, directory.path().join("aside")).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        file.remove();
        UnixStream::connect(&path).unwrap();
    }
}

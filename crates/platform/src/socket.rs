//! Listening unix sockets of a role: private, complete from the moment they are there, and made
//! again when somebody has removed them.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};

/// A socket address holds 108 bytes; what is longer is reached through its directory.
const LONGEST: usize = 100;

/// Listens at `path`, in place of whatever a dead process has left there. Only this user (and
/// root) may connect.
///
/// bind(2) makes a name before listen(2) makes it answer: who connects between the two is
/// refused, as if nobody lived. So the socket is made under another name (`.NAME`) and renamed
/// once it listens and has its permissions. `getsockname` of it gives that other name.
pub fn listen_privately(path: &Path) -> io::Result<UnixListener> {
    let Some(name) = path.file_name() else { return Err(io::ErrorKind::InvalidInput.into()) };
    let mut hidden = OsString::from(".");
    hidden.push(name);
    let made = path.with_file_name(hidden);
    match fs::remove_file(&made) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
        _ => {}
    }
    let (short, _directory) = short_path(&made)?;
    let listener = UnixListener::bind(short)?;
    fs::set_permissions(&made, Permissions::from_mode(0o600))?;
    fs::rename(&made, path)?;
    Ok(listener)
}

/// A path by which a socket can be bound or connected to even where the real one is longer than
/// a socket address holds: through a descriptor of its directory, which is to be kept so long.
pub fn short_path(path: &Path) -> io::Result<(PathBuf, Option<OwnedFd>)> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok((path.to_owned(), None));
    };
    if path.as_os_str().len() <= LONGEST {
        return Ok((path.to_owned(), None));
    }
    let directory = open(directory, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let number = directory.as_raw_fd();
    Ok((Path::new("/proc/self/fd").join(number.to_string()).join(name), Some(directory)))
}

/// A private listening socket for tasks.
#[cfg(feature = "tokio")]
#[derive(Debug)]
pub struct PrivateSocket {
    path: PathBuf,
    listener: tokio::net::UnixListener,
}

#[cfg(feature = "tokio")]
impl PrivateSocket {
    /// See [`listen_privately`]. Within a runtime.
    pub fn listen(path: &Path) -> io::Result<PrivateSocket> {
        let listener = listen_privately(path)?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        Ok(PrivateSocket { path: path.to_owned(), listener })
    }

    /// The next client. Nothing is lost when the future is dropped.
    pub async fn accept(&self) -> io::Result<tokio::net::UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }

    /// Makes the socket again if its name is no longer there: a cleaner of old files may have
    /// removed it. While its directory is missing too, nothing happens.
    pub fn look_after(&mut self) {
        if crate::disk::is_gone(&self.path) {
            if let Ok(another) = PrivateSocket::listen(&self.path) {
                *self = another;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_socket_that_is_there_accepts_however_often_it_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let maker = scope.spawn(|| {
                let mut listeners = Vec::new();
                for _ in 0..500 {
                    listeners.push(listen_privately(&path).unwrap());
                    fs::remove_file(&path).unwrap();
                }
                is_over.store(true, Ordering::Relaxed);
            });
            while !is_over.load(Ordering::Relaxed) {
                if let Err(why) = UnixStream::connect(&path) {
                    assert_eq!(why.kind(), io::ErrorKind::NotFound, "it is there and listens");
                }
            }
            maker.join().unwrap();
        });
    }

    #[test]
    fn a_socket_is_private_replaces_what_was_left_and_may_have_a_long_path() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("d".repeat(120));
        fs::create_dir(&directory).unwrap();
        let path = directory.join("a.sock");
        drop(listen_privately(&path).unwrap());
        let _listener = listen_privately(&path).unwrap();
        let (short, _directory) = short_path(&path).unwrap();
        UnixStream::connect(short).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        let missing = folder.path().join("none/a.sock");
        assert_eq!(listen_privately(&missing).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}

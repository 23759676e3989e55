//! Accepting on a unix socket of this role. The socket is private (0600), and made again when
//! somebody has removed it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use mfserv_platform::socket::listen_privately;

/// A listening unix socket.
pub struct SocketListener {
    path: PathBuf,
    /// The socket, and the inode of its name.
    bound: Option<(UnixListener, u64)>,
}

impl SocketListener {
    /// One that listens as soon as it is looked after.
    pub fn new(path: PathBuf) -> Self {
        Self { path, bound: None }
    }

    /// Binds the socket if it is not there (any more).
    pub fn look_after(&mut self) -> io::Result<()> {
        let inode = fs::symlink_metadata(&self.path).map(|found| found.ino()).ok();
        if self.bound.as_ref().is_some_and(|(_, bound)| Some(*bound) == inode) {
            return Ok(());
        }
        self.bound = None;
        // What is there was left by a process that was killed: there is one such role.
        let listener = listen_privately(&self.path)?;
        listener.set_nonblocking(true)?;
        let inode = fs::symlink_metadata(&self.path)?.ino();
        self.bound = Some((listener, inode));
        Ok(())
    }

    /// The socket, to wait for clients.
    pub fn socket(&self) -> Option<&UnixListener> {
        self.bound.as_ref().map(|(listener, _)| listener)
    }

    /// The next client, if one waits.
    pub fn accept(&self) -> Option<UnixStream> {
        let (stream, _) = self.socket()?.accept().ok()?;
        stream.set_nonblocking(false).ok()?;
        Some(stream)
    }
}

impl Drop for SocketListener {
    fn drop(&mut self) {
        if self.bound.is_some() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

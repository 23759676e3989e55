//! The front behind nginx: an embedded front, a process of its own.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_platform::disk;
use rustix::io::FdFlags;
use rustix::process::{Pid, Signal};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::program::signal;
use super::{EDGE_KEY_VARIABLE, Names, NginxOptions};
use crate::EDGE_LISTENER;

/// The front behind nginx has so long to listen.
const START_PATIENCE: Duration = Duration::from_secs(20);
/// The same to end, when nginx has.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// The front behind nginx.
pub struct Inner {
    /// The process.
    pub child: Child,
}

impl Inner {
    /// Starts it, and waits until it listens for the daemon.
    pub async fn start(nginx: &NginxOptions, names: &Names, key: &str) -> Result<Self, Diagnostic> {
        let cannot = |why: &dyn std::fmt::Display| {
            Diagnostic::error("the front behind nginx cannot be started").because(why)
        };
        let Some((program, arguments)) = nginx.inner.split_first() else {
            return Err(cannot(&"its command line is empty"));
        };
        disk::remove(&names.http)?;
        let socket = UnixListener::bind(&names.http).map_err(|why| cannot(&why))?;
        restrict(&names.http).map_err(|why| cannot(&why))?;
        // nginx tries again where this is full, but says so.
        rustix::net::listen(&socket, 4096).map_err(|why| cannot(&why))?;
        #[expect(
            clippy::disallowed_methods,
            reason = "it is a part of this front, and ends with it"
        )]
        let mut command = Command::new(program);
        command.args(arguments).arg("--control").arg(&names.inner_control);
        command.env("MFSERV_LISTEN", format!("{EDGE_LISTENER}={}", socket.as_raw_fd()));
        command.env(EDGE_KEY_VARIABLE, key);
        // It inherits the socket.
        rustix::io::fcntl_setfd(socket.as_fd(), FdFlags::empty()).map_err(|why| cannot(&why))?;
        let child = command.spawn().map_err(|why| cannot(&why))?;
        drop(socket);
        let mut inner = Self { child };
        inner.listens(&names.inner_control).await?;
        Ok(inner)
    }

    async fn listens(&mut self, control: &Path) -> Result<(), Diagnostic> {
        let cannot = |why: String| {
            Diagnostic::error("the front behind nginx cannot be started").because(why)
        };
        let end = Instant::now() + START_PATIENCE;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(cannot(format!("it has ended: {status}")));
            }
            if UnixStream::connect(control).await.is_ok() {
                return Ok(());
            }
            if Instant::now() > end {
                let _ = self.child.kill().await;
                return Err(cannot(format!("it does not listen after {START_PATIENCE:?}")));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// nginx has ended: nobody asks any more.
    pub async fn end(&mut self) {
        if let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
            signal(pid, Signal::TERM);
        }
        if tokio::time::timeout(END_PATIENCE, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// Only the user of the node may connect.
pub fn restrict(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}

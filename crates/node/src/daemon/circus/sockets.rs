//! The sockets of Circus: opened as the plan says, in place of others, and their clients accepted.

use std::future::Future;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mfserv_core::circus::{Circus as Settings, Endpoint};
use mfserv_core::{Diagnostic, Kind};
use mfserv_platform::disk::is_gone;
use mfserv_platform::socket::PrivateSocket;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use super::Access;
use super::clients::{Closed, Stream};
use super::endpoint::LOOK;
use crate::operations::Who;

/// At most this many clients of a socket at a time; others wait in its backlog.
const MAX_CLIENTS: usize = 64;
/// The pause after a connection could not be accepted (no file descriptor is free).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// `(uid_t) -1`, which is no user (chown(2)).
const NOBODY_KNOWN: u32 = u32::MAX;

/// What is served: an endpoint, and whether clients of TCP may change the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    endpoint: Endpoint,
    tcp_may_change: bool,
}

impl Served {
    /// This endpoint with the settings that concern it.
    pub fn new(endpoint: Endpoint, settings: &Settings) -> Served {
        let tcp_may_change = settings.tcp_may_change && matches!(endpoint, Endpoint::Tcp(_));
        Served { endpoint, tcp_may_change }
    }
}

/// An endpoint as it is served now.
#[derive(Default)]
pub struct Opened {
    what: Option<Served>,
    task: Option<JoinHandle<()>>,
    /// What was wrong at the last try.
    pub trouble: Option<Diagnostic>,
}

impl Opened {
    /// Closes what is served if another endpoint is wanted, and lets its clients go. Its address
    /// is free when this returns.
    pub async fn close_other(&mut self, wanted: &Option<Served>) {
        if self.what == *wanted {
            return;
        }
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
        self.what.clone_from(wanted);
        if wanted.is_none() {
            self.trouble = None;
        }
    }

    /// Serves the endpoint that is wanted, if it is not served yet. Returns trouble that is new.
    pub fn open<F, S>(&mut self, serve: F) -> Option<Diagnostic>
    where
        F: Fn(Box<dyn Stream>, Access) -> S + Send + 'static,
        S: Future<Output = Result<(), Closed>> + Send + 'static,
    {
        let served = self.what.clone().filter(|_| self.task.is_none())?;
        match Listener::open(&served.endpoint) {
            Ok(listener) => {
                let accepting = accept(listener, served.tcp_may_change, serve);
                self.task = Some(tokio::spawn(accepting));
                self.trouble = None;
                None
            }
            Err(problem) => {
                let before = self.trouble.replace(problem.clone());
                (before.as_ref() != Some(&problem)).then_some(problem)
            }
        }
    }
}

enum Listener {
    Unix { file: Removed, socket: PrivateSocket },
    Tcp(TcpListener),
}

/// The file of a socket, removed when nobody listens any more, unless another has its name.
struct Removed {
    path: PathBuf,
    /// Device and inode.
    file: Option<(u64, u64)>,
}

impl Removed {
    fn of(path: &Path) -> Removed {
        Removed { path: path.into(), file: file_at(path) }
    }
}

impl Drop for Removed {
    fn drop(&mut self) {
        if self.file.is_some() && self.file == file_at(&self.path) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Which file has this name: no other one has its inode as long as somebody listens on it.
fn file_at(path: &Path) -> Option<(u64, u64)> {
    let found = std::fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

impl Listener {
    fn open(endpoint: &Endpoint) -> Result<Listener, Diagnostic> {
        let failed = |why: &dyn std::fmt::Display| {
            Diagnostic::error(format!("cannot listen on {endpoint}"))
                .kind(Kind::BadConfiguration)
                .because(why)
                .help("`circusctl` of mfserv works all the same; see [circus] in config.ini")
        };
        match endpoint {
            Endpoint::Unix(path) if is_another_file(path) => {
                Err(failed(&"there is a file that is no socket"))
            }
            Endpoint::Unix(path) => {
                let socket = PrivateSocket::listen(path).map_err(|why| failed(&why))?;
                Ok(Listener::Unix { file: Removed::of(path), socket })
            }
            Endpoint::Tcp(address) => {
                let listen = || {
                    let socket = std::net::TcpListener::bind(address)?;
                    socket.set_nonblocking(true)?;
                    TcpListener::from_std(socket)
                };
                listen().map(Listener::Tcp).map_err(|why| failed(&why))
            }
        }
    }

    /// The next client, and what it may do; `None` if it may not even ask.
    async fn next(
        &self,
        tcp_may_change: bool,
    ) -> std::io::Result<Option<(Box<dyn Stream>, Access)>> {
        match self {
            Listener::Unix { socket, .. } => {
                let stream = socket.accept().await?;
                let peer = stream.peer_cred()?;
                let own = rustix::process::geteuid().as_raw();
                let user = crate::host::user_name(peer.uid()).unwrap_or_default();
                let pid = peer.pid().and_then(|pid| pid.try_into().ok()).unwrap_or(0);
                let who = Who { command: "circusctl".into(), user, uid: peer.uid(), pid };
                let may_ask = peer.uid() == own || peer.uid() == 0;
                Ok(may_ask.then(|| (Box::new(stream) as Box<dyn Stream>, Access::Full(who))))
            }
            Listener::Tcp(socket) => {
                let (stream, _) = socket.accept().await?;
                let command = "circusctl over TCP".into();
                let who = Who { command, user: "unknown".into(), uid: NOBODY_KNOWN, pid: 0 };
                let access = if tcp_may_change { Access::Full(who) } else { Access::Look };
                Ok(Some((Box::new(stream), access)))
            }
        }
    }

    fn look_after(&mut self) {
        if let Listener::Unix { file, socket } = self {
            if is_gone(&file.path) {
                socket.look_after();
                *file = Removed::of(&file.path);
            }
        }
    }
}

/// Removes the sockets of a node that ends.
pub fn remove_sockets(settings: &Settings) {
    for endpoint in [&settings.endpoint, &settings.pubsub].into_iter().flatten() {
        match endpoint {
            Endpoint::Unix(path) if !is_another_file(path) => drop(std::fs::remove_file(path)),
            Endpoint::Unix(_) | Endpoint::Tcp(_) => {}
        }
    }
}

/// What is there must not be replaced by a socket.
fn is_another_file(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket())
}

/// Accepts clients and serves each in a task of its own, which ends with it, and with this one: a
/// client must not go on after its endpoint has changed what it allows.
async fn accept<F, S>(mut listener: Listener, tcp_may_change: bool, serve: F)
where
    F: Fn(Box<dyn Stream>, Access) -> S + Send + 'static,
    S: Future<Output = Result<(), Closed>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    let mut clients = JoinSet::new();
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await.ok()?;
            Some((place, listener.next(tcp_may_change).await))
        };
        let next = tokio::select! {
            next = next => next,
            Some(_) = clients.join_next() => continue,
            () = sleep(LOOK) => {
                listener.look_after();
                continue;
            }
        };
        match next {
            Some((place, Ok(Some((stream, access))))) => {
                let serving = serve(stream, access);
                clients.spawn(async move {
                    let _place = place;
                    let _ = serving.await;
                });
            }
            Some((_, Ok(None))) => {}
            Some((_, Err(_))) => sleep(ACCEPT_PAUSE).await,
            None => return,
        }
    }
}

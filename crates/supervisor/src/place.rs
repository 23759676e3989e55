//! Where a worker is asked: its socket, or its port. Anybody may listen on a port: a worker is
//! asked there only while the socket that listens belongs to it or to a process that it has started.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mfserv_platform::loopback::{Listener, Listeners, has_socket, listening};
use mfserv_platform::proc::ProcessTable;
use mfserv_platform::sync::lock;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::probe::{Saw, Seen};

const PROC: &str = "/proc";

/// A process that is being started may have a socket before its parent is known: it is looked for
/// again after this time.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Where a worker is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A unix socket.
    Socket(PathBuf),
    /// A port of 127.0.0.1.
    Port(u16),
}

/// Why a worker was not reached, or gave no answer.
#[derive(Debug)]
pub(crate) enum Miss {
    /// What was seen.
    Silent(String),
    /// Another process listens on its port; who.
    PortTaken(String),
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Miss::Silent(text) | Miss::PortTaken(text)) = self;
        f.write_str(text)
    }
}

/// A connection to a worker.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Place {
    /// A connection to the worker that was asked for here.
    pub async fn connect(&self, saw: &Saw) -> Result<Box<dyn Stream>, Miss> {
        let refused = |error: std::io::Error| match self {
            Place::Socket(_) => Miss::Silent(format!("not listening on its socket: {error}")),
            Place::Port(port) => Miss::Silent(format!("not listening on its port {port}: {error}")),
        };
        Ok(match self {
            Place::Socket(path) => Box::new(UnixStream::connect(path).await.map_err(refused)?),
            Place::Port(port) => {
                self.is_its_own(saw).await?;
                Box::new(TcpStream::connect(("127.0.0.1", *port)).await.map_err(refused)?)
            }
        })
    }

    /// Makes sure that who listens on its port is the worker. Nobody else can take its socket.
    pub async fn is_its_own(&self, saw: &Saw) -> Result<(), Miss> {
        match self {
            Place::Socket(_) => Ok(()),
            Place::Port(port) => look_for_owner(*port, saw).await,
        }
    }
}

impl Seen {
    /// The socket that listens on its port is the one that was seen to be the worker's, as far as
    /// can be known. A daemon that has taken the worker over has seen none yet, and a program may
    /// open another one: then the owner is to be looked for.
    pub fn still_listens_on(&self, port: u16) -> bool {
        let now = Listeners::default().on(port);
        now.map_or(true, |now| now.is_some() && now == self.listener)
    }
}

/// Somebody listens on this port.
pub(crate) fn is_listened_on(port: u16) -> bool {
    Listeners::default().on(port).is_ok_and(|now| now.is_some())
}

/// Makes sure that who listens on the port is the worker.
async fn look_for_owner(port: u16, saw: &Saw) -> Result<(), Miss> {
    let mut foreign: Option<Listener> = None;
    loop {
        let found = Listeners::default().on(port);
        let found = found.map_err(|why| Miss::Silent(format!("who listens on {port}: {why}")))?;
        let (known, pid) = {
            let seen = lock(saw);
            (seen.listener, seen.pid)
        };
        let Some(listener) = found else {
            return Err(Miss::Silent(format!("not listening on its port {port} (PORT)")));
        };
        if known == Some(listener) {
            return Ok(());
        }
        let Some(pid) = pid else {
            return Err(Miss::Silent("its process is not known yet".into()));
        };
        let owns = move || is_of_tree(pid, &listener);
        if tokio::task::spawn_blocking(owns).await.unwrap_or(false) {
            lock(saw).listener = Some(listener);
            return Ok(());
        }
        if foreign == Some(listener) {
            let uid = listener.uid;
            let who = format!("another process, of the user {uid}, listens on its port {port}");
            return Err(Miss::PortTaken(who));
        }
        foreign = Some(listener);
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// A process, or one that it has started, has this socket. Where that is not to be known, because
/// descriptors may not be read, the user who has made the socket decides: it has to be the one of
/// this daemon, or for a daemon of root the one of such a process.
fn is_of_tree(pid: u32, listener: &Listener) -> bool {
    let proc = Path::new(PROC);
    let me = rustix::process::geteuid();
    let mut is_trusted = false;
    let mut has = |pid: u32| match has_socket(proc, pid, listener.inode) {
        Some(has) => has,
        None => {
            let is_user = || me.is_root() && user_of(pid) == Some(listener.uid);
            is_trusted |= listener.uid == me.as_raw() || is_user();
            false
        }
    };
    // Most servers are the process that was started.
    let is_own =
        has(pid) || ProcessTable::read(proc).tree_and_session(pid).iter().any(|it| has(it.pid));
    is_own || is_trusted
}

/// The user that a process runs as; the owner of its directory may be root instead.
fn user_of(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("{PROC}/{pid}/status")).ok()?;
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    users.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Where a worker listens that does not listen on its port.
pub(crate) async fn elsewhere(pid: u32) -> Option<String> {
    let found = tokio::task::spawn_blocking(move || {
        let proc = Path::new(PROC);
        let tree = ProcessTable::read(proc);
        let tree = tree.tree_and_session(pid);
        let has = |it: &Listener| {
            tree.iter().any(|process| has_socket(proc, process.pid, it.inode) == Some(true))
        };
        let all = listening(proc).unwrap_or_default();
        all.into_iter().find(has).map(|it| it.address.to_string())
    });
    found.await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[tokio::test]
    async fn a_worker_is_asked_on_its_port_only_while_it_listens_there_itself() {
        let saw = Saw::default();
        lock(&saw).pid = Some(std::process::id());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(Place::Port(port).connect(&saw).await.is_ok());
        assert!(lock(&saw).still_listens_on(port));
        drop(listener);
        assert!(!lock(&saw).still_listens_on(port));
        let miss = Place::Port(port).connect(&saw).await.map(drop).unwrap_err();
        assert!(miss.to_string().contains("not listening on its port"), "{miss}");
        // No process has such a number.
        lock(&saw).pid = Some(1_000_000_000);
        let _other = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let miss = Place::Port(port).connect(&saw).await.map(drop).unwrap_err();
        assert!(matches!(miss, Miss::PortTaken(_)), "{miss}");
        assert!(!lock(&saw).still_listens_on(port));
    }

    #[test]
    fn of_a_worker_whose_descriptors_cannot_be_read_the_user_of_the_listener_decides() {
        let checks = || {
            if rustix::process::geteuid().is_root() {
                let nobody = rustix::process::Uid::from_raw(65_534);
                rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
            }
            let me = rustix::process::geteuid().as_raw();
            let address = "127.0.0.1:1".parse().unwrap();
            // No socket has such a number, and only root may read the descriptors of process 1.
            let of = |uid| is_of_tree(1, &Listener { address, uid, inode: u64::MAX });
            assert_eq!(has_socket(Path::new(PROC), 1, u64::MAX), None);
            (of(me), of(me + 1), of(0))
        };
        // Only this thread becomes another user.
        let found = std::thread::spawn(checks).join().unwrap();
        assert_eq!(found, (true, false, false));
        let me = rustix::process::geteuid().as_raw();
        assert_eq!(user_of(std::process::id()), Some(me));
    }

    #[tokio::test]
    async fn where_a_worker_listens_instead_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let found = elsewhere(std::process::id()).await;
        assert!(found.is_some(), "{listener:?}");
        assert_eq!(elsewhere(1_000_000_000).await, None);
    }
}

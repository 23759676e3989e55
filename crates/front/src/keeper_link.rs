//! The connection to the keeper: a keeper that has been started anew gets the listening
//! sockets from the front, which still has them.

use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_core::wire::VERSION;
use mfserv_core::wire::keeper::{Answer, Ask, FromKeeper, Request, Response};
use mfserv_platform::link::{Link, LinkError};
use mfserv_platform::sync::lock;

/// The pause between two tries to reach the keeper: the first one, and the longest one.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A thread that stays connected to the keeper; it ends when this is dropped.
pub struct KeeperLink(Arc<Shared>);

#[derive(Default)]
struct Shared {
    ended: AtomicBool,
    stream: Mutex<Option<UnixStream>>,
}

struct Offer {
    shared: Arc<Shared>,
    socket: PathBuf,
    listeners: Vec<(String, OwnedFd)>,
}

impl KeeperLink {
    /// Starts the thread.
    pub fn start(socket: PathBuf, listeners: Vec<(String, OwnedFd)>) -> Result<Self, Diagnostic> {
        let shared = Arc::new(Shared::default());
        let offer = Offer { shared: shared.clone(), socket, listeners };
        std::thread::Builder::new()
            .name("keeper-link".into())
            .spawn(move || offer.stay_connected())
            .map_err(|why| Diagnostic::error("no thread for the keeper").because(why))?;
        Ok(Self(shared))
    }
}

impl Drop for KeeperLink {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
        if let Some(stream) = &*self.0.stream() {
            // The keeper may have closed it already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn stream(&self) -> std::sync::MutexGuard<'_, Option<UnixStream>> {
        lock(&self.stream)
    }
}

impl Offer {
    fn stay_connected(&self) {
        let mut pause = PAUSE_MIN;
        while !self.shared.ended.load(Ordering::Acquire) {
            if self.connect_and_offer().is_ok() {
                pause = PAUSE_MIN;
            }
            self.shared.stream().take();
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Returns when the connection is lost, with an error if it was never made.
    fn connect_and_offer(&self) -> Result<(), LinkError> {
        let stream = UnixStream::connect(&self.socket)?;
        *self.shared.stream() = Some(stream.try_clone()?);
        let mut link = Link::new(stream);
        let ask = Ask::Hello { version: VERSION, role: "front".into() };
        link.send(&Request { seq: 1, ask })?;
        loop {
            match link.receive() {
                Ok(message) => self.offer_missing(&mut link, message)?,
                Err(LinkError::Frame(why)) => return Err(why.into()),
                Err(_) => return Ok(()),
            }
        }
    }

    /// Offers the sockets that the keeper does not have, once it has answered Hello.
    fn offer_missing(&self, link: &mut Link, message: FromKeeper) -> Result<(), LinkError> {
        let FromKeeper::Response(Response { answer: Answer::Hello { listeners, .. }, .. }) =
            message
        else {
            return Ok(());
        };
        let missing = self.listeners.iter().filter(|(name, _)| !listeners.contains(name));
        for (seq, (name, socket)) in (2..).zip(missing) {
            let address = address_of(socket)?;
            let ask = Ask::Offer { name: name.clone(), address };
            link.send_with(&Request { seq, ask }, socket.as_fd())?;
        }
        Ok(())
    }
}

/// `HOST:PORT` or `unix:PATH`, as the keeper was asked to listen.
pub(crate) fn address_of(socket: &OwnedFd) -> std::io::Result<String> {
    let address = rustix::net::getsockname(socket)?;
    if let Ok(ip) = std::net::SocketAddr::try_from(address.clone()) {
        return Ok(ip.to_string());
    }
    let unix = rustix::net::SocketAddrUnix::try_from(address)?;
    let path = unix.path().map(|path| path.to_string_lossy().into_owned());
    Ok(format!("unix:{}", path.unwrap_or_default()))
}

//! The line to the keeper: a keeper that was started anew gets the listening sockets
//! back from the front that still holds them.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_core::wire::keeper::{Answer, Ask, FromKeeper, Request, Response};
use mfserv_core::wire::{VERSION, frame};
use mfserv_platform::sync::lock;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

/// Between two tries to reach the keeper.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A thread that stays connected to the keeper; it ends when this is dropped.
pub struct KeeperLink(Arc<Shared>);

#[derive(Default)]
struct Shared {
    ended: AtomicBool,
    stream: Mutex<Option<UnixStream>>,
}

struct Line {
    shared: Arc<Shared>,
    socket: PathBuf,
    listeners: Vec<(String, OwnedFd)>,
}

impl KeeperLink {
    /// Starts the thread.
    pub fn start(socket: PathBuf, listeners: Vec<(String, OwnedFd)>) -> Result<Self, Diagnostic> {
        let shared = Arc::new(Shared::default());
        let line = Line { shared: shared.clone(), socket, listeners };
        std::thread::Builder::new()
            .name("keeper-link".into())
            .spawn(move || line.stay_connected())
            .map_err(|why| Diagnostic::error("no thread for the keeper").because(why))?;
        Ok(Self(shared))
    }
}

impl Drop for KeeperLink {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
        if let Some(stream) = &*self.0.stream() {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn stream(&self) -> std::sync::MutexGuard<'_, Option<UnixStream>> {
        lock(&self.stream)
    }
}

impl Line {
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

    /// Returns when the connection is lost; with an error if it never stood.
    fn connect_and_offer(&self) -> std::io::Result<()> {
        let mut stream = UnixStream::connect(&self.socket)?;
        *self.shared.stream() = Some(stream.try_clone()?);
        let hello = Ask::Hello { version: VERSION, role: "front".into() };
        stream.write_all(&encode(1, hello)?)?;
        let mut buffer = Vec::new();
        let mut room = [0; 4096];
        loop {
            match stream.read(&mut room) {
                Ok(0) | Err(_) => return Ok(()),
                Ok(count) => buffer.extend_from_slice(&room[..count]),
            }
            while let Some(message) =
                frame::decode::<FromKeeper>(&mut buffer).map_err(std::io::Error::other)?
            {
                self.hear(&stream, message)?;
            }
        }
    }

    /// Only the answer to Hello matters.
    fn hear(&self, stream: &UnixStream, message: FromKeeper) -> std::io::Result<()> {
        let FromKeeper::Response(Response { answer: Answer::Hello { listeners, .. }, .. }) =
            message
        else {
            return Ok(());
        };
        let missing = self.listeners.iter().filter(|(name, _)| !listeners.contains(name));
        for (seq, (name, socket)) in (2..).zip(missing) {
            let address = address_of(socket)?;
            send_with(stream, &encode(seq, Ask::Offer { name: name.clone(), address })?, socket)?;
        }
        Ok(())
    }
}

fn encode(seq: u64, ask: Ask) -> std::io::Result<Vec<u8>> {
    frame::encode(&Request { seq, ask }).map_err(std::io::Error::other)
}

/// `HOST:PORT` or `unix:PATH`, as the keeper was asked to listen.
fn address_of(socket: &OwnedFd) -> std::io::Result<String> {
    let address = rustix::net::getsockname(socket)?;
    if let Ok(ip) = std::net::SocketAddr::try_from(address.clone()) {
        return Ok(ip.to_string());
    }
    let unix = rustix::net::SocketAddrUnix::try_from(address)?;
    let path = unix.path().map(|path| path.to_string_lossy().into_owned());
    Ok(format!("unix:{}", path.unwrap_or_default()))
}

/// The descriptor travels with the first byte.
fn send_with(stream: &UnixStream, frame: &[u8], socket: &OwnedFd) -> std::io::Result<()> {
    let descriptors = [socket.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    let sent =
        rustix::net::sendmsg(stream, &[IoSlice::new(frame)], &mut ancillary, SendFlags::NOSIGNAL)?;
    (&*stream).write_all(&frame[sent..])
}

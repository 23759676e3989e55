//! The workers behind a front: threads of the test.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use mfserv_core::names::{WatcherName, WorkerId};
use mfserv_core::wire::front::{Address, Peer};
use mfserv_platform::loopback::ReservedPort;

use crate::world::*;

type Conversation = dyn Fn(&mut UnixStream, Received) -> bool + Send + Sync;

/// A worker: one thread per connection, or one at a time.
pub struct Worker {
    pub app: String,
    pub id: WorkerId,
    pub socket: PathBuf,
    /// It listens on this port instead.
    pub port: Option<Arc<ReservedPort>>,
    /// The bytes of each connection that it took.
    pub raw: Arc<Mutex<Vec<Vec<u8>>>>,
    pub requests: Arc<Mutex<Vec<Received>>>,
    /// Connections open now, and the most that ever were.
    pub open: Arc<AtomicUsize>,
    pub most: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
    /// Not one of its threads: its end is the worker's.
    is_owner: bool,
}

impl Worker {
    /// A worker of `p/a` that has this conversation for each request; it returns whether
    /// the connection goes on.
    pub fn start(
        world: &World,
        number: u32,
        talk: impl Fn(&mut UnixStream, Received) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self::start_of(world, "p/a", number, true, talk)
    }

    pub fn start_of(
        world: &World,
        app: &str,
        number: u32,
        threaded: bool,
        talk: impl Fn(&mut UnixStream, Received) -> bool + Send + Sync + 'static,
    ) -> Self {
        let worker = Self::silent(world, app, number, None);
        let listener = UnixListener::bind(&worker.socket).unwrap();
        worker.serve(move || Ok(listener.accept()?.0), threaded, talk);
        worker
    }

    /// The same on a port.
    pub fn on_port(
        world: &World,
        number: u32,
        threaded: bool,
        talk: impl Fn(&mut UnixStream, Received) -> bool + Send + Sync + 'static,
    ) -> Self {
        let port = Arc::new(ReservedPort::new().unwrap());
        let listener = TcpListener::bind(("127.0.0.1", port.number())).unwrap();
        let worker = Self::silent(world, "p/a", number, Some(port));
        // Conversations read and write; they do not ask what kind of socket it is.
        let accept = move || Ok(UnixStream::from(OwnedFd::from(listener.accept()?.0)));
        worker.serve(accept, threaded, talk);
        worker
    }

    fn silent(world: &World, app: &str, number: u32, port: Option<Arc<ReservedPort>>) -> Self {
        let (plugin, name) = app.split_once('/').unwrap();
        let id = WorkerId::new(WatcherName::app(plugin, name), number, 1);
        Self {
            app: app.into(),
            socket: world.path(&format!("{id}.socket")),
            id,
            port,
            raw: Arc::default(),
            requests: Arc::default(),
            open: Arc::default(),
            most: Arc::default(),
            stopped: Arc::default(),
            is_owner: true,
        }
    }

    fn serve(
        &self,
        mut accept: impl FnMut() -> std::io::Result<UnixStream> + Send + 'static,
        threaded: bool,
        talk: impl Fn(&mut UnixStream, Received) -> bool + Send + Sync + 'static,
    ) {
        let copy = self.copy();
        let talk: Arc<Conversation> = Arc::new(talk);
        std::thread::spawn(move || {
            loop {
                let stream = accept().unwrap();
                if copy.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (one, talk) = (copy.copy(), talk.clone());
                if threaded {
                    std::thread::spawn(move || one.connection(stream, &*talk));
                } else {
                    one.connection(stream, &*talk);
                }
            }
        });
    }

    /// A worker of `p/a` whose connections nobody reads but `talk`.
    pub fn unread(
        world: &World,
        number: u32,
        talk: impl Fn(&mut UnixStream) + Send + Sync + 'static,
    ) -> Self {
        let worker = Self::silent(world, "p/a", number, None);
        let listener = UnixListener::bind(&worker.socket).unwrap();
        let (open, stopped, talk) = (worker.open.clone(), worker.stopped.clone(), Arc::new(talk));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (open, talk, mut stream) = (open.clone(), talk.clone(), stream.unwrap());
                open.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    talk(&mut stream);
                    drop(stream);
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        worker
    }

    /// A worker that answers everything with `body`, keeping connections.
    pub fn saying(world: &World, number: u32, body: &'static str) -> Self {
        Self::start(world, number, move |stream, _| say(stream, body))
    }

    fn copy(&self) -> Self {
        Self {
            app: self.app.clone(),
            id: self.id.clone(),
            socket: self.socket.clone(),
            port: self.port.clone(),
            raw: self.raw.clone(),
            requests: self.requests.clone(),
            open: self.open.clone(),
            most: self.most.clone(),
            stopped: self.stopped.clone(),
            is_owner: false,
        }
    }

    pub fn peer(&self) -> Peer {
        let uid = rustix::process::geteuid().as_raw();
        let port = self.port.as_ref().map(|port| Address::Port { port: port.number(), uid });
        let address = port.unwrap_or_else(|| Address::Socket(self.socket.clone()));
        Peer { worker: self.id.clone(), address, dir: None, pid: None }
    }

    /// Accepts nothing more: its socket is refused.
    pub fn stop_listening(&self) {
        if !self.stopped.swap(true, Ordering::SeqCst) {
            match &self.port {
                Some(port) => drop(TcpStream::connect(("127.0.0.1", port.number()))),
                None => drop(UnixStream::connect(&self.socket)),
            }
            let _ = std::fs::remove_file(&self.socket);
        }
    }

    pub fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    pub fn last(&self) -> Received {
        self.requests.lock().unwrap().last().expect("no request reached the worker").clone()
    }

    /// All bytes that reached it.
    pub fn bytes(&self) -> usize {
        self.raw.lock().unwrap().iter().map(Vec::len).sum()
    }

    fn connection(&self, mut stream: UnixStream, talk: &Conversation) {
        let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(open, Ordering::SeqCst);
        let place = {
            let mut raw = self.raw.lock().unwrap();
            raw.push(Vec::new());
            raw.len() - 1
        };
        let mut pending = Vec::new();
        while let Some(received) = self.receive(&mut stream, &mut pending, place) {
            self.requests.lock().unwrap().push(received.clone());
            if !talk(&mut stream, received) {
                break;
            }
        }
        drop(stream);
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    fn receive(
        &self,
        stream: &mut UnixStream,
        pending: &mut Vec<u8>,
        place: usize,
    ) -> Option<Received> {
        let mut more = |pending: &mut Vec<u8>| {
            let mut room = [0; 65536];
            let count = stream.read(&mut room).unwrap_or(0);
            self.raw.lock().unwrap()[place].extend_from_slice(&room[..count]);
            pending.extend_from_slice(&room[..count]);
            count > 0
        };
        let end = loop {
            if let Some(at) = find(pending, b"\r\n\r\n") {
                break at + 4;
            }
            if !more(pending) {
                return None;
            }
        };
        let head = String::from_utf8_lossy(&pending[..end]).into_owned();
        pending.drain(..end);
        if fields(&head, "transfer-encoding").is_empty() {
            let length = fields(&head, "content-length");
            let length: usize = length.first().map_or(0, |text| text.parse().unwrap());
            while pending.len() < length {
                if !more(pending) {
                    return None;
                }
            }
            return Some(Received { head, body: pending.drain(..length).collect() });
        }
        loop {
            if let Some((body, used)) = unchunk(pending) {
                pending.drain(..used);
                return Some(Received { head, body });
            }
            if !more(pending) {
                return None;
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.is_owner {
            self.stop_listening();
        }
    }
}

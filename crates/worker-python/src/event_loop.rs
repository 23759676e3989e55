//! The event loop: connections, and whose turn it is.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use crate::answer::refused;
use crate::clock::watch;
use crate::connection::{Connection, Next, READ_MAX, is_of_client};
use crate::input::WHOLE_MAX;
use crate::request::App;
use crate::shared::{ACCEPTS, PAUSE, QUIET, SETTLE, Shared};

mod pull;
mod queues;
mod stop;
mod turn;

pub use self::pull::NO_OFFER;
use self::queues::Queues;

/// Events of one turn, at most.
const EVENTS: usize = 64;

const LISTENER: u64 = u64::MAX;
const WAKE: u64 = u64::MAX - 1;
const QUEUE: u64 = u64::MAX - 2;

/// The connections of a worker.
pub struct Loop {
    app: App,
    shared: Arc<Shared>,
    epoll: OwnedFd,
    /// A duplicate: Python's object owns the other.
    listener: OwnedFd,
    connections: Vec<Option<Box<Connection>>>,
    free: Vec<usize>,
    /// Free from the next turn on: events of this one may still mean who was there.
    freed: Vec<usize>,
    /// What fronts offer.
    queues: Queues,
    /// Connections with bytes that were read already.
    ready: Vec<usize>,
    space: Box<[u8]>,
    /// Until when nobody is accepted.
    paused: Option<Instant>,
    /// When that was last logged.
    complained: Option<Instant>,
    /// Nothing was served since the last look at the connections.
    is_fresh: bool,
    /// Signals wake this loop, for all that the app has done.
    is_settled: bool,
    /// When the last request was over, of those while it stops.
    served: Instant,
}

impl Loop {
    /// `listener`: the descriptor of the caller, who keeps it; `signal` is that of the soft limit.
    pub fn new(app: App, listener: i32, signal: i32) -> io::Result<Self> {
        // SAFETY: the listener belongs to the caller, who keeps it while this server runs.
        let listener = unsafe { BorrowedFd::borrow_raw(listener) };
        let listener = rustix::io::fcntl_dupfd_cloexec(listener, 0)?;
        rustix::io::ioctl_fionbio(&listener, true)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let shared = Arc::clone(&app.shared);
        for (fd, data) in [(shared.wake.reader(), WAKE), (listener.as_fd(), LISTENER)] {
            let data = epoll::EventData::new_u64(data);
            epoll::add(&epoll, fd, data, epoll::EventFlags::IN)?;
        }
        app.clock.adopt(0);
        let limit = Duration::from_secs(app.timeout_s);
        watch(&shared, &[Arc::clone(&app.clock)], limit, signal)?;
        Ok(Self {
            app,
            shared,
            epoll,
            listener,
            connections: Vec::new(),
            free: Vec::new(),
            freed: Vec::new(),
            queues: Queues::default(),
            ready: Vec::new(),
            space: vec![0; READ_MAX].into_boxed_slice(),
            paused: None,
            complained: None,
            is_fresh: false,
            is_settled: true,
            served: Instant::now(),
        })
    }

    /// Serves what is there; waits for it for at most `patience`. Returns whether there was
    /// anything.
    pub fn turn(&mut self, py: Python<'_>, patience: Option<Duration>) -> PyResult<bool> {
        self.check_signals(py)?;
        self.free.append(&mut self.freed);
        if self.paused.is_some_and(|until| until <= Instant::now()) {
            self.listen(true);
        }
        let bounds = [
            patience,
            (!self.ready.is_empty() || self.queues.is_busy).then_some(Duration::ZERO),
            self.paused.map(|until| until.saturating_duration_since(Instant::now())),
            (!self.is_settled).then_some(SETTLE),
        ];
        let mut events = [(0, epoll::EventFlags::empty()); EVENTS];
        let count = self.wait(py, &mut events, bounds.into_iter().flatten().min())?;
        let found = &events[..count];
        self.is_fresh = true;
        let was_busy = self.queues.is_busy;
        if count == 0 && !self.is_settled && !was_busy && patience.is_none() {
            self.settle(py)?;
        }
        // Others sleep on, since this worker was woken for the message: it comes first.
        if !was_busy && found.iter().any(|&(event, _)| event == QUEUE) {
            self.pull(py)?;
        }
        let ready = std::mem::take(&mut self.ready);
        let was_any = !found.is_empty() || !ready.is_empty();
        for &index in &ready {
            // another one may have its place
            let connection = self.connections.get(index).and_then(Option::as_ref);
            if connection.is_some_and(|connection| connection.is_queued) {
                self.go_on(py, index)?;
            }
        }
        for &(event, flags) in found {
            match event {
                WAKE => self.shared.wake.clear(),
                LISTENER => self.accept(py)?,
                QUEUE => {}
                index if flags.contains(epoll::EventFlags::HUP) => self.end(index as usize),
                index => self.ready_connection(py, index as usize)?,
            }
        }
        if was_busy {
            self.pull(py)?;
        }
        Ok(was_any)
    }

    /// Waits with the interpreter free for threads of the app. Returns how many events there
    /// are, and puts what each is about into `found`.
    fn wait(
        &self,
        py: Python<'_>,
        found: &mut [(u64, epoll::EventFlags); EVENTS],
        patience: Option<Duration>,
    ) -> PyResult<usize> {
        let limit = patience.map(|patience| Timespec {
            tv_sec: patience.as_secs() as i64,
            tv_nsec: patience.subsec_nanos().into(),
        });
        let epoll = &self.epoll;
        let count = py.detach(|| {
            let mut events = [MaybeUninit::uninit(); EVENTS];
            let (events, _) = epoll::wait(epoll, &mut events, limit.as_ref())?;
            for (place, event) in found.iter_mut().zip(&*events) {
                let flags = event.flags;
                *place = (event.data.u64(), flags);
            }
            Ok(events.len())
        });
        match count {
            Ok(count) => Ok(count),
            Err(Errno::INTR) => Ok(0),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }

    fn check_signals(&self, py: Python<'_>) -> PyResult<()> {
        self.app.check_signals(py)
    }

    /// Makes signals wake this loop again: `asyncio.run` in the app leaves nothing that does.
    fn settle(&mut self, py: Python<'_>) -> PyResult<()> {
        let set = py.import(intern!(py, "signal"))?.getattr(intern!(py, "set_wakeup_fd"))?;
        let own = self.shared.wake.writer().as_raw_fd();
        let options = PyDict::new(py);
        options.set_item(intern!(py, "warn_on_full_buffer"), false)?;
        let before: i32 = set.call((own,), Some(&options))?.extract()?;
        // An event loop that the app keeps needs its own; closed, it is of no use to anybody.
        let is_of_app = before != -1 && before != own && set.call1((before,)).is_ok();
        self.is_settled = !is_of_app;
        Ok(())
    }

    /// Writes to the log.
    pub fn log(&self, py: Python<'_>, message: &str, error: Option<&PyErr>) {
        self.app.log(py, message, error);
    }

    fn accept(&mut self, py: Python<'_>) -> PyResult<()> {
        for _ in 0..ACCEPTS {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match accept_with(&self.listener, flags) {
                Ok(socket) => {
                    self.is_fresh = false;
                    let connection = Box::new(Connection::new(socket));
                    let index = self.free.pop().unwrap_or(self.connections.len());
                    let data = epoll::EventData::new_u64(index as u64);
                    let flags = epoll::EventFlags::IN;
                    if epoll::add(&self.epoll, connection.socket(), data, flags).is_err() {
                        self.free.push(index);
                        continue;
                    }
                    if index == self.connections.len() {
                        self.connections.push(None);
                    }
                    self.connections[index] = Some(connection);
                    self.ready_connection(py, index)?;
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                // A client that has sent nothing so far keeps out one that may have.
                Err(_) if self.shared.is_stopping() && self.end_idle() => {}
                Err(error) => {
                    self.listen(false);
                    if self.complained.is_none_or(|last| last.elapsed() >= QUIET) {
                        self.complained = Some(Instant::now());
                        let error = io::Error::from(error);
                        let message = format!("no connection is accepted for a while: {error}");
                        self.log(py, &message, None);
                    }
                    break;
                }
            }
        }
        Ok(())
    }

    /// Whether clients are accepted.
    fn listen(&mut self, listens: bool) {
        let flags = if listens { epoll::EventFlags::IN } else { epoll::EventFlags::empty() };
        let data = epoll::EventData::new_u64(LISTENER);
        let _ = epoll::modify(&self.epoll, &self.listener, data, flags);
        self.paused = (!listens).then(|| Instant::now() + PAUSE);
    }

    /// A socket can be read or written.
    fn ready_connection(&mut self, py: Python<'_>, index: usize) -> PyResult<()> {
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_mut) else {
            return Ok(());
        };
        if connection.is_link() {
            self.ready_link(py, index);
            return Ok(());
        }
        if connection.is_queued {
            // No more is read before what was read is served.
            return Ok(());
        }
        if connection.has_output() {
            match connection.flush(py) {
                Ok(true) => {
                    let data = epoll::EventData::new_u64(index as u64);
                    let flags = epoll::EventFlags::IN;
                    let _ = epoll::modify(&self.epoll, connection.socket(), data, flags);
                }
                Ok(false) => return Ok(()),
                Err(error) => {
                    self.end(index);
                    if !is_of_client(&error) {
                        self.log(py, &format!("an answer was cut: {error}"), None);
                    }
                    return Ok(());
                }
            }
        } else if connection.is_new() {
            return self.first_bytes(py, index);
        } else if !connection.read(&mut self.space).unwrap_or(false) {
            self.end(index);
            return Ok(());
        }
        self.go_on(py, index)
    }

    /// Serves the request that is there, if there is one whole head.
    fn go_on(&mut self, py: Python<'_>, index: usize) -> PyResult<()> {
        let Some(mut connection) = self.connections.get_mut(index).and_then(Option::take) else {
            return Ok(());
        };
        connection.is_queued = false;
        match connection.next() {
            Next::Request if connection.gathers(WHOLE_MAX) => {
                self.connections[index] = Some(connection);
                Ok(())
            }
            Next::More => {
                self.connections[index] = Some(connection);
                Ok(())
            }
            Next::End => {
                self.connections[index] = Some(connection);
                self.end(index);
                Ok(())
            }
            Next::Refused(refusal) => {
                let text = refused(&refusal);
                let _ = connection.send(text.as_bytes(), None, 0..0, b"");
                connection.ends = true;
                self.put_back(index, connection);
                Ok(())
            }
            // Its client may have left while others were served: nobody wants the answer.
            Next::Request if !self.is_fresh && connection.is_left() => {
                self.connections[index] = Some(connection);
                self.end(index);
                Ok(())
            }
            Next::Request => {
                self.is_fresh = false;
                let connection = self.app.serve(py, connection)?;
                self.is_settled = false;
                if self.shared.is_stopping() {
                    self.served = Instant::now();
                }
                self.put_back(index, connection);
                Ok(())
            }
        }
    }

    /// What becomes of a connection after a request.
    fn put_back(&mut self, index: usize, mut connection: Box<Connection>) {
        let has_output = connection.has_output();
        let ends = connection.ends;
        if has_output {
            let data = epoll::EventData::new_u64(index as u64);
            let flags = epoll::EventFlags::OUT;
            let _ = epoll::modify(&self.epoll, connection.socket(), data, flags);
        }
        let is_queued = !has_output && !ends && connection.has_input();
        connection.is_queued = is_queued;
        self.connections[index] = Some(connection);
        if has_output {
            return;
        }
        if ends {
            self.end(index);
        } else if is_queued {
            self.ready.push(index);
        }
    }

    /// Ends a connection. A child of the app may have it open, in this set of events too.
    fn end(&mut self, index: usize) {
        if let Some(mut connection) = self.connections.get_mut(index).and_then(Option::take) {
            let _ = epoll::delete(&self.epoll, connection.socket());
            if connection.is_link() {
                connection.finish();
                self.queues.remove(&self.epoll, index);
                self.watch_queues();
            }
            connection.shut();
            self.freed.push(index);
            if self.paused.is_some() {
                self.listen(true);
            }
        }
    }
}

//! The connections of an ASGI worker, and the set of events in which all of them are.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use crate::asgi::owner::Owner;
use crate::connection::{Connection, READ_MAX};
use crate::shared::Shared;

/// Events of one turn, at most, and so the most requests that begin in one: then the other tasks
/// of the event loop have their turn.
pub const EVENTS: usize = 64;
/// The event of the listener.
pub const LISTENER: u64 = u64::MAX;
/// The event of the pipe that wakes the loop.
pub const WAKE: u64 = u64::MAX - 1;

/// A connection, and the events of it that are asked for.
pub struct Wire {
    /// The connection.
    pub connection: Box<Connection>,
    interest: EventFlags,
}

/// Who has a connection.
enum Place {
    /// There is none.
    Free,
    /// The code that runs.
    Taken,
    /// Nobody: a request may come.
    Idle(Wire),
    /// A request, or a WebSocket.
    Busy(Owner),
}

/// What an event is about.
pub enum Found {
    /// A connection that is gone, or in use.
    Nothing,
    /// A connection without a request. Who gets it puts it back, or ends it.
    Idle(Wire),
    /// A request that is not answered yet, or a WebSocket.
    Busy(Owner),
}

#[derive(Default)]
struct Table {
    places: Vec<Place>,
    free: Vec<usize>,
    /// Connections with bytes that were read already.
    ready: Vec<usize>,
    open: usize,
    /// Nobody is accepted any more, and no request begins.
    is_closed: bool,
}

/// What the event loop and the requests share. No lock is held while Python runs.
pub struct Core {
    /// The worker.
    pub shared: Arc<Shared>,
    epoll: OwnedFd,
    /// A duplicate: Python's object owns the other.
    listener: OwnedFd,
    table: Mutex<Table>,
    space: Mutex<Box<[u8]>>,
    /// The most connections.
    limit: usize,
}

impl Core {
    /// Listens on a descriptor of the caller, who keeps it open.
    pub fn new(listener: BorrowedFd<'_>, limit: usize) -> io::Result<Self> {
        let listener = rustix::io::fcntl_dupfd_cloexec(listener, 0)?;
        rustix::io::ioctl_fionbio(&listener, true)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let shared = Arc::new(Shared::new()?);
        for (fd, data) in [(shared.wake.reader(), WAKE), (listener.as_fd(), LISTENER)] {
            epoll::add(&epoll, fd, EventData::new_u64(data), EventFlags::IN)?;
        }
        let space = Mutex::new(vec![0; READ_MAX].into_boxed_slice());
        Ok(Self { shared, epoll, listener, table: Mutex::default(), space, limit: limit.max(1) })
    }

    /// The set of events: readable when there is one.
    pub fn number(&self) -> i32 {
        self.epoll.as_raw_fd()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The events that are there: what each is about, and which it is.
    pub fn events(&self) -> io::Result<Vec<(u64, EventFlags)>> {
        let mut space = [MaybeUninit::uninit(); EVENTS];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match epoll::wait(&self.epoll, &mut space, Some(&now)) {
            Ok((events, _)) => {
                Ok(events.iter().map(|event| (event.data.u64(), event.flags)).collect())
            }
            Err(Errno::INTR) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Connections whose next request may be read already.
    pub fn take_ready(&self) -> Vec<usize> {
        let mut table = self.table();
        let count = table.ready.len().min(EVENTS);
        if count < table.ready.len() {
            self.shared.wake.wake();
        }
        table.ready.drain(..count).collect()
    }

    /// Who has the connection; one that nobody has is the caller's from now on.
    pub fn find(&self, py: Python<'_>, index: usize) -> Found {
        let mut table = self.table();
        let Some(place) = table.places.get_mut(index) else { return Found::Nothing };
        match std::mem::replace(place, Place::Taken) {
            Place::Idle(wire) => Found::Idle(wire),
            Place::Busy(owner) => {
                let found = owner.clone_ref(py);
                *place = Place::Busy(owner);
                Found::Busy(found)
            }
            other => {
                *place = other;
                Found::Nothing
            }
        }
    }

    /// Accepts one connection; `None` if nobody waits, or no more are let in.
    pub fn accept(&self) -> io::Result<Option<(usize, Wire)>> {
        if self.table().open >= self.limit {
            // until one of them ends
            self.listen(false);
            return Ok(None);
        }
        let socket = loop {
            match accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => break socket,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        };
        let mut table = self.table();
        let index = table.free.pop().unwrap_or(table.places.len());
        let data = EventData::new_u64(index as u64);
        if let Err(error) = epoll::add(&self.epoll, &socket, data, EventFlags::IN) {
            if index < table.places.len() {
                table.free.push(index);
            }
            return Err(error.into());
        }
        match table.places.get_mut(index) {
            Some(place) => *place = Place::Taken,
            None => table.places.push(Place::Taken),
        }
        table.open += 1;
        let connection = Box::new(Connection::new(socket));
        Ok(Some((index, Wire { connection, interest: EventFlags::IN })))
    }

    /// Whether connections are accepted.
    pub fn listen(&self, listens: bool) {
        let flags = if listens { EventFlags::IN } else { EventFlags::empty() };
        let _ = epoll::modify(&self.epoll, &self.listener, EventData::new_u64(LISTENER), flags);
    }

    /// Accepts nobody any more, and ends all connections but those with an answer that was not
    /// sent, which end then.
    pub fn close(&self) {
        let _ = epoll::delete(&self.epoll, &self.listener);
        let mut table = self.table();
        table.is_closed = true;
        table.ready.clear();
        for place in &mut table.places {
            if let Place::Idle(wire) = place {
                wire.connection.ends = true;
                wire.connection.is_queued = false;
            }
        }
        drop(table);
        self.end_where(|connection| !connection.has_output());
    }

    /// Reads once from a connection. `Ok(false)` = the other end is closed.
    pub fn read(&self, connection: &mut Connection) -> io::Result<bool> {
        let mut space = self.space.lock().unwrap_or_else(PoisonError::into_inner);
        connection.read(&mut space)
    }

    /// Asks for these events of a connection. Its end is told in any case.
    pub fn watch(&self, index: usize, wire: &mut Wire, flags: EventFlags) {
        if wire.interest != flags {
            wire.interest = flags;
            let data = EventData::new_u64(index as u64);
            let _ = epoll::modify(&self.epoll, wire.connection.socket(), data, flags);
        }
    }

    /// Asks for these events too. Reading, once asked for, stays so until it has an event that
    /// nobody wants: most requests then need no system call for it.
    pub fn need(&self, index: usize, wire: &mut Wire, flags: EventFlags) {
        self.watch(index, wire, flags | wire.interest & EventFlags::IN);
    }

    /// No event of the connection is told any more.
    pub fn forget(&self, wire: &Wire) {
        let _ = epoll::delete(&self.epoll, wire.connection.socket());
    }

    /// The connection has a request, or is a WebSocket.
    pub fn set_busy(&self, index: usize, owner: Owner) {
        if let Some(place) = self.table().places.get_mut(index) {
            *place = Place::Busy(owner);
        }
    }

    /// Those who have a connection.
    pub fn owners(&self, py: Python<'_>) -> Vec<Owner> {
        let owner = |place: &Place| match place {
            Place::Busy(owner) => Some(owner.clone_ref(py)),
            _ => None,
        };
        self.table().places.iter().filter_map(owner).collect()
    }

    /// A request is answered: what becomes of its connection.
    pub fn put_back(&self, index: usize, mut wire: Wire) {
        let has_output = wire.connection.has_output();
        if wire.connection.ends && !has_output {
            return self.end(index, wire);
        }
        self.watch(index, &mut wire, if has_output { EventFlags::OUT } else { EventFlags::IN });
        let is_ready = !has_output && wire.connection.has_input();
        wire.connection.is_queued = is_ready;
        self.keep(index, wire);
        if is_ready {
            self.table().ready.push(index);
            self.shared.wake.wake();
        }
    }

    /// The connection waits for an event.
    pub fn keep(&self, index: usize, wire: Wire) {
        // What was here may be a request, whose end runs code of Python: not under the lock.
        let mut old = Place::Idle(wire);
        if let Some(place) = self.table().places.get_mut(index) {
            std::mem::swap(place, &mut old);
        }
        drop(old);
    }

    /// Ends a connection. A child of the app may have it open, in this set of events too.
    pub fn end(&self, index: usize, wire: Wire) {
        let _ = epoll::delete(&self.epoll, wire.connection.socket());
        wire.connection.shut();
        let mut old = Place::Free;
        let mut table = self.table();
        if let Some(place) = table.places.get_mut(index) {
            std::mem::swap(place, &mut old);
            table.free.push(index);
            table.open -= 1;
        }
        let listens = table.open + 1 == self.limit && !table.is_closed;
        drop(table);
        drop(old);
        if listens {
            self.listen(true);
        }
    }

    /// Ends the connections on which nothing has begun. Returns whether there was one.
    pub fn end_idle(&self) -> bool {
        self.end_where(Connection::is_idle)
    }

    fn end_where(&self, is_so: impl Fn(&Connection) -> bool) -> bool {
        let is_idle = |place: &Place| matches!(place, Place::Idle(wire) if is_so(&wire.connection));
        let idle: Vec<usize> = {
            let table = self.table();
            let places = table.places.iter().enumerate();
            places.filter(|(_, place)| is_idle(place)).map(|(index, _)| index).collect()
        };
        let was_any = !idle.is_empty();
        for index in idle {
            let taken = self
                .table()
                .places
                .get_mut(index)
                .map(|place| std::mem::replace(place, Place::Taken));
            if let Some(Place::Idle(wire)) = taken {
                self.end(index, wire);
            }
        }
        was_any
    }

    /// True while a request is not answered, has begun to arrive, an answer was not sent,
    /// somebody has connected who was not accepted, or there is an event.
    pub fn has_work(&self) -> bool {
        let is_busy = |place: &Place| match place {
            Place::Idle(wire) => wire.connection.has_work(),
            Place::Busy(_) => true,
            Place::Free | Place::Taken => false,
        };
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let sources = [self.listener.as_fd(), self.epoll.as_fd()];
        let mut waiting = sources.map(|source| PollFd::from_borrowed_fd(source, PollFlags::IN));
        let has_come = matches!(poll(&mut waiting, Some(&now)), Ok(1..));
        has_come || self.table().places.iter().any(is_busy)
    }

    /// True while an answer was not sent.
    pub fn has_output(&self) -> bool {
        let has_output =
            |place: &Place| matches!(place, Place::Idle(wire) if wire.connection.has_output());
        self.table().places.iter().any(has_output)
    }
}

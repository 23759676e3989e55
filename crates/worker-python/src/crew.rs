//! Several threads that serve, as leader and followers.
//!
//! All wait for one set of events. Whoever wakes has what the event is about for itself, since each
//! is told once (`EPOLLONESHOT`): it reads, calls the app, answers, and lets the others have it
//! again. No request is handed from one thread to another, and none waits while a thread is idle.
//! The main thread serves nobody: it has the signals, interrupts requests that are late, and sees
//! to the end.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use crate::answer::refused;
use crate::clock::{Clock, Watcher};
use crate::connection::{Connection, First, Next, READ_MAX, is_of_client};
use crate::event_loop::NO_OFFER;
use crate::input::WHOLE_MAX;
use crate::request::App;
use crate::shared::{ACCEPTS, PAUSE, QUIET, Shared};

mod lead;
mod places;

use self::places::Places;

const LISTENER: u64 = u64::MAX;
const END: u64 = u64::MAX - 1;

/// After so long without the interpreter's lock the client of a request may have gone.
const OLD: Duration = Duration::from_millis(1);

/// The threads of a worker, and what they share.
pub struct Crew {
    shared: Arc<Shared>,
    clocks: Vec<Arc<Clock>>,
    epoll: OwnedFd,
    /// A duplicate: Python's object owns the other.
    listener: OwnedFd,
    places: Mutex<Places>,
}

/// What a connection waits for after its turn.
enum Rest {
    /// More bytes.
    Input,
    /// That its socket takes more of the answer.
    Output,
    /// Its next turn: the next request was read already.
    Turn,
    /// Nothing: it is closed.
    End,
}

impl Crew {
    /// So many threads. `listener`: the descriptor of the caller, who keeps it.
    pub fn new(shared: &Arc<Shared>, threads: usize, listener: i32) -> io::Result<Self> {
        // SAFETY: the listener belongs to the caller, who keeps it while this server runs.
        let listener = unsafe { BorrowedFd::borrow_raw(listener) };
        let listener = rustix::io::fcntl_dupfd_cloexec(listener, 0)?;
        rustix::io::ioctl_fionbio(&listener, true)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let once = EventFlags::IN | EventFlags::ONESHOT;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), once)?;
        let watcher = Arc::new(Watcher::default());
        Ok(Self {
            shared: Arc::clone(shared),
            clocks: (0..threads).map(|_| Arc::new(Clock::new(&watcher))).collect(),
            epoll,
            listener,
            places: Mutex::default(),
        })
    }

    /// The clock of this thread.
    pub fn clock(&self, thread: usize) -> Option<&Arc<Clock>> {
        self.clocks.get(thread)
    }

    /// Serves until the worker ends. The error is that of a child that the app has forked, or of
    /// the system.
    pub fn work(&self, mut app: App) -> PyResult<()> {
        let mut space = vec![0; READ_MAX];
        loop {
            match self.wait()? {
                None => {}
                Some((END, _)) => return Ok(()),
                Some((LISTENER, _)) => self.accept(&app),
                Some((index, flags)) => {
                    let is_left = flags.contains(EventFlags::HUP);
                    self.serve(&mut app, index as usize, is_left, &mut space)?;
                }
            }
        }
    }

    fn wait(&self) -> io::Result<Option<(u64, EventFlags)>> {
        let mut events = [MaybeUninit::uninit(); 1];
        match epoll::wait(&self.epoll, &mut events, None) {
            Ok((events, _)) => Ok(events.first().map(|event| (event.data.u64(), event.flags))),
            Err(Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts who has connected; the first to hear of each client is whoever is idle.
    fn accept(&self, app: &App) {
        for _ in 0..ACCEPTS {
            let mut places = self.places();
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match accept_with(&self.listener, flags) {
                Ok(socket) => places.add(&self.epoll, Connection::new(socket)),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                // A client that has sent nothing so far keeps out one that may have.
                Err(_) if self.shared.is_stopping() && places.end_idle(&self.epoll) => {}
                Err(error) => return self.pause(places, app, error.into()),
            }
        }
        self.listen();
    }

    /// Nobody is accepted for a while: the main thread sees to the end of that.
    fn pause(&self, mut places: MutexGuard<'_, Places>, app: &App, error: io::Error) {
        let now = Instant::now();
        places.paused = Some(now + PAUSE);
        let is_news = places.complained.is_none_or(|last| now - last >= QUIET);
        if is_news {
            places.complained = Some(now);
        }
        drop(places);
        self.shared.wake.wake();
        if is_news {
            let message = format!("no connection is accepted for a while: {error}");
            Python::attach(|py| app.log(py, &message, None));
        }
    }

    /// One thread is told of clients again.
    fn listen(&self) {
        let once = EventFlags::IN | EventFlags::ONESHOT;
        // At the end it is not in the set any more.
        let _ = epoll::modify(&self.epoll, &self.listener, EventData::new_u64(LISTENER), once);
    }

    /// The turn of a connection.
    fn serve(&self, app: &mut App, index: usize, is_left: bool, space: &mut [u8]) -> PyResult<()> {
        let Some((connection, may_begin)) = self.places().take(index) else { return Ok(()) };
        let (connection, rest) = match is_left {
            true => (connection, Rest::End),
            false => self.go_on(app, connection, may_begin, space)?,
        };
        if self.shared.is_stopping() {
            self.places().served = Some(Instant::now());
        }
        self.put_back(index, connection, rest);
        Ok(())
    }

    /// Sends or reads, and serves the request that is there, if there is a whole one.
    fn go_on(
        &self,
        app: &mut App,
        mut connection: Box<Connection>,
        may_begin: bool,
        space: &mut [u8],
    ) -> PyResult<(Box<Connection>, Rest)> {
        if let Some(rest) = move_bytes(app, &mut connection, space) {
            return Ok((connection, rest));
        }
        match connection.next() {
            Next::Request if connection.gathers(WHOLE_MAX) => Ok((connection, Rest::Input)),
            Next::More => Ok((connection, Rest::Input)),
            Next::End => Ok((connection, Rest::End)),
            Next::Request if !may_begin => Ok((connection, Rest::End)),
            Next::Refused(refusal) => {
                let _ = connection.send(refused(&refusal).as_bytes(), None, 0..0, b"");
                connection.ends = true;
                Ok(rest_of(connection))
            }
            Next::Request => {
                let asked = Instant::now();
                Python::attach(|py| {
                    // Its client may have left while others had the lock: nobody wants the answer.
                    if asked.elapsed() > OLD && connection.is_left() {
                        return Ok((connection, Rest::End));
                    }
                    app.serve(py, connection).map(rest_of)
                })
            }
        }
    }

    /// Lets others have a connection again.
    fn put_back(&self, index: usize, mut connection: Box<Connection>, rest: Rest) {
        let flags = match rest {
            Rest::Input => EventFlags::IN,
            Rest::Output => EventFlags::OUT,
            // At once, but behind all that is ready now.
            Rest::Turn => EventFlags::IN | EventFlags::OUT,
            Rest::End => {
                let is_paused = self.places().remove(&self.epoll, index, &connection);
                if is_paused {
                    self.listen();
                }
                return;
            }
        };
        connection.is_queued = matches!(rest, Rest::Turn);
        self.places().put(&self.epoll, index, connection, flags);
    }
}

/// Sends what waits, else reads. `Some` if nothing else is to be done now.
fn move_bytes(app: &App, connection: &mut Connection, space: &mut [u8]) -> Option<Rest> {
    if std::mem::take(&mut connection.is_queued) {
        // No more is read before what was read is served.
        return None;
    }
    if connection.has_output() {
        return Python::attach(|py| match connection.flush(py) {
            Ok(true) if connection.ends => Some(Rest::End),
            Ok(true) => None,
            Ok(false) => Some(Rest::Output),
            Err(error) => {
                if !is_of_client(&error) {
                    app.log(py, &format!("an answer was cut: {error}"), None);
                }
                Some(Rest::End)
            }
        });
    }
    if !connection.is_new() {
        return (!connection.read(space).unwrap_or(false)).then_some(Rest::End);
    }
    match connection.read_first(space) {
        Ok(First::Bytes) => None,
        Ok(First::End) => Some(Rest::End),
        // It takes no requests by itself: the front gives them to it.
        Ok(First::Offer(_)) | Err(_) => {
            let _ = connection.send(NO_OFFER, None, 0..0, b"");
            Some(Rest::End)
        }
    }
}

/// What a connection waits for after a request.
fn rest_of(connection: Box<Connection>) -> (Box<Connection>, Rest) {
    let rest = match (connection.has_output(), connection.ends, connection.has_input()) {
        (true, ..) => Rest::Output,
        (false, true, _) => Rest::End,
        (false, false, true) => Rest::Turn,
        (false, false, false) => Rest::Input,
    };
    (connection, rest)
}

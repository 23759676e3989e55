//! One request and its answer, as the app sees it: `start_response`, and what it returns.
//!
//! The app may have threads. What they share is locked only for as long as it takes to look at
//! what is there: nobody waits for the client with the lock.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyConnectionError, PyOSError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::PyBytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::answer::{Answer, Asked};
use crate::clock::Clock;
use crate::connection::{Connection, READ_MAX, is_of_client};
use crate::input::over;
use crate::request::piece;
use crate::shared::{FLUSH, Shared};

/// How often somebody who waits looks whether that is still of use.
const LOOK: Duration = Duration::from_millis(100);
/// A piece of an answer of so many bytes at most is copied behind the one before it: a system
/// call for each costs more.
const SMALL: usize = 4096;

/// The request while it lasts. This object is its `start_response`; nothing of a request can be
/// reached through it afterwards.
#[pyclass(frozen, module = "_mfserv_worker")]
pub struct Exchange {
    live: Mutex<Option<Live>>,
    shared: Arc<Shared>,
    /// That of the thread that serves.
    clock: Arc<Clock>,
}

/// A request that is not over.
pub struct Live {
    /// Where it came from.
    pub connection: Box<Connection>,
    /// What is answered.
    pub answer: Answer,
    /// The client is gone.
    pub is_gone: bool,
    shared: Arc<Shared>,
}

impl Exchange {
    /// The request whose head the connection has read.
    pub fn new(mut connection: Box<Connection>, shared: Arc<Shared>, clock: Arc<Clock>) -> Self {
        let is_head = connection.head.method() == b"HEAD";
        let asked = Asked { is_head, is_1_1: connection.head.is_1_1 };
        connection.ends |= !connection.head.keep_alive;
        let answer = Answer::new(asked);
        let live = Live { connection, answer, is_gone: false, shared: Arc::clone(&shared) };
        Self { live: Mutex::new(Some(live)), shared, clock }
    }

    /// Uses the request from the app. `use_it` waits for nothing, so that the lock is free but
    /// for code of the app that runs meanwhile, as that of a strange object in the headers.
    pub fn with<T>(&self, use_it: impl FnOnce(&mut Live) -> PyResult<T>) -> PyResult<T> {
        let mut live = match self.live.try_lock() {
            Ok(live) => live,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                return Err(PyRuntimeError::new_err("this request is in use by another thread"));
            }
        };
        live.as_mut().map_or_else(|| Err(over()), use_it)
    }

    /// Uses the request from the server.
    pub fn own<T>(
        &self,
        py: Python<'_>,
        use_it: impl FnOnce(&mut Live) -> PyResult<T>,
    ) -> PyResult<T> {
        let mut live = self.live.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner);
        live.as_mut().map_or_else(|| Err(over()), use_it)
    }

    /// The request is over.
    pub fn close(&self, py: Python<'_>) -> PyResult<Live> {
        let mut live = self.live.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner);
        live.take().ok_or_else(over)
    }

    /// A child that the app has forked leaves the connection alone.
    fn refuse_child(&self) -> PyResult<()> {
        if !self.shared.is_forked() {
            return Ok(());
        }
        let message = "the request is that of the parent of this process: only it can answer";
        Err(PyRuntimeError::new_err(message))
    }

    /// Waits until content of the body is there, or the body is over.
    pub fn fill(&self, py: Python<'_>) -> PyResult<()> {
        self.refuse_child()?;
        while let Some(socket) = self.with(Live::look)? {
            self.wait(py, &socket, PollFlags::IN)?;
        }
        Ok(())
    }

    /// Fills all of `space` with content of the body.
    pub fn fill_exactly(&self, py: Python<'_>, mut space: &mut [u8]) -> PyResult<()> {
        self.refuse_child()?;
        while !space.is_empty() {
            let (count, socket) = self.with(|live| {
                let count = live.read_into(space)?;
                Ok((count, live.connection.share()))
            })?;
            space = &mut space[count..];
            if count == 0 {
                self.wait(py, &socket, PollFlags::IN)?;
            }
        }
        Ok(())
    }

    /// Sends a piece of the body, and waits until the socket has taken it: pieces are not made
    /// faster than they are read. The end of a body of known size waits for nobody.
    pub fn put(&self, py: Python<'_>, piece: &Bound<'_, PyBytes>) -> PyResult<()> {
        self.refuse_child()?;
        let is_complete = self.with(|live| {
            live.put(piece)?;
            Ok(live.answer.is_complete())
        })?;
        if is_complete {
            return Ok(());
        }
        while let Some(socket) = self.with(|live| live.flush(py))? {
            self.wait(py, &socket, PollFlags::OUT)?;
        }
        Ok(())
    }

    /// Waits for the socket, with the interpreter free for other threads of the app. Those may
    /// find, when they are back, that the request is over.
    fn wait(&self, py: Python<'_>, socket: &OwnedFd, what: PollFlags) -> PyResult<()> {
        let shared = &self.shared;
        let look = Timespec { tv_sec: 0, tv_nsec: LOOK.subsec_nanos().into() };
        if !self.clock.is_own() {
            let found = py.detach(|| poll(&mut [PollFd::new(socket, what)], Some(&look)));
            return match found {
                Ok(_) | Err(Errno::INTR) => Ok(()),
                Err(error) => Err(io::Error::from(error).into()),
            };
        }
        let mut until = None;
        loop {
            let stops = shared.is_stopping();
            let limit = stops.then_some(&look);
            // Signals are the main thread's to see. One of several is told when the worker ends.
            let (news, tells) = match shared.is_main() {
                true => (shared.wake.reader(), PollFlags::IN),
                false if stops => (shared.bell(), PollFlags::empty()),
                false => (shared.bell(), PollFlags::IN),
            };
            let is_ready = self.clock.waiting(|| {
                py.detach(|| {
                    let mut ends =
                        [PollFd::new(socket, what), PollFd::from_borrowed_fd(news, tells)];
                    let found = poll(&mut ends, limit);
                    found.map(|_| !ends[0].revents().is_empty())
                })
            });
            match is_ready {
                Ok(true) => return Ok(()),
                Ok(false) | Err(Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
            if shared.is_main() {
                shared.wake.clear();
                py.check_signals()?;
            }
            let now = Instant::now();
            if shared.is_stopping() && now >= *until.get_or_insert(now + FLUSH) {
                return self.own(py, |live| Err(live.gone(io::ErrorKind::TimedOut.into())));
            }
        }
    }
}

#[pymethods]
impl Exchange {
    /// `start_response(status, response_headers, exc_info=None)` of PEP 3333.
    #[pyo3(signature = (status, response_headers, exc_info = None))]
    fn __call__<'py>(
        slf: &Bound<'py, Self>,
        status: &Bound<'py, PyAny>,
        response_headers: &Bound<'py, PyAny>,
        exc_info: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let error = match exc_info {
            Some(info) if info.is_truthy()? => Some(info.get_item(1)?),
            _ => None,
        };
        slf.get().with(|live| match error {
            Some(error) if live.answer.is_sent => Err(PyErr::from_value(error)),
            error => live.answer.set(status, response_headers, error.is_some()),
        })?;
        slf.getattr(intern!(py, "write"))
    }

    /// Sends a piece of the body at once.
    fn write(&self, py: Python<'_>, data: Bound<'_, PyAny>) -> PyResult<()> {
        self.put(py, &piece(data)?)
    }
}

impl Live {
    /// Looks for content of the body. `Some`: none is there yet; it will come through this
    /// socket.
    fn look(&mut self) -> PyResult<Option<Arc<OwnedFd>>> {
        if !self.body()?.is_empty() || self.connection.is_read() {
            return Ok(None);
        }
        self.go_on()?;
        let mut space = vec![0; READ_MAX];
        if !self.connection.read(&mut space).map_err(|error| self.gone(error))? {
            return Err(self.left());
        }
        let is_there = !self.body()?.is_empty() || self.connection.is_read();
        Ok((!is_there).then(|| self.connection.share()))
    }

    /// Puts content of the body, whose length is known, into `space`, and returns how much;
    /// 0 = none is there yet.
    fn read_into(&mut self, space: &mut [u8]) -> PyResult<usize> {
        let content = self.body()?;
        let count = content.len().min(space.len());
        if count > 0 {
            space[..count].copy_from_slice(&content[..count]);
            self.connection.take(count);
            return Ok(count);
        }
        if self.connection.is_read() {
            return Err(PyOSError::new_err("another thread has read the body of the request"));
        }
        self.go_on()?;
        match self.connection.read_body(space).map_err(|error| self.gone(error))? {
            Some(count) => Ok(count),
            None => Err(self.left()),
        }
    }

    /// The content of the body that is there.
    pub fn body(&mut self) -> PyResult<&[u8]> {
        match self.connection.content() {
            Ok(content) => Ok(content),
            Err(reason) => Err(PyOSError::new_err(format!("the body of the request has {reason}"))),
        }
    }

    /// Tells a client that waits for it that its body is wanted. In the middle of an answer
    /// nothing can be said.
    fn go_on(&mut self) -> PyResult<()> {
        if !self.connection.must_continue() || self.answer.is_sent {
            return Ok(());
        }
        self.send_head(b"HTTP/1.1 100 Continue\r\n\r\n")
    }

    /// Sends a piece of the body; what the socket does not take waits.
    fn put(&mut self, piece: &Bound<'_, PyBytes>) -> PyResult<()> {
        let bytes = piece.as_bytes();
        if bytes.is_empty() {
            return Ok(());
        }
        let mut before = self.begin(None)?;
        // Frameworks give bodies that they have as a whole in one piece, as if there were more.
        let size = bytes.len() as u64;
        if !before.is_empty() && self.answer.is_all(size) {
            self.connection.is_whole_answer(before.len() as u64 + self.answer.takes(size));
        }
        let count = self.answer.accept(size) as usize;
        let is_chunk = self.answer.is_chunked() && count > 0;
        if is_chunk {
            before.extend_from_slice(format!("{count:X}\r\n").as_bytes());
        }
        let after: &[u8] = if is_chunk { b"\r\n" } else { b"" };
        let sent = self.connection.send(&before, Some(piece), 0..count, after);
        sent.map_err(|error| self.gone(error))
    }

    /// Sends what waits. `Some`: the rest goes through this socket when it takes more.
    fn flush(&mut self, py: Python<'_>) -> PyResult<Option<Arc<OwnedFd>>> {
        let is_sent = self.connection.flush(py).map_err(|error| self.gone(error))?;
        Ok((!is_sent).then(|| self.connection.share()))
    }

    /// All pieces of a body that is there as a whole. None of them waits for the client.
    pub fn put_whole(&mut self, pieces: &[Bound<'_, PyBytes>]) -> PyResult<()> {
        if self.answer.is_sent {
            return pieces.iter().try_for_each(|piece| self.put(piece));
        }
        let total: usize = pieces.iter().map(|piece| piece.as_bytes().len()).sum();
        let mut before = self.begin(Some(total as u64))?;
        self.connection.is_whole_answer(before.len() as u64 + self.answer.takes(total as u64));
        for piece in pieces {
            let bytes = piece.as_bytes();
            let count = self.answer.accept(bytes.len() as u64) as usize;
            if count <= SMALL && before.len() < READ_MAX {
                before.extend_from_slice(&bytes[..count]);
                continue;
            }
            let sent = self.connection.send(&before, Some(piece), 0..count, b"");
            sent.map_err(|error| self.gone(error))?;
            before.clear();
        }
        self.send_head(&before)
    }

    /// A part of a file is the body. Nobody waits for the client.
    pub fn put_file(&mut self, py: Python<'_>, file: OwnedFd, at: u64, size: u64) -> PyResult<()> {
        let before = self.begin(Some(size))?;
        self.send_head(&before)?;
        let count = self.answer.accept(size);
        self.connection.send_file(file, at, count);
        self.connection.flush(py).map(drop).map_err(|error| match is_of_client(&error) {
            true => self.gone(error),
            false => error.into(),
        })
    }

    /// Sends the end of the body. The answer that is too short is cut, so that it is seen.
    pub fn finish(&mut self) -> PyResult<()> {
        if !self.answer.is_sent {
            return self.put_whole(&[]);
        }
        if self.answer.is_chunked() {
            return self.send_head(b"0\r\n\r\n");
        }
        Ok(())
    }

    /// The head, if it was not sent. `total`: the size of the body, if it is known.
    fn begin(&mut self, total: Option<u64>) -> PyResult<Vec<u8>> {
        if self.answer.is_sent {
            return Ok(Vec::new());
        }
        if !self.answer.is_set() {
            let message = "start_response was not called before the first piece of the body";
            return Err(PyRuntimeError::new_err(message));
        }
        // Too late to say so once the head is sent.
        self.connection.ends |= self.shared.is_stopping();
        self.connection.expect_end();
        Ok(self.answer.begin(total, &mut self.connection.ends))
    }

    fn send_head(&mut self, bytes: &[u8]) -> PyResult<()> {
        self.connection.send(bytes, None, 0..0, b"").map_err(|error| self.gone(error))
    }

    /// What the app gets when its client is gone.
    fn gone(&mut self, error: io::Error) -> PyErr {
        self.is_gone = true;
        PyConnectionError::new_err(format!("the client is gone: {error}"))
    }

    /// What the app gets when the body of its request is cut.
    fn left(&mut self) -> PyErr {
        let message = "the client closed the connection before the end of the body";
        self.gone(io::Error::new(io::ErrorKind::UnexpectedEof, message))
    }
}

//! One request and its answer, as the app sees it: `start_response`, and what it returns.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use pyo3::exceptions::{PyConnectionError, PyOSError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::PyBytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::answer::{Answer, Asked};
use crate::connection::{Connection, READ_MAX};
use crate::input::over;
use crate::shared::Shared;

/// How often a worker that was told to stop looks whether it waits too long.
const LOOK: Duration = Duration::from_millis(100);

/// The request while it lasts. This object is its `start_response`; nothing of a request can be
/// reached through it afterwards.
#[pyclass(frozen, module = "_mfserv_worker")]
pub struct Exchange {
    live: Mutex<Option<Live>>,
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
    pub fn new(mut connection: Box<Connection>, shared: Arc<Shared>) -> Self {
        let is_head = connection.head.method() == b"HEAD";
        let asked = Asked { is_head, is_1_1: connection.head.is_1_1 };
        connection.ends |= !connection.head.keep_alive || shared.is_stopping();
        let answer = Answer::new(asked);
        Self { live: Mutex::new(Some(Live { connection, answer, is_gone: false, shared })) }
    }

    /// Uses the request from the app, which may have threads and signal handlers: of two at
    /// once, the second is refused. (It would wait with the interpreter's lock for one that
    /// waits for this lock.)
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
    pub fn close(&self, py: Python<'_>) -> Option<Live> {
        self.live.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[pymethods]
impl Exchange {
    /// `start_response(status, headers, exc_info=None)` of PEP 3333.
    #[pyo3(signature = (status, headers, exc_info = None, /))]
    fn __call__<'py>(
        slf: &Bound<'py, Self>,
        status: &Bound<'py, PyAny>,
        headers: &Bound<'py, PyAny>,
        exc_info: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let error = match exc_info {
            Some(info) if info.is_truthy()? => Some(info.get_item(1)?),
            _ => None,
        };
        slf.get().with(|live| match error {
            Some(error) if live.answer.is_sent => Err(PyErr::from_value(error)),
            error => live.answer.set(status, headers, error.is_some()),
        })?;
        slf.getattr(intern!(py, "write"))
    }

    /// Sends a piece of the body at once.
    fn write(&self, py: Python<'_>, piece: &Bound<'_, PyBytes>) -> PyResult<()> {
        self.with(|live| live.put(py, piece, true))
    }
}

impl Live {
    /// The content of the body that is there; waits for it. Empty at the end of the body.
    pub fn content(&mut self, py: Python<'_>) -> PyResult<&[u8]> {
        let mut space = Vec::new();
        while self.body(py)?.is_empty() && !self.connection.is_read() {
            if self.connection.must_continue() {
                let line = b"HTTP/1.1 100 Continue\r\n\r\n";
                self.connection.send(line, None, 0..0, b"").map_err(|error| self.gone(error))?;
            }
            self.wait(py, PollFlags::IN)?;
            space.resize(READ_MAX, 0);
            if !self.connection.read(&mut space).map_err(|error| self.gone(error))? {
                let message = "the client closed the connection before the end of the body";
                return Err(self.gone(io::Error::new(io::ErrorKind::UnexpectedEof, message)));
            }
        }
        self.body(py)
    }

    fn body(&mut self, _: Python<'_>) -> PyResult<&[u8]> {
        match self.connection.content() {
            Ok(content) => Ok(content),
            Err(reason) => Err(PyOSError::new_err(format!("the body of the request has {reason}"))),
        }
    }

    /// Takes content that is there.
    pub fn take(&mut self, count: usize) {
        self.connection.take(count);
    }

    /// Sends a piece of the body. `waits`: until the socket has taken it, so that pieces are
    /// not made faster than they are read. The end of a body of known size waits for nobody.
    pub fn put(&mut self, py: Python<'_>, piece: &Bound<'_, PyBytes>, waits: bool) -> PyResult<()> {
        let bytes = piece.as_bytes();
        if bytes.is_empty() {
            return Ok(());
        }
        let mut before = self.begin(None)?;
        let count = self.answer.accept(bytes.len() as u64) as usize;
        let is_chunk = self.answer.is_chunked() && count > 0;
        if is_chunk {
            before.extend_from_slice(format!("{count:X}\r\n").as_bytes());
        }
        let after: &[u8] = if is_chunk { b"\r\n" } else { b"" };
        let sent = self.connection.send(&before, Some(piece), 0..count, after);
        sent.map_err(|error| self.gone(error))?;
        if waits && !self.answer.is_complete() { self.drain(py) } else { Ok(()) }
    }

    /// All pieces of a body that is there as a whole. None of them waits for the client.
    pub fn put_whole(&mut self, py: Python<'_>, pieces: &[Bound<'_, PyBytes>]) -> PyResult<()> {
        let total: usize = pieces.iter().map(|piece| piece.as_bytes().len()).sum();
        if let ([only], false) = (pieces, self.answer.is_sent) {
            let before = self.begin(Some(total as u64))?;
            let count = self.answer.accept(total as u64) as usize;
            let sent = self.connection.send(&before, Some(only), 0..count, b"");
            return sent.map_err(|error| self.gone(error));
        }
        let before = self.begin(Some(total as u64))?;
        self.send_head(&before)?;
        pieces.iter().try_for_each(|piece| self.put(py, piece, false))
    }

    /// A part of a file is the body. Nobody waits for the client.
    pub fn put_file(&mut self, py: Python<'_>, file: OwnedFd, at: u64, size: u64) -> PyResult<()> {
        let before = self.begin(Some(size))?;
        self.send_head(&before)?;
        let count = self.answer.accept(size);
        self.connection.send_file(file, at, count);
        self.connection.flush(py).map(drop).map_err(|error| self.gone(error))
    }

    /// Sends the end of the body. The answer that is too short is cut, so that it is seen.
    pub fn finish(&mut self, py: Python<'_>) -> PyResult<()> {
        if !self.answer.is_sent {
            return self.put_whole(py, &[]);
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
        if total.is_some() {
            // the app has returned, and reads no more of its request
            self.connection.expect_end();
        }
        Ok(self.answer.begin(total, &mut self.connection.ends))
    }

    fn send_head(&mut self, bytes: &[u8]) -> PyResult<()> {
        self.connection.send(bytes, None, 0..0, b"").map_err(|error| self.gone(error))
    }

    /// Waits until the socket has taken everything.
    fn drain(&mut self, py: Python<'_>) -> PyResult<()> {
        while !self.connection.flush(py).map_err(|error| self.gone(error))? {
            self.wait(py, PollFlags::OUT)?;
        }
        Ok(())
    }

    /// Waits for the socket, with the interpreter free for other threads of the app.
    fn wait(&mut self, py: Python<'_>, what: PollFlags) -> PyResult<()> {
        loop {
            let (connection, shared) = (&self.connection, &self.shared);
            let limit = shared
                .is_stopping()
                .then(|| Timespec { tv_sec: 0, tv_nsec: LOOK.subsec_nanos().into() });
            let is_ready = shared.clock.waiting(|| {
                py.detach(|| {
                    let mut ends = [
                        PollFd::from_borrowed_fd(connection.socket(), what),
                        PollFd::from_borrowed_fd(shared.wake.reader(), PollFlags::IN),
                    ];
                    let found = poll(&mut ends, limit.as_ref());
                    found.map(|_| !ends[0].revents().is_empty())
                })
            });
            match is_ready {
                Ok(true) => return Ok(()),
                Ok(false) | Err(Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
            shared.wake.clear();
            py.check_signals()?;
            if shared.is_stopped() {
                return Err(self.gone(io::ErrorKind::TimedOut.into()));
            }
        }
    }

    /// What the app gets when its client is gone.
    fn gone(&mut self, error: io::Error) -> PyErr {
        self.is_gone = true;
        PyConnectionError::new_err(format!("the client is gone: {error}"))
    }
}

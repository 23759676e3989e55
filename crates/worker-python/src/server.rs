//! The event loop: connections, and whose turn it is.

use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use crate::SoftTimeout;
use crate::answer::refused;
use crate::clock::watch;
use crate::connection::{Connection, Next, READ_MAX};
use crate::environ::{Environs, template};
use crate::input::Input;
use crate::request::App;
use crate::shared::Shared;
use crate::text::Last;

/// Events of one turn, at most.
const EVENTS: usize = 64;
/// Connections that are accepted in one turn, at most.
const ACCEPTS: usize = 64;
/// How long nobody is accepted after the process had no descriptor left for it.
const PAUSE: Duration = Duration::from_millis(100);

const LISTENER: u64 = u64::MAX;
const WAKE: u64 = u64::MAX - 1;

/// One worker: an app behind a listening socket.
#[pyclass(frozen, module = "_mfserv_worker")]
pub struct Server {
    shared: Arc<Shared>,
    app: Py<PyAny>,
    options: Py<PyDict>,
}

#[pymethods]
impl Server {
    /// The options are those of `mfserv_worker.native.serve`.
    #[new]
    #[pyo3(signature = (app, /, **options))]
    fn new(py: Python<'_>, app: Py<PyAny>, options: Option<Py<PyDict>>) -> PyResult<Self> {
        let options = options.unwrap_or_else(|| PyDict::new(py).unbind());
        Ok(Self { shared: Arc::new(Shared::new()?), app, options })
    }

    /// The descriptor for `signal.set_wakeup_fd`.
    fn wakeup_fd(&self) -> i32 {
        use std::os::fd::AsRawFd;
        self.shared.wake.writer().as_raw_fd()
    }

    /// The handler of the signal of the soft limit.
    #[pyo3(signature = (*_arguments))]
    fn interrupt(&self, _arguments: &Bound<'_, PyTuple>) -> PyResult<()> {
        match self.shared.clock.interrupts() {
            true => Err(SoftTimeout::new_err(())),
            false => Ok(()),
        }
    }

    /// Asks for a clean end.
    fn stop(&self) {
        self.shared.stop();
    }

    /// Called in a child that the app has forked.
    fn forked(&self) {
        self.shared.fork();
    }

    /// Serves until it is told to stop, then calls `leave`, and serves who has connected.
    fn run(&self, py: Python<'_>, leave: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut server = Loop::new(py, self)?;
        while !self.shared.is_stopping() {
            server.turn(py, None)?;
        }
        leave.call0()?;
        server.finish(py)
    }
}

impl Server {
    fn option<'py, T: FromPyObjectOwned<'py>>(&self, py: Python<'py>, name: &str) -> PyResult<T> {
        self.options.bind(py).as_any().get_item(name)?.extract().map_err(Into::into)
    }

    fn app(&self, py: Python<'_>) -> PyResult<App> {
        let builtins = py.import(intern!(py, "builtins"))?;
        let context = py.import(intern!(py, "contextvars"))?.call_method0("copy_context")?;
        let template = template(py)?;
        Ok(App {
            app: self.app.clone_ref(py),
            timeout_s: self.option(py, "timeout")?,
            report: self.option(py, "report")?,
            set_id: self.option(py, "set_id")?,
            put_id: self.option(py, "put_id")?,
            context: context.unbind(),
            environs: Environs::new(template, self.option(py, "is_trusted")?),
            no_input: Py::new(py, Input::of(None))?,
            next: (
                builtins.getattr("next")?.unbind(),
                builtins.getattr("object")?.call0()?.unbind(),
            ),
            id: Last::default(),
            shared: Arc::clone(&self.shared),
        })
    }
}

/// The connections of a worker.
struct Loop {
    app: App,
    shared: Arc<Shared>,
    epoll: OwnedFd,
    /// A duplicate: Python's object owns the other.
    listener: OwnedFd,
    connections: Vec<Option<Box<Connection>>>,
    free: Vec<usize>,
    /// Connections with bytes that were read already.
    ready: Vec<usize>,
    space: Box<[u8]>,
    is_paused: bool,
}

impl Loop {
    fn new(py: Python<'_>, server: &Server) -> PyResult<Self> {
        let app = server.app(py)?;
        let number: i32 = server.option(py, "listener")?;
        // SAFETY: the listener belongs to the caller, who keeps it while this server runs.
        let listener = unsafe { BorrowedFd::borrow_raw(number) };
        let listener =
            rustix::io::fcntl_dupfd_cloexec(listener, 0).map_err(std::io::Error::from)?;
        rustix::io::ioctl_fionbio(&listener, true).map_err(std::io::Error::from)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(std::io::Error::from)?;
        let shared = Arc::clone(&server.shared);
        for (fd, data) in
            [(shared.wake.reader(), WAKE), (std::os::fd::AsFd::as_fd(&listener), LISTENER)]
        {
            let data = epoll::EventData::new_u64(data);
            epoll::add(&epoll, fd, data, epoll::EventFlags::IN).map_err(std::io::Error::from)?;
        }
        let signal = server.option(py, "timeout_signal")?;
        watch(&shared, Duration::from_secs(app.timeout_s), signal)?;
        Ok(Self {
            app,
            shared,
            epoll,
            listener,
            connections: Vec::new(),
            free: Vec::new(),
            ready: Vec::new(),
            space: vec![0; READ_MAX].into_boxed_slice(),
            is_paused: false,
        })
    }

    /// Serves what is there; waits for it for at most `patience`. Returns whether there was
    /// anything.
    fn turn(&mut self, py: Python<'_>, patience: Option<Duration>) -> PyResult<bool> {
        self.check_signals(py)?;
        let patience = match (self.ready.is_empty(), self.is_paused) {
            (false, _) => Some(Duration::ZERO),
            (true, true) => Some(patience.map_or(PAUSE, |patience| patience.min(PAUSE))),
            (true, false) => patience,
        };
        let mut events = [0; EVENTS];
        let count = self.wait(py, &mut events, patience)?;
        let found = &events[..count];
        if self.is_paused && found.is_empty() {
            self.listen(true);
        }
        let ready = std::mem::take(&mut self.ready);
        let was_any = !found.is_empty() || !ready.is_empty();
        for &index in &ready {
            self.go_on(py, index)?;
        }
        for &event in found {
            match event {
                WAKE => self.shared.wake.clear(),
                LISTENER => self.accept(py)?,
                index => self.ready_connection(py, index as usize)?,
            }
        }
        Ok(was_any)
    }

    /// Waits with the interpreter free for threads of the app. Returns how many events there
    /// are, and puts what each is about into `found`.
    fn wait(
        &self,
        py: Python<'_>,
        found: &mut [u64; EVENTS],
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
                *place = event.data.u64();
            }
            Ok(events.len())
        });
        match count {
            Ok(count) => Ok(count),
            Err(Errno::INTR) => Ok(0),
            Err(error) => Err(std::io::Error::from(error).into()),
        }
    }

    /// Runs the handlers of signals that have arrived. What one of the app raises between two
    /// requests ends the worker only if it is meant to.
    fn check_signals(&self, py: Python<'_>) -> PyResult<()> {
        let Err(error) = py.check_signals() else { return Ok(()) };
        let is_end = error.is_instance_of::<PySystemExit>(py)
            || error.is_instance_of::<PyKeyboardInterrupt>(py);
        if is_end || self.shared.is_forked() {
            return Err(error);
        }
        self.app.log(py, "an error in a signal handler of the app", Some(&error));
        Ok(())
    }

    fn accept(&mut self, py: Python<'_>) -> PyResult<()> {
        for _ in 0..ACCEPTS {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match accept_with(&self.listener, flags) {
                Ok(socket) => {
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
                Err(error) => {
                    let error = std::io::Error::from(error);
                    let message = format!("no connection is accepted for a while: {error}");
                    self.app.log(py, &message, None);
                    self.listen(false);
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
        self.is_paused = !listens;
    }

    /// A socket can be read or written.
    fn ready_connection(&mut self, py: Python<'_>, index: usize) -> PyResult<()> {
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_mut) else {
            return Ok(());
        };
        if connection.has_output() {
            match connection.flush(py) {
                Ok(true) => {
                    let data = epoll::EventData::new_u64(index as u64);
                    let flags = epoll::EventFlags::IN;
                    let _ = epoll::modify(&self.epoll, connection.socket(), data, flags);
                }
                Ok(false) => return Ok(()),
                Err(_) => {
                    self.end(index);
                    return Ok(());
                }
            }
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
        match connection.next() {
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
            Next::Request => {
                if let Some(connection) = self.app.serve(py, connection)? {
                    self.put_back(index, connection);
                }
                Ok(())
            }
        }
    }

    /// What becomes of a connection after a request.
    fn put_back(&mut self, index: usize, connection: Box<Connection>) {
        let has_output = connection.has_output();
        let ends = connection.ends;
        if has_output {
            let data = epoll::EventData::new_u64(index as u64);
            let flags = epoll::EventFlags::OUT;
            let _ = epoll::modify(&self.epoll, connection.socket(), data, flags);
        }
        let has_input = connection.has_input();
        self.connections[index] = Some(connection);
        if has_output {
            return;
        }
        if ends {
            self.end(index);
        } else if has_input {
            self.ready.push(index);
        }
    }

    /// Ends a connection. A child of the app may have it open, in this set of events too.
    fn end(&mut self, index: usize) {
        if let Some(connection) = self.connections.get_mut(index).and_then(Option::take) {
            let _ = epoll::delete(&self.epoll, connection.socket());
            connection.shut();
            self.free.push(index);
        }
    }

    /// Serves who had connected before the socket went away, then sends what was answered.
    fn finish(&mut self, py: Python<'_>) -> PyResult<()> {
        while !self.shared.is_stopped() && self.turn(py, Some(Duration::ZERO))? {}
        while self.has_work() {
            let Some(left) = self.shared.left().filter(|left| !left.is_zero()) else { break };
            self.turn(py, Some(left))?;
        }
        Ok(())
    }

    fn has_work(&self) -> bool {
        self.connections.iter().flatten().any(|connection| connection.has_work())
    }
}

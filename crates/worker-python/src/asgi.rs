//! ASGI 3 over HTTP/1.1: connections in Rust, each request a task of the event loop of asyncio.
//!
//! The event loop of Python watches one descriptor of ours, the set of events of all connections,
//! and calls [`Asgi::turn`] when there is one.

mod begin;
mod core;
mod due;
mod live;
mod message;
mod owner;
mod request;
mod scope;
mod socket;
mod wait;

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use foldhash::HashMap;
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PySet};
use rustix::event::epoll::EventFlags;

use crate::answer::refused;
use crate::connection::{Next, is_of_client};
use crate::environ::Trust;
use crate::shared::{ACCEPTS, PAUSE, QUIET, SETTLE};
use crate::text::latin1;
use begin::{Maker, Start};
use core::{Core, Found, LISTENER, WAKE, Wire};
use scope::Scopes;
use wait::{Wait, What};

/// What all requests of a worker share.
pub struct Environment {
    /// The connections.
    pub core: Core,
    /// What `send` returns when nothing is waited for.
    pub nothing: Py<Wait>,
    /// Makes a future of the event loop.
    pub create_future: Py<PyAny>,
    /// `call_later` of the event loop.
    pub call_later: Py<PyAny>,
    /// How often a WebSocket is asked for a sign of life, seconds.
    pub ping_s: f64,
    /// The tasks of requests: the event loop itself holds them only weakly.
    pub tasks: Py<PySet>,
    /// The words after a status.
    pub reasons: HashMap<u16, Vec<u8>>,
    /// `report(message, error)`: writes to the log.
    report: Py<PyAny>,
    /// Ends this process, a child of the worker, with this error.
    end_child: Py<PyAny>,
}

impl Environment {
    /// Writes to the log.
    pub fn log(&self, py: Python<'_>, message: &str, error: Option<&PyErr>) {
        let error = error.map(|error| error.value(py));
        if let Err(problem) = self.report.call1(py, (latin1(py, message.as_bytes()), error)) {
            problem.write_unraisable(py, None);
        }
    }

    /// A child that the app has forked leaves the connections alone.
    pub fn refuse_child(&self) -> PyResult<()> {
        if !self.core.shared.is_forked() {
            return Ok(());
        }
        let message = "the request is that of the parent of this process: only it can answer";
        Err(PyRuntimeError::new_err(message))
    }

    /// Ends a child that the app has forked, in whose process the request is over.
    pub fn end_child(&self, py: Python<'_>, error: Option<&PyErr>) -> PyResult<()> {
        self.end_child.call1(py, (error.map(|error| error.value(py)),)).map(drop)
    }
}

/// One worker of an ASGI app.
#[pyclass(frozen, module = "_mfserv_worker")]
pub struct Asgi {
    environment: Arc<Environment>,
    app: Py<PyAny>,
    start: Start,
    /// A task may be over when it is made.
    is_eager: bool,
    /// Notes the id of a request in its context.
    set_id: Py<PyAny>,
    /// The answer to the key of a WebSocket.
    accept_key: Py<PyAny>,
    maker: Mutex<Maker>,
    /// When it was last logged that nobody is accepted.
    complained: Mutex<Option<Instant>>,
    /// Called a while after requests.
    settle: Py<PyAny>,
    /// That is due.
    settles: AtomicBool,
}

#[pymethods]
impl Asgi {
    /// The options are those of `mfserv_worker.asgi.serve`.
    #[new]
    #[pyo3(signature = (app, /, **options))]
    fn new(py: Python<'_>, app: Py<PyAny>, options: Option<Bound<'_, PyDict>>) -> PyResult<Self> {
        let options = options.unwrap_or_else(|| PyDict::new(py));
        let option = |name: &str| options.as_any().get_item(name);
        let listener: i32 = option("listener")?.extract()?;
        // SAFETY: the listener belongs to the caller, who keeps it while this call lasts.
        let listener = unsafe { BorrowedFd::borrow_raw(listener) };
        let event_loop = option("loop")?;
        let is_eager = option("is_eager")?.is_truthy()?;
        let start = Start::of(&event_loop, option("task_class")?, is_eager)?;
        let environment = Environment {
            core: Core::new(listener, option("connections")?.extract()?)?,
            nothing: Py::new(py, Wait::new(What::Nothing))?,
            create_future: event_loop.getattr("create_future")?.unbind(),
            call_later: event_loop.getattr("call_later")?.unbind(),
            ping_s: option("ping")?.extract()?,
            tasks: option("tasks")?.cast_into::<PySet>()?.unbind(),
            reasons: reasons(py)?,
            report: option("report")?.unbind(),
            end_child: option("end_child")?.unbind(),
        };
        let state = option("state")?.cast_into::<PyDict>()?.unbind();
        let is_set = |name| option(name)?.is_truthy();
        let trust = Trust { ends: is_set("is_trusted")?, prefix: is_set("is_stripped")? };
        let scopes = Scopes::new(py, state, trust)?;
        Ok(Self {
            environment: Arc::new(environment),
            app,
            start,
            is_eager,
            set_id: option("set_id")?.unbind(),
            accept_key: option("accept_key")?.unbind(),
            maker: Mutex::new(Maker::new(scopes)),
            complained: Mutex::default(),
            settle: option("settle")?.unbind(),
            settles: AtomicBool::new(false),
        })
    }

    /// The descriptor for `add_reader`.
    fn fileno(&self) -> i32 {
        self.environment.core.number()
    }

    /// Serves what is there. Called by the event loop, never from a task.
    fn turn(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (this, py) = (slf.get(), slf.py());
        this.serve(py)?;
        if !this.settles.swap(true, Relaxed) {
            let settle = slf.getattr(intern!(py, "settle"))?;
            this.environment.call_later.call1(py, (SETTLE.as_secs_f64(), settle))?;
        }
        Ok(())
    }

    /// Called by the event loop a while after a request.
    fn settle(&self, py: Python<'_>) -> PyResult<()> {
        self.settles.store(false, Relaxed);
        self.settle.call0(py).map(drop)
    }

    /// Begins the end: accepts who has connected, serves what has arrived, ends the connections
    /// on which nothing has begun. Called by the event loop, never from a task.
    fn leave(&self, py: Python<'_>) -> PyResult<()> {
        let core = &self.environment.core;
        core.shared.stop();
        while !core.shared.is_stopped() && self.serve(py)? {}
        core.end_idle();
        for owner in core.owners(py) {
            owner.stop(py);
        }
        Ok(())
    }

    /// True while a request is not answered, has begun to arrive, an answer was not sent, or
    /// somebody has connected who was not accepted.
    fn has_work(&self) -> bool {
        self.environment.core.has_work()
    }

    /// No other request begins; what was answered is still sent.
    fn close(&self) {
        self.environment.core.close();
    }

    /// True while an answer was not sent, which `turn` goes on with.
    fn has_output(&self) -> bool {
        self.environment.core.has_output()
    }

    /// Called in a child that the app has forked.
    fn forked(&self) {
        self.environment.core.shared.fork();
    }
}

impl Asgi {
    /// Serves what is there. Returns whether there was anything.
    fn serve(&self, py: Python<'_>) -> PyResult<bool> {
        let core = &self.environment.core;
        if core.shared.is_forked() {
            // A child that the app has forked and that waits in the event loop serves nobody.
            self.environment.end_child(py, None)?;
        }
        let events = core.events()?;
        if events.iter().any(|(what, _)| *what == WAKE) {
            // Before what it tells of is taken: who wakes this loop from now on wakes it again.
            core.shared.wake.clear();
        }
        let ready = core.take_ready();
        let was_any = !events.is_empty() || !ready.is_empty();
        for index in ready {
            match core.find(py, index) {
                Found::Idle(wire) if wire.connection.is_queued => self.go_on(py, index, wire)?,
                // Another one has its place.
                Found::Idle(wire) => core.keep(index, wire),
                Found::Busy(_) | Found::Nothing => {}
            }
        }
        let mut accepts = false;
        for (what, flags) in events {
            match what {
                WAKE => {}
                // Last: a place that becomes free in this turn has events of its last owner.
                LISTENER => accepts = true,
                index => self.on_event(py, index as usize, flags)?,
            }
        }
        if accepts {
            self.accept(py)?;
        }
        Ok(was_any)
    }

    fn accept(&self, py: Python<'_>) -> PyResult<()> {
        let core = &self.environment.core;
        for _ in 0..ACCEPTS {
            match core.accept() {
                Ok(Some((index, wire))) => self.read(py, index, wire)?,
                Ok(None) => break,
                // A client that has sent nothing so far keeps out one that may have.
                Err(_) if core.shared.is_stopping() && core.end_idle() => {}
                Err(error) => {
                    core.listen(false);
                    self.complain(py, &error);
                    let resume = Py::new(py, Resume(Arc::clone(&self.environment)))?;
                    let pause = PAUSE.as_secs_f64();
                    self.environment.call_later.call1(py, (pause, resume))?;
                    break;
                }
            }
        }
        Ok(())
    }

    fn complain(&self, py: Python<'_>, error: &std::io::Error) {
        let now = Instant::now();
        let mut last = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| now - last < QUIET) {
            return;
        }
        *last = Some(now);
        drop(last);
        let message = format!("no connection is accepted for a while: {error}");
        self.environment.log(py, &message, None);
    }

    fn on_event(&self, py: Python<'_>, index: usize, flags: EventFlags) -> PyResult<()> {
        let core = &self.environment.core;
        let mut wire = match core.find(py, index) {
            Found::Nothing => return Ok(()),
            Found::Busy(owner) => {
                owner.on_event(py, flags);
                return Ok(());
            }
            Found::Idle(wire) => wire,
        };
        if wire.connection.is_queued {
            // No more is read before what was read is served.
            core.keep(index, wire);
            return Ok(());
        }
        // A client that has left may have sent a request before: it is served.
        if !flags.contains(EventFlags::IN) && flags.intersects(EventFlags::HUP | EventFlags::ERR) {
            core.end(index, wire);
            return Ok(());
        }
        if !wire.connection.has_output() {
            return self.read(py, index, wire);
        }
        match wire.connection.flush(py) {
            Ok(true) => {
                core.watch(index, &mut wire, EventFlags::IN);
                return self.go_on(py, index, wire);
            }
            Ok(false) => core.keep(index, wire),
            Err(error) => {
                core.end(index, wire);
                if !is_of_client(&error) {
                    self.environment.log(py, &format!("an answer was cut: {error}"), None);
                }
            }
        }
        Ok(())
    }

    fn read(&self, py: Python<'_>, index: usize, mut wire: Wire) -> PyResult<()> {
        let core = &self.environment.core;
        match core.read(&mut wire.connection) {
            Ok(true) => return self.go_on(py, index, wire),
            Ok(false) | Err(_) => core.end(index, wire),
        }
        Ok(())
    }

    /// Begins the request that is there, if there is one whole head.
    fn go_on(&self, py: Python<'_>, index: usize, mut wire: Wire) -> PyResult<()> {
        let core = &self.environment.core;
        wire.connection.is_queued = false;
        match wire.connection.next() {
            Next::More => core.keep(index, wire),
            Next::End => core.end(index, wire),
            Next::Refused(refusal) => {
                let _ = wire.connection.send(refused(&refusal).as_bytes(), None, 0..0, b"");
                wire.connection.ends = true;
                core.put_back(index, wire);
            }
            Next::Request => return self.begin(py, index, wire),
        }
        Ok(())
    }
}

/// Accepts again, after a pause.
#[pyclass(frozen, module = "_mfserv_worker")]
struct Resume(Arc<Environment>);

#[pymethods]
impl Resume {
    fn __call__(&self) {
        self.0.core.listen(true);
    }
}

/// The words after a status, as Python has them.
fn reasons(py: Python<'_>) -> PyResult<HashMap<u16, Vec<u8>>> {
    let responses = py.import("http.client")?.getattr("responses")?.cast_into::<PyDict>()?;
    let pair = |(code, reason): (Bound<'_, PyAny>, Bound<'_, PyAny>)| {
        Ok((code.extract::<u16>()?, reason.extract::<String>()?.into_bytes()))
    };
    responses.iter().map(pair).collect()
}

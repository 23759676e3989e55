//! A worker, as Python sees it.

use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::SoftTimeout;
use crate::clock::Clock;
use crate::crew::Crew;
use crate::environ::{Environs, Trust, template};
use crate::event_loop::Loop;
use crate::request::App;
use crate::shared::Shared;
use crate::text::Last;

/// One worker: an app behind a listening socket.
#[pyclass(frozen, module = "_mfserv_worker")]
pub struct Server {
    shared: Arc<Shared>,
    app: Py<PyAny>,
    options: Py<PyDict>,
    /// The context that requests get a copy of.
    context: Py<PyAny>,
    clock: Arc<Clock>,
    /// If several threads serve.
    crew: Option<Crew>,
}

#[pymethods]
impl Server {
    /// The options are those of `mfserv_worker.native.serve`.
    #[new]
    #[pyo3(signature = (app, /, **options))]
    fn new(py: Python<'_>, app: Py<PyAny>, options: Option<Py<PyDict>>) -> PyResult<Self> {
        let options = options.unwrap_or_else(|| PyDict::new(py).unbind());
        let shared = Arc::new(Shared::new()?);
        let context = py.import(intern!(py, "contextvars"))?.call_method0("copy_context")?;
        let threads = match options.bind(py).get_item("threads")? {
            Some(threads) => threads.extract()?,
            None => 1,
        };
        let listener = options.bind(py).as_any().get_item("listener")?.extract()?;
        let crew = (threads > 1).then(|| Crew::new(&shared, threads, listener)).transpose()?;
        let clock = Arc::new(Clock::new(&Arc::default()));
        Ok(Self { shared, app, options, context: context.unbind(), clock, crew })
    }

    /// The descriptor for `signal.set_wakeup_fd`.
    fn wakeup_fd(&self) -> i32 {
        use std::os::fd::AsRawFd;
        self.shared.wake.writer().as_raw_fd()
    }

    /// The handler of the signal of the soft limit.
    #[pyo3(signature = (*_arguments))]
    fn interrupt(&self, _arguments: &Bound<'_, PyTuple>) -> PyResult<()> {
        match self.clock.interrupts() {
            true => Err(SoftTimeout::new_err(())),
            false => Ok(()),
        }
    }

    /// Asks for a clean end.
    fn stop(&self) {
        self.shared.ask();
    }

    /// Called in a child that the app has forked.
    fn forked(&self) {
        self.shared.fork();
    }

    /// Serves until it is told to stop, then calls `leave`, and serves who has connected. Where
    /// several threads serve, the calling one leads them.
    fn run(&self, py: Python<'_>, leave: &Bound<'_, PyAny>) -> PyResult<()> {
        let signal = self.option(py, "timeout_signal")?;
        let app = self.app(py, &self.clock)?;
        if let Some(crew) = &self.crew {
            return crew.lead(py, &app, signal, leave);
        }
        let mut server = Loop::new(app, self.option(py, "listener")?, signal)?;
        while !self.shared.is_stopping() {
            server.turn(py, None)?;
        }
        if let Err(error) = leave.call0() {
            server.log(py, "the socket of this worker could not be removed", Some(&error));
        }
        server.finish(py)
    }

    /// Serves on the calling thread, the one with this number, until the worker ends.
    fn work(&self, py: Python<'_>, thread: usize) -> PyResult<()> {
        let Some(crew) = &self.crew else { return Ok(()) };
        let Some(clock) = crew.clock(thread) else { return Ok(()) };
        let app = self.app(py, clock)?;
        let ident = py.import(intern!(py, "_thread"))?.call_method0(intern!(py, "get_ident"))?;
        clock.adopt(ident.extract()?);
        py.detach(|| crew.work(app))
    }
}

impl Server {
    fn option<'py, T: FromPyObjectOwned<'py>>(&self, py: Python<'py>, name: &str) -> PyResult<T> {
        self.options.bind(py).as_any().get_item(name)?.extract().map_err(Into::into)
    }

    fn app(&self, py: Python<'_>, clock: &Arc<Clock>) -> PyResult<App> {
        let builtins = py.import(intern!(py, "builtins"))?;
        let template = template(py, self.crew.is_some())?;
        let (ends, prefix) = (self.option(py, "is_trusted")?, self.option(py, "is_stripped")?);
        let trust = Trust { ends, prefix };
        Ok(App {
            app: self.app.clone_ref(py),
            timeout_s: self.option(py, "timeout")?,
            report: self.option(py, "report")?,
            set_id: self.option(py, "set_id")?,
            put_id: self.option(py, "put_id")?,
            context: self.context.clone_ref(py),
            environs: Environs::new(template, trust),
            bytes_io: py.import(intern!(py, "io"))?.getattr(intern!(py, "BytesIO"))?.unbind(),
            next: (
                builtins.getattr("next")?.unbind(),
                builtins.getattr("object")?.call0()?.unbind(),
            ),
            id: Last::default(),
            shared: Arc::clone(&self.shared),
            clock: Arc::clone(clock),
        })
    }
}

//! A worker, as Python sees it.

use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::SoftTimeout;
use crate::environ::{Environs, template};
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
        self.shared.ask();
    }

    /// Called in a child that the app has forked.
    fn forked(&self) {
        self.shared.fork();
    }

    /// Serves until it is told to stop, then calls `leave`, and serves who has connected.
    fn run(&self, py: Python<'_>, leave: &Bound<'_, PyAny>) -> PyResult<()> {
        let listener = self.option(py, "listener")?;
        let signal = self.option(py, "timeout_signal")?;
        let mut server = Loop::new(self.app(py)?, listener, signal)?;
        while !self.shared.is_stopping() {
            server.turn(py, None)?;
        }
        if let Err(error) = leave.call0() {
            server.log(py, "the socket of this worker could not be removed", Some(&error));
        }
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
            bytes_io: py.import(intern!(py, "io"))?.getattr(intern!(py, "BytesIO"))?.unbind(),
            next: (
                builtins.getattr("next")?.unbind(),
                builtins.getattr("object")?.call0()?.unbind(),
            ),
            id: Last::default(),
            shared: Arc::clone(&self.shared),
        })
    }
}

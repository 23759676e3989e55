//! The server inside a Python worker, on a unix socket. WSGI: one request at a time, on the main
//! thread, or one on each of several threads. ASGI: requests as tasks of the event loop of asyncio. docs/wsgi-server.md says what they
//! promise.
//!
//! One file serves CPython 3.10 and later (the stable ABI). `mfserv_worker` and
//! `bjoern_wrapper.py`, written in Python, read the command line and start it.

mod answer;
mod asgi;
mod clock;
mod connection;
mod crew;
mod environ;
mod event_loop;
mod exchange;
mod family;
mod file_wrapper;
mod input;
mod request;
mod server;
mod shared;
mod text;

use pyo3::create_exception;
use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;

create_exception!(
    _mfserv_worker,
    SoftTimeout,
    PyBaseException,
    "The running request took too long. Not an Exception, so that no app swallows it."
);

#[pymodule]
fn _mfserv_worker(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<server::Server>()?;
    module.add_class::<asgi::Asgi>()?;
    module.add_class::<file_wrapper::FileWrapper>()?;
    module.add("SoftTimeout", module.py().get_type::<SoftTimeout>())
}

//! What `receive` and `send` return: awaitables that mostly have nothing to wait for.
//!
//! They are coroutines too (`collections.abc.Coroutine`), so that an app may hand them to
//! `asyncio.create_task`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pyo3::exceptions::PyStopIteration;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};

use crate::asgi::owner::Owner;

/// An awaitable of a request.
#[pyclass(frozen, module = "_mfserv_worker")]
pub struct Wait {
    what: What,
}

/// What is waited for.
pub enum What {
    /// Nothing.
    Nothing,
    /// The next turn of the event loop; true until then.
    Turn(AtomicBool),
    /// The socket takes what was sent.
    Output(Owner),
    /// A message of the client.
    Message(Owner),
    /// A message of the app is sent by the thread that waits; then what comes after it.
    Sent(Owner, Py<PyAny>, OnceLock<Py<Wait>>),
}

/// What became of a wait.
pub enum Outcome<'py> {
    /// It is over.
    Message(Bound<'py, PyDict>),
    /// It is over, without a message.
    Over,
    /// It goes on: the future that ends it.
    Waits(Bound<'py, PyAny>),
}

impl Wait {
    /// Waits for this.
    pub fn new(what: What) -> Self {
        Self { what }
    }

    /// Sends a message once somebody waits for it: another thread than that of the event loop has
    /// called `send`, and may only hand over what it returns (`asyncio.run_coroutine_threadsafe`).
    pub fn to_send(owner: Owner, message: &Bound<'_, PyAny>) -> PyResult<Py<Self>> {
        let sent = What::Sent(owner, message.clone().unbind(), OnceLock::new());
        Py::new(message.py(), Self::new(sent))
    }

    fn poll<'py>(&self, py: Python<'py>) -> PyResult<Outcome<'py>> {
        match &self.what {
            What::Nothing => Ok(Outcome::Over),
            What::Turn(first) if first.swap(false, Relaxed) => {
                Ok(Outcome::Waits(py.None().into_bound(py)))
            }
            What::Turn(_) => Ok(Outcome::Over),
            What::Output(owner) => owner.poll_output(py),
            What::Message(owner) => owner.poll_message(py),
            What::Sent(owner, message, after) => {
                let after = match after.get() {
                    Some(after) => after,
                    None => {
                        let sent = owner.send_now(message.bind(py))?;
                        after.get_or_init(|| sent)
                    }
                };
                after.get().poll(py)
            }
        }
    }
}

#[pymethods]
impl Wait {
    fn __await__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.poll(py)? {
            Outcome::Over => Ok(None),
            Outcome::Message(message) => Err(PyStopIteration::new_err((message.unbind(),))),
            Outcome::Waits(future) => Ok(Some(future)),
        }
    }

    fn send<'py>(
        &self,
        py: Python<'py>,
        _value: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.__next__(py)?.ok_or_else(|| PyStopIteration::new_err(()))
    }

    /// A task was cancelled: nothing is lost, the message stays.
    #[pyo3(signature = (kind, value = None, _traceback = None, /))]
    fn throw(
        &self,
        kind: &Bound<'_, PyAny>,
        value: Option<&Bound<'_, PyAny>>,
        _traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let error = match (value.filter(|value| !value.is_none()), kind.cast::<PyType>()) {
            (Some(value), _) => value.clone(),
            (None, Ok(kind)) => kind.call0()?,
            (None, Err(_)) => kind.clone(),
        };
        Err(PyErr::from_value(error))
    }

    fn close(&self) {}
}

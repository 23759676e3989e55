//! Who has a connection: a request that is not answered, or a WebSocket.

use std::sync::{Mutex, PoisonError, TryLockError};

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use rustix::event::epoll::EventFlags;

use crate::asgi::Environment;
use crate::asgi::request::Request;
use crate::asgi::socket::Socket;
use crate::asgi::wait::{Outcome, Wait};

/// Who has a connection.
pub enum Owner {
    /// A request.
    Request(Py<Request>),
    /// A WebSocket, from its request on.
    Socket(Py<Socket>),
}

impl Owner {
    /// The same one.
    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Request(request) => Self::Request(request.clone_ref(py)),
            Self::Socket(socket) => Self::Socket(socket.clone_ref(py)),
        }
    }

    /// The object with the methods `receive` and `send`, which is called when the task is over.
    pub fn object<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        match self {
            Self::Request(request) => request.bind(py).clone().into_any(),
            Self::Socket(socket) => socket.bind(py).clone().into_any(),
        }
    }

    /// Does what a message of the app says. Returns what comes after it.
    pub fn send_now(&self, message: &Bound<'_, PyAny>) -> PyResult<Py<Wait>> {
        let py = message.py();
        match self {
            Self::Request(request) => Request::send_now(request.bind(py), message),
            Self::Socket(socket) => Socket::send_now(socket.bind(py), message),
        }
    }

    /// The next message of the client, or the future that comes before it.
    pub fn poll_message<'py>(&self, py: Python<'py>) -> PyResult<Outcome<'py>> {
        match self {
            Self::Request(request) => request.get().poll_message(py),
            Self::Socket(socket) => socket.get().poll_message(py),
        }
    }

    /// Over, once the connection has taken what was sent, or the client is gone.
    pub fn poll_output<'py>(&self, py: Python<'py>) -> PyResult<Outcome<'py>> {
        match self {
            Self::Request(request) => request.get().poll_output(py),
            Self::Socket(socket) => socket.get().poll_output(py),
        }
    }

    /// Events of the connection.
    pub fn on_event(&self, py: Python<'_>, flags: EventFlags) {
        match self {
            Self::Request(request) => request.get().on_event(py, flags),
            Self::Socket(socket) => socket.get().on_event(py, flags),
        }
    }

    /// The task is over, or was not made: what the app has not done.
    pub fn fail(&self, py: Python<'_>, error: Option<&PyErr>) -> PyResult<()> {
        match self {
            Self::Request(request) => request.get().fail(py, error),
            Self::Socket(socket) => socket.get().fail(py, error),
        }
    }

    /// The worker is told to stop.
    pub fn stop(&self, py: Python<'_>) {
        if let Self::Socket(socket) = self {
            socket.get().stop(py);
        }
    }
}

/// The task is over: `fail` gets its error. A child that the app has forked goes no further.
pub fn over(
    environment: &Environment,
    task: &Bound<'_, PyAny>,
    fail: impl FnOnce(Option<&PyErr>) -> PyResult<()>,
) -> PyResult<()> {
    let py = task.py();
    environment.tasks.bind(py).discard(task)?;
    let error = match task.call_method0(intern!(py, "exception")) {
        Ok(none) if none.is_none() => None,
        Ok(error) => Some(PyErr::from_value(error)),
        Err(cancelled) => Some(cancelled),
    };
    match environment.core.shared.is_forked() {
        true => environment.end_child(py, error.as_ref()),
        false => fail(error.as_ref()),
    }
}

/// Uses what the app may use too, from the server.
pub fn from_server<S, T>(py: Python<'_>, state: &Mutex<S>, use_it: impl FnOnce(&mut S) -> T) -> T {
    use_it(&mut state.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner))
}

/// Uses it from the app. Of two threads at once, the second is refused: it would wait with the
/// interpreter's lock for one that waits for this lock.
pub fn from_app<S, T>(state: &Mutex<S>, use_it: impl FnOnce(&mut S) -> PyResult<T>) -> PyResult<T> {
    match state.try_lock() {
        Ok(mut state) => use_it(&mut state),
        Err(TryLockError::Poisoned(poisoned)) => use_it(&mut poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => {
            Err(PyRuntimeError::new_err("this request is in use by another thread"))
        }
    }
}

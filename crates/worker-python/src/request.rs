//! The life of a request: the call of the app, its answer, its end.

use std::sync::Arc;

use mfserv_h1::Name;
use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList, PyMemoryView, PyTuple};

use crate::SoftTimeout;
use crate::clock::Clock;
use crate::connection::Connection;
use crate::environ::Environs;
use crate::exchange::{Exchange, Live};
use crate::file_wrapper::FileWrapper;
use crate::input::{Input, WHOLE_MAX};
use crate::shared::Shared;
use crate::text::{Last, latin1};

/// The app, and what its requests are given.
pub struct App {
    /// The app.
    pub app: Py<PyAny>,
    /// The soft limit, seconds.
    pub timeout_s: u64,
    /// `report(message, error)`: writes to the log.
    pub report: Py<PyAny>,
    /// Notes the id of a request in its context.
    pub set_id: Py<PyAny>,
    /// Notes the id of a request for the whole process, if anything.
    pub put_id: Option<Py<PyAny>>,
    /// The context that each request gets a copy of.
    pub context: Py<PyAny>,
    /// Makes environments.
    pub environs: Environs,
    /// The type `io.BytesIO`.
    pub bytes_io: Py<PyAny>,
    /// The builtin `next`, and what it returns at the end.
    pub next: (Py<PyAny>, Py<PyAny>),
    /// The id of the last request.
    pub id: Last,
    /// The worker.
    pub shared: Arc<Shared>,
    /// That of the thread that serves.
    pub clock: Arc<Clock>,
}

impl App {
    /// Serves the request whose head the connection has read. The error leaves the server:
    /// it is that of a child that the app has forked.
    pub fn serve(
        &mut self,
        py: Python<'_>,
        connection: Box<Connection>,
    ) -> PyResult<Box<Connection>> {
        self.clock.begin();
        let exchange = Exchange::new(connection, Arc::clone(&self.shared), Arc::clone(&self.clock));
        let exchange = Py::new(py, exchange)?;
        let outcome = self.run(py, &exchange);
        let has_failed = outcome.is_err();
        // To log what has failed may take seconds on a busy machine: that is not the app's time.
        self.clock.end();
        let outcome = match outcome {
            Err(error) if !self.shared.is_forked() => self.failed(py, &exchange, &error),
            outcome => outcome,
        };
        outcome?;
        let mut live = exchange.get().close(py)?;
        self.check_length(py, &mut live, has_failed);
        match live.is_gone {
            true => live.connection.abandon(),
            false => live.connection.finish_request(),
        }
        Ok(live.connection)
    }

    fn run(&mut self, py: Python<'_>, exchange: &Py<Exchange>) -> PyResult<()> {
        let context = self.context.bind(py).call_method0(intern!(py, "copy"))?;
        let run = context.getattr(intern!(py, "run"))?;
        let environ = exchange.get().own(py, |live| self.environ(py, &run, live, exchange))?;
        let start_response = exchange.bind(py);
        let body = self.in_app(|| run.call1((&self.app, environ, start_response)))?;
        if let Ok(list) = body.cast_exact::<PyList>() {
            return self.put_list(py, exchange, list.iter());
        }
        if let Ok(tuple) = body.cast_exact::<PyTuple>() {
            return self.put_list(py, exchange, tuple.iter());
        }
        if body.cast::<PyBytes>().is_ok() {
            return self.put_list(py, exchange, std::iter::once(body));
        }
        let outcome = match body.cast_exact::<FileWrapper>() {
            Ok(file) => self.put_file(py, exchange, file, &run),
            Err(_) => self.put_pieces(py, exchange, &body, &run),
        };
        if self.shared.is_forked() {
            return outcome;
        }
        // The first error is the one that is answered; the other is only reported.
        let closed = self.close(&body, &run);
        match (&outcome, closed) {
            (Err(_), Err(error)) => self.log(py, "an error in close()", Some(&error)),
            (Ok(()), Err(error)) if self.shared.is_forked() => return Err(error),
            (Ok(()), Err(error)) => self.log(py, "an error in close()", Some(&error)),
            _ => {}
        }
        outcome
    }

    /// The environment, and the id of the request where the app looks for it.
    fn environ<'py>(
        &mut self,
        py: Python<'py>,
        run: &Bound<'py, PyAny>,
        live: &mut Live,
        exchange: &Py<Exchange>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let environ = self.environs.make(py, &live.connection.head)?;
        environ.set_item(intern!(py, "wsgi.input"), self.input(py, live, exchange)?)?;
        let id = live.connection.head.fields.first(Name::RequestId).unwrap_or_default();
        let id = self.id.of(py, id);
        run.call1((&self.set_id, &id))?;
        if let Some(put_id) = &self.put_id {
            put_id.call1(py, (intern!(py, "MFSERV_CURRENT_REQUEST_ID"), id))?;
        }
        Ok(environ)
    }

    fn input<'py>(
        &self,
        py: Python<'py>,
        live: &mut Live,
        exchange: &Py<Exchange>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if live.connection.is_read() {
            return self.bytes_io.bind(py).call0();
        }
        if !live.connection.is_whole(WHOLE_MAX) {
            return Ok(Bound::new(py, Input::of(exchange.clone_ref(py)))?.into_any());
        }
        let bytes = PyBytes::new(py, live.body()?);
        live.connection.take(bytes.as_bytes().len());
        self.bytes_io.bind(py).call1((bytes,))
    }

    /// Runs code of the app, which may be interrupted. A child that the app has forked goes
    /// no further: the connections are those of its parent.
    fn in_app<T>(&self, code: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
        let result = self.clock.in_app(code);
        if self.shared.is_forked() && result.is_ok() {
            // SAFETY: this call ends the process, and returns to nobody.
            unsafe { libc::_exit(0) };
        }
        result
    }

    /// A body that is there as a whole.
    fn put_list<'py>(
        &self,
        py: Python<'py>,
        exchange: &Py<Exchange>,
        items: impl Iterator<Item = Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        let mut pieces = Vec::with_capacity(1);
        for item in items {
            pieces.push(piece(item)?);
        }
        exchange.get().own(py, |live| {
            absent(live.put_whole(&pieces), live)?;
            absent(live.finish(), live)
        })
    }

    fn put_file(
        &self,
        py: Python<'_>,
        exchange: &Py<Exchange>,
        file: &Bound<'_, FileWrapper>,
        run: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        match self.in_app(|| file.get().regular(py))? {
            None => self.put_pieces(py, exchange, file.as_any(), run),
            Some(part) => exchange
                .get()
                .own(py, |live| absent(live.put_file(py, part.file, part.at, part.size), live)),
        }
    }

    /// A body that is made piece by piece.
    fn put_pieces(
        &self,
        py: Python<'_>,
        exchange: &Py<Exchange>,
        body: &Bound<'_, PyAny>,
        run: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let pieces = self.in_app(|| body.try_iter())?;
        let (next, end) = &self.next;
        loop {
            let item = self.in_app(|| run.call1((next, &pieces, end)))?;
            if item.is(end) {
                return exchange.get().own(py, |live| absent(live.finish(), live));
            }
            let sent = exchange.get().put(py, &piece(item)?);
            let is_over = exchange.get().own(py, |live| {
                absent(sent, live)?;
                // After HEAD, and with 204 and 304, nobody wants the other pieces.
                Ok(live.is_gone || live.answer.is_sent && !live.answer.has_body())
            })?;
            if is_over {
                return Ok(());
            }
        }
    }

    /// Says that the body is not wanted any more, exactly once.
    fn close(&self, body: &Bound<'_, PyAny>, run: &Bound<'_, PyAny>) -> PyResult<()> {
        match body.getattr_opt(intern!(body.py(), "close"))? {
            Some(close) => self.in_app(|| run.call1((close,)).map(drop)),
            None => Ok(()),
        }
    }

    /// The app has failed: an answer that says so, or one that is seen to be cut.
    fn failed(&self, py: Python<'_>, exchange: &Py<Exchange>, error: &PyErr) -> PyResult<()> {
        let is_late = error.is_instance_of::<SoftTimeout>(py);
        let is_gone = exchange.get().own(py, |live| {
            let is_sent = live.answer.is_sent;
            if is_sent || live.is_gone {
                live.connection.ends = true;
                return Ok((is_sent, live.is_gone));
            }
            let (status, code, text) = match is_late {
                true => ("504 Gateway Time-out", 504, &b""[..]),
                false => ("500 Internal Server Error", 500, &b"HTTP/500 Internal Server Error"[..]),
            };
            live.answer.replace(status, code, text.len());
            absent(live.put_whole(&[PyBytes::new(py, text)]), live)?;
            Ok((false, false))
        });
        let (is_sent, is_gone) = is_gone?;
        let limit = self.timeout_s;
        match (is_late, is_sent) {
            (true, false) => {
                self.log(py, &format!("request timeout ({limit} s) => HTTP/504"), None);
            }
            (true, true) => {
                let message = format!("request timeout ({limit} s) while sending the response");
                self.log(py, &message, None);
            }
            _ if is_gone => {}
            (false, false) => self.log(py, "uncaught exception => HTTP/500", Some(error)),
            (false, true) => {
                self.log(py, "uncaught exception while sending the response", Some(error));
            }
        }
        Ok(())
    }

    /// A body that is not as long as Content-Length says.
    fn check_length(&self, py: Python<'_>, live: &mut Live, has_failed: bool) {
        if live.is_gone {
            return;
        }
        if live.answer.is_sent && live.answer.is_short() {
            live.connection.ends = true;
            if has_failed {
                return;
            }
            self.log(py, "the response is shorter than its Content-Length: it was cut", None);
        } else if live.answer.is_too_long {
            let message = "the response is longer than its Content-Length: the rest was dropped";
            self.log(py, message, None);
        }
    }

    /// Runs the handlers of signals that have arrived, on the main thread. What one of the app
    /// raises between two requests ends the worker only if it is meant to.
    pub fn check_signals(&self, py: Python<'_>) -> PyResult<()> {
        let Err(error) = py.check_signals() else { return Ok(()) };
        let is_end = error.is_instance_of::<PySystemExit>(py)
            || error.is_instance_of::<PyKeyboardInterrupt>(py);
        if is_end || self.shared.is_forked() {
            return Err(error);
        }
        self.log(py, "an error in a signal handler of the app", Some(&error));
        Ok(())
    }

    /// Writes to the log.
    pub fn log(&self, py: Python<'_>, message: &str, error: Option<&PyErr>) {
        let error = error.map(|error| error.value(py));
        if let Err(problem) = self.report.call1(py, (latin1(py, message.as_bytes()), error)) {
            problem.write_unraisable(py, None);
        }
    }
}

/// A piece of an answer, as it is sent.
pub fn piece(item: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyBytes>> {
    if item.is_instance_of::<PyByteArray>() || item.is_instance_of::<PyMemoryView>() {
        let bytes = item.py().get_type::<PyBytes>().call1((item,))?;
        return Ok(bytes.cast_into()?);
    }
    item.cast_into::<PyBytes>().map_err(|error| {
        let found = error.into_inner().get_type();
        PyTypeError::new_err(format!("the app must return pieces of bytes, not of {found}"))
    })
}

/// A client that is gone is no fault of the app.
fn absent(sent: PyResult<()>, live: &Live) -> PyResult<()> {
    if live.is_gone { Ok(()) } else { sent }
}

//! The life of an ASGI request: what `receive` and `send` do, and its end.

use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use rustix::event::epoll::EventFlags;

use crate::answer::{Answer, Asked};
use crate::asgi::Environment;
use crate::asgi::core::Wire;
use crate::asgi::due::{Due, waiting};
use crate::asgi::live::Live;
use crate::asgi::message::{Body, Message};
use crate::asgi::owner::{Owner, from_app, from_server, over};
use crate::asgi::wait::{Outcome, Wait, What};
use crate::connection::is_of_client;

mod answering;

/// After so many bytes that the socket took at once, or that the app received without a pause, the
/// other tasks have their turn.
const TURN: usize = 1 << 20;
/// The same, as a number of messages that the app received.
const MESSAGES: usize = 64;

/// A request. Nothing of its connection is reached through it once it is answered.
#[pyclass(frozen, module = "_mfserv_worker")]
pub struct Request {
    environment: Arc<Environment>,
    index: usize,
    state: Mutex<State>,
}

struct State {
    /// `None`: the answer is whole, or the client is gone.
    live: Option<Live>,
    /// The app has sent the whole answer.
    is_whole: bool,
    /// The app has received the whole body.
    is_read: bool,
    /// What the socket took since the task was last interrupted, bytes.
    taken: usize,
    /// What the app received since then: bytes and messages.
    received: (usize, usize),
    /// Futures of those who wait for a message.
    receivers: Vec<Py<PyAny>>,
    /// Futures of those who wait until the socket takes the output.
    senders: Vec<Py<PyAny>>,
}

/// What the app waits for after it has sent a message.
enum After {
    Nothing,
    Turn,
    Output,
}

#[pymethods]
impl Request {
    /// `receive()` of ASGI.
    fn receive(slf: &Bound<'_, Self>) -> Wait {
        Wait::new(What::Message(Owner::Request(slf.clone().unbind())))
    }

    /// `send(message)` of ASGI.
    fn send(slf: &Bound<'_, Self>, message: &Bound<'_, PyAny>) -> PyResult<Py<Wait>> {
        if slf.get().environment.core.shared.is_main() {
            return Self::send_now(slf, message);
        }
        Wait::to_send(Owner::Request(slf.clone().unbind()), message)
    }

    /// Called when the task of the request is over.
    fn __call__(slf: &Bound<'_, Self>, task: &Bound<'_, PyAny>) -> PyResult<()> {
        let this = slf.get();
        over(&this.environment, task, |error| this.fail(slf.py(), error))
    }
}

impl Request {
    /// Does what a message says. Returns what comes after it.
    pub fn send_now(slf: &Bound<'_, Self>, message: &Bound<'_, PyAny>) -> PyResult<Py<Wait>> {
        let py = slf.py();
        let this = slf.get();
        this.environment.refuse_child()?;
        let message = Message::read(message, &this.environment.reasons)?;
        let mut due = Due::default();
        let after = this.with(|state| this.put(py, state, message, &mut due))?;
        due.settle(py, &this.environment);
        let what = match after {
            After::Nothing => return Ok(this.environment.nothing.clone_ref(py)),
            After::Turn => What::Turn(AtomicBool::new(true)),
            After::Output => What::Output(Owner::Request(slf.clone().unbind())),
        };
        Py::new(py, Wait::new(what))
    }

    /// The request whose head the connection has read.
    pub fn new(environment: Arc<Environment>, index: usize, mut wire: Wire) -> Self {
        let head = &wire.connection.head;
        let asked = Asked { is_head: head.method() == b"HEAD", is_1_1: head.is_1_1 };
        wire.connection.ends |= !head.keep_alive;
        let shared = Arc::clone(&environment.core.shared);
        let live = Some(Live { wire, answer: Answer::new(asked), shared });
        let state = State {
            live,
            is_whole: false,
            is_read: false,
            taken: 0,
            received: (0, 0),
            receivers: Vec::new(),
            senders: Vec::new(),
        };
        Self { environment, index, state: Mutex::new(state) }
    }

    /// Uses the request from the app.
    fn with<T>(&self, use_it: impl FnOnce(&mut State) -> PyResult<T>) -> PyResult<T> {
        from_app(&self.state, use_it)
    }

    /// Events of the socket.
    pub fn on_event(&self, py: Python<'_>, flags: EventFlags) {
        let mut due = Due::default();
        from_server(py, &self.state, |state| self.look(py, state, flags, &mut due));
        due.settle(py, &self.environment);
    }

    fn look(&self, py: Python<'_>, state: &mut State, flags: EventFlags, due: &mut Due) {
        let core = &self.environment.core;
        let wants_body = !state.is_read && !state.receivers.is_empty();
        let Some(live) = &mut state.live else { return };
        let has_body = wants_body && flags.contains(EventFlags::IN);
        // Of a client that has left, what it has sent before is received first.
        let mut is_gone = !has_body && flags.intersects(EventFlags::HUP | EventFlags::ERR);
        if !is_gone && flags.contains(EventFlags::OUT) {
            match live.wire.connection.flush(py) {
                Ok(true) => {
                    core.need(self.index, &mut live.wire, EventFlags::empty());
                    due.futures.append(&mut state.senders);
                }
                Ok(false) => {}
                Err(error) => return self.cut(state, &error, due),
            }
        }
        if !is_gone && flags.contains(EventFlags::IN) {
            if has_body {
                is_gone = !core.read(&mut live.wire.connection).unwrap_or(false);
                due.futures.append(&mut state.receivers);
            } else {
                // Bytes of the next request, or a client that sends no other: they can wait.
                let has_output = live.wire.connection.has_output();
                let flags = if has_output { EventFlags::OUT } else { EventFlags::empty() };
                core.watch(self.index, &mut live.wire, flags);
            }
        }
        if is_gone {
            self.leave(state, due);
        }
    }

    /// The answer can not be sent.
    fn cut(&self, state: &mut State, error: &io::Error, due: &mut Due) {
        if !is_of_client(error) {
            due.log = Some(format!("an answer was cut: {error}").into());
        }
        self.leave(state, due);
    }

    /// The client is gone.
    fn leave(&self, state: &mut State, due: &mut Due) {
        if let Some(live) = state.live.take() {
            self.environment.core.end(self.index, live.wire);
        }
        due.futures.append(&mut state.receivers);
        due.futures.append(&mut state.senders);
    }

    /// The next message of the client, or the future that comes before it.
    pub fn poll_message<'py>(&self, py: Python<'py>) -> PyResult<Outcome<'py>> {
        self.environment.refuse_child()?;
        let mut due = Due::default();
        let body = self.with(|state| {
            let (bytes, messages) = state.received;
            if bytes >= TURN || messages >= MESSAGES {
                state.received = (0, 0);
                return Ok(None);
            }
            let body = self.next_body(py, state, &mut due);
            state.received = match &body {
                Body::Piece(piece, _) => (bytes + piece.as_bytes().len(), messages + 1),
                Body::Gone => (bytes, messages + 1),
                Body::Later => (0, 0),
            };
            Ok(Some(body))
        });
        due.settle(py, &self.environment);
        let Some(body) = body? else { return Ok(Outcome::Waits(py.None().into_bound(py))) };
        let message = PyDict::new(py);
        match body {
            Body::Piece(bytes, more) => {
                message.set_item(intern!(py, "type"), intern!(py, "http.request"))?;
                message.set_item(intern!(py, "body"), bytes)?;
                message.set_item(intern!(py, "more_body"), more)?;
            }
            Body::Gone => message.set_item(intern!(py, "type"), intern!(py, "http.disconnect"))?,
            Body::Later => return self.wait(py, |state| &mut state.receivers),
        }
        Ok(Outcome::Message(message))
    }

    fn next_body<'py>(&self, py: Python<'py>, state: &mut State, due: &mut Due) -> Body<'py> {
        let core = &self.environment.core;
        let Some(live) = &mut state.live else { return Body::Gone };
        if state.is_read {
            return Body::Later;
        }
        let body = Body::read(py, &mut live.wire.connection, core, live.answer.is_sent);
        match &body {
            Body::Piece(_, more) => state.is_read = !more,
            Body::Later => {
                let has_output = live.wire.connection.has_output();
                let output = if has_output { EventFlags::OUT } else { EventFlags::empty() };
                core.need(self.index, &mut live.wire, EventFlags::IN | output);
            }
            Body::Gone => self.leave(state, due),
        }
        body
    }

    /// Over, once the socket has taken what was sent, or the client is gone.
    pub fn poll_output<'py>(&self, py: Python<'py>) -> PyResult<Outcome<'py>> {
        self.environment.refuse_child()?;
        let has_output = self.with(|state| {
            Ok(state.live.as_ref().is_some_and(|live| live.wire.connection.has_output()))
        })?;
        match has_output {
            true => self.wait(py, |state| &mut state.senders),
            false => Ok(Outcome::Over),
        }
    }

    /// A future in one of the lists.
    fn wait<'py>(
        &self,
        py: Python<'py>,
        list: impl Fn(&mut State) -> &mut Vec<Py<PyAny>>,
    ) -> PyResult<Outcome<'py>> {
        let swap = |futures| self.with(|state| Ok(std::mem::replace(list(state), futures)));
        waiting(py, &self.environment, swap)
    }
}

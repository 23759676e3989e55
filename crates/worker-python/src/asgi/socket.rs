//! A WebSocket, from its request to its end: what comes of the client, and what `receive` says.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use mfserv_websocket::{Decoder, Event};
use pyo3::prelude::*;
use rustix::event::epoll::EventFlags;

use crate::answer::{Answer, Asked};
use crate::asgi::Environment;
use crate::asgi::core::Wire;
use crate::asgi::due::Due;
use crate::asgi::live::Live;
use crate::asgi::owner::{Owner, from_app, from_server, over};
use crate::asgi::wait::{Wait, What};

mod closing;
mod said;
mod sending;

/// The most bytes of a message of a client.
const MESSAGE_MAX: usize = 16 << 20;
/// Nothing is read of a client with so many messages, or so many bytes of them, that its app has not
/// received.
const WAITING_MAX: usize = 16;
const WAITING_BYTES_MAX: usize = 64 * 1024;

/// A WebSocket.
#[pyclass(frozen, module = "_mfserv_worker")]
pub struct Socket {
    environment: Arc<Environment>,
    index: usize,
    /// What the answer to the handshake says.
    accept: String,
    state: Mutex<State>,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The app has not said whether it accepts.
    Asked,
    /// The app answers as to any request.
    Denied,
    /// Both may send.
    Open,
    /// A close was sent, that of the client is awaited.
    Closing,
    /// Nothing is sent or read any more.
    Over,
}

struct State {
    /// `None`: the connection is gone, or no more of it is of interest.
    live: Option<Live>,
    phase: Phase,
    decoder: Decoder,
    /// Messages that the app has not received, and the bytes of them.
    waiting: VecDeque<Event>,
    waiting_bytes: usize,
    /// Why no more messages come: code and reason.
    end: Option<(u16, String)>,
    /// The app has closed it, or answered.
    is_closed: bool,
    /// The app has received `websocket.connect`.
    is_announced: bool,
    /// The answer to the last ping, while other output waits.
    pong: Option<Vec<u8>>,
    /// The client was asked for a sign of life, and has given none since.
    is_asked: bool,
    /// The client is gone, and what it has sent before was not wholly read.
    is_hung: bool,
    /// The close of the client is awaited for a while already.
    is_late: bool,
    /// Calls [`Tick`].
    timer: Option<Py<PyAny>>,
    /// Futures of those who wait for a message.
    receivers: Vec<Py<PyAny>>,
    /// Futures of those who wait until the connection takes the output.
    senders: Vec<Py<PyAny>>,
}

impl State {
    /// Nothing more is read before the app has received what is there.
    fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_MAX || self.waiting_bytes >= WAITING_BYTES_MAX
    }

    /// The head of an answer that refuses the WebSocket was sent, or nobody is there to get one.
    fn is_head_sent(&self) -> bool {
        self.live.as_ref().is_none_or(|live| live.answer.is_sent)
    }

    /// What the client sends is of interest now.
    fn reads(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Closing) && !self.is_full()
    }
}

#[pymethods]
impl Socket {
    /// `receive()` of ASGI.
    fn receive(slf: &Bound<'_, Self>) -> Wait {
        Wait::new(What::Message(Owner::Socket(slf.clone().unbind())))
    }

    /// `send(message)` of ASGI.
    fn send(slf: &Bound<'_, Self>, message: &Bound<'_, PyAny>) -> PyResult<Py<Wait>> {
        if slf.get().environment.core.shared.is_main() {
            return Self::send_now(slf, message);
        }
        Wait::to_send(Owner::Socket(slf.clone().unbind()), message)
    }

    /// Called when the task is over.
    fn __call__(slf: &Bound<'_, Self>, task: &Bound<'_, PyAny>) -> PyResult<()> {
        let this = slf.get();
        over(&this.environment, task, |error| this.fail(slf.py(), error))
    }
}

/// Called by the event loop when a time is over.
#[pyclass(frozen, module = "_mfserv_worker")]
struct Tick(Py<Socket>);

#[pymethods]
impl Tick {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        Socket::tick(self.0.bind(py))
    }
}

impl Socket {
    /// The request whose head the connection has read. `accept`: the answer to its key.
    pub fn new(environment: Arc<Environment>, index: usize, wire: Wire, accept: String) -> Self {
        let shared = Arc::clone(&environment.core.shared);
        let answer = Answer::new(Asked { is_head: false, is_1_1: true });
        let state = State {
            live: Some(Live { wire, answer, shared }),
            phase: Phase::Asked,
            decoder: Decoder::new(MESSAGE_MAX),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            end: None,
            is_closed: false,
            is_announced: false,
            pong: None,
            is_asked: false,
            is_hung: false,
            is_late: false,
            timer: None,
            receivers: Vec::new(),
            senders: Vec::new(),
        };
        Self { environment, index, accept, state: Mutex::new(state) }
    }

    /// Does what a message says. Returns what comes after it.
    pub fn send_now(slf: &Bound<'_, Self>, message: &Bound<'_, PyAny>) -> PyResult<Py<Wait>> {
        let waits = Self::say(slf, message)?;
        let environment = &slf.get().environment;
        match waits {
            false => Ok(environment.nothing.clone_ref(slf.py())),
            true => {
                let output = What::Output(Owner::Socket(slf.clone().unbind()));
                Py::new(slf.py(), Wait::new(output))
            }
        }
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut State) -> PyResult<T>) -> PyResult<T> {
        from_app(&self.state, use_it)
    }

    /// Asks for the events of the connection that are of interest now.
    fn watch(&self, state: &mut State) {
        let reads = state.reads();
        let Some(live) = state.live.as_mut().filter(|_| !state.is_hung) else { return };
        let mut flags = if reads { EventFlags::IN } else { EventFlags::empty() };
        if live.wire.connection.has_output() {
            flags |= EventFlags::OUT;
        }
        self.environment.core.watch(self.index, &mut live.wire, flags);
    }

    /// Events of the connection.
    pub fn on_event(&self, py: Python<'_>, flags: EventFlags) {
        let mut due = Due::default();
        from_server(py, &self.state, |state| {
            self.look(py, state, flags, &mut due);
            self.watch(state);
        });
        due.settle(py, &self.environment);
    }

    fn look(&self, py: Python<'_>, state: &mut State, flags: EventFlags, due: &mut Due) {
        if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
            state.is_hung = true;
            return self.read_rest(state, due);
        }
        if flags.contains(EventFlags::OUT) {
            let Some(live) = &mut state.live else { return };
            match live.wire.connection.flush(py) {
                Ok(true) => self.drained(state, due),
                // It reads.
                Ok(false) => state.is_asked = false,
                Err(error) => return self.cut(state, &error, due),
            }
        }
        if flags.contains(EventFlags::IN) && state.reads() {
            self.read(state, due);
        }
    }

    fn read(&self, state: &mut State, due: &mut Due) {
        let Some(live) = &mut state.live else { return };
        match self.environment.core.read(&mut live.wire.connection) {
            Ok(true) => self.take(state, due),
            Ok(false) | Err(_) => self.leave(state, due),
        }
    }

    /// The client is gone. What it has sent before is received first.
    fn read_rest(&self, state: &mut State, due: &mut Due) {
        if state.phase == Phase::Asked || state.phase == Phase::Denied {
            return self.leave(state, due);
        }
        while state.live.is_some() && state.reads() {
            self.read(state, due);
        }
        if let Some(live) = &state.live {
            self.environment.core.forget(&live.wire);
        }
    }
}

//! What the app sends on a WebSocket.

use std::io;

use mfserv_websocket::{Kind, code, frame_head};
use pyo3::exceptions::{PyConnectionError, PyRuntimeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use super::{Phase, Socket, State};
use crate::answer::is_token;
use crate::asgi::due::{Due, waiting};
use crate::asgi::message::{Head, Message, bytes_of, needed};
use crate::asgi::wait::Outcome;

/// A payload of so many bytes at most is copied behind the head of its frame.
const SMALL: usize = 4096;

/// A message of the app.
enum Outgoing<'py> {
    /// The handshake, from its status line on.
    Accept(Vec<u8>),
    /// A message for the client.
    Send(Kind, Bound<'py, PyBytes>),
    /// Code and reason of a close, or why they can not be sent. A WebSocket that is not open is
    /// closed without them.
    Close(PyResult<(u16, String)>),
    /// A part of an answer to a request that becomes no WebSocket.
    Deny(Message<'py>),
}

impl Socket {
    /// `send(message)`. Returns whether the app has to wait until the client has read.
    pub(super) fn say(slf: &Bound<'_, Self>, message: &Bound<'_, PyAny>) -> PyResult<bool> {
        let (this, py) = (slf.get(), slf.py());
        this.environment.refuse_child()?;
        let outgoing = this.read_message(message)?;
        let opens = matches!(outgoing, Outgoing::Accept(_));
        let mut due = Due::default();
        let waits = this.with(|state| {
            this.apply(py, state, outgoing, &mut due)?;
            this.watch(state);
            Ok(state.live.as_ref().is_some_and(|live| live.wire.connection.has_output()))
        });
        due.settle(py, &this.environment);
        if opens && waits.is_ok() {
            Self::schedule(slf)?;
        }
        waits
    }

    fn read_message<'py>(&self, message: &Bound<'py, PyAny>) -> PyResult<Outgoing<'py>> {
        let py = message.py();
        let dict = message.cast::<PyDict>()?;
        let kind = needed(dict, intern!(py, "type"))?;
        let given = |name: &Bound<'py, PyString>| -> PyResult<Option<Bound<'py, PyAny>>> {
            Ok(dict.get_item(name)?.filter(|value| !value.is_none()))
        };
        match kind.cast::<PyString>()?.to_str()? {
            "websocket.send" => match (given(intern!(py, "text"))?, given(intern!(py, "bytes"))?) {
                (Some(text), _) => {
                    let text = text.cast_into::<PyString>()?;
                    Ok(Outgoing::Send(Kind::Text, PyBytes::new(py, text.to_str()?.as_bytes())))
                }
                (None, Some(bytes)) => Ok(Outgoing::Send(Kind::Binary, bytes_of(bytes)?)),
                (None, None) => {
                    Err(PyValueError::new_err("'websocket.send' needs 'text' or 'bytes'"))
                }
            },
            "websocket.accept" => {
                let protocol = given(intern!(py, "subprotocol"))?;
                self.handshake(dict, protocol).map(Outgoing::Accept)
            }
            "websocket.close" => {
                let (code, reason) = (given(intern!(py, "code"))?, given(intern!(py, "reason"))?);
                Ok(Outgoing::Close(read_close(code, reason)))
            }
            "websocket.http.response.start" => {
                Ok(Outgoing::Deny(Message::Start(Head::read(dict, &self.environment.reasons)?)))
            }
            "websocket.http.response.body" => Message::piece(dict).map(Outgoing::Deny),
            other => {
                let text = format!("the server knows no message '{other}' of a WebSocket");
                Err(PyRuntimeError::new_err(text))
            }
        }
    }

    fn handshake(
        &self,
        message: &Bound<'_, PyDict>,
        protocol: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Vec<u8>> {
        let mut head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                         Connection: Upgrade\r\nSec-WebSocket-Accept: "
            .to_vec();
        head.extend_from_slice(self.accept.as_bytes());
        head.extend_from_slice(b"\r\n");
        if let Some(protocol) = protocol {
            let protocol: String = protocol.extract()?;
            if protocol.is_empty() || !protocol.as_bytes().iter().all(is_token) {
                let text = format!("{protocol:?} is no name of a subprotocol");
                return Err(PyValueError::new_err(text));
            }
            head.extend_from_slice(b"Sec-WebSocket-Protocol: ");
            head.extend_from_slice(protocol.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        Head::of_handshake(head, message)
    }

    fn apply(
        &self,
        py: Python<'_>,
        state: &mut State,
        outgoing: Outgoing<'_>,
        due: &mut Due,
    ) -> PyResult<()> {
        match (outgoing, state.phase) {
            // Who has left can not be closed, and need not be.
            (Outgoing::Close(..), Phase::Closing | Phase::Over) if !state.is_closed => Ok(()),
            (outgoing, Phase::Closing | Phase::Over) if !state.is_closed => {
                let text = format!("'{}' was sent to a client that is gone", outgoing.name());
                Err(PyConnectionError::new_err(text))
            }
            (Outgoing::Accept(head), Phase::Asked) => self.open(state, &head, due),
            (Outgoing::Close(..), Phase::Asked) => {
                state.is_closed = true;
                self.refuse_with(py, state, ("403 Forbidden", 403), due);
                Ok(())
            }
            (Outgoing::Deny(message), Phase::Asked | Phase::Denied) => {
                self.answer(py, state, message, due)
            }
            (Outgoing::Send(kind, payload), Phase::Open) => {
                let size = payload.as_bytes().len();
                let sent = match size <= SMALL {
                    true => self.put(state, kind, payload.as_bytes()),
                    false => self.put_large(state, kind, &payload),
                };
                if let Err(error) = sent {
                    self.cut(state, &error, due);
                    let text = "'websocket.send' was sent to a client that is gone";
                    return Err(PyConnectionError::new_err(text));
                }
                Ok(())
            }
            (Outgoing::Close(close), Phase::Open) => {
                let (code, reason) = close?;
                state.is_closed = true;
                self.close(state, code, &reason, due);
                Ok(())
            }
            (outgoing, phase) => {
                let text = format!(
                    "'{}' was sent to a WebSocket that is {}",
                    outgoing.name(),
                    phase.name()
                );
                Err(PyRuntimeError::new_err(text))
            }
        }
    }

    fn open(&self, state: &mut State, head: &[u8], due: &mut Due) -> PyResult<()> {
        state.phase = Phase::Open;
        let Some(live) = &mut state.live else { return Ok(()) };
        if let Err(error) = live.wire.connection.send(head, None, 0..0, b"") {
            self.cut(state, &error, due);
            return Ok(());
        }
        if self.environment.core.shared.is_stopping() {
            self.close(state, code::RESTART, "", due);
        } else {
            self.take(state, due);
        }
        Ok(())
    }

    /// An answer that is not that of a handshake.
    fn answer(
        &self,
        py: Python<'_>,
        state: &mut State,
        message: Message<'_>,
        due: &mut Due,
    ) -> PyResult<()> {
        let Some(live) = &mut state.live else { return Ok(()) };
        let is_start = matches!(message, Message::Start(_));
        if is_start == live.answer.is_set() {
            let text = "an answer to a WebSocket begins with one 'websocket.http.response.start'";
            return Err(PyRuntimeError::new_err(text));
        }
        let ends = matches!(message, Message::Piece(_, false));
        state.phase = Phase::Denied;
        live.wire.connection.ends = true;
        if let Err(error) = live.put(py, message) {
            self.cut(state, &error, due);
        } else if ends {
            state.is_closed = true;
            self.finish(state, due);
        }
        Ok(())
    }

    /// The server answers in place of the app.
    pub(super) fn refuse_with(
        &self,
        py: Python<'_>,
        state: &mut State,
        status: (&str, u16),
        due: &mut Due,
    ) {
        let Some(live) = &mut state.live else { return };
        live.wire.connection.ends = true;
        match live.refuse_with(py, status, b"") {
            Ok(()) => self.finish(state, due),
            Err(error) => self.cut(state, &error, due),
        }
    }

    /// Sends a frame.
    pub(super) fn put(&self, state: &mut State, kind: Kind, payload: &[u8]) -> io::Result<()> {
        let Some(live) = &mut state.live else { return Ok(()) };
        let mut frame = Vec::with_capacity(payload.len() + 10);
        frame_head(kind, payload.len(), &mut frame);
        frame.extend_from_slice(payload);
        live.wire.connection.send(&frame, None, 0..0, b"")
    }

    fn put_large(
        &self,
        state: &mut State,
        kind: Kind,
        payload: &Bound<'_, PyBytes>,
    ) -> io::Result<()> {
        let Some(live) = &mut state.live else { return Ok(()) };
        let length = payload.as_bytes().len();
        let mut head = Vec::with_capacity(10);
        frame_head(kind, length, &mut head);
        live.wire.connection.send(&head, Some(payload), 0..length, b"")
    }

    /// Of pings that come while the client reads nothing, the last one is answered.
    pub(super) fn answer_ping(&self, state: &mut State, payload: Vec<u8>, due: &mut Due) {
        if state.phase != Phase::Open {
            return;
        }
        if state.live.as_ref().is_some_and(|live| live.wire.connection.has_output()) {
            state.pong = Some(payload);
        } else if let Err(error) = self.put(state, Kind::Pong, &payload) {
            self.cut(state, &error, due);
        }
    }

    /// The client has read all that was sent.
    pub(super) fn drained(&self, state: &mut State, due: &mut Due) {
        due.futures.append(&mut state.senders);
        if let Some(payload) = state.pong.take() {
            self.answer_ping(state, payload, due);
        }
    }

    /// Over, once the connection has taken what was sent, or the client is gone.
    pub fn poll_output<'py>(&self, py: Python<'py>) -> PyResult<Outcome<'py>> {
        self.environment.refuse_child()?;
        let has_output = self.with(|state| {
            Ok(state.live.as_ref().is_some_and(|live| live.wire.connection.has_output()))
        })?;
        if !has_output {
            return Ok(Outcome::Over);
        }
        waiting(py, &self.environment, |futures| {
            self.with(|state| Ok(std::mem::replace(&mut state.senders, futures)))
        })
    }
}

/// Code and reason of `websocket.close`. Some apps give others than a close may have to a WebSocket
/// that they refuse: FastAPI the list of what was wrong with the request.
fn read_close(
    code: Option<Bound<'_, PyAny>>,
    reason: Option<Bound<'_, PyAny>>,
) -> PyResult<(u16, String)> {
    let code = code.map_or(Ok(code::NORMAL), |code| code.extract())?;
    if !matches!(code, 1000..=1003 | 1005 | 1007..=1014 | 3000..=4999) {
        let text = format!("{code} is no code that may close a WebSocket");
        return Err(PyValueError::new_err(text));
    }
    let reason = reason.map_or(Ok(String::new()), |reason| reason.extract())?;
    Ok((code, reason))
}

impl Outgoing<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Accept(_) => "websocket.accept",
            Self::Send(..) => "websocket.send",
            Self::Close(..) => "websocket.close",
            Self::Deny(_) => "websocket.http.response",
        }
    }
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Asked => "not accepted",
            Self::Denied => "denied",
            Self::Open => "open",
            Self::Closing | Self::Over => "closed",
        }
    }
}

//! What the client of a WebSocket has said, and what the app receives of it.

use mfserv_websocket::Event;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use super::{Phase, Socket, State};
use crate::asgi::due::{Due, waiting};
use crate::asgi::wait::Outcome;

impl Socket {
    /// Makes messages of the bytes that were read.
    pub(super) fn take(&self, state: &mut State, due: &mut Due) {
        state.is_asked = false;
        while state.reads() {
            let Some(live) = &mut state.live else { return };
            match state.decoder.next(live.wire.connection.unread()) {
                Ok((used, event)) => {
                    live.wire.connection.used(used);
                    let Some(event) = event else { return };
                    self.take_event(state, event, due);
                }
                Err(failure) => {
                    return self.break_off(state, failure.code, failure.reason, due);
                }
            }
        }
    }

    fn take_event(&self, state: &mut State, event: Event, due: &mut Due) {
        match event {
            Event::Ping(payload) => self.answer_ping(state, payload, due),
            Event::Pong(_) => {}
            Event::Close(code, reason) => {
                if state.phase == Phase::Open {
                    self.send_close(state, code, "", due);
                    state.end.get_or_insert((code, reason));
                }
                self.finish(state, due);
            }
            // The app is done with it.
            _ if state.phase == Phase::Closing => {}
            Event::Text(bytes) => keep(state, Event::Text(bytes), due),
            Event::Binary(bytes) => keep(state, Event::Binary(bytes), due),
        }
    }

    /// The next message, or the future that comes before it.
    pub fn poll_message<'py>(&self, py: Python<'py>) -> PyResult<Outcome<'py>> {
        self.environment.refuse_child()?;
        let mut due = Due::default();
        let said = self.with(|state| {
            let said = Said::next(state);
            // There may be room for more now.
            if matches!(said, Some(Said::Message(_))) {
                self.take(state, &mut due);
                if state.is_hung {
                    self.read_rest(state, &mut due);
                }
                self.watch(state);
            }
            Ok(said)
        });
        due.settle(py, &self.environment);
        match said? {
            Some(said) => said.message(py).map(Outcome::Message),
            None => waiting(py, &self.environment, |futures| {
                self.with(|state| Ok(std::mem::replace(&mut state.receivers, futures)))
            }),
        }
    }
}

fn keep(state: &mut State, event: Event, due: &mut Due) {
    state.waiting_bytes += size(&event);
    state.waiting.push_back(event);
    due.futures.append(&mut state.receivers);
}

fn size(event: &Event) -> usize {
    match event {
        Event::Text(bytes) | Event::Binary(bytes) => bytes.len(),
        _ => 0,
    }
}

/// A message for the app.
enum Said {
    Connect,
    Message(Event),
    Disconnect(u16, String),
}

impl Said {
    fn next(state: &mut State) -> Option<Self> {
        if !state.is_announced {
            state.is_announced = true;
            return Some(Self::Connect);
        }
        if let Some(event) = state.waiting.pop_front() {
            state.waiting_bytes -= size(&event);
            return Some(Self::Message(event));
        }
        state.end.clone().map(|(code, reason)| Self::Disconnect(code, reason))
    }

    fn message(self, py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
        let message = PyDict::new(py);
        let kind = match &self {
            Self::Connect => intern!(py, "websocket.connect"),
            Self::Message(_) => intern!(py, "websocket.receive"),
            Self::Disconnect(..) => intern!(py, "websocket.disconnect"),
        };
        message.set_item(intern!(py, "type"), kind)?;
        match self {
            Self::Message(Event::Text(bytes)) => {
                message.set_item(intern!(py, "text"), PyString::from_bytes(py, &bytes)?)?;
            }
            Self::Message(Event::Binary(bytes)) => {
                message.set_item(intern!(py, "bytes"), PyBytes::new(py, &bytes))?;
            }
            Self::Message(_) | Self::Connect => {}
            Self::Disconnect(code, reason) => {
                message.set_item(intern!(py, "code"), code)?;
                message.set_item(intern!(py, "reason"), reason)?;
            }
        }
        Ok(message)
    }
}

//! What the messages of an app do, and what its end does.

use pyo3::exceptions::{PyException, PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use rustix::event::epoll::EventFlags;

use super::{After, Request, State, TURN};
use crate::asgi::due::Due;
use crate::asgi::message::Message;
use crate::asgi::owner::from_server;

impl Request {
    /// What a message of the app does.
    pub(super) fn put(
        &self,
        py: Python<'_>,
        state: &mut State,
        message: Message<'_>,
        due: &mut Due,
    ) -> PyResult<After> {
        if state.is_whole {
            let what = message.name();
            let text = format!("'{what}' was sent after the end of the response");
            return Err(PyRuntimeError::new_err(text));
        }
        let Some(live) = &mut state.live else {
            // The client is gone: an app that streams without end must come to know of it.
            return Ok(After::Turn);
        };
        let is_set = live.answer.is_set();
        let ends = match &message {
            Message::Start(_) | Message::Hint(_) if is_set => {
                let text = format!("'{}' was sent after the head of the response", message.name());
                return Err(PyRuntimeError::new_err(text));
            }
            Message::Piece(..) | Message::File(..) if !is_set => {
                let what = message.name();
                let text = format!("'{what}' was sent before 'http.response.start'");
                return Err(PyRuntimeError::new_err(text));
            }
            Message::Start(_) | Message::Hint(_) => false,
            Message::Piece(_, more) | Message::File(_, more) => !more,
        };
        let size = message.size();
        if let Err(error) = live.put(py, message) {
            self.cut(state, &error, due);
            return Ok(After::Nothing);
        }
        if ends {
            self.complete(state, due);
            return Ok(After::Nothing);
        }
        if live.wire.connection.has_output() {
            self.environment.core.need(self.index, &mut live.wire, EventFlags::OUT);
            state.taken = 0;
            return Ok(After::Output);
        }
        state.taken += size;
        match state.taken >= TURN {
            true => {
                state.taken = 0;
                Ok(After::Turn)
            }
            false => Ok(After::Nothing),
        }
    }

    /// The answer is whole: the connection is free for the next request, also if the app goes on.
    fn complete(&self, state: &mut State, due: &mut Due) {
        state.is_whole = true;
        if let Some(mut live) = state.live.take() {
            if live.answer.is_short() {
                live.wire.connection.ends = true;
                let message = "the response is shorter than its Content-Length: it was cut";
                due.log = Some(message.into());
            } else if live.answer.is_too_long {
                let message =
                    "the response is longer than its Content-Length: the rest was dropped";
                due.log = Some(message.into());
            }
            live.wire.connection.finish_request();
            self.environment.core.put_back(self.index, live.wire);
        }
        due.futures.append(&mut state.receivers);
        due.futures.append(&mut state.senders);
    }

    /// The app has returned, or raised: an answer that is not whole is one of ours, or is cut.
    pub fn fail(&self, py: Python<'_>, error: Option<&PyErr>) -> PyResult<()> {
        let mut due = Due::default();
        let is_cancelled = error.is_some_and(|error| !error.is_instance_of::<PyException>(py));
        let message = from_server(py, &self.state, |state| {
            let Some(live) = &mut state.live else {
                let of_client = error.is_some_and(|error| error.is_instance_of::<PyOSError>(py));
                return match state.is_whole {
                    _ if error.is_none() => "",
                    true => "uncaught exception after the response",
                    false if of_client || is_cancelled => "",
                    false => "uncaught exception after the client had left",
                };
            };
            let message = match (live.answer.is_sent, error.is_some()) {
                (false, true) => "uncaught exception => HTTP/500",
                (false, false) => "the app returned without a response => HTTP/500",
                (true, true) => "uncaught exception while sending the response",
                (true, false) => "the app returned before the end of its response: it was cut",
            };
            if live.answer.is_sent {
                live.wire.connection.ends = true;
            } else if live.refuse(py).is_err() {
                self.leave(state, &mut due);
                return message;
            }
            if let Some(mut live) = state.live.take() {
                live.wire.connection.finish_request();
                self.environment.core.put_back(self.index, live.wire);
            }
            due.futures.append(&mut state.receivers);
            due.futures.append(&mut state.senders);
            message
        });
        due.settle(py, &self.environment);
        if !message.is_empty() {
            self.environment.log(py, message, error);
        }
        Ok(())
    }
}

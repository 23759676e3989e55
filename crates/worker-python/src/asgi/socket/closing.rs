//! The end of a WebSocket: by the client, by the app, by the server.

use std::io;

use mfserv_websocket::{Kind, close_payload, code};
use pyo3::exceptions::{PyException, PyOSError};
use pyo3::prelude::*;

use super::{Phase, Socket, State, Tick};
use crate::asgi::due::Due;
use crate::asgi::owner::from_server;
use crate::connection::is_of_client;

impl Socket {
    /// Sends a close; the client's is awaited.
    pub(super) fn send_close(&self, state: &mut State, code: u16, reason: &str, due: &mut Due) {
        state.phase = Phase::Closing;
        if let Err(error) = self.put(state, Kind::Close, &close_payload(code, reason)) {
            self.cut(state, &error, due);
        }
    }

    /// The worker is told to stop.
    pub fn stop(&self, py: Python<'_>) {
        let mut due = Due::default();
        from_server(py, &self.state, |state| {
            if state.phase == Phase::Open {
                self.close(state, code::RESTART, "", &mut due);
            }
        });
        due.settle(py, &self.environment);
    }

    /// The time between two signs of life is over.
    pub(super) fn tick(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (this, py) = (slf.get(), slf.py());
        if this.environment.core.shared.is_forked() {
            return Ok(());
        }
        let mut due = Due::default();
        from_server(py, &this.state, |state| {
            state.timer = None;
            match state.phase {
                // Nothing is read of a client that has sent too much: it may be well.
                Phase::Open if state.is_asked && state.reads() => {
                    this.break_off(state, code::INTERNAL, "keepalive ping timeout", &mut due);
                }
                Phase::Open if state.is_asked => {}
                Phase::Open => {
                    state.is_asked = true;
                    if let Err(error) = this.put(state, Kind::Ping, b"mfserv") {
                        this.cut(state, &error, &mut due);
                    }
                }
                Phase::Closing if state.is_late => this.leave(state, &mut due),
                Phase::Closing => state.is_late = true,
                Phase::Asked | Phase::Denied | Phase::Over => {}
            }
            this.watch(state);
        });
        due.settle(py, &this.environment);
        Self::schedule(slf)
    }

    /// Calls [`Self::tick`] in a while, if the WebSocket has not ended.
    pub(super) fn schedule(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (this, py) = (slf.get(), slf.py());
        let is_over = |state: &mut State| !matches!(state.phase, Phase::Open | Phase::Closing);
        if from_server(py, &this.state, is_over) {
            return Ok(());
        }
        let tick = Py::new(py, Tick(slf.clone().unbind()))?;
        let timer = this.environment.call_later.call1(py, (this.environment.ping_s, tick))?;
        from_server(py, &this.state, |state| state.timer = Some(timer));
        Ok(())
    }

    /// The task of the app is over: what it has left undone.
    pub fn fail(&self, py: Python<'_>, error: Option<&PyErr>) -> PyResult<()> {
        let mut due = Due::default();
        let of_client = error.is_some_and(|error| {
            error.is_instance_of::<PyOSError>(py) || !error.is_instance_of::<PyException>(py)
        });
        let message = from_server(py, &self.state, |state| match (state.phase, error.is_some()) {
            (Phase::Asked | Phase::Denied, is_error) if !state.is_head_sent() => {
                self.refuse_with(py, state, ("500 Internal Server Error", 500), &mut due);
                match is_error {
                    true => "uncaught exception before a WebSocket was accepted => HTTP/500",
                    false => "the app returned without an answer to a WebSocket => HTTP/500",
                }
            }
            (Phase::Asked | Phase::Denied, is_error) => {
                // of a refusal that has begun
                self.finish(state, &mut due);
                match is_error {
                    true => "uncaught exception while sending the response",
                    false => "the app returned before the end of its response: it was cut",
                }
            }
            (Phase::Open, true) => {
                self.close(state, code::INTERNAL, "", &mut due);
                "uncaught exception => the WebSocket is closed with 1011"
            }
            (Phase::Open, false) => {
                self.close(state, code::NORMAL, "", &mut due);
                ""
            }
            (Phase::Closing | Phase::Over, true) if !of_client => {
                "uncaught exception after the end of a WebSocket"
            }
            (Phase::Closing | Phase::Over, _) => "",
        });
        due.settle(py, &self.environment);
        if !message.is_empty() {
            self.environment.log(py, message, error);
        }
        Ok(())
    }

    /// The server or the app ends an open WebSocket.
    pub(super) fn close(&self, state: &mut State, code: u16, reason: &str, due: &mut Due) {
        self.send_close(state, code, reason, due);
        state.end.get_or_insert_with(|| (code, reason.to_string()));
        state.waiting.clear();
        state.waiting_bytes = 0;
        due.futures.append(&mut state.receivers);
        // What has come already may have its close.
        self.take(state, due);
        self.watch(state);
    }

    /// The client does not keep to the protocol, or does not answer.
    pub(super) fn break_off(
        &self,
        state: &mut State,
        code: u16,
        reason: &'static str,
        due: &mut Due,
    ) {
        if state.phase == Phase::Open {
            self.send_close(state, code, reason, due);
        }
        state.end.get_or_insert_with(|| (code, reason.to_string()));
        self.finish(state, due);
    }

    /// Both have sent a close: the connection ends once the output is sent.
    pub(super) fn finish(&self, state: &mut State, due: &mut Due) {
        if let Some(mut live) = state.live.take() {
            live.wire.connection.ends = true;
            if state.is_hung {
                self.environment.core.end(self.index, live.wire);
            } else {
                self.environment.core.put_back(self.index, live.wire);
            }
        }
        self.is_over(state, due);
    }

    /// The client is gone.
    pub(super) fn leave(&self, state: &mut State, due: &mut Due) {
        if let Some(live) = state.live.take() {
            self.environment.core.end(self.index, live.wire);
        }
        self.is_over(state, due);
    }

    fn is_over(&self, state: &mut State, due: &mut Due) {
        state.phase = Phase::Over;
        state.end.get_or_insert_with(|| (code::ABNORMAL, String::new()));
        due.futures.append(&mut state.receivers);
        due.futures.append(&mut state.senders);
        due.timer = due.timer.take().or_else(|| state.timer.take());
    }

    /// What was sent can not be sent.
    pub(super) fn cut(&self, state: &mut State, error: &io::Error, due: &mut Due) {
        if !is_of_client(error) {
            due.log = Some(format!("a WebSocket was cut: {error}").into());
        }
        self.leave(state, due);
    }
}

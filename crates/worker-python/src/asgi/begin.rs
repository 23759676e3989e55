//! The begin of a request: its scope, its task, and whether it is to become a WebSocket.

use std::sync::{Arc, PoisonError};

use mfserv_h1::{Name, RequestHead};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::asgi::Asgi;
use crate::asgi::core::Wire;
use crate::asgi::owner::{Owner, over};
use crate::asgi::request::Request;
use crate::asgi::scope::Scopes;
use crate::asgi::socket::Socket;
use crate::text::Last;

/// How the task of a request is made.
pub enum Start {
    /// By the class and the keywords.
    Class(Py<PyAny>, Py<PyDict>),
    /// By `create_task` of the event loop.
    Loop(Py<PyAny>),
}

impl Start {
    /// By a class, or None for what the event loop makes.
    pub fn of(
        event_loop: &Bound<'_, PyAny>,
        class: Bound<'_, PyAny>,
        is_eager: bool,
    ) -> PyResult<Self> {
        if class.is_none() {
            return Ok(Self::Loop(event_loop.getattr("create_task")?.unbind()));
        }
        let keywords = PyDict::new(event_loop.py());
        keywords.set_item("loop", event_loop)?;
        if is_eager {
            keywords.set_item("eager_start", true)?;
        }
        Ok(Self::Class(class.unbind(), keywords.unbind()))
    }
}

/// What makes a request of a head.
pub struct Maker {
    scopes: Scopes,
    id: Last,
}

impl Maker {
    /// Makes requests with these scopes.
    pub fn new(scopes: Scopes) -> Self {
        Self { scopes, id: Last::default() }
    }
}

/// What the head of a request asks for.
enum Asked {
    /// An answer.
    Answer,
    /// A WebSocket, with this key.
    Socket(Vec<u8>),
    /// A WebSocket, not as RFC 6455, 4.2.1 says: status, another field, and why.
    Wrong(&'static str, &'static str, &'static str),
}

impl Asked {
    fn of(wire: &Wire) -> Self {
        let head = &wire.connection.head;
        let is_socket = |protocol: &[u8]| protocol.eq_ignore_ascii_case(b"websocket");
        if !head.upgrade || !head.fields.tokens(Name::Upgrade).any(is_socket) {
            return Self::Answer;
        }
        if head.method() != b"GET" || !wire.connection.is_read() {
            return Self::Wrong("400 Bad Request", "", "a WebSocket is asked for by GET");
        }
        if single(head, b"sec-websocket-version") != Some(b"13") {
            let version = "Sec-WebSocket-Version: 13\r\n";
            return Self::Wrong("426 Upgrade Required", version, "only version 13 of WebSocket");
        }
        match single(head, b"sec-websocket-key") {
            Some(key) if is_key(key) => Self::Socket(key.to_vec()),
            _ => Self::Wrong("400 Bad Request", "", "no Sec-WebSocket-Key of 16 bytes"),
        }
    }
}

/// The value of a field that is there once.
fn single<'a>(head: &'a RequestHead, name: &[u8]) -> Option<&'a [u8]> {
    let mut values = head.fields.iter().filter(|(_, it, _)| it.eq_ignore_ascii_case(name));
    let (_, _, value) = values.next()?;
    values.next().is_none().then_some(value.trim_ascii())
}

/// True for 16 bytes in base64.
fn is_key(key: &[u8]) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/".contains(byte);
    key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(is_letter)
}

impl Asgi {
    /// Begins the request whose head the connection has read.
    pub fn begin(&self, py: Python<'_>, index: usize, mut wire: Wire) -> PyResult<()> {
        let key = match Asked::of(&wire) {
            Asked::Answer => None,
            Asked::Socket(key) => Some(key),
            Asked::Wrong(status, field, why) => {
                let length = why.len();
                let text = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
                     {field}Connection: close\r\n\r\n{why}"
                );
                let _ = wire.connection.send(text.as_bytes(), None, 0..0, b"");
                wire.connection.ends = true;
                self.environment.core.put_back(index, wire);
                return Ok(());
            }
        };
        let made = {
            let head = &wire.connection.head;
            let mut maker = self.maker.lock().unwrap_or_else(PoisonError::into_inner);
            let Maker { scopes, id } = &mut *maker;
            let id = id.of(py, head.fields.first(Name::RequestId).unwrap_or_default());
            let scope = match &key {
                None => scopes.make(py, head),
                Some(_) => scopes.make_socket(py, head),
            };
            scope.map(|scope| (scope, id))
        };
        let environment = Arc::clone(&self.environment);
        let owner = match key {
            None => Owner::Request(Py::new(py, Request::new(environment, index, wire))?),
            Some(key) => {
                let accept = self.accept_key.call1(py, (PyBytes::new(py, &key),))?;
                let socket = Socket::new(environment, index, wire, accept.extract(py)?);
                Owner::Socket(Py::new(py, socket)?)
            }
        };
        self.environment.core.set_busy(index, owner.clone_ref(py));
        let started = made.and_then(|(scope, id)| {
            self.set_id.call1(py, (id,))?;
            self.start(&owner, &scope)
        });
        match started {
            Err(error) if self.environment.core.shared.is_forked() => {
                self.environment.end_child(py, Some(&error))
            }
            Err(error) => owner.fail(py, Some(&error)),
            Ok(()) => Ok(()),
        }
    }

    /// Makes the task of a request. It runs in a copy of the context of this call, in which only
    /// the id of the request was set.
    fn start(&self, owner: &Owner, scope: &Bound<'_, PyDict>) -> PyResult<()> {
        let py = scope.py();
        let object = owner.object(py);
        let receive = object.getattr(intern!(py, "receive"))?;
        let send = object.getattr(intern!(py, "send"))?;
        let coroutine = self.app.bind(py).call1((scope, receive, send))?;
        let task = match &self.start {
            Start::Class(class, keywords) => {
                class.bind(py).call((coroutine,), Some(keywords.bind(py)))?
            }
            Start::Loop(create) => create.bind(py).call1((coroutine,))?,
        };
        if self.is_eager && task.call_method0(intern!(py, "done"))?.is_truthy()? {
            return over(&self.environment, &task, |error| owner.fail(py, error));
        }
        self.environment.tasks.bind(py).add(&task)?;
        task.call_method1(intern!(py, "add_done_callback"), (object,)).map(drop)
    }
}

//! The `scope` of a request, by the ASGI specification.
//!
//! A template is copied for each request. A header that is the same as in the request before is
//! the same tuple.
//!
//! A prefix that the front has stripped is `root_path`, and `path` and `raw_path` begin with it, as
//! the specification has it and uvicorn does with `--root-path`.

use foldhash::{HashMap, HashMapExt};
use mfserv_h1::{Name, RequestHead};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

use crate::environ::{Ends, Trust};
use crate::text::{Last, NAME_MAX, NAMES, latin1, percent_decoded, percent_encoded};

/// The longest value of a header that is kept for the next request, bytes.
const KEPT: usize = 512;

/// Makes scopes.
pub struct Scopes {
    template: Py<PyDict>,
    asgi: Py<PyDict>,
    extensions: Py<PyDict>,
    /// What the app has made at its start.
    state: Py<PyDict>,
    trust: Trust,
    /// By the name as it is written.
    headers: HashMap<Box<[u8]>, Header>,
    method: Last,
    path: LastPath,
    server: Address,
    client: Address,
}

/// A header of an earlier request.
struct Header {
    name: Py<PyBytes>,
    value: Vec<u8>,
    pair: Option<Py<PyTuple>>,
}

/// The path of the last request.
#[derive(Default)]
struct LastPath {
    raw: Vec<u8>,
    found: Option<(Py<PyString>, Py<PyBytes>)>,
}

/// The last host with its port.
#[derive(Default)]
struct Address {
    host: Vec<u8>,
    port: Vec<u8>,
    pair: Option<Py<PyTuple>>,
}

impl Scopes {
    /// `state`: what the app has put into the state of its lifespan.
    pub fn new(py: Python<'_>, state: Py<PyDict>, trust: Trust) -> PyResult<Self> {
        let template = PyDict::new(py);
        template.set_item("type", "http")?;
        template.set_item("http_version", "1.1")?;
        template.set_item("scheme", "http")?;
        template.set_item("root_path", "")?;
        template.set_item("client", py.None())?;
        let asgi = PyDict::new(py);
        asgi.set_item("version", "3.0")?;
        // As uvicorn says it. From 2.4 on, `send` would have to raise when the client is gone, and
        // frameworks would not listen for its end while they stream.
        asgi.set_item("spec_version", "2.3")?;
        let extensions = PyDict::new(py);
        for name in ["pathsend", "zerocopysend", "early_hint"] {
            extensions.set_item(format!("http.response.{name}"), PyDict::new(py))?;
        }
        Ok(Self {
            template: template.unbind(),
            asgi: asgi.unbind(),
            extensions: extensions.unbind(),
            state,
            trust,
            headers: HashMap::new(),
            method: Last::default(),
            path: LastPath::default(),
            server: Address::default(),
            client: Address::default(),
        })
    }

    /// The scope of a request. What an app changes in it is seen by no other request, except
    /// inside the values of `state`.
    pub fn make<'py>(
        &mut self,
        py: Python<'py>,
        head: &RequestHead,
    ) -> PyResult<Bound<'py, PyDict>> {
        let scope = self.template.bind(py).copy()?;
        scope.set_item(intern!(py, "asgi"), self.asgi.bind(py).copy()?)?;
        scope.set_item(intern!(py, "extensions"), self.extensions.bind(py).copy()?)?;
        scope.set_item(intern!(py, "state"), self.state.bind(py).copy()?)?;
        scope.set_item(intern!(py, "method"), self.method.of(py, head.method()))?;
        let path = head.path();
        let query = head.target().get(path.len() + 1..).unwrap_or_default();
        let prefix = self.trust.prefix_of(head);
        let (text, raw) = match prefix.is_empty() {
            true => self.path.of(py, path),
            false => {
                let root = percent_decoded(prefix);
                scope.set_item(intern!(py, "root_path"), String::from_utf8_lossy(&root))?;
                self.path.of(py, &[prefix, path].concat())
            }
        };
        scope.set_item(intern!(py, "path"), text)?;
        scope.set_item(intern!(py, "raw_path"), raw)?;
        let query = match query.is_ascii() {
            true => PyBytes::new(py, query),
            false => PyBytes::new(py, &percent_encoded(query)),
        };
        scope.set_item(intern!(py, "query_string"), query)?;
        if !head.is_1_1 {
            scope.set_item(intern!(py, "http_version"), intern!(py, "1.0"))?;
        }
        scope.set_item(intern!(py, "headers"), self.headers(py, head)?)?;
        let ends = Ends::of(head, self.trust);
        scope.set_item(intern!(py, "server"), self.server.of(py, ends.host, ends.port)?)?;
        if !ends.address.is_empty() {
            let client = self.client.of(py, ends.address, ends.remote_port)?;
            scope.set_item(intern!(py, "client"), client)?;
        }
        if ends.is_https {
            scope.set_item(intern!(py, "scheme"), intern!(py, "https"))?;
        }
        Ok(scope)
    }

    /// The scope of a WebSocket.
    pub fn make_socket<'py>(
        &mut self,
        py: Python<'py>,
        head: &RequestHead,
    ) -> PyResult<Bound<'py, PyDict>> {
        let scope = self.make(py, head)?;
        scope.del_item(intern!(py, "method"))?;
        scope.set_item(intern!(py, "type"), intern!(py, "websocket"))?;
        let is_https = Ends::of(head, self.trust).is_https;
        scope.set_item(intern!(py, "scheme"), if is_https { "wss" } else { "ws" })?;
        let protocols = PyList::empty(py);
        for (_, name, value) in head.fields.iter() {
            if name.eq_ignore_ascii_case(b"sec-websocket-protocol") {
                let parts = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
                for protocol in parts.filter(|protocol| !protocol.is_empty()) {
                    protocols.append(latin1(py, protocol))?;
                }
            }
        }
        scope.set_item(intern!(py, "subprotocols"), protocols)?;
        let extensions = PyDict::new(py);
        extensions.set_item(intern!(py, "websocket.http.response"), PyDict::new(py))?;
        scope.set_item(intern!(py, "extensions"), extensions)?;
        Ok(scope)
    }

    fn headers<'py>(
        &mut self,
        py: Python<'py>,
        head: &RequestHead,
    ) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for (name, written, value) in head.fields.iter() {
            // Frameworks that make names of CGI of them can not tell these from others.
            if !matches!(name, Name::Underscored | Name::Dropped) {
                list.append(self.header(py, written, value)?)?;
            }
        }
        Ok(list)
    }

    fn header<'py>(
        &mut self,
        py: Python<'py>,
        written: &[u8],
        value: &[u8],
    ) -> PyResult<Bound<'py, PyTuple>> {
        if !self.headers.contains_key(written) {
            let name = PyBytes::new(py, &written.to_ascii_lowercase());
            if self.headers.len() >= NAMES || written.len() > NAME_MAX {
                return PyTuple::new(py, [name, PyBytes::new(py, value)]);
            }
            let header = Header { name: name.unbind(), value: Vec::new(), pair: None };
            self.headers.insert(written.into(), header);
        }
        let Some(header) = self.headers.get_mut(written) else {
            return Ok(PyTuple::empty(py));
        };
        if let Some(pair) = header.pair.as_ref().filter(|_| header.value == value) {
            return Ok(pair.bind(py).clone());
        }
        let pair = PyTuple::new(py, [header.name.bind(py), &PyBytes::new(py, value)])?;
        if value.len() <= KEPT {
            header.value.clear();
            header.value.extend_from_slice(value);
            header.pair = Some(pair.clone().unbind());
        }
        Ok(pair)
    }
}

impl LastPath {
    fn of(&mut self, py: Python<'_>, raw: &[u8]) -> (Py<PyString>, Py<PyBytes>) {
        if let Some((text, bytes)) = self.found.as_ref().filter(|_| self.raw == raw) {
            return (text.clone_ref(py), bytes.clone_ref(py));
        }
        let text = PyString::new(py, &String::from_utf8_lossy(&percent_decoded(raw))).unbind();
        let bytes = PyBytes::new(py, raw).unbind();
        if raw.len() <= KEPT {
            self.raw.clear();
            self.raw.extend_from_slice(raw);
            self.found = Some((text.clone_ref(py), bytes.clone_ref(py)));
        }
        (text, bytes)
    }
}

impl Address {
    /// `(host, port)`; the port is 0 if it is not known.
    fn of<'py>(
        &mut self,
        py: Python<'py>,
        host: &[u8],
        port: &[u8],
    ) -> PyResult<Bound<'py, PyTuple>> {
        let is_same = self.host == host && self.port == port;
        if let Some(pair) = self.pair.as_ref().filter(|_| is_same) {
            return Ok(pair.bind(py).clone());
        }
        let number: u16 = std::str::from_utf8(port).unwrap_or("").parse().unwrap_or(0);
        let pair = (latin1(py, host), number).into_pyobject(py)?;
        if host.len() <= KEPT {
            (self.host, self.port) = (host.to_vec(), port.to_vec());
            self.pair = Some(pair.clone().unbind());
        }
        Ok(pair)
    }
}

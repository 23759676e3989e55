//! The `environ` of a request: PEP 3333 and RFC 3875, as the client made the request.
//!
//! The front tells what a unix socket cannot: X-Real-IP, X-Real-Port and X-Forwarded-*. Only
//! the front can connect to the socket, so these fields are trusted, unless the node says that
//! its front does not set them. A front that strips the prefix of the app says it in
//! X-Forwarded-Prefix: it is SCRIPT_NAME, and RAW_URI and REQUEST_URI have it.
//!
//! A template is copied for each request. The key of a field is made once, and its value is
//! that of the request before if it is the same.

use foldhash::{HashMap, HashMapExt};
use mfserv_h1::{Framing, Name, RequestHead};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::file_wrapper::FileWrapper;
use crate::text::{Last, NAME_MAX, NAMES, latin1, percent_decoded, percent_encoded};

/// Which fields are the front's, and no client's.
#[derive(Debug, Clone, Copy)]
pub struct Trust {
    /// X-Real-* and the X-Forwarded-* that name a host, a port or a scheme.
    pub ends: bool,
    /// X-Forwarded-Prefix: the front strips the prefix of the app.
    pub prefix: bool,
}

impl Trust {
    /// What was stripped from the path, encoded; empty if nothing was.
    pub fn prefix_of(self, head: &RequestHead) -> &[u8] {
        let said = head.fields.first(Name::ForwardedPrefix);
        said.filter(|_| self.prefix).unwrap_or_default()
    }
}

/// Makes environments.
pub struct Environs {
    template: Py<PyDict>,
    trust: Trust,
    /// Where in `fields` a name is, as it is written.
    names: HashMap<Box<[u8]>, usize>,
    fields: Vec<Field>,
    request: u64,
    /// A field of this request is one of those that are not remembered.
    has_others: bool,
    method: Last,
    path: Last,
    prefix: Last,
    query: Last,
    uri: Last,
    host: Last,
    port: Last,
    address: Last,
    remote_port: Last,
    length: Last,
}

/// A key of the environment.
struct Field {
    key: Py<PyString>,
    name: Vec<u8>,
    value: Last,
    /// The last request that had it.
    request: u64,
}

impl Environs {
    /// `template`: what is the same in each request.
    pub fn new(template: Py<PyDict>, trust: Trust) -> Self {
        Self {
            template,
            trust,
            names: HashMap::new(),
            fields: Vec::new(),
            request: 0,
            has_others: false,
            method: Last::default(),
            path: Last::default(),
            prefix: Last::default(),
            query: Last::default(),
            uri: Last::default(),
            host: Last::default(),
            port: Last::default(),
            address: Last::default(),
            remote_port: Last::default(),
            length: Last::default(),
        }
    }

    /// The environment of a request, without `wsgi.input`.
    pub fn make<'py>(
        &mut self,
        py: Python<'py>,
        head: &RequestHead,
    ) -> PyResult<Bound<'py, PyDict>> {
        let environ = self.template.bind(py).copy()?;
        self.request += 1;
        self.has_others = false;
        self.put_line(py, head, &environ)?;
        for (name, written, value) in head.fields.iter() {
            // Others are not told apart from fields that the front sets, or are no business
            // of an app: see `Name`.
            if !matches!(name, Name::Underscored | Name::Dropped | Name::ContentLength) {
                self.put_field(py, written, value, &environ)?;
            }
        }
        if let Framing::Length(length) = head.framing {
            let text = self.length.of(py, length.to_string().as_bytes());
            environ.set_item(intern!(py, "CONTENT_LENGTH"), text)?;
        } else if let Some(written) = head.fields.first(Name::ContentLength) {
            environ.set_item(intern!(py, "CONTENT_LENGTH"), self.length.of(py, written))?;
        }
        self.put_ends(py, head, &environ)?;
        Ok(environ)
    }

    /// What the first line says.
    fn put_line(
        &mut self,
        py: Python<'_>,
        head: &RequestHead,
        environ: &Bound<'_, PyDict>,
    ) -> PyResult<()> {
        let target = head.target();
        let path = head.path();
        let query = target.get(path.len() + 1..).unwrap_or_default();
        environ.set_item(intern!(py, "REQUEST_METHOD"), self.method.of(py, head.method()))?;
        let path = match path.contains(&b'%') {
            true => self.path.of(py, &percent_decoded(path)),
            false => self.path.of(py, path),
        };
        environ.set_item(intern!(py, "PATH_INFO"), path)?;
        let query = match query.is_ascii() {
            true => self.query.of(py, query),
            false => self.query.of(py, &percent_encoded(query)),
        };
        environ.set_item(intern!(py, "QUERY_STRING"), query)?;
        let prefix = self.trust.prefix_of(head);
        let uri = match prefix.is_empty() {
            true => self.uri.of(py, head.written_target()),
            false => {
                let name = self.prefix.of(py, &percent_decoded(prefix));
                environ.set_item(intern!(py, "SCRIPT_NAME"), name)?;
                self.uri.of(py, &[prefix, head.written_target()].concat())
            }
        };
        environ.set_item(intern!(py, "RAW_URI"), &uri)?;
        environ.set_item(intern!(py, "REQUEST_URI"), uri)?;
        if !head.is_1_1 {
            environ.set_item(intern!(py, "SERVER_PROTOCOL"), intern!(py, "HTTP/1.0"))?;
        }
        Ok(())
    }

    fn put_field(
        &mut self,
        py: Python<'_>,
        written: &[u8],
        value: &[u8],
        environ: &Bound<'_, PyDict>,
    ) -> PyResult<()> {
        let Some(index) = self.find(py, written) else {
            self.has_others = true;
            let key = latin1(py, &key_of(written));
            return put_again(py, environ, &key, written, latin1(py, value));
        };
        let request = self.request;
        let Some(field) = self.fields.get_mut(index) else { return Ok(()) };
        let text = field.value.of(py, value);
        let key = field.key.bind(py);
        let is_again = std::mem::replace(&mut field.request, request) == request;
        if is_again || self.has_others {
            return put_again(py, environ, key, written, text);
        }
        environ.set_item(key, text)
    }

    /// Where the key of a field is; `None` if too many names are remembered already.
    fn find(&mut self, py: Python<'_>, written: &[u8]) -> Option<usize> {
        if let Some(&index) = self.names.get(written) {
            return Some(index);
        }
        if self.names.len() >= NAMES || written.len() > NAME_MAX {
            return None;
        }
        let name = key_of(written);
        // the same name in other letters
        let known = self.fields.iter().position(|field| field.name == name);
        let index = known.unwrap_or(self.fields.len());
        if known.is_none() {
            let key = latin1(py, &name).unbind();
            self.fields.push(Field { key, name, value: Last::default(), request: 0 });
        }
        self.names.insert(written.into(), index);
        Some(index)
    }

    /// Who asks, which server was asked, by which scheme.
    fn put_ends(
        &mut self,
        py: Python<'_>,
        head: &RequestHead,
        environ: &Bound<'_, PyDict>,
    ) -> PyResult<()> {
        let Ends { is_https, host, port, address, remote_port } = Ends::of(head, self.trust);
        environ.set_item(intern!(py, "SERVER_NAME"), self.host.of(py, host))?;
        environ.set_item(intern!(py, "SERVER_PORT"), self.port.of(py, port))?;
        if !address.is_empty() {
            environ.set_item(intern!(py, "REMOTE_ADDR"), self.address.of(py, address))?;
        }
        if !remote_port.is_empty() {
            environ.set_item(intern!(py, "REMOTE_PORT"), self.remote_port.of(py, remote_port))?;
        }
        if is_https {
            environ.set_item(intern!(py, "wsgi.url_scheme"), intern!(py, "https"))?;
            environ.set_item(intern!(py, "HTTPS"), intern!(py, "on"))?;
        }
        Ok(())
    }
}

/// Who asks, which server was asked, by which scheme.
pub struct Ends<'a> {
    /// The scheme is https, else http.
    pub is_https: bool,
    /// The name of the server.
    pub host: &'a [u8],
    /// Its port.
    pub port: &'a [u8],
    /// The address of the client; empty = not known.
    pub address: &'a [u8],
    /// Its port; empty = not known.
    pub remote_port: &'a [u8],
}

impl<'a> Ends<'a> {
    /// What the head says.
    pub fn of(head: &'a RequestHead, trust: Trust) -> Self {
        let forwarded =
            |name| if trust.ends { head.fields.first(name).unwrap_or(b"") } else { b"" };
        let is_https = forwarded(Name::ForwardedProto).eq_ignore_ascii_case(b"https");
        let named = match forwarded(Name::ForwardedHost) {
            b"" => head.host(),
            host => host,
        };
        let (host, port) = split_port(first(named));
        let port = match port {
            Some(port) => port,
            None => match first(forwarded(Name::ForwardedPort)) {
                port if is_number(port) => port,
                _ if is_https => b"443",
                _ => b"80",
            },
        };
        let remote_port = forwarded(Name::RealPort);
        Self {
            is_https,
            host: if host.is_empty() { b"localhost" } else { host },
            port,
            address: forwarded(Name::RealIp),
            remote_port: if is_number(remote_port) { remote_port } else { b"" },
        }
    }
}

/// What is the same in each environment. `has_threads`: several threads call the app.
pub fn template(py: Python<'_>, has_threads: bool) -> PyResult<Py<PyDict>> {
    let environ = PyDict::new(py);
    let sys = py.import(intern!(py, "sys"))?;
    environ.set_item("SCRIPT_NAME", "")?;
    environ.set_item("SERVER_PROTOCOL", "HTTP/1.1")?;
    environ.set_item("SERVER_SOFTWARE", "mfserv")?;
    environ.set_item("REMOTE_ADDR", "127.0.0.1")?;
    environ.set_item("wsgi.version", (1, 0))?;
    environ.set_item("wsgi.url_scheme", "http")?;
    environ.set_item("wsgi.errors", sys.getattr("stderr")?)?;
    environ.set_item("wsgi.multithread", has_threads)?;
    environ.set_item("wsgi.multiprocess", true)?;
    environ.set_item("wsgi.run_once", false)?;
    environ.set_item("wsgi.input_terminated", true)?;
    environ.set_item("wsgi.file_wrapper", py.get_type::<FileWrapper>())?;
    Ok(environ.unbind())
}

/// `X-Request-Id` → `HTTP_X_REQUEST_ID`.
fn key_of(written: &[u8]) -> Vec<u8> {
    let upper = written.iter().map(|&byte| match byte {
        b'-' => b'_',
        byte => byte.to_ascii_uppercase(),
    });
    match written.eq_ignore_ascii_case(b"content-type") {
        true => upper.collect(),
        false => b"HTTP_".iter().copied().chain(upper).collect(),
    }
}

/// Puts a field that may be there already: the values of both, in a list (RFC 9110, 5.3).
fn put_again(
    py: Python<'_>,
    environ: &Bound<'_, PyDict>,
    key: &Bound<'_, PyString>,
    written: &[u8],
    value: Bound<'_, PyString>,
) -> PyResult<()> {
    let Some(before) = environ.get_item(key)? else { return environ.set_item(key, value) };
    let between = match written.eq_ignore_ascii_case(b"cookie") {
        true => intern!(py, "; "),
        false => intern!(py, ", "),
    };
    environ.set_item(key, before.add(between)?.add(value)?)
}

/// The first member of a list: a proxy before the front may have appended its own name.
fn first(list: &[u8]) -> &[u8] {
    list.split(|&byte| byte == b',').next().unwrap_or(list).trim_ascii()
}

fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

/// `example.org:8443` as host and port; an IPv6 address keeps its brackets.
fn split_port(host: &[u8]) -> (&[u8], Option<&[u8]>) {
    let Some(colon) = host.iter().rposition(|&byte| byte == b':') else { return (host, None) };
    let (name, port) = (&host[..colon], &host[colon + 1..]);
    match is_number(port) && !name.ends_with(b":") {
        true => (name, Some(port)),
        false => (host, None),
    }
}

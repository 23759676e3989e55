//! The messages of ASGI, between Python's dictionaries and what the server does with them.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use foldhash::HashMap;
use mfserv_h1::Name;
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};
use rustix::fs::{FileType, Mode, OFlags, fstat};

use crate::answer::{is_text, is_token, length_of};
use crate::asgi::core::Core;
use crate::connection::Connection;

/// A message of the app.
pub enum Message<'py> {
    /// The head of the answer.
    Start(Head),
    /// A head that comes before it, as bytes.
    Hint(Vec<u8>),
    /// A piece of the body, and whether another one follows.
    Piece(Bound<'py, PyBytes>, bool),
    /// A file as a piece of the body.
    File(Part, bool),
}

/// The head of an answer.
pub struct Head {
    /// Status line and fields.
    pub bytes: Vec<u8>,
    /// The status.
    pub status: u16,
    /// Content-Length.
    pub length: Option<u64>,
    /// The app wants the connection to end.
    pub closes: bool,
}

/// A part of a regular file.
pub struct Part {
    /// The file.
    pub file: OwnedFd,
    /// First byte.
    pub at: u64,
    /// How many bytes.
    pub size: u64,
}

/// What there is of the body of a request.
pub enum Body<'py> {
    /// Some of it, and whether more follows.
    Piece(Bound<'py, PyBytes>, bool),
    /// It must arrive first.
    Later,
    /// No more comes: the client is gone, or does not speak HTTP.
    Gone,
}

impl<'py> Body<'py> {
    /// Takes what was read; reads once if that is nothing. `is_answered`: the answer has begun, and
    /// nothing can be said in the middle of it.
    pub fn read(
        py: Python<'py>,
        connection: &mut Connection,
        core: &Core,
        is_answered: bool,
    ) -> Self {
        let mut has_read = false;
        loop {
            let Ok(content) = connection.content() else { return Self::Gone };
            if !content.is_empty() {
                let bytes = PyBytes::new(py, content);
                let count = content.len();
                connection.take(count);
                // The end may be there too. What is wrong behind is told next time.
                let _ = connection.content();
                return Self::Piece(bytes, !connection.is_read());
            }
            if connection.is_read() {
                return Self::Piece(PyBytes::new(py, b""), false);
            }
            if has_read {
                return Self::Later;
            }
            if connection.must_continue() && !is_answered {
                let line = b"HTTP/1.1 100 Continue\r\n\r\n";
                if connection.send(line, None, 0..0, b"").is_err() {
                    return Self::Gone;
                }
            }
            has_read = true;
            if !core.read(connection).unwrap_or(false) {
                return Self::Gone;
            }
        }
    }
}

impl<'py> Message<'py> {
    /// Reads what the app sends. `reasons`: the words after a status.
    pub fn read(message: &Bound<'py, PyAny>, reasons: &HashMap<u16, Vec<u8>>) -> PyResult<Self> {
        let py = message.py();
        let Ok(message) = message.cast::<PyDict>() else {
            let text = format!("a message must be a dict, not {}", message.get_type());
            return Err(PyTypeError::new_err(text));
        };
        let kind = needed(message, intern!(py, "type"))?;
        let kind = kind.cast::<PyString>()?;
        match kind.to_str()? {
            "http.response.body" => Self::piece(message),
            "http.response.start" => Ok(Self::Start(Head::read(message, reasons)?)),
            "http.response.pathsend" => {
                let path: PathBuf = needed(message, intern!(py, "path"))?.extract()?;
                // A pipe would have to be opened at its other end too.
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = py.detach(|| rustix::fs::open(&path, flags, Mode::empty()));
                let file = file.map_err(|error| of_path(error.into(), &path))?;
                Ok(Self::File(Part::of(file, 0, None)?, false))
            }
            "http.response.zerocopysend" => Ok(Self::File(zero_copy(message)?, more(message)?)),
            "http.response.early_hint" => {
                let mut head = b"HTTP/1.1 103 Early Hints\r\n".to_vec();
                for link in needed(message, intern!(py, "links"))?.try_iter()? {
                    let link = bytes_of(link?)?;
                    put(&mut head, b"Link", link.as_bytes())?;
                }
                head.extend_from_slice(b"\r\n");
                Ok(Self::Hint(head))
            }
            other => {
                let text = format!("the server knows no message '{other}' of a response");
                Err(PyRuntimeError::new_err(text))
            }
        }
    }

    /// A piece of a body.
    pub fn piece(message: &Bound<'py, PyDict>) -> PyResult<Self> {
        let py = message.py();
        let piece = match message.get_item(intern!(py, "body"))? {
            None => PyBytes::new(py, b""),
            Some(body) => bytes_of(body)?,
        };
        Ok(Self::Piece(piece, more(message)?))
    }

    /// Its type.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Start(_) => "http.response.start",
            Self::Hint(_) => "http.response.early_hint",
            Self::Piece(..) => "http.response.body",
            Self::File(..) => "a file",
        }
    }

    /// How many bytes of a body it has.
    pub fn size(&self) -> usize {
        match self {
            Self::Piece(piece, _) => piece.as_bytes().len(),
            Self::File(part, _) => part.size as usize,
            Self::Start(_) | Self::Hint(_) => 0,
        }
    }
}

impl Head {
    /// What a message of the app says.
    pub fn read(message: &Bound<'_, PyDict>, reasons: &HashMap<u16, Vec<u8>>) -> PyResult<Self> {
        let py = message.py();
        let status: u16 = needed(message, intern!(py, "status"))?.extract()?;
        if !(200..=999).contains(&status) {
            let text = format!("the status must be from 200 to 999, not {status}");
            return Err(PyValueError::new_err(text));
        }
        if message.get_item(intern!(py, "trailers"))?.map_or(Ok(false), |it| it.is_truthy())? {
            let text = "the server sends no trailers: 'http.response.trailers' is not in the scope";
            return Err(PyRuntimeError::new_err(text));
        }
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(format!("HTTP/1.1 {status} ").as_bytes());
        bytes.extend_from_slice(reasons.get(&status).map_or(&[][..], Vec::as_slice));
        bytes.extend_from_slice(b"\r\n");
        let mut head = Self { bytes, status, length: None, closes: false };
        head.fields(message)?;
        Ok(head)
    }

    /// The head of a handshake, to whose `bytes` the app adds fields.
    pub fn of_handshake(bytes: Vec<u8>, message: &Bound<'_, PyDict>) -> PyResult<Vec<u8>> {
        let mut head = Self { bytes, status: 101, length: None, closes: false };
        head.fields(message)?;
        head.bytes.extend_from_slice(b"\r\n");
        Ok(head.bytes)
    }

    fn fields(&mut self, message: &Bound<'_, PyDict>) -> PyResult<()> {
        match message.get_item(intern!(message.py(), "headers"))? {
            None => Ok(()),
            Some(headers) => match headers.cast_exact::<PyList>() {
                Ok(list) => list.iter().try_for_each(|pair| self.field(&pair)),
                Err(_) => headers.try_iter()?.try_for_each(|pair| self.field(&pair?)),
            },
        }
    }

    /// Adds one field. What would end the field is refused; what is the server's to say is
    /// dropped, as other servers do: apps set Connection and Transfer-Encoding.
    fn field(&mut self, pair: &Bound<'_, PyAny>) -> PyResult<()> {
        if pair.len()? != 2 {
            return Err(PyTypeError::new_err(format!("a header must be a pair, not {pair:?}")));
        }
        let (name, value) = (bytes_of(pair.get_item(0)?)?, bytes_of(pair.get_item(1)?)?);
        let (name, value) = (name.as_bytes(), value.as_bytes().trim_ascii());
        match Name::of(name) {
            Name::Connection => {
                self.closes |= value.eq_ignore_ascii_case(b"close");
                return Ok(());
            }
            Name::KeepAlive | Name::TransferEncoding | Name::Upgrade | Name::Dropped => {
                return Ok(());
            }
            // A handshake has no body, and extensions are not offered.
            _ if self.status == 101 && is_of_handshake(name) => return Ok(()),
            Name::ContentLength => {
                let length = length_of(value).filter(|_| self.length.is_none());
                let shown = String::from_utf8_lossy(value);
                let wrong = || format!("Content-Length must be one number, not {shown:?}");
                self.length = Some(length.ok_or_else(|| PyValueError::new_err(wrong()))?);
            }
            _ => {}
        }
        put(&mut self.bytes, name, value)
    }
}

impl Part {
    /// A part of an open file; to its end without `size`.
    fn of(file: OwnedFd, at: u64, size: Option<u64>) -> PyResult<Self> {
        let found = fstat(&file).map_err(std::io::Error::from)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Err(PyOSError::new_err("only regular files can be sent so"));
        }
        let left = u64::try_from(found.st_size).unwrap_or(0).saturating_sub(at);
        match size {
            Some(size) if size > left => {
                let text = format!("the file has only {left} bytes from {at} on, not {size}");
                Err(PyValueError::new_err(text))
            }
            _ => Ok(Self { file, at, size: size.unwrap_or(left) }),
        }
    }
}

/// As `os.sendfile`: without an offset from the position of the file on, which moves.
fn zero_copy(message: &Bound<'_, PyDict>) -> PyResult<Part> {
    let py = message.py();
    let file_object = needed(message, intern!(py, "file"))?;
    let number: i32 = file_object.call_method0(intern!(py, "fileno"))?.extract()?;
    if number < 0 {
        return Err(PyValueError::new_err("the file is closed"));
    }
    let given = |name| match message.get_item(name)? {
        Some(number) if !number.is_none() => number.extract::<u64>().map(Some),
        _ => Ok(None),
    };
    let offset = given(intern!(py, "offset"))?;
    let at = match offset {
        Some(at) => at,
        None => file_object.call_method0(intern!(py, "tell"))?.extract()?,
    };
    let size = given(intern!(py, "count"))?;
    // SAFETY: the file of Python is open, and this call holds it and the interpreter.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let file = rustix::io::fcntl_dupfd_cloexec(borrowed, 0).map_err(std::io::Error::from)?;
    let part = Part::of(file, at, size)?;
    if offset.is_none() {
        file_object.call_method1(intern!(py, "seek"), (part.at + part.size,))?;
    }
    Ok(part)
}

fn is_of_handshake(name: &[u8]) -> bool {
    ["content-length", "sec-websocket-accept", "sec-websocket-extensions"]
        .iter()
        .any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
}

/// What a message must have.
pub fn needed<'py>(
    message: &Bound<'py, PyDict>,
    name: &Bound<'py, PyString>,
) -> PyResult<Bound<'py, PyAny>> {
    message.get_item(name)?.ok_or_else(|| {
        PyValueError::new_err(format!("a message has no '{name}': {:?}", message.keys()))
    })
}

fn more(message: &Bound<'_, PyDict>) -> PyResult<bool> {
    let more = message.get_item(intern!(message.py(), "more_body"))?;
    more.map_or(Ok(false), |more| more.is_truthy())
}

/// `bytes`, or a copy of what is like it.
pub fn bytes_of(value: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyBytes>> {
    let value = match value.cast_into_exact::<PyBytes>() {
        Ok(bytes) => return Ok(bytes),
        Err(error) => error.into_inner(),
    };
    let py = value.py();
    let is_like = |name| value.get_type().name().is_ok_and(|found| found == name);
    if value.is_instance_of::<PyBytes>() || is_like("bytearray") || is_like("memoryview") {
        return Ok(py.get_type::<PyBytes>().call1((value,))?.cast_into()?);
    }
    Err(PyTypeError::new_err(format!("ASGI wants bytes here, not {}", value.get_type())))
}

fn put(head: &mut Vec<u8>, name: &[u8], value: &[u8]) -> PyResult<()> {
    let shown = String::from_utf8_lossy(name);
    if name.is_empty() || !name.iter().all(is_token) {
        return Err(PyValueError::new_err(format!("{shown:?} is no name of a header")));
    }
    if !is_text(value) {
        let value = String::from_utf8_lossy(value);
        let text = format!("the header {shown} has a control character in its value {value:?}");
        return Err(PyValueError::new_err(text));
    }
    for part in [name, b": ", value, b"\r\n"] {
        head.extend_from_slice(part);
    }
    Ok(())
}

fn of_path(error: std::io::Error, path: &std::path::Path) -> PyErr {
    let text = format!("{} can not be sent: {error}", path.display());
    match error.kind() {
        std::io::ErrorKind::NotFound => pyo3::exceptions::PyFileNotFoundError::new_err(text),
        _ => PyOSError::new_err(text),
    }
}

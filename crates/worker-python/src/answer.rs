//! The head of an answer, and how its body is framed.

use mfserv_h1::{Name, Refusal};
use pyo3::exceptions::{PyAssertionError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use crate::text::put_latin1;

/// What is known of the request that is answered.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// The method is HEAD.
    pub is_head: bool,
    /// HTTP/1.1, else 1.0.
    pub is_1_1: bool,
}

/// An answer, from `start_response` to its last byte.
pub struct Answer {
    asked: Asked,
    /// Status line and fields; empty = `start_response` was not called.
    head: Vec<u8>,
    status: u16,
    /// The head was sent.
    pub is_sent: bool,
    /// Content-Length.
    length: Option<u64>,
    /// How much of the body was accepted.
    accepted: u64,
    is_chunked: bool,
    /// The app made more body than Content-Length says.
    pub is_too_long: bool,
}

impl Answer {
    /// No answer yet.
    pub fn new(asked: Asked) -> Self {
        Self {
            asked,
            head: Vec::new(),
            status: 0,
            is_sent: false,
            length: None,
            accepted: 0,
            is_chunked: false,
            is_too_long: false,
        }
    }

    /// True once `start_response` was called.
    pub fn is_set(&self) -> bool {
        self.is_sent || !self.head.is_empty()
    }

    /// What `start_response` is called with.
    pub fn set(
        &mut self,
        status: &Bound<'_, PyAny>,
        headers: &Bound<'_, PyAny>,
        replaces: bool,
    ) -> PyResult<()> {
        if self.is_set() && !replaces {
            let message = "start_response was called a second time without exc_info";
            return Err(PyAssertionError::new_err(message));
        }
        let mut head = b"HTTP/1.1 ".to_vec();
        put_latin1(&mut head, status, "the status")?;
        let code = status_code(&head[9..]).ok_or_else(|| {
            let message = format!(
                "the status {status} must be three digits from 200 on, a space and a reason, \
                 as 200 OK"
            );
            PyValueError::new_err(message)
        })?;
        // The space belongs to the line, the reason may be empty (RFC 9112, 4).
        head.extend_from_slice(if head.len() == 12 { b" \r\n" } else { b"\r\n" });
        let (mut said, fields_at) = (Said::default(), head.len());
        if let Ok(list) = headers.cast::<PyList>() {
            list.iter().try_for_each(|pair| put_field(&mut head, &pair, &mut said))?;
        } else if let Ok(tuple) = headers.cast::<PyTuple>() {
            tuple.iter().try_for_each(|pair| put_field(&mut head, &pair, &mut said))?;
        } else {
            let message = format!("the headers must be a list, not {}", headers.get_type());
            return Err(PyTypeError::new_err(message));
        }
        if said.length.is_some() && said.names_file {
            // It is the length of the file, which the front sends: the app makes no content.
            remove_length(&mut head, fields_at);
            said.length = None;
        }
        (self.head, self.status, self.length) = (head, code, said.length);
        Ok(())
    }

    /// The head that an ASGI app has sent: status line and fields, checked.
    pub fn set_head(&mut self, head: Vec<u8>, status: u16, length: Option<u64>) {
        (self.head, self.status, self.length) = (head, status, length);
    }

    /// True if the client speaks HTTP/1.1.
    pub fn asked_1_1(&self) -> bool {
        self.asked.is_1_1
    }

    /// An answer of the server itself, in place of the one of the app that was not sent.
    pub fn replace(&mut self, status: &str, code: u16, length: usize) {
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n"
        );
        *self = Self::new(self.asked);
        (self.head, self.status, self.length) = (head.into_bytes(), code, Some(length as u64));
    }

    /// The head is sent now. `total`: the size of the body, if it is known; `ends`: the
    /// connection ends with this answer, also where its framing needs that.
    pub fn begin(&mut self, total: Option<u64>, ends: &mut bool) -> Vec<u8> {
        let mut head = std::mem::take(&mut self.head);
        self.is_sent = true;
        match (self.length, total) {
            (None, Some(total)) if self.may_have_length() => {
                head.extend_from_slice(format!("Content-Length: {total}\r\n").as_bytes());
                self.length = Some(total);
            }
            (None, None) if self.has_body() && self.asked.is_1_1 => {
                head.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
                self.is_chunked = true;
            }
            (None, None) if self.has_body() => *ends = true,
            _ => {}
        }
        if *ends {
            head.extend_from_slice(b"Connection: close\r\n");
        } else if !self.asked.is_1_1 {
            head.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        head.extend_from_slice(b"\r\n");
        head
    }

    fn may_have_length(&self) -> bool {
        self.status >= 200 && self.status != 204 && self.status != 304
    }

    /// True if bytes follow the head.
    pub fn has_body(&self) -> bool {
        self.may_have_length() && !self.asked.is_head
    }

    /// How much of `size` more bytes is sent.
    pub fn accept(&mut self, size: u64) -> u64 {
        let taken = size.min(self.missing());
        self.is_too_long |= size > taken;
        let sent = self.takes(size);
        self.accepted += taken;
        sent
    }

    /// How much of `size` more bytes would be sent.
    pub fn takes(&self, size: u64) -> u64 {
        if self.has_body() { size.min(self.missing()) } else { 0 }
    }

    fn missing(&self) -> u64 {
        self.length.map_or(u64::MAX, |length| length.saturating_sub(self.accepted))
    }

    /// True if nothing follows so many bytes of a body that begins with them.
    pub fn is_all(&self, size: u64) -> bool {
        !self.has_body() || self.length.is_some_and(|length| length <= size)
    }

    /// True if the body comes in chunks.
    pub fn is_chunked(&self) -> bool {
        self.is_chunked
    }

    /// True if all was accepted that Content-Length says.
    pub fn is_complete(&self) -> bool {
        self.length.is_some_and(|length| self.accepted >= length)
    }

    /// True if the client misses something that Content-Length says.
    pub fn is_short(&self) -> bool {
        self.has_body() && self.length.is_some_and(|length| self.accepted < length)
    }
}

/// The answer to what is no request.
pub fn refused(refusal: &Refusal) -> String {
    let reason = match refusal.status {
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        505 => "HTTP Version Not Supported",
        _ => "Bad Request",
    };
    format!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{}",
        refusal.status,
        refusal.reason.len(),
        refusal.reason
    )
}

/// The code of `200 OK`; those below 200 end no request.
fn status_code(text: &[u8]) -> Option<u16> {
    let (code, reason) = text.split_at_checked(3)?;
    let is_text = |&byte: &u8| byte == b'\t' || byte >= b' ' && byte != 0x7f;
    let is_good = code.iter().all(u8::is_ascii_digit)
        && code[0] >= b'2'
        && reason.first().is_none_or(|&first| first == b' ')
        && reason.iter().all(is_text);
    is_good.then(|| code.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')))
}

/// What the fields of a head have said.
#[derive(Default)]
struct Said {
    length: Option<u64>,
    /// The front is asked to send a file.
    names_file: bool,
}

/// Adds one field. What would end the field, or is the server's to say, is refused.
fn put_field(head: &mut Vec<u8>, pair: &Bound<'_, PyAny>, said: &mut Said) -> PyResult<()> {
    let parts = match (pair.cast::<PyTuple>(), pair.cast::<PyList>()) {
        (Ok(tuple), _) => tuple.clone(),
        (_, Ok(list)) => list.to_tuple(),
        _ => {
            let message = format!("a header must be a tuple, not {}", pair.get_type());
            return Err(PyTypeError::new_err(message));
        }
    };
    let (name, value) = parts.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
    let start = head.len();
    put_latin1(head, &name, "the name of a header")?;
    let colon = head.len();
    head.extend_from_slice(b": ");
    put_latin1(head, &value, "the value of a header")?;
    let (written, text) = (&head[start..colon], &head[colon + 2..]);
    if written.is_empty() || !written.iter().all(is_token) {
        return Err(PyValueError::new_err(format!("{name:?} is no name of a header")));
    }
    if !is_text(text) {
        let message = format!("the header {name} has a control character in its value {value:?}");
        return Err(PyValueError::new_err(message));
    }
    match Name::of(written) {
        Name::ContentLength => {
            let size = length_of(text);
            if size.is_none() || said.length.is_some() {
                let message = format!("Content-Length must be one number, not {value:?}");
                return Err(PyValueError::new_err(message));
            }
            said.length = size;
        }
        Name::SendFile => said.names_file = true,
        Name::Connection
        | Name::KeepAlive
        | Name::TransferEncoding
        | Name::Upgrade
        | Name::Dropped => {
            let message =
                format!("the header {name} is of the connection: the server's to say (PEP 3333)");
            return Err(PyValueError::new_err(message));
        }
        _ => {}
    }
    head.extend_from_slice(b"\r\n");
    Ok(())
}

/// Takes Content-Length out of the fields, which begin at `from`.
fn remove_length(head: &mut Vec<u8>, from: usize) {
    let fields = head.split_off(from);
    let is_kept = |line: &&[u8]| {
        let end = line.iter().position(|&byte| byte == b':').unwrap_or(0);
        Name::of(&line[..end]) != Name::ContentLength
    };
    let lines = fields.split_inclusive(|&byte| byte == b'\n');
    lines.filter(is_kept).for_each(|line| head.extend_from_slice(line));
}

/// The number in Content-Length.
pub fn length_of(text: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(text).ok().filter(|text| {
        text.len() < 19 && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
    });
    digits?.parse().ok()
}

/// True if the value of a field has no control character.
pub fn is_text(text: &[u8]) -> bool {
    !text.iter().any(|&byte| byte < b' ' && byte != b'\t' || byte == 0x7f)
}

/// A character of a token (RFC 9110, 5.6.2).
pub fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

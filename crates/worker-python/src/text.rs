//! Text of WSGI: `str` in which each character stands for one byte (PEP 3333).

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;

/// The most names of fields that are remembered: clients may send any.
pub const NAMES: usize = 512;
/// The longest one of them, bytes.
pub const NAME_MAX: usize = 64;
/// The longest text that is kept for the next request, bytes.
const KEPT: usize = 512;

/// Bytes as such a `str`.
pub fn latin1<'py>(py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyString> {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => PyString::new(py, text),
        _ => PyString::new(py, &bytes.iter().copied().map(char::from).collect::<String>()),
    }
}

/// Adds the bytes of such a `str`; `what` names it in the error.
pub fn put_latin1(out: &mut Vec<u8>, text: &Bound<'_, PyAny>, what: &str) -> PyResult<()> {
    let Ok(text) = text.cast::<PyString>() else {
        return Err(PyTypeError::new_err(format!("{what} must be a str, not {}", text.get_type())));
    };
    let text = text.to_str()?;
    if text.is_ascii() {
        out.extend_from_slice(text.as_bytes());
        return Ok(());
    }
    for character in text.chars() {
        let byte = u8::try_from(u32::from(character)).map_err(|_| {
            PyValueError::new_err(format!("{what} has a character that is not of ISO-8859-1"))
        })?;
        out.push(byte);
    }
    Ok(())
}

/// The `str` of the last request, for a text that is often the same again.
#[derive(Default)]
pub struct Last {
    bytes: Vec<u8>,
    text: Option<Py<PyString>>,
}

impl Last {
    /// The `str` of these bytes.
    pub fn of<'py>(&mut self, py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyString> {
        if let Some(text) = self.text.as_ref().filter(|_| self.bytes == bytes) {
            return text.bind(py).clone();
        }
        let text = latin1(py, bytes);
        if bytes.len() <= KEPT {
            self.bytes.clear();
            self.bytes.extend_from_slice(bytes);
            self.text = Some(text.clone().unbind());
        }
        text
    }
}

/// Bytes with each `%XX` replaced by the byte that it stands for.
pub fn percent_decoded(bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digit = |at: usize| char::from(*bytes.get(at)?).to_digit(16);
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

/// Bytes with each one that is not ASCII as `%XX`.
pub fn percent_encoded(bytes: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(bytes.len());
    for &byte in bytes {
        match byte.is_ascii() {
            true => encoded.push(byte),
            false => encoded.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
    encoded
}

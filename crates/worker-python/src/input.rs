//! `wsgi.input`: the body of a request, read from the connection when the app asks for it.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::exchange::{Exchange, Live};

/// The body of one request. Once the request is over, it can not be read any more.
#[pyclass(frozen, module = "_mfserv_worker")]
pub struct Input {
    /// `None` = the request has no body.
    exchange: Option<Py<Exchange>>,
}

impl Input {
    /// The body of the request of this exchange.
    pub fn of(exchange: Option<Py<Exchange>>) -> Self {
        Self { exchange }
    }

    /// Takes bytes until there are `size`, or `found` says that these are enough.
    fn gather(&self, py: Python<'_>, size: Option<usize>, line: bool) -> PyResult<Vec<u8>> {
        let Some(exchange) = &self.exchange else { return Ok(Vec::new()) };
        exchange.get().with(|live| gather(py, live, size.unwrap_or(usize::MAX), line))
    }
}

fn gather(py: Python<'_>, live: &mut Live, size: usize, line: bool) -> PyResult<Vec<u8>> {
    let mut taken = Vec::new();
    while taken.len() < size {
        let content = live.content(py)?;
        if content.is_empty() {
            break;
        }
        let most = &content[..content.len().min(size - taken.len())];
        let end = match line {
            true => most.iter().position(|&byte| byte == b'\n').map(|at| at + 1),
            false => None,
        };
        let part = &most[..end.unwrap_or(most.len())];
        taken.extend_from_slice(part);
        let count = part.len();
        live.take(count);
        if end.is_some() {
            break;
        }
    }
    Ok(taken)
}

/// A size as Python's files take it: `None` or below 0 is all.
fn size_of(size: Option<isize>) -> Option<usize> {
    size.and_then(|size| usize::try_from(size).ok())
}

#[pymethods]
impl Input {
    /// At most `size` bytes of the body; fewer only at its end.
    #[pyo3(signature = (size = None, /))]
    fn read<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.gather(py, size_of(size), false)?))
    }

    /// One line, at most `size` bytes of it.
    #[pyo3(signature = (size = None, /))]
    fn readline<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.gather(py, size_of(size), true)?))
    }

    /// All lines; with `hint`, no other line once they have so many bytes.
    #[pyo3(signature = (hint = None, /))]
    fn readlines<'py>(&self, py: Python<'py>, hint: Option<isize>) -> PyResult<Bound<'py, PyList>> {
        let enough = size_of(hint).filter(|&hint| hint > 0).unwrap_or(usize::MAX);
        let lines = PyList::empty(py);
        let mut total = 0;
        while total < enough {
            let line = self.gather(py, None, true)?;
            if line.is_empty() {
                break;
            }
            total += line.len();
            lines.append(PyBytes::new(py, &line))?;
        }
        Ok(lines)
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let line = self.gather(py, None, true)?;
        Ok((!line.is_empty()).then(|| PyBytes::new(py, &line)))
    }

    /// Closes nothing: the connection is the server's.
    fn close(&self) {}
}

/// The error of an object of a request that is used after it.
pub fn over() -> PyErr {
    PyValueError::new_err("the request is over: its input and start_response belong to it alone")
}

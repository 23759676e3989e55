//! `wsgi.input`: the body of a request, read from the connection when the app asks for it.
//!
//! A body of at most [`WHOLE_MAX`] bytes whose length is known is there as a whole when the app
//! is called: it is an `io.BytesIO`, not of this type.

use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyMemoryView, PySlice};

use crate::exchange::Exchange;

/// The most of a body that is read before the app is called, bytes.
pub const WHOLE_MAX: u64 = 64 * 1024;

/// The body of one request, as a file that can only be read. Once the request is over, it can
/// not be read any more.
#[pyclass(frozen, module = "_mfserv_worker")]
pub struct Input {
    exchange: Py<Exchange>,
}

impl Input {
    /// The body of the request of this exchange.
    pub fn of(exchange: Py<Exchange>) -> Self {
        Self { exchange }
    }

    /// Takes bytes until there are `size`, or a line is whole.
    fn gather(&self, py: Python<'_>, size: Option<usize>, line: bool) -> PyResult<Vec<u8>> {
        let size = size.unwrap_or(usize::MAX);
        let mut taken = Vec::new();
        while taken.len() < size && self.part(py, &mut taken, size, line)? {}
        Ok(taken)
    }

    /// Takes what is there, up to `size` bytes in all. Returns whether there may be more.
    fn part(&self, py: Python<'_>, taken: &mut Vec<u8>, size: usize, line: bool) -> PyResult<bool> {
        let exchange = self.exchange.get();
        exchange.fill(py)?;
        exchange.with(|live| {
            let content = live.body()?;
            let most = &content[..content.len().min(size - taken.len())];
            let end = match line {
                true => most.iter().position(|&byte| byte == b'\n').map(|at| at + 1),
                false => None,
            };
            let count = end.unwrap_or(most.len());
            taken.extend_from_slice(&most[..count]);
            live.connection.take(count);
            Ok(count > 0 && end.is_none())
        })
    }
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
        let exchange = self.exchange.get();
        let size = size_of(size);
        match exchange.with(|live| Ok(live.connection.left()))? {
            // no second copy of a large body
            Some(left) => {
                let count = size.unwrap_or(usize::MAX).min(usize::try_from(left)?);
                PyBytes::new_with(py, count, |space| exchange.fill_exactly(py, space))
            }
            None => Ok(PyBytes::new(py, &self.gather(py, size, false)?)),
        }
    }

    /// At most `size` bytes of the body, without waiting for more than the first.
    #[pyo3(signature = (size = None, /))]
    fn read1<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let mut taken = Vec::new();
        self.part(py, &mut taken, size_of(size).unwrap_or(usize::MAX), false)?;
        Ok(PyBytes::new(py, &taken))
    }

    /// Reads into a buffer, until it is full or the body is over. Returns how many bytes.
    #[pyo3(signature = (buffer, /))]
    fn readinto(&self, py: Python<'_>, buffer: &Bound<'_, PyAny>) -> PyResult<usize> {
        let view = PyMemoryView::from(buffer)?.call_method1(intern!(py, "cast"), ("B",))?;
        let bytes = self.read(py, Some(view.len()? as isize))?;
        let count = bytes.as_bytes().len();
        view.set_item(PySlice::new(py, 0, count as isize, 1), bytes)?;
        Ok(count)
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

    fn readable(&self) -> bool {
        true
    }

    fn writable(&self) -> bool {
        false
    }

    fn seekable(&self) -> bool {
        false
    }

    fn isatty(&self) -> bool {
        false
    }

    /// Closes nothing: the connection is the server's.
    fn close(&self) {}

    fn flush(&self) {}

    #[getter]
    fn closed(&self) -> bool {
        false
    }
}

/// The error of an object of a request that is used after it.
pub fn over() -> PyErr {
    PyValueError::new_err("the request is over: its input and start_response belong to it alone")
}

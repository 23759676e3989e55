//! `wsgi.file_wrapper`: a file as the body of an answer.

use std::os::fd::{BorrowedFd, OwnedFd};

use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rustix::fs::{FileType, fstat};
use rustix::io::fcntl_dupfd_cloexec;

/// How much is read at a time, bytes, unless the app says so.
const BLOCK: isize = 64 * 1024;

/// A file, as an iterable of its blocks. The server sends a regular file without reading it.
#[pyclass(frozen, module = "_mfserv_worker")]
pub struct FileWrapper {
    file: Py<PyAny>,
    block: isize,
}

/// A part of a regular file.
pub struct Part {
    /// The file, open once more: the app closes its own.
    pub file: OwnedFd,
    /// First byte.
    pub at: u64,
    /// How many bytes.
    pub size: u64,
}

impl FileWrapper {
    /// The rest of the file, if what reads it adds nothing to what is on the disk: a file of
    /// `open`, but not a compressed one. `None` = it is to be read.
    pub fn regular(&self, py: Python<'_>) -> PyResult<Option<Part>> {
        let file = self.file.bind(py);
        let io = py.import(intern!(py, "io"))?;
        let raw_type = io.getattr(intern!(py, "FileIO"))?;
        let is = |file: &Bound<'_, PyAny>, name: &Bound<'_, PyAny>| file.get_type().is(name);
        let raw = match is(file, &io.getattr(intern!(py, "BufferedReader"))?) {
            true => file.getattr(intern!(py, "raw"))?,
            false => file.clone(),
        };
        if !is(&raw, &raw_type) {
            return Ok(None);
        }
        let number: i32 = file.call_method0(intern!(py, "fileno"))?.extract()?;
        if number < 0 {
            return Err(PyValueError::new_err("the file is closed"));
        }
        // SAFETY: the file of Python is open, and this call holds it and the interpreter.
        let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
        let found = fstat(borrowed).map_err(std::io::Error::from)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        // Files of /proc and /sys say a size that is none, and have no place on a disk.
        if found.st_size == 0 || found.st_blocks == 0 {
            return Ok(None);
        }
        let at: u64 = file.call_method0(intern!(py, "tell"))?.extract()?;
        let file = fcntl_dupfd_cloexec(borrowed, 0).map_err(std::io::Error::from)?;
        let size = u64::try_from(found.st_size).unwrap_or(0).saturating_sub(at);
        Ok(Some(Part { file, at, size }))
    }
}

#[pymethods]
impl FileWrapper {
    #[new]
    #[pyo3(signature = (file, block_size = BLOCK))]
    fn new(file: Py<PyAny>, block_size: isize) -> Self {
        Self { file, block: block_size }
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let block = self.file.bind(py).call_method1(intern!(py, "read"), (self.block,))?;
        let block = block.cast_into::<PyBytes>()?;
        Ok((!block.as_bytes().is_empty()).then_some(block))
    }

    /// Closes the file, if it can be closed.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        match self.file.bind(py).getattr_opt(intern!(py, "close"))? {
            Some(close) => close.call0().map(drop),
            None => Ok(()),
        }
    }
}

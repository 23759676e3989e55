//! FIFOs: what is in one is looked at without taking it out, and taken out without looking.

use std::fs;
use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, splice, tee};

/// A line that is so long is handed on without its end, bytes.
pub(super) const LONG_LINE: usize = 64 * 1024;

/// What one look at a FIFO found.
pub(super) enum Found {
    Nothing,
    /// So many bytes.
    Lines(usize),
    /// Only a line without an end.
    Partial,
    /// Empty, and nobody can write to it any more.
    End,
}

/// Copies the front of the FIFO into `buffer`, as much as it has room for, without taking it out.
pub(super) fn look(
    fifo: &OwnedFd,
    all: bool,
    scratch: &(OwnedFd, OwnedFd),
    buffer: &mut Vec<u8>,
) -> Found {
    buffer.clear();
    let copied = match tee(fifo, &scratch.1, buffer.capacity(), SpliceFlags::NONBLOCK) {
        Ok(0) => return Found::End,
        Ok(count) => count,
        Err(_) => return Found::Nothing,
    };
    while buffer.len() < copied {
        match rustix::io::read(&scratch.0, spare_capacity(buffer)) {
            Ok(0) | Err(Errno::AGAIN) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => break,
        }
    }
    let count = buffer.len();
    match buffer.iter().rposition(|&b| b == b'\n') {
        _ if all => Found::Lines(count),
        Some(end) => Found::Lines(end + 1),
        None if count >= LONG_LINE => Found::Lines(count),
        None => Found::Partial,
    }
}

/// Takes bytes out of the front of a FIFO without looking at them.
pub(super) fn remove(fifo: &OwnedFd, mut count: usize, nowhere: &fs::File) {
    while count > 0 {
        match splice(fifo, None, nowhere, None, count, SpliceFlags::NONBLOCK) {
            Ok(0) => return,
            Ok(taken) => count -= taken,
            Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// Makes a pipe hold more, where the system allows it.
pub(super) fn widen(pipe: &OwnedFd, wanted: usize) {
    let mut size = wanted;
    while size > LONG_LINE && fcntl_getpipe_size(pipe).is_ok_and(|now| now < size) {
        if fcntl_setpipe_size(pipe, size).is_ok() {
            return;
        }
        size /= 2;
    }
}

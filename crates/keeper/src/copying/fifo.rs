//! FIFOs: what is in one is looked at without taking it out, and taken out without looking.

use std::fs;
use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, splice, tee};

/// A line that is so long is handed on without its end, bytes; a shorter one too, if it fills
/// half of what the FIFO holds.
pub(super) const LONG_LINE: usize = 64 * 1024;

/// What one look at a FIFO found.
pub(super) enum Found {
    Nothing,
    /// So many bytes.
    Lines(usize),
    /// Only a line without an end, of so many bytes.
    Partial(usize),
    /// Empty, and nobody can write to it any more.
    End,
}

/// Copies the front of the FIFO into `buffer`, as much as it has room for, without taking it out.
/// `all`: also a line without an end.
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
        None if count >= LONG_LINE || fills(count, fifo, &scratch.1) => Found::Lines(count),
        None => Found::Partial(count),
    }
}

/// True if so many bytes may fill one of these pipes, so that whoever writes to the FIFO waits: the
/// pages of a full pipe have at least half of what they could. A process may have made its own
/// FIFO smaller.
fn fills(count: usize, fifo: &OwnedFd, scratch: &OwnedFd) -> bool {
    [fifo, scratch].iter().any(|pipe| fcntl_getpipe_size(pipe).is_ok_and(|size| count >= size / 2))
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

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};

    fn pipe(size: usize) -> (OwnedFd, OwnedFd) {
        let (from, to) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        fcntl_setpipe_size(&to, size).unwrap();
        (from, to)
    }

    /// Fills a FIFO with a line without an end; true if it is handed on.
    fn is_handed_on(fifo: usize, scratch: usize, pieces: &[usize]) -> bool {
        let (fifo, scratch) = (pipe(fifo), pipe(scratch));
        for length in pieces.iter().cycle() {
            if rustix::io::write(&fifo.1, &vec![b'x'; *length]).is_err() {
                break;
            }
        }
        let found = look(&fifo.0, false, &scratch, &mut Vec::with_capacity(LONG_LINE));
        matches!(found, Found::Lines(_))
    }

    #[test]
    fn a_line_that_fills_its_fifo_does_not_wait_for_its_end_however_small_the_fifo_is() {
        // A user with many pipes gets such small ones.
        for (fifo, scratch) in [(8192, 65536), (65536, 8192), (8192, 8192), (65536, 65536)] {
            for pieces in [&[1000][..], &[4096], &[3000], &[1, 4096], &[2100, 2000]] {
                assert!(is_handed_on(fifo, scratch, pieces), "{fifo} {scratch} {pieces:?}");
            }
        }
        let (fifo, scratch) = (pipe(8192), pipe(8192));
        rustix::io::write(&fifo.1, b"half a line").unwrap();
        let mut buffer = Vec::with_capacity(LONG_LINE);
        assert!(matches!(look(&fifo.0, false, &scratch, &mut buffer), Found::Partial(11)));
    }
}

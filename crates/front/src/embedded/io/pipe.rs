//! Kernel pipes, through which large bodies go from socket to socket without a copy
//! (splice(2)).

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use tokio::io::Interest;

use super::wire::Wire;

/// A body with at least this many bytes to come goes through a pipe. For a shorter one
/// the additional system calls cost more than copying.
pub const WORTH_IT: u64 = 64 * 1024;
/// How many bytes are moved at a time: what fits into one packet of 64 KiB (at most 17
/// pages), even if both ends lie within a page. More would be sent as two packets, and
/// the second one often waits for a timer.
const PIECE: usize = 56 * 1024;
/// The wanted capacity of a pipe, bytes. It is larger than [`PIECE`] because a piece may
/// have more parts than pages. If the system grants less, that is used.
const CAPACITY: usize = 128 * 1024;
/// The most pipes that a lane has open; further bodies are copied. A pipe is held only
/// while a client has not taken its content yet.
const OPEN_MAX: usize = 128;
/// How many unused pipes a lane keeps open.
const KEPT: usize = 8;

#[derive(Default)]
struct Pool {
    unused: Vec<(OwnedFd, OwnedFd)>,
    open: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

/// A pipe of the lane's pool.
#[derive(Debug)]
pub struct Pipe {
    ends: Option<(OwnedFd, OwnedFd)>,
    held: usize,
}

impl Pipe {
    /// An empty pipe. `None` if [`OPEN_MAX`] are open, or if the system gives none.
    pub fn take() -> Option<Self> {
        POOL.with_borrow_mut(|pool| {
            if let Some(ends) = pool.unused.pop() {
                return Some(Self { ends: Some(ends), held: 0 });
            }
            if pool.open >= OPEN_MAX {
                return None;
            }
            let ends = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
            // A smaller pipe does as well.
            let _ = fcntl_setpipe_size(&ends.1, CAPACITY);
            pool.open += 1;
            Some(Self { ends: Some(ends), held: 0 })
        })
    }

    /// How many bytes are in it.
    pub fn len(&self) -> usize {
        self.held
    }

    /// True if nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Moves at most `most` bytes from a stream into the pipe. 0 means that the stream has
    /// ended. The pipe must be empty: splice(2) gives the same error for a full pipe and
    /// for a stream without anything to read.
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &Wire,
        most: u64,
    ) -> Poll<io::Result<usize>> {
        debug_assert!(self.is_empty());
        let Some((_, entry)) = &self.ends else { return Poll::Ready(Ok(0)) };
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(PIECE);
        let count = ready!(from.poll_splice(cx, Interest::READABLE, entry, most))?;
        self.held += count;
        Poll::Ready(Ok(count))
    }

    /// Moves bytes from the pipe into a stream.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>, to: &Wire) -> Poll<io::Result<usize>> {
        let Some((exit, _)) = &self.ends else { return Poll::Ready(Ok(0)) };
        let count = ready!(to.poll_splice(cx, Interest::WRITABLE, exit, self.held))?;
        self.held = self.held.saturating_sub(count);
        Poll::Ready(Ok(count))
    }

    /// Copies the content into memory.
    pub fn read_out(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let Some((exit, _)) = &self.ends else { return Ok(0) };
        let count = rustix::io::read(exit, room)?;
        self.held = self.held.saturating_sub(count);
        Ok(count)
    }
}

/// An empty pipe goes back to the pool; another one is closed.
impl Drop for Pipe {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take() else { return };
        let reusable = self.held == 0;
        // The pool is gone while the thread ends.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if reusable && pool.unused.len() < KEPT {
                pool.unused.push(ends);
            } else {
                pool.open -= 1;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_are_bounded_and_only_empty_ones_are_used_again() {
        let mut pipes: Vec<Pipe> = std::iter::from_fn(Pipe::take).collect();
        assert_eq!(pipes.len(), OPEN_MAX);
        rustix::io::write(&pipes[0].ends.as_ref().unwrap().1, b"left").unwrap();
        pipes[0].held = 4;
        drop(pipes);
        POOL.with_borrow(|pool| assert_eq!((pool.open, pool.unused.len()), (KEPT, KEPT)));
        for mut pipe in std::iter::from_fn(Pipe::take).collect::<Vec<_>>() {
            assert!(pipe.is_empty() && pipe.read_out(&mut [0]).is_err(), "nothing is left in it");
        }
    }
}

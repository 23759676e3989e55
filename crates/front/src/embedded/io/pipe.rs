//! Pipes: through them large bodies pass from socket to socket without being copied.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use crate::embedded::io::wire::Wire;

/// Bodies with at least this much to come go through a pipe, bytes: below, its system
/// calls cost more than copying.
pub const WORTH_IT: u64 = 64 * 1024;
/// What passes at a time, bytes: what fits into one packet of 64 KiB, which has 17 pages
/// at most, also where both ends begin within a page. More would be sent as two, and the
/// second one often waits for a timer.
const PIECE: usize = 56 * 1024;
/// What a pipe is to hold, bytes: a piece has more parts than pages. If the system
/// grants less, that is used.
const CAPACITY: usize = 128 * 1024;
/// Pipes of a lane that are open at a time at most; other bodies are copied. Only what a
/// client has not taken yet stays in a pipe.
const OPEN_MAX: usize = 128;
/// Of these, how many are kept when they are not used.
const KEPT: usize = 8;

#[derive(Default)]
struct Pool {
    unused: Vec<(OwnedFd, OwnedFd)>,
    open: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

/// A pipe, from the lane's pool.
#[derive(Debug)]
pub struct Pipe {
    ends: Option<(OwnedFd, OwnedFd)>,
    held: usize,
}

impl Pipe {
    /// An empty pipe; none when there are enough, or the system gives none.
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

    /// Lets bytes in, at most `most`; the pipe must be empty, so that a full pipe is
    /// never taken for a connection without anything to read. 0: that has ended.
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &Wire,
        most: u64,
    ) -> Poll<io::Result<usize>> {
        debug_assert!(self.is_empty());
        let Some((_, entry)) = &self.ends else { return Poll::Ready(Ok(0)) };
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(PIECE);
        let count = ready!(from.poll_splice_out_of(cx, entry, most))?;
        self.held += count;
        Poll::Ready(Ok(count))
    }

    /// Lets bytes out.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>, to: &Wire) -> Poll<io::Result<usize>> {
        let Some((exit, _)) = &self.ends else { return Poll::Ready(Ok(0)) };
        let count = ready!(to.poll_splice_into(cx, exit, self.held))?;
        self.held = self.held.saturating_sub(count);
        Poll::Ready(Ok(count))
    }

    /// Takes out what is in it.
    pub fn read_out(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let Some((exit, _)) = &self.ends else { return Ok(0) };
        let count = rustix::io::read(exit, room)?;
        self.held = self.held.saturating_sub(count);
        Ok(count)
    }
}

/// Back to the pool if it is empty, else closed.
impl Drop for Pipe {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take() else { return };
        let reusable = self.held == 0;
        // Without the thread there is no pool either.
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

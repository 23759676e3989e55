//! A request that is too long for a message, and is read from the link.

use std::io;
use std::time::{Duration, Instant};

use mfserv_pull::FrameKind;
use pyo3::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::Loop;
use crate::connection::{Connection, Next};
use crate::input::WHOLE_MAX;
use crate::shared::FLUSH;

impl Loop {
    /// Tells the front that it is the turn of its request, and serves it.
    pub(super) fn serve_turn(&mut self, py: Python<'_>, link: usize, id: u64) -> PyResult<()> {
        let Some(mut connection) = self.connections[link].take() else { return Ok(()) };
        let next = match connection.say(FrameKind::Turn, id) {
            Ok(()) => self.read_turn(py, &mut connection)?,
            Err(_) => Next::End,
        };
        self.connections[link] = Some(connection);
        self.answer(py, link, next)
    }

    /// Waits for the head of the request, and for its body if that is short. [`Next::End`] if
    /// the front does not send it: it said that it would at once.
    fn read_turn(&mut self, py: Python<'_>, connection: &mut Connection) -> PyResult<Next> {
        let until = Instant::now() + FLUSH;
        loop {
            match connection.next() {
                Next::Request if connection.gathers(WHOLE_MAX) => {}
                Next::More => {}
                next => return Ok(next),
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let limit = FLUSH.as_secs();
                let message =
                    format!("a front has not sent a request whose turn it is for {limit} s");
                self.log(py, &message, None);
                return Ok(Next::End);
            }
            self.wait_for_front(py, connection, left)?;
            let is_sent = !connection.has_output() || connection.flush(py).is_ok();
            if !is_sent || !connection.read(&mut self.space).unwrap_or(false) {
                return Ok(Next::End);
            }
        }
    }

    /// Waits with the interpreter free for threads of the app.
    fn wait_for_front(
        &self,
        py: Python<'_>,
        connection: &Connection,
        left: Duration,
    ) -> PyResult<()> {
        let (socket, wake) = (connection.socket(), self.shared.wake.reader());
        let output = if connection.has_output() { PollFlags::OUT } else { PollFlags::empty() };
        let limit = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let found = py.detach(|| {
            let mut ends = [
                PollFd::from_borrowed_fd(socket, PollFlags::IN | output),
                PollFd::from_borrowed_fd(wake, PollFlags::IN),
            ];
            poll(&mut ends, Some(&limit))
        });
        if let Err(error) = found {
            if error != Errno::INTR {
                return Err(io::Error::from(error).into());
            }
        }
        self.shared.wake.clear();
        self.check_signals(py)
    }
}

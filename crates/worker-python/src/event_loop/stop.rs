//! The end of a worker that was told to stop.

use std::time::{Duration, Instant};

use pyo3::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};

use super::Loop;
use crate::shared::FLUSH;

impl Loop {
    /// Serves who had connected before the socket went away, then sends what was answered.
    pub fn finish(&mut self, py: Python<'_>) -> PyResult<()> {
        self.shared.stop();
        self.leave_queues();
        self.served = Instant::now();
        while !self.shared.is_stopped() && self.turn(py, Some(Duration::ZERO))? {}
        while self.has_work() {
            let Some(left) = self.shared.left().filter(|left| !left.is_zero()) else { break };
            self.turn(py, Some(left))?;
        }
        self.send_answers(py)
    }

    /// Messages stay for other workers. What was answered is sent.
    fn leave_queues(&mut self) {
        for link in self.queues.clear(&self.epoll) {
            match &mut self.connections[link] {
                Some(connection) if connection.has_output() => connection.ends = true,
                _ => self.end(link),
            }
        }
    }

    /// Ends the connections on which nothing has begun. Returns whether there was one.
    pub(super) fn end_idle(&mut self) -> bool {
        let mut was_any = false;
        for index in 0..self.connections.len() {
            let place = self.connections[index].as_ref();
            if place.is_some_and(|connection| !connection.is_link() && connection.is_idle()) {
                self.end(index);
                was_any = true;
            }
        }
        was_any
    }

    /// True while a request has begun to arrive, an answer was not sent, or somebody has connected
    /// who could not be accepted.
    fn has_work(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut waiting = [PollFd::new(&self.listener, PollFlags::IN)];
        self.connections.iter().flatten().any(|connection| connection.has_work())
            || self.paused.is_some() && poll(&mut waiting, Some(&now)) == Ok(1)
    }

    /// No other request begins. An answer has its time to leave from when its request was over.
    fn send_answers(&mut self, py: Python<'_>) -> PyResult<()> {
        let _ = epoll::delete(&self.epoll, &self.listener);
        self.paused = None;
        self.ready.clear();
        for index in 0..self.connections.len() {
            match &mut self.connections[index] {
                Some(connection) if connection.has_output() => connection.ends = true,
                _ => self.end(index),
            }
        }
        let until = self.served + FLUSH;
        while self.has_work() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.turn(py, Some(left))?;
        }
        Ok(())
    }
}

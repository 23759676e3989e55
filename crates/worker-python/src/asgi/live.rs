//! A request that is not answered yet: how messages of the app become bytes.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::answer::Answer;
use crate::asgi::core::Wire;
use crate::asgi::message::{Head, Message, Part};
use crate::shared::Shared;

/// A connection with a request, and its answer.
pub struct Live {
    /// The connection.
    pub wire: Wire,
    /// The answer.
    pub answer: Answer,
    /// The worker.
    pub shared: Arc<Shared>,
}

impl Live {
    /// Does what a message of the app says. The error means that the answer is cut.
    pub fn put(&mut self, py: Python<'_>, message: Message<'_>) -> std::io::Result<()> {
        let connection = &mut self.wire.connection;
        match message {
            Message::Start(Head { bytes, status, length, closes }) => {
                connection.ends |= closes;
                self.answer.set_head(bytes, status, length);
                Ok(())
            }
            Message::Hint(bytes) if self.answer.asked_1_1() => {
                connection.send(&bytes, None, 0..0, b"")
            }
            Message::Hint(_) => Ok(()),
            Message::Piece(piece, more) => self.put_piece(&piece, more),
            Message::File(part, more) => {
                self.put_file(part, more)?;
                self.wire.connection.flush(py).map(drop)
            }
        }
    }

    /// The head if it was not sent, and how much of `size` bytes follows it, in which frame.
    fn begin(&mut self, size: u64, more: bool) -> (Vec<u8>, u64, &'static [u8]) {
        let connection = &mut self.wire.connection;
        let mut before = Vec::new();
        if !self.answer.is_sent {
            // Too late to say so once the head is sent.
            connection.ends |= self.shared.is_stopping();
            connection.expect_end();
            before = self.answer.begin((!more).then_some(size), &mut connection.ends);
        }
        let count = self.answer.accept(size);
        let is_chunked = self.answer.is_chunked();
        if is_chunked && count > 0 {
            before.extend_from_slice(format!("{count:X}\r\n").as_bytes());
        }
        let after: &[u8] = match (is_chunked, count > 0, more) {
            (true, true, true) => b"\r\n",
            (true, true, false) => b"\r\n0\r\n\r\n",
            (true, false, false) => b"0\r\n\r\n",
            _ => b"",
        };
        (before, count, after)
    }

    fn put_piece(&mut self, piece: &Bound<'_, PyBytes>, more: bool) -> std::io::Result<()> {
        let (before, count, after) = self.begin(piece.as_bytes().len() as u64, more);
        self.wire.connection.send(&before, Some(piece), 0..count as usize, after)
    }

    fn put_file(&mut self, part: Part, more: bool) -> std::io::Result<()> {
        let (before, count, after) = self.begin(part.size, more);
        let connection = &mut self.wire.connection;
        connection.send(&before, None, 0..0, b"")?;
        connection.send_file(part.file, part.at, count);
        if !after.is_empty() {
            // behind the file, if it waits
            connection.put(after);
        }
        Ok(())
    }

    /// Answers in place of the app that has failed.
    pub fn refuse(&mut self, py: Python<'_>) -> std::io::Result<()> {
        self.refuse_with(py, ("500 Internal Server Error", 500), b"HTTP/500 Internal Server Error")
    }

    /// Answers in place of the app.
    pub fn refuse_with(
        &mut self,
        py: Python<'_>,
        (status, code): (&str, u16),
        text: &[u8],
    ) -> std::io::Result<()> {
        self.answer.replace(status, code, text.len());
        self.put_piece(&PyBytes::new(py, text), false)
    }
}

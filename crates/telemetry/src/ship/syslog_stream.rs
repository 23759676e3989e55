//! Messages over TCP, each with its length before it (RFC 6587, octet counting).

use std::io::{self, Write};
use std::net::TcpStream;

use super::document::Document;

/// A connection, and what of a document waits to be written to it.
pub struct Stream {
    socket: TcpStream,
    /// The id of a document that was written in part, and its rest.
    rest: Option<(String, Vec<u8>)>,
}

impl Stream {
    /// A new connection.
    pub fn new(socket: TcpStream) -> Self {
        Self { socket, rest: None }
    }

    /// The connection.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Writes documents; returns how many the system has taken. The rest of one that it has
    /// taken in part goes first the next time.
    ///
    /// # Errors
    /// What the system says when the connection has ended.
    pub fn send(&mut self, documents: &[Document]) -> io::Result<usize> {
        let mut bytes = Vec::new();
        let mut ends = Vec::with_capacity(documents.len());
        for document in documents {
            match self.rest.take() {
                Some((id, rest)) if id == document.id => bytes.extend_from_slice(&rest),
                _ => frames(document, &mut bytes),
            }
            ends.push(bytes.len());
        }
        let mut written = 0;
        while written < bytes.len() {
            match self.socket.write(&bytes[written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => break,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => return Err(why),
            }
        }
        let done = ends.partition_point(|end| *end <= written);
        if let Some(document) = documents.get(done) {
            // Also if nothing of it is written now: it may have begun the last time.
            self.rest = Some((document.id.clone(), bytes[written..ends[done]].to_vec()));
        }
        Ok(done)
    }
}

fn frames(document: &Document, bytes: &mut Vec<u8>) {
    for message in document.source.split('\n') {
        bytes.extend_from_slice(format!("{} ", message.len()).as_bytes());
        bytes.extend_from_slice(message.as_bytes());
    }
}

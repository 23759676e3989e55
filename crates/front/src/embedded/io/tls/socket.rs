//! Where a session writes to.

use std::io::{self, IoSlice, Write};

use tokio::net::TcpStream;

/// A socket that gets what a session has encrypted.
pub struct Socket<'a>(pub &'a TcpStream);

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! A byte stream to a client or a worker.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::RecvFlags;
use rustix::pipe::SpliceFlags;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

fn splice(from: impl AsFd, to: impl AsFd, most: usize) -> rustix::io::Result<usize> {
    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
    rustix::pipe::splice(from, None, to, None, most, flags)
}

/// A connection. Other kinds (TLS) join here.
#[derive(Debug)]
pub enum Wire {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a unix socket.
    Unix(UnixStream),
}

impl Wire {
    /// A connected socket that does not block, from now on known to this lane's reactor.
    pub fn adopt(socket: OwnedFd, unix: bool) -> io::Result<Self> {
        Ok(match unix {
            true => Wire::Unix(UnixStream::from_std(socket.into())?),
            false => Wire::Tcp(TcpStream::from_std(socket.into())?),
        })
    }

    /// The same connection in this lane's reactor instead of another's. None if it is
    /// of no more use, or something can be read from it.
    pub fn moved_here(self) -> Option<Self> {
        let (socket, unix): (OwnedFd, bool) = match self {
            Wire::Tcp(stream) => (stream.into_std().ok()?.into(), false),
            Wire::Unix(stream) => (stream.into_std().ok()?.into(), true),
        };
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let looked = rustix::net::recv(&socket, &mut [0u8; 1][..], flags);
        match looked {
            Err(rustix::io::Errno::AGAIN) => Self::adopt(socket, unix).ok(),
            _ => None,
        }
    }

    /// Reads into `room` (not empty); 0 means that the other side has ended. Where
    /// nothing was announced by the system, no call is made.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut target = ReadBuf::new(room);
        let done = match self {
            Wire::Tcp(stream) => Pin::new(stream).poll_read(cx, &mut target),
            Wire::Unix(stream) => Pin::new(stream).poll_read(cx, &mut target),
        };
        ready!(done)?;
        Poll::Ready(Ok(target.filled().len()))
    }

    /// Writes some of `bytes`.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Wire::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Wire::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    /// Writes some of the parts, one after the other.
    pub fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Wire::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Wire::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    /// Writes some of `bytes` that are the beginning of more: the system may hold them
    /// back until that comes.
    pub fn poll_write_ahead(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let flags = rustix::net::SendFlags::MORE | rustix::net::SendFlags::NOSIGNAL;
        self.poll_call(cx, Interest::WRITABLE, |socket| rustix::net::send(socket, bytes, flags))
    }

    /// Sends some bytes of a file, `count` at most, from `at`, which moves. 0: the file
    /// ends there.
    pub fn poll_send_file(
        &self,
        cx: &mut Context<'_>,
        file: BorrowedFd<'_>,
        at: &mut u64,
        count: usize,
    ) -> Poll<io::Result<usize>> {
        self.poll_call(cx, Interest::WRITABLE, |socket| {
            rustix::fs::sendfile(socket, file, Some(at), count)
        })
    }

    /// A call that reads or writes, as soon as the system may give or take something.
    fn poll_call(
        &self,
        cx: &mut Context<'_>,
        way: Interest,
        mut call: impl FnMut(BorrowedFd<'_>) -> rustix::io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let ready = match self {
                _ if way.is_readable() => self.poll_readable(cx),
                Wire::Tcp(stream) => stream.poll_write_ready(cx),
                Wire::Unix(stream) => stream.poll_write_ready(cx),
            };
            ready!(ready)?;
            let done = match self {
                Wire::Tcp(stream) => stream.try_io(way, || Ok(call(stream.as_fd())?)),
                Wire::Unix(stream) => stream.try_io(way, || Ok(call(stream.as_fd())?)),
            };
            match done {
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                done => return Poll::Ready(done),
            }
        }
    }

    /// Waits for something to read, without a buffer.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Wire::Tcp(stream) => stream.poll_read_ready(cx),
            Wire::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Reads what is there now, asking the system in any case.
    pub fn try_read(&self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Tcp(stream) => stream.try_read(room),
            Wire::Unix(stream) => stream.try_read(room),
        }
    }

    /// Lets bytes pass from here into a pipe with room for some. 0: the other side has
    /// ended.
    pub fn poll_splice_out_of(
        &self,
        cx: &mut Context<'_>,
        pipe: &OwnedFd,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        self.poll_call(cx, Interest::READABLE, |socket| splice(socket, pipe, most))
    }

    /// Lets bytes pass from a pipe that is not empty to here.
    pub fn poll_splice_into(
        &self,
        cx: &mut Context<'_>,
        pipe: &OwnedFd,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        self.poll_call(cx, Interest::WRITABLE, |socket| splice(pipe, socket, most))
    }

    /// Says that nothing more will be written.
    pub fn end_writing(&mut self) {
        let how = rustix::net::Shutdown::Write;
        // A connection that is gone already needs no end.
        let _ = match self {
            Wire::Tcp(stream) => rustix::net::shutdown(stream, how),
            Wire::Unix(stream) => rustix::net::shutdown(stream, how),
        };
    }

    /// Makes the coming close a reset, so that the other side does not take what it
    /// has for the whole.
    pub fn cut(&self) {
        if let Wire::Tcp(stream) = self {
            // If that is refused, the close is an ordinary one.
            let _ = stream.set_zero_linger();
        }
    }
}

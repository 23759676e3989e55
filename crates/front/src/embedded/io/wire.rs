//! The byte stream to a client or a worker.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::RecvFlags;
use rustix::pipe::{SpliceFlags, splice};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A stream of bytes both ways.
pub trait Stream {
    /// Ready when something can be read. No buffer is needed to wait with this.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Reads into `room` (not empty); 0 means that the other side has ended.
    fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Writes some of `bytes`.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;

    /// Ends the direction of writing: the other side reads an end.
    fn end_writing(&mut self);
}

/// A stream socket. Another kind of byte stream (TLS) becomes another variant.
#[derive(Debug)]
pub enum Wire {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a unix socket.
    Unix(UnixStream),
    /// Nothing comes any more, and nothing can be sent.
    Ended,
}

impl Wire {
    /// Registers a connected, non-blocking socket with the reactor of this thread.
    pub fn adopt(socket: OwnedFd, unix: bool) -> io::Result<Self> {
        Ok(match unix {
            true => Wire::Unix(UnixStream::from_std(socket.into())?),
            false => Wire::Tcp(TcpStream::from_std(socket.into())?),
        })
    }

    /// Moves the stream from the reactor of another thread to the one of this thread.
    /// `None` if the stream has ended, or if something can be read from it.
    pub fn moved_here(self) -> Option<Self> {
        let (socket, unix): (OwnedFd, bool) = match self {
            Wire::Tcp(stream) => (stream.into_std().ok()?.into(), false),
            Wire::Unix(stream) => (stream.into_std().ok()?.into(), true),
            Wire::Ended => return None,
        };
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let looked = rustix::net::recv(&socket, &mut [0u8; 1][..], flags);
        match looked {
            Err(rustix::io::Errno::AGAIN) => Self::adopt(socket, unix).ok(),
            _ => None,
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
            Wire::Ended => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Writes some of `bytes`, of which more will follow at once (`MSG_MORE`): the system
    /// may hold them back to fill a packet.
    pub fn poll_write_ahead(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let flags = rustix::net::SendFlags::MORE | rustix::net::SendFlags::NOSIGNAL;
        self.poll_call(cx, Interest::WRITABLE, |socket| rustix::net::send(socket, bytes, flags))
    }

    /// Sends at most `count` bytes of a file with sendfile(2), from `at`, which is moved
    /// on. 0 means that the file ends there.
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

    /// Makes a system call that reads or writes once the reactor says that the stream is
    /// ready for it, and again when the call says that it was not.
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
                Wire::Ended => return Poll::Ready(Ok(0)),
            };
            ready!(ready)?;
            let done = match self {
                Wire::Tcp(stream) => stream.try_io(way, || Ok(call(stream.as_fd())?)),
                Wire::Unix(stream) => stream.try_io(way, || Ok(call(stream.as_fd())?)),
                Wire::Ended => Ok(0),
            };
            match done {
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                done => return Poll::Ready(done),
            }
        }
    }

    /// Ready when something can be read. No buffer is needed to wait with this.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Wire::Tcp(stream) => stream.poll_read_ready(cx),
            Wire::Unix(stream) => stream.poll_read_ready(cx),
            Wire::Ended => Poll::Ready(Ok(())),
        }
    }

    /// Reads what has come, with a system call in any case.
    pub fn try_read(&self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Tcp(stream) => stream.try_read(room),
            Wire::Unix(stream) => stream.try_read(room),
            Wire::Ended => Ok(0),
        }
    }

    /// True if bytes have come that were not read, also if the reactor has not seen them yet.
    /// Costs a system call.
    pub fn has_unread(&self) -> bool {
        let count = match self {
            Wire::Tcp(stream) => rustix::io::ioctl_fionread(stream),
            Wire::Unix(stream) => rustix::io::ioctl_fionread(stream),
            Wire::Ended => Ok(0),
        };
        count.is_ok_and(|count| count > 0)
    }

    /// Moves bytes between this stream and a pipe inside the kernel, at most `most`.
    /// `READABLE`: from the stream into a pipe with room, and 0 means that the other side
    /// has ended. `WRITABLE`: from a pipe that is not empty into the stream.
    pub fn poll_splice(
        &self,
        cx: &mut Context<'_>,
        way: Interest,
        pipe: &OwnedFd,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        self.poll_call(cx, way, |socket| match way.is_readable() {
            true => splice(socket, None, pipe, None, most, flags),
            false => splice(pipe, None, socket, None, most, flags),
        })
    }

    /// Turns the coming close of a TCP stream into a reset, so that the other side does
    /// not take an answer that was cut short for a whole one.
    pub fn cut(&self) {
        if let Wire::Tcp(stream) = self {
            // If the system refuses that, the close is an ordinary one.
            let _ = stream.set_zero_linger();
        }
    }
}

impl Stream for Wire {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Wire::poll_readable(self, cx)
    }

    /// Makes no system call while the reactor knows that nothing has come.
    fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut target = ReadBuf::new(room);
        let done = match self {
            Wire::Tcp(stream) => Pin::new(stream).poll_read(cx, &mut target),
            Wire::Unix(stream) => Pin::new(stream).poll_read(cx, &mut target),
            Wire::Ended => Poll::Ready(Ok(())),
        };
        ready!(done)?;
        Poll::Ready(Ok(target.filled().len()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Wire::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Wire::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Wire::Ended => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn end_writing(&mut self) {
        let how = rustix::net::Shutdown::Write;
        // A stream that the other side has closed needs no end.
        let _ = match self {
            Wire::Tcp(stream) => rustix::net::shutdown(stream, how),
            Wire::Unix(stream) => rustix::net::shutdown(stream, how),
            Wire::Ended => Ok(()),
        };
    }
}

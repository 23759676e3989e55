//! The byte stream to a client or a worker.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::RecvFlags;
use rustix::pipe::{SpliceFlags, splice};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::fastcgi::FastCgi;
use super::tls::{Failure, REFUSAL, Tls, TlsStream};

/// A stream of bytes both ways.
pub trait Stream {
    /// Ready when something can be read. No buffer is needed to wait with this.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Reads into `room` (not empty); 0 means that the other side has ended.
    fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Writes some of `bytes`.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;

    /// Sends what was taken and waits inside of the stream. Ready when all is sent.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ends the direction of writing: the other side reads an end.
    fn end_writing(&mut self);
}

/// A stream socket, or what is above one.
#[derive(Debug)]
pub enum Wire {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a unix socket.
    Unix(UnixStream),
    /// Over TCP, encrypted.
    Tls(Box<TlsStream>),
    /// Over a unix socket, in the records of FastCGI.
    FastCgi(Box<FastCgi>),
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

    /// The same for a client that is to speak TLS. One that cannot be served is told so.
    pub fn adopt_tls(socket: OwnedFd, tls: &Tls) -> io::Result<Self> {
        let socket = std::net::TcpStream::from(socket);
        let Some(session) = tls.session() else {
            tls.counts.failed(Failure::NoCertificate);
            // A client that does not take this sees the end of the connection alone.
            let _ = io::Write::write(&mut &socket, &REFUSAL);
            return Err(io::Error::other("there is no certificate"));
        };
        let stream = TlsStream::new(TcpStream::from_std(socket)?, session, tls.counts.clone());
        Ok(Wire::Tls(Box::new(stream)))
    }

    /// Moves the stream from the reactor of another thread to the one of this thread.
    /// `None` if the stream has ended, or if something can be read from it.
    pub fn moved_here(self) -> Option<Self> {
        let (socket, unix): (OwnedFd, bool) = match self {
            Wire::Tcp(stream) => (stream.into_std().ok()?.into(), false),
            Wire::Unix(stream) => (stream.into_std().ok()?.into(), true),
            Wire::Tls(_) | Wire::FastCgi(_) | Wire::Ended => return None,
        };
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let looked = rustix::net::recv(&socket, &mut [0u8; 1][..], flags);
        match looked {
            Err(rustix::io::Errno::AGAIN) => Self::adopt(socket, unix).ok(),
            _ => None,
        }
    }

    /// The address of this side, over TCP.
    pub fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Wire::Tcp(stream) => stream.local_addr().ok(),
            Wire::Tls(stream) => stream.socket().local_addr().ok(),
            Wire::Unix(_) | Wire::FastCgi(_) | Wire::Ended => None,
        }
    }

    /// What is encrypted, if anything is.
    pub fn tls(&self) -> Option<&TlsStream> {
        match self {
            Wire::Tls(stream) => Some(stream),
            _ => None,
        }
    }

    /// True if bytes can go through pipes: they are the same on both sides.
    pub fn takes_pipes(&self) -> bool {
        !matches!(self, Wire::Tls(_) | Wire::FastCgi(_))
    }

    /// True if a client would perhaps not be let in now; else the calling task is woken when that
    /// changes for all.
    pub fn poll_outdated(&mut self, cx: &Context<'_>) -> bool {
        match self {
            Wire::Tls(stream) => stream.poll_outdated(cx),
            _ => false,
        }
    }

    /// How many bytes were taken and wait inside of the stream; 0 only when all are sent.
    pub fn unsent(&self) -> usize {
        self.tls().map_or(0, TlsStream::unsent)
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
            Wire::Tls(stream) => stream.poll_write_vectored(cx, parts),
            Wire::FastCgi(own) => Pin::new(&mut own.socket).poll_write_vectored(cx, parts),
            Wire::Ended => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Writes some of `bytes`, of which more will follow at once (`MSG_MORE`): the system
    /// may hold them back to fill a packet.
    pub fn poll_write_ahead(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Wire::Tls(stream) = self {
            return stream.poll_write_ahead(cx, bytes);
        }
        let flags = rustix::net::SendFlags::MORE | rustix::net::SendFlags::NOSIGNAL;
        self.poll_call(cx, Interest::WRITABLE, |socket| rustix::net::send(socket, bytes, flags))
    }

    /// Sends at most `count` bytes of a file, from `at`, which is moved on: with sendfile(2) where
    /// nothing has to be encrypted. 0 means that the file ends there.
    pub fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        file: BorrowedFd<'_>,
        at: &mut u64,
        count: usize,
    ) -> Poll<io::Result<usize>> {
        if let Wire::Tls(stream) = self {
            return stream.poll_send_file(cx, file, at, count);
        }
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
                // Its bytes are not those of the socket.
                Wire::Tls(_) | Wire::FastCgi(_) => {
                    return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
                }
                _ if way.is_readable() => self.poll_socket(cx),
                Wire::Tcp(stream) => stream.poll_write_ready(cx),
                Wire::Unix(stream) => stream.poll_write_ready(cx),
                Wire::Ended => return Poll::Ready(Ok(0)),
            };
            ready!(ready)?;
            let done = match self {
                Wire::Tcp(stream) => stream.try_io(way, || Ok(call(stream.as_fd())?)),
                Wire::Unix(stream) => stream.try_io(way, || Ok(call(stream.as_fd())?)),
                Wire::Tls(_) | Wire::FastCgi(_) | Wire::Ended => Ok(0),
            };
            match done {
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                done => return Poll::Ready(done),
            }
        }
    }

    /// Ready when something can be read from a socket whose bytes are as they are.
    fn poll_socket(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Wire::Tcp(stream) => stream.poll_read_ready(cx),
            Wire::Unix(stream) => stream.poll_read_ready(cx),
            Wire::FastCgi(own) => own.poll_readable(cx),
            Wire::Tls(_) | Wire::Ended => Poll::Ready(Ok(())),
        }
    }

    /// What a worker has said of errors, apart from its answer.
    pub fn take_said(&mut self) -> Option<Vec<u8>> {
        match self {
            Wire::FastCgi(own) => own.take_said(),
            _ => None,
        }
    }

    /// Reads what has come, with a system call in any case. Nobody is woken when more comes.
    pub fn try_read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Tls(_) | Wire::FastCgi(_) => {
                if let Wire::Tls(stream) = self {
                    stream.receive_now();
                }
                let mut cx = Context::from_waker(std::task::Waker::noop());
                match self.poll_read(&mut cx, room) {
                    Poll::Ready(done) => done,
                    Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
                }
            }
            // The `try_read` of tokio makes no call while its reactor has seen nothing.
            Wire::Tcp(stream) => Ok(rustix::net::recv(stream, room, RecvFlags::DONTWAIT)?.0),
            Wire::Unix(stream) => Ok(rustix::net::recv(stream, room, RecvFlags::DONTWAIT)?.0),
            Wire::Ended => Ok(0),
        }
    }

    /// True if bytes have come that were not read, also if the reactor has not seen them yet.
    /// Costs a system call.
    pub fn has_unread(&self) -> bool {
        let count = match self {
            Wire::Tcp(stream) => rustix::io::ioctl_fionread(stream),
            Wire::Unix(stream) => rustix::io::ioctl_fionread(stream),
            Wire::Tls(stream) => rustix::io::ioctl_fionread(stream.socket()),
            Wire::FastCgi(own) if own.has_more() => Ok(1),
            Wire::FastCgi(own) => rustix::io::ioctl_fionread(&own.socket),
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
    pub fn cut(&mut self) {
        match self {
            // If the system refuses that, the close is an ordinary one.
            Wire::Tcp(stream) => drop(stream.set_zero_linger()),
            Wire::Tls(stream) => stream.cut(),
            Wire::Unix(_) | Wire::FastCgi(_) | Wire::Ended => {}
        }
    }
}

impl Stream for Wire {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Wire::Tls(stream) => stream.poll_readable(cx),
            _ => self.poll_socket(cx),
        }
    }

    /// Makes no system call while the reactor knows that nothing has come.
    fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        if let Wire::Tls(stream) = self {
            return stream.poll_read(cx, room);
        }
        if let Wire::FastCgi(own) = self {
            return own.poll_read(cx, room);
        }
        let mut target = ReadBuf::new(room);
        let done = match self {
            Wire::Tcp(stream) => Pin::new(stream).poll_read(cx, &mut target),
            Wire::Unix(stream) => Pin::new(stream).poll_read(cx, &mut target),
            Wire::Tls(_) | Wire::FastCgi(_) | Wire::Ended => Poll::Ready(Ok(())),
        };
        ready!(done)?;
        Poll::Ready(Ok(target.filled().len()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Wire::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Wire::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Wire::Tls(stream) => stream.poll_write(cx, bytes),
            Wire::FastCgi(own) => Pin::new(&mut own.socket).poll_write(cx, bytes),
            Wire::Ended => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Wire::Tls(stream) => stream.poll_flush(cx),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn end_writing(&mut self) {
        let how = rustix::net::Shutdown::Write;
        // A stream that the other side has closed needs no end.
        let _ = match self {
            Wire::Tcp(stream) => rustix::net::shutdown(stream, how),
            Wire::Unix(stream) => rustix::net::shutdown(stream, how),
            Wire::Tls(stream) => {
                stream.end_writing();
                Ok(())
            }
            // A responder may take that for the end of the request.
            Wire::FastCgi(_) | Wire::Ended => Ok(()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_the_reactor_has_not_seen_yet_can_be_read() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (here, mut there) = std::os::unix::net::UnixStream::pair().unwrap();
            here.set_nonblocking(true).unwrap();
            let mut wire = Wire::adopt(here.into(), true).unwrap();
            let mut room = [0; 8];
            let cx = &mut Context::from_waker(std::task::Waker::noop());
            assert!(wire.poll_read(cx, &mut room).is_pending());
            there.write_all(b"late").unwrap();
            assert_eq!(wire.try_read(&mut room).unwrap(), 4);
            let why = wire.try_read(&mut room).unwrap_err();
            assert_eq!(why.kind(), io::ErrorKind::WouldBlock);
        });
    }
}

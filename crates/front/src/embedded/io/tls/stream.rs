//! A TCP connection that speaks TLS: bytes in clear for whoever reads and writes it.
//!
//! The session (rustls) does no input or output. What has come is put into it a record at a
//! time, and only while nothing that it has decrypted waits to be read; it takes at most
//! [`UNSENT_MAX`] bytes that the client has not taken yet. An idle connection has no buffer of its
//! own. The handshake goes on by itself whenever somebody waits for bytes.

use std::cell::RefCell;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::{HandshakeKind, ServerConnection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::Session;
use super::counts::{Counts, Failure};
use super::identity::Identity;
use super::socket::Socket;
use crate::embedded::io::buffer::Pooled;
use crate::embedded::io::signal::Subscription;

/// The most bytes that are encrypted and wait for the client: two records.
const UNSENT_MAX: usize = 32 * 1024;
/// The first byte of a connection that begins a handshake (RFC 8446, 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// Why a session is not resumed.
const EXPIRED: &str = "the certificate of a session that is to be resumed has expired";

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing has come yet.
    Fresh,
    /// The handshake.
    Shaking,
    /// Encrypted bytes both ways.
    Open,
    /// The client does not speak TLS: its bytes are as they are.
    Clear,
    /// The handshake failed, or what came was no TLS.
    Failed,
}

/// A connection of a client over TLS.
#[derive(Debug)]
pub struct TlsStream {
    socket: TcpStream,
    session: ServerConnection,
    phase: Phase,
    /// What has come and the session has not seen yet.
    incoming: Pooled,
    /// Bytes that are decrypted and were not read yet.
    decrypted: usize,
    /// Nothing more comes.
    ended: bool,
    /// Bytes that were taken since the client last had all, and encrypted ones that it has since.
    taken: usize,
    sent: usize,
    /// The direction of writing ends when all is sent.
    ends_writing: bool,
    /// No end is said: the client must see that something is missing.
    is_cut: bool,
    identity: Option<Arc<Identity>>,
    /// Raised when clients are vouched for by others than at the handshake.
    outdated: Subscription,
    counts: Arc<Counts>,
}

impl TlsStream {
    /// The handshake has not begun yet.
    pub fn new(socket: TcpStream, session: Session, counts: Arc<Counts>) -> Self {
        let Session { connection: mut session, outdated } = session;
        session.set_buffer_limit(Some(UNSENT_MAX));
        Self {
            socket,
            session,
            phase: Phase::Fresh,
            incoming: Pooled::default(),
            decrypted: 0,
            ended: false,
            taken: 0,
            sent: 0,
            ends_writing: false,
            is_cut: false,
            identity: None,
            outdated: Subscription::new(outdated),
            counts,
        }
    }

    /// True if the client has begun in clear, with a request of HTTP perhaps.
    pub fn is_clear(&self) -> bool {
        self.phase == Phase::Clear
    }

    /// True if the client has sent something.
    pub fn has_begun(&self) -> bool {
        self.phase != Phase::Fresh
    }

    /// Who the client is, as an authority says; known after the handshake.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        self.identity.as_ref()
    }

    /// True if the client would perhaps not be let in now: others vouch for clients than at the
    /// handshake, or its certificate has expired since.
    pub fn is_outdated(&self) -> bool {
        self.outdated.signal().is_raised() || self.identity().is_some_and(|it| it.has_expired())
    }

    /// The same; else the calling task is woken when others vouch for clients.
    pub fn poll_outdated(&mut self, cx: &Context<'_>) -> bool {
        self.outdated.is_raised(cx) || self.is_outdated()
    }

    /// How many bytes were taken and the client has still to take; 0 only when it has all.
    pub fn unsent(&self) -> usize {
        match self.session.wants_write() {
            true => self.taken.saturating_sub(self.sent).max(1),
            false => 0,
        }
    }

    /// Ready when something can be read. Sends what waits to be sent.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            // A client that does not read may send all the same.
            if let Poll::Ready(Err(why)) = self.poll_flush(cx) {
                return Poll::Ready(Err(why));
            }
            if self.decrypted > 0 || self.ended {
                return Poll::Ready(Ok(()));
            }
            match self.phase {
                Phase::Clear if !self.incoming.is_idle() => return Poll::Ready(Ok(())),
                Phase::Failed => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                Phase::Fresh | Phase::Shaking | Phase::Open if !self.incoming.is_idle() => {
                    self.decrypt()?;
                    continue;
                }
                _ => {}
            }
            self.incoming.give_back();
            ready!(self.poll_socket(cx))?;
        }
    }

    /// Reads what has come from the socket.
    fn poll_socket(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut room = ReadBuf::new(self.incoming.spare(1));
        let done = Pin::new(&mut self.socket).poll_read(cx, &mut room);
        let count = room.filled().len();
        match done {
            Poll::Pending => self.incoming.give_back(),
            Poll::Ready(Ok(())) => self.came(count),
            Poll::Ready(Err(_)) => {}
        }
        done
    }

    /// Reads what has come from the socket, also what the reactor has not seen yet.
    pub fn receive_now(&mut self) {
        let room = self.incoming.spare(1);
        let received = rustix::net::recv(&self.socket, room, rustix::net::RecvFlags::DONTWAIT);
        if let Ok((count, _)) = received {
            self.came(count);
        }
    }

    /// So many bytes have come; 0 is the end.
    fn came(&mut self, count: usize) {
        self.incoming.advance(count);
        self.ended |= count == 0;
        if self.phase == Phase::Fresh {
            if let Some(first) = self.incoming.filled().first() {
                self.phase = match *first {
                    HANDSHAKE_RECORD => Phase::Shaking,
                    byte if byte.is_ascii_uppercase() => {
                        self.counts.failed(Failure::PlainHttp);
                        Phase::Clear
                    }
                    _ => Phase::Shaking,
                };
            }
        }
    }

    /// Has the session process what has come, until something can be read.
    fn decrypt(&mut self) -> io::Result<()> {
        while self.decrypted == 0 && !self.ended && !self.incoming.is_empty() {
            let mut from = self.incoming.filled();
            let count = self.session.read_tls(&mut from)?;
            self.incoming.consume(count);
            match self.session.process_new_packets() {
                Ok(state) => {
                    self.decrypted = state.plaintext_bytes_to_read();
                    self.ended |= state.peer_has_closed();
                }
                Err(why) => {
                    if self.phase != Phase::Open {
                        self.counts.refused(Failure::of(&why), &why);
                    }
                    self.phase = Phase::Failed;
                    // The alert; a client that does not take it at once does not get it.
                    while let Ok(1..) = self.session.write_tls(&mut Socket(&self.socket)) {}
                    return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                }
            }
            if self.phase == Phase::Shaking && !self.session.is_handshaking() {
                self.opened()?;
            }
        }
        Ok(())
    }

    fn opened(&mut self) -> io::Result<()> {
        let certificates = self.session.peer_certificates();
        let first = certificates.and_then(|certificates| certificates.first());
        self.identity = first.map(|certificate| Arc::new(Identity::of(certificate)));
        let resumed = self.session.handshake_kind() == Some(HandshakeKind::Resumed);
        // A session that is resumed brings the certificate along, which nobody verifies again.
        if resumed && self.identity().is_some_and(|identity| identity.has_expired()) {
            self.phase = Phase::Failed;
            self.counts.refused(Failure::ClientCertificate, &EXPIRED);
            return Err(io::Error::new(io::ErrorKind::InvalidData, EXPIRED));
        }
        self.phase = Phase::Open;
        self.counts.opened(resumed);
        Ok(())
    }

    /// Reads into `room`; 0 means that the client has ended.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_readable(cx))?;
        if self.phase == Phase::Clear && !self.incoming.is_empty() {
            let count = room.len().min(self.incoming.len());
            room[..count].copy_from_slice(&self.incoming.filled()[..count]);
            self.incoming.consume(count);
            return Poll::Ready(Ok(count));
        }
        if self.decrypted == 0 {
            return Poll::Ready(Ok(0));
        }
        let count = self.session.reader().read(room)?;
        self.decrypted = self.decrypted.saturating_sub(count);
        Poll::Ready(Ok(count))
    }

    /// Takes some of `bytes`, once the client has all that was taken before. What is taken is sent
    /// by [`TlsStream::poll_flush`].
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    /// The same with several parts, one after the other.
    pub fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.phase == Phase::Clear {
            return Pin::new(&mut self.socket).poll_write_vectored(cx, parts);
        }
        ready!(self.poll_flush(cx))?;
        let count = self.session.writer().write_vectored(parts)?;
        self.taken += count;
        match self.poll_flush(cx) {
            Poll::Ready(Err(why)) => Poll::Ready(Err(why)),
            _ => Poll::Ready(Ok(count)),
        }
    }

    /// Takes some of `bytes`, of which more will follow at once: they need not be sent yet.
    pub fn poll_write_ahead(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.phase == Phase::Clear {
            return self.poll_write(cx, bytes);
        }
        ready!(self.poll_flush(cx))?;
        let count = self.session.writer().write(bytes)?;
        self.taken += count;
        Poll::Ready(Ok(count))
    }

    /// Takes a part of a file, from `at`, which is moved on. 0 means that the file ends there.
    /// What was taken ahead is sent with it.
    pub fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        file: BorrowedFd<'_>,
        at: &mut u64,
        count: usize,
    ) -> Poll<io::Result<usize>> {
        thread_local! {
            static PART: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        // What was taken ahead leaves room for a part of the file, unless it was much.
        if self.unsent() >= UNSENT_MAX / 2 {
            ready!(self.poll_flush(cx))?;
        }
        PART.with_borrow_mut(|part| {
            part.resize(UNSENT_MAX, 0);
            let most = count.min(part.len() - self.unsent());
            let count = rustix::io::pread(file, &mut part[..most], *at)?;
            if count == 0 {
                return Poll::Ready(Ok(0));
            }
            let taken = ready!(self.poll_write_behind(cx, &part[..count]))?;
            *at += taken as u64;
            Poll::Ready(Ok(taken))
        })
    }

    /// Takes some of `bytes` behind what was taken ahead, and begins to send both.
    fn poll_write_behind(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.phase == Phase::Clear || self.sent > 0 {
            return self.poll_write(cx, bytes);
        }
        let count = self.session.writer().write(bytes)?;
        self.taken += count;
        let flushed = self.poll_flush(cx)?;
        // With nothing taken there was no room; the flush wakes when there is.
        if count == 0 && flushed.is_pending() { Poll::Pending } else { Poll::Ready(Ok(count)) }
    }

    /// Sends what was taken. Ready when the client has all.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            ready!(self.socket.poll_write_ready(cx))?;
            match self.session.write_tls(&mut Socket(&self.socket)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => self.sent += count,
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => return Poll::Ready(Err(why)),
            }
        }
        (self.taken, self.sent) = (0, 0);
        if std::mem::take(&mut self.ends_writing) {
            // A stream that the other side has closed needs no end.
            let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Write);
        }
        Poll::Ready(Ok(()))
    }

    /// Ends the direction of writing once all is sent: the client reads an end.
    pub fn end_writing(&mut self) {
        if self.phase == Phase::Open {
            self.session.send_close_notify();
        }
        self.ends_writing = true;
        // What the socket does not take now is sent by whoever polls next.
        let _ = self.poll_flush(&mut Context::from_waker(std::task::Waker::noop()));
    }

    /// Makes the close of the socket a reset, and says no end before it.
    pub fn cut(&mut self) {
        self.is_cut = true;
        // If the system refuses that, the close is an ordinary one; without the alert of an end
        // the client sees all the same that something is missing.
        let _ = self.socket.set_zero_linger();
    }

    /// The socket below.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        match self.phase {
            // Without this alert a client cannot tell an end from a cut (RFC 8446, 6.1).
            Phase::Open if !self.is_cut => {
                self.session.send_close_notify();
                while self.session.wants_write() {
                    let Ok(1..) = self.session.write_tls(&mut Socket(&self.socket)) else { break };
                }
            }
            Phase::Shaking => self.counts.failed(Failure::Abandoned),
            _ => {}
        }
    }
}

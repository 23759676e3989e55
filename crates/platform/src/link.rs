//! A unix socket that carries messages: frames of [`mfserv_core::wire::frame`].
//!
//! [`Link`] blocks its thread; [`AsyncLink`] (feature `tokio`) waits in a task. A peer
//! cannot make either hold more than one frame of 16 MiB and one read.

use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use mfserv_core::wire::frame::{self, FrameError};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;

#[cfg(feature = "tokio")]
mod asynchronous;

#[cfg(feature = "tokio")]
pub use asynchronous::AsyncLink;

/// Read at once, bytes.
const READ: usize = 64 * 1024;

/// Why a link is of no use any more.
#[derive(Debug)]
pub enum LinkError {
    /// The peer has closed it, between two messages.
    Closed,
    /// The peer has closed it in the middle of a message: it was killed.
    Cut,
    /// The peer does not speak this protocol.
    Frame(FrameError),
    /// The system refused to read or write.
    Io(io::Error),
}

impl std::fmt::Display for LinkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LinkError::Closed => f.write_str("the other side has closed the connection"),
            LinkError::Cut => f.write_str("the connection ended in the middle of a message"),
            LinkError::Frame(why) => why.fmt(f),
            LinkError::Io(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for LinkError {}

impl From<FrameError> for LinkError {
    fn from(why: FrameError) -> Self {
        LinkError::Frame(why)
    }
}

impl From<io::Error> for LinkError {
    fn from(why: io::Error) -> Self {
        LinkError::Io(why)
    }
}

/// Bytes that have arrived and are no whole message yet.
#[derive(Debug, Default)]
struct Incoming(Vec<u8>);

impl Incoming {
    /// Takes the first whole message, if there is one.
    fn take<M: DeserializeOwned>(&mut self) -> Result<Option<M>, LinkError> {
        let message = frame::decode(&mut self.0)?;
        if self.0.is_empty() {
            // one large message must not hold its memory for the life of the link
            self.0.shrink_to(READ);
        }
        Ok(message)
    }

    /// What the end of the stream means.
    fn end(&self) -> LinkError {
        if self.0.is_empty() { LinkError::Closed } else { LinkError::Cut }
    }
}

/// A connection that sends and receives messages and blocks its thread meanwhile.
#[derive(Debug)]
pub struct Link {
    stream: UnixStream,
    incoming: Incoming,
}

impl Link {
    /// A link over a connected socket in blocking mode.
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, incoming: Incoming::default() }
    }

    /// The socket. Bytes that were read already are not seen by poll(2): see
    /// [`Link::buffered`].
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Sends a message; waits while the peer does not read, as long as the write timeout of
    /// the socket permits.
    pub fn send<M: Serialize>(&mut self, message: &M) -> Result<(), LinkError> {
        Ok(self.stream.write_all(&frame::encode(message)?)?)
    }

    /// Sends a message with a descriptor attached to its first byte.
    pub fn send_with<M: Serialize>(
        &mut self,
        message: &M,
        descriptor: BorrowedFd<'_>,
    ) -> Result<(), LinkError> {
        let bytes = frame::encode(message)?;
        let descriptors = [descriptor];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::Error::other("no room for a descriptor").into());
        }
        let slices = [IoSlice::new(&bytes)];
        let sent = sendmsg(&self.stream, &slices, &mut control, SendFlags::NOSIGNAL)
            .map_err(io::Error::from)?;
        Ok(self.stream.write_all(&bytes[sent..])?)
    }

    /// The next message among the bytes that were read already.
    pub fn buffered<M: DeserializeOwned>(&mut self) -> Result<Option<M>, LinkError> {
        self.incoming.take()
    }

    /// Waits for the next message.
    pub fn receive<M: DeserializeOwned>(&mut self) -> Result<M, LinkError> {
        self.stream.set_read_timeout(None)?;
        loop {
            if let Some(message) = self.incoming.take()? {
                return Ok(message);
            }
            self.read()?;
        }
    }

    /// Waits for the next message, at most until `end`; `None` when that has passed. One that
    /// is there already is returned whatever the time is.
    pub fn receive_until<M: DeserializeOwned>(
        &mut self,
        end: Instant,
    ) -> Result<Option<M>, LinkError> {
        loop {
            if let Some(message) = self.incoming.take()? {
                return Ok(Some(message));
            }
            // a timeout of zero would mean for ever
            let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.stream.set_read_timeout(Some(left))?;
            match self.read() {
                Err(LinkError::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => {
                    if Instant::now() >= end {
                        return Ok(None);
                    }
                }
                other => other?,
            }
        }
    }

    fn read(&mut self) -> Result<(), LinkError> {
        let mut buffer = [0; READ];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(self.incoming.end()),
            Ok(count) => {
                self.incoming.0.extend_from_slice(&buffer[..count]);
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::thread;

    use super::*;

    fn pair() -> (Link, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Link::new(ours), theirs)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn a_message_arrives_whole_however_its_bytes_are_split() {
        let (mut link, mut peer) = pair();
        let bytes = [frame::encode(&"one").unwrap(), frame::encode(&"two").unwrap()].concat();
        for cut in 0..=bytes.len() {
            let got = thread::scope(|scope| {
                scope.spawn(|| {
                    peer.write_all(&bytes[..cut]).unwrap();
                    thread::yield_now();
                    peer.write_all(&bytes[cut..]).unwrap();
                });
                let first: String = link.receive().unwrap();
                let second: Option<String> = link.receive_until(soon()).unwrap();
                (first, second)
            });
            assert_eq!(got, ("one".into(), Some("two".into())), "cut at {cut}");
        }
    }

    #[test]
    fn an_end_between_messages_is_told_from_an_end_within_one() {
        let frame = frame::encode(&"the last words").unwrap();
        for kept in 0..frame.len() {
            let (mut link, mut peer) = pair();
            peer.write_all(&frame).unwrap();
            peer.write_all(&frame[..kept]).unwrap();
            drop(peer);
            assert_eq!(link.receive::<String>().unwrap(), "the last words");
            let end = link.receive_until::<String>(soon()).unwrap_err();
            match kept {
                0 => assert!(matches!(end, LinkError::Closed), "{end:?}"),
                _ => assert!(matches!(end, LinkError::Cut), "{end:?} after {kept} bytes"),
            }
        }
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_by_its_length_and_one_at_the_limit_is_taken() {
        let (mut link, mut peer) = pair();
        peer.write_all(&(frame::MAX_FRAME as u32 + 1).to_be_bytes()).unwrap();
        let refused = link.receive::<String>().unwrap_err();
        assert!(matches!(refused, LinkError::Frame(FrameError::TooLong(_))), "{refused:?}");

        let (mut link, peer) = pair();
        // two quotation marks are part of the frame
        let largest = "x".repeat(frame::MAX_FRAME - 2);
        let got: String = thread::scope(|scope| {
            scope.spawn(|| Link::new(peer).send(&largest).unwrap());
            link.receive().unwrap()
        });
        assert_eq!(got.len(), largest.len());
        assert!(link.incoming.0.capacity() <= READ, "the memory of a large frame is given back");
        let too_large = link.send(&"x".repeat(frame::MAX_FRAME - 1)).unwrap_err();
        assert!(matches!(too_large, LinkError::Frame(FrameError::TooLong(_))), "{too_large:?}");
    }

    #[test]
    fn bytes_that_are_no_message_of_the_protocol_are_an_error() {
        let (mut link, mut peer) = pair();
        peer.write_all(&frame::encode(&7).unwrap()).unwrap();
        let error = link.receive::<String>().unwrap_err();
        assert!(matches!(error, LinkError::Frame(FrameError::BadJson(_))), "{error:?}");
    }

    #[test]
    fn a_wait_ends_at_its_time_and_keeps_half_a_message_for_the_next_one() {
        let (mut link, mut peer) = pair();
        let frame = frame::encode(&"late").unwrap();
        peer.write_all(&frame[..5]).unwrap();
        let end = Instant::now() + Duration::from_millis(20);
        assert_eq!(link.receive_until::<String>(end).unwrap(), None);
        assert!(Instant::now() >= end);
        peer.write_all(&frame[5..]).unwrap();
        assert_eq!(link.receive_until::<String>(soon()).unwrap(), Some("late".into()));
    }

    #[test]
    fn what_was_read_already_needs_no_wait() {
        let (mut link, mut peer) = pair();
        let frame = frame::encode(&"one").unwrap();
        peer.write_all(&[frame.as_slice(), &frame, &frame[..3]].concat()).unwrap();
        link.receive::<String>().unwrap();
        assert_eq!(link.buffered::<String>().unwrap(), Some("one".into()));
        assert_eq!(link.buffered::<String>().unwrap(), None);
    }

    #[test]
    fn a_descriptor_travels_with_its_message() {
        use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

        let (mut link, peer) = pair();
        let sent = tempfile::tempfile().unwrap();
        link.send_with(&"take it", sent.as_fd()).unwrap();
        let mut bytes = [0; 64];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [io::IoSliceMut::new(&mut bytes)];
        let read = recvmsg(&peer, &mut slices, &mut control, RecvFlags::empty()).unwrap().bytes;
        let mut bytes = bytes[..read].to_vec();
        assert_eq!(frame::decode::<String>(&mut bytes).unwrap(), Some("take it".into()));
        let got = control.drain().find_map(|item| match item {
            RecvAncillaryMessage::ScmRights(mut all) => all.next(),
            _ => None,
        });
        let inode = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).unwrap().st_ino;
        assert_eq!(inode(got.unwrap().as_fd()), inode(sent.as_fd()));
    }
}

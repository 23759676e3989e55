//! Messages, which are requests on their way to a worker, and frames, which precede answers.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendFlags, recvmsg, sendmsg,
};

/// The bytes before the request in a message.
pub const MESSAGE_HEAD: usize = 24;
/// The longest message, bytes. A longer request is sent over the connection of the answers, when a
/// worker has taken its turn.
pub const MESSAGE_MAX: usize = 64 * 1024;
/// The bytes of a frame.
pub const FRAME_LEN: usize = 24;

/// What the front sends on the connection of the answers when it has all of an answer that was
/// [`FrameKind::Stream`] or that of a [`FrameKind::Turn`]. Until then the worker takes nothing, so
/// that nothing else is lost with the connection if the answer is not wanted.
pub const TAKEN: u8 = b'+';

/// What precedes a request in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// The number of the request among those of its queue, from 1 on; 0 for a nudge.
    pub id: u64,
    /// When it was sent ([`super::now_ns`]).
    pub sent_ns: u64,
    /// What it is.
    pub kind: MessageKind,
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    /// Nothing: it wakes a worker in place of one that has died when it was woken.
    Nudge,
    /// A whole request, head and content, as HTTP/1.1 text.
    Request,
    /// The turn of a request that the worker shall read from the connection of the answers.
    Turn,
}

/// A message that a worker has received.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'b> {
    /// A message, and the request that it carries.
    Message(Message, &'b [u8]),
    /// No message is there.
    Nothing,
    /// Nobody will send one.
    End,
}

/// What precedes an answer on the connection from a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// The request; 0 with [`FrameKind::Ready`].
    pub id: u64,
    /// How many bytes follow that belong to it.
    pub length: u32,
    /// How long the worker had the request until this frame, microseconds.
    pub took_us: u32,
    /// What it is.
    pub kind: FrameKind,
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// The worker takes requests from now on.
    Ready,
    /// A whole answer, as HTTP/1.1 text.
    Answer,
    /// An answer, as HTTP/1.1 text which ends as HTTP says; [`TAKEN`] answers it.
    Stream,
    /// It is the turn of the request: it may be sent on this connection. An answer as that of
    /// [`FrameKind::Stream`] follows.
    Turn,
    /// The request was given up, and has not begun.
    Dropped,
}

const MESSAGE_KINDS: [MessageKind; 3] =
    [MessageKind::Nudge, MessageKind::Request, MessageKind::Turn];
const FRAME_KINDS: [FrameKind; 5] =
    [FrameKind::Ready, FrameKind::Answer, FrameKind::Stream, FrameKind::Turn, FrameKind::Dropped];

impl Message {
    /// Its bytes.
    pub fn to_bytes(self) -> [u8; MESSAGE_HEAD] {
        let mut bytes = [0; MESSAGE_HEAD];
        bytes[..8].copy_from_slice(&self.id.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.sent_ns.to_ne_bytes());
        bytes[16] = self.kind as u8;
        bytes
    }

    /// The message that has these bytes, if they are one.
    pub fn of(bytes: &[u8; MESSAGE_HEAD]) -> Option<Self> {
        let kind = *MESSAGE_KINDS.get(usize::from(bytes[16]))?;
        Some(Self { id: word(bytes, 0), sent_ns: word(bytes, 8), kind })
    }
}

impl Frame {
    /// Its bytes.
    pub fn to_bytes(self) -> [u8; FRAME_LEN] {
        let mut bytes = [0; FRAME_LEN];
        bytes[..8].copy_from_slice(&self.id.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.length.to_ne_bytes());
        bytes[12..16].copy_from_slice(&self.took_us.to_ne_bytes());
        bytes[16] = self.kind as u8;
        bytes
    }

    /// The frame that has these bytes, if they are one.
    pub fn of(bytes: &[u8; FRAME_LEN]) -> Option<Self> {
        let kind = *FRAME_KINDS.get(usize::from(bytes[16]))?;
        let both = word(bytes, 8).to_ne_bytes();
        let half =
            |at: usize| u32::from_ne_bytes([both[at], both[at + 1], both[at + 2], both[at + 3]]);
        Some(Self { id: word(bytes, 0), length: half(0), took_us: half(4), kind })
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_ne_bytes(word)
}

/// Sends a message with its request. False if the queue has no room for it.
pub fn send(queue: impl AsFd, message: Message, request: &[u8]) -> io::Result<bool> {
    let head = message.to_bytes();
    let parts = [IoSlice::new(&head), IoSlice::new(request)];
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    loop {
        match sendmsg(&queue, &parts, &mut SendAncillaryBuffer::default(), flags) {
            Ok(_) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(false),
            Err(why) => return Err(why.into()),
        }
    }
}

/// Takes the next message out of a queue, without waiting. `space` has [`MESSAGE_MAX`] bytes.
pub fn receive<'b>(queue: BorrowedFd<'_>, space: &'b mut [u8]) -> io::Result<Received<'b>> {
    let length = loop {
        let mut parts = [IoSliceMut::new(space)];
        let mut none = RecvAncillaryBuffer::default();
        match recvmsg(queue, &mut parts, &mut none, RecvFlags::DONTWAIT) {
            Ok(got) if got.flags.contains(ReturnFlags::TRUNC) => return Err(malformed()),
            Ok(got) => break got.bytes,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(Received::Nothing),
            // The front has gone with messages of ours unread: there are none.
            Err(Errno::CONNRESET) => return Ok(Received::End),
            Err(why) => return Err(why.into()),
        }
    };
    if length == 0 {
        return Ok(Received::End);
    }
    let (head, request) = space[..length].split_first_chunk().ok_or_else(malformed)?;
    Ok(Received::Message(Message::of(head).ok_or_else(malformed)?, request))
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the queue of requests carries something else")
}

/// The bytes of all messages in a queue that nobody has received yet (`FIONREAD`), seen from the
/// end that receives.
pub fn unread(queue: impl AsFd) -> io::Result<u64> {
    Ok(rustix::io::ioctl_fionread(queue)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue;

    #[test]
    fn messages_and_frames_are_read_as_they_were_written_and_nothing_else_is_one() {
        for kind in MESSAGE_KINDS {
            let message = Message { id: u64::MAX - 1, sent_ns: 1 << 40, kind };
            assert_eq!(Message::of(&message.to_bytes()), Some(message));
        }
        for kind in FRAME_KINDS {
            let frame = Frame { id: 7 << 32, length: u32::MAX, took_us: 12, kind };
            assert_eq!(Frame::of(&frame.to_bytes()), Some(frame));
        }
        assert_eq!(Message::of(&[9; MESSAGE_HEAD]), None);
        assert_eq!(Frame::of(&[9; FRAME_LEN]), None);
    }

    #[test]
    fn each_message_comes_whole_and_once_and_the_kernel_counts_those_that_wait() {
        let (front, worker) = queue().unwrap();
        let mut space = vec![0; MESSAGE_MAX];
        let message = |id| Message { id, sent_ns: 5, kind: MessageKind::Request };
        assert_eq!(receive(worker.as_fd(), &mut space).unwrap(), Received::Nothing);
        assert!(send(&front, message(1), b"GET /").unwrap());
        assert!(send(&front, message(2), b"POST /content").unwrap());
        assert_eq!(unread(&worker).unwrap(), (2 * MESSAGE_HEAD + 5 + 13) as u64);
        for (id, request) in [(1, &b"GET /"[..]), (2, b"POST /content")] {
            let received = receive(worker.as_fd(), &mut space).unwrap();
            assert_eq!(received, Received::Message(message(id), request));
        }
        assert_eq!(unread(&worker).unwrap(), 0);
        drop(front);
        assert_eq!(receive(worker.as_fd(), &mut space).unwrap(), Received::End);
    }

    #[test]
    fn a_thousand_of_the_longest_messages_do_not_fit_and_the_sender_is_told() {
        let (front, _worker) = queue().unwrap();
        let request = vec![b'x'; MESSAGE_MAX - MESSAGE_HEAD];
        let message = Message { id: 1, sent_ns: 0, kind: MessageKind::Request };
        let sent = (0..1000).take_while(|_| send(&front, message, &request).unwrap());
        assert!((16..1000).contains(&sent.count()));
    }
}

//! The connection on which the answers of a worker that pulls come.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mfserv_core::wire::front::Address;
use mfserv_pull::{FRAME_LEN, Frame, FrameKind, MESSAGE_MAX, TAKEN};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::queue::{Answered, Lost, Queue};
use crate::embedded::io::budget::Descriptor;
use crate::embedded::io::buffer::Pooled;
use crate::embedded::io::signal::Subscription;
use crate::embedded::io::wire::{Stream, Wire};
use crate::embedded::workers::upstream::{Peer, Upstream};

/// How much is read at a time, bytes.
const STEP: usize = 16 * 1024;
/// Longer answers come as a stream, bytes.
const ANSWER_MAX: usize = 2 * MESSAGE_MAX;

/// The connection of a worker, lent to a request whose answer comes over it as that of any server.
#[derive(Debug)]
pub struct Loan {
    /// The connection.
    pub wire: Wire,
    /// What it counts as, until it comes back.
    pub descriptor: Descriptor,
    back: oneshot::Sender<(Wire, Descriptor)>,
}

/// Where a loan goes back to. Without it, the connection has to be closed.
#[derive(Debug)]
pub struct Return(oneshot::Sender<(Wire, Descriptor)>);

impl Loan {
    /// The connection, and where it goes back to.
    pub fn take(self) -> (Wire, Descriptor, Return) {
        (self.wire, self.descriptor, Return(self.back))
    }
}

impl Return {
    /// The answer is complete, and has been read.
    pub fn give_back(self, wire: Wire, descriptor: Descriptor) {
        // If nobody waits for it, it is closed.
        let _ = self.0.send((wire, descriptor));
    }
}

/// What happens next on the connection.
enum Next {
    Frame(Frame),
    /// The worker has ended it, or has said something that is no frame.
    End,
}

/// The connection of one worker.
pub(super) struct Answers {
    /// `None` while it is lent.
    wire: Option<(Wire, Descriptor)>,
    /// What has come.
    inbox: Pooled,
    gone: Subscription,
    /// Raised when the worker shall take nothing more.
    shut: Subscription,
    /// The worker has taken the offer.
    is_ready: bool,
    is_shut: bool,
}

/// Why there is no such connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoAnswers {
    /// For now.
    Unreachable,
    /// This worker does not pull.
    Refused,
}

impl Answers {
    /// Offers the queue to a worker, and waits until it takes requests from it.
    pub async fn open(
        upstream: &Upstream,
        queue: &Queue,
        peer: &Arc<Peer>,
        line: usize,
    ) -> Result<Self, NoAnswers> {
        let Address::Socket(socket) = &peer.name.address else { return Err(NoAnswers::Refused) };
        let descriptor = upstream.descriptors.take().ok_or(NoAnswers::Unreachable)?;
        let connected = UnixStream::connect(socket).await;
        let stream = connected.map_err(|_| NoAnswers::Unreachable)?;
        queue.offer(&stream, line).map_err(|_| NoAnswers::Unreachable)?;
        let mut answers = Self {
            wire: Some((Wire::Unix(stream), descriptor)),
            inbox: Pooled::default(),
            gone: Subscription::new(peer.gone.clone()),
            shut: Subscription::new(peer.shut.clone()),
            is_ready: false,
            is_shut: false,
        };
        match answers.next().await {
            Next::Frame(Frame { kind: FrameKind::Ready, .. }) => {
                answers.is_ready = true;
                Ok(answers)
            }
            // Something else was answered, as by a server that speaks HTTP only.
            _ if !answers.inbox.is_empty() => Err(NoAnswers::Refused),
            _ => Err(NoAnswers::Unreachable),
        }
    }

    /// Passes on what the worker answers, until it has ended the connection.
    pub async fn pass_on(
        mut self,
        upstream: &Upstream,
        queue: &Queue,
        (peer, line): (&Arc<Peer>, usize),
    ) {
        while let Next::Frame(frame) = self.next().await {
            let (length, is_lent) = match frame.kind {
                FrameKind::Ready => continue,
                FrameKind::Answer => (frame.length as usize, false),
                FrameKind::Dropped => (0, false),
                FrameKind::Stream | FrameKind::Turn => (self.inbox.len(), true),
            };
            let bytes = self.inbox.filled()[..length].to_vec();
            self.inbox.consume(length);
            let (loan, returned) = match is_lent {
                true => self.lend().map_or((None, None), |(loan, back)| (Some(loan), Some(back))),
                false => (None, None),
            };
            let took = Duration::from_micros(frame.took_us.into());
            let is_turn = frame.kind == FrameKind::Turn;
            // A request whose turn it is cannot be sent any more when writing has ended.
            let is_late = is_turn && self.is_shut;
            let answered = match frame.kind {
                FrameKind::Dropped => Err(Lost::unbegun()),
                _ if is_late => Err(Lost::unbegun()),
                _ => Ok(Answered { peer: peer.clone(), took, bytes, loan, is_turn }),
            };
            match queue.answered(frame.id, line, answered) {
                Ok(Some(asked)) => upstream.release_unwanted(peer, asked, took),
                Ok(None) => {}
                // It answers what nobody has asked.
                Err(()) => return,
            }
            if let Some(returned) = returned {
                // Dropped where nobody wants the answer, or the rest of it: the connection is
                // closed, and the worker has nothing else.
                let Ok(lent) = returned.await else { return };
                self.wire = Some(lent);
                if !self.say_taken().await {
                    return;
                }
            }
        }
    }

    fn lend(&mut self) -> Option<(Loan, oneshot::Receiver<(Wire, Descriptor)>)> {
        let (wire, descriptor) = self.wire.take()?;
        let (back, returned) = oneshot::channel();
        Some((Loan { wire, descriptor, back }, returned))
    }

    /// Says that all of an answer has come. False if the worker has ended the connection.
    async fn say_taken(&mut self) -> bool {
        let Some((wire, _)) = &mut self.wire else { return false };
        poll_fn(|cx| wire.poll_write(cx, &[TAKEN])).await.is_ok_and(|count| count == 1)
    }

    async fn next(&mut self) -> Next {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The next frame, with all that belongs to it.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        loop {
            match self.frame() {
                Some(Ok(frame)) => return Poll::Ready(Next::Frame(frame)),
                Some(Err(())) => return Poll::Ready(Next::End),
                None => {}
            }
            let Some((wire, _)) = &mut self.wire else { return Poll::Ready(Next::End) };
            if !self.is_shut && self.shut.is_raised(cx) {
                if !self.is_ready {
                    // It may hang: nobody waits for it to take an offer that is withdrawn.
                    return Poll::Ready(Next::End);
                }
                self.is_shut = true;
                wire.end_writing();
            }
            let read = wire.poll_read(cx, self.inbox.spare(STEP));
            match read {
                Poll::Ready(Ok(count)) if count > 0 => self.inbox.advance(count),
                Poll::Ready(_) => return Poll::Ready(Next::End),
                // Its children may have the connection still open.
                Poll::Pending if self.gone.is_raised(cx) && !wire.has_unread() => {
                    return Poll::Ready(Next::End);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// A frame that has come whole; an error if that is none.
    fn frame(&mut self) -> Option<Result<Frame, ()>> {
        let (head, rest) = self.inbox.filled().split_first_chunk::<FRAME_LEN>()?;
        let Some(frame) = Frame::of(head) else { return Some(Err(())) };
        if frame.length as usize > ANSWER_MAX {
            return Some(Err(()));
        }
        if frame.kind == FrameKind::Answer && rest.len() < frame.length as usize {
            return None;
        }
        self.inbox.consume(FRAME_LEN);
        Some(Ok(frame))
    }
}

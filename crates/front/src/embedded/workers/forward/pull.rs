//! A request in the queue from which the workers of its app pull.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mfserv_pull::{MESSAGE_HEAD, MESSAGE_MAX};
use tokio::time::Instant;

use super::Forwarding;
use crate::embedded::clients::exchange::Exchange;
use crate::embedded::clients::fault::{Cause, Fault};
use crate::embedded::workers::failure::Failure;
use crate::embedded::workers::upload::Upload;
use crate::embedded::workers::upstream::{Answered, Begun, Link, Lost, Peer, Slot, Turn};

/// When it is looked again for an answer that may be on its way.
const AGAIN: Duration = Duration::from_millis(20);

/// A request that a worker has taken, and the connection on which its answer goes on, or on which
/// the worker reads it now; these bytes of the answer have come.
pub type Taken = (Slot, Link, Vec<u8>);

/// Why no worker has taken a request.
pub enum NotTaken {
    /// It has not begun, and shall be sent again.
    Again,
    /// The worker that had it has failed.
    Failed(Failure, Arc<Peer>),
    /// It is not to be sent any more.
    Fault(Fault),
}

impl Forwarding<'_, '_> {
    /// Sends a request into the queue, and waits until a worker has taken it.
    pub(super) async fn pull(
        &mut self,
        mut turn: Turn,
        upload: &mut Upload<'_>,
    ) -> Result<Taken, NotTaken> {
        self.put_head(None, upload).map_err(NotTaken::Fault)?;
        if !turn.send(upload.take_whole(MESSAGE_MAX - MESSAGE_HEAD)) {
            return Err(NotTaken::Again);
        }
        let sent_at = Instant::now();
        let first = *self.tries.waits_since.get_or_insert(sent_at);
        let turn_by = first + Duration::from_millis(self.to.app.spec.queue_timeout_ms);
        let patience = Duration::from_millis(self.to.app.spec.timeout_ms);
        let look_at = turn_by.min(sent_at + patience);
        let mut waits =
            Waits { exchange: self.exchange, turn, sent_at, turn_by, patience, look_at };
        let answered = poll_fn(|cx| waits.poll(cx)).await.map_err(NotTaken::Fault)?;
        let turn = waits.turn;
        let mut answered = match answered {
            Ok(answered) => answered,
            Err(Lost { by: None, .. }) => {
                self.exchange.add_wait(sent_at.elapsed());
                return Err(NotTaken::Again);
            }
            Err(Lost { failure, by: Some((began, peer)) }) => {
                note_begun(self.exchange, sent_at, began, &peer);
                self.tries.waits_since = None;
                return Err(match failure {
                    // Its turn had come, and nothing of it was sent.
                    Failure::Silent { .. } if !upload.is_finished() => {
                        NotTaken::Failed(Failure::Unsent, peer)
                    }
                    failure => NotTaken::Failed(failure, peer),
                });
            }
        };
        if answered.is_turn == upload.is_finished() {
            let failure = Failure::Malformed("an answer to something else than its request");
            return Err(NotTaken::Failed(failure, answered.peer));
        }
        let (loan, bytes) = (answered.loan.take(), std::mem::take(&mut answered.bytes));
        let Some(mut slot) = turn.into_slot(&answered) else { return Err(NotTaken::Again) };
        note_begun(self.exchange, sent_at, slot.since(), &slot.peer);
        self.tries.waits_since = None;
        let link = slot.lent(loan);
        Ok((slot, link, bytes))
    }
}

/// A request has waited in the queue until a worker began with it.
fn note_begun(exchange: &mut Exchange<'_>, sent_at: Instant, began: Instant, peer: &Arc<Peer>) {
    exchange.add_wait(began.saturating_duration_since(sent_at));
    exchange.set_worker(&peer.source);
    exchange.worker_began(began);
}

/// A request that was sent and is not answered.
struct Waits<'r, 'x> {
    exchange: &'r mut Exchange<'x>,
    turn: Turn,
    sent_at: Instant,
    /// Until when a worker has to take it.
    turn_by: Instant,
    /// How long the worker may have it then.
    patience: Duration,
    /// When it is looked whether one of both is over.
    look_at: Instant,
}

impl Waits<'_, '_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Result<Answered, Lost>, Fault>> {
        if let Poll::Ready(answered) = self.turn.poll_answer(cx) {
            return Poll::Ready(Ok(answered));
        }
        let ignores = self.exchange.settings().ignore_client_abort;
        if self.exchange.client_has_gone(cx) && !ignores {
            match self.turn.begun() {
                Begun::At(since, peer) => note_begun(self.exchange, self.sent_at, since, &peer),
                _ => self.exchange.add_wait(self.sent_at.elapsed()),
            }
            return Poll::Ready(Err(Fault::Gone));
        }
        while self.exchange.has_passed(cx, self.look_at) {
            let now = Instant::now();
            let is_late = self.turn_by <= now;
            if is_late {
                // First this, then the look: whoever takes it between the two is seen.
                self.turn.give_up();
            }
            self.look_at = match self.turn.begun() {
                Begun::At(since, peer) if since + self.patience <= now => {
                    let (failure, by) = (Failure::Timeout, Some((since, peer)));
                    return Poll::Ready(Ok(Err(Lost { failure, by })));
                }
                Begun::At(since, _) => since + self.patience,
                Begun::Perhaps if is_late => now + AGAIN,
                Begun::No if is_late => {
                    self.exchange.add_wait(self.sent_at.elapsed());
                    return Poll::Ready(Err(Cause::QueueTimeout.into()));
                }
                Begun::Perhaps | Begun::No => self.turn_by.min(now + self.patience),
            };
        }
        Poll::Pending
    }
}

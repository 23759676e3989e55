//! A request that may be sent into the queue, or was.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use mfserv_pull::MessageKind;

use super::queue::{Answered, Begun, Lost, Queue, Sent};
use crate::embedded::workers::upstream::asking::Asked;
use crate::embedded::workers::upstream::{Slot, Upstream};

/// The right to have a request in the queue; given back when dropped, or when a worker is done
/// with it.
#[derive(Debug)]
pub struct Turn {
    upstream: Arc<Upstream>,
    queue: Arc<Queue>,
    lane: usize,
    /// `None` once it is somebody else's.
    asked: Option<Asked>,
    sent: Option<Sent>,
}

impl Turn {
    pub(in crate::embedded::workers::upstream) fn new(
        upstream: Arc<Upstream>,
        queue: Arc<Queue>,
        lane: usize,
        asked: Asked,
    ) -> Self {
        Self { upstream, queue, lane, asked: Some(asked), sent: None }
    }

    /// Sends the request into the queue; without a text its turn, for which it is sent later.
    /// False if nobody pulls any more, or the app is in maintenance.
    pub fn send(&mut self, text: Option<&[u8]>) -> bool {
        let kind = if text.is_some() { MessageKind::Request } else { MessageKind::Turn };
        let Some((sent, is_first)) =
            self.queue.put(kind, text.unwrap_or_default(), &self.upstream.gate)
        else {
            return false;
        };
        self.sent = Some(sent);
        if is_first {
            // After all tasks that are ready now: a worker that is woken finds several requests.
            let queue = self.queue.clone();
            tokio::task::spawn_local(async move { queue.flush() });
        }
        if self.queue.attend() {
            tokio::task::spawn_local(self.upstream.clone().look_after(self.queue.clone()));
        }
        true
    }

    /// What has come for the request.
    pub fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answered, Lost>> {
        let Some((_, answer)) = &mut self.sent else { return Poll::Pending };
        let answered = ready!(Pin::new(answer).poll(cx));
        self.sent = None;
        // Whoever drops the other end has told this one first.
        Poll::Ready(answered.unwrap_or(Err(Lost::unbegun())))
    }

    /// Whether a worker has the request.
    pub fn begun(&self) -> Begun {
        self.sent.as_ref().map_or(Begun::No, |(id, _)| self.queue.begun(*id))
    }

    /// The request does not begin, unless it has.
    pub fn give_up(&self) {
        if let Some((id, _)) = &self.sent {
            self.queue.page.give_up(*id);
        }
    }

    /// The slot of the worker that has answered.
    pub fn into_slot(mut self, answered: &Answered) -> Option<Slot> {
        let asked = self.asked.take()?;
        Some(Slot::pulled(self.upstream.clone(), answered, self.lane, asked))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(asked) = self.asked.take() else { return };
        let Some((id, _)) = &self.sent else { return self.upstream.release_turn(&asked) };
        // First, since a worker may be done with it at once.
        self.upstream.abandon_turn();
        if let Err(asked) = self.queue.abandon(*id, asked) {
            self.upstream.release_all(vec![(asked, None)]);
        }
    }
}

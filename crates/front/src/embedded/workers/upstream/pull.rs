//! Workers that pull: they take requests from the queue of their app by themselves.
//!
//! A worker of an app that may pull is offered the queue when it is admitted, and is given requests
//! as any other until it has taken the offer; where its connection has ended, it is offered it again
//! when the next request comes. `crates/pull` says what the two say to
//! each other.

mod answers;
mod care;
mod queue;
mod turn;

use std::sync::Arc;
use std::time::Duration;

use mfserv_core::peers::QUEUE;
use mfserv_platform::sync::lock;

use self::answers::{Answers, NoAnswers};
pub use self::answers::{Loan, Return};
use self::care::NAMED_WITHIN;
use self::queue::Released;
pub use self::queue::{Answered, Begun, Lost, Queue};
pub use self::turn::Turn;
use super::asking::Asked;
use super::{Inner, Peer, Upstream};

/// A worker that could not be reached is offered the queue again after this time.
const AGAIN: Duration = Duration::from_secs(1);

/// How a worker stands to the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pulling {
    /// It has not been offered.
    Unasked,
    /// It is offered, or the worker takes requests from it.
    Linked,
    /// The worker could not be reached a moment ago.
    Unreachable,
    /// The worker does not pull.
    Refused,
}

impl Upstream {
    /// Workers that the queue has still to be offered to, each with a number; the caller runs
    /// [`Upstream::keep_link`] for each of them.
    pub fn take_unlinked(&self) -> Vec<(u64, Arc<Peer>)> {
        lock(&self.inner).take_unlinked()
    }

    /// Has a worker pull, as long as it does.
    pub async fn keep_link(self: Arc<Self>, peer: Arc<Peer>) {
        let queue = lock(&self.inner).queue.clone();
        if let Some(queue) = queue {
            self.link(&queue, &peer).await;
        }
    }

    async fn link(self: &Arc<Self>, queue: &Arc<Queue>, peer: &Arc<Peer>) {
        let Some(line) = queue.line_of(peer) else {
            return self.unlink(peer, Pulling::Refused);
        };
        let ended = match Answers::open(self, queue, peer, line).await {
            Ok(answers) => {
                self.begin_pulling(queue, (peer, line));
                answers.pass_on(self, queue, (peer, line)).await;
                self.end_pulling(queue, (peer, line));
                self.clear_up(queue, (peer, line));
                Pulling::Unasked
            }
            Err(NoAnswers::Refused) => Pulling::Refused,
            Err(NoAnswers::Unreachable) => Pulling::Unreachable,
        };
        self.unlink(peer, ended);
        match ended {
            Pulling::Unreachable => {
                tokio::time::sleep(AGAIN).await;
                self.unlink(peer, Pulling::Unasked);
            }
            // What it had received and not begun with is missed by now.
            Pulling::Unasked => {
                tokio::time::sleep(NAMED_WITHIN).await;
                self.look_at(queue, &mut 0);
            }
            _ => {}
        }
    }

    /// A worker takes requests, unless it shall not any more.
    fn begin_pulling(&self, queue: &Queue, (peer, line): (&Peer, usize)) {
        let mut inner = lock(&self.inner);
        let pulls = !peer.shut.is_raised();
        queue.begin(line, pulls);
        let handed = match pulls {
            true => inner.roster.pull(peer.key),
            false => {
                inner.roster.leave_queue(peer.key);
                Vec::new()
            }
        };
        inner.deliver(handed);
    }

    /// It takes none any more: from now on it is given them.
    fn end_pulling(&self, queue: &Queue, (peer, line): (&Peer, usize)) {
        let mut inner = lock(&self.inner);
        queue.end(line);
        let handed = inner.roster.push(peer.key);
        inner.deliver(handed);
    }

    /// A worker has no connection to the queue any more.
    fn unlink(&self, peer: &Peer, how: Pulling) {
        let mut inner = lock(&self.inner);
        if let Some(member) = inner.member(peer.key) {
            member.pulling = how;
            inner.has_unasked |= how == Pulling::Unasked;
        }
        let is_over = inner.remove_if_empty(peer.key);
        drop(inner);
        if is_over {
            self.wakeups.report();
        }
    }

    /// A request is not in the queue, or at a worker that pulls, any more.
    pub(super) fn release_turn(&self, asked: &Asked) {
        let mut inner = lock(&self.inner);
        let handed = inner.roster.release(QUEUE, asked.pace);
        inner.deliver(handed);
    }

    /// A request of the queue is not wanted any more, and a worker may have it still.
    fn abandon_turn(&self) {
        let mut inner = lock(&self.inner);
        let handed = inner.roster.abandon();
        inner.deliver(handed);
    }

    /// No worker has these requests any more, for which nobody waits.
    fn release_all(&self, released: Released) {
        if !released.is_empty() {
            lock(&self.inner).release_abandoned(released);
        }
    }

    /// A worker is done with a request for which nobody waits.
    fn release_unwanted(&self, peer: &Peer, asked: Asked, took: Duration) {
        let mut inner = lock(&self.inner);
        inner.note_end(peer.key, true);
        inner.release_abandoned(vec![(asked, Some(took))]);
    }
}

impl Inner {
    /// See [`Upstream::take_unlinked`].
    pub(super) fn take_unlinked(&mut self) -> Vec<(u64, Arc<Peer>)> {
        if !self.pulls || !self.has_unasked {
            return Vec::new();
        }
        if self.queue.is_none() {
            // Without descriptors there is no queue, and workers are given their requests.
            self.queue = Queue::new().ok().map(Arc::new);
        }
        let (has_queue, roster) = (self.queue.is_some(), &self.roster);
        self.has_unasked = !has_queue;
        let unasked = self.members.iter_mut().filter(|member| {
            let key = member.peer.key;
            let serves = roster.is_admitted(key) && !roster.is_suspended(key);
            has_queue && member.pulling == Pulling::Unasked && serves
        });
        let linked = |member: &mut super::Member| {
            member.pulling = Pulling::Linked;
            member.peer.shut.lower();
            (member.peer.key, member.peer.clone())
        };
        unasked.map(linked).collect()
    }

    /// A worker shall take no more requests from the queue.
    pub(super) fn leave_queue(&mut self, peer: &Peer) {
        peer.shut.raise();
        let Some(queue) = &self.queue else { return };
        let (is_linked, released) = queue.leave(peer);
        if is_linked {
            self.roster.leave_queue(peer.key);
        }
        self.release_abandoned(released);
    }

    /// No request of the queue begins any more; what stood in it is told so.
    pub(super) fn empty_queue(&mut self) {
        let released = self.queue.as_ref().map(|queue| queue.empty());
        self.release_abandoned(released.unwrap_or_default());
    }

    fn release_abandoned(&mut self, released: Released) {
        for (asked, held) in released {
            if let Some(held) = held {
                self.learnt.learn(&asked, held, true);
            }
            let handed = self.roster.release_abandoned(asked.pace);
            self.deliver(handed);
        }
    }
}

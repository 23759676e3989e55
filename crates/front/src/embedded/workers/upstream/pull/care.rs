//! What becomes of requests in the queue when workers die or stand still.
//!
//! A request is in the queue, or a worker has it and has said so in the page, or it was answered.
//! A worker that is killed between receiving a request and saying so takes it along: nobody has
//! it then, and it has not begun. One that was woken for a request and killed leaves it in the
//! queue with nobody awake: a nudge wakes another one.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use mfserv_pull::{MESSAGE_MAX, Received};
use tokio::time::Instant;

use super::queue::{Lost, Queue, Released, State, instant_of};
use crate::embedded::workers::failure::Failure;
use crate::embedded::workers::upstream::{Peer, Upstream};

/// How often it is looked after what was sent and is not answered.
const LOOK: Duration = Duration::from_millis(50);
/// A worker that has received a request says so within this time, unless it stands still.
pub(super) const NAMED_WITHIN: Duration = Duration::from_millis(10);

impl Upstream {
    /// Looks after the queue as long as something in it is not answered.
    pub(super) async fn look_after(self: Arc<Self>, queue: Arc<Queue>) {
        let mut oldest = 0;
        loop {
            tokio::time::sleep(LOOK).await;
            if !self.look_at(&queue, &mut oldest) {
                queue.leave_alone();
                // Something may have been sent before that was seen.
                if queue.state().requests.is_empty() || !queue.attend() {
                    return;
                }
            }
        }
    }

    /// Finds what is lost, and wakes a worker for what stands in the queue: the same at two looks.
    /// False if there is nothing that is not answered.
    pub(super) fn look_at(&self, queue: &Queue, oldest: &mut u64) -> bool {
        let mut released = Released::new();
        let mut state = queue.state();
        queue.find_lost(&mut state, Instant::now(), &mut released);
        let first = state.first_in_queue().unwrap_or(0);
        if first != 0 && std::mem::replace(oldest, first) == first {
            queue.nudge(&mut state);
        }
        let is_busy = !state.requests.is_empty();
        drop(state);
        queue.flush();
        self.release_all(released);
        is_busy
    }

    /// The connection of a worker has ended. Its request, if it has one, is lost; where nobody
    /// pulls any more, so is all that stands in the queue.
    pub(super) fn clear_up(&self, queue: &Queue, (peer, at): (&Arc<Peer>, usize)) {
        let mut released = Released::new();
        let mut state = queue.state();
        if let Some(line) = state.lines.get_mut(&at) {
            (line.pulls, line.has_ended) = (false, true);
        }
        if let Some((id, since_ns)) = queue.page.running(at) {
            // It may have died of the request.
            let failure = Failure::Silent { reused: false };
            let by = Some((instant_of(since_ns), peer.clone()));
            state.lost(id, Lost { failure, by }, &mut released);
        }
        queue.find_lost(&mut state, Instant::now(), &mut released);
        queue.take_back(&mut state, &mut released);
        queue.nudge(&mut state);
        drop(state);
        self.release_all(released);
    }
}

impl State {
    /// The oldest request that nobody has received.
    fn first_in_queue(&self) -> Option<u64> {
        let mut sent = self.sent.iter().map(|(id, _)| *id).filter(|id| *id != 0);
        sent.next().or_else(|| self.unsent.front().map(|(message, _)| message.id))
    }
}

impl Queue {
    /// Forgets what is known to be received, and finds requests that nobody has.
    fn find_lost(&self, state: &mut State, now: Instant, released: &mut Released) {
        self.forget_received(state);
        let in_queue = state.first_in_queue().unwrap_or(u64::MAX);
        let running = self.running(state);
        let mut given_up = Vec::new();
        for (id, request) in state.requests.range_mut(..in_queue) {
            if running.contains(id) {
                request.missed = None;
            } else if *request.missed.get_or_insert(now) + NAMED_WITHIN <= now
                && request.must_read.is_none()
            {
                self.page.give_up(*id);
                given_up.push(*id);
            }
        }
        self.lose(state, &given_up, released);
    }

    /// These requests were given up. They are lost once it is known that no worker has begun with
    /// them.
    fn lose(&self, state: &mut State, given_up: &[u64], released: &mut Released) {
        // A worker that had begun with one of them before is seen to have it now, or has finished
        // it: then its answer is among those that it has sent until now.
        let running = if given_up.is_empty() { Vec::new() } else { self.running(state) };
        let lines = state.lines.iter().filter(|(_, line)| !line.has_ended);
        let finished: Vec<_> = lines.map(|(at, _)| (*at, self.page.finished(*at))).collect();
        for id in given_up.iter().filter(|id| !running.contains(id)) {
            if let Some(request) = state.requests.get_mut(id) {
                request.must_read = Some(finished.clone());
            }
        }
        let lines = &state.lines;
        let is_read = |(at, finished): &(usize, u64)| {
            lines.get(at).is_none_or(|line| line.has_ended || line.answered >= *finished)
        };
        let doubtful = state.requests.iter().filter_map(|(id, request)| {
            let is_lost = request.must_read.as_ref()?.iter().all(is_read);
            is_lost.then_some(*id)
        });
        let lost: Vec<u64> = doubtful.collect();
        lost.into_iter().for_each(|id| state.lost(id, Lost::unbegun(), released));
    }

    /// The requests that workers have.
    fn running(&self, state: &State) -> Vec<u64> {
        let lines = state.lines.keys();
        lines.filter_map(|line| self.page.running(*line)).map(|(id, _)| id).collect()
    }

    /// The queue says how many bytes are left in it, and it is in order.
    fn forget_received(&self, state: &mut State) {
        let Ok(mut unread) = mfserv_pull::unread(&self.receiver) else { return };
        let left = state.sent.iter().rev().take_while(|(_, size)| {
            let is_unread = unread >= *size;
            unread = unread.saturating_sub(*size);
            is_unread
        });
        let received = state.sent.len() - left.count();
        state.sent.drain(..received);
    }

    /// Where nobody is left to receive what is in the queue, it is lost.
    pub(super) fn take_back(&self, state: &mut State, released: &mut Released) {
        if !state.lines.values().any(|line| line.pulls) {
            self.drain(state, released);
        }
    }

    /// No request begins any more; returns what nobody waits for of those that have not.
    pub fn empty(&self) -> Released {
        let (mut state, mut released) = (self.state(), Released::new());
        self.drain(&mut state, &mut released);
        // What is left, workers have received: they may be about to begin with it.
        let left: Vec<u64> = state.requests.keys().copied().collect();
        left.iter().for_each(|id| self.page.give_up(*id));
        self.lose(&mut state, &left, &mut released);
        released
    }

    /// What is in the queue, and nobody has received, is lost.
    fn drain(&self, state: &mut State, released: &mut Released) {
        let mut lost = Vec::new();
        let mut space = vec![0; MESSAGE_MAX];
        while let Ok(Received::Message(message, _)) =
            mfserv_pull::receive(self.receiver.as_fd(), &mut space)
        {
            lost.push(message.id);
        }
        state.sent.clear();
        lost.extend(state.unsent.drain(..).map(|(message, _)| message.id));
        lost.into_iter().for_each(|id| state.lost(id, Lost::unbegun(), released));
    }
}

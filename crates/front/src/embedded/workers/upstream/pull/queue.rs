//! The queue from which the workers of an app pull: what was sent into it, and who has it.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use mfserv_platform::sync::lock;
use mfserv_pull::{LINES, MESSAGE_HEAD, Message, MessageKind, Offer, Page, now_ns};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::answers::Loan;
use crate::embedded::workers::failure::Failure;
use crate::embedded::workers::upstream::asking::Asked;
use crate::embedded::workers::upstream::{Gate, Peer};

/// The queue of an app, and the page of those who pull from it.
#[derive(Debug)]
pub struct Queue {
    sender: OwnedFd,
    /// The workers' end: for the offers, to count what nobody has received, and to take that back.
    pub(super) receiver: OwnedFd,
    pub(super) page: Page,
    memory: OwnedFd,
    state: Mutex<State>,
    /// Somebody looks after what was sent.
    is_attended: AtomicBool,
}

#[derive(Debug, Default)]
pub(super) struct State {
    last_id: u64,
    /// What is to be sent, the oldest first.
    pub unsent: VecDeque<(Message, Vec<u8>)>,
    /// What was sent, with its size in bytes, the oldest first; those that were received may
    /// still be here.
    pub sent: VecDeque<(u64, u64)>,
    /// What is to be sent or was, and is neither answered nor known to be lost.
    pub requests: BTreeMap<u64, Request>,
    /// The lines of the page that workers have.
    pub lines: BTreeMap<usize, Line>,
    next_line: usize,
}

/// A line of the page and its worker.
#[derive(Debug)]
pub(super) struct Line {
    pub peer: Arc<Peer>,
    /// The last request of which an answer has come, or begun to come.
    pub answered: u64,
    /// It takes requests, and shall.
    pub pulls: bool,
    /// All has been read that it will ever send.
    pub has_ended: bool,
}

/// A request in the queue or at a worker.
#[derive(Debug)]
pub(super) struct Request {
    pub to: Recipient,
    /// Since when no one is known to have it.
    pub missed: Option<Instant>,
    /// It was given up since nobody had it. It is lost when so much has been read of each line.
    pub must_read: Option<Vec<(usize, u64)>>,
}

/// Who gets the answer.
#[derive(Debug)]
pub(super) enum Recipient {
    /// The task of this request.
    Task(oneshot::Sender<Result<Answered, Lost>>),
    /// Nobody: it was given up.
    Nobody(Asked),
}

/// What has come from a worker.
#[derive(Debug)]
pub struct Answered {
    /// The worker.
    pub peer: Arc<Peer>,
    /// How long it had the request until then.
    pub took: Duration,
    /// An answer, or the beginning of one.
    pub bytes: Vec<u8>,
    /// Its connection, if the rest of the answer comes over it, or the request goes over it.
    pub loan: Option<Loan>,
    /// It is the turn of the request: nothing of it has been sent.
    pub is_turn: bool,
}

/// A request that gets no answer.
#[derive(Debug)]
pub struct Lost {
    /// Why.
    pub failure: Failure,
    /// Since when a worker had it, and which; `None` if it has not begun.
    pub by: Option<(Instant, Arc<Peer>)>,
}

impl Lost {
    /// No worker has begun with it, and none will.
    pub(super) fn unbegun() -> Self {
        Self { failure: Failure::Unread, by: None }
    }
}

/// Whether a worker has a request.
#[derive(Debug)]
pub enum Begun {
    /// This one, since then.
    At(Instant, Arc<Peer>),
    /// One may have answered it.
    Perhaps,
    /// None.
    No,
}

/// What nobody waits for any more, with how long a worker had it.
pub(super) type Released = Vec<(Asked, Option<Duration>)>;
/// The id of a request, and where its answer comes.
pub(super) type Sent = (u64, oneshot::Receiver<Result<Answered, Lost>>);

impl Queue {
    pub fn new() -> io::Result<Self> {
        let (sender, receiver) = mfserv_pull::queue()?;
        let (page, memory) = Page::create()?;
        let (state, is_attended) = (Mutex::default(), AtomicBool::new(false));
        Ok(Self { sender, receiver, page, memory, state, is_attended })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The line of the page that is this worker's; `None` if there are too many workers.
    pub(super) fn line_of(&self, peer: &Arc<Peer>) -> Option<usize> {
        let mut state = self.state();
        if let Some((at, _)) = state.lines.iter().find(|(_, line)| line.peer.key == peer.key) {
            return Some(*at);
        }
        // Lines are used in turn: a worker that has just left its line may still write to it.
        let from = state.next_line;
        let mut free = (from..LINES).chain(0..from.min(LINES));
        let at = free.find(|line| !state.lines.contains_key(line))?;
        state.next_line = at + 1;
        let (peer, answered, pulls, has_ended) = (peer.clone(), 0, false, true);
        state.lines.insert(at, Line { peer, answered, pulls, has_ended });
        self.page.reset(at);
        Some(at)
    }

    /// The worker of this line takes requests; `pulls`: it shall go on.
    pub(super) fn begin(&self, at: usize, pulls: bool) {
        let mut state = self.state();
        if let Some(line) = state.lines.get_mut(&at) {
            (line.pulls, line.has_ended) = (pulls, false);
            // What an earlier connection has not brought never comes.
            line.answered = line.answered.max(self.page.finished(at));
        }
    }

    /// The worker of this line takes no requests.
    pub(super) fn end(&self, line: usize) {
        if let Some(line) = self.state().lines.get_mut(&line) {
            line.pulls = false;
        }
    }

    /// A worker shall take no more requests. What stands in the queue is lost if no other one
    /// does; returns what nobody waits for of that, and whether the worker has a connection.
    pub fn leave(&self, peer: &Peer) -> (bool, Released) {
        let (mut state, mut released) = (self.state(), Released::new());
        let mut is_linked = false;
        for line in state.lines.values_mut().filter(|line| line.peer.key == peer.key) {
            is_linked |= !line.has_ended;
            line.pulls = false;
        }
        self.take_back(&mut state, &mut released);
        (is_linked, released)
    }

    /// A worker is gone: another one may have its line.
    pub fn forget(&self, peer: &Peer) {
        self.state().lines.retain(|_, line| line.peer.key != peer.key);
    }

    /// Offers the queue to a worker over a new connection.
    pub(super) fn offer(&self, connection: impl AsFd, line: usize) -> io::Result<()> {
        Offer::send(connection, (self.receiver.as_fd(), self.memory.as_fd()), line)
    }

    /// Puts a request among those to be sent; the caller sees to it that [`Queue::flush`] is called
    /// soon if it is the first of them. `None` if nobody pulls any more, or the gate is not open.
    pub(super) fn put(
        &self,
        kind: MessageKind,
        request: &[u8],
        gate: &Gate,
    ) -> Option<(Sent, bool)> {
        let (tell, answer) = oneshot::channel();
        let mut state = self.state();
        // The gate under the lock: what comes in before it is closed is taken back then.
        if gate.maintenance().is_some() || !state.lines.values().any(|line| line.pulls) {
            return None;
        }
        let id = state.last_id + 1;
        state.last_id = id;
        let is_first = state.unsent.is_empty();
        state.unsent.push_back((Message { id, sent_ns: now_ns(), kind }, request.to_vec()));
        let to = Recipient::Task(tell);
        state.requests.insert(id, Request { to, missed: None, must_read: None });
        Some(((id, answer), is_first))
    }

    /// Sends what is to be sent, as far as there is room.
    pub(super) fn flush(&self) {
        self.flush_some(&mut self.state());
    }

    fn flush_some(&self, state: &mut State) {
        while let Some((message, request)) = state.unsent.front() {
            if !mfserv_pull::send(&self.sender, *message, request).unwrap_or(false) {
                return;
            }
            state.sent.push_back((message.id, (MESSAGE_HEAD + request.len()) as u64));
            state.unsent.pop_front();
        }
    }

    /// A request that is not answered is not wanted any more; a worker may have it. An error, with
    /// what it was asked with, if it is answered already.
    pub(super) fn abandon(&self, id: u64, asked: Asked) -> Result<(), Asked> {
        let mut state = self.state();
        let Some(request) = state.requests.get_mut(&id) else { return Err(asked) };
        request.to = Recipient::Nobody(asked);
        self.page.give_up(id);
        Ok(())
    }

    /// Whether a worker has this request.
    pub(super) fn begun(&self, id: u64) -> Begun {
        let state = self.state();
        if !state.requests.contains_key(&id) {
            // Its task has been told, and has not seen it.
            return Begun::Perhaps;
        }
        for (at, line) in &state.lines {
            if let Some((_, since_ns)) = self.page.running(*at).filter(|(one, _)| *one == id) {
                return Begun::At(instant_of(since_ns), line.peer.clone());
            }
        }
        let is_unread = |(at, line): (&usize, &Line)| {
            !line.has_ended && line.answered < self.page.finished(*at)
        };
        match state.lines.iter().any(is_unread) {
            true => Begun::Perhaps,
            false => Begun::No,
        }
    }

    /// True if this worker has a request.
    pub fn has_request(&self, peer: &Peer) -> bool {
        let state = self.state();
        let mut lines = state.lines.iter();
        let own = lines.find(|(_, line)| line.peer.key == peer.key && !line.has_ended);
        own.is_some_and(|(line, _)| self.page.running(*line).is_some())
    }

    /// A nudge, for what may stand in the queue with nobody woken for it.
    pub(super) fn nudge(&self, state: &mut State) {
        let is_nudged = state.sent.back().is_some_and(|(id, _)| *id == 0);
        let message = Message { id: 0, sent_ns: now_ns(), kind: MessageKind::Nudge };
        // Where there is no room, there are messages that wake a worker.
        if !is_nudged && mfserv_pull::send(&self.sender, message, b"").unwrap_or(false) {
            state.sent.push_back((0, MESSAGE_HEAD as u64));
        }
    }

    /// What has come for a request: tells its task, and sends what has room now. Returns what was
    /// asked with if nobody waits for it; an error if there is no such request.
    pub(super) fn answered(
        &self,
        id: u64,
        line: usize,
        answered: Result<Answered, Lost>,
    ) -> Result<Option<Asked>, ()> {
        let mut state = self.state();
        if id > state.last_id {
            return Err(());
        }
        if let Some(line) = state.lines.get_mut(&line) {
            line.answered = line.answered.max(id);
        }
        // All that was sent before it has been received.
        while state.sent.front().is_some_and(|(sent, _)| *sent <= id) {
            state.sent.pop_front();
        }
        self.flush_some(&mut state);
        Ok(match state.requests.remove(&id).map(|request| request.to) {
            Some(Recipient::Task(task)) => {
                // If the task has just gone, it gives its place back itself.
                let _ = task.send(answered);
                None
            }
            Some(Recipient::Nobody(asked)) => Some(asked),
            None => None,
        })
    }

    /// True for the first who asks: that one looks after what was sent.
    pub(super) fn attend(&self) -> bool {
        !self.is_attended.load(Ordering::Relaxed) && !self.is_attended.swap(true, Ordering::SeqCst)
    }

    /// Nobody looks after it any more.
    pub(super) fn leave_alone(&self) {
        self.is_attended.store(false, Ordering::SeqCst);
    }
}

/// A time of the clock of the page.
pub(super) fn instant_of(ns: u64) -> Instant {
    let (ago, now) = (Duration::from_nanos(now_ns().saturating_sub(ns)), Instant::now());
    now.checked_sub(ago).unwrap_or(now)
}

impl State {
    /// A request is lost.
    pub fn lost(&mut self, id: u64, lost: Lost, released: &mut Released) {
        match self.requests.remove(&id).map(|request| request.to) {
            Some(Recipient::Task(task)) => drop(task.send(Err(lost))),
            Some(Recipient::Nobody(asked)) => released.push((asked, None)),
            None => {}
        }
    }
}

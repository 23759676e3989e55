//! The messages to the supervisor, and the handle that sends them.

use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_core::event::EndReason;
use mfserv_core::names::{WatcherName, WorkerId};
use mfserv_core::status::WatcherStatus;
use mfserv_core::watcher::WatcherSpec;
use mfserv_core::wire::keeper::Answer;
use tokio::sync::{mpsc, oneshot, watch};

use crate::keeper_link::KeeperNews;
use crate::probe::Checked;
use crate::sample;
use crate::sampling::Measured;
use crate::waiting::{Follower, Unmet, Until, View, Waiting};

/// A message to the supervisor.
pub(crate) enum Message {
    Apply(Vec<WatcherSpec>),
    Prepare(Vec<WatcherSpec>),
    Abandon(Vec<WatcherName>),
    Renew(Vec<WatcherName>, EndReason, oneshot::Sender<Vec<WatcherName>>),
    Restart(Vec<WatcherName>, EndReason),
    Replace(Vec<WorkerId>, EndReason),
    Stop(Vec<WatcherName>),
    Ready(WorkerId),
    /// Another process listens on the port of this worker, which is not ready.
    PortTaken(WorkerId),
    Suspect(WorkerId),
    Checked {
        id: WorkerId,
        was_idle: bool,
        checked: Checked,
    },
    Idle(Vec<(WorkerId, u64)>),
    Drained(WorkerId),
    Measured(Vec<Measured<WorkerId>>, Duration),
    Spawned(WorkerId, Result<Answer, Diagnostic>),
    Keeper(KeeperNews),
    Status(oneshot::Sender<Vec<WatcherStatus>>),
    Wait(Waiting),
    Follow(Follower),
}

/// Sends messages to the supervisor. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    /// Bounded in fact: a worker has at most one start, one probe, one check and one drain under
    /// way, and each of these sends one message; idle workers are asked for every 2 s; one
    /// measurement of memory is under way at a time; the keeper sends one exit for each process and few other
    /// notices; every other message is a request of the daemon. The supervisor waits for nothing
    /// while it handles a message. A bounded channel could lock up, because the supervisor and
    /// the fronts' task send to each other.
    messages: mpsc::UnboundedSender<Message>,
}

impl Handle {
    pub(crate) fn new() -> (Handle, mpsc::UnboundedReceiver<Message>) {
        // Bounded in fact: see `Handle::messages`.
        let (messages, received) = mpsc::unbounded_channel();
        (Handle { messages }, received)
    }

    /// From now on these watchers are wanted, and no others.
    pub fn apply(&self, specs: Vec<WatcherSpec>) {
        self.send(Message::Apply(specs));
    }

    /// Starts workers of these specs beside those that serve. They get no request before an
    /// [`Handle::apply`] of the same specs: then they take over all at once. Wait for
    /// [`Until::Prepared`] in between; after 120 s without a plan they are given up.
    pub fn prepare(&self, specs: Vec<WatcherSpec>) {
        self.send(Message::Prepare(specs));
    }

    /// Fresh code on the same plan: the prepared workers of these watchers take over from all
    /// that serve, and the other slots start new workers. Returns the watchers in which a
    /// prepared worker was ready (a plan that came in between may have given it up); the others
    /// go on as before.
    pub async fn renew(&self, watchers: Vec<WatcherName>, why: EndReason) -> Vec<WatcherName> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Renew(watchers, why, reply));
        answer.await.unwrap_or_default()
    }

    /// Gives up the prepared workers of these watchers.
    pub fn abandon(&self, watchers: Vec<WatcherName>) {
        self.send(Message::Abandon(watchers));
    }

    /// Replaces every worker of these watchers, one after the other.
    pub fn restart(&self, watchers: Vec<WatcherName>, why: EndReason) {
        self.send(Message::Restart(watchers, why));
    }

    /// Replaces these workers, those of one watcher one after the other.
    pub fn replace(&self, workers: Vec<WorkerId>, why: EndReason) {
        self.send(Message::Replace(workers, why));
    }

    /// These watchers are not wanted any more; the next [`Handle::apply`] says about all.
    pub fn stop(&self, watchers: Vec<WatcherName>) {
        self.send(Message::Stop(watchers));
    }

    /// A worker with [`mfserv_core::watcher::Probe::Told`] is ready.
    pub fn ready(&self, worker: WorkerId) {
        self.send(Message::Ready(worker));
    }

    /// A front could not reach this worker, or got no answer in time: it is asked at once, and
    /// replaced if it does not answer.
    pub fn suspect(&self, worker: WorkerId) {
        self.send(Message::Suspect(worker));
    }

    /// These workers have nothing in hand, each for so many milliseconds: the answer to
    /// [`crate::Traffic::ask_idle`].
    pub fn idle(&self, workers: Vec<(WorkerId, u64)>) {
        self.send(Message::Idle(workers));
    }

    /// A worker holds no request any more.
    pub fn drained(&self, worker: WorkerId) {
        self.send(Message::Drained(worker));
    }

    /// Passes on news of the keeper.
    pub fn keeper(&self, news: KeeperNews) {
        self.send(Message::Keeper(news));
    }

    /// All watchers and workers, with the memory and CPU time that they use.
    pub async fn status(&self) -> Vec<WatcherStatus> {
        let mut watchers = self.watchers().await;
        sample::add_samples(&mut watchers);
        watchers
    }

    /// The watchers and their workers, without what these use: a status that costs little.
    pub async fn watchers(&self) -> Vec<WatcherStatus> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Status(reply));
        answer.await.unwrap_or_default()
    }

    /// Follows how far these watchers have come, as counts: "3 of 21 workers replaced".
    ///
    /// The receiver has the present counts at once and is woken by each change; a slow reader
    /// misses counts in between, never the last one. The following ends when the receiver is
    /// dropped. Begin to follow after the change was asked for (`apply`, `restart`, …); a
    /// watcher that is unknown counts nothing.
    pub fn progress(&self, until: Until, watchers: Vec<WatcherName>) -> watch::Receiver<View> {
        let (sender, receiver) = watch::channel(View::default());
        self.send(Message::Follow(Follower::new(until, watchers, sender)));
        receiver
    }

    /// Waits until these watchers have reached a state, at most this long.
    pub async fn wait(
        &self,
        until: Until,
        watchers: Vec<WatcherName>,
        at_most: Duration,
    ) -> Result<(), Unmet> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Wait(Waiting { until, watchers, at_most, reply }));
        answer.await.unwrap_or(Err(Unmet::Ended))
    }

    pub(crate) fn send(&self, message: Message) {
        // Without a supervisor the daemon ends, and the keeper starts a new one.
        let _ = self.messages.send(message);
    }
}

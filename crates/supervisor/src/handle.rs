//! How others speak to the supervisor: one message each.

use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_core::event::EndReason;
use mfserv_core::names::{WatcherName, WorkerId};
use mfserv_core::status::WatcherStatus;
use mfserv_core::watcher::WatcherSpec;
use mfserv_core::wire::keeper::Answer;
use tokio::sync::{mpsc, oneshot, watch};

use crate::keeper_link::KeeperNews;
use crate::sample;
use crate::waiting::{Follower, Progress, Unmet, Until, Waiting};

/// What can be said to the supervisor.
pub(crate) enum Message {
    Apply(Vec<WatcherSpec>),
    Prepare(Vec<WatcherSpec>),
    Abandon(Vec<WatcherName>),
    Renew(Vec<WatcherName>, EndReason, oneshot::Sender<Vec<WatcherName>>),
    Restart(Vec<WatcherName>, EndReason),
    Ready(WorkerId),
    Drained(WorkerId),
    Spawned(WorkerId, Result<Answer, Diagnostic>),
    Keeper(KeeperNews),
    Status(oneshot::Sender<Vec<WatcherStatus>>),
    Wait(Waiting),
    Follow(Follower),
}

/// Speaks to the supervisor. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(crate) messages: mpsc::UnboundedSender<Message>,
}

impl Handle {
    /// From now on these watchers are wanted, and no others.
    pub fn apply(&self, specs: Vec<WatcherSpec>) {
        self.send(Message::Apply(specs));
    }

    /// Start the workers of these specs beside what serves, for an `apply` that comes
    /// soon: then they take over all at once. See [`Until::Prepared`].
    pub fn prepare(&self, specs: Vec<WatcherSpec>) {
        self.send(Message::Prepare(specs));
    }

    /// What was prepared of these watchers takes over from what serves, whatever the
    /// slot, and the other slots are started anew: fresh code on the same plan. Returns the
    /// watchers of which something was prepared and ready: a plan that came in between may
    /// have given it up.
    pub async fn renew(&self, watchers: Vec<WatcherName>, why: EndReason) -> Vec<WatcherName> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Renew(watchers, why, reply));
        answer.await.unwrap_or_default()
    }

    /// Give up what was prepared of these watchers.
    pub fn abandon(&self, watchers: Vec<WatcherName>) {
        self.send(Message::Abandon(watchers));
    }

    /// Replace every worker of these watchers, one after the other.
    pub fn restart(&self, watchers: Vec<WatcherName>, why: EndReason) {
        self.send(Message::Restart(watchers, why));
    }

    /// A worker with [`mfserv_core::watcher::Probe::Told`] is ready.
    pub fn ready(&self, worker: WorkerId) {
        self.send(Message::Ready(worker));
    }

    /// A worker holds no request any more.
    pub fn drained(&self, worker: WorkerId) {
        self.send(Message::Drained(worker));
    }

    /// News from the keeper.
    pub fn keeper(&self, news: KeeperNews) {
        self.send(Message::Keeper(news));
    }

    /// What lives now, with memory and CPU.
    pub async fn status(&self) -> Vec<WatcherStatus> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Status(reply));
        let mut watchers = answer.await.unwrap_or_default();
        sample::add_samples(&mut watchers);
        watchers
    }

    /// Follows how far these watchers have come, as counts: "3 of 21 workers replaced".
    ///
    /// The receiver has the present counts at once and is woken by each change; a slow reader
    /// misses counts in between, never the last one. The following ends when the receiver is
    /// dropped. Begin to follow after the change was asked for (`apply`, `restart`, …); a
    /// watcher that is unknown counts nothing.
    pub fn progress(&self, until: Until, watchers: Vec<WatcherName>) -> watch::Receiver<Progress> {
        let (sender, receiver) = watch::channel(Progress::default());
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
        // A supervisor that is gone is the end of the daemon, which is restarted.
        let _ = self.messages.send(message);
    }
}

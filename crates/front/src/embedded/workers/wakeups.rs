//! What wakes the tasks of a front that serve no client: those that speak with daemons,
//! and the sweeper, which closes idle connections to workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use tokio::sync::{Notify, watch};

/// The wakeups of a front.
#[derive(Debug, Default)]
pub struct Wakeups {
    /// Changes when there is something to report to daemons.
    reports: watch::Sender<u64>,
    /// Some idle connection to a worker is kept.
    has_idle: AtomicBool,
    sweeper: Notify,
}

impl Wakeups {
    /// There is something to report: a table is in force, a worker has drained or did not
    /// behave.
    pub fn report(&self) {
        self.reports.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Changes with each [`Wakeups::report`].
    pub fn reports(&self) -> watch::Receiver<u64> {
        self.reports.subscribe()
    }

    /// An idle connection is kept. Writes nothing while others are kept already.
    pub fn idle_kept(&self) {
        if !self.has_idle.load(Ordering::Relaxed) {
            self.has_idle.store(true, Ordering::Relaxed);
            self.sweeper.notify_one();
        }
    }

    /// No idle connection is kept any more. To be called *before* the last scan: a
    /// connection that is kept after that scan wakes the sweeper again.
    pub fn no_idle_kept(&self) {
        self.has_idle.store(false, Ordering::Relaxed);
    }

    /// Something can be read from an idle connection: its end, or bytes that nobody asked
    /// for.
    pub fn idle_readable(&self) {
        self.sweeper.notify_one();
    }

    /// Waits until the sweeper has something to do: the first idle connection is kept, or
    /// something can be read from one.
    pub async fn sweep_wanted(&self) {
        self.sweeper.notified().await;
    }
}

/// The waker of idle connections.
impl Wake for Wakeups {
    fn wake(self: Arc<Self>) {
        self.idle_readable();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.idle_readable();
    }
}

//! Workers that `kill` has asked to end, and those of them whose time is over.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mfserv_core::names::WorkerId;
use mfserv_core::status::WatcherStatus;
use mfserv_core::worker::Phase;
use tokio::time::{Instant, sleep};

use super::Circus;
use super::signals::{KILL, To};

/// So often it is looked whether such workers have gone, for a client that waits.
const LOOK: Duration = Duration::from_millis(100);
/// So often it is looked whether the time of such workers is over: one may serve for long.
const LOOK_AT_TIME: Duration = Duration::from_millis(500);

/// How long workers may take to end.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    after: Duration,
    /// From when on; `None` = from when it receives no new request.
    since: Option<Instant>,
}

impl Limit {
    /// Of a worker that is replaced: it serves until its successor is ready, however long that
    /// takes. Each step of its end has a limit of its own, so that without another one nothing
    /// else kills it.
    pub fn of_replaced(asked: Option<Duration>) -> Option<Limit> {
        asked.map(|after| Limit { after, since: None })
    }

    /// Of a worker that has got a signal; `stop_timeout_ms` 0: it is never killed.
    pub fn of_signalled(asked: Option<Duration>, stop_timeout_ms: u64) -> Option<Limit> {
        let usual = (stop_timeout_ms > 0).then(|| Duration::from_millis(stop_timeout_ms));
        asked.or(usual).map(|after| Limit { after, since: Some(Instant::now()) })
    }
}

/// The limits of workers that are to end. There are not more of them than workers.
#[derive(Default)]
pub struct Kills(Mutex<Known>);

#[derive(Default)]
struct Known {
    limits: BTreeMap<WorkerId, Limit>,
    /// A task looks after them.
    followed: bool,
}

impl Kills {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes out those whose time is over. `None`: there is nothing more to look after.
    fn overdue(&self, watchers: &[WatcherStatus]) -> Option<Vec<(WorkerId, u32)>> {
        let (mut known, now) = (self.known(), Instant::now());
        if known.limits.is_empty() {
            known.followed = false;
            return None;
        }
        let mut left = BTreeMap::new();
        let mut overdue = Vec::new();
        for worker in watchers.iter().flat_map(|watcher| &watcher.workers) {
            let Some(pid) = worker.pid else { continue };
            let Some(mut limit) = known.limits.remove(&worker.id) else { continue };
            let serves = matches!(worker.phase, Phase::Starting | Phase::Ready);
            limit.since = limit.since.or((!serves).then_some(now));
            match limit.since {
                Some(since) if now.duration_since(since) >= limit.after => {
                    overdue.push((worker.id.clone(), pid));
                }
                _ => drop(left.insert(worker.id.clone(), limit)),
            }
        }
        // The others have ended.
        known.limits = left;
        Some(overdue)
    }
}

impl Circus {
    /// Kills what is left of these workers, with what they have started, when their time is
    /// over.
    pub(super) fn kill_after(&self, workers: &[(WorkerId, u32)], limit: Limit) {
        let mut known = self.kills.known();
        known.limits.extend(workers.iter().map(|(id, _)| (id.clone(), limit)));
        if std::mem::replace(&mut known.followed, true) {
            return;
        }
        let circus = self.clone();
        tokio::spawn(async move {
            while let Some(overdue) = circus.kills.overdue(&circus.node.watchers().await) {
                // One that the keeper does not reach has ended, or ends with the keeper.
                let _ = circus.send(&overdue, KILL, To::Trees).await;
                sleep(LOOK_AT_TIME).await;
            }
        });
    }

    /// Returns once these workers have ended.
    pub(super) async fn until_gone(&self, workers: &[(WorkerId, u32)]) {
        loop {
            let now = self.node.watchers().await;
            let mut alive = now.iter().flat_map(|one| &one.workers).filter(|w| w.pid.is_some());
            if !alive.any(|worker| workers.iter().any(|(id, _)| *id == worker.id)) {
                return;
            }
            sleep(LOOK).await;
        }
    }
}

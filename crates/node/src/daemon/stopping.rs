//! Stopping in order: three plans, applied like every other.
//!
//! 1. The fronts answer each new request with 503, and go on with those that they hold.
//! 2. No listener and no front: nobody is accepted any more, and the front finishes what it still
//!    holds. All that plugins run is still there, since requests may need it.
//! 3. Nothing: the workers end. (With Telegraf there is one more before it, which has Telegraf
//!    alone: it sends the last points of the others.)

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_core::diff::Changes;
use mfserv_core::keys::NGINX_STOP_DELAY_S;
use mfserv_core::names::WatcherName;
use mfserv_core::node_state::NodeState;
use mfserv_core::plan::Plan;
use mfserv_supervisor::Until;

use super::node::Node;

/// How long each plan may take; then what is left is killed.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long later requests are answered while those under way are finished. Some may never end
/// (streams of events): together with the time that the front has to end, a stop stays below the 90 s
/// that systemd gives by default.
const REFUSING: Duration = Duration::from_secs(20);

/// Between two looks whether requests are under way.
const LOOK: Duration = Duration::from_millis(50);

impl Node {
    /// Stops everything but keeper and daemon. No other change is accepted any more; the health
    /// endpoint says so for `smart_stop_delay` seconds before anything is closed.
    pub(super) async fn stop_in_order(&self) -> Result<(), Diagnostic> {
        let again = self.stopping.swap(true, Ordering::Relaxed);
        let _turn = self.turn.lock().await;
        if again && self.state.get() == NodeState::Stopped {
            // Two have asked: the stop that an earlier daemon began, and the keeper.
            return Ok(());
        }
        self.set_state(NodeState::Stopping);
        let jobs = self.parts.jobs.clone();
        // Runs may take until the workers have ended, and are killed with the rest after that.
        let jobs = tokio::spawn(async move { tokio::time::timeout(PATIENCE, jobs.stop()).await });
        tokio::time::sleep(self.delay(NGINX_STOP_DELAY_S)).await;
        let _ = self.go_over_to(refusing).await;
        let _ = tokio::time::timeout(REFUSING, self.until_no_request_is_under_way()).await;
        // A front that does not end in time is killed with the rest.
        let _ = self.go_over_to(without_front).await;
        if self.shown_plan().is_ok_and(|plan| plan.watchers.contains_key(&WatcherName::telegraf()))
        {
            let _ = self.go_over_to(telegraf_alone).await;
        }
        let gone = match self.go_over_to(without_anything).await {
            Ok(()) => self.until_nothing_lives().await,
            late => late,
        };
        let _ = jobs.await;
        self.set_state(NodeState::Stopped);
        gone
    }

    /// Waits until the fronts that answer have no request to an app.
    async fn until_no_request_is_under_way(&self) {
        while self.parts.world.fronts.stats().await.under_way > 0 {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Also what an earlier plan has stopped, and what no plan has known.
    async fn until_nothing_lives(&self) -> Result<(), Diagnostic> {
        let supervisor = &self.parts.supervisor;
        let living = supervisor.status().await.into_iter().map(|watcher| watcher.name);
        Ok(supervisor.wait(Until::Gone, living.collect(), PATIENCE).await?)
    }

    /// Applies the plan that is made from the one in force, and waits until what it does not
    /// have any more has gone.
    async fn go_over_to(&self, next: fn(&Plan) -> Plan) -> Result<(), Diagnostic> {
        let supervisor = &self.parts.supervisor;
        let Ok(previous) = self.shown_plan() else {
            // A daemon that has made no plan yet stops what it has taken over: the front first,
            // which needs the workers for the requests that it holds.
            let front = vec![WatcherName::front()];
            supervisor.stop(front.clone());
            let gone = supervisor.wait(Until::Gone, front, PATIENCE).await;
            supervisor.apply(Vec::new());
            return Ok(gone?);
        };
        let plan = next(&previous);
        let changes = Changes::between(Some(&previous), &plan);
        self.carry_out(Some(&previous), &plan, &changes).await?;
        self.show(Arc::new(plan));
        Ok(supervisor.wait(Until::Gone, changes.stop, PATIENCE).await?)
    }
}

/// The plan in which every new request is refused.
fn refusing(plan: &Plan) -> Plan {
    let mut next = Plan { generation: plan.generation + 1, ..plan.clone() };
    next.table.server.stopping = true;
    next
}

/// The plan without its listeners and its front.
fn without_front(plan: &Plan) -> Plan {
    let mut next = Plan { generation: plan.generation + 1, ..plan.clone() };
    next.listeners.clear();
    next.watchers.remove(&WatcherName::front());
    next
}

/// The plan without anything that runs, except Telegraf: it sends the last points of the others.
fn telegraf_alone(plan: &Plan) -> Plan {
    let mut next = without_front(plan);
    next.watchers.retain(|name, _| *name == WatcherName::telegraf());
    next
}

/// The plan without anything that runs.
fn without_anything(plan: &Plan) -> Plan {
    let mut next = without_front(plan);
    next.watchers.clear();
    next
}

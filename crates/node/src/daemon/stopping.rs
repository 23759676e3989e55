//! Stopping in order: two plans, applied like every other.
//!
//! The first plan has no listener and no front: nobody is accepted any more, and the front
//! finishes the requests that it holds. The second one has nothing at all: the workers end. (With
//! Telegraf there is one more between the two, which has Telegraf alone.)

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

/// How long each of the two plans may take; then what is left is killed.
const PATIENCE: Duration = Duration::from_secs(300);

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

//! Commands that change the node: each becomes operations, which lose no request.

use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_core::event::EndReason;
use mfserv_core::names::{WatcherName, WorkerId};
use mfserv_core::status::WatcherStatus;
use mfserv_supervisor::Until;
use serde_json::json;

use super::kills::Limit;
use super::message::{Fields, Message, Refusal};
use super::options::{MOST_WORKERS, Wanted};
use super::signals::{self, TERM, To};
use super::watchers::{Watchers, belongs_to_the_node, pids};
use super::{Circus, field};
use crate::operations::{Event, OperationId, Request, Submission, Who};

/// How long the outcome of a change is awaited for a client that does not wait: the patience of
/// `circusctl` is 5 s. What takes longer goes on.
const AWAITED: Duration = Duration::from_secs(3);
/// How long a client that waits is kept waiting.
const PATIENCE: Duration = Duration::from_secs(300);

impl Circus {
    pub(super) async fn change(&self, message: &Message, who: &Who) -> Result<Fields, Refusal> {
        match message.command.as_str() {
            "start" => self.start(message, who).await,
            "stop" => self.stop(message, who).await,
            "restart" => {
                let meant = |watchers: &Watchers| names(&watchers.meant(message)?);
                self.renew(message, who, meant).await
            }
            // A rolling replacement ends no worker before its time, also with `graceful` off.
            "reload" => {
                let meant = |watchers: &Watchers| match message.get("name") {
                    Some(_) => names(&[watchers.named(message)?]),
                    None => names(&watchers.iter().collect::<Vec<_>>()),
                };
                self.renew(message, who, meant).await
            }
            "incr" => self.scale(message, who, u32::saturating_add).await,
            "decr" => self.scale(message, who, u32::saturating_sub).await,
            "set" => self.set(message, who).await,
            "kill" => self.kill(message).await,
            "signal" => self.signal(message).await,
            "reloadconfig" => {
                let patience = if message.is_set("waiting") { PATIENCE } else { AWAITED };
                self.carry_out(vec![Request::Reload], who, patience).await?;
                let watchers = self.watchers().await;
                let all: Vec<&WatcherStatus> = watchers.iter().collect();
                self.waited(message, Until::Settled, &all).await.map(|_| Fields::new())
            }
            _ => {
                let patience = if message.is_set("waiting") { PATIENCE } else { Duration::ZERO };
                self.carry_out(vec![Request::Stop], who, patience).await?;
                Ok(Fields::new())
            }
        }
    }

    async fn start(&self, message: &Message, who: &Who) -> Result<Fields, Refusal> {
        let turn = self.turn.lock().await;
        let before = self.watchers().await;
        let meant = before.of_plugins(message)?;
        let off = meant.iter().filter(|watcher| watcher.wanted == 0);
        let requests = off.map(|watcher| as_configured(&watcher.name)).collect();
        self.carry_out(requests, who, AWAITED).await?;
        drop(turn);
        self.waited(message, Until::Settled, &meant).await
    }

    async fn stop(&self, message: &Message, who: &Who) -> Result<Fields, Refusal> {
        let turn = self.turn.lock().await;
        let before = self.watchers().await;
        let meant = before.of_plugins(message)?;
        let on = meant.iter().filter(|watcher| watcher.wanted > 0);
        let requests = on.map(|watcher| scaled(&watcher.name, 0)).collect();
        self.carry_out(requests, who, AWAITED).await?;
        drop(turn);
        self.waited(message, Until::Gone, &meant).await
    }

    /// Replaces the workers of watchers, and starts those that were stopped.
    async fn renew(
        &self,
        message: &Message,
        who: &Who,
        meant: impl Fn(&Watchers) -> Result<Vec<WatcherName>, Refusal>,
    ) -> Result<Fields, Refusal> {
        let turn = self.turn.lock().await;
        let before = self.watchers().await;
        let wanted = meant(&before)?;
        let meant: Vec<&WatcherStatus> =
            before.iter().filter(|one| wanted.contains(&one.name)).collect();
        let (off, on): (Vec<&WatcherStatus>, Vec<&WatcherStatus>) =
            meant.iter().partition(|one| one.wanted == 0);
        let mut requests: Vec<Request> = off.iter().map(|one| as_configured(&one.name)).collect();
        if !on.is_empty() {
            let apps = on.iter().map(|one| one.name.to_string()).collect();
            requests.push(Request::Restart { apps });
        }
        self.carry_out(requests, who, AWAITED).await?;
        drop(turn);
        self.waited(message, Until::Settled, &meant).await
    }

    async fn scale(
        &self,
        message: &Message,
        who: &Who,
        change: impl Fn(u32, u32) -> u32,
    ) -> Result<Fields, Refusal> {
        let by = message.number::<u32>("nb")?.unwrap_or(1);
        let turn = self.turn.lock().await;
        let before = self.watchers().await;
        let watcher = of_plugin(before.named(message)?)?;
        let wanted = match self.asked.count(watcher.name.as_str()) {
            Some(Some(count)) => count,
            Some(None) => watcher.scaled.as_ref().map_or(watcher.wanted, |it| it.configured),
            None => watcher.wanted,
        };
        let count = change(wanted, by).min(MOST_WORKERS);
        self.carry_out(vec![scaled(&watcher.name, count)], who, AWAITED).await?;
        drop(turn);
        let mut fields = self.waited(message, Until::Settled, &[watcher]).await?;
        fields.remove("info");
        fields.insert("numprocesses".into(), count.into());
        Ok(fields)
    }

    async fn set(&self, message: &Message, who: &Who) -> Result<Fields, Refusal> {
        let Wanted { count, options } = Wanted::read(message.required("options")?)?;
        let turn = self.turn.lock().await;
        let before = self.watchers().await;
        let watcher = of_plugin(before.named(message)?)?;
        let app = watcher.name.to_string();
        let count = count.map(|count| scaled(&watcher.name, count));
        let options = (!options.is_empty()).then_some(Request::Set { app, options });
        let requests = count.into_iter().chain(options).collect();
        self.carry_out(requests, who, AWAITED).await?;
        drop(turn);
        self.waited(message, Until::Settled, &[watcher]).await.map(|_| Fields::new())
    }

    /// Submits operations, and awaits their outcomes at most so long.
    async fn carry_out(
        &self,
        requests: Vec<Request>,
        who: &Who,
        at_most: Duration,
    ) -> Result<(), Refusal> {
        let mut begun = Vec::new();
        for request in requests {
            let submission = Submission { id: None, request, who: who.clone(), patience_s: 0 };
            let circus = self.clone();
            begun.push(match self.asked.next(&submission.request) {
                Some(mut turn) => tokio::spawn(async move {
                    turn.begins().await;
                    let id = circus.operations.submit(submission).await?;
                    circus.outcome(&id).await
                }),
                None => {
                    let id = self.operations.submit(submission).await?;
                    tokio::spawn(async move { circus.outcome(&id).await })
                }
            });
        }
        let outcomes = async {
            for one in begun {
                one.await.map_err(|why| Refusal::command(why.to_string()))??;
            }
            Ok(())
        };
        tokio::time::timeout(at_most, outcomes).await.unwrap_or(Ok(()))
    }

    async fn outcome(&self, id: &OperationId) -> Result<(), Diagnostic> {
        let mut events = self.operations.follow(id).await?;
        while let Some(event) = events.recv().await {
            let Event::Outcome(outcome) = event else { continue };
            outcome.problem.map_or(Ok(()), Err)?;
        }
        Ok(())
    }

    /// Waits until watchers are where they should be, if the client wants that; of one watcher
    /// the answer says which processes have come and gone.
    async fn waited(
        &self,
        message: &Message,
        until: Until,
        watchers: &[&WatcherStatus],
    ) -> Result<Fields, Refusal> {
        if !message.is_set("waiting") {
            return Ok(Fields::new());
        }
        let names: Vec<WatcherName> = watchers.iter().map(|one| one.name.clone()).collect();
        let waited = self.node.parts.supervisor.wait(until, names, PATIENCE).await;
        waited.map_err(Diagnostic::from)?;
        let [before] = watchers else { return Ok(Fields::new()) };
        let now = self.node.watchers().await;
        let after = now.iter().find(|one| one.name == before.name).map(pids).unwrap_or_default();
        let before = pids(before);
        let without = |some: &[u32], others: &[u32]| -> Vec<u32> {
            some.iter().filter(|pid| !others.contains(pid)).copied().collect()
        };
        let kept: Vec<u32> = after.iter().filter(|pid| before.contains(pid)).copied().collect();
        let (stopped, started) = (without(&before, &after), without(&after, &before));
        Ok(field("info", json!({"stopped": stopped, "started": started, "kept": kept})))
    }

    /// Ends processes: those of an app are drained, and replaced before they end. Another signal
    /// than the one that stops them is sent at once.
    async fn kill(&self, message: &Message) -> Result<Fields, Refusal> {
        let signal = message.get("signum").map(signals::number).transpose()?;
        let limit = message.seconds("graceful_timeout")?.map(Duration::from_secs_f64);
        let watchers = self.watchers().await;
        let watcher = watchers.named(message)?;
        let workers = workers_of(watcher, message.number("pid")?)?;
        let plan = self.plan()?;
        let spec = plan.watchers.get(&watcher.name);
        let stops =
            |signal: i32| signal == TERM || spec.is_some_and(|spec| spec.stop_signal == signal);
        let limit = match signal {
            Some(other) if !stops(other) => {
                self.send(&workers, other, To::Workers).await?;
                Limit::of_signalled(limit, spec.map_or(0, |spec| spec.stop_timeout_ms))
            }
            _ => {
                self.drain(&workers, "kill");
                Limit::of_replaced(limit)
            }
        };
        if let Some(limit) = limit {
            self.kill_after(&workers, limit);
        }
        if message.is_set("waiting") {
            let gone = tokio::time::timeout(PATIENCE, self.until_gone(&workers)).await;
            gone.map_err(|_| {
                let waited = PATIENCE.as_secs();
                Refusal::command(format!(
                    "processes of {} still live after {waited} s: a worker serves until its \
                     successor is ready, see mfserv status",
                    super::shown(&watcher.name)
                ))
            })?;
        }
        Ok(Fields::new())
    }

    async fn signal(&self, message: &Message) -> Result<Fields, Refusal> {
        let signal = signals::number(message.required("signum")?)?;
        let pid = message.number::<u32>("pid")?;
        let to = match message.number::<u32>("childpid")? {
            Some(_) if pid.is_none() => {
                return Err(Refusal::message("cannot specify childpid without pid"));
            }
            Some(child) => To::Child(child),
            None if message.is_set("children") => To::Children,
            None if message.is_set("recursive") => To::Trees,
            None => To::Workers,
        };
        let watchers = self.watchers().await;
        let watcher = watchers.named(message)?;
        let workers = workers_of(watcher, pid)?;
        let plan = self.plan()?;
        let is_app = plan.watchers.get(&watcher.name).is_some_and(|spec| spec.upstream.is_some());
        // At MFSERV the process of an app was a wrapper, which drained the app at SIGTERM.
        match signal == TERM && to == To::Workers && is_app {
            true => self.drain(&workers, "signal"),
            false => self.send(&workers, signal, to).await?,
        }
        Ok(Fields::new())
    }

    /// Drains workers and ends them, once they are replaced.
    fn drain(&self, workers: &[(WorkerId, u32)], command: &str) {
        let ids = workers.iter().map(|(id, _)| id.clone()).collect();
        let why = EndReason::Asked { what: format!("circusctl {command}") };
        self.node.parts.supervisor.replace(ids, why);
    }
}

fn names(watchers: &[&WatcherStatus]) -> Result<Vec<WatcherName>, Refusal> {
    Ok(watchers.iter().map(|one| one.name.clone()).collect())
}

fn of_plugin(watcher: &WatcherStatus) -> Result<&WatcherStatus, Refusal> {
    match watcher.plugin {
        Some(_) => Ok(watcher),
        None => Err(belongs_to_the_node(&watcher.name)),
    }
}

/// As many workers as this until the configuration changes.
fn scaled(watcher: &WatcherName, count: u32) -> Request {
    Request::Scale { app: watcher.to_string(), count: Some(count), keep: false }
}

/// As many workers as the configuration says.
fn as_configured(watcher: &WatcherName) -> Request {
    Request::Scale { app: watcher.to_string(), count: None, keep: false }
}

/// The workers of a watcher that have a process, or the one whose process this is.
fn workers_of(watcher: &WatcherStatus, pid: Option<u32>) -> Result<Vec<(WorkerId, u32)>, Refusal> {
    let all = watcher.workers.iter().filter_map(|worker| Some((worker.id.clone(), worker.pid?)));
    let meant: Vec<_> = all.filter(|(_, known)| pid.is_none_or(|pid| pid == *known)).collect();
    match (pid, meant.is_empty()) {
        (Some(pid), true) => Err(Refusal::message(format!(
            "process {pid} is not one of {}",
            super::shown(&watcher.name)
        ))),
        _ => Ok(meant),
    }
}

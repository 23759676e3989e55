//! What the daemon counts, and how the telemetry role gets it: once a second, whenever that
//! role listens.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mfserv_core::event::Fact;
use mfserv_core::job::JobCount;
use mfserv_core::names::WatcherName;
use mfserv_core::status::WatcherStatus;
use mfserv_core::wire::front::TroubleCause;
use mfserv_core::wire::metrics::{
    Histogram, NodeCounters, OperationCount, PluginSample, REST, Source, ToTelemetry, WatcherCount,
    WatcherSample, WorkerSample, until_next_message_ms,
};
use mfserv_platform::clock::now_ms;
use mfserv_platform::link::{AsyncLink, LinkError};
use mfserv_platform::sync::lock;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::node::Node;

/// How long the role may take to read a message; after that the connection is given up.
const PATIENCE: Duration = Duration::from_millis(500);
/// The most rows of a table. Plugins come and go as long as a daemon lives.
const ROWS_MAX: usize = 5_000;

/// What has happened since this daemon was started. Cheap to clone.
#[derive(Clone, Default)]
pub struct Counts(Arc<Mutex<Tables>>);

#[derive(Default)]
struct Tables {
    ends: BTreeMap<(WatcherName, String), u64>,
    boots: BTreeMap<(WatcherName, String), Histogram>,
    troubles: BTreeMap<(WatcherName, String), (Option<TroubleCause>, u64)>,
    /// By kind and outcome: how many, and how long together, milliseconds.
    operations: BTreeMap<(String, bool), (u64, u64)>,
    /// By job and result: how many runs, and how long together, milliseconds.
    runs: BTreeMap<(String, &'static str), (u64, u64)>,
}

impl Counts {
    /// Counts a fact.
    pub fn notice(&self, fact: &Fact) {
        let mut tables = lock(&self.0);
        match fact {
            Fact::WorkerReady { worker, after_ms } => {
                let boots = row(&mut tables.boots, &worker.watcher, "");
                boots.observe(after_ms.saturating_mul(1000));
            }
            Fact::WorkerEnded { worker, why, .. } => {
                *row(&mut tables.ends, &worker.watcher, why.as_str()) += 1;
            }
            Fact::WorkerTrouble { worker, cause, .. } => {
                let trouble = row(&mut tables.troubles, &worker.watcher, cause.as_str());
                *trouble = (Some(*cause), trouble.1 + 1);
            }
            Fact::OperationEnded { what, ok, after_ms, .. } => {
                // The kinds are those of `Request`: a handful.
                let kind = what.split(' ').next().unwrap_or_default();
                let sum = tables.operations.entry((kind.into(), *ok)).or_default();
                *sum = (sum.0 + 1, sum.1.saturating_add(*after_ms));
            }
            Fact::JobEnded { job, result, after_ms, .. } => {
                let is_full = tables.runs.len() >= ROWS_MAX;
                let mut key = (job.clone(), result.as_str());
                if is_full && !tables.runs.contains_key(&key) {
                    key.0 = REST.into();
                }
                let sum = tables.runs.entry(key).or_default();
                *sum = (sum.0 + 1, sum.1.saturating_add(after_ms.unwrap_or(0)));
            }
            _ => {}
        }
    }
}

/// The row of a watcher; that of the rest if the table is full.
fn row<'a, T: Default>(
    table: &'a mut BTreeMap<(WatcherName, String), T>,
    watcher: &WatcherName,
    what: &str,
) -> &'a mut T {
    let mut key = (watcher.clone(), what.to_string());
    if table.len() >= ROWS_MAX && !table.contains_key(&key) {
        key.0 = WatcherName::from(REST);
    }
    table.entry(key).or_default()
}

/// Sends the counters as long as the daemon lives.
pub async fn run(node: Node, counts: Counts) {
    let socket = node.parts.options.places.metrics_socket();
    let source = Source {
        pid: std::process::id(),
        since_ms: node.since_ms,
        version: env!("CARGO_PKG_VERSION").into(),
    };
    let mut link = None;
    loop {
        tokio::time::sleep(Duration::from_millis(until_next_message_ms(now_ms()))).await;
        if link.is_none() {
            // Nobody listens: the counters are sent when somebody does.
            link = connect(&socket, &source).await.ok();
        }
        let Some(connected) = &mut link else { continue };
        let message = ToTelemetry::Node(Box::new(node.counters(&counts).await));
        if !matches!(timeout(PATIENCE, connected.send(&message)).await, Ok(Ok(()))) {
            link = None;
        }
    }
}

async fn connect(socket: &Path, source: &Source) -> Result<AsyncLink, LinkError> {
    let mut link = AsyncLink::new(UnixStream::connect(socket).await?);
    link.send(&ToTelemetry::Hello(source.clone())).await?;
    Ok(link)
}

impl Node {
    async fn counters(&self, counts: &Counts) -> NodeCounters {
        let plan = self.shown_plan().ok();
        let watchers = self.parts.supervisor.watchers().await;
        let plugins = plan.iter().flat_map(|plan| &plan.plugins).map(|plugin| PluginSample {
            name: plugin.name.clone(),
            version: plugin.version.clone(),
            state: plugin.state.as_str().into(),
        });
        let has_jobs = plan.as_ref().is_some_and(|plan| !plan.jobs.is_empty());
        let jobs = if has_jobs { self.parts.jobs.samples().await } else { Vec::new() };
        let tables = lock(&counts.0);
        let runs = tables.runs.iter().map(|((job, result), (count, sum_ms))| JobCount {
            job: job.clone(),
            result: (*result).into(),
            count: *count,
            sum_ms: *sum_ms,
        });
        let operations = tables.operations.iter().map(|((operation, ok), (count, sum_ms))| {
            let outcome = if *ok { "ok" } else { "failed" }.into();
            OperationCount { operation: operation.clone(), outcome, count: *count, sum_ms: *sum_ms }
        });
        let ends = tables.ends.iter().map(|((watcher, why), count)| WatcherCount {
            watcher: watcher.clone(),
            what: why.clone(),
            count: *count,
        });
        let troubles = tables.troubles.iter().filter_map(|((watcher, _), (cause, count))| {
            let (watcher, what) = (watcher.clone(), (*cause)?);
            Some(WatcherCount { watcher, what, count: *count })
        });
        let boots =
            tables.boots.iter().map(|((watcher, _), boots)| (watcher.clone(), boots.clone()));
        NodeCounters {
            state: self.state.get(),
            generation: plan.as_ref().map_or(0, |plan| plan.generation),
            keeper: lock(&self.keeper).as_ref().map(|keeper| keeper.pid),
            problems: plan.as_ref().map_or(0, |plan| plan.problems.len() as u64),
            plugins: plugins.collect(),
            watchers: watchers.into_iter().map(sample).collect(),
            ends: ends.collect(),
            boots: boots.collect(),
            troubles: troubles.collect(),
            operations: operations.collect(),
            runs: runs.collect(),
            jobs,
        }
    }
}

fn sample(watcher: WatcherStatus) -> WatcherSample {
    let newest = watcher.workers.iter().max_by_key(|worker| worker.id.incarnation);
    let memory = newest.and_then(|worker| worker.memory.as_ref());
    let memory_limit = memory.map_or(0, |memory| memory.control.limits.limit);
    let workers = watcher.workers.into_iter().map(|worker| WorkerSample {
        slot: worker.id.slot,
        pid: worker.pid,
        phase: worker.phase,
    });
    let WatcherStatus { name, wanted, .. } = watcher;
    WatcherSample { name, wanted, memory_limit, workers: workers.collect() }
}

#[cfg(test)]
mod tests {
    use mfserv_core::event::EndReason;
    use mfserv_core::names::WorkerId;

    use super::*;

    #[test]
    fn plugins_that_come_and_go_for_ever_are_counted_in_a_bounded_table() {
        let counts = Counts::default();
        for number in 0..ROWS_MAX + 20 {
            let watcher = WatcherName::app(&format!("plugin{number}"), "web");
            let worker = WorkerId::new(watcher, 1, 1);
            counts.notice(&Fact::WorkerEnded {
                worker,
                why: EndReason::TooOld,
                ended: None,
                last_output: String::new(),
                left_behind: 0,
                restart_in_ms: None,
            });
        }
        let tables = lock(&counts.0);
        assert_eq!(tables.ends.len(), ROWS_MAX + 1);
        assert_eq!(tables.ends[&(WatcherName::from(REST), "too_old".to_string())], 20);
    }
}

//! What the keeper and the fronts say lives, sorted by watcher.

use std::collections::{BTreeMap, BTreeSet};

use mfserv_core::alerts::PROCESS_PREFIX;
use mfserv_core::event::{EndReason, Fact};
use mfserv_core::job::JobIdentity;
use mfserv_core::names::{WatcherName, WorkerId};
use mfserv_core::watcher::WatcherSpec;
use mfserv_core::wire::keeper::{Exit, Process};

use crate::context::Context;
use crate::keeper_link::KeeperState;
use crate::saved::Saved;
use crate::spawn::Note;
use crate::watcher::Watcher;

/// The watchers of an earlier daemon with their living workers, and the number of these.
pub(crate) fn adopt(
    found: KeeperState,
    admitted: &BTreeSet<WorkerId>,
    saved: &Saved,
    context: &mut Context,
) -> (BTreeMap<WatcherName, Watcher>, u32) {
    let mut by_watcher: BTreeMap<WatcherName, BTreeMap<WorkerId, (Note, Process)>> =
        BTreeMap::new();
    let served = |id: &WorkerId| {
        admitted.contains(id) || saved.recall(&id.watcher).ready.contains(&id.incarnation)
    };
    for process in found.alive {
        let Ok(id) = process.id.parse::<WorkerId>() else { continue };
        match serde_json::from_str::<Note>(&process.note) {
            // The plan that it was prepared for is not in force: it never served. (The note says
            // how the worker was started; it may have taken over since.)
            Ok(note) if note.prepared && !served(&id) => context.kill_tree(&id),
            Ok(note) => {
                let workers = by_watcher.entry(id.watcher.clone()).or_default();
                workers.insert(id, (note, process));
            }
            // Nobody knows what it is or how it is stopped in order.
            Err(_) => context.kill_tree(&id),
        }
    }
    let adopted = by_watcher.values().map(|workers| workers.len() as u32).sum();
    let mut watchers = BTreeMap::new();
    for (name, workers) in by_watcher {
        let Some((note, _)) = workers.values().next() else { continue };
        let spec = WatcherSpec { name: name.clone(), ..note.spec.clone() };
        let saved = saved.recall(&name);
        let mut watcher = Watcher::new(spec, saved.clone());
        watcher.adopt(workers, admitted, &saved.ready, context);
        watchers.insert(name, watcher);
    }
    for exit in found.exits {
        ended_unseen(exit, context);
    }
    (watchers, adopted)
}

/// Who has started a process forgets it: it is a run of a job, or the command of an alert.
pub(crate) fn is_of_another(process: &str) -> bool {
    JobIdentity::of_process(process).is_some() || process.starts_with(PROCESS_PREFIX)
}

/// A process ended while no daemon was running.
fn ended_unseen(exit: Exit, context: &Context) {
    if is_of_another(&exit.id) {
        return;
    }
    if let Ok(worker) = exit.id.parse::<WorkerId>() {
        context.emit(Fact::WorkerEnded {
            worker,
            why: EndReason::of(&exit.ended),
            ended: Some(exit.ended),
            last_output: exit.last_output,
            left_behind: exit.left_behind,
            restart_in_ms: None,
        });
    }
    context.forget_exit(exit.id);
}

/// The living workers by id. Processes that are not workers (the daemon) are left out.
pub(crate) fn by_id(alive: Vec<Process>) -> BTreeMap<WorkerId, Process> {
    let id = |process: Process| Some((process.id.parse().ok()?, process));
    alive.into_iter().filter_map(id).collect()
}

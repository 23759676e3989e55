//! Finding again what lives: after a new daemon, and after a new keeper.

use std::collections::{BTreeMap, BTreeSet};

use mfserv_core::event::Fact;
use mfserv_core::names::{WatcherName, WorkerId};
use mfserv_core::watcher::{Probe, WatcherSpec};
use mfserv_core::wire::keeper::{Ask, Ended, Exit, Process, Scope};
use mfserv_core::worker::{Input, Phase};

use crate::keeper_link::KeeperState;
use crate::spawn::Note;
use crate::supervisor::Supervisor;
use crate::watcher::Watcher;
use crate::worker::Worker;
use mfserv_platform::clock::now_ms;

impl Supervisor {
    /// A new daemon takes over what lives. Those who have traffic keep it; the
    /// others are probed. Returns how many were adopted.
    pub(crate) fn adopt_all(&mut self, keeper: KeeperState, admitted: &BTreeSet<WorkerId>) -> u32 {
        let mut alive: BTreeMap<WorkerId, (Note, Process)> = BTreeMap::new();
        for process in keeper.alive {
            let Ok(id) = process.id.parse::<WorkerId>() else { continue };
            match serde_json::from_str::<Note>(&process.note) {
                // The plan that it was prepared for is not in force: it never served.
                Ok(note) if note.prepared && !admitted.contains(&id) => self.kill_tree(&id),
                Ok(note) => drop(alive.insert(id, (note, process))),
                // Nobody knows what it is or how it is stopped in order.
                Err(_) => self.kill_tree(&id),
            }
        }
        let adopted = alive.len() as u32;
        let newest: BTreeMap<(WatcherName, u32), WorkerId> =
            alive.keys().map(|id| ((id.watcher.clone(), id.slot), id.clone())).collect();
        for (id, (note, process)) in alive {
            self.emit(Fact::WorkerAdopted { worker: id.clone(), pid: process.pid });
            let followed = newest.get(&(id.watcher.clone(), id.slot)) != Some(&id);
            self.adopt_one(id, note, process, admitted, followed);
        }
        for exit in keeper.exits {
            self.ended_unseen(exit);
        }
        adopted
    }

    fn adopt_one(
        &mut self,
        id: WorkerId,
        note: Note,
        process: Process,
        admitted: &BTreeSet<WorkerId>,
        followed: bool,
    ) {
        let saved = self.remembered.get(&id.watcher).cloned().unwrap_or_default();
        let was_ready = saved.ready.clone();
        let watcher = self.watchers.entry(id.watcher.clone()).or_insert_with(|| {
            // What is wanted is said by the plan, which comes next.
            let mut watcher = Watcher::new(&WatcherSpec { count: 0, ..note.spec.clone() });
            watcher.remember(saved);
            watcher
        });
        watcher.next_incarnation = watcher.next_incarnation.max(id.incarnation + 1);
        let ready = admitted.contains(&id);
        // One that has no traffic and is followed by a younger one was on its way
        // out: it drains what it holds, again.
        let leaving = followed && !ready;
        // One that cannot be asked again was ready if it was ready before.
        let asked_again = matches!(note.spec.probe, Probe::Http { .. } | Probe::Connect);
        let known_ready = was_ready.contains(&id.incarnation) && !asked_again && !leaving;
        let mut worker = Worker::adopted(id.clone(), note, process, ready || leaving);
        worker.replaces =
            watcher.needed(id.slot).filter(|w| w.id < id).map(|w| w.id.clone()).last();
        watcher.workers.insert(id.clone(), worker);
        if leaving {
            self.retire(&id);
        } else if ready {
            self.retire_replaced(&id);
        } else if known_ready {
            self.drive(&id, Input::Ready);
        } else {
            self.probe(&id);
        }
    }

    pub(crate) fn kill_tree(&self, id: &WorkerId) {
        self.keeper.tell(Ask::Signal { id: id.to_string(), signal: 9, scope: Scope::Tree });
    }

    /// A process ended while no daemon was looking.
    fn ended_unseen(&mut self, exit: Exit) {
        if let Ok(worker) = exit.id.parse::<WorkerId>() {
            self.emit(Fact::WorkerEnded {
                worker,
                why: mfserv_core::event::EndReason::of(&exit.ended),
                last_output: exit.last_output,
                left_behind: exit.left_behind,
                restart_in_ms: None,
            });
        }
        self.keeper.tell(Ask::Forget { id: exit.id });
    }

    /// The link to the keeper is back: what it says is the truth.
    pub(crate) fn resync(&mut self, keeper: KeeperState) {
        for exit in keeper.exits {
            self.exited(exit);
        }
        let alive: BTreeMap<WorkerId, Process> = keeper
            .alive
            .into_iter()
            .filter_map(|process| Some((process.id.parse().ok()?, process)))
            .collect();
        let known: Vec<(WorkerId, Phase, bool)> = self
            .watchers
            .values()
            .flat_map(|w| w.workers.values())
            .filter(|w| w.phase().has_process())
            .map(|w| (w.id.clone(), w.phase(), w.process.is_some()))
            .collect();
        for (id, phase, had_process) in &known {
            match (alive.get(id), had_process) {
                (Some(process), _) => {
                    if let Some(worker) = self.worker(id) {
                        worker.process = Some(process.clone());
                    }
                    // What was asked of a keeper that had gone is asked again.
                    match phase {
                        Phase::Stopping => self.signal(id),
                        Phase::Killing => self.kill(id),
                        _ => {}
                    }
                }
                (None, true) => self.exited(gone_unseen(id)),
                (None, false) if *phase == Phase::Starting => self.spawn(id),
                (None, false) => self.ended(id, None),
            }
        }
        for id in alive.keys().filter(|id| !known.iter().any(|(k, ..)| k == *id)) {
            self.kill_tree(id);
        }
    }

    /// This worker is ready: the one that it replaces is not needed any more.
    pub(crate) fn retire_replaced(&mut self, id: &WorkerId) {
        let replaced = self.worker(id).and_then(|w| w.replaces.take());
        if let Some(old) = replaced {
            self.retire(&old);
        }
    }

    pub(crate) fn worker(&mut self, id: &WorkerId) -> Option<&mut Worker> {
        self.watchers.get_mut(&id.watcher)?.workers.get_mut(id)
    }
}

fn gone_unseen(id: &WorkerId) -> Exit {
    Exit {
        id: id.to_string(),
        pid: 0,
        ended: Ended::Unknown,
        at_ms: now_ms(),
        last_output: String::new(),
        left_behind: 0,
        note: String::new(),
    }
}

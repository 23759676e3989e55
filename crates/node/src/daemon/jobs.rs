//! Jobs: the runs that are due are started, ended in time, and written down.
//!
//! One task owns them. It sleeps until the next minute while there are jobs, and for ever while
//! there are none.
//!
//! A run is written down, with the minute that it is for, before the keeper is asked to start it;
//! and the keeper starts a name only once. A daemon that is killed at any moment is thus followed
//! by one that finds out what became of each run: it lives, it has ended, or it was never started
//! and is started now. The end of a run is written down before the keeper forgets it.
//!
//! - `actor` is the task: messages, plans, time; `runs` starts and ends runs; `comeback` is what a
//!   daemon does first; `ledger` is the disk; `view` is what is shown.

mod actor;
mod comeback;
mod ledger;
mod memory;
mod runs;
mod view;

use std::sync::Arc;
use std::time::Duration;

use mfserv_core::job::{JobSample, JobStatus, Run};
use mfserv_core::plan::Plan;
use mfserv_core::wire::keeper::{Answer, Exit, Notice, Process};
use mfserv_core::{Diagnostic, Kind};
use mfserv_supervisor::{KeeperNews, KeeperState, Measured};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::events::Events;
use super::world::World;
use crate::places::Places;

/// A job with its last runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct History {
    /// The job.
    pub job: JobStatus,
    /// Its last runs, the newest first.
    pub runs: Vec<Run>,
}

/// What the keeper says of the runs of jobs.
#[derive(Debug, Clone, Default)]
struct Found {
    keeper: String,
    /// It goes on with what an earlier keeper has started.
    has_adopted: bool,
    alive: Vec<Process>,
    exits: Vec<Exit>,
}

enum Message {
    Planned(Arc<Plan>),
    Keeper(Found),
    Exited(Exit),
    /// The answer to the start of a process.
    Spawned(String, Result<Answer, Diagnostic>),
    /// The keeper has refused to start a process, for this reason; this is what it knows.
    Refused(String, String, Found),
    /// What the memory of runs is, and how long it took to find out.
    Measured(Vec<Measured<String>>, Duration),
    List(oneshot::Sender<Vec<JobStatus>>),
    Samples(oneshot::Sender<Vec<JobSample>>),
    Notes(oneshot::Sender<Vec<String>>),
    Run(String, oneshot::Sender<Result<Run, Diagnostic>>),
    History(String, oneshot::Sender<Result<History, Diagnostic>>),
    /// Nothing is started any more, and what lives is ended.
    Stop,
    /// Said when no run lives: of a plugin, or at all.
    Gone(Option<String>, oneshot::Sender<()>),
}

impl Message {
    /// Somebody waits for the answer.
    fn is_awaited(&self) -> bool {
        match self {
            Message::List(reply) => !reply.is_closed(),
            Message::Run(_, reply) => !reply.is_closed(),
            Message::History(_, reply) => !reply.is_closed(),
            _ => true,
        }
    }
}

/// Asks the task of the jobs. Cheap to clone.
#[derive(Clone)]
pub struct Jobs {
    /// Bounded in fact: the keeper sends one exit for each run, and a run has one start under
    /// way; one measurement is under way at a time; every other message is a request of the daemon, whose clients are bounded. A bounded
    /// channel could lock up: the task waits for the keeper, whose news come through here.
    messages: mpsc::UnboundedSender<Message>,
}

impl Jobs {
    /// Starts the task. It does nothing before the first plan.
    pub fn start(places: Places, world: World, events: Events, found: &KeeperState) -> Jobs {
        // Bounded in fact: see `Jobs::messages`.
        let (messages, received) = mpsc::unbounded_channel();
        let jobs = Jobs { messages };
        let own = jobs.messages.downgrade();
        let actor = actor::Actor::new(places, world, events, found_of(found), own);
        tokio::spawn(actor.run(received));
        jobs
    }

    /// These jobs are wanted from now on, and no others.
    pub fn planned(&self, plan: Arc<Plan>) {
        self.send(Message::Planned(plan));
    }

    /// What the keeper says by itself.
    pub fn keeper(&self, news: &KeeperNews) {
        match news {
            KeeperNews::Connected(state) => self.send(Message::Keeper(found_of(state))),
            KeeperNews::Notice(Notice::Exited(exit)) if is_run(&exit.id) => {
                self.send(Message::Exited(exit.clone()));
            }
            _ => {}
        }
    }

    /// All jobs, by plugin.
    pub async fn list(&self) -> Vec<JobStatus> {
        self.ask(Message::List).await.unwrap_or_default()
    }

    /// All jobs, for metrics.
    pub async fn samples(&self) -> Vec<JobSample> {
        self.ask(Message::Samples).await.unwrap_or_default()
    }

    /// What the status says of them.
    pub async fn notes(&self) -> Vec<String> {
        self.ask(Message::Notes).await.unwrap_or_default()
    }

    /// Starts a run now; returns when it is written down.
    pub async fn run(&self, name: &str) -> Result<Run, Diagnostic> {
        self.ask(|reply| Message::Run(name.into(), reply)).await.unwrap_or_else(|| Err(ended()))
    }

    /// A job with its last runs.
    pub async fn history(&self, name: &str) -> Result<History, Diagnostic> {
        self.ask(|reply| Message::History(name.into(), reply)).await.unwrap_or_else(|| Err(ended()))
    }

    /// Starts nothing any more, and ends what lives as each job says. Returns when nothing does.
    pub async fn stop(&self) {
        self.send(Message::Stop);
        let _ = self.ask(|reply| Message::Gone(None, reply)).await;
    }

    /// Waits until no run of a plugin lives.
    pub async fn gone(&self, plugin: &str) {
        let _ = self.ask(|reply| Message::Gone(Some(plugin.into()), reply)).await;
    }

    fn send(&self, message: Message) {
        let _ = self.messages.send(message);
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.send(message(reply));
        answer.await.ok()
    }
}

fn ended() -> Diagnostic {
    Diagnostic::error("the daemon is ending").kind(Kind::NotRunning)
}

fn is_run(process: &str) -> bool {
    mfserv_core::job::JobIdentity::of_process(process).is_some()
}

fn found_of(state: &KeeperState) -> Found {
    let KeeperState { pid, adopted, alive, exits, .. } = state;
    let ticks = mfserv_keeper::start_ticks(*pid).unwrap_or(0);
    let boot = mfserv_keeper::boot_id().unwrap_or_default();
    let (keeper, has_adopted) = (format!("{boot}.{pid}.{ticks}"), *adopted > 0);
    Found { keeper, has_adopted, ..of_processes(alive, exits) }
}

fn of_processes(alive: &[Process], exits: &[Exit]) -> Found {
    Found {
        alive: alive.iter().filter(|process| is_run(&process.id)).cloned().collect(),
        exits: exits.iter().filter(|exit| is_run(&exit.id)).cloned().collect(),
        ..Found::default()
    }
}

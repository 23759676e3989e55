//! Alerts that fire, as events, and the commands of the configuration that are run because of
//! them. The telemetry role evaluates alerts; it reads the network, and therefore starts no
//! process. It writes what fires into a file; this task reads the file, takes the command from its
//! own plan, and has the keeper start it: contained as a worker, at most for [`LONGEST`].

mod known;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mfserv_core::Kind;
use mfserv_core::alerts::PROCESS_PREFIX;
use mfserv_core::event::{EndReason, Fact};
use mfserv_core::output::{Output, Rotation};
use mfserv_core::plan::Plan;
use mfserv_core::wire::keeper::{Answer, Ask, Exit, Process, ProcessSpec, Scope};
use mfserv_platform::sync::lock;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::node::Node;
use super::staging;
use known::{Command, Fired, Key, Known};

/// How often it is looked whether something fires.
const EVERY: Duration = Duration::from_secs(1);
/// How long a command may run; then it is asked to end, and killed a little later.
const LONGEST: Duration = Duration::from_secs(60);
/// From SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// The most commands at a time.
const COMMANDS_MAX: usize = 8;
const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// What is read of the file of the telemetry role.
#[derive(Default, Deserialize)]
struct Stored {
    #[serde(default)]
    firing: Vec<Fired>,
}

/// A command that runs.
struct Live {
    /// What it is about; `None`: an earlier daemon has started it.
    key: Option<Key>,
    /// When the next signal is sent, and which.
    next: (Instant, i32),
    /// Why the keeper did not start it.
    refused: Option<String>,
}

/// The work of this task.
struct Watch {
    node: Node,
    /// The file of the telemetry role.
    fires: PathBuf,
    /// What this task knows, for the next daemon.
    file: PathBuf,
    known: Known,
    /// By the name of the process.
    live: BTreeMap<String, Live>,
    /// Processes of an earlier daemon were looked for.
    has_looked: bool,
}

/// Watches for as long as the daemon lives. `plans` has the plan in force.
pub async fn run(node: Node, mut plans: watch::Receiver<Option<Arc<Plan>>>) {
    let var = node.parts.options.places.var();
    let (fires, file) = (var.join("telemetry/alerts.json"), var.join("alerts.json"));
    let text = node.parts.world.disk.read(&file).unwrap_or_default();
    let known = serde_json::from_slice(&text).unwrap_or_default();
    let mut watch = Watch { node, fires, file, known, live: BTreeMap::new(), has_looked: false };
    loop {
        let plan = plans.borrow_and_update().clone();
        let alerts = plan.iter().any(|plan| !plan.alerts.is_empty());
        let is_idle = !alerts && watch.known.is_empty() && watch.live.is_empty();
        tokio::select! {
            changed = plans.changed() => if changed.is_err() {
                return;
            },
            () = tokio::time::sleep(EVERY), if !is_idle => {
                if let Some(plan) = plan {
                    watch.look(&plan).await;
                }
            }
        }
    }
}

impl Watch {
    async fn look(&mut self, plan: &Plan) {
        let parts = &self.node.parts;
        let text = parts.world.disk.read(&self.fires).unwrap_or_default();
        // None yet, or a role of another version writes it otherwise.
        let stored: Stored = serde_json::from_slice(&text).unwrap_or_default();
        let before = self.known.clone();
        let now_ms = parts.world.clock.now_ms();
        let facts = self.known.see(&stored.firing, &plan.alerts, now_ms);
        facts.into_iter().for_each(|fact| parts.events.record(fact));
        *lock(&self.node.firing) = self.known.notes();
        self.look_after_commands().await;
        if !self.node.stopping.load(Ordering::Relaxed) {
            self.start_commands(now_ms).await;
        }
        if self.known != before {
            self.save();
        }
    }

    fn save(&self) {
        let text = serde_json::to_vec(&self.known).unwrap_or_default();
        // A command may have a secret.
        if let Err(why) = self.node.parts.world.disk.replace(&self.file, 0o600, &text) {
            let text = format!("{} cannot be written: {why}", self.file.display());
            self.node.parts.events.record(Fact::Note { text });
        }
    }

    async fn start_commands(&mut self, now_ms: u64) {
        let busy: BTreeSet<Key> = self.live.values().filter_map(|live| live.key.clone()).collect();
        let room = COMMANDS_MAX.saturating_sub(self.live.len());
        for (key, command) in self.known.due(&busy, now_ms).into_iter().take(room) {
            let process = command.process.clone();
            let spec = Box::new(self.process(command));
            let refused = match self.node.parts.world.keeper.ask(Ask::Spawn { spec }).await {
                Ok(_) => None,
                // It is tried again when the keeper is back.
                Err(problem) if problem.kind == Kind::NotRunning => continue,
                // Perhaps an earlier daemon has started it.
                Err(problem) => Some(problem.to_string()),
            };
            self.known.started(&key, now_ms);
            let next = (Instant::now() + LONGEST, SIGTERM);
            self.live.insert(process, Live { key: Some(key), next, refused });
        }
    }

    fn process(&self, command: Command) -> ProcessSpec {
        let places = &self.node.parts.options.places;
        let mut env = staging::passed();
        env.insert("MFMODULE_RUNTIME_HOME".into(), places.home().to_string_lossy().into_owned());
        env.extend(command.env);
        ProcessSpec {
            id: command.process,
            argv: vec!["/bin/sh".into(), "-c".into(), command.command],
            env,
            cwd: places.home().to_owned(),
            rlimits: Default::default(),
            output: Output {
                stdout: places.log().join("alert_commands.log"),
                stderr: None,
                rotation: Rotation { max_bytes: 16 << 20, ..Rotation::default() },
            },
            release: String::new(),
            listeners: Vec::new(),
            note: String::new(),
            stdin: command.stdin,
            nice: 0,
            once: true,
        }
    }

    /// Takes the ends of commands, and ends those that take too long.
    async fn look_after_commands(&mut self) {
        if self.live.is_empty() && self.has_looked {
            return;
        }
        let Ok(Answer::Processes { alive, exits }) =
            self.node.parts.world.keeper.ask(Ask::List).await
        else {
            return;
        };
        let is_own = |id: &str| id.starts_with(PROCESS_PREFIX);
        let alive: Vec<Process> = alive.into_iter().filter(|it| is_own(&it.id)).collect();
        for process in &alive {
            let next = (Instant::now() + LONGEST, SIGTERM);
            let found = || Live { key: None, next, refused: None };
            self.live.entry(process.id.clone()).or_insert_with(found);
        }
        for exit in exits.into_iter().filter(|it| is_own(&it.id)) {
            self.live.remove(&exit.id);
            self.ended(&exit);
            // Only now: the next daemon would start it again.
            self.save();
            self.node.parts.world.keeper.send(Ask::Forget { id: exit.id });
        }
        self.has_looked = true;
        let (now, keeper) = (Instant::now(), &self.node.parts.world.keeper);
        self.live.retain(|id, live| {
            let lives = alive.iter().any(|process| process.id == *id);
            if !lives {
                let why = live.refused.take().unwrap_or_else(|| "it is gone".into());
                let text = format!("{}: {why}", of(id));
                self.node.parts.events.record(Fact::Note { text });
            } else if live.next.0 <= now {
                let (id, signal, scope) = (id.clone(), live.next.1, Scope::Tree);
                keeper.send(Ask::Signal { id, signal, scope });
                live.next = (now + GRACE, SIGKILL);
            }
            lives
        });
    }

    fn ended(&self, exit: &Exit) {
        let reason = EndReason::of(&exit.ended);
        if reason == (EndReason::Exited { code: 0 }) {
            return;
        }
        let output = exit.last_output.trim();
        let text = match output {
            "" => format!("{}: {reason}", of(&exit.id)),
            output => format!("{}: {reason}: {output}", of(&exit.id)),
        };
        self.node.parts.events.record(Fact::Note { text });
    }
}

/// The name of a process, for people.
fn of(process: &str) -> String {
    let name = process.strip_prefix(PROCESS_PREFIX).unwrap_or(process);
    format!("the command of the alert {} failed", name.split('.').next().unwrap_or(name))
}

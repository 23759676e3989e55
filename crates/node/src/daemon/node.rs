//! The node, as the daemon holds it: its state, its plan, and the turn of operations.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mfserv_core::event::Fact;
use mfserv_core::keys::{Key, NGINX_START_DELAY_S};
use mfserv_core::names::WatcherName;
use mfserv_core::node_state::NodeState;
use mfserv_core::plan::Plan;
use mfserv_core::status::RoleStatus;
use mfserv_core::wire::keeper::Ask as AskKeeper;
use mfserv_core::{Diagnostic, Kind};
use mfserv_supervisor::{Handle, KeeperState, Until};
use tokio::sync::{OwnedMutexGuard, Semaphore, watch};

use super::DaemonOptions;
use super::breakages::Breakages;
use super::circus;
use super::events::Events;
use super::jobs::Jobs;
use super::last_plan;
use super::site_packages::Handled;
use super::state::StateFile;
use super::world::World;
use crate::control::server::Server;

/// How long a boot waits for apps. The node is RUNNING after it all the same: an app that never
/// starts must not make the others look down.
const BOOT: Duration = Duration::from_secs(15);
/// How long a client may take to read the last answer of a daemon that ends.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// The parts that a node is made from.
pub struct Parts {
    pub options: DaemonOptions,
    pub events: Events,
    pub world: World,
    pub supervisor: Handle,
    /// Plugins under development whose newest code does not start.
    pub breakages: Arc<Mutex<Breakages>>,
    /// The jobs.
    pub jobs: Jobs,
    /// The first answer of the keeper.
    pub found: KeeperState,
    /// The generation that living fronts route by.
    pub generation: u64,
    /// The plan in force, for tasks that follow it.
    pub plans: watch::Sender<Option<Arc<Plan>>>,
}

/// The node. Cheap to clone.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

pub struct Inner {
    pub(super) parts: Parts,
    pub(super) state: StateFile,
    /// Held while the plan changes: operations wait for it, they do not fail.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
    pub(super) plan: Mutex<Option<Arc<Plan>>>,
    pub(super) keeper: Mutex<Option<RoleStatus>>,
    pub(super) notes: Mutex<Vec<String>>,
    /// The alerts that fire, in a sentence each.
    pub(super) firing: Mutex<Vec<String>>,
    /// Why the configuration as it is now is not the one in force.
    pub(super) refused: Mutex<Option<Diagnostic>>,
    /// The last text of `tmp/config_auto/config.ini`.
    pub(super) shown_config: Mutex<Option<String>>,
    /// The packages of the site that have been looked at.
    pub(super) site_packages: Mutex<Handled>,
    /// Who serves the control API: closed before the daemon ends.
    server: Mutex<Option<Server>>,
    pub(super) stopping: AtomicBool,
    /// What is wrong with the endpoints of Circus.
    pub(super) circus_notes: Mutex<Vec<String>>,
    /// The places of changes that clients of Circus ask for.
    pub(super) commands: Arc<Semaphore>,
    pub(super) since_ms: u64,
}

impl std::ops::Deref for Node {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Node {
    /// A node that has applied no plan yet.
    pub fn new(parts: Parts) -> Node {
        let state = StateFile::load(parts.world.disk.clone(), parts.options.places.status_file());
        let since_ms = parts.world.clock.now_ms();
        let found = parts.found.clone();
        let node = Node(Arc::new(Inner {
            parts,
            state,
            turn: Arc::default(),
            plan: Mutex::new(None),
            keeper: Mutex::new(None),
            notes: Mutex::new(Vec::new()),
            firing: Mutex::default(),
            refused: Mutex::new(None),
            shown_config: Mutex::default(),
            site_packages: Mutex::default(),
            server: Mutex::new(None),
            stopping: AtomicBool::new(false),
            circus_notes: Mutex::new(Vec::new()),
            commands: Arc::new(Semaphore::new(circus::MOST_COMMANDS)),
            since_ms,
        }));
        node.keeper_found(&found);
        node
    }

    /// Brings the node up, and tries again as long as that fails (the port is taken…). `tried` is
    /// called after the first try: operations that an earlier daemon has begun go on then.
    pub async fn boot(&self, serving: bool, tried: impl FnOnce()) {
        // A daemon that takes over a serving node must not make it look down.
        if !(serving && self.state.get() == NodeState::Running) {
            self.set_state(NodeState::Starting);
        } else {
            self.parts.world.fronts.state(NodeState::Running);
        }
        let mut told = None;
        let mut went_on = false;
        let mut tried = Some(tried);
        let changes = loop {
            let reconciled = self.reconcile().await;
            if let Some(tried) = tried.take() {
                tried();
            }
            match reconciled {
                Ok(changes) => break changes,
                Err(problem) => {
                    if told.as_ref() != Some(&problem) {
                        self.parts.events.record(Fact::Problem { problem: problem.clone() });
                        self.note(&problem.to_string());
                        told = Some(problem);
                    }
                    // Workers that serve go on with the last plan; without one nothing starts.
                    if !went_on {
                        went_on = self.go_on_as_before().await;
                    }
                    if !(went_on && serving) {
                        self.set_state(NodeState::Error);
                    }
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        };
        if told.is_some() {
            self.forget_notes();
        }
        let _ = self.parts.supervisor.wait(Until::Tried, changes.touched(), BOOT).await;
        loop {
            let front = vec![WatcherName::front()];
            let front = self.parts.supervisor.wait(Until::Settled, front, BOOT).await;
            if self.stopping.load(Ordering::Relaxed) {
                return;
            }
            if front.is_ok() {
                self.fronts_have_obeyed().await;
                return self.runs().await;
            }
            self.set_state(NodeState::Error);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// The last step of a start: the node says that it runs, after the delay that the
    /// configuration asks for. A node that went on serving is not started, and does not wait.
    async fn runs(&self) {
        if self.state.get() != NodeState::Running {
            tokio::time::sleep(self.delay(NGINX_START_DELAY_S)).await;
        }
        if !self.stopping.load(Ordering::Relaxed) {
            self.set_state(NodeState::Running);
        }
    }

    pub(super) fn set_state(&self, state: NodeState) {
        self.parts.world.fronts.state(state);
        if self.state.set(state) {
            self.parts.events.record(Fact::NodeState { state });
        }
    }

    fn note(&self, text: &str) {
        if let Ok(mut notes) = self.notes.lock() {
            notes.push(text.into());
        }
    }

    fn forget_notes(&self) {
        if let Ok(mut notes) = self.notes.lock() {
            notes.clear();
        }
    }

    /// The link to a keeper is made (again).
    pub fn keeper_found(&self, found: &KeeperState) {
        let Ok(mut keeper) = self.keeper.lock() else { return };
        let role = RoleStatus {
            pid: found.pid,
            version: found.program.clone(),
            since_ms: started_ms(found.pid, self.parts.world.clock.now_ms())
                .unwrap_or(self.since_ms),
        };
        *keeper = Some(role);
        drop(keeper);
        if found.adopted > 0 {
            let text = format!(
                "keeper {} adopted {} processes of an earlier keeper: how those end cannot be \
                 known, and what they started in the background meanwhile is not contained",
                found.pid, found.adopted
            );
            // The note of the newest keeper replaces those before it.
            self.forget_notes();
            self.note(&text);
            self.parts.events.record(Fact::Note { text });
        }
    }

    /// The link to the keeper is lost.
    pub fn keeper_lost(&self) {
        if let Ok(mut keeper) = self.keeper.lock() {
            *keeper = None;
        }
        let text = "the keeper is gone: everything goes on, but nothing can be started or \
                    restarted until `mfserv start` brings a new one";
        self.parts.events.record(Fact::Note { text: text.into() });
    }

    /// The plan in force.
    pub fn shown_plan(&self) -> Result<Arc<Plan>, Diagnostic> {
        let plan = self.plan.lock().ok().and_then(|plan| plan.clone());
        plan.ok_or_else(|| {
            Diagnostic::error("the node has no plan yet")
                .kind(Kind::NotRunning)
                .help("it is starting: try again, or look at `mfserv events`")
        })
    }

    /// Waits for the right to change the plan. A stop has the last turn: everything that has
    /// waited for one is refused then, so that nothing is started any more.
    pub(super) async fn take_turn(&self) -> Result<OwnedMutexGuard<()>, Diagnostic> {
        self.refuse_while_stopping()?;
        let turn = self.turn.clone().lock_owned().await;
        self.refuse_while_stopping().map(|()| turn)
    }

    pub(super) fn refuse_while_stopping(&self) -> Result<(), Diagnostic> {
        match self.stopping.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(Diagnostic::error("the node is stopping").kind(Kind::Refused)),
        }
    }

    // ---- stopping ----

    /// When the keeper was started, milliseconds since the Unix epoch.
    pub fn keeper_since_ms(&self) -> u64 {
        let keeper = self.keeper.lock().ok().and_then(|keeper| keeper.clone());
        keeper.map_or(0, |keeper| keeper.since_ms)
    }

    /// Ends daemon and keeper, once the answers in progress have gone out.
    pub(super) async fn end_with_keeper(self) {
        let server = self.server.lock().ok().and_then(|mut server| server.take());
        if let Some(server) = server {
            server.close(LAST_ANSWERS).await;
        }
        let commands = self.commands.acquire_many(circus::MOST_COMMANDS as u32);
        let _ = tokio::time::timeout(LAST_ANSWERS, commands).await;
        let _ = std::fs::remove_file(self.parts.options.places.control_socket());
        // A daemon that was started to end the node has no plan; the one before it had.
        let (disk, places) = (&*self.parts.world.disk, &self.parts.options.places);
        let plan = self.shown_plan().ok();
        if let Some(plan) = plan.or_else(|| last_plan::load(disk, places).map(Arc::new)) {
            circus::remove_sockets(&plan.circus);
        }
        let _ = self.parts.world.keeper.ask(AskKeeper::Shutdown).await;
    }

    /// The node is served by this server from now on.
    pub fn served_by(&self, server: Server) {
        if let Ok(mut place) = self.server.lock() {
            *place = Some(server);
        }
    }

    /// A delay of the configuration as it is now, in seconds.
    pub(super) fn delay(&self, key: Key<u64>) -> Duration {
        let module = crate::configure::module(&self.parts.options.places, &self.parts.options.sets);
        Duration::from_secs(module.map_or(0, |m| m.resolution.config.get(key)))
    }
}

/// When a process was started, milliseconds since the Unix epoch.
fn started_ms(pid: u32, now_ms: u64) -> Option<u64> {
    let ticks = mfserv_keeper::start_ticks(pid).ok()?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let uptime_s: f64 = uptime.split(' ').next()?.parse().ok()?;
    let started_s = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
    Some(now_ms.saturating_sub(((uptime_s - started_s) * 1000.0) as u64))
}

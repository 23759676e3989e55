//! The node as the daemon holds it: what is asked of it, one operation at a time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mfserv_core::diff::Changes;
use mfserv_core::event::{EndReason, Fact};
use mfserv_core::keys::{Key, NGINX_START_DELAY_S};
use mfserv_core::names::WatcherName;
use mfserv_core::node_state::NodeState;
use mfserv_core::plan::Plan;
use mfserv_core::status::{RoleStatus, Status};
use mfserv_core::wire::keeper::Ask as AskKeeper;
use mfserv_core::{Diagnostic, Kind};
use mfserv_supervisor::{Handle, KeeperState, Until};
use tokio::sync::{MutexGuard, mpsc, watch};

use super::DaemonOptions;
use super::breakages::Breakages;
use super::events::Events;
use super::state::StateFile;
use super::world::World;
use crate::control::legacy::{Ask, AskAnswer};
use crate::control::server::Server;
use crate::control::{Api, Pending};
use crate::operations::{Applied, Event, OperationId, Record, Submission};

/// How long apps may take at boot before the node is said to run all the same: one that
/// never starts must not make the others look down.
const BOOT: Duration = Duration::from_secs(15);
/// How long a client may take to read the last answer of a daemon that ends.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// What a node is made of.
pub struct Parts {
    pub options: DaemonOptions,
    pub events: Events,
    pub world: World,
    pub supervisor: Handle,
    /// Plugins under development whose newest code does not start.
    pub breakages: Arc<Mutex<Breakages>>,
    /// What the keeper said first.
    pub found: KeeperState,
    /// The generation that living fronts route by.
    pub generation: u64,
    /// The plan in force, for whoever follows it.
    pub plans: watch::Sender<Option<Arc<Plan>>>,
}

/// The node. Cheap to clone.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

pub struct Inner {
    pub(super) parts: Parts,
    pub(super) state: StateFile,
    /// Held during an operation: operations queue up, they do not fail.
    pub(super) turn: tokio::sync::Mutex<()>,
    pub(super) plan: Mutex<Option<Arc<Plan>>>,
    pub(super) keeper: Mutex<Option<RoleStatus>>,
    pub(super) notes: Mutex<Vec<String>>,
    /// Who serves the control API: closed before the daemon ends.
    server: Mutex<Option<Server>>,
    pub(super) stopping: AtomicBool,
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
            turn: tokio::sync::Mutex::new(()),
            plan: Mutex::new(None),
            keeper: Mutex::new(None),
            notes: Mutex::new(Vec::new()),
            server: Mutex::new(None),
            stopping: AtomicBool::new(false),
            since_ms,
        }));
        node.keeper_found(&found);
        node
    }

    /// Brings the node up. Tried again as long as it cannot be done (the port is taken…).
    pub async fn boot(&self, serving: bool) {
        // A daemon that comes back to a serving node must not make it look down.
        if !(serving && self.state.get() == NodeState::Running) {
            self.set_state(NodeState::Starting);
        } else {
            self.parts.world.fronts.state(NodeState::Running);
        }
        let mut told = None;
        let mut went_on = false;
        let changes = loop {
            match self.reconcile().await {
                Ok(changes) => break changes,
                Err(problem) => {
                    if told.as_ref() != Some(&problem) {
                        self.parts.events.record(Fact::Problem { problem: problem.clone() });
                        self.note(&problem.to_string());
                        told = Some(problem);
                    }
                    // What serves goes on as it was; what was never there cannot start.
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

    /// A keeper answers.
    pub fn keeper_found(&self, found: &KeeperState) {
        let Ok(mut keeper) = self.keeper.lock() else { return };
        let role = RoleStatus {
            pid: found.pid,
            version: String::new(),
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
            // The newest one says it all.
            self.forget_notes();
            self.note(&text);
            self.parts.events.record(Fact::Note { text });
        }
    }

    /// The keeper does not answer any more.
    pub fn keeper_lost(&self) {
        if let Ok(mut keeper) = self.keeper.lock() {
            *keeper = None;
        }
        let text = "the keeper is gone: everything goes on, but nothing can be started or \
                    restarted until `mfserv start` brings a new one";
        self.parts.events.record(Fact::Note { text: text.into() });
    }

    async fn answer(&self, ask: Ask) -> AskAnswer {
        match ask {
            Ask::Status => json(&self.observed().await),
            Ask::Reload { wait_s } => json(&self.reload(wait_s).await?),
            Ask::Restart { apps, wait_s } => json(&self.restart(&apps, wait_s).await?),
            Ask::Scale { app, count, wait_s } => json(&self.scale(&app, count, wait_s).await?),
            Ask::Prepare { plugin, dir, wait_s } => {
                json(&self.prepare(&plugin, dir, wait_s).await?)
            }
            Ask::Stop => json(&self.stop().await?),
        }
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

    async fn reload(&self, wait_s: u64) -> Result<Applied, Diagnostic> {
        let turn = self.take_turn().await?;
        let changes = self.reconcile_in_turn().await?;
        drop(turn);
        self.wait(changes.touched(), wait_s).await?;
        let gone = self.parts.supervisor.wait(Until::Gone, changes.stop.clone(), seconds(wait_s));
        if wait_s > 0 {
            gone.await?;
        }
        self.applied(&changes)
    }

    async fn restart(&self, apps: &[String], wait_s: u64) -> Result<Applied, Diagnostic> {
        let turn = self.take_turn().await?;
        let watchers = self.find(apps)?;
        let why = EndReason::Asked { what: "restart".into() };
        self.parts.supervisor.restart(watchers.clone(), why);
        drop(turn);
        self.wait(watchers.clone(), wait_s).await?;
        self.applied(&Changes { replace: watchers, ..Changes::default() })
    }

    async fn scale(
        &self,
        app: &str,
        count: Option<u32>,
        wait_s: u64,
    ) -> Result<Applied, Diagnostic> {
        let turn = self.take_turn().await?;
        let watcher = self.find_one_app(app)?;
        self.set_scale(&watcher, count)?;
        if let Some(count) = count {
            self.parts.events.record(Fact::Scaled { watcher, count });
        }
        let changes = self.reconcile_in_turn().await?;
        drop(turn);
        self.wait(changes.touched(), wait_s).await?;
        self.applied(&changes)
    }

    async fn wait(&self, watchers: Vec<WatcherName>, wait_s: u64) -> Result<(), Diagnostic> {
        if wait_s > 0 {
            self.parts.supervisor.wait(Until::Settled, watchers, seconds(wait_s)).await?;
        }
        Ok(())
    }

    fn applied(&self, changes: &Changes) -> Result<Applied, Diagnostic> {
        let plan = self.shown_plan()?;
        Ok(Applied {
            generation: plan.generation,
            changes: changes.to_string(),
            problems: plan.problems.clone(),
        })
    }

    /// The watchers that people mean by these names; all apps and extra daemons by none.
    fn find(&self, names: &[String]) -> Result<Vec<WatcherName>, Diagnostic> {
        let plan = self.shown_plan()?;
        let own = || plan.watchers.keys().filter(|watcher| watcher.plugin().is_some());
        if names.is_empty() {
            return Ok(own().cloned().collect());
        }
        let mut found = Vec::new();
        for name in names {
            let dotted = name.replace('/', ".");
            let meant = |watcher: &&WatcherName| {
                watcher.as_str() == dotted
                    || watcher.plugin() == Some(name)
                    || watcher.as_str().split_once('.').is_some_and(|(_, rest)| rest == dotted)
            };
            let before = found.len();
            found.extend(plan.watchers.keys().filter(meant).cloned());
            if found.len() == before {
                let known: Vec<&str> = own().map(WatcherName::as_str).collect();
                let unknown = Diagnostic::error(format!("no app is called {name}"));
                return Err(unknown.kind(Kind::Usage).help(match known.is_empty() {
                    true => "no plugin of this node has a program".into(),
                    false => format!("there are: {}", known.join(", ")),
                }));
            }
        }
        Ok(found)
    }

    /// The one app or extra daemon that is meant; of a plugin with one app, that app.
    fn find_one_app(&self, name: &str) -> Result<WatcherName, Diagnostic> {
        let mut found = self.find(&[name.to_string()])?;
        if found.len() > 1 {
            found.retain(|watcher| watcher.as_str().starts_with("app."));
        }
        match &found[..] {
            [one] if one.plugin().is_some() => Ok(one.clone()),
            [] | [_] => Err(Diagnostic::error(format!("{name} cannot be scaled"))
                .kind(Kind::Usage)
                .help("apps and extra daemons of plugins can be")),
            several => Err(Diagnostic::error(format!("{name} has several apps"))
                .kind(Kind::Usage)
                .because(several.iter().map(|w| w.as_str()).collect::<Vec<_>>().join(", "))
                .help("say which one: PLUGIN.APP")),
        }
    }

    /// The right to change the node. Stopping is the last turn: whoever has waited for it is
    /// refused, so that nothing is started any more.
    pub(super) async fn take_turn(&self) -> Result<MutexGuard<'_, ()>, Diagnostic> {
        self.refuse_while_stopping()?;
        let turn = self.turn.lock().await;
        self.refuse_while_stopping().map(|()| turn)
    }

    pub(super) fn refuse_while_stopping(&self) -> Result<(), Diagnostic> {
        match self.stopping.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(Diagnostic::error("the node is stopping").kind(Kind::Refused)),
        }
    }

    // ---- stopping ----

    /// Stops everything in order, then ends daemon and keeper.
    async fn stop(&self) -> Result<Applied, Diagnostic> {
        let stopped = self.stop_in_order().await;
        tokio::spawn(self.clone().end());
        stopped.map(|()| Applied::default())
    }

    /// Ends daemon and keeper, once the answers in progress have gone out.
    async fn end(self) {
        let server = self.server.lock().ok().and_then(|mut server| server.take());
        if let Some(server) = server {
            server.close(LAST_ANSWERS).await;
        }
        let _ = std::fs::remove_file(self.parts.options.places.control_socket());
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

    /// The keeper was asked to end (SIGTERM): everything stops in order.
    pub async fn stop_because_the_keeper_ends(&self) {
        let _ = self.stop().await;
    }
}

impl Api for Node {
    fn status(&self) -> Pending<'_, Status> {
        Box::pin(self.observed())
    }

    fn submit(&self, _: Submission) -> Pending<'_, Result<OperationId, Diagnostic>> {
        Box::pin(async { Err(no_operations()) })
    }

    fn follow<'a>(
        &'a self,
        _: &'a OperationId,
    ) -> Pending<'a, Result<mpsc::Receiver<Event>, Diagnostic>> {
        Box::pin(async { Err(no_operations()) })
    }

    fn cancel<'a>(&'a self, _: &'a OperationId) -> Pending<'a, Result<(), Diagnostic>> {
        Box::pin(async { Err(no_operations()) })
    }

    fn find<'a>(&'a self, _: &'a OperationId) -> Pending<'a, Option<Record>> {
        Box::pin(async { None })
    }

    fn recent(&self, _: usize) -> Pending<'_, Vec<Record>> {
        Box::pin(async { Vec::new() })
    }

    fn ask(&self, ask: Ask) -> Pending<'_, AskAnswer> {
        let node = self.clone();
        // A change is carried out to its end, also when whoever asked has gone; a release
        // that nobody waits for is given up.
        let may_be_given_up = matches!(ask, Ask::Prepare { .. });
        let answer = async move { node.answer(ask).await };
        match may_be_given_up {
            true => Box::pin(answer),
            false => Box::pin(async {
                let answered = tokio::spawn(answer).await;
                answered.unwrap_or_else(|e| Err(Diagnostic::error("it failed").because(e)))
            }),
        }
    }
}

fn no_operations() -> Diagnostic {
    Diagnostic::error("operations are not served yet")
}

/// When a process was started, milliseconds since the Unix epoch.
fn started_ms(pid: u32, now_ms: u64) -> Option<u64> {
    let ticks = mfserv_keeper::start_ticks(pid).ok()?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let uptime_s: f64 = uptime.split(' ').next()?.parse().ok()?;
    let started_s = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
    Some(now_ms.saturating_sub(((uptime_s - started_s) * 1000.0) as u64))
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn json<T: serde::Serialize>(value: &T) -> AskAnswer {
    serde_json::to_value(value).map_err(|e| Diagnostic::error("cannot answer").because(e))
}

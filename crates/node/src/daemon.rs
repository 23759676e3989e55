//! The daemon: it owns the plan and decides.
//!
//! It begins in four steps: it reads the configuration, connects to the keeper and to the living
//! fronts, takes over the workers that live, and opens the control socket. From then on it applies
//! plans until it is told to end. It may die at any moment: the keeper starts another one, which
//! begins here again.
//!
//! A wrong configuration ends the daemon before it writes a file or opens a socket, unless
//! workers live: those go on as they were, and the problem is reported.

mod alerts;
mod api;
mod autorestart;
mod breakages;
mod circus;
mod config_watch;
mod events;
mod file_watch;
mod fronts;
mod held;
mod jobs;
mod last_plan;
mod log_care;
mod metrics;
mod node;
mod observe;
mod operating;
mod preview;
mod programs;
mod reconcile;
mod renewal;
mod shown_config;
mod site_packages;
mod staging;
mod state;
mod stopping;
#[cfg(test)]
mod tests;
mod tmp_care;
mod upkeep;
mod world;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_core::event::Fact;
use mfserv_core::names::{WatcherName, WorkerId};
use mfserv_core::plan::Plan;
use mfserv_core::plan::preview::{Measured, PlanPreview};
use mfserv_core::watcher::{front_socket_stem, socket_path};
use mfserv_core::wire::keeper::Notice;
use mfserv_platform::disk::RealDisk;
use mfserv_supervisor::{Handle, KeeperLink, KeeperNews, KeeperState, Options, Supervisor};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::configure::Set;
use crate::control::protocol::Version;
use crate::control::server::{self, Server};
use crate::operations::{FinishedBy, Operations, Request, Submission, Who};
use crate::places::Places;
use api::Service;
use breakages::Breakages;
use circus::Circus;
use events::Events;
use fronts::Fronts;
use jobs::Jobs;
use node::{Node, Parts};
use world::Requests;

pub use jobs::History;
pub use world::{Front, Keeper, World};

pub use reconcile::Looked;
pub use staging::StageResult;

/// What a daemon is told on its command line.
#[derive(Debug, Clone)]
pub struct DaemonOptions {
    /// Where the node lives.
    pub places: Places,
    /// `--set` values.
    pub sets: Vec<Set>,
}

/// The role's main. Returns when the node has been stopped.
pub fn run(options: DaemonOptions) -> Result<(), Diagnostic> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Diagnostic::error("the daemon cannot start").because(e))?;
    runtime.block_on(live(options))
}

/// What a daemon would read and plan. Nothing is started, and nothing is written.
pub fn look(options: &DaemonOptions) -> Result<Looked, Diagnostic> {
    reconcile::look(options, &RealDisk, None)
}

/// What a start of the node would do.
pub fn preview_of_start(options: &DaemonOptions) -> Result<PlanPreview, Diagnostic> {
    preview::preview(options, &RealDisk, None, &Measured::new())
}

/// The plan that the last daemon of a node has applied.
pub fn plan_in_force(places: &Places) -> Option<Plan> {
    last_plan::load(&RealDisk, places)
}

async fn live(options: DaemonOptions) -> Result<(), Diagnostic> {
    let places = options.places.clone();
    // First of all: a SIGHUP means "reload", and never the end of the daemon.
    let received = |kind| {
        signal(kind).map_err(|e| Diagnostic::error("the daemon cannot receive signals").because(e))
    };
    let mut hangups = received(SignalKind::hangup())?;
    // A write beyond RLIMIT_FSIZE fails then (setrlimit(2)), as on a full disk.
    let _file_size = received(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;
    // The resolver may be slow; workers that live must not wait for it.
    let configured = {
        let options = options.clone();
        tokio::task::spawn_blocking(move || reconcile::configured(&options).map(drop))
    };
    let (keeper, mut news) = KeeperLink::start(&places.keep_socket());
    let found = until_connected(&mut news).await?;
    // A node that is to end is stopped whatever its configuration says.
    let ending = found.ending;
    if !takes_over(&found) && !ending {
        let failed = |e| Diagnostic::error("reading the configuration failed").because(e);
        configured.await.map_err(failed)??;
    }
    places.create()?;

    let (fronts, mut connected) = Fronts::new(places.run());
    let alive = living(&found);
    let living_fronts: BTreeSet<WorkerId> =
        alive.iter().filter(|id| id.watcher == WatcherName::front()).cloned().collect();
    let admitted = connected.connect(&living_fronts, &alive).await;
    let serving = !living_fronts.is_empty();
    let generation = connected.generation;

    let world = World::real(keeper.clone(), Arc::new(fronts.clone()));
    let events = Events::open(&places, world.clock.clone(), std::io::stderr());
    let counts = events.counts();
    let (node, supervisor) = {
        let fronts = fronts.clone();
        let parts = Taken { options, keeper, found, admitted, generation };
        start(parts, world, events.clone(), Box::new(move |fact| fronts.notice(fact)))
    };
    fronts.run(connected, supervisor.clone(), events);
    let listener = server::bind(&places.control_socket())?;
    let operations = Operations::new(node.clone(), FinishedBy::Daemon);
    let circus = Circus::new(node.clone(), operations.clone());
    let api = Service::new(node.clone(), operations.clone(), circus.clone());
    node.served_by(Server::start(listener, Arc::new(api), Version::own()));
    tokio::spawn(metrics::run(node.clone(), counts));
    tokio::spawn(autorestart::run(node.clone(), node.parts.plans.subscribe()));
    tokio::spawn(config_watch::run(node.clone(), operations.clone()));
    tokio::spawn(circus::run(circus));
    tokio::spawn(alerts::run(node.clone(), node.parts.plans.subscribe()));
    tokio::spawn(log_care::run(node.clone(), node.parts.plans.subscribe()));
    tokio::spawn(tmp_care::run(node.clone(), node.parts.plans.subscribe()));
    tokio::spawn(node.clone().look_after_files());
    tokio::spawn(begin(node.clone(), operations.clone(), (serving, ending)));

    listen(&node, &operations, &supervisor, (&mut news, &mut hangups)).await;
    Ok(())
}

/// Listens to the keeper and for SIGHUP, until the keeper has ended.
async fn listen(
    node: &Node,
    operations: &Operations<Node>,
    supervisor: &Handle,
    (news, hangups): (&mut mpsc::Receiver<KeeperNews>, &mut Signal),
) {
    loop {
        let news = tokio::select! {
            news = news.recv() => match news {
                Some(news) => news,
                None => return,
            },
            Some(()) = hangups.recv() => {
                tokio::spawn(reload_at_hangup(node.clone(), operations.clone()));
                continue;
            }
        };
        match &news {
            KeeperNews::Connected(state) => node.keeper_found(state),
            KeeperNews::Lost => node.keeper_lost(),
            KeeperNews::Notice(Notice::Ending { .. }) => {
                let operations = operations.clone();
                tokio::spawn(async move { stop_because_the_keeper_ends(&operations).await });
            }
            KeeperNews::Notice(_) => {}
        }
        node.parts.jobs.keeper(&news);
        supervisor.keeper(news);
    }
}

/// What a daemon takes over.
struct Taken {
    options: DaemonOptions,
    keeper: KeeperLink,
    /// What the keeper said first.
    found: KeeperState,
    /// The workers that a living front gives requests to.
    admitted: BTreeSet<WorkerId>,
    /// The greatest generation that a living front routes by.
    generation: u64,
}

/// Starts the supervisor and makes the node, which has no plan yet. `notice` learns of each fact
/// before it is recorded.
fn start(
    taken: Taken,
    world: World,
    events: Events,
    notice: Box<dyn Fn(&Fact) + Send + Sync>,
) -> (Node, Handle) {
    let Taken { options, keeper, found, admitted, generation } = taken;
    // A front that has not answered yet may route by the last plan: it refuses an older one.
    let kept = takes_over(&found).then(|| last_plan::load(&*world.disk, &options.places)).flatten();
    let generation = kept.map_or(generation, |plan| plan.generation.max(generation));
    let breakages: Arc<Mutex<Breakages>> = Arc::default();
    let (broken, record, around) = (breakages.clone(), events.clone(), world.clone());
    let supervisor = Supervisor::start(Options {
        keeper,
        found: found.clone(),
        admitted,
        traffic: Box::new(Requests(world.fronts.clone())),
        emit: Arc::new(move |fact| {
            notice(&fact);
            breakages::noticed(&broken, (&fact, around.clock.now_ms()), &*around.fronts);
            record.record(fact);
        }),
        run_dir: options.places.run(),
        state_file: options.places.run().join("supervisor.json"),
    });
    let (plans, _) = watch::channel(None);
    let jobs = Jobs::start(options.places.clone(), world.clone(), events.clone(), &found);
    let node = Node::new(Parts {
        plans,
        options,
        events,
        world,
        supervisor: supervisor.clone(),
        breakages,
        jobs,
        found,
        generation,
    });
    (node, supervisor)
}

/// Something lives that an earlier daemon has started.
fn takes_over(found: &KeeperState) -> bool {
    found.alive.iter().any(|process| process.id != mfserv_keeper::DAEMON)
}

/// Brings the node up, or goes on stopping it if an earlier daemon did so. A node whose keeper
/// was asked to end is not brought up: the notice of the keeper stops it.
async fn begin(node: Node, operations: Operations<Node>, (serving, ending): (bool, bool)) {
    if operations.must_stop(node.keeper_since_ms()).await || ending {
        return operations.recover().await;
    }
    let tried = || drop(tokio::spawn(async move { operations.recover().await }));
    node.boot(serving, tried).await;
}

/// The keeper was asked to end (SIGTERM): everything stops in order.
async fn stop_because_the_keeper_ends(operations: &Operations<Node>) {
    let who = Who { command: "the keeper, which was asked to end".into(), ..Who::default() };
    let stop = Submission { id: None, request: Request::Stop, who, patience_s: 0 };
    // Joins the one that an earlier daemon has begun; refused when that has ended.
    let _ = operations.submit(stop).await;
}

/// SIGHUP: what `mfserv reload` does, for whoever is used to it from other servers.
async fn reload_at_hangup(node: Node, operations: Operations<Node>) {
    let who = Who { command: "SIGHUP".into(), ..Who::default() };
    let reload = Submission { id: None, request: Request::Reload, who, patience_s: 120 };
    if let Err(problem) = operations.submit(reload).await {
        node.parts.events.record(Fact::Problem { problem });
    }
}

async fn until_connected(news: &mut mpsc::Receiver<KeeperNews>) -> Result<KeeperState, Diagnostic> {
    let wait = async {
        loop {
            match news.recv().await {
                Some(KeeperNews::Connected(state)) => return Some(state),
                Some(_) => {}
                None => return None,
            }
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(30), wait).await.ok().flatten();
    found.ok_or_else(|| {
        Diagnostic::error("the keeper does not answer")
            .because("no keeper listens on var/run/keep.sock")
            .help("the daemon is started by the keeper: use `mfserv start`")
    })
}

/// The workers that live, fronts included.
fn living(found: &KeeperState) -> BTreeSet<WorkerId> {
    found.alive.iter().filter_map(|process| process.id.parse().ok()).collect()
}

/// A front's control socket.
fn front_socket(run_dir: &std::path::Path, id: &WorkerId) -> PathBuf {
    socket_path(&front_socket_stem(run_dir), id)
}

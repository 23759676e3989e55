//! The daemon: owns the plan and decides.
//!
//! Four phases: configure (nothing is bound), connect (to the keeper and to living
//! fronts), take over what lives, then apply plans until told to end. It may die
//! at any moment: the keeper restarts it, and it begins here again.

mod autorestart;
mod breakages;
mod events;
mod file_watch;
mod fronts;
mod last_plan;
mod node;
mod observe;
mod prepare;
mod reconcile;
mod renewal;
mod state;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_core::names::{WatcherName, WorkerId};
use mfserv_core::wire::keeper::Notice;
use mfserv_supervisor::{KeeperLink, KeeperNews, KeeperState, Options, Supervisor};
use tokio::sync::mpsc;

use crate::configure::Set;
use crate::control::server;
use crate::places::Places;
use breakages::Breakages;
use events::Events;
use fronts::Fronts;
use node::{Node, Parts};

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

/// What a daemon would say of the configuration and of every plugin, without starting anything.
pub fn check(options: &DaemonOptions) -> Result<Vec<Diagnostic>, Diagnostic> {
    Ok(reconcile::make(options, None, 0, None)?.problems)
}

async fn live(options: DaemonOptions) -> Result<(), Diagnostic> {
    let places = options.places.clone();
    places.create()?;
    let events = Events::open(&places);

    let (keeper, mut news) = KeeperLink::start(&places.keep_socket());
    let found = until_connected(&mut news).await?;
    let (fronts, mut connected) = Fronts::new(places.run());
    let alive = living(&found);
    let living_fronts: BTreeSet<WorkerId> =
        alive.iter().filter(|id| id.watcher == WatcherName::front()).cloned().collect();
    let admitted = connected.connect(&living_fronts, &alive).await;

    let (told, serving) = (fronts.clone(), !living_fronts.is_empty());
    let breakages: Arc<Mutex<Breakages>> = Arc::default();
    let broken = breakages.clone();
    let keeper_state = found.clone();
    let generation = connected.generation;
    let record = events.clone();
    let supervisor = Supervisor::start(Options {
        keeper: keeper.clone(),
        found,
        admitted,
        traffic: Box::new(fronts.clone()),
        emit: Arc::new(move |fact| {
            told.notice(&fact);
            breakages::noticed(&broken, &fact, &told);
            record.record(fact);
        }),
        run_dir: places.run(),
        state_file: places.run().join("supervisor.json"),
    });
    fronts.run(connected, supervisor.clone(), events.clone());

    let (plans, new_plans) = mpsc::unbounded_channel();
    let node = Node::new(Parts {
        plans,
        options,
        events,
        keeper,
        supervisor: supervisor.clone(),
        fronts,
        breakages,
        found: keeper_state,
        generation,
    });
    let listener = server::bind(&places.control_socket())?;
    tokio::spawn(server::serve(listener, node.answerer()));
    tokio::spawn(autorestart::run(node.clone(), new_plans));
    let boot = node.clone();
    tokio::spawn(async move { boot.boot(serving).await });

    while let Some(news) = news.recv().await {
        match &news {
            KeeperNews::Connected(state) => node.keeper_found(state),
            KeeperNews::Lost => node.keeper_lost(),
            KeeperNews::Notice(Notice::Ending { .. }) => {
                let node = node.clone();
                tokio::spawn(async move { node.stop_because_the_keeper_ends().await });
            }
            KeeperNews::Notice(_) => {}
        }
        supervisor.keeper(news);
    }
    Ok(())
}

async fn until_connected(
    news: &mut mpsc::UnboundedReceiver<KeeperNews>,
) -> Result<KeeperState, Diagnostic> {
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
    run_dir.join(format!("front_{}.{}.socket", id.slot, id.incarnation))
}

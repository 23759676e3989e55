//! A whole node without a process: the real daemon and supervisor in a played world.
//!
//! Time is tokio's and paused: a wait of minutes takes no time.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_core::diff::Changes;
use mfserv_core::event::{Event, Fact};
use mfserv_core::names::{WatcherName, WorkerId};
use mfserv_core::plan::Plan;
use mfserv_core::status::{Status, WatcherStatus};
use mfserv_supervisor::{Handle, KeeperLink, KeeperNews, KeeperState, Until};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::played::{PlayedClock, PlayedDisk, PlayedFronts, PlayedKeeper};
use crate::daemon::events::Events;
use crate::daemon::fronts::Fronts;
use crate::daemon::node::Node;
use crate::daemon::world::{Front, World};
use crate::daemon::{DaemonOptions, Taken, living, start};
use crate::places::Places;

/// How long something may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(600);

type News = mpsc::Receiver<KeeperNews>;

/// A home, and the world around it. Daemons come and go.
pub struct House {
    dir: tempfile::TempDir,
    pub keeper: PlayedKeeper,
    pub disk: Arc<PlayedDisk>,
    pub clock: Arc<PlayedClock>,
    listening: JoinHandle<()>,
}

impl House {
    /// An empty home. Its port is 18868.
    pub fn new() -> House {
        let dir = tempfile::Builder::new().prefix("mfp-").tempdir().unwrap();
        let places = Places::choose(Some(dir.path())).unwrap();
        places.create().unwrap();
        let keeper = PlayedKeeper::default();
        let clock = Arc::new(PlayedClock(Instant::now()));
        let listening = keeper.listen(&places.keep_socket());
        let house = House { dir, keeper, disk: Arc::default(), clock, listening };
        house.configure("[nginx]\nport = 18868\n[front]\nhost = 127.0.0.1\n");
        house
    }

    pub fn places(&self) -> Places {
        Places::choose(Some(self.dir.path())).unwrap()
    }

    /// The text of `config/config.ini`.
    pub fn configure(&self, text: &str) {
        std::fs::write(self.places().config_file(), text).unwrap();
    }

    /// A plugin with one app of two workers, linked as a developer's directory.
    pub fn plugin(&self, name: &str) {
        self.plugin_with(name, "numprocesses = 2\n");
    }

    /// The same with other lines in its `[app_main]`.
    pub fn plugin_with(&self, name: &str, lines: &str) {
        let dir = self.dir.path().join("dev").join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let general = "[general]\n_version = 1.0.0\n_summary = s\n_license = l\n_url = u\n\
                       _maintainer = m\n_vendor = v\n";
        let app = format!("[app_main]\n_cmd_and_args = /bin/app {{unix_socket_path}}\n{lines}");
        for (file, text) in [
            (".layerapi2_label", format!("plugin_{name}@mfserv\n")),
            (".layerapi2_dependencies", "root@mfserv\n".into()),
            (".plugin_format_version", "2.0.0\n".into()),
            ("config.ini", format!("{general}{app}")),
        ] {
            std::fs::write(dir.join(file), text).unwrap();
        }
        let _ = std::os::unix::fs::symlink(&dir, self.link(name));
    }

    /// Writes the `crontab` of a plugin, and other lines into its `config.ini`.
    pub fn jobs(&self, name: &str, crontab: &str, sections: &str) {
        self.plugin_with(name, &format!("numprocesses = 0\n{sections}"));
        std::fs::write(self.link(name).join("crontab"), crontab).unwrap();
    }

    pub fn link(&self, name: &str) -> PathBuf {
        self.places().var().join("plugins").join(name)
    }

    /// A daemon, which has applied no plan yet.
    pub async fn daemon(&self) -> Daemon {
        let (keeper, mut news) = self.connect();
        let found = until_found(&mut news).await;
        let fronts = Arc::new(PlayedFronts::default());
        let notified = fronts.clone();
        let notice = move |fact: &Fact| {
            if let Fact::WorkerStarted { worker, .. } = fact {
                notified.started(worker);
            }
        };
        let world = self.world(&keeper, fronts.clone());
        let admitted: BTreeSet<_> = living(&found);
        let taken = self.taken((keeper, found), admitted, 0);
        let (node, supervisor) = start(taken, world.clone(), self.events(&world), Box::new(notice));
        fronts.seen().supervisor = Some(supervisor.clone());
        self.alive(node, supervisor, news, fronts)
    }

    /// A daemon with the real fronts' board, which speaks with played processes of fronts.
    pub async fn daemon_with_fronts(&self) -> Daemon {
        let (keeper, mut news) = self.connect();
        let found = until_found(&mut news).await;
        let (fronts, mut connected) = Fronts::new(self.places().run());
        let alive = living(&found);
        let is_front = |id: &&WorkerId| id.watcher == WatcherName::front();
        let living_fronts = alive.iter().filter(is_front).cloned().collect();
        let admitted = connected.connect(&living_fronts, &alive).await;
        let world = self.world(&keeper, Arc::new(fronts.clone()));
        let taken = self.taken((keeper, found), admitted, connected.generation);
        let events = self.events(&world);
        let noticed = fronts.clone();
        let notice = Box::new(move |fact: &Fact| noticed.notice(fact));
        let (node, supervisor) = start(taken, world, events.clone(), notice);
        fronts.run(connected, supervisor.clone(), events);
        self.alive(node, supervisor, news, Arc::default())
    }

    fn connect(&self) -> (KeeperLink, News) {
        KeeperLink::start(&self.places().keep_socket())
    }

    fn world(&self, keeper: &KeeperLink, fronts: Arc<dyn Front>) -> World {
        World {
            keeper: Arc::new(keeper.clone()),
            fronts,
            clock: self.clock.clone(),
            disk: self.disk.clone(),
        }
    }

    fn events(&self, world: &World) -> Events {
        Events::open(&self.places(), world.clock.clone(), std::io::sink())
    }

    fn taken(
        &self,
        (keeper, found): (KeeperLink, KeeperState),
        admitted: BTreeSet<WorkerId>,
        generation: u64,
    ) -> Taken {
        let options = DaemonOptions { places: self.places(), sets: Vec::new() };
        Taken { options, keeper, found, admitted, generation }
    }

    /// The daemon hears its keeper from here on.
    fn alive(
        &self,
        node: Node,
        supervisor: Handle,
        mut news: News,
        fronts: Arc<PlayedFronts>,
    ) -> Daemon {
        let heard = node.clone();
        let hearing = tokio::spawn(async move {
            while let Some(news) = news.recv().await {
                match &news {
                    KeeperNews::Connected(found) => heard.keeper_found(found),
                    KeeperNews::Lost => heard.keeper_lost(),
                    KeeperNews::Notice(_) => {}
                }
                heard.parts.jobs.keeper(&news);
                supervisor.keeper(news);
            }
        });
        Daemon { node, fronts, hearing, keeper: self.keeper.clone(), places: self.places() }
    }

    /// A daemon that has brought the node up.
    pub async fn running(&self) -> Daemon {
        let daemon = self.daemon().await;
        daemon.boot().await;
        daemon
    }

    /// The keeper goes away; what it started lives on.
    pub fn keeper_dies(&mut self) {
        self.listening.abort();
        self.keeper.hang_up();
    }
}

async fn until_found(news: &mut News) -> KeeperState {
    match news.recv().await {
        Some(KeeperNews::Connected(found)) => found,
        other => panic!("no keeper: {other:?}"),
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.places().short_dir());
    }
}

/// A daemon in a played world.
pub struct Daemon {
    pub node: Node,
    pub fronts: Arc<PlayedFronts>,
    hearing: JoinHandle<()>,
    keeper: PlayedKeeper,
    places: Places,
}

impl Daemon {
    /// Brings the node up.
    pub async fn boot(&self) {
        self.node.boot(false, || ()).await;
    }

    /// Brings the node up, as a daemon does that finds a front serving.
    pub async fn come_back(&self) {
        self.node.boot(true, || ()).await;
    }

    /// Reads everything again; returns when what changed is served.
    pub async fn reload(&self) -> Result<Changes, Diagnostic> {
        let changes = self.node.reconcile().await?;
        self.settled(changes.touched()).await;
        let supervisor = &self.node.parts.supervisor;
        supervisor.wait(Until::Gone, changes.stop.clone(), PATIENCE).await.unwrap();
        Ok(changes)
    }

    async fn settled(&self, watchers: Vec<WatcherName>) {
        self.node.parts.supervisor.wait(Until::Settled, watchers, PATIENCE).await.unwrap();
    }

    /// Stops the node in order.
    pub async fn stop(&self) {
        let _ = self.node.stop_in_order().await;
        self.node.clone().end_with_keeper().await;
    }

    pub async fn status(&self) -> Status {
        self.node.observed().await
    }

    pub async fn watcher(&self, name: &str) -> WatcherStatus {
        let status = self.status().await;
        let found = status.watchers.iter().find(|watcher| watcher.name.as_str() == name);
        found.cloned().unwrap_or_else(|| panic!("no watcher {name}: {status:#?}"))
    }

    pub fn plan(&self) -> Arc<Plan> {
        self.node.shown_plan().unwrap()
    }

    /// The facts that were recorded.
    pub fn facts(&self) -> Vec<Fact> {
        let text = std::fs::read_to_string(self.places.events_file()).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str::<Event>(line).unwrap().fact).collect()
    }

    /// What each plan that was applied has changed.
    pub fn plans(&self) -> Vec<String> {
        let changes = |fact| match fact {
            Fact::PlanApplied { changes, .. } => Some(changes),
            _ => None,
        };
        self.facts().into_iter().filter_map(changes).collect()
    }

    /// The notes among them.
    pub fn notes(&self) -> Vec<String> {
        let note = |fact| match fact {
            Fact::Note { text } => Some(text),
            _ => None,
        };
        self.facts().into_iter().filter_map(note).collect()
    }

    /// Waits until the condition holds; time passes meanwhile.
    pub async fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let began = Instant::now();
        while !condition() {
            assert!(began.elapsed() < PATIENCE, "it never happened: {what}");
            // Paused time passes only here: the condition is awaited, not the time.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The daemon dies; its workers live on.
    pub async fn dies(self) {
        self.hearing.abort();
        let _ = self.hearing.await;
        self.keeper.hang_up();
    }
}

/// What a file of the played disk holds, as text.
pub fn text(disk: &PlayedDisk, path: &Path) -> Option<String> {
    disk.held().files.get(path).map(|bytes| String::from_utf8(bytes.clone()).unwrap())
}

//! Packages that are put into `mfserv/plugins` of the site while the node runs: they are installed
//! as `mfserv.start` installs those that are there, each by an operation, beside each other: one that
//! hangs, or never becomes ready, holds up no other. Those of one plugin are installed one after the other, in
//! the order of their names. A process of its own checks and stages them (`mfserv stage`); the daemon
//! only reads what they say about themselves, in a task that holds up nothing else.
//!
//! Those that were there when the node started are known: `mfserv.start` has installed them, or was
//! told not to (NOINIT).

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_core::event::Fact;
use mfserv_platform::proc;
use mfserv_plugin::archive;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::config_watch::blocking;
use super::node::Node;
use crate::operations::{Event, Operations, Outcome, Request, Submission, Who};
use crate::places::Places;
use crate::site_packages::{self, Wanted};

mod waiting;

use waiting::{DOUBTFUL, Waiting, passes};

/// How long the new workers may take to be ready, seconds.
const PATIENCE_S: u64 = 120;
/// So many packages are installed beside each other.
const AT_ONCE: usize = 4;

/// What tells a file from what had its name before: inode, size, time of modification.
type Signature = (u64, u64, i64, i64);

/// The packages that have been looked at.
#[derive(Debug, Default)]
pub struct Handled {
    files: BTreeMap<PathBuf, File>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct File {
    signature: Signature,
    /// The plugin that it is a package of, if it was read.
    #[serde(default)]
    plugin: Option<String>,
    /// Why it is not installed.
    problem: Option<Diagnostic>,
}

/// What a file is found to be.
enum Found {
    /// Somebody writes it.
    Incomplete,
    Bad(Diagnostic),
    /// A package of this plugin.
    Good(String, Wanted),
}

/// An installation that has ended.
struct Ended {
    file: PathBuf,
    signature: Signature,
    plugin: Option<String>,
    problem: Option<Diagnostic>,
}

/// Looks after the packages of the site.
struct SitePackages {
    node: Node,
    operations: Operations<Node>,
    waiting: BTreeMap<PathBuf, Waiting>,
    running: JoinSet<Ended>,
    /// The plugin of each package that is being installed.
    installing: BTreeMap<PathBuf, String>,
    /// The generation of the plan at the last look.
    plan: Option<u64>,
}

/// Begins with what an earlier daemon of this node knew, else with what is there. Each notice has
/// the directory looked at, for as long as the daemon lives.
pub async fn start(node: Node, operations: Operations<Node>) -> Arc<Notify> {
    let (places, comes_back) = (node.parts.options.places.clone(), node.found_something_alive());
    let known = blocking(move || {
        let kept = comes_back.then(|| std::fs::read(file(&places)).ok()).flatten();
        let kept = kept.and_then(|text| serde_json::from_slice(&text).ok());
        kept.unwrap_or_else(|| {
            let known = |(path, signature)| (path, File { signature, plugin: None, problem: None });
            present().into_iter().map(known).collect()
        })
    });
    let files = known.await.unwrap_or_default();
    if let Ok(mut handled) = node.site_packages.lock() {
        handled.files = files;
    }
    node.keep_site_packages();
    let noticed = Arc::new(Notify::new());
    let (waiting, running, installing) = Default::default();
    let packages = SitePackages { node, operations, waiting, running, installing, plan: None };
    tokio::spawn(packages.run(noticed.clone()));
    noticed
}

impl SitePackages {
    async fn run(mut self, noticed: Arc<Notify>) {
        loop {
            let idle = self.waiting.iter().filter(|(file, _)| !self.installing.contains_key(*file));
            let next = idle.map(|(_, waits)| waits.next).min();
            let again = tokio::time::sleep_until(next.unwrap_or_else(Instant::now));
            tokio::select! {
                () = noticed.notified() => self.wake(),
                Some(ended) = self.running.join_next() => {
                    // Else the daemon ends.
                    if let Ok(ended) = ended {
                        self.ended(ended).await;
                    }
                    self.wake();
                }
                () = again, if next.is_some() => {
                    let is_wanted = |plan: Arc<mfserv_core::plan::Plan>| plan.watches_configuration;
                    if !self.node.shown_plan().is_ok_and(is_wanted) {
                        self.waiting.clear();
                    }
                }
            }
            self.look().await;
        }
    }

    fn wake(&mut self) {
        let now = Instant::now();
        self.waiting.values_mut().for_each(|waits| waits.wake(now));
    }

    /// Installs what is new and complete.
    async fn look(&mut self) {
        let Some(present) = blocking(present).await else { return };
        self.node.forget_site_packages(|file| !present.contains_key(file));
        self.waiting.retain(|file, waits| present.get(file) == Some(&waits.signature));
        let plan = self.node.shown_plan().ok().map(|plan| plan.generation);
        let plan_changed = std::mem::replace(&mut self.plan, plan) != plan;
        // By name: of two packages of one plugin the last one stays.
        for (file, signature) in present {
            if let Some(problem) = self.node.known_site_package(&file, signature) {
                if plan_changed && problem.is_some() {
                    self.forget_problem(file.clone(), signature).await;
                }
                if !self.waiting.contains_key(&file) {
                    continue;
                }
            }
            if self.installing.contains_key(&file) {
                continue;
            }
            let now = Instant::now();
            let waits = self.waiting.entry(file.clone());
            let waits = waits.or_insert_with(|| Waiting::new(signature, now));
            if waits.next <= now {
                waits.put_off(now);
                let unchanged = now - waits.since;
                self.handle(file, signature, unchanged).await;
            }
        }
    }

    /// What could not be installed then may have been installed by somebody else.
    async fn forget_problem(&mut self, file: PathBuf, signature: Signature) {
        if let Some(Found::Good(plugin, Wanted::Nothing)) = self.examine(&file).await {
            if !self.is_busy(&plugin) {
                self.is_there(&file, signature, plugin);
            }
        }
    }

    async fn examine(&self, file: &Path) -> Option<Found> {
        let (places, file) = (self.node.parts.options.places.clone(), file.to_owned());
        blocking(move || examine(&places, &file)).await
    }

    /// What is installed is this package.
    fn is_there(&mut self, file: &Path, signature: Signature, plugin: String) {
        self.waiting.remove(file);
        self.node.end_site_package(file, (signature, Some(plugin)), None);
    }

    async fn handle(&mut self, file: PathBuf, signature: Signature, unchanged: Duration) {
        match self.examine(&file).await {
            None | Some(Found::Incomplete) => {}
            Some(Found::Bad(_)) if unchanged < DOUBTFUL => {}
            Some(Found::Bad(problem)) => {
                let problem = Some(problem);
                self.ended(Ended { file, signature, plugin: None, problem }).await;
            }
            // What is installed then says what this one means.
            Some(Found::Good(plugin, _)) if self.is_busy(&plugin) => {}
            Some(Found::Good(plugin, Wanted::Nothing)) => self.is_there(&file, signature, plugin),
            Some(Found::Good(plugin, _)) => self.begin(file, signature, plugin),
        }
    }

    /// True while another package of the plugin is being installed.
    fn is_busy(&self, plugin: &str) -> bool {
        self.installing.values().any(|other| other == plugin)
    }

    /// Has a package installed, if there is room: else it is looked at when another one has ended.
    fn begin(&mut self, file: PathBuf, signature: Signature, plugin: String) {
        if self.installing.len() >= AT_ONCE {
            return;
        }
        self.installing.insert(file.clone(), plugin.clone());
        let operations = self.operations.clone();
        self.running.spawn(async move {
            let problem = install(&operations, &file).await.err();
            Ended { file, signature, plugin: Some(plugin), problem }
        });
    }

    /// A package has been installed, or is not to be.
    async fn ended(&mut self, Ended { file, signature, plugin, problem }: Ended) {
        self.installing.remove(&file);
        let path = file.clone();
        if problem.is_some() && blocking(move || sign(&path)).await.flatten() != Some(signature) {
            // Its writer has gone on, or another one is in its place: that one is looked at.
            return;
        }
        let is_installed = problem.is_none();
        let waits = self.waiting.get_mut(&file);
        let is_retried = problem
            .as_ref()
            .zip(waits)
            .is_some_and(|(problem, waits)| waits.retry(problem, Instant::now()));
        if !is_retried {
            self.waiting.remove(&file);
        }
        let problem = problem.map(|problem| not_installed(&file, problem, is_retried));
        self.node.end_site_package(&file, (signature, plugin), problem);
        if is_installed {
            self.try_others_again();
        }
    }

    /// One more plugin is there: those that could not be installed may have needed it.
    fn try_others_again(&mut self) {
        let now = Instant::now();
        for (file, signature) in self.node.failed_site_packages() {
            self.waiting.entry(file).or_insert_with(|| Waiting::new(signature, now));
        }
    }
}

impl Node {
    /// Why packages of the site are not installed.
    pub(super) fn problems_of_site_packages(&self) -> Vec<Diagnostic> {
        let Ok(handled) = self.site_packages.lock() else { return Vec::new() };
        handled.files.values().filter_map(|file| file.problem.clone()).collect()
    }

    /// Those that are not installed, and that no later one has displaced.
    fn failed_site_packages(&self) -> Vec<(PathBuf, Signature)> {
        let Ok(handled) = self.site_packages.lock() else { return Vec::new() };
        let is_displaced = |path: &PathBuf, file: &File| {
            let is_same = |it: &File| it.problem.is_none() && it.plugin == file.plugin;
            let mut all = handled.files.iter();
            file.plugin.is_some() && all.any(|(later, it)| later > path && is_same(it))
        };
        let failed = handled.files.iter().filter(|(_, file)| file.problem.is_some());
        let failed = failed.filter(|(path, file)| !is_displaced(path, file));
        failed.map(|(path, file)| (path.clone(), file.signature)).collect()
    }

    /// What came of a file that has been handled.
    fn known_site_package(&self, file: &Path, is: Signature) -> Option<Option<Diagnostic>> {
        let handled = self.site_packages.lock().ok()?;
        let known = handled.files.get(file).filter(|known| known.signature == is);
        known.map(|known| known.problem.clone())
    }

    fn end_site_package(
        &self,
        path: &Path,
        (signature, plugin): (Signature, Option<String>),
        problem: Option<Diagnostic>,
    ) {
        if let Ok(mut handled) = self.site_packages.lock() {
            let before = handled.files.get(path).and_then(|known| known.problem.clone());
            if let Some(problem) = problem.clone().filter(|it| before.as_ref() != Some(it)) {
                self.parts.events.record(Fact::Problem { problem });
            }
            handled.files.insert(path.to_owned(), File { signature, plugin, problem });
        }
        self.keep_site_packages();
    }

    fn forget_site_packages(&self, is_gone: impl Fn(&Path) -> bool) {
        let Ok(mut handled) = self.site_packages.lock() else { return };
        let before = handled.files.len();
        handled.files.retain(|file, _| !is_gone(file));
        let changed = handled.files.len() != before;
        drop(handled);
        if changed {
            self.keep_site_packages();
        }
    }

    /// Keeps them for the next daemon. One that is refused for a while is not: the next daemon
    /// looks at it again, as at one that is being installed.
    fn keep_site_packages(&self) {
        let Ok(handled) = self.site_packages.lock() else { return };
        let is_done = |file: &File| !file.problem.as_ref().is_some_and(passes);
        let done = handled.files.iter().filter(|(_, file)| is_done(file));
        let done: BTreeMap<&PathBuf, &File> = done.collect();
        let text = serde_json::to_vec(&done).unwrap_or_default();
        let path = file(&self.parts.options.places);
        if let Err(error) = self.parts.world.disk.replace(&path, 0o600, &text) {
            let text = format!("{} cannot be written: {error}", path.display());
            self.parts.events.record(Fact::Note { text });
        }
    }
}

fn file(places: &Places) -> PathBuf {
    places.run().join("site_packages.json")
}

/// The packages that are there.
fn present() -> BTreeMap<PathBuf, Signature> {
    let signed = site_packages::files().into_iter().filter_map(|file| {
        let signature = sign(&file)?;
        Some((file, signature))
    });
    signed.collect()
}

fn sign(file: &Path) -> Option<Signature> {
    let meta = std::fs::metadata(file).ok().filter(std::fs::Metadata::is_file)?;
    Some((meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
}

fn examine(places: &Places, file: &Path) -> Found {
    if proc::is_open_for_writing(Path::new("/proc"), file) {
        return Found::Incomplete;
    }
    // What it says about itself: the process that stages it reads the whole of it.
    match archive::read(file) {
        Ok(package) => {
            let wanted = site_packages::wanted(places, &package);
            Found::Good(package.name, wanted)
        }
        Err(problem) => Found::Bad(problem),
    }
}

/// Has it installed, and waits until it serves.
async fn install(operations: &Operations<Node>, file: &Path) -> Result<(), Diagnostic> {
    let id = operations.submit(Submission {
        id: None,
        request: Request::DeployPackage {
            file: file.to_owned(),
            new_name: None,
            clean: false,
            replace: true,
            take_route: false,
        },
        who: Who::this_process("the configuration monitor"),
        patience_s: PATIENCE_S,
    });
    let mut events = operations.follow(&id.await?).await?;
    while let Some(event) = events.recv().await {
        if let Event::Outcome(outcome) = event {
            let Outcome { problem, .. } = *outcome;
            return problem.map_or(Ok(()), Err);
        }
    }
    Err(Diagnostic::error("the operation has no outcome"))
}

fn not_installed(file: &Path, problem: Diagnostic, is_retried: bool) -> Diagnostic {
    let what = format!("{} is not installed", file.display());
    let outer = Diagnostic::error(what).kind(problem.kind).because(problem.what);
    let outer = problem.because.into_iter().fold(outer, |outer, cause| outer.because(cause));
    let help = problem.help.unwrap_or_else(|| "put a good package in its place".into());
    let when = match is_retried {
        true => "soon",
        false => "when it changes (touch), or when another package there has been installed",
    };
    outer.help(format!(
        "{help}; what was installed before goes on, and the file is tried again {when}"
    ))
}

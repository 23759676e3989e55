//! Packages that are put into `mfserv/plugins` of the site while the node runs: they are installed
//! as `mfserv.start` installs those that are there, each by an operation, one after the other in the
//! order of their names. A process of its own checks and stages them (`mfserv stage`); the daemon
//! only reads what they say about themselves, in a task that holds up nothing else.
//!
//! Those that were there when the node started are known: `mfserv.start` has installed them, or was
//! told not to (NOINIT).

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mfserv_core::event::Fact;
use mfserv_core::{Diagnostic, Kind};
use mfserv_platform::proc;
use mfserv_plugin::archive;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::config_watch::blocking;
use super::node::Node;
use crate::operations::{Event, Operations, Outcome, Request, Submission, Who};
use crate::places::Places;
use crate::site_packages::{self, Wanted};

/// A file that has not changed for this long may be complete…
const STABLE: Duration = Duration::from_millis(500);
/// …and one that is no good package is given this long to become one: its writer may be slow, and
/// not be visible here.
const DOUBTFUL: Duration = Duration::from_millis(1_500);
/// How soon a file that is not complete is looked at again: who has it open is found in all of
/// `/proc`, so that the pause doubles each time…
const LOOK: Duration = Duration::from_millis(250);
/// …up to this one, until something changes.
const LONGEST_LOOK: Duration = Duration::from_secs(5);
/// What is refused for a while (another operation has the plugin, the node is starting) is tried
/// again after this pause, which doubles each time…
const RETRY: Duration = Duration::from_secs(5);
/// …so often. What is refused then is no matter of time.
const RETRIES: u32 = 6;
/// How long the new workers may take to be ready, seconds.
const PATIENCE_S: u64 = 120;

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
    /// Why it is not installed.
    problem: Option<Diagnostic>,
}

/// What a file is found to be.
enum Found {
    /// Somebody writes it.
    Incomplete,
    Bad(Diagnostic),
    Good(Wanted),
}

/// A file that may not be complete, or is to be tried again.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    signature: Signature,
    /// Since when it has not changed.
    since: Instant,
    /// When it is looked at again.
    next: Instant,
    looks: u32,
    retries: u32,
}

impl Waiting {
    fn new(signature: Signature, now: Instant) -> Self {
        Self { signature, since: now, next: now + STABLE, looks: 0, retries: 0 }
    }

    /// Something has changed in its directory.
    fn wake(&mut self, now: Instant) {
        if self.retries == 0 {
            (self.next, self.looks) = (now.max(self.since + STABLE), 0);
        }
    }

    /// It was looked at, and is not complete.
    fn put_off(&mut self, now: Instant) {
        self.next = now + (LOOK * 2_u32.pow(self.looks.min(8))).min(LONGEST_LOOK);
        self.looks += 1;
    }

    /// Its installation has failed: says whether it is tried again.
    fn retry(&mut self, problem: &Diagnostic, now: Instant) -> bool {
        let is_retried = passes(problem) && self.retries < RETRIES;
        if is_retried {
            self.next = now + RETRY * 2_u32.pow(self.retries);
            self.retries += 1;
        }
        is_retried
    }
}

/// What is refused now may be possible soon.
fn passes(problem: &Diagnostic) -> bool {
    matches!(problem.kind, Kind::Refused | Kind::NotRunning)
}

/// Looks after the packages of the site.
struct SitePackages {
    node: Node,
    operations: Operations<Node>,
    waiting: BTreeMap<PathBuf, Waiting>,
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
            let known = |(path, signature)| (path, File { signature, problem: None });
            present().into_iter().map(known).collect()
        })
    });
    let files = known.await.unwrap_or_default();
    if let Ok(mut handled) = node.site_packages.lock() {
        handled.files = files;
    }
    node.keep_site_packages();
    let noticed = Arc::new(Notify::new());
    let packages = SitePackages { node, operations, waiting: BTreeMap::new(), plan: None };
    tokio::spawn(packages.run(noticed.clone()));
    noticed
}

impl SitePackages {
    async fn run(mut self, noticed: Arc<Notify>) {
        loop {
            let next = self.waiting.values().map(|waits| waits.next).min();
            let again = tokio::time::sleep_until(next.unwrap_or_else(Instant::now));
            tokio::select! {
                () = noticed.notified() => {
                    let now = Instant::now();
                    self.waiting.values_mut().for_each(|waits| waits.wake(now));
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

    /// Installs what is new and complete.
    async fn look(&mut self) {
        let Some(present) = blocking(present).await else { return };
        self.node.forget_site_packages(|file| !present.contains_key(file));
        self.waiting.retain(|file, waits| present.get(file) == Some(&waits.signature));
        let plan = self.node.shown_plan().ok().map(|plan| plan.generation);
        let plan_changed = std::mem::replace(&mut self.plan, plan) != plan;
        // By name, one after the other: of two packages of one plugin the last one stays.
        for (file, signature) in present {
            if let Some(problem) = self.node.known_site_package(&file, signature) {
                if plan_changed && problem.is_some() {
                    self.forget_problem(file.clone(), signature).await;
                }
                if !self.waiting.contains_key(&file) {
                    continue;
                }
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
        let (places, path) = (self.node.parts.options.places.clone(), file.clone());
        let found = blocking(move || examine(&places, &path)).await;
        if let Some(Found::Good(Wanted::Nothing)) = found {
            self.waiting.remove(&file);
            self.node.end_site_package(&file, signature, None);
        }
    }

    async fn handle(&mut self, file: PathBuf, signature: Signature, unchanged: Duration) {
        let (places, path) = (self.node.parts.options.places.clone(), file.clone());
        let found = blocking(move || examine(&places, &path)).await;
        let problem = match found {
            None | Some(Found::Incomplete) => return,
            Some(Found::Bad(_)) if unchanged < DOUBTFUL => return,
            Some(Found::Bad(problem)) => Some(problem),
            Some(Found::Good(Wanted::Nothing)) => None,
            Some(Found::Good(_)) => install(&self.operations, &file).await.err(),
        };
        let path = file.clone();
        if problem.is_some() && blocking(move || sign(&path)).await.flatten() != Some(signature) {
            // Its writer has gone on, or another one is in its place: that one is looked at.
            return;
        }
        let waits = self.waiting.get_mut(&file);
        let is_retried = problem
            .as_ref()
            .zip(waits)
            .is_some_and(|(problem, waits)| waits.retry(problem, Instant::now()));
        if !is_retried {
            self.waiting.remove(&file);
        }
        let problem = problem.map(|problem| not_installed(&file, problem, is_retried));
        self.node.end_site_package(&file, signature, problem);
    }
}

impl Node {
    /// Why packages of the site are not installed.
    pub(super) fn problems_of_site_packages(&self) -> Vec<Diagnostic> {
        let Ok(handled) = self.site_packages.lock() else { return Vec::new() };
        handled.files.values().filter_map(|file| file.problem.clone()).collect()
    }

    /// What came of a file that has been handled.
    fn known_site_package(&self, file: &Path, is: Signature) -> Option<Option<Diagnostic>> {
        let handled = self.site_packages.lock().ok()?;
        let known = handled.files.get(file).filter(|known| known.signature == is);
        known.map(|known| known.problem.clone())
    }

    fn end_site_package(&self, path: &Path, signature: Signature, problem: Option<Diagnostic>) {
        if let Ok(mut handled) = self.site_packages.lock() {
            let before = handled.files.get(path).and_then(|known| known.problem.clone());
            if let Some(problem) = problem.clone().filter(|it| before.as_ref() != Some(it)) {
                self.parts.events.record(Fact::Problem { problem });
            }
            handled.files.insert(path.to_owned(), File { signature, problem });
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
        Ok(package) => Found::Good(site_packages::wanted(places, &package)),
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
    let when = if is_retried { "soon" } else { "when it changes (touch)" };
    outer.help(format!(
        "{help}; what was installed before goes on, and the file is tried again {when}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_stays_open_is_looked_at_ever_more_rarely_until_something_changes() {
        let began = Instant::now();
        let mut waits = Waiting::new((1, 2, 3, 4), began);
        assert_eq!(waits.next - began, STABLE);
        let pauses = std::iter::repeat_with(|| {
            let now = waits.next;
            waits.put_off(now);
            waits.next - now
        });
        let pauses: Vec<Duration> = pauses.take(40).collect();
        assert_eq!((pauses[0], pauses[1], pauses[39]), (LOOK, LOOK * 2, LONGEST_LOOK));
        let later = waits.next;
        waits.wake(later);
        assert_eq!(waits.next, later);
        waits.put_off(later);
        assert_eq!(waits.next - later, LOOK);
    }

    #[test]
    fn what_is_refused_for_a_while_is_tried_again_and_what_is_wrong_is_not() {
        let began = Instant::now();
        let mut waits = Waiting::new((1, 2, 3, 4), began);
        let problem = |kind| Diagnostic::error("the plugin is being changed").kind(kind);
        assert!(!waits.retry(&Diagnostic::error("the package is cut off"), began));
        for kind in [Kind::Refused, Kind::NotRunning] {
            assert!(waits.retry(&problem(kind), began));
        }
        assert_eq!(waits.next - began, RETRY * 2);
        // What happens in the directory makes no try more.
        waits.wake(began);
        assert_eq!(waits.next - began, RETRY * 2);
        let tries = (2..100).take_while(|_| waits.retry(&problem(Kind::Refused), began)).count();
        assert_eq!(tries, RETRIES as usize - 2);
    }
}

//! Packages that are put into `mfserv/plugins` of the site while the node runs: they are installed
//! as `mfserv.start` installs those that are there, each by an operation. A process of its own
//! stages them (`mfserv stage`); the daemon only reads what they say.
//!
//! Those that were there when the node started are known: `mfserv.start` has installed them, or was
//! told not to (NOINIT).

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_core::event::Fact;
use mfserv_platform::proc;
use mfserv_plugin::archive::{self, Limits};
use serde::{Deserialize, Serialize};
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
/// How often files that are not complete are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How long the new workers may take to be ready, seconds.
const PATIENCE_S: u64 = 120;

/// What tells a file from what had its name before: inode, size, time of modification.
type Signature = (u64, u64, i64, i64);

/// The packages that have been looked at.
#[derive(Debug, Default)]
pub struct Handled {
    files: BTreeMap<PathBuf, File>,
    /// Those that are being installed.
    busy: BTreeSet<PathBuf>,
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

/// Looks after the packages of the site.
pub struct SitePackages {
    node: Node,
    operations: Operations<Node>,
    /// Files that may not be complete, and since when they have not changed.
    waiting: BTreeMap<PathBuf, (Signature, Instant)>,
    plan_changed: bool,
}

impl SitePackages {
    /// Begins with what an earlier daemon of this node knew, else with what is there.
    pub async fn new(node: Node, operations: Operations<Node>) -> SitePackages {
        let (places, comes_back) =
            (node.parts.options.places.clone(), node.found_something_alive());
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
        SitePackages { node, operations, waiting: BTreeMap::new(), plan_changed: false }
    }

    /// When the files are to be looked at again without being asked; `None`: none is waited for.
    pub fn again(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then(|| Instant::now() + LOOK)
    }

    /// A plugin may have been installed by somebody else.
    pub fn plan_changed(&mut self) {
        self.plan_changed = true;
    }

    /// Installs what is new and complete.
    pub async fn look(&mut self) {
        let Some(present) = blocking(present).await else { return };
        self.node.forget_site_packages(|file| !present.contains_key(file));
        self.waiting.retain(|file, _| present.contains_key(file));
        let again = std::mem::take(&mut self.plan_changed);
        for (file, signature) in present {
            if let Some(problem) = self.node.known_site_package(&file, signature) {
                self.waiting.remove(&file);
                if again && problem.is_some() {
                    self.forget_problem(file, signature).await;
                }
                continue;
            }
            let now = Instant::now();
            let since = match self.waiting.get(&file) {
                Some((known, since)) if *known == signature => *since,
                _ => now,
            };
            self.waiting.insert(file.clone(), (signature, since));
            if now - since >= STABLE {
                self.handle(file, signature, now - since).await;
            }
        }
    }

    /// What could not be installed then may be installed now.
    async fn forget_problem(&self, file: PathBuf, signature: Signature) {
        let (places, path) = (self.node.parts.options.places.clone(), file.clone());
        let found = blocking(move || examine(&places, &path)).await;
        if let Some(Found::Good(Wanted::Nothing)) = found {
            self.node.end_site_package(&file, signature, None);
        }
    }

    async fn handle(&mut self, file: PathBuf, signature: Signature, unchanged: Duration) {
        let (places, path) = (self.node.parts.options.places.clone(), file.clone());
        let found = blocking(move || examine(&places, &path)).await;
        let problem = match found {
            None | Some(Found::Incomplete) => return,
            Some(Found::Bad(_)) if unchanged < DOUBTFUL => return,
            Some(Found::Bad(problem)) => Some(not_installed(&file, problem)),
            Some(Found::Good(Wanted::Nothing)) => None,
            Some(Found::Good(_)) => {
                self.waiting.remove(&file);
                self.node.begin_site_package(&file, signature);
                let (node, operations) = (self.node.clone(), self.operations.clone());
                tokio::spawn(async move {
                    let failed = install(&operations, &file).await.err();
                    let problem = failed.map(|problem| not_installed(&file, problem));
                    node.end_site_package(&file, signature, problem);
                });
                return;
            }
        };
        self.waiting.remove(&file);
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

    fn begin_site_package(&self, file: &Path, signature: Signature) {
        if let Ok(mut handled) = self.site_packages.lock() {
            handled.files.insert(file.to_owned(), File { signature, problem: None });
            handled.busy.insert(file.to_owned());
        }
    }

    fn end_site_package(&self, path: &Path, signature: Signature, problem: Option<Diagnostic>) {
        if let Ok(mut handled) = self.site_packages.lock() {
            let newer = handled.files.get(path).is_some_and(|known| known.signature != signature);
            if newer && handled.busy.contains(path) {
                // Another file has its name, and is being installed.
                return;
            }
            handled.busy.remove(path);
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

    /// Keeps them for the next daemon. One that is being installed is not: the next daemon looks at
    /// it again.
    fn keep_site_packages(&self) {
        let Ok(handled) = self.site_packages.lock() else { return };
        let done = handled.files.iter().filter(|(file, _)| !handled.busy.contains(*file));
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
        let meta = std::fs::metadata(&file).ok().filter(std::fs::Metadata::is_file)?;
        Some((file, (meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec())))
    });
    signed.collect()
}

fn examine(places: &Places, file: &Path) -> Found {
    if proc::is_open_for_writing(Path::new("/proc"), file) {
        return Found::Incomplete;
    }
    // The whole of it is read: of a half nobody knows what is missing.
    match archive::inspect(file, Limits::default(), &[]) {
        Ok(inspected) => Found::Good(site_packages::wanted(places, &inspected.package)),
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

fn not_installed(file: &Path, problem: Diagnostic) -> Diagnostic {
    let what = format!("{} is not installed", file.display());
    let outer = Diagnostic::error(what).kind(problem.kind).because(problem.what);
    let outer = problem.because.into_iter().fold(outer, |outer, cause| outer.because(cause));
    let help = problem.help.unwrap_or_else(|| "put a good package in its place".into());
    outer.help(format!(
        "{help}; what was installed before goes on, and the file is tried again when it changes (touch)"
    ))
}

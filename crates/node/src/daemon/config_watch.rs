//! The configuration monitor: the files that decide the plan are watched, and what is changed in
//! them is applied soon, as `mfserv reload` would apply it. (Worker counts that `mfserv scale` holds
//! stay, unless their own key has changed.)
//!
//! Events only say when to look: whether something has changed follows from the content, so that
//! an editor's temporary files, a `touch`, and files that are written twice cost one reading.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_core::event::Fact;
use mfserv_core::fingerprint;
use mfserv_core::plan::Plan;
use mfserv_plugin::dotenv;
use mfserv_plugin::watch_rules::WatchRules;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::file_watch::{Change, FileWatch};
use super::node::Node;
use super::site_packages;
use crate::configure;
use crate::operations::Operations;
use crate::places::Places;

/// Several files that are changed together are read together: none has changed for this long…
const QUIET: Duration = Duration::from_millis(200);
/// …or the first one this long ago.
const LONGEST: Duration = Duration::from_secs(1);
/// The files of a plugin's directory that decide what runs of it.
const OF_PLUGINS: [&str; 6] = [
    "config.ini",
    "crontab",
    ".layerapi2_label",
    ".layerapi2_dependencies",
    ".layerapi2_extra_env",
    ".plugin_format_version",
];
/// A path leads over at most so many links (as in Linux).
const LINKS_MAX: usize = 40;
/// More files than this are named by their number.
const NAMED: usize = 3;

/// The fingerprint of each file that is there.
type Seen = BTreeMap<PathBuf, u64>;

/// The directories of plugins, without links in their paths, and which of their files are watched.
type Plugins = BTreeMap<PathBuf, Vec<&'static str>>;

struct Monitor {
    node: Node,
    watch: FileWatch,
    plugins: Plugins,
    /// The directories that are watched, without links in their paths.
    dirs: BTreeSet<PathBuf>,
    seen: Seen,
    /// Has the packages of the site looked at.
    packages: Arc<Notify>,
    /// The first and the last change that was not looked at.
    changed: Option<(Instant, Instant)>,
    is_wanted: bool,
}

/// Watches for as long as the daemon lives.
pub async fn run(node: Node, operations: Operations<Node>) {
    let mut plans = node.parts.plans.subscribe();
    let mut monitor = Monitor {
        packages: site_packages::start(node.clone(), operations).await,
        seen: read(&of_node(&node.parts.options.places)),
        watch: FileWatch::new(),
        plugins: BTreeMap::new(),
        dirs: BTreeSet::new(),
        changed: None,
        is_wanted: false,
        node,
    };
    loop {
        let due = monitor.changed.map(|(first, last)| (last + QUIET).min(first + LONGEST));
        let wait = due.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            changed = plans.changed() => {
                if changed.is_err() {
                    return;
                }
                let plan = plans.borrow_and_update().clone();
                if let Some(plan) = plan {
                    monitor.follow(plan).await;
                }
            }
            changes = monitor.watch.next() => {
                if changes.iter().any(|change| monitor.concerns(change)) {
                    monitor.note();
                }
            }
            () = tokio::time::sleep_until(wait) => monitor.look().await,
        }
        if let Some(problem) = monitor.watch.shortage() {
            monitor.node.parts.events.record(Fact::Problem { problem });
        }
    }
}

impl Monitor {
    fn note(&mut self) {
        let now = Instant::now();
        let first = self.changed.map_or(now, |(first, _)| first);
        self.changed = Some((first, now));
    }

    /// Watches the plugins of this plan, and no others.
    async fn follow(&mut self, plan: Arc<Plan>) {
        self.is_wanted = plan.watches_configuration;
        if !self.is_wanted || self.watch.is_short() {
            // inotify may have room now.
            self.watch.clear();
            self.dirs.clear();
        }
        if !self.is_wanted {
            return;
        }
        let Some(plugins) = blocking(move || plugins_of(&plan)).await else { return };
        let before = std::mem::replace(&mut self.plugins, plugins);
        let is_gone = |dir: &Path| before.contains_key(dir) && !self.plugins.contains_key(dir);
        self.seen.retain(|path, _| !path.parent().is_some_and(is_gone));
        if self.plugins.iter().any(|(dir, files)| before.get(dir) != Some(files)) {
            // They may have changed since the plan was made: one reading more.
            self.note();
        }
        self.watch_all().await;
    }

    /// Watches the directories of all files, the links to them, and the places where what is missing
    /// would appear. Returns the files, whether they are there or not.
    async fn watch_all(&mut self) -> Vec<PathBuf> {
        let (places, plugins) = (self.node.parts.options.places.clone(), self.plugins.clone());
        let found = blocking(move || Watched::of(files(&places, &plugins))).await;
        let Some(Watched { files, dirs, entries }) = found else { return Vec::new() };
        for gone in self.dirs.difference(&dirs) {
            self.watch.unwatch_below(gone);
        }
        dirs.iter().for_each(|dir| self.watch.watch(dir));
        self.dirs = dirs;
        for (entry, name) in &entries {
            // The watch that had this name: of a directory that was missing, or of another target.
            self.watch.unwatch_below(name);
            self.watch.watch_file(entry, name);
        }
        files
    }

    fn concerns(&self, change: &Change) -> bool {
        let Change::File(path) = change else { return true };
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return true };
        self.plugins.get(dir).is_none_or(|files| files.iter().any(|file| name == *file))
    }

    /// Reads the files, and applies what has changed.
    async fn look(&mut self) {
        self.changed = None;
        if !self.is_wanted {
            return;
        }
        // Watch first, then read: what changes in between is seen twice, not never.
        let files = self.watch_all().await;
        self.packages.notify_one();
        let Some(now) = blocking(move || read(&files)).await else { return };
        let before = std::mem::replace(&mut self.seen, now);
        let changed = difference(&before, &self.seen);
        if changed.is_empty() {
            return;
        }
        let applied = self.node.reconcile_after_change(&in_words(&changed)).await;
        if let Err(problem) = applied {
            self.node.refuse_configuration(problem);
        }
    }
}

/// Runs what reads files: the disk may be slow, and the event loop must not wait for it.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

/// The plugins of a plan. An edit of a file that renews the workers of its plugin is left to that:
/// the configuration is read by it, too.
fn plugins_of(plan: &Plan) -> Plugins {
    let mut found = Plugins::new();
    for plugin in &plan.plugins {
        let Ok(dir) = plugin.dir.canonicalize() else { continue };
        let edits = WatchRules::read(&dir).filter(|_| plan.autorestart);
        let is_left = |name: &str| edits.as_ref().is_some_and(|it| it.concerns(&dir.join(name)));
        let files = OF_PLUGINS.into_iter().filter(|name| !is_left(name));
        found.entry(dir.clone()).or_default().extend(files);
        let file = dotenv::place(&dir);
        if let (true, Some(dir)) = (plugin.dir.is_symlink(), file.parent()) {
            // It is worked on: its variables for that are in its own directory, or in the app's.
            found.entry(dir.to_owned()).or_default().push(dotenv::FILE);
        }
    }
    found
}

/// All files that are read, whether they are there or not.
fn files(places: &Places, plugins: &Plugins) -> Vec<PathBuf> {
    let of_plugins =
        plugins.iter().flat_map(|(dir, files)| files.iter().map(move |file| dir.join(file)));
    of_node(places).into_iter().chain(of_plugins).collect()
}

/// Files, and what is watched to see them change.
struct Watched {
    files: Vec<PathBuf>,
    /// Directories, without links in their paths.
    dirs: BTreeSet<PathBuf>,
    /// Single entries of other directories, each with the name of its watch.
    entries: Vec<(PathBuf, PathBuf)>,
}

impl Watched {
    fn of(files: Vec<PathBuf>) -> Self {
        let (mut dirs, mut entries) = (BTreeSet::new(), Vec::new());
        let mut known = BTreeMap::new();
        for path in &files {
            let Some(dir) = path.parent() else { continue };
            let (real, links_to_it) = known.entry(dir.to_owned()).or_insert_with(|| {
                (dir.canonicalize().ok().filter(|dir| dir.is_dir()), links(dir))
            });
            if let Some(real) = real {
                dirs.insert(real.clone());
            } else if let Some(first) = dir.ancestors().take_while(|dir| !dir.is_dir()).last() {
                entries.push((first.to_owned(), path.clone()));
            }
            for link in links_to_it.iter().chain(&of_file(path)) {
                entries.push((link.clone(), link.join(".link")));
            }
            let target = path.canonicalize().ok().filter(|_| path.is_symlink());
            entries.extend(target.map(|target| (target, path.clone())));
        }
        Self { files, dirs, entries }
    }
}

/// The links that a file is, one after the other.
fn of_file(path: &Path) -> Vec<PathBuf> {
    if path.is_symlink() { links(path) } else { Vec::new() }
}

impl Node {
    /// Applies the configuration as it is now; nothing happens if the plan is the same.
    async fn reconcile_after_change(&self, files: &str) -> Result<(), Diagnostic> {
        let _turn = self.take_turn().await?;
        let before = self.shown_plan()?.generation;
        let applied = self.reconcile_if_different().await;
        if applied.is_err() || self.shown_plan()?.generation != before {
            let text = format!("changed configuration: {files}");
            self.parts.events.record(Fact::Note { text });
        }
        applied.map(drop)
    }

    /// A configuration that cannot be applied is shown until there is one that can.
    fn refuse_configuration(&self, problem: Diagnostic) {
        if self.refuse_while_stopping().is_err() {
            return;
        }
        let problem = problem
            .because("what was in force before goes on")
            .help("correct the file: it is read as soon as it is saved");
        let known = self.refused.lock().is_ok_and(|known| known.as_ref() == Some(&problem));
        if !known {
            self.parts.events.record(Fact::Problem { problem: problem.clone() });
        }
        if let Ok(mut refused) = self.refused.lock() {
            *refused = Some(problem);
        }
    }
}

/// The files that decide the plan beside those of plugins: the module's configuration, its name, and
/// the overrides of plugins, of this node and of the site.
fn of_node(places: &Places) -> Vec<PathBuf> {
    let site = configure::site_dir().join("mfserv");
    let mut files =
        vec![places.config_file(), site.join("config.ini"), configure::NAME_FILE.into()];
    for dir in [places.home().join("config/plugins"), site.join("plugins")] {
        let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        let is_ini = |path: &PathBuf| path.extension().is_some_and(|end| end == "ini");
        files.extend(entries.map(|entry| entry.path()).filter(is_ini));
        // This name stands for files that do not exist yet: their directory is watched.
        files.push(dir.join(".ini"));
    }
    files
}

/// The links that lead to a file: it, its directories, and what they lead to.
fn links(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = path.to_owned();
    while found.len() < LINKS_MAX {
        let ancestors: Vec<PathBuf> = todo.ancestors().map(Path::to_owned).collect();
        let Some(link) = ancestors.into_iter().rev().find(|part| part.is_symlink()) else { break };
        let (Ok(target), Some(dir)) = (link.read_link(), link.parent()) else { break };
        let rest = todo.strip_prefix(&link).ok().filter(|rest| !rest.as_os_str().is_empty());
        let target = dir.join(target);
        // A path that ends in a slash is that of the target.
        todo = rest.map(|rest| target.join(rest)).unwrap_or(target);
        found.push(link);
    }
    found
}

fn read(files: &[PathBuf]) -> Seen {
    let seen = files.iter().filter_map(|path| {
        let content = match std::fs::read(path) {
            Ok(content) => fingerprint::of(&content),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
            // It is there, and cannot be read: that is said when it is applied.
            Err(e) => fingerprint::of(e.to_string().as_bytes()),
        };
        Some((path.clone(), content))
    });
    seen.collect()
}

/// The files that are new, have gone or have another content.
fn difference<'a>(before: &'a Seen, now: &'a Seen) -> Vec<&'a Path> {
    let changed = now.iter().filter(|(path, content)| before.get(*path) != Some(content));
    let gone = before.keys().filter(|path| !now.contains_key(*path));
    changed.map(|(path, _)| path.as_path()).chain(gone.map(PathBuf::as_path)).collect()
}

fn in_words(files: &[&Path]) -> String {
    let named = files.iter().take(NAMED).map(|path| path.display().to_string());
    let named = named.collect::<Vec<_>>().join(", ");
    match files.len().checked_sub(NAMED) {
        None | Some(0) => named,
        Some(more) => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_new_changed_or_gone_are_named() {
        let of = |files: &[(&str, u64)]| -> Seen {
            files.iter().map(|(path, content)| (PathBuf::from(path), *content)).collect()
        };
        let before = of(&[("/a", 1), ("/b", 2), ("/c", 3)]);
        let now = of(&[("/a", 1), ("/b", 9), ("/d", 4)]);
        let changed = difference(&before, &now);
        assert_eq!(changed, [Path::new("/b"), Path::new("/d"), Path::new("/c")]);
        assert_eq!(in_words(&changed), "/b, /d, /c");
        let many: Vec<&Path> = ["/1", "/2", "/3", "/4", "/5"].map(Path::new).into();
        assert_eq!(in_words(&many), "/1, /2, /3 and 2 more");
    }

    #[test]
    fn every_link_on_the_way_to_a_file_is_found() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("v1/x")).unwrap();
        symlink("v1", at("current")).unwrap();
        symlink(at("current"), at("config")).unwrap();
        symlink("../loop", at("v1/a")).unwrap();
        symlink("loop", at("loop")).unwrap();
        assert_eq!(links(&at("config/x/config.ini")), [at("config"), at("current")]);
        assert_eq!(links(&at("v1/x/config.ini")), [] as [PathBuf; 0]);
        assert_eq!(links(&at("config/a")).len(), LINKS_MAX);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_not_one_that_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let (missing, directory) = (dir.path().join("missing"), dir.path().join("directory"));
        std::fs::create_dir(&directory).unwrap();
        let seen = read(&[missing, directory.clone()]);
        assert_eq!(seen.keys().collect::<Vec<_>>(), [&directory]);
    }
}

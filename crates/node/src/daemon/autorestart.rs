//! Autorestart: workers are renewed when files of their plugin change. This module finds out
//! which plugin a changed file belongs to and when the edit is over; [`super::renewal`] renews
//! the workers.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mfserv_core::Diagnostic;
use mfserv_core::event::Fact;
use mfserv_core::plan::{Plan, PlannedPlugin};
use mfserv_plugin::watch_rules::WatchRules;
use tokio::sync::watch;
use tokio::time::Instant;

use super::file_watch::{Change, FileWatch};
use super::node::Node;
use super::renewal::{Edit, Edits};

/// An edit is over when no file has changed for this long: an editor writes several files, or
/// one file several times.
const QUIET: Duration = Duration::from_millis(15);
/// An edit is over after this time at the latest: somebody may save without a pause.
const LONGEST: Duration = Duration::from_millis(500);
/// The most directories of one plugin that are watched.
const MOST_DIRECTORIES: usize = 10_000;
/// The most directories behind links of one plugin that are watched.
const MOST_LINKED: usize = 1_000;
/// How often a directory that was removed is looked for.
const SEARCH_EVERY: Duration = Duration::from_millis(500);

/// Watches the plugins of the plan in force.
pub struct Autorestart {
    node: Node,
    watch: FileWatch,
    plugins: BTreeMap<String, Watched>,
}

/// A directory to watch, by the path that it has in the plugin.
struct Found {
    path: PathBuf,
    is_link: bool,
}

/// One plugin.
struct Watched {
    rules: WatchRules,
    /// Its link in `var/plugins`.
    link: PathBuf,
    /// If its directory was removed: when it was last looked for.
    missing: Option<Instant>,
    /// The edit in progress, and the time of its last change.
    pending: Option<(Edit, Instant)>,
    /// Where edits that are over go.
    edits: Arc<Edits>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.edits.close();
    }
}

/// Watches for as long as the daemon lives. `plans` has the plan in force.
pub async fn run(node: Node, mut plans: watch::Receiver<Option<Arc<Plan>>>) {
    let mut autorestart = Autorestart { node, watch: FileWatch::new(), plugins: BTreeMap::new() };
    loop {
        let due = autorestart.next_due();
        let wait = due.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            changed = plans.changed() => {
                if changed.is_err() {
                    return;
                }
                let plan = plans.borrow_and_update().clone();
                plan.into_iter().for_each(|plan| autorestart.follow(&plan));
            }
            changes = autorestart.watch.next() => {
                changes.into_iter().for_each(|change| autorestart.note(change));
            }
            () = tokio::time::sleep_until(wait) => {}
        }
        autorestart.search_missing();
        autorestart.push_due();
        if let Some(problem) = autorestart.watch.shortage() {
            autorestart.node.parts.events.record(Fact::Problem { problem });
        }
    }
}

impl Autorestart {
    /// Watches the plugins of this plan, and no others.
    fn follow(&mut self, plan: &Plan) {
        let mut before = std::mem::take(&mut self.plugins);
        // inotify may have room now.
        let anew = self.watch.is_short();
        if anew {
            self.watch.clear();
        }
        for plugin in plan.plugins.iter().filter(|_| plan.autorestart) {
            let known = before.remove(&plugin.name);
            if let Some(watched) = self.followed(plugin, known, anew) {
                self.plugins.insert(plugin.name.clone(), watched);
            }
        }
        for leaving in before.into_values() {
            self.watch.unwatch_below(leaving.rules.dir());
        }
    }

    fn followed(
        &mut self,
        plugin: &PlannedPlugin,
        known: Option<Watched>,
        anew: bool,
    ) -> Option<Watched> {
        let rules = plugin.dir.canonicalize().ok().and_then(|dir| WatchRules::read(&dir));
        let there = plugin.dir.exists();
        if let Some(mut known) = known {
            let same = rules.as_ref() == Some(&known.rules) && known.missing.is_none();
            if same && !anew || !there {
                return Some(known);
            }
            self.watch.unwatch_below(known.rules.dir());
            known.rules = rules?;
            known.missing = None;
            self.watch_below(&plugin.name, &known.rules, known.rules.dir());
            return Some(known);
        }
        let rules = rules?;
        let saved = self.watch_below(&plugin.name, &rules, rules.dir());
        let edits = Edits::new();
        let (node, name) = (self.node.clone(), plugin.name.clone());
        tokio::spawn(node.clone().renew_when_edited(name.clone(), edits.clone()));
        if let Some(saved) = saved {
            let edits = edits.clone();
            tokio::spawn(async move { node.renew_if_older(&name, saved, &edits).await });
        }
        let link = plugin.dir.clone();
        Some(Watched { rules, link, missing: None, pending: None, edits })
    }

    /// Watches a directory and the directories below it that the rules do not skip, breadth
    /// first. Returns the time of modification of the newest file that the rules include.
    fn watch_below(&mut self, plugin: &str, rules: &WatchRules, from: &Path) -> Option<SystemTime> {
        let mut newest = None;
        let (mut watched, mut linked) = (0, 0);
        let mut todo = VecDeque::from([Found { path: from.into(), is_link: from.is_symlink() }]);
        // Links come last: they may lead to much that is not the plugin's.
        let (mut links, mut followed) = (VecDeque::new(), Vec::new());
        while let Some(Found { path, is_link }) = todo.pop_front().or_else(|| links.pop_front()) {
            if rules.skips(&path) || is_link && !self.follows(rules, &path, &mut followed) {
                continue;
            }
            let below_link = !followed.is_empty();
            if watched == MOST_DIRECTORIES || below_link && linked == MOST_LINKED {
                self.report_too_many(plugin, rules.dir(), below_link.then_some(&path));
                break;
            }
            watched += 1;
            linked += usize::from(below_link);
            // Watch first, then read: a file that is created in between is seen twice, not never.
            self.watch.watch(&path);
            for entry in std::fs::read_dir(&path).into_iter().flatten().flatten() {
                let Ok(kind) = entry.file_type() else { continue };
                let (path, is_link) = (entry.path(), kind.is_symlink());
                if kind.is_dir() {
                    todo.push_back(Found { path, is_link });
                } else if is_link && path.is_dir() {
                    links.push_back(Found { path, is_link });
                } else if rules.concerns(&path) {
                    let saved = std::fs::metadata(&path).and_then(|meta| meta.modified());
                    newest = newest.max(saved.ok());
                    if is_link {
                        self.watch_behind(&path);
                    }
                }
            }
        }
        newest
    }

    /// Watches the file that a link leads to.
    fn watch_behind(&mut self, link: &Path) {
        if let Ok(target) = link.canonicalize() {
            self.watch.watch_file(&target, link);
        }
    }

    /// Whether the directory that a link leads to is watched by the path of the link: not if it
    /// is in the plugin or in one that was followed, or has one of them in it, and not if it
    /// belongs to the node.
    fn follows(&self, rules: &WatchRules, link: &Path, followed: &mut Vec<PathBuf>) -> bool {
        let Ok(target) = link.canonicalize() else { return false };
        let var = self.node.parts.options.places.var();
        let overlaps = |dir: &Path| target.starts_with(dir) || dir.starts_with(&target);
        if overlaps(rules.dir()) || overlaps(&var) || followed.iter().any(|dir| overlaps(dir)) {
            return false;
        }
        followed.push(target);
        true
    }

    /// A link has come, or leads elsewhere: what it leads to is watched. True if that matters.
    fn follow_link(&mut self, plugin: &str, rules: &WatchRules, link: &Path) -> bool {
        self.watch.unwatch_below(link);
        if link.is_dir() {
            return self.watch_below(plugin, rules, link).is_some();
        }
        let concerns = rules.concerns(link);
        if concerns {
            self.watch_behind(link);
        }
        concerns
    }

    fn report_too_many(&self, plugin: &str, dir: &Path, link: Option<&PathBuf>) {
        let problem = Diagnostic::warning("not every changed file will be seen")
            .because(match link {
                None => format!("{} has more than {MOST_DIRECTORIES} directories", dir.display()),
                Some(link) => format!(
                    "links of {} lead to more than {MOST_LINKED} directories, one of them {}",
                    dir.display(),
                    link.display()
                ),
            })
            .help("name in .autorestart_excludes what need not be watched")
            .about(plugin);
        self.node.parts.events.record(Fact::Problem { problem });
    }

    fn note(&mut self, change: Change) {
        let path = match &change {
            Change::Unknown => return self.rescan(),
            Change::File(path) | Change::DirectoryAdded(path) | Change::DirectoryRemoved(path) => {
                path
            }
        };
        let owner = self.plugins.iter().find(|(_, one)| path.starts_with(one.rules.dir()));
        let Some((name, _)) = owner else { return };
        let (name, path) = (name.clone(), path.clone());
        let Some(mut plugin) = self.plugins.remove(&name) else { return };
        match change {
            Change::DirectoryRemoved(_) if path == plugin.rules.dir() => {
                self.watch.unwatch_below(&path);
                plugin.missing = Some(Instant::now());
                plugin.changed(None);
            }
            // The files of a directory are removed with it; a skipped directory does not matter.
            Change::DirectoryRemoved(_) if !plugin.rules.skips(&path) => {
                plugin.changed(Some(&path))
            }
            Change::DirectoryAdded(_)
                if self.watch_below(&name, &plugin.rules, &path).is_some() =>
            {
                plugin.changed(Some(&path));
            }
            Change::File(_)
                if path.is_symlink() && self.follow_link(&name, &plugin.rules, &path) =>
            {
                plugin.changed(Some(&path));
            }
            Change::File(_) if plugin.rules.concerns(&path) => plugin.changed(Some(&path)),
            _ => {}
        }
        self.plugins.insert(name, plugin);
    }

    /// Events were lost: every plugin counts as changed.
    fn rescan(&mut self) {
        let mut plugins = std::mem::take(&mut self.plugins);
        for (name, plugin) in plugins.iter_mut().filter(|(_, plugin)| plugin.missing.is_none()) {
            self.watch_below(name, &plugin.rules, plugin.rules.dir());
            plugin.changed(None);
        }
        self.plugins = plugins;
    }

    /// A directory that was removed may come back (a checkout, a move there and back).
    fn search_missing(&mut self) {
        let mut plugins = std::mem::take(&mut self.plugins);
        for (name, plugin) in &mut plugins {
            if plugin.missing.is_none_or(|looked| looked.elapsed() < SEARCH_EVERY) {
                continue;
            }
            plugin.missing = Some(Instant::now());
            let Ok(dir) = plugin.link.canonicalize() else { continue };
            let Some(rules) = WatchRules::read(&dir) else { continue };
            self.watch_below(name, &rules, rules.dir());
            plugin.rules = rules;
            plugin.missing = None;
            plugin.changed(None);
        }
        self.plugins = plugins;
    }

    fn next_due(&self) -> Option<Instant> {
        let changed = self.plugins.values().filter_map(Watched::due_at);
        let missing = self.plugins.values().filter_map(|plugin| plugin.missing);
        changed.chain(missing.map(|looked| looked + SEARCH_EVERY)).min()
    }

    fn push_due(&mut self) {
        let now = Instant::now();
        for plugin in self.plugins.values_mut() {
            if plugin.due_at().is_some_and(|due| due <= now) {
                if let Some((edit, _)) = plugin.pending.take() {
                    plugin.edits.push(edit);
                }
            }
        }
    }
}

impl Watched {
    fn changed(&mut self, path: Option<&Path>) {
        let now = Instant::now();
        self.edits.begin();
        let (edit, last) = self.pending.get_or_insert_with(|| (Edit::begun(now), now));
        *last = now;
        let below = path.and_then(|path| path.strip_prefix(self.rules.dir()).ok());
        if let Some(below) = below {
            edit.add(&below.to_string_lossy());
        }
    }

    fn due_at(&self) -> Option<Instant> {
        let (edit, last) = self.pending.as_ref()?;
        Some((*last + QUIET).min(edit.began() + LONGEST))
    }
}

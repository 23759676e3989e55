//! Files of a plugin change: its workers are renewed. Here it is noticed which plugin is
//! meant, and when the change is over; [`super::renewal`] does the rest.

use std::collections::BTreeMap;
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

/// An editor writes several files, or one several times: this long nothing more happens.
const QUIET: Duration = Duration::from_millis(15);
/// But somebody who saves all the time is served too.
const LONGEST: Duration = Duration::from_millis(500);
/// The most directories of one plugin that are watched.
const MOST_DIRECTORIES: usize = 10_000;
/// How often it is looked whether a directory that has gone is there again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Watches the plugins of the plan in force.
pub struct Autorestart {
    node: Node,
    watch: FileWatch,
    plugins: BTreeMap<String, Watched>,
}

/// One plugin.
struct Watched {
    rules: WatchRules,
    /// Where it is linked from.
    link: PathBuf,
    /// Its directory has gone: since when that was not looked at.
    gone: Option<Instant>,
    /// What has changed, and when it did last.
    pending: Option<(Edit, Instant)>,
    /// Where it is told.
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
        autorestart.look_for_the_gone();
        autorestart.push_due();
        if let Some(problem) = autorestart.watch.shortage() {
            autorestart.node.parts.events.record(Fact::Problem { problem });
        }
    }
}

impl Autorestart {
    /// The plugins of this plan are watched from now on, and no others.
    fn follow(&mut self, plan: &Plan) {
        let mut before = std::mem::take(&mut self.plugins);
        // There may be room now.
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
            let same = rules.as_ref() == Some(&known.rules) && known.gone.is_none();
            if same && !anew || !there {
                return Some(known);
            }
            self.watch.unwatch_below(known.rules.dir());
            known.rules = rules?;
            known.gone = None;
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
        Some(Watched { rules, link, gone: None, pending: None, edits })
    }

    /// Watches a directory and all below it that the rules do not skip, nearest first.
    /// Returns when the newest file that concerns the plugin was saved, if there is one.
    fn watch_below(&mut self, plugin: &str, rules: &WatchRules, from: &Path) -> Option<SystemTime> {
        let mut newest = None;
        let mut watched = 0;
        let mut todo = std::collections::VecDeque::from([from.to_owned()]);
        while let Some(dir) = todo.pop_front() {
            if rules.skips(&dir) {
                continue;
            }
            if watched == MOST_DIRECTORIES {
                self.say_too_many(plugin, rules.dir());
                break;
            }
            watched += 1;
            // First watched, then read: what comes in between is seen twice, not never.
            self.watch.watch(&dir);
            for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                // A link to a directory is not followed: it may lead anywhere.
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => todo.push_back(entry.path()),
                    Ok(_) if rules.concerns(&entry.path()) => {
                        let saved = entry.metadata().and_then(|meta| meta.modified()).ok();
                        newest = newest.max(saved);
                    }
                    Ok(_) | Err(_) => {}
                }
            }
        }
        newest
    }

    fn say_too_many(&self, plugin: &str, dir: &Path) {
        let problem = Diagnostic::warning("not every changed file will be seen")
            .because(format!("{} has more than {MOST_DIRECTORIES} directories", dir.display()))
            .help("name in .autorestart_excludes what need not be watched")
            .about(plugin);
        self.node.parts.events.record(Fact::Problem { problem });
    }

    fn note(&mut self, change: Change) {
        let path = match &change {
            Change::Anything => return self.look_at_everything(),
            Change::File(path) | Change::DirectoryCame(path) | Change::DirectoryGone(path) => path,
        };
        let owner = self.plugins.iter().find(|(_, one)| path.starts_with(one.rules.dir()));
        let Some((name, _)) = owner else { return };
        let (name, path) = (name.clone(), path.clone());
        let Some(mut plugin) = self.plugins.remove(&name) else { return };
        match change {
            Change::DirectoryGone(_) if path == plugin.rules.dir() => {
                self.watch.unwatch_below(&path);
                plugin.gone = Some(Instant::now());
                plugin.changed(None);
            }
            // What was in it has gone with it; a skipped one did not matter.
            Change::DirectoryGone(_) if !plugin.rules.skips(&path) => plugin.changed(Some(&path)),
            Change::DirectoryCame(_) if self.watch_below(&name, &plugin.rules, &path).is_some() => {
                plugin.changed(Some(&path));
            }
            Change::File(_) if plugin.rules.concerns(&path) => plugin.changed(Some(&path)),
            _ => {}
        }
        self.plugins.insert(name, plugin);
    }

    /// Changes were lost: as if every plugin had changed.
    fn look_at_everything(&mut self) {
        let mut plugins = std::mem::take(&mut self.plugins);
        for (name, plugin) in plugins.iter_mut().filter(|(_, plugin)| plugin.gone.is_none()) {
            self.watch_below(name, &plugin.rules, plugin.rules.dir());
            plugin.changed(None);
        }
        self.plugins = plugins;
    }

    /// A directory that has gone may come again (a checkout, a move there and back).
    fn look_for_the_gone(&mut self) {
        let mut plugins = std::mem::take(&mut self.plugins);
        for (name, plugin) in &mut plugins {
            if plugin.gone.is_none_or(|looked| looked.elapsed() < LOOK_AGAIN) {
                continue;
            }
            plugin.gone = Some(Instant::now());
            let Ok(dir) = plugin.link.canonicalize() else { continue };
            let Some(rules) = WatchRules::read(&dir) else { continue };
            self.watch_below(name, &rules, rules.dir());
            plugin.rules = rules;
            plugin.gone = None;
            plugin.changed(None);
        }
        self.plugins = plugins;
    }

    fn next_due(&self) -> Option<Instant> {
        let changed = self.plugins.values().filter_map(Watched::due_at);
        let gone = self.plugins.values().filter_map(|plugin| plugin.gone);
        changed.chain(gone.map(|looked| looked + LOOK_AGAIN)).min()
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
        self.edits.stir();
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

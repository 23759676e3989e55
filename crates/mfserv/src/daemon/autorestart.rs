//! Files of a plugin change: its workers are renewed. The old code serves until the new
//! one is ready; if it does not start, it goes on serving.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mfserv_core::event::{EndReason, Fact};
use mfserv_core::names::WatcherName;
use mfserv_core::plan::Plan;
use mfserv_core::watcher::WatcherSpec;
use mfserv_plugin::watch_rules::WatchRules;
use mfserv_supervisor::Until;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::node::Node;

/// An editor writes several files, or one several times: this long nothing more happens.
const QUIET: Duration = Duration::from_millis(30);
/// But somebody who saves all the time is served too.
const LONGEST: Duration = Duration::from_millis(500);

/// Watches the plugins of the plan in force.
pub struct Autorestart {
    watcher: RecommendedWatcher,
    changes: mpsc::UnboundedReceiver<notify::Event>,
    plugins: BTreeMap<String, WatchRules>,
    watched: BTreeSet<PathBuf>,
    /// Plugins with changes: the first and the last of them.
    dirty: BTreeMap<String, (Instant, Instant)>,
}

/// Watches for as long as the daemon lives. `plans` brings each plan that comes into force.
pub async fn run(node: Node, mut plans: mpsc::UnboundedReceiver<std::sync::Arc<Plan>>) {
    let Some(mut autorestart) = Autorestart::new() else {
        let text = "files are not watched: this system has no inotify to give".into();
        return node.parts.events.record(Fact::Note { text });
    };
    loop {
        let due = autorestart.next_due();
        let wait = due.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            plan = plans.recv() => match plan {
                Some(plan) => autorestart.follow(&plan),
                None => return,
            },
            event = autorestart.changes.recv() => match event {
                Some(event) => autorestart.note(&event),
                None => return,
            },
            () = tokio::time::sleep_until(wait.into()) => {}
        }
        for plugin in autorestart.take_due() {
            let node = node.clone();
            tokio::spawn(async move { node.files_changed(&plugin).await });
        }
    }
}

impl Autorestart {
    fn new() -> Option<Autorestart> {
        let (sender, changes) = mpsc::unbounded_channel();
        let tell = move |event: notify::Result<notify::Event>| {
            if let Ok(event) = event {
                let _ = sender.send(event);
            }
        };
        let watcher = notify::recommended_watcher(tell).ok()?;
        Some(Autorestart {
            watcher,
            changes,
            plugins: BTreeMap::new(),
            watched: BTreeSet::new(),
            dirty: BTreeMap::new(),
        })
    }

    /// The plugins of this plan are watched from now on, and no others.
    fn follow(&mut self, plan: &Plan) {
        self.plugins.clear();
        let mut wanted = BTreeSet::new();
        for plugin in plan.plugins.iter().filter(|_| plan.autorestart) {
            let Ok(dir) = plugin.dir.canonicalize() else { continue };
            let Some(rules) = WatchRules::read(&dir) else { continue };
            wanted.extend(rules.directories(&dir));
            self.plugins.insert(plugin.name.clone(), rules);
        }
        for gone in self.watched.difference(&wanted) {
            let _ = self.watcher.unwatch(gone);
        }
        for fresh in wanted.difference(&self.watched) {
            let _ = self.watcher.watch(fresh, RecursiveMode::NonRecursive);
        }
        self.watched = wanted;
    }

    fn note(&mut self, event: &notify::Event) {
        if matches!(
            event.kind,
            EventKind::Access(_) | EventKind::Modify(notify::event::ModifyKind::Metadata(_))
        ) {
            return;
        }
        for path in &event.paths {
            let owner = self.plugins.iter().find(|(_, rules)| path.starts_with(rules.dir()));
            let Some((name, rules)) = owner else { continue };
            // A directory that appears brings files that nobody will tell about.
            let mut brought = false;
            if matches!(event.kind, EventKind::Create(_) | EventKind::Modify(_)) && path.is_dir() {
                for dir in rules.directories(path) {
                    let _ = self.watcher.watch(&dir, RecursiveMode::NonRecursive);
                    brought |= holds_a_concern(rules, &dir);
                    self.watched.insert(dir);
                }
            }
            if brought || rules.concerns(path) && !path.is_dir() {
                let now = Instant::now();
                self.dirty.entry(name.clone()).or_insert((now, now)).1 = now;
            }
        }
    }

    fn due_at(&(first, last): &(Instant, Instant)) -> Instant {
        (last + QUIET).min(first + LONGEST)
    }

    fn next_due(&self) -> Option<Instant> {
        self.dirty.values().map(Self::due_at).min()
    }

    fn take_due(&mut self) -> Vec<String> {
        let now = Instant::now();
        let due = self.dirty.iter().filter(|(_, times)| Self::due_at(times) <= now);
        let due: Vec<String> = due.map(|(name, _)| name.clone()).collect();
        for name in &due {
            self.dirty.remove(name);
        }
        due
    }
}

fn holds_a_concern(rules: &WatchRules, dir: &Path) -> bool {
    let mut entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.any(|entry| rules.concerns(&entry.path()) && entry.path().is_file())
}

impl Node {
    /// Files of a plugin have changed: perhaps its configuration; its code for certain.
    async fn files_changed(&self, plugin: &str) {
        let edit = self.count_edit(plugin);
        let applied = {
            let _turn = self.turn.lock().await;
            self.reconcile_in_turn().await
        };
        let replaced = match applied {
            Ok(changes) => changes.touched(),
            Err(problem) => return self.parts.events.record(Fact::Problem { problem }),
        };
        let Ok(plan) = self.shown_plan() else { return };
        let own = |spec: &&WatcherSpec| {
            spec.name.plugin() == Some(plugin) && !replaced.contains(&spec.name)
        };
        let (beside, alone): (Vec<WatcherSpec>, Vec<WatcherSpec>) = plan
            .watchers
            .values()
            .filter(own)
            .cloned()
            .partition(|spec| spec.overlap && spec.upstream.is_some());
        let why = EndReason::FilesChanged;
        let names = |specs: &[WatcherSpec]| -> Vec<WatcherName> {
            specs.iter().map(|spec| spec.name.clone()).collect()
        };
        self.parts.supervisor.restart(names(&alone), why.clone());
        let beside_names = names(&beside);
        if beside.is_empty() {
            return;
        }
        let patience = beside.iter().map(|spec| spec.start_timeout_ms).max().unwrap_or(0);
        // One of each is enough to know whether the new code starts.
        let first = beside.into_iter().map(|spec| WatcherSpec { count: 1, ..spec }).collect();
        self.parts.supervisor.prepare(first);
        let patience = Duration::from_millis(patience + 1000);
        let ready =
            self.parts.supervisor.wait(Until::Prepared, beside_names.clone(), patience).await;
        match ready {
            Ok(()) => self.parts.supervisor.renew(beside_names, why),
            // A later edit has begun its own attempt: that one is not to be given up.
            Err(_) if self.edits_of(plugin) != edit => {}
            Err(problem) => {
                self.parts.supervisor.abandon(beside_names);
                self.parts.events.record(Fact::Problem { problem });
            }
        }
    }

    fn count_edit(&self, plugin: &str) -> u64 {
        let Ok(mut edits) = self.edits.lock() else { return 0 };
        let count = edits.entry(plugin.to_string()).or_default();
        *count += 1;
        *count
    }

    fn edits_of(&self, plugin: &str) -> u64 {
        self.edits.lock().ok().and_then(|edits| edits.get(plugin).copied()).unwrap_or(0)
    }
}

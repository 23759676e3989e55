//! What the daemon looks after every 2 s: directories, files and links that a cleaner of old
//! files, a program or a person may have removed.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use mfserv_core::event::Fact;
use mfserv_core::plan::{Plan, PluginState};
use mfserv_core::{Diagnostic, Kind};
use mfserv_plugin::Home;
use mfserv_plugin::store::{self, Owner};

use super::node::Node;
use super::{last_plan, reconcile};

/// So often.
const LOOK: Duration = Duration::from_secs(2);

impl Node {
    /// Makes again what is missing, until the node stops.
    pub(super) async fn look_after_files(self) {
        let mut links_at = None;
        while !self.stopping.load(Ordering::Relaxed) {
            tokio::time::sleep(LOOK).await;
            // No operation is between two of its steps.
            let Ok(turn) = self.take_turn().await else { return };
            let node = self.clone();
            let looked = tokio::task::spawn_blocking(move || {
                let made = node.make_again(&mut links_at);
                drop(turn);
                (made, links_at)
            });
            let Ok((made, at)) = looked.await else { continue };
            links_at = at;
            if !made.is_empty() {
                let text = format!("was removed, and is made again: {}", made.join(", "));
                self.parts.events.record(Fact::Note { text });
            }
        }
    }

    /// `links_at`: when `var/plugins` changed last, as it was seen then.
    fn make_again(&self, links_at: &mut Option<SystemTime>) -> Vec<String> {
        let (places, mut made) = (&self.parts.options.places, Vec::new());
        if places.are_incomplete() && places.create().is_ok() {
            made.push("directories of the node".into());
        }
        if self.state.restore() {
            made.push("var/status".into());
        }
        let Ok(plan) = self.shown_plan() else { return made };
        if last_plan::is_gone(places) {
            self.keep(&plan);
            made.push("var/run/plan.json".into());
        }
        if !places.uuid_file().exists() {
            let text = format!("{}\n", plan.table.server.uuid);
            if self.parts.world.disk.write(&places.uuid_file(), text.as_bytes()).is_ok() {
                made.push("var/uuid".into());
            }
        }
        let short = places.short_dir();
        if reconcile::uses_short_dir(places, &plan)
            && !short.exists()
            && reconcile::ensure_short_dir(places).is_ok()
        {
            made.push(short.display().to_string());
        }
        made.extend(self.temporary_directories(&plan));
        made.extend(self.links(&plan, links_at));
        made
    }

    /// Programs use the directory that TMPDIR names, without making it.
    fn temporary_directories(&self, plan: &Plan) -> Vec<String> {
        let mut made = Vec::new();
        for watcher in plan.watchers.values() {
            let Some(dir) = watcher.env.get("TMPDIR").map(std::path::Path::new) else { continue };
            let is_ours = dir.starts_with(self.parts.options.places.tmp());
            if is_ours && !dir.exists() && std::fs::create_dir_all(dir).is_ok() {
                made.push(dir.display().to_string());
            }
        }
        made
    }

    /// The links to releases.
    fn links(&self, plan: &Plan, links_at: &mut Option<SystemTime>) -> Vec<String> {
        let home = Home::new(self.parts.options.places.home());
        let changed = || home.plugins().metadata().and_then(|found| found.modified()).ok();
        let before = changed();
        if before.is_some() && before == *links_at {
            return Vec::new();
        }
        let owner = Owner::this_process("upkeep");
        let mut made = Vec::new();
        for plugin in &plan.plugins {
            if store::restore_link(&home, &plugin.name, &plugin.dir, &owner) {
                made.push(format!("var/plugins/{}", plugin.name));
            }
        }
        let is_there = |name: &str| home.link(name).symlink_metadata().is_ok();
        let all_are_there = plan.plugins.iter().all(|plugin| is_there(&plugin.name));
        *links_at = changed().filter(|_| all_are_there);
        made
    }
}

/// What cannot be made again: running plugins whose directory or link has gone.
pub(super) fn gone(plan: &Plan) -> Vec<Diagnostic> {
    let running = plan.plugins.iter().filter(|plugin| plugin.state == PluginState::Active);
    let gone = running.filter(|plugin| !plugin.dir.exists());
    let say = |plugin: &mfserv_core::plan::PlannedPlugin| {
        Diagnostic::error(format!("the directory of plugin {} has gone", plugin.name))
            .kind(Kind::Failed)
            .because(format!("it was {}", plugin.dir.display()))
            .because("workers that live go on serving")
            .help("`mfserv install FILE` makes a new one; `mfserv releases` lists the others")
    };
    gone.map(say).collect()
}

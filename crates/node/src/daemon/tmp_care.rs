//! Old files in `tmp` of the home are removed, as the plan in force says. A thread of its own does
//! it, since there may be many.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mfserv_core::event::Fact;
use mfserv_core::plan::Plan;
use rustix::fs::{FlockOperation, flock};
use tokio::sync::watch;
use tokio::time::Instant;

use super::node::Node;
use crate::render;

/// How often old files are looked for.
const EVERY: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// Directories in directories are followed so deep.
const DEPTH: usize = 64;

/// What was removed, and the first trouble with the rest.
#[derive(Debug, Default)]
struct Cleaned {
    files: u64,
    bytes: u64,
    trouble: Option<String>,
}

/// Cleans for as long as the daemon lives. `plans` has the plan in force.
pub async fn run(node: Node, mut plans: watch::Receiver<Option<Arc<Plan>>>) {
    let mut done: Option<(u64, Instant)> = None;
    let mut complained = None;
    loop {
        let plan = plans.borrow_and_update().clone();
        let days = plan.as_ref().map_or(0, |plan| plan.tmp_max_age_days);
        let is_due = done.is_none_or(|(of, at)| of != days || at.elapsed() >= EVERY);
        if let Some(plan) = plan.filter(|_| days > 0 && is_due) {
            let tmp = node.parts.options.places.tmp();
            let spared = spared(&tmp, &plan);
            let age = DAY.saturating_mul(u32::try_from(days).unwrap_or(u32::MAX));
            let clean = move || clean(&tmp, &spared, age);
            if let Ok(cleaned) = tokio::task::spawn_blocking(clean).await {
                report(&node, cleaned, &mut complained);
            }
        }
        if is_due {
            done = Some((days, Instant::now()));
        }
        tokio::select! {
            changed = plans.changed() => if changed.is_err() {
                return;
            },
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

fn report(node: &Node, cleaned: Cleaned, complained: &mut Option<String>) {
    let Cleaned { files, bytes, trouble } = cleaned;
    if files > 0 {
        let (s, size) = (if files == 1 { "" } else { "s" }, render::bytes(bytes));
        let text = format!("{files} old file{s} of tmp ({size}) removed ([misc] tmp_max_age)");
        node.parts.events.record(Fact::Note { text });
    }
    if trouble != *complained {
        if let Some(text) = trouble.clone() {
            node.parts.events.record(Fact::Note { text });
        }
        *complained = trouble;
    }
}

/// Directories that stay when they are empty: programs use them without making them.
fn spared(tmp: &Path, plan: &Plan) -> BTreeSet<PathBuf> {
    let own = plan.watchers.values().map(|watcher| &watcher.env);
    let jobs = plan.jobs.values().map(|job| &job.env);
    let dirs = own.chain(jobs).filter_map(|env| env.get("TMPDIR")).map(PathBuf::from);
    dirs.chain([plan.table.server.body_temp_dir.clone(), tmp.join("python_cache")]).collect()
}

/// Removes the files below `tmp` of which neither content nor place has changed for so long, and
/// the directories that are empty for as long. `config_auto` is left alone.
fn clean(tmp: &Path, spared: &BTreeSet<PathBuf>, age: Duration) -> Cleaned {
    let mut cleaned = Cleaned::default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let rules = Rules { before_s: now.saturating_sub(age).as_secs(), spared };
    for entry in fs::read_dir(tmp).into_iter().flatten().flatten() {
        if entry.file_name() != "config_auto" {
            remove_old(&entry.path(), &rules, DEPTH, &mut cleaned);
        }
    }
    cleaned
}

/// What is removed.
struct Rules<'a> {
    /// What has changed before this time, seconds since the Unix epoch.
    before_s: u64,
    spared: &'a BTreeSet<PathBuf>,
}

impl Rules<'_> {
    fn is_old(&self, meta: &Metadata) -> bool {
        let changed = meta.mtime().max(meta.ctime());
        u64::try_from(changed).is_ok_and(|changed| changed < self.before_s)
    }
}

fn remove_old(path: &Path, rules: &Rules<'_>, depth: usize, cleaned: &mut Cleaned) {
    // Of a link, the link itself.
    let Ok(meta) = fs::symlink_metadata(path) else { return };
    let removed = if meta.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten().filter(|_| depth > 0) {
            remove_old(&entry.path(), rules, depth - 1, cleaned);
        }
        match rules.is_old(&meta) && !rules.spared.contains(path) {
            // One that is not empty stays.
            true => fs::remove_dir(path).or(Ok(())),
            false => Ok(()),
        }
    } else if meta.is_file() && rules.is_old(&meta) && !is_locked(path) {
        let removed = fs::remove_file(path);
        if removed.is_ok() {
            cleaned.files += 1;
            cleaned.bytes += meta.len();
        }
        removed
    } else {
        Ok(())
    };
    if let Err(error) = removed.or_else(is_gone) {
        let trouble = || format!("the old file {} cannot be removed: {error}", path.display());
        cleaned.trouble.get_or_insert_with(trouble);
    }
}

fn is_gone(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Somebody holds a lock on the file: it is removed when it is not needed any more. (A job that
/// runs for days has one.)
fn is_locked(path: &Path) -> bool {
    let Ok(file) = fs::File::open(path) else { return false };
    flock(&file, FlockOperation::NonBlockingLockExclusive).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_files_go_and_what_is_new_generated_locked_or_used_as_a_directory_stays() {
        let dir = tempfile::tempdir().unwrap();
        let tmp = dir.path();
        let at = |name: &str| tmp.join(name);
        for name in ["config_auto", "plugin", "deep/er", "outside"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        let files = ["config_auto/nginx.conf", "plugin/a", "deep/er/b", "held.lock", "new", "c"];
        files.iter().for_each(|name| fs::write(at(name), "12345").unwrap());
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("theirs"), "").unwrap();
        std::os::unix::fs::symlink(outside.path(), at("link")).unwrap();
        let held = fs::File::open(at("held.lock")).unwrap();
        flock(&held, FlockOperation::LockExclusive).unwrap();
        let spared = BTreeSet::from([at("plugin")]);
        // Nothing is older than a day. (The time of the last change of an inode cannot be set.)
        assert_eq!(clean(tmp, &spared, DAY).files, 0);
        let new = fs::File::options().write(true).open(at("new")).unwrap();
        new.set_modified(SystemTime::now() + DAY).unwrap();
        std::thread::sleep(Duration::from_millis(1_100)); // the age is counted in whole seconds
        let cleaned = clean(tmp, &spared, Duration::ZERO);
        assert_eq!((cleaned.files, cleaned.bytes, cleaned.trouble), (3, 15, None));
        let left: Vec<bool> = files.iter().map(|name| at(name).exists()).collect();
        assert_eq!(left, [true, false, false, true, true, false]);
        assert!(at("plugin").is_dir() && !at("outside").exists());
        assert!(outside.path().join("theirs").exists() && at("link").is_symlink());
    }
}

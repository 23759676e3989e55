//! Old files in `tmp` of the home are removed, as the plan in force says. A thread of its own does
//! it, since there may be many.

use std::collections::BTreeSet;
use std::ffi::{CStr, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mfserv_core::event::Fact;
use mfserv_core::plan::Plan;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, Stat, flock, fstat, openat, statat,
    unlinkat,
};
use rustix::io::Errno;
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
    let before_s = now.saturating_sub(age).as_secs();
    let opened = open_dir(CWD, tmp).and_then(|dir| Ok((fstat(&dir)?.st_dev, dir)));
    match opened {
        Ok((device, dir)) => {
            let rules = Rules { before_s, spared, device };
            for_each_entry(&dir, |name| {
                if name.to_bytes() != b"config_auto" {
                    remove_old((&dir, name), &within(tmp, name), &rules, DEPTH, &mut cleaned);
                }
            });
        }
        Err(Errno::NOENT) => {}
        Err(_) if tmp.is_symlink() => {
            let what = format!("old files of {} are not removed: it is a link", tmp.display());
            cleaned.trouble =
                Some(format!("{what}; what it leads to may have files of others, too"));
        }
        Err(error) => {
            cleaned.trouble = Some(format!("{} cannot be read: {error}", tmp.display()));
        }
    }
    cleaned
}

/// What is removed.
struct Rules<'a> {
    /// What has changed before this time, seconds since the Unix epoch.
    before_s: u64,
    spared: &'a BTreeSet<PathBuf>,
    /// The file system of `tmp`: what is mounted below it is not ours to clean.
    device: u64,
}

impl Rules<'_> {
    fn is_old(&self, found: &Stat) -> bool {
        let changed = found.st_mtime.max(found.st_ctime);
        u64::try_from(changed).is_ok_and(|changed| changed < self.before_s)
    }
}

/// Removes an entry of an open directory: a directory that is swapped for a link meanwhile leads
/// nowhere. `path` is its place, to compare and to tell.
fn remove_old(
    (dir, name): (&OwnedFd, &CStr),
    path: &Path,
    rules: &Rules<'_>,
    depth: usize,
    cleaned: &mut Cleaned,
) {
    // Of a link, the link itself.
    let Ok(found) = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) else { return };
    if found.st_dev != rules.device {
        return;
    }
    let removed = match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory => {
            if let Some(below) = open_dir(dir, name).ok().filter(|_| depth > 0) {
                for_each_entry(&below, |name| {
                    remove_old((&below, name), &within(path, name), rules, depth - 1, cleaned);
                });
            }
            match rules.is_old(&found) && !rules.spared.contains(path) {
                // One that is not empty stays.
                true => unlinkat(dir, name, AtFlags::REMOVEDIR).or(Ok(())),
                false => Ok(()),
            }
        }
        FileType::RegularFile if rules.is_old(&found) => remove_unlocked(dir, name, cleaned),
        _ => Ok(()),
    };
    if let Err(error) =
        removed.or_else(|error| if error == Errno::NOENT { Ok(()) } else { Err(error) })
    {
        let trouble = || format!("the old file {} cannot be removed: {error}", path.display());
        cleaned.trouble.get_or_insert_with(trouble);
    }
}

/// Removes a file that nobody has locked. (A job that runs for days has one.) It is removed while
/// we have the lock: whoever locks it afterwards can see that it is gone. What is called a lock
/// stays: a program that tries to take it at this moment would believe that another one has it.
fn remove_unlocked(dir: &OwnedFd, name: &CStr, cleaned: &mut Cleaned) -> Result<(), Errno> {
    if name.to_bytes().ends_with(b".lock") {
        return Ok(());
    }
    let how = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    // One that cannot be read is removed all the same.
    let file = openat(dir, name, how, Mode::empty());
    if file
        .as_ref()
        .is_ok_and(|file| flock(file, FlockOperation::NonBlockingLockExclusive).is_err())
    {
        return Ok(());
    }
    let found = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    unlinkat(dir, name, AtFlags::empty())?;
    cleaned.files += 1;
    cleaned.bytes += u64::try_from(found.st_size).unwrap_or(0);
    Ok(())
}

/// Opens a directory, and no link to one.
fn open_dir(at: impl std::os::fd::AsFd, path: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, path, how, Mode::empty())
}

fn for_each_entry(dir: &OwnedFd, mut each: impl FnMut(&CStr)) {
    for entry in Dir::read_from(dir).into_iter().flatten().flatten() {
        if ![&b"."[..], b".."].contains(&entry.file_name().to_bytes()) {
            each(entry.file_name());
        }
    }
}

fn within(dir: &Path, name: &CStr) -> PathBuf {
    dir.join(OsStr::from_bytes(name.to_bytes()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn old_files_go_and_what_is_new_generated_locked_or_used_as_a_directory_stays() {
        let dir = tempfile::tempdir().unwrap();
        let tmp = dir.path();
        let at = |name: &str| tmp.join(name);
        for name in ["config_auto", "plugin", "deep/er", "outside"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        let names = ["config_auto/nginx.conf", "plugin/a", "deep/er/b", "held", "new", "c"];
        let files = names.into_iter().chain(["free.lock"]).collect::<Vec<_>>();
        files.iter().for_each(|name| fs::write(at(name), "12345").unwrap());
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("theirs"), "").unwrap();
        std::os::unix::fs::symlink(outside.path(), at("link")).unwrap();
        let held = fs::File::open(at("held")).unwrap();
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
        assert_eq!(left, [true, false, false, true, true, false, true]);
        assert!(at("plugin").is_dir() && !at("outside").exists());
        assert!(outside.path().join("theirs").exists() && at("link").is_symlink());
    }
    #[test]
    fn a_tmp_that_is_a_link_and_what_is_mounted_below_it_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::create_dir(&real).unwrap();
        fs::write(real.join("theirs"), "").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let none = BTreeSet::new();
        let cleaned = clean(&link, &none, Duration::ZERO);
        let trouble = cleaned.trouble.unwrap_or_default();
        assert!(trouble.contains("link are not removed: it is a link"), "{trouble}");
        assert!(clean(&dir.path().join("missing"), &none, Duration::ZERO).trouble.is_none());

        let (opened, mut cleaned) = (open_dir(CWD, &real).unwrap(), Cleaned::default());
        let mut remove = |device| {
            let rules = Rules { before_s: u64::MAX, spared: &none, device };
            let entry = (&opened, c"theirs");
            remove_old(entry, &real.join("theirs"), &rules, DEPTH, &mut cleaned);
            real.join("theirs").exists()
        };
        let device = fstat(&opened).unwrap().st_dev;
        assert_eq!([remove(device + 1), remove(device)], [true, false]);
    }

    #[test]
    fn a_directory_that_is_swapped_for_a_link_leads_nowhere() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(outside.path(), dir.path().join("swapped")).unwrap();
        let opened = open_dir(CWD, dir.path()).unwrap();
        assert!(open_dir(&opened, c"swapped").is_err());
        assert!(open_dir(&opened, c".").is_ok());
    }
}

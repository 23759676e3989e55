//! `_persistent_paths`: what must outlive the releases of a plugin lies in
//! `var/data/NAME`, and each release has a link to it.
//!
//! The first release that declares a path moves what is there: what the current
//! release has made, else what the package brings. The current release then has
//! the link too, put there in the same step, so that its workers miss nothing.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use mfserv_core::{Diagnostic, Kind};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};

use mfserv_platform::disk;

/// What a release being made has put in the data directory; in the release.
pub(super) const JOURNAL: &str = ".mfserv-moving.json";
/// Parts of a release that can't be data.
const NEVER: &[&str] = &[
    "config.ini",
    "local",
    "node_modules",
    "python3_virtualenv_sources",
    "python2_virtualenv_sources",
    "package.json",
];
/// The ends of the names of a database of SQLite, and of what SQLite has beside it.
pub(crate) const COMPANIONS: [&str; 4] = ["", "-journal", "-wal", "-shm"];

/// To undo what an installation that did not succeed has put in the data directory.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Journal {
    /// Places where a link waits for what will be moved there.
    links: BTreeSet<PathBuf>,
    /// Made from the package, or empty: nobody has used it yet.
    made: BTreeSet<PathBuf>,
}

impl Journal {
    fn write(&self, release: &Path) -> Result<(), Diagnostic> {
        disk::write(&release.join(JOURNAL), &serde_json::to_vec(self).unwrap_or_default())
    }
}

/// Undoes what the release that is given up has put in the data directory.
pub(super) fn undo(release: &Path) {
    let Ok(text) = fs::read(release.join(JOURNAL)) else { return };
    let Ok(journal) = serde_json::from_slice::<Journal>(&text) else { return };
    for place in journal.links.iter().filter(|place| place.is_symlink()) {
        let _ = fs::remove_file(place);
    }
    for place in &journal.made {
        let _ = disk::remove(place);
    }
}

/// Links the declared paths of a new release to the data directory; `before` is
/// the release that is current, if there is one.
pub(super) fn link(
    release: &Path,
    before: Option<&Path>,
    data: &Path,
    declared: &[PathBuf],
) -> Result<(), Diagnostic> {
    let paths = checked(declared)?;
    let mut journal = Journal::default();
    for path in &paths {
        let place = data.join(path);
        let own = inside(release, path)?;
        place.parent().map_or(Ok(()), disk::create_dir)?;
        // a link there is what a move that died has left
        let mut there = fs::symlink_metadata(&place).is_ok_and(|found| !found.is_symlink());
        match before {
            Some(before) if there => adopt_below(release, before, path, data, &mut journal)?,
            Some(before) => there = adopt(release, before, path, data, &mut journal)?,
            None => {}
        }
        if !there {
            journal.made.insert(place.clone());
            journal.write(release)?;
            make(&own, &place)?;
        }
        disk::remove(&own)?;
        own.parent().map_or(Ok(()), disk::create_dir)?;
        symlink(&place, &own).map_err(|e| disk::failed("make the link", &own, e))?;
    }
    Ok(())
}

/// Refuses declared paths that can't be kept outside of a release, in which these are links.
pub fn check_persistent_paths(
    declared: &[PathBuf],
    is_link: &dyn Fn(&Path) -> bool,
) -> Result<(), Diagnostic> {
    checked(declared)?.iter().try_for_each(|path| leads_on(path, is_link))
}

/// The declared paths, without one in another and without parts of the release.
fn checked(declared: &[PathBuf]) -> Result<Vec<PathBuf>, Diagnostic> {
    let normal = |path: &PathBuf| -> PathBuf {
        path.components().filter(|part| matches!(part, Component::Normal(_))).collect()
    };
    let paths: Vec<PathBuf> = declared.iter().map(normal).collect();
    let refuse = |path: &Path, because: String| {
        Diagnostic::error(format!("_persistent_paths can't have {}", path.display()))
            .kind(Kind::BadConfiguration)
            .because(because)
            .help("name the files and directories in which the app keeps its data")
    };
    for (index, path) in paths.iter().enumerate() {
        let first = path.iter().next().unwrap_or_default().to_string_lossy();
        if NEVER.contains(&&*first) || (first.starts_with('.') && path.iter().count() == 1) {
            return Err(refuse(path, "it is a part of each release".into()));
        }
        let other =
            paths.iter().enumerate().find(|(at, other)| *at != index && path.starts_with(other));
        if let Some((_, other)) = other {
            return Err(refuse(path, format!("{} has it already", other.display())));
        }
    }
    Ok(paths)
}

/// The place of a path in a release, which no link of the release leads away from.
fn inside(release: &Path, path: &Path) -> Result<PathBuf, Diagnostic> {
    leads_on(path, &|part| release.join(part).is_symlink())?;
    Ok(release.join(path))
}

/// No directory above a path is a link.
fn leads_on(path: &Path, is_link: &dyn Fn(&Path) -> bool) -> Result<(), Diagnostic> {
    let mut above = path.ancestors().skip(1).filter(|dir| *dir != Path::new(""));
    above.find(|dir| is_link(dir)).map_or(Ok(()), |link| {
        Err(Diagnostic::error(format!("_persistent_paths can't have {}", path.display()))
            .kind(Kind::BadConfiguration)
            .because(format!("{} is a link", link.display())))
    })
}

/// Moves what the current release has at a path to the data directory, with what
/// SQLite has beside it. False if it has nothing there.
fn adopt(
    release: &Path,
    before: &Path,
    path: &Path,
    data: &Path,
    journal: &mut Journal,
) -> Result<bool, Diagnostic> {
    let Ok(old) = inside(before, path) else { return Ok(false) };
    let real = fs::symlink_metadata(&old).is_ok_and(|found| found.is_file() || found.is_dir());
    if !real {
        return Ok(false);
    }
    for companion in COMPANIONS.iter().rev() {
        let (old, place) = (with_suffix(&old, companion), with_suffix(&data.join(path), companion));
        if fs::symlink_metadata(&old).is_ok_and(|found| !found.is_symlink()) {
            journal.links.insert(place.clone());
            journal.write(release)?;
            exchange(&old, &place)?;
        }
    }
    Ok(true)
}

/// Moves what the current release has in a directory of which the data directory has only a part: paths
/// below it were declared before it was. What is in both is that of the data directory.
fn adopt_below(
    release: &Path,
    before: &Path,
    path: &Path,
    data: &Path,
    journal: &mut Journal,
) -> Result<(), Diagnostic> {
    let Ok(old) = inside(before, path) else { return Ok(()) };
    let is_dir = |dir: &Path| fs::symlink_metadata(dir).is_ok_and(|found| found.is_dir());
    if !is_dir(&old) || !is_dir(&data.join(path)) {
        return Ok(());
    }
    for entry in fs::read_dir(&old).map_err(|e| disk::failed("read", &old, e))?.flatten() {
        let name = entry.file_name();
        // They go where their database goes.
        let database = COMPANIONS[1..].iter().find_map(|end| name.to_str()?.strip_suffix(end));
        if database.is_some_and(|name| fs::symlink_metadata(old.join(name)).is_ok()) {
            continue;
        }
        let path = path.join(&name);
        match fs::symlink_metadata(data.join(&path)) {
            Ok(there) if there.is_dir() => adopt_below(release, before, &path, data, journal)?,
            Ok(there) if !there.is_symlink() => {}
            _ => drop(adopt(release, before, &path, data, journal)?),
        }
    }
    Ok(())
}

/// Moves `old` to `place` and leaves a link there, in one step where the file
/// system can: nobody who opens `old` meanwhile finds nothing.
fn exchange(old: &Path, place: &Path) -> Result<(), Diagnostic> {
    let failed = |e: io::Error| {
        let error =
            disk::failed("move the data", old, &e).because(format!("to {}", place.display()));
        match e.kind() {
            io::ErrorKind::CrossesDevices => {
                error.help("they are on two file systems: stop the plugin and move it by hand")
            }
            _ => error,
        }
    };
    disk::remove(place)?;
    symlink(place, place).map_err(failed)?;
    match renameat_with(CWD, old, CWD, place, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            fs::rename(old, place).and_then(|()| symlink(place, old)).map_err(failed)
        }
        Err(e) => {
            let _ = fs::remove_file(place);
            Err(failed(e.into()))
        }
    }
}

/// The first content of a path: what the package brings, else an empty directory;
/// nothing for a name with an extension, which is a file that the app makes.
fn make(own: &Path, place: &Path) -> Result<(), Diagnostic> {
    if place.is_symlink() {
        disk::remove(place)?;
    }
    if fs::symlink_metadata(own).is_ok_and(|found| found.is_file() || found.is_dir()) {
        return fs::rename(own, place).map_err(|e| disk::failed("move the data", own, e));
    }
    match place.extension() {
        None => disk::create_dir(place),
        Some(_) => Ok(()),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut text = path.as_os_str().to_owned();
    text.push(suffix);
    PathBuf::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(paths: &[&str]) -> Result<Vec<PathBuf>, Diagnostic> {
        checked(&paths.iter().map(PathBuf::from).collect::<Vec<_>>())
    }

    #[test]
    fn parts_of_a_release_and_paths_in_each_other_are_refused() {
        assert_eq!(check(&["./db.sqlite3", "a/media"]).unwrap()[0], Path::new("db.sqlite3"));
        for bad in
            [&["config.ini"][..], &["local/x"], &[".manifest.json"], &["a", "a/b"], &["a", "a"]]
        {
            assert_eq!(check(bad).unwrap_err().kind, Kind::BadConfiguration, "{bad:?}");
        }
    }

    #[test]
    fn what_is_moved_is_at_both_places_and_a_given_up_move_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let [old, new, data] = ["old", "new", "data"].map(|name| folder.path().join(name));
        for dir in [&old, &new, &data] {
            fs::create_dir(dir).unwrap();
        }
        fs::write(old.join("db.sqlite3"), "precious").unwrap();
        fs::write(old.join("db.sqlite3-wal"), "log").unwrap();
        fs::write(new.join("db.sqlite3"), "of the package").unwrap();
        let declared = ["db.sqlite3", "media", "x.db"].map(PathBuf::from);
        link(&new, Some(&old), &data, &declared).unwrap();
        for dir in [&old, &new, &data] {
            assert_eq!(fs::read_to_string(dir.join("db.sqlite3")).unwrap(), "precious");
        }
        assert_eq!(fs::read_to_string(old.join("db.sqlite3-wal")).unwrap(), "log");
        assert!(new.join("media").is_dir() && new.join("x.db").is_symlink());
        fs::write(new.join("x.db"), "made by the app").unwrap();
        assert!(data.join("x.db").is_file());
        undo(&new);
        assert_eq!(fs::read_to_string(data.join("db.sqlite3")).unwrap(), "precious");
        assert!(!data.join("media").exists());
    }

    #[test]
    fn a_directory_that_is_declared_after_a_file_in_it_has_the_others_of_the_current_release() {
        let folder = tempfile::tempdir().unwrap();
        let [old, new, data] = ["old", "new", "data"].map(|name| folder.path().join(name));
        fs::create_dir_all(old.join("in/deep")).unwrap();
        fs::create_dir_all(data.join("in/deep")).unwrap();
        fs::create_dir_all(new.join("in")).unwrap();
        for (file, text) in [
            ("data/in/app.db", "rows"),
            ("data/in/deep/a.db", "rows"),
            ("old/in/deep/a.db", "others"),
            ("old/in/deep/a.db-wal", "of others"),
            ("old/in/deep/b", "b"),
            ("old/in/c", "c"),
            ("new/in/c", "of the package"),
        ] {
            fs::write(folder.path().join(file), text).unwrap();
        }
        symlink(data.join("in/app.db"), old.join("in/app.db")).unwrap();
        link(&new, Some(&old), &data, &[PathBuf::from("in")]).unwrap();
        for (file, text) in [("app.db", "rows"), ("deep/a.db", "rows"), ("deep/b", "b"), ("c", "c")]
        {
            assert_eq!(fs::read_to_string(new.join("in").join(file)).unwrap(), text, "{file}");
        }
        assert!(!new.join("in/deep/a.db-wal").exists(), "the log is that of another database");
        assert_eq!(fs::read_to_string(old.join("in/deep/b")).unwrap(), "b");
        undo(&new);
        assert_eq!(fs::read_to_string(data.join("in/c")).unwrap(), "c");
    }
}

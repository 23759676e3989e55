//! Small file operations with errors that people understand.

mod lock;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use mfserv_core::Diagnostic;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use sha2::{Digest, Sha256};

pub use lock::Lock;

/// The error of an operation on a path.
pub fn failed(verb: &str, path: &Path, error: impl std::fmt::Display) -> Diagnostic {
    Diagnostic::error(format!("can't {verb} {}", path.display())).because(error)
}

/// Creates a directory and its parents.
pub fn create_dir(dir: &Path) -> Result<(), Diagnostic> {
    fs::create_dir_all(dir).map_err(|e| failed("create", dir, e))
}

/// True if nothing is at this path, not even a link that leads nowhere. What cannot be looked at
/// counts as there.
pub fn is_gone(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Removes whatever is at a path: file, link (not what it points to) or tree.
/// Nothing there is fine.
pub fn remove(path: &Path) -> Result<(), Diagnostic> {
    let result = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => return Ok(()),
    };
    result.map_err(|e| failed("remove", path, e))
}

/// Replaces a file in one step and returns when the new text survives a power cut:
/// readers see the old or the new text, never half of it. The permissions of the old file
/// are kept.
///
/// For what people or commands have decided and nothing can make again: configuration,
/// worker counts, the record of a release. It costs two waits for the disk (the text, then
/// the directory entry): a few milliseconds on a solid-state disk, tens on a busy rotating
/// one. A loop that must not wait uses [`replace`].
pub fn write(path: &Path, text: &[u8]) -> Result<(), Diagnostic> {
    write_or_create(path, 0o666, text)
}

/// The same; `mode`: the permissions of a file that was not there.
pub(crate) fn write_or_create(path: &Path, mode: u32, text: &[u8]) -> Result<(), Diagnostic> {
    sweep_beside(path);
    let old = fs::metadata(path).map(|old| old.permissions());
    let beside = beside(path, "new");
    let mode = if old.is_ok() { 0o600 } else { mode };
    let written = create(&beside, mode, text).and_then(|file| {
        if let Ok(permissions) = old {
            file.set_permissions(permissions)?;
        }
        file.sync_data()?;
        fs::rename(&beside, path)?;
        sync_directory_of(path)
    });
    written.map_err(|e| {
        let _ = fs::remove_file(&beside);
        failed("write", path, e)
    })
}

/// Replaces a file in one step without waiting for the disk. A process that is killed
/// leaves the old or the new text; a power cut may leave the old one, or an empty file.
///
/// For state that one process writes often and that a boot makes worthless or another
/// start makes again: `keeper.json`, `watchers.json`, `plan.json`, `var/status`. Only one
/// process may write a path so: the file beside it has a fixed name, which the next writer
/// takes over from one that was killed.
pub fn replace(path: &Path, mode: u32, text: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.new"));
    let _ = fs::remove_file(&beside);
    create(&beside, mode, text).and_then(|_| fs::rename(&beside, path)).inspect_err(|_| {
        let _ = fs::remove_file(&beside);
    })
}

fn create(path: &Path, mode: u32, text: &[u8]) -> io::Result<fs::File> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text)?;
    Ok(file)
}

/// Makes the entries of a file's directory survive a power cut.
fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|it| !it.as_os_str().is_empty());
    fs::File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// Makes `link` point to `target`, in place of whatever file or link was there. It is not
/// synced.
pub fn relink(link: &Path, target: &Path) -> Result<(), Diagnostic> {
    sweep_beside(link);
    let beside = beside(link, "new");
    let _ = fs::remove_file(&beside);
    std::os::unix::fs::symlink(target, &beside).and_then(|()| fs::rename(&beside, link)).map_err(
        |e| {
            let _ = fs::remove_file(&beside);
            failed("make the link", link, e)
        },
    )
}

/// Puts the directory `stage` at `place` in one step; what was there is removed
/// afterwards.
pub fn swap_in(stage: &Path, place: &Path) -> Result<(), Diagnostic> {
    if fs::symlink_metadata(place).is_err() {
        return fs::rename(stage, place).map_err(|e| failed("create", place, e));
    }
    match renameat_with(CWD, stage, CWD, place, RenameFlags::EXCHANGE) {
        Ok(()) => remove(stage),
        // a file system that can not exchange: two renames
        Err(_) => {
            let old = beside(place, "old");
            remove(&old)?;
            fs::rename(place, &old)
                .and_then(|()| fs::rename(stage, place))
                .map_err(|e| failed("replace", place, e))?;
            remove(&old)
        }
    }
}

/// A hidden path in the same directory, that nobody else uses.
pub fn beside(path: &Path, what: &str) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let name = name.trim_start_matches('.');
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".{name}.{what}.{}.{count}", std::process::id()))
}

/// Removes what an operation that died has left beside `path` (see [`beside`]):
/// entries whose process has ended.
pub fn sweep_beside(path: &Path) {
    let Some((parent, name)) = path.parent().zip(path.file_name()) else { return };
    let name = name.to_string_lossy();
    sweep(parent, |beside| beside == name.trim_start_matches('.'));
}

/// The same, beside anything in a directory.
pub fn sweep_in(dir: &Path) {
    sweep(dir, |_| true);
}

fn sweep(dir: &Path, of: impl Fn(&str) -> bool) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let file_name = entry.file_name();
        let Some((name, pid)) = file_name.to_str().and_then(read_beside) else { continue };
        if of(name) && !Path::new(&format!("/proc/{pid}")).exists() {
            let _ = remove(&entry.path());
        }
    }
}

/// A name that [`beside`] has made: beside what, and by which process.
fn read_beside(name: &str) -> Option<(&str, u32)> {
    let mut parts = name.strip_prefix('.')?.rsplitn(4, '.');
    let (count, pid, what) = (parts.next()?, parts.next()?, parts.next()?);
    let name = parts.next()?;
    let ours = ["new", "old", "stage"].contains(&what) && count.parse::<u64>().is_ok();
    Some((name, pid.parse().ok()?)).filter(|_| ours)
}

/// What is called so is not finished, or about to be removed.
pub fn is_beside(name: &std::ffi::OsStr) -> bool {
    name.to_str().and_then(read_beside).is_some()
}

/// What stays free on a disk that we write to, bytes.
const SPARE: u64 = 32 * 1024 * 1024;

/// Refuses if the file system of a directory has not this room, bytes and files.
pub fn check_room(dir: &Path, bytes: u64, files: u64) -> Result<(), Diagnostic> {
    let room = rustix::fs::statvfs(dir).map_err(|e| failed("read", dir, e))?;
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    // some file systems do not count their files
    let counted = room.f_files > 0;
    if free >= bytes.saturating_add(SPARE) && (!counted || room.f_favail >= files) {
        return Ok(());
    }
    let (wanted, there) = (bytes.saturating_add(SPARE) >> 20, free >> 20);
    Err(Diagnostic::error("not enough room on the disk")
        .because(format!(
            "{wanted} MiB and {files} files are needed, and {there} MiB and {} files are free",
            room.f_favail
        ))
        .help(format!("make room on the file system of {}", dir.display())))
}

/// What is free on the file system of a directory, bytes.
pub fn free_bytes(dir: &Path) -> Option<u64> {
    let room = rustix::fs::statvfs(dir).ok()?;
    Some(room.f_bavail.saturating_mul(room.f_frsize))
}

/// Bytes as hexadecimal text.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The SHA-256 of several named parts; the names and lengths count, so that no
/// two different lists agree.
pub fn fingerprint<'a>(parts: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut hash = Sha256::new();
    for (name, bytes) in parts {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    }
    hex(&hash.finalize())
}

/// The files of a program, as a part of the node sees them: a test can play a disk that is full
/// or empty.
pub trait Disk: Send + Sync {
    /// The bytes of a file.
    ///
    /// # Errors
    /// `NotFound` if there is none; what the operating system says otherwise.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Replaces a file whole, see [`replace`].
    ///
    /// # Errors
    /// What the operating system says; then the file is as it was.
    fn replace(&self, path: &Path, mode: u32, text: &[u8]) -> io::Result<()>;

    /// Replaces a file whole, and returns when it survives a power cut, see [`write`].
    ///
    /// # Errors
    /// What the operating system says, with the path.
    fn write(&self, path: &Path, text: &[u8]) -> Result<(), Diagnostic>;
}

/// The disk of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn replace(&self, path: &Path, mode: u32, text: &[u8]) -> io::Result<()> {
        replace(path, mode, text)
    }

    fn write(&self, path: &Path, text: &[u8]) -> Result<(), Diagnostic> {
        write(path, text)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use mfserv_core::Kind;

    use super::*;

    #[test]
    fn what_a_dead_process_has_left_beside_is_swept_and_what_a_living_one_makes_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("local");
        let mine = beside(&place, "stage");
        // no process has a number as large as this
        let dead = folder.path().join(".local.stage.4999999.0");
        let other = folder.path().join(".local.notes.4999999.0");
        for dir in [&mine, &dead, &other] {
            fs::create_dir(dir).unwrap();
        }
        sweep_beside(&place);
        assert!(mine.exists() && other.exists() && !dead.exists());
    }

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_written_file_replaces_the_old_one_keeps_its_permissions_and_leaves_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.ini");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).unwrap();
        // left by a writer that was killed
        fs::write(folder.path().join(".config.ini.new.4999999.0"), "half").unwrap();
        write(&path, b"new").unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode_of(&path)), ("new", 0o660));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_reader_sees_the_old_or_the_new_text_whole_while_a_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        for durable in [true, false] {
            let path = folder.path().join("state");
            let texts = [vec![b'a'; 100_000], vec![b'b'; 50_000]];
            fs::write(&path, &texts[0]).unwrap();
            std::thread::scope(|scope| {
                let writer = scope.spawn(|| {
                    for text in texts.iter().cycle().take(40) {
                        match durable {
                            true => write(&path, text).unwrap(),
                            false => replace(&path, 0o600, text).unwrap(),
                        }
                    }
                });
                while !writer.is_finished() {
                    assert!(texts.contains(&fs::read(&path).unwrap()));
                }
            });
        }
    }

    #[test]
    fn a_replaced_file_takes_over_what_a_killed_writer_left_and_its_own_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keeper.json");
        fs::write(folder.path().join(".keeper.json.new"), "half of a longer text").unwrap();
        replace(&path, 0o600, b"whole").unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode_of(&path)), ("whole", 0o600));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_renamed_into_place_leaves_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a directory");
        fs::create_dir_all(path.join("that is not empty")).unwrap();
        assert!(write(&path, b"new").is_err());
        assert!(replace(&path, 0o600, b"new").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_is_replaced_in_one_step_and_a_link_too() {
        let folder = tempfile::tempdir().unwrap();
        let (stage, place, link) =
            (folder.path().join("a"), folder.path().join("b"), folder.path().join("c"));
        for (dir, text) in [(&stage, "new"), (&place, "old")] {
            fs::create_dir(dir).unwrap();
            fs::write(dir.join("x"), text).unwrap();
        }
        swap_in(&stage, &place).unwrap();
        assert_eq!(fs::read_to_string(place.join("x")).unwrap(), "new");
        relink(&link, Path::new("a")).unwrap();
        relink(&link, Path::new("b")).unwrap();
        assert_eq!(fs::read_to_string(link.join("x")).unwrap(), "new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_lock_is_refused_while_another_holds_it_and_free_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lock");
        let held = Lock::take(&file, "it").unwrap();
        assert_eq!(Lock::take(&file, "it").unwrap_err().kind, Kind::Refused);
        drop(held);
        Lock::take(&file, "it").unwrap();
    }
}

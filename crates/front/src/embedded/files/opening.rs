//! Opening what lies at a place, without ever waiting for anything but a disk, and
//! without touching what is no ordinary file.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use mfserv_core::route::Symlinks;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2};
use rustix::io::Errno;

/// Lookups that a rename disturbs are tried again so often.
const TRIES: usize = 8;

/// A file as it was when it was looked at: whatever changes its content changes this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    device: u64,
    inode: u64,
    /// Its length, bytes.
    pub length: u64,
    /// When it was last written: Unix time, seconds…
    pub modified: i64,
    /// …and nanoseconds.
    pub modified_ns: u32,
}

impl Version {
    /// None where the file has no name any more: it was deleted, or another one has
    /// been put in its place.
    pub fn of(file: &OwnedFd) -> rustix::io::Result<Option<Self>> {
        let stat = fstat(file)?;
        Ok((stat.st_nlink > 0).then(|| Self::from_stat(&stat)))
    }

    fn from_stat(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            length: u64::try_from(stat.st_size).unwrap_or(0),
            modified: stat.st_mtime,
            modified_ns: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        }
    }
}

/// What lies at a place.
#[derive(Debug)]
pub enum Found {
    /// An ordinary file, open for reading.
    File(OwnedFd, Version),
    /// A directory.
    Directory,
    /// Nothing.
    Nothing,
    /// Something that is not to be read: by its permissions, by where a link leads, or
    /// because it is a device, a pipe, a socket.
    Forbidden,
}

/// How much an opening may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Only what the system has in memory; `EAGAIN` says that the disk is needed.
    Memory,
    /// The disk may be waited for.
    Disk,
}

/// Opens what lies below `root` at `relative` (see [`super::resolve_path`]). It is looked at
/// before it is opened: opening a pipe or a device would already do something.
pub fn open(
    root: &Path,
    relative: &str,
    symlinks: Symlinks,
    effort: Effort,
) -> rustix::io::Result<Found> {
    let mut result = Err(Errno::AGAIN);
    for _ in 0..TRIES {
        result = match symlinks {
            Symlinks::Follow => Way { dir: CWD, beneath: false, effort }.look(&root.join(relative)),
            Symlinks::Beneath => beneath(root, relative, effort),
        };
        if effort == Effort::Memory || !matches!(result, Err(Errno::AGAIN)) {
            break;
        }
    }
    match result {
        Ok(found) => Ok(found),
        // A system without RESOLVE_CACHED, or a cage that refuses the call (some say so
        // with the error for a file that is not to be read: the other road tells them apart).
        Err(Errno::INVAL | Errno::NOSYS | Errno::PERM) if effort == Effort::Memory => {
            Err(Errno::AGAIN)
        }
        Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::LOOP) => Ok(Found::Nothing),
        Err(Errno::ACCESS | Errno::PERM | Errno::XDEV) => Ok(Found::Forbidden),
        Err(why) => Err(why),
    }
}

fn beneath(root: &Path, relative: &str, effort: Effort) -> rustix::io::Result<Found> {
    let to_root = Way { dir: CWD, beneath: false, effort };
    let dir = to_root.open(root, OFlags::PATH | OFlags::DIRECTORY)?;
    let relative = if relative.is_empty() { "." } else { relative };
    Way { dir: dir.as_fd(), beneath: true, effort }.look(Path::new(relative))
}

/// From where, and how, a path is walked.
struct Way<'a> {
    dir: BorrowedFd<'a>,
    beneath: bool,
    effort: Effort,
}

impl Way<'_> {
    fn look(&self, path: &Path) -> rustix::io::Result<Found> {
        let shown = fstat(self.open(path, OFlags::PATH)?)?;
        match FileType::from_raw_mode(shown.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return Ok(Found::Directory),
            _ => return Ok(Found::Forbidden),
        }
        // Meanwhile something else may lie there: nothing is waited for.
        let file = self.open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        let stat = fstat(&file)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(Found::File(file, Version::from_stat(&stat))),
            _ => Ok(Found::Forbidden),
        }
    }

    fn open(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        let mut resolve = ResolveFlags::NO_MAGICLINKS;
        resolve.set(ResolveFlags::BENEATH, self.beneath);
        resolve.set(ResolveFlags::CACHED, self.effort == Effort::Memory);
        match openat2(self.dir, path, flags, Mode::empty(), resolve) {
            // Older systems, and cages that do not know the call.
            Err(Errno::NOSYS | Errno::PERM) if !self.beneath && self.effort == Effort::Disk => {
                openat(self.dir, path, flags, Mode::empty())
            }
            done => done,
        }
    }
}

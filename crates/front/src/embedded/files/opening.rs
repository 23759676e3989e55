//! Opening files: it waits for nothing but a disk, and opens nothing but ordinary files.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use mfserv_core::route::Symlinks;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2};
use rustix::io::Errno;

/// How often a look-up that a rename disturbs is tried.
const TRIES: usize = 8;

/// The identity of a file's content: whatever changes the content changes this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version {
    device: u64,
    inode: u64,
    /// Its length, bytes.
    pub length: u64,
    /// When it was last written: Unix time, seconds…
    pub modified: i64,
    /// …and nanoseconds.
    pub modified_ns: u32,
    /// When anything of it was last changed: its content, also where the time above was set back.
    changed: (i64, u32),
}

impl Version {
    /// `None` if the file has no name any more: it was deleted, or another file has been
    /// renamed to its name.
    pub fn of(file: &OwnedFd) -> rustix::io::Result<Option<Self>> {
        let stat = fstat(file)?;
        Ok((stat.st_nlink > 0).then(|| Self::from_stat(&stat)))
    }

    /// The version of what was made of it.
    pub fn with_length(self, length: u64) -> Self {
        Self { length, ..self }
    }

    /// When anything of it was last changed, Unix time.
    pub fn changed_at(&self) -> i64 {
        self.changed.0
    }

    fn from_stat(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            length: u64::try_from(stat.st_size).unwrap_or(0),
            modified: stat.st_mtime,
            modified_ns: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            changed: (stat.st_ctime, u32::try_from(stat.st_ctime_nsec).unwrap_or(0)),
        }
    }
}

/// What a path leads to.
#[derive(Debug)]
pub enum Found {
    /// An ordinary file, open for reading.
    File(OwnedFd, Version),
    /// A directory.
    Directory,
    /// Nothing.
    Nothing,
    /// Something that must not be read: its permissions forbid it, a link leads out of the
    /// root, or it is a device, a pipe or a socket.
    Forbidden,
}

/// What opening a file may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Memory only; `EAGAIN` means that the disk is needed.
    Memory,
    /// It may wait for the disk.
    Disk,
}

/// Opens the file at `relative` below `root` (see [`super::resolve_path`]). Its type is
/// looked at before it is opened, because opening a pipe or a device has effects.
pub fn open(
    root: &Path,
    relative: &str,
    symlinks: Symlinks,
    effort: Effort,
) -> rustix::io::Result<Found> {
    let mut result = Err(Errno::AGAIN);
    for _ in 0..TRIES {
        result = match symlinks {
            Symlinks::Follow => {
                Resolver { dir: CWD, beneath: false, effort }.look(&root.join(relative))
            }
            Symlinks::Beneath => beneath(root, relative, effort),
        };
        if effort == Effort::Memory || !matches!(result, Err(Errno::AGAIN)) {
            break;
        }
    }
    match result {
        Ok(found) => Ok(found),
        // A system without RESOLVE_CACHED, or a sandbox that refuses the call. Some sandboxes
        // give the error of a file that must not be read; the try with the disk tells the
        // two apart.
        Err(Errno::INVAL | Errno::NOSYS | Errno::PERM) if effort == Effort::Memory => {
            Err(Errno::AGAIN)
        }
        Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::LOOP) => Ok(Found::Nothing),
        Err(Errno::ACCESS | Errno::PERM | Errno::XDEV) => Ok(Found::Forbidden),
        Err(why) => Err(why),
    }
}

fn beneath(root: &Path, relative: &str, effort: Effort) -> rustix::io::Result<Found> {
    let to_root = Resolver { dir: CWD, beneath: false, effort };
    let dir = to_root.open(root, OFlags::PATH | OFlags::DIRECTORY)?;
    let relative = if relative.is_empty() { "." } else { relative };
    Resolver { dir: dir.as_fd(), beneath: true, effort }.look(Path::new(relative))
}

/// From where, and how, a path is resolved.
struct Resolver<'a> {
    dir: BorrowedFd<'a>,
    beneath: bool,
    effort: Effort,
}

impl Resolver<'_> {
    fn look(&self, path: &Path) -> rustix::io::Result<Found> {
        let shown = fstat(self.open(path, OFlags::PATH)?)?;
        match FileType::from_raw_mode(shown.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return Ok(Found::Directory),
            _ => return Ok(Found::Forbidden),
        }
        // Something else may be there by now, for example a pipe: opening does not wait.
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
            // Older systems, and sandboxes that do not know the call.
            Err(Errno::NOSYS | Errno::PERM) if !self.beneath && self.effort == Effort::Disk => {
                openat(self.dir, path, flags, Mode::empty())
            }
            done => done,
        }
    }
}

//! Notification of changed files: inotify, and polling for the directories that inotify has no
//! room for.
//!
//! A file counts as changed when its writer closes it, so that a half-written file is not taken
//! for the new one, and when it is created, removed or renamed.

mod polling;

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use mfserv_core::Diagnostic;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::net::unix::pipe::Receiver;

use polling::PolledDirectories;

/// The bytes that are read from the kernel at once. The kernel queues up to 16,384 events.
const BATCH: usize = 64 * 1024;

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A file, or a link.
    File(PathBuf),
    /// A directory was created or moved here, with its content. It is not watched yet.
    DirectoryAdded(PathBuf),
    /// A directory was removed or moved away, with its content.
    DirectoryRemoved(PathBuf),
    /// Events were lost: any file may have changed.
    Unknown,
}

/// What of a watched directory is reported, and by which path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    /// All of it.
    Directory(PathBuf),
    /// One entry of it, to which `link` leads.
    Entry { entry: OsString, link: PathBuf },
}

impl Name {
    fn path(&self) -> &Path {
        match self {
            Name::Directory(path) => path,
            Name::Entry { link, .. } => link,
        }
    }

    /// A directory that was moved away has another name since.
    fn is_stale(&self, dir: &Path) -> bool {
        let same = |path: &Path| {
            let (one, other) = (std::fs::metadata(path).ok()?, std::fs::metadata(dir).ok()?);
            Some((one.dev(), one.ino()) == (other.dev(), other.ino()))
        };
        matches!(self, Name::Directory(path) if same(path) != Some(true))
    }
}

/// Watches directories, each without its subdirectories.
pub struct FileWatch {
    /// A descriptor that becomes readable; tokio treats it as a pipe.
    inotify: Option<Receiver>,
    batch: Vec<u8>,
    /// What each watch of the kernel reports. It has one for each directory, and two plugins may
    /// have links to the same one.
    names: HashMap<i32, Vec<Name>>,
    watches: BTreeMap<PathBuf, i32>,
    polled: PolledDirectories,
    /// Why inotify refused the last directory that is polled instead.
    no_room: Option<Errno>,
    /// The shortage was reported.
    reported: bool,
    /// The number of directories that are neither watched nor polled.
    unseen: usize,
}

impl FileWatch {
    /// Watches nothing yet.
    pub fn new() -> FileWatch {
        let opened = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC);
        let no_room = opened.as_ref().err().copied();
        FileWatch {
            inotify: opened.ok().and_then(|fd| Receiver::from_owned_fd_unchecked(fd).ok()),
            batch: Vec::new(),
            names: HashMap::new(),
            watches: BTreeMap::new(),
            polled: PolledDirectories::default(),
            no_room,
            reported: false,
            unseen: 0,
        }
    }

    /// Starts to watch a directory, also by the path of a link to it. A directory that does not
    /// exist is ignored.
    pub fn watch(&mut self, dir: &Path) {
        self.add(dir, Name::Directory(dir.to_owned()));
    }

    /// Watches the file that a link leads to; a change of it is reported as one of the link.
    pub fn watch_file(&mut self, target: &Path, link: &Path) {
        if let (Some(dir), Some(entry)) = (target.parent(), target.file_name()) {
            let name = Name::Entry { entry: entry.to_owned(), link: link.to_owned() };
            self.add(dir, name);
        }
    }

    fn add(&mut self, dir: &Path, name: Name) {
        let path = name.path().to_owned();
        if self.watches.contains_key(&path) || self.polled.has(&path) {
            return;
        }
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR
            | WatchFlags::EXCL_UNLINK;
        let added = match &self.inotify {
            Some(inotify) => inotify::add_watch(inotify, dir, flags),
            None => Err(Errno::MFILE),
        };
        match added {
            Ok(number) => {
                let names = self.names.entry(number).or_default();
                let (stale, kept) =
                    std::mem::take(names).into_iter().partition(|n| n.is_stale(dir));
                *names = kept;
                names.push(name);
                let stale: Vec<Name> = stale;
                self.watches.retain(|path, _| !stale.iter().any(|name| name.path() == path));
                self.watches.insert(path, number);
            }
            Err(why @ (Errno::NOSPC | Errno::MFILE | Errno::NOMEM)) => {
                self.no_room = Some(why);
                // A file behind a link is not polled.
                let seen = matches!(name, Name::Directory(_)) && self.polled.add(dir);
                self.unseen += usize::from(!seen);
            }
            // The directory was removed meanwhile, or cannot be read.
            Err(_) => {}
        }
    }

    /// Stops watching a directory and the directories below it.
    pub fn unwatch_below(&mut self, dir: &Path) {
        let below: Vec<PathBuf> = self
            .watches
            .range(dir.to_owned()..)
            .map(|(path, _)| path)
            .take_while(|path| path.as_os_str().as_bytes().starts_with(dir.as_os_str().as_bytes()))
            .filter(|path| path.starts_with(dir))
            .cloned()
            .collect();
        for path in below {
            let Some(number) = self.watches.remove(&path) else { continue };
            let names = self.names.entry(number).or_default();
            names.retain(|name| name.path() != path);
            if !names.is_empty() {
                continue;
            }
            self.names.remove(&number);
            if let Some(inotify) = &self.inotify {
                // An error means that the kernel has removed the watch with its directory.
                let _ = inotify::remove_watch(inotify, number);
            }
        }
        self.polled.remove_below(dir);
    }

    /// Waits for changes. Cancel-safe.
    pub async fn next(&mut self) -> Vec<Change> {
        loop {
            let mut changes = tokio::select! {
                ready = readable(self.inotify.as_ref()) => match ready {
                    true => self.read(),
                    false => vec![self.without_inotify()],
                },
                () = tokio::time::sleep_until(self.polled.next()) => self.polled.poll(),
            };
            changes.dedup();
            if !changes.is_empty() {
                return changes;
            }
        }
    }

    /// Reads one batch of events.
    fn read(&mut self) -> Vec<Change> {
        let mut batch = std::mem::take(&mut self.batch);
        batch.resize(BATCH, 0);
        let read = self.inotify.as_ref().map(|inotify| inotify.try_read(&mut batch));
        let changes = match read {
            Some(Ok(length)) => {
                let events = events(&batch[..length]);
                events.flat_map(|event| self.understand(&event)).collect()
            }
            Some(Err(error)) if error.kind() != std::io::ErrorKind::WouldBlock => {
                vec![self.without_inotify()]
            }
            _ => Vec::new(),
        };
        self.batch = batch;
        changes
    }

    /// The changes that an event is: one for each name of its directory.
    fn understand(&mut self, event: &Event<'_>) -> Vec<Change> {
        if event.what.contains(ReadFlags::QUEUE_OVERFLOW) {
            return vec![Change::Unknown];
        }
        let names = self.names.get(&event.watch).cloned().unwrap_or_default();
        if event.what.contains(ReadFlags::IGNORED) {
            self.names.remove(&event.watch);
            for name in names {
                self.watches.remove(name.path());
            }
            return Vec::new();
        }
        names.into_iter().filter_map(|name| self.change(event, name)).collect()
    }

    fn change(&mut self, event: &Event<'_>, name: Name) -> Option<Change> {
        let (what, of) = (event.what, OsStr::from_bytes(event.name));
        let own_end = ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT;
        let path = match name {
            Name::Directory(dir) if of.is_empty() => dir,
            Name::Directory(dir) => dir.join(of),
            Name::Entry { link, .. } if what.intersects(own_end) => {
                // What has its name afterwards is another directory.
                self.unwatch_below(&link);
                return Some(Change::File(link));
            }
            Name::Entry { entry, link } => return (entry == of).then_some(Change::File(link)),
        };
        let gone = ReadFlags::DELETE | ReadFlags::MOVED_FROM;
        if what.intersects(own_end) || what.contains(ReadFlags::ISDIR) && what.intersects(gone) {
            // The kernel goes on reporting a directory that was moved away.
            self.unwatch_below(&path);
            return Some(Change::DirectoryRemoved(path));
        }
        Some(match what.contains(ReadFlags::ISDIR) {
            true => Change::DirectoryAdded(path),
            false => Change::File(path),
        })
    }

    /// The inotify descriptor has failed: every directory is polled from now on.
    fn without_inotify(&mut self) -> Change {
        self.inotify = None;
        for dir in std::mem::take(&mut self.watches).into_keys() {
            self.unseen += usize::from(!self.polled.add(&dir));
        }
        self.names.clear();
        Change::Unknown
    }

    /// Whether inotify had no room for some directories.
    pub fn is_short(&self) -> bool {
        self.polled.len() + self.unseen > 0
    }

    /// Stops watching every directory.
    pub fn clear(&mut self) {
        self.unwatch_below(Path::new("/"));
        self.unseen = 0;
    }

    /// The warning that inotify has no room; returned once for as long as the shortage lasts.
    pub fn shortage(&mut self) -> Option<Diagnostic> {
        self.reported &= self.is_short();
        let why = self.no_room.take().filter(|_| self.is_short())?;
        if std::mem::replace(&mut self.reported, true) {
            return None;
        }
        let (limit, name) = match why {
            Errno::MFILE => ("instances", "fs.inotify.max_user_instances"),
            _ => ("watches", "fs.inotify.max_user_watches"),
        };
        let allowed = std::fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/")));
        let allowed = allowed.map(|n| n.trim().to_string()).unwrap_or_else(|_| "unknown".into());
        let polled = self.polled.len();
        let mut problem = Diagnostic::warning("changed files may be seen late")
            .because(format!(
                "inotify has no {limit} left for this user ({name} is {allowed}): {polled} \
                 directories are polled each second instead"
            ))
            .help(format!(
                "raise it (`sysctl -w {name}=524288`, and in /etc/sysctl.d), or name what need \
                 not be watched in .autorestart_excludes; then `mfserv reload`"
            ));
        if self.unseen > 0 {
            problem = problem.because(format!("{} more are not watched at all", self.unseen));
        }
        Some(problem)
    }
}

/// Waits until an event can be read; false if the descriptor has failed.
async fn readable(inotify: Option<&Receiver>) -> bool {
    match inotify {
        Some(inotify) => inotify.readable().await.is_ok(),
        None => std::future::pending().await,
    }
}

/// An event of the kernel: `struct inotify_event`.
struct Event<'a> {
    watch: i32,
    what: ReadFlags,
    name: &'a [u8],
}

/// The events in a batch: each is four numbers (watch, mask, cookie, length of the name) and the
/// name, padded with NULs.
fn events(mut batch: &[u8]) -> impl Iterator<Item = Event<'_>> {
    std::iter::from_fn(move || {
        let (numbers, rest) = batch.split_at_checked(16)?;
        let number = |at: usize| -> Option<u32> {
            Some(u32::from_ne_bytes(numbers.get(at..at + 4)?.try_into().ok()?))
        };
        let (name, rest) = rest.split_at_checked(number(12)? as usize)?;
        batch = rest;
        let length = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        Some(Event {
            watch: number(0)? as i32,
            what: ReadFlags::from_bits_retain(number(4)?),
            name: &name[..length],
        })
    })
}

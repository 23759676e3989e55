//! Directories whose changes are told: by inotify, and where that has no room, by
//! looking at them again and again.
//!
//! A file counts as changed when it is closed by who wrote it, so that no half of a file
//! is taken for the new one; and when it comes, goes or is renamed.

mod look;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use mfserv_core::Diagnostic;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::net::unix::pipe::Receiver;

use look::Looking;

/// What is taken from the kernel at a time, bytes; it keeps 16,384 events by itself.
const BATCH: usize = 64 * 1024;

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A file, or a link.
    File(PathBuf),
    /// A directory has come, with what is in it. It is not watched yet.
    DirectoryCame(PathBuf),
    /// A directory has gone, with what was in it.
    DirectoryGone(PathBuf),
    /// More than can be told: anything may have changed.
    Anything,
}

/// Watches directories, each without what is below it.
pub struct FileWatch {
    /// For the event loop it is a pipe: a descriptor that becomes readable.
    inotify: Option<Receiver>,
    batch: Vec<u8>,
    paths: HashMap<i32, PathBuf>,
    watches: BTreeMap<PathBuf, i32>,
    looking: Looking,
    /// Why some directories are looked at instead, the last time that it happened.
    no_room: Option<Errno>,
    /// That has been said.
    said: bool,
    /// Directories that are neither watched nor looked at.
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
            paths: HashMap::new(),
            watches: BTreeMap::new(),
            looking: Looking::default(),
            no_room,
            said: false,
            unseen: 0,
        }
    }

    /// Watches a directory from now on. One that does not exist is left out.
    pub fn watch(&mut self, dir: &Path) {
        if self.watches.contains_key(dir) || self.looking.has(dir) {
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
                // The kernel knows it by another name, which is of no use any more.
                if let Some(old) = self.paths.insert(number, dir.to_owned()) {
                    self.watches.remove(&old);
                }
                self.watches.insert(dir.to_owned(), number);
            }
            Err(why @ (Errno::NOSPC | Errno::MFILE | Errno::NOMEM)) => {
                self.no_room = Some(why);
                self.unseen += usize::from(!self.looking.add(dir));
            }
            // It has gone again, or cannot be read.
            Err(_) => {}
        }
    }

    /// Watches a directory and what is below it no longer.
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
            self.paths.remove(&number);
            if let Some(inotify) = &self.inotify {
                // It goes by itself with its directory.
                let _ = inotify::remove_watch(inotify, number);
            }
        }
        self.looking.remove_below(dir);
    }

    /// Waits for changes. Nothing is lost if the wait is given up.
    pub async fn next(&mut self) -> Vec<Change> {
        loop {
            let mut changes = tokio::select! {
                ready = readable(self.inotify.as_ref()) => match ready {
                    true => self.read(),
                    false => vec![self.without_inotify()],
                },
                () = tokio::time::sleep_until(self.looking.next()) => self.looking.look(),
            };
            changes.dedup();
            if !changes.is_empty() {
                return changes;
            }
        }
    }

    /// Takes what the kernel has to tell now, at most one batch.
    fn read(&mut self) -> Vec<Change> {
        let mut batch = std::mem::take(&mut self.batch);
        batch.resize(BATCH, 0);
        let read = self.inotify.as_ref().map(|inotify| inotify.try_read(&mut batch));
        let changes = match read {
            Some(Ok(length)) => events(&batch[..length])
                .filter_map(|event| {
                    let path =
                        self.paths.get(&event.watch).map(|dir| match event.name.is_empty() {
                            true => dir.clone(),
                            false => dir.join(OsStr::from_bytes(event.name)),
                        });
                    self.understand(event.watch, event.what, path)
                })
                .collect(),
            Some(Err(error)) if error.kind() != std::io::ErrorKind::WouldBlock => {
                vec![self.without_inotify()]
            }
            _ => Vec::new(),
        };
        self.batch = batch;
        changes
    }

    fn understand(
        &mut self,
        number: i32,
        what: ReadFlags,
        path: Option<PathBuf>,
    ) -> Option<Change> {
        if what.contains(ReadFlags::QUEUE_OVERFLOW) {
            return Some(Change::Anything);
        }
        let path = path?;
        if what.contains(ReadFlags::IGNORED) {
            self.paths.remove(&number);
            self.watches.remove(&path);
            return None;
        }
        let gone = ReadFlags::DELETE | ReadFlags::MOVED_FROM;
        let own_end = ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT;
        if what.intersects(own_end) || what.contains(ReadFlags::ISDIR) && what.intersects(gone) {
            // What is moved away is not ours any more, although the kernel goes on telling.
            self.unwatch_below(&path);
            return Some(Change::DirectoryGone(path));
        }
        Some(match what.contains(ReadFlags::ISDIR) {
            true => Change::DirectoryCame(path),
            false => Change::File(path),
        })
    }

    /// The kernel has taken it back: nobody has seen that, but then all is looked at.
    fn without_inotify(&mut self) -> Change {
        self.inotify = None;
        for dir in std::mem::take(&mut self.watches).into_keys() {
            self.unseen += usize::from(!self.looking.add(&dir));
        }
        self.paths.clear();
        Change::Anything
    }

    /// inotify had no room for some directories.
    pub fn is_short(&self) -> bool {
        self.looking.len() + self.unseen > 0
    }

    /// Watches nothing any more.
    pub fn clear(&mut self) {
        self.unwatch_below(Path::new("/"));
        self.unseen = 0;
    }

    /// What people must know when inotify has no room; said once for as long as that lasts.
    pub fn shortage(&mut self) -> Option<Diagnostic> {
        self.said &= self.is_short();
        let why = self.no_room.take().filter(|_| self.is_short())?;
        if std::mem::replace(&mut self.said, true) {
            return None;
        }
        let (limit, name) = match why {
            Errno::MFILE => ("instances", "fs.inotify.max_user_instances"),
            _ => ("watches", "fs.inotify.max_user_watches"),
        };
        let allowed = std::fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/")));
        let allowed = allowed.map(|n| n.trim().to_string()).unwrap_or_else(|_| "unknown".into());
        let looked = self.looking.len();
        let mut problem = Diagnostic::warning("changed files may be seen late")
            .because(format!(
                "inotify has no {limit} left for this user ({name} is {allowed}): {looked} \
                 directories are looked at each second instead"
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

/// True once there is something to read; false when that cannot be known any more.
async fn readable(inotify: Option<&Receiver>) -> bool {
    match inotify {
        Some(inotify) => inotify.readable().await.is_ok(),
        None => std::future::pending().await,
    }
}

/// What the kernel tells of a watch: `struct inotify_event`.
struct Event<'a> {
    watch: i32,
    what: ReadFlags,
    name: &'a [u8],
}

/// The events in a batch: four numbers (watch, mask, cookie, length of the name), and the
/// name, with NULs after it.
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

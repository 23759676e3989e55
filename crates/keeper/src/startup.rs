//! How a keeper begins: its paths, its lock, its socket.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mfserv_core::{Diagnostic, Kind};
use mfserv_platform::{disk, socket};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::descriptors;
use crate::log::log;
use crate::saved::{Handover, Saved};

/// The paths in `var/run`.
pub(crate) struct Paths {
    pub lock: PathBuf,
    pub socket: PathBuf,
    pub state: PathBuf,
    pub fifos: PathBuf,
}

impl Paths {
    pub fn of(home: &Path) -> Self {
        let run = home.join("var/run");
        Self {
            lock: run.join(Self::LOCK),
            socket: run.join(Self::SOCKET),
            state: run.join("keeper.json"),
            fifos: run.join("fifo"),
        }
    }

    pub const LOCK: &str = "keeper.lock";
    pub const SOCKET: &str = "keep.sock";

    /// The names of those that are not there. (The FIFOs themselves cannot be made again: the
    /// processes that write to them hold the old ones, which are read on.)
    pub fn missing(&self) -> Vec<&'static str> {
        let all = [
            (&self.lock, Self::LOCK),
            (&self.socket, Self::SOCKET),
            (&self.state, "keeper.json"),
            (&self.fifos, "fifo"),
        ];
        all.into_iter().filter(|(path, _)| disk::is_gone(path)).map(|(_, name)| name).collect()
    }
}

/// The descriptors that are open from the first moment: made new, or left open by an
/// earlier image of this process.
pub(crate) struct Held {
    pub lock: OwnedFd,
    pub listener: UnixListener,
    pub fifos: Vec<(u64, io::Result<OwnedFd>)>,
}

impl Held {
    pub fn open(paths: &Paths) -> Result<Self, Diagnostic> {
        let lock = take_lock(&paths.lock)?;
        let listener = listen(&paths.socket).map_err(failed("its socket"))?;
        Ok(Self { lock, listener, fifos: Vec::new() })
    }

    pub fn inherit(handover: &Handover) -> io::Result<Self> {
        let fifos = handover.streams.iter();
        Ok(Self {
            lock: descriptors::inherited(handover.lock)?,
            listener: descriptors::inherited(handover.listener)?.into(),
            fifos: fifos.map(|(key, number)| (*key, descriptors::inherited(*number))).collect(),
        })
    }
}

pub(crate) fn failed(what: &str) -> impl FnOnce(io::Error) -> Diagnostic + use<> {
    let what = format!("the keeper cannot start: {what}");
    move |e| Diagnostic::error(what).because(e)
}

/// Makes `var/run`, private, and returns the home by its real path.
pub(crate) fn prepare_home(home: &Path) -> Result<PathBuf, Diagnostic> {
    let run = home.join("var/run");
    let prepare = || {
        DirBuilder::new().recursive(true).mode(0o700).create(run.join("fifo"))?;
        fs::set_permissions(&run, Permissions::from_mode(0o700))?;
        home.canonicalize()
    };
    prepare().map_err(failed(&run.display().to_string()))
}

/// Reads `keeper.json`. A file that is not understood counts as none: a keeper that adopts
/// nothing is better than no keeper.
pub(crate) fn read_saved(path: &Path) -> Saved {
    let saved = Saved::read(path).unwrap_or_else(|e| {
        log(format_args!("{} is not understood, nothing is adopted: {e}", path.display()));
        None
    });
    saved.unwrap_or_default()
}

/// This process can be hung up by a terminal.
pub(crate) fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

/// Moves a descriptor above the numbers that children receive listening sockets as.
pub(crate) fn out_of_the_way(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(&descriptor, 64)?)
}

/// Raises the soft RLIMIT_NOFILE to the hard one: each process costs the keeper one or two
/// descriptors. Returns the inherited limit, which children get: some programs cannot live
/// with a large one. `earlier` is what the first image of this keeper had inherited.
pub(crate) fn raise_open_files(earlier: Option<u64>) -> Rlimit {
    let given = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: given.maximum, ..given });
    Rlimit { current: earlier.or(given.current), ..given }
}

/// How long a lock that somebody holds is waited for, and how often it is looked at.
const LOCK_PATIENCE: Duration = Duration::from_millis(300);
const LOCK_LOOK: Duration = Duration::from_millis(10);

/// Takes the lock of the home: a home has one keeper.
pub(crate) fn take_lock(path: &Path) -> Result<OwnedFd, Diagnostic> {
    let failed = |e: io::Error| {
        Diagnostic::error(format!("the lock {} cannot be taken", path.display())).because(e)
    };
    let mut options = OpenOptions::new();
    let mut file: File =
        options.read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
    let is_locked = || flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive).is_err();
    // `mfserv stop` holds it for a moment, to see that nobody does.
    let began = Instant::now();
    while is_locked() && began.elapsed() < LOCK_PATIENCE {
        std::thread::sleep(LOCK_LOOK);
    }
    if is_locked() {
        let mut pid = String::new();
        let _ = file.read_to_string(&mut pid);
        return Err(Diagnostic::error("this home has a keeper already")
            .kind(Kind::Refused)
            .because(format!("{} is locked by process {}", path.display(), pid.trim()))
            .help("stop it first: mfserv stop"));
    }
    file.set_len(0).map_err(failed)?;
    file.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(failed)?;
    out_of_the_way(file.into()).map_err(failed)
}

/// Only called with the lock held: a socket file that exists was left by a dead keeper.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    Ok(out_of_the_way(socket::listen_privately(path)?.into())?.into())
}

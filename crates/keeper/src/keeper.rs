//! The keeper's loop, and all it knows.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mfserv_core::wire::keeper::{Exit, FromKeeper, Notice, ProcessSpec};
use mfserv_core::{Diagnostic, Kind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::connection::Connection;
use crate::containment::{Cgroups, home_hash};
use crate::copying::{Copier, Stream, Word};
use crate::ends::Living;
use crate::listening::Listener;
use crate::saved::{Handover, Saved};
use crate::signals::Signals;
use crate::stopping::Stage;
use crate::{DAEMON, KeeperOptions, descriptors, procfs, spawn};

/// More clients than these are not served.
const MOST_CLIENTS: usize = 64;

/// The state is written again so long after it could not be.
const SAVE_AGAIN: Duration = Duration::from_secs(1);

/// The paths in `var/run`.
pub(crate) struct Paths {
    pub lock: PathBuf,
    pub socket: PathBuf,
    pub state: PathBuf,
    pub fifos: PathBuf,
}

/// The daemon: what it is, and when it is started again.
pub(crate) struct DaemonWatch {
    pub spec: ProcessSpec,
    /// It ended so many times in a row within a second.
    pub quick_ends: u32,
    pub start_at: Option<Instant>,
}

pub(crate) struct Keeper {
    pub options: KeeperOptions,
    pub hash: String,
    pub paths: Paths,
    pub boot_id: String,
    pub lock: OwnedFd,
    pub door: UnixListener,
    pub signals: Signals,
    pub cgroups: Cgroups,
    pub clients: Vec<Connection>,
    pub next_client: u64,
    /// There are too many clients; said once.
    pub turns_away: bool,
    pub processes: BTreeMap<String, Living>,
    pub exits: VecDeque<Exit>,
    pub listeners: BTreeMap<String, Listener>,
    pub streams: BTreeMap<u64, Stream>,
    pub next_key: u64,
    /// `None` only while it is paused.
    pub copier: Option<Copier>,
    pub daemon: Option<DaemonWatch>,
    pub adopted: u32,
    pub stage: Stage,
    /// The state file is not up to date.
    pub unsaved: bool,
    /// RLIMIT_NOFILE as this process was given it, which is what others get.
    pub open_files: Rlimit,
    pub save_at: Option<Instant>,
}

impl Keeper {
    /// Takes the lock, goes on with what an earlier keeper has left, and listens.
    pub fn start(mut options: KeeperOptions) -> Result<Self, Diagnostic> {
        descriptors::close_all_on_exec();
        let ready = options.ready.take().map(out_of_the_way).transpose();
        options.ready = ready.map_err(failed("the ready descriptor"))?;
        let home = prepare_home(&options.home)?;
        let paths = Paths::of(&home);
        let saved = read_saved(&paths.state);
        let handover = saved.handover.clone().filter(|_| options.resume);
        let Held { lock, door, fifos } = match &handover {
            Some(handover) => Held::inherit(handover).map_err(failed("what it inherits"))?,
            None => Held::open(&paths)?,
        };
        door.set_nonblocking(true).map_err(failed("its socket"))?;
        // After what was inherited is out of danger, before anything else is opened.
        spawn::reserve_descriptors().map_err(failed("its descriptors"))?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|e| failed("PR_SET_CHILD_SUBREAPER")(e.into()))?;
        let open_files = raise_open_files(handover.as_ref().and_then(|it| it.open_files));
        let hash = home_hash(&home);
        let cgroups = if options.cgroups { Cgroups::find(&hash) } else { Cgroups::none() };
        let daemon = options.daemon.take().map(DaemonWatch::new);
        let copier = Copier::start(!options.resume).map_err(failed("its threads"))?;
        let mut keeper = Self {
            cgroups,
            hash,
            boot_id: procfs::boot_id().map_err(failed("the boot id"))?,
            lock,
            door,
            signals: Signals::register().map_err(failed("its signals"))?,
            clients: Vec::new(),
            next_client: 1,
            turns_away: false,
            processes: BTreeMap::new(),
            exits: VecDeque::new(),
            listeners: BTreeMap::new(),
            streams: BTreeMap::new(),
            next_key: saved.next_key.max(1),
            copier: Some(copier),
            daemon,
            adopted: 0,
            stage: Stage::Serving,
            unsaved: true,
            open_files,
            save_at: None,
            paths,
            options,
        };
        match handover {
            Some(handover) => keeper.resume(saved, handover, fifos),
            None => keeper.adopt(saved),
        }
        keeper.daemon_is_wanted();
        keeper.save();
        keeper.say_ready();
        Ok(keeper)
    }

    /// Until the node has been stopped.
    pub fn serve(mut self) -> Result<(), Diagnostic> {
        self.reap();
        while !matches!(self.stage, Stage::Over) {
            self.start_daemon_if_due();
            let (accepts, readable) = self.wait()?;
            if self.signals.take_end() {
                self.asked_to_end();
            }
            self.reap();
            self.watch_adopted();
            self.hear_copier();
            if accepts {
                self.accept();
            }
            self.serve_clients(&readable);
            self.go_on_with_ends();
            self.go_on_stopping();
            self.save_if_due();
            self.clients.iter_mut().for_each(Connection::flush);
            self.clients.retain(|client| !client.broken);
        }
        self.leave();
        Ok(())
    }

    /// Waits until something happens. Returns whether somebody is at the door, and which
    /// clients have sent something.
    fn wait(&self) -> Result<(bool, Vec<u64>), Diagnostic> {
        let mut fds = vec![
            PollFd::new(self.signals.bell(), PollFlags::IN),
            PollFd::new(&self.door, PollFlags::IN),
        ];
        for client in &self.clients {
            let mut events = PollFlags::IN;
            if client.wants_to_write() {
                events |= PollFlags::OUT;
            }
            fds.push(PollFd::new(client.socket(), events));
        }
        let copier = self.copier.as_ref().map(Copier::bell);
        fds.extend(copier.map(|bell| PollFd::from_borrowed_fd(bell, PollFlags::IN)));
        let adopted = self.processes.values().filter_map(Living::pidfd_to_watch);
        fds.extend(adopted.map(|pidfd| PollFd::from_borrowed_fd(pidfd, PollFlags::IN)));
        let timeout = self.next_moment().map(|at| {
            let wait = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            Timespec { tv_sec: wait.as_secs() as _, tv_nsec: wait.subsec_nanos().into() }
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Diagnostic::error("the keeper cannot wait").because(e)),
        }
        let accepts = !fds[1].revents().is_empty();
        let heard = self.clients.iter().zip(&fds[2..]);
        let heard = heard.filter(|(_, fd)| !(fd.revents() - PollFlags::OUT).is_empty());
        Ok((accepts, heard.map(|(client, _)| client.id).collect()))
    }

    /// When something is to be done even if nothing happens.
    fn next_moment(&self) -> Option<Instant> {
        let daemon = self.daemon.as_ref().and_then(|daemon| daemon.start_at);
        let ends = self.processes.values().filter_map(Living::next_moment);
        ends.chain(daemon).chain(self.save_at).chain(self.stage.next_moment()).min()
    }

    fn accept(&mut self) {
        for _ in 0..MOST_CLIENTS {
            let socket = match self.door.accept() {
                Ok((socket, _)) => socket,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    // No descriptor is free: they stay at the door, which would ring at once.
                    std::thread::sleep(Duration::from_millis(20));
                    return;
                }
            };
            if self.clients.len() >= MOST_CLIENTS {
                if !std::mem::replace(&mut self.turns_away, true) {
                    remark(format_args!("clients are turned away: {MOST_CLIENTS} are connected"));
                }
                continue;
            }
            self.turns_away = false;
            if let Ok(client) = Connection::new(self.next_client, socket) {
                self.next_client += 1;
                self.clients.push(client);
            }
        }
    }

    fn hear_copier(&mut self) {
        let words = self.copier.as_ref().map(Copier::words).unwrap_or_default();
        words.into_iter().for_each(|word| self.hear(word));
        if self.copier.as_ref().is_some_and(Copier::has_died) {
            self.restart_copying();
        }
    }

    pub fn hear(&mut self, word: Word) {
        match word {
            Word::Finished { owner, last_output } => self.record_exit(&owner, last_output),
            Word::Closed { key } => {
                self.streams.remove(&key);
                self.unsaved = true;
            }
            Word::Dropped { owner, bytes } => self.notify(Notice::Dropped { id: owner, bytes }),
            Word::Trouble { file, reason } => {
                remark(format_args!("{} cannot be written: {reason}", file.display()));
                self.notify(Notice::LogTrouble { file, reason });
            }
        }
    }

    /// Tells everybody who watches.
    pub fn notify(&mut self, notice: Notice) {
        let message = FromKeeper::Notice(notice);
        self.clients.iter_mut().filter(|c| c.watches).for_each(|c| c.send(&message));
    }

    /// Writes the state file if something has changed: before anybody is told.
    fn save_if_due(&mut self) {
        let may = self.save_at.is_none_or(|at| at <= Instant::now());
        if self.unsaved && may && !matches!(self.stage, Stage::Over) {
            self.save();
        }
    }

    pub fn save(&mut self) {
        match self.to_save().write(&self.paths.state) {
            Ok(()) => {
                self.unsaved = false;
                self.save_at = None;
            }
            Err(e) => {
                if self.save_at.is_none() {
                    remark(format_args!("{} cannot be written: {e}", self.paths.state.display()));
                }
                self.save_at = Some(Instant::now() + SAVE_AGAIN);
            }
        }
    }

    fn say_ready(&mut self) {
        if let Some(ready) = self.options.ready.take() {
            let _ = rustix::io::write(&ready, b"ready\n");
        }
        sd_notify("READY=1\n");
    }
}

impl Paths {
    fn of(home: &Path) -> Self {
        let run = home.join("var/run");
        Self {
            lock: run.join("keeper.lock"),
            socket: run.join("keep.sock"),
            state: run.join("keeper.json"),
            fifos: run.join("fifo"),
        }
    }
}

impl DaemonWatch {
    fn new(spec: ProcessSpec) -> Self {
        Self { spec: ProcessSpec { id: DAEMON.to_owned(), ..spec }, quick_ends: 0, start_at: None }
    }
}

/// What is open from the first moment: made new, or left open by an earlier image.
struct Held {
    lock: OwnedFd,
    door: UnixListener,
    fifos: Vec<(u64, io::Result<OwnedFd>)>,
}

impl Held {
    fn open(paths: &Paths) -> Result<Self, Diagnostic> {
        let lock = take_lock(&paths.lock)?;
        let door = open_door(&paths.socket).map_err(failed("its socket"))?;
        Ok(Self { lock, door, fifos: Vec::new() })
    }

    fn inherit(handover: &Handover) -> io::Result<Self> {
        let fifos = handover.streams.iter();
        Ok(Self {
            lock: descriptors::inherited(handover.lock)?,
            door: descriptors::inherited(handover.door)?.into(),
            fifos: fifos.map(|(key, number)| (*key, descriptors::inherited(*number))).collect(),
        })
    }
}

fn failed(what: &str) -> impl FnOnce(io::Error) -> Diagnostic + use<> {
    let what = format!("the keeper cannot start: {what}");
    move |e| Diagnostic::error(what).because(e)
}

/// Makes `var/run`, private, and returns the home by its real path.
fn prepare_home(home: &Path) -> Result<PathBuf, Diagnostic> {
    let run = home.join("var/run");
    let prepare = || {
        DirBuilder::new().recursive(true).mode(0o700).create(run.join("fifo"))?;
        fs::set_permissions(&run, Permissions::from_mode(0o700))?;
        home.canonicalize()
    };
    prepare().map_err(failed(&run.display().to_string()))
}

/// A state file that is not understood is as none: a new keeper is better than none.
fn read_saved(path: &Path) -> Saved {
    let saved = Saved::read(path).unwrap_or_else(|e| {
        remark(format_args!("{} is not understood, nothing is adopted: {e}", path.display()));
        None
    });
    saved.unwrap_or_default()
}

/// Above the descriptors that children receive listening sockets as.
fn out_of_the_way(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(&descriptor, 64)?)
}

/// Each process costs one or two descriptors: all that are permitted may be used. Returns
/// the limit for other programs, of which some cannot live with many.
fn raise_open_files(earlier: Option<u64>) -> Rlimit {
    let given = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: given.maximum, ..given });
    Rlimit { current: earlier.or(given.current), ..given }
}

/// One keeper per home.
fn take_lock(path: &Path) -> Result<OwnedFd, Diagnostic> {
    let failed = |e: io::Error| {
        Diagnostic::error(format!("the lock {} cannot be taken", path.display())).because(e)
    };
    let mut options = OpenOptions::new();
    let mut file: File =
        options.read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
    if flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive).is_err() {
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

/// Only called with the lock held: a socket file that is there is nobody's.
fn open_door(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let (short, _directory) = descriptors::short_path(path)?;
    let door = UnixListener::bind(short)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(out_of_the_way(door.into())?.into())
}

/// sd_notify(3), if somebody wants it.
pub(crate) fn sd_notify(state: &str) {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let bytes = name.as_encoded_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name),
        None => SocketAddr::from_pathname(&name),
    };
    let sent = address.and_then(|to| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &to));
    if let Err(e) = sent {
        remark(format_args!("NOTIFY_SOCKET cannot be told: {e}"));
    }
}

/// A line for whoever reads the keeper's own standard error.
pub(crate) fn remark(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "keeper: {text}");
}

//! nginx as the front: it accepts the clients, and a front that is built in, a process of its
//! own, answers it over a unix socket.
//!
//! ```text
//!   keeper ──► this process ──┬─► nginx (master ─► workers)     reads the clients
//!      listening sockets ─────┘└─► embedded front ──► workers of apps
//! ```
//!
//! This process starts both and reads no byte of a client. It checks and changes the
//! configuration of nginx (`config.rs`, `master.rs`), passes the messages of the daemon on
//! (`relay.rs`), and starts nginx again when that dies. When the front behind nginx dies, so does
//! this process: a new one takes over, as in the place of an embedded front.

mod again;
mod config;
mod edge;
mod ending;
mod ends;
mod examine;
mod inner;
mod listens;
mod master;
mod others;
mod pieces;
mod program;
mod refusal;
mod relay;
mod said;
mod search;
mod text;
mod tls;
mod vitals;

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_platform::disk;
use tokio::signal::unix::{SignalKind, signal as on_signal};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::embedded::{ErrorLog, LogWriter};
use crate::keeper_link::{KeeperLink, address_of};
use crate::{FrontOptions, TLS_LISTENER};
use crate::{control_socket, process};
use config::Site;
use edge::{Edge, Wanted};
use inner::Inner;
use master::Nginx;
use program::Program;
use relay::Relay;
use tls::Certificates;

pub use examine::{RefusedFragment, examine, examine_plugin, examine_program};

/// The variable with the key that nginx says to the front behind it.
pub const EDGE_KEY_VARIABLE: &str = "MFSERV_EDGE_KEY";

/// So often it is looked whether logs were rotated, and whether orphans have ended.
const LOOK: Duration = Duration::from_secs(1);
/// The pause before nginx is started again: the first one, and the longest one.
const REVIVE_MIN: Duration = Duration::from_millis(50);
const REVIVE_MAX: Duration = Duration::from_secs(5);

/// What this kind of front needs to know.
#[derive(Debug, Clone)]
pub struct NginxOptions {
    /// The program: a path, or a name in PATH.
    pub program: PathBuf,
    /// The directory of its modules; `None`: its own.
    pub modules: Option<PathBuf>,
    /// Its worker processes.
    pub workers: u32,
    /// So often it is looked whether its processes go on.
    pub look: Duration,
    /// A file in which people find the configuration of the nginx that has taken one last.
    pub shown_config: PathBuf,
    /// A directory for files that it needs for a time, and for its configuration.
    pub temp_dir: PathBuf,
    /// The command line of the front behind nginx, without `--control PATH`.
    pub inner: Vec<OsString>,
}

impl NginxOptions {
    /// So often it is looked whether its processes go on, but in tests.
    pub const LOOK: Duration = Duration::from_secs(2);
}

/// Runs nginx and the front behind it until SIGTERM or SIGINT, and until their requests are
/// answered.
pub fn run(options: FrontOptions) -> Result<(), Diagnostic> {
    process::run(live(options))
}

async fn live(options: FrontOptions) -> Result<(), Diagnostic> {
    let Some(nginx) = options.nginx.clone() else {
        return Err(Diagnostic::error("nginx as the front has no settings"));
    };
    prepare(&nginx, &options.log_dir)?;
    let errors = || {
        let path = options.log_dir.join("nginx_error.log");
        LogWriter::start(path, options.rotation)
            .map(ErrorLog::new)
            .map_err(|why| Diagnostic::error("no thread for nginx_error.log").because(why))
    };
    let names = Names::of(&options.control_socket, &nginx.temp_dir);
    let program = Program { path: nginx.program.clone(), prefix: nginx.temp_dir.clone() };
    let site = site(&options, &nginx, &program, &names).await?;
    let mut inner = Inner::start(&nginx, &names, &site.key).await?;
    let listeners = options.listeners.iter().map(|(_, socket)| socket.try_clone());
    let listeners: Vec<OwnedFd> =
        listeners.collect::<Result<_, _>>().map_err(|why| no_sockets(&why))?;
    let edge = Rc::new(Edge::new());
    let parts = (program, site);
    let run_dir = options.control_socket.parent().unwrap_or_else(|| Path::new("."));
    let certificates = Certificates::new(run_dir);
    let files = (names.config.clone(), nginx.shown_config.clone(), certificates);
    let mut front = Nginx::new(parts, listeners, files, errors()?)?;
    let control = control_socket::listen(&options.control_socket)?;
    let keeper = options
        .keeper_socket
        .map(|socket| KeeperLink::start(socket, options.listeners))
        .transpose()?;
    let errors = Rc::new(errors()?);
    let ends = front.vitals.ends.clone();
    let relay = Rc::new(Relay { edge: edge.clone(), inner: names.inner_control.clone(), ends });
    tokio::task::spawn_local(control_socket::serve(control, errors, move |stream| {
        let relay = relay.clone();
        async move { relay.converse(stream).await }
    }));
    let (vitals, serves) = (front.vitals.clone(), front.serves.clone());
    let life = async {
        let outcome = watch(&mut front, &mut inner, &edge, &options.log_dir).await;
        // Without the front behind it nginx answers nobody: the next front is to come at once.
        let grace = if outcome.is_ok() { options.grace } else { Duration::ZERO };
        front.finish(grace).await;
        outcome
    };
    let outcome = tokio::select! {
        outcome = life => outcome,
        never = vitals.look_after(nginx.look, &names.own, &serves) => match never {},
    };
    inner.end().await;
    drop(keeper);
    for path in [&options.control_socket, &names.own, &names.http, &names.inner_control] {
        let _ = fs::remove_file(path);
    }
    outcome
}

fn prepare(nginx: &NginxOptions, log_dir: &Path) -> Result<(), Diagnostic> {
    disk::create_dir(log_dir)?;
    disk::create_dir(&nginx.temp_dir)?;
    if let Some(dir) = nginx.shown_config.parent() {
        disk::create_dir(dir)?;
    }
    process::raise_descriptors();
    // Workers of nginx whose master was killed become children of this process.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|why| Diagnostic::error("the front cannot look after nginx").because(why))
}

/// The sockets beside the control socket `X.socket`, and files. At a handover two fronts have theirs.
struct Names {
    /// On which nginx answers this process.
    own: PathBuf,
    /// On which the front behind nginx answers it.
    http: PathBuf,
    /// On which the front behind nginx listens for this process.
    inner_control: PathBuf,
    pid_file: PathBuf,
    /// The configuration of nginx.
    config: PathBuf,
}

impl Names {
    fn of(control: &Path, temp_dir: &Path) -> Self {
        let stem = control.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let beside = |name: &str| control.with_file_name(format!("{stem}.{name}.socket"));
        Self {
            own: beside("nginx"),
            http: beside("http"),
            inner_control: beside("in"),
            pid_file: temp_dir.join(format!("{stem}.pid")),
            config: temp_dir.join(format!("{stem}.conf")),
        }
    }
}

fn no_sockets(why: &dyn std::fmt::Display) -> Diagnostic {
    Diagnostic::error("nginx cannot have the listening sockets").because(why)
}

async fn site(
    options: &FrontOptions,
    nginx: &NginxOptions,
    program: &Program,
    names: &Names,
) -> Result<Site, Diagnostic> {
    let build = program.build(nginx.modules.as_deref()).await?;
    let is_tls = |name: &str| name.split(':').next() == Some(TLS_LISTENER);
    let of = |wanted: bool| {
        let those = options.listeners.iter().filter(|(name, _)| is_tls(name) == wanted);
        let addresses = those.map(|(_, socket)| address_of(socket));
        addresses.collect::<Result<Vec<_>, _>>().map_err(|why| no_sockets(&why))
    };
    let (listen, listen_tls) = (of(false)?, of(true)?);
    if !listen_tls.is_empty() && !build.has_tls {
        return Err(Diagnostic::error(format!("{} cannot speak TLS", program.path.display()))
            .because(format!("{} is older than 1.19.4, or is built without it", build.version))
            .help("use another nginx, [nginx] https_port=null, or [front] kind=embedded"));
    }
    let mut key = [0; 16];
    fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut key))
        .map_err(|why| Diagnostic::error("the front cannot start").because(why))?;
    let site = Site {
        listen,
        listen_tls,
        copied: Default::default(),
        own_socket: names.own.clone(),
        front_socket: names.http.clone(),
        key: disk::hex(&key),
        log_dir: options.log_dir.clone(),
        temp_dir: nginx.temp_dir.clone(),
        pid_file: names.pid_file.clone(),
        workers: nginx.workers.max(1),
        connections_max: process::clients_within(process::descriptors()),
        has_lua: build.has_lua,
        modules: build.modules,
        has_real_ip: build.has_real_ip,
        copies: build.copies,
        is_root: rustix::process::geteuid().is_root(),
        grace_s: options.grace.as_secs().max(1),
    };
    for path in [&site.own_socket, &site.front_socket, &site.log_dir, &site.temp_dir] {
        // nginx takes `$` for a variable, and blanks for the end of a socket's path.
        if path.to_string_lossy().contains(['$', ' ', ';', '{', '}', '"', '\\', '\n']) {
            return Err(Diagnostic::error(format!("nginx cannot use {}", path.display()))
                .because("its configuration has no way to write such a path")
                .help("move the runtime home, or write [front] kind=embedded"));
        }
    }
    Ok(site)
}

/// Looks after nginx until this process is asked to end, or the front behind nginx has ended.
async fn watch(
    front: &mut Nginx,
    inner: &mut Inner,
    edge: &Edge,
    log_dir: &Path,
) -> Result<(), Diagnostic> {
    let cannot = |why| Diagnostic::error("no signals can be received").because(why);
    let mut term = on_signal(SignalKind::terminate()).map_err(cannot)?;
    let mut int = on_signal(SignalKind::interrupt()).map_err(cannot)?;
    // As the embedded front: received and not obeyed.
    let _hangup = on_signal(SignalKind::hangup()).map_err(cannot)?;
    let serves = front.serves.clone();
    // Whatever nginx is asked meanwhile, and however long it takes to answer.
    tokio::select! {
        _ = term.recv() => Ok(()),
        _ = int.recv() => Ok(()),
        status = inner.child.wait() => {
            let why = status.map_or_else(|why| why.to_string(), |status| status.to_string());
            Err(Diagnostic::error("the front behind nginx has ended").because(why))
        }
        failed = look_after(front, edge, log_dir) => Err(failed),
        never = edge.answer_in_time(&serves) => match never {},
    }
}

/// Has nginx obey what is wanted, and starts it again when it has died, until that fails.
async fn look_after(front: &mut Nginx, edge: &Edge, log_dir: &Path) -> Diagnostic {
    let mut wanted = edge.wanted();
    let mut logs = Logs::of(log_dir);
    let mut revival = Revival::default();
    loop {
        let done = tokio::select! {
            _ = wanted.changed() => match changed(&mut wanted, front, edge) {
                Some(table) => front.obey(edge, &table).await,
                None => Ok(()),
            },
            () = front.ended() => revival.revive(front, edge).await,
            () = tokio::time::sleep(LOOK) => {
                front.reap();
                if logs.were_rotated() {
                    front.reopen_logs();
                }
                match front.look_at_waiting(edge).await {
                    Ok(()) => front.renew_certificates(edge).await,
                    failed => failed,
                }
            }
        };
        if let Err(why) = done {
            return why;
        }
    }
}

/// The table that nginx does not obey yet. A copy of a large one is made only if it is needed.
fn changed(wanted: &mut watch::Receiver<Wanted>, front: &mut Nginx, edge: &Edge) -> Option<Wanted> {
    let table = wanted.borrow_and_update();
    if front.obeys(&table) {
        front.settled(edge, table.generation, None);
        return None;
    }
    Some(table.clone())
}

/// nginx is started again when its master has died, with pauses that grow if it dies at once.
#[derive(Default)]
struct Revival {
    last: Option<Instant>,
    pause: Duration,
}

impl Revival {
    async fn revive(&mut self, front: &mut Nginx, edge: &Edge) -> Result<(), Diagnostic> {
        let lived = self.last.map_or(REVIVE_MAX, |last| last.elapsed());
        self.pause = match lived >= REVIVE_MAX {
            true => Duration::ZERO,
            false => (self.pause * 2).clamp(REVIVE_MIN, REVIVE_MAX),
        };
        tokio::time::sleep(self.pause).await;
        self.last = Some(Instant::now());
        front.reap();
        if front.restart().await {
            return Ok(());
        }
        // What is in force does not start any more: nginx gets what does.
        let wanted = edge.wanted().borrow().clone();
        front.obey(edge, &wanted).await
    }
}

/// The logs into which nginx writes, beside others who also rotate them.
struct Logs {
    paths: [PathBuf; 2],
    last: [Option<u64>; 2],
}

impl Logs {
    fn of(dir: &Path) -> Self {
        let paths = [dir.join("nginx_access.log"), dir.join("nginx_error.log")];
        Self { last: paths.each_ref().map(|path| inode(path)), paths }
    }

    fn were_rotated(&mut self) -> bool {
        let now = self.paths.each_ref().map(|path| inode(path));
        let rotated = now != self.last;
        self.last = now;
        rotated
    }
}

fn inode(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|found| found.ino())
}

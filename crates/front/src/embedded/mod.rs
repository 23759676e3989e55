//! The front that is built in.
//!
//! Its rooms, each of which may import those before it and none after it:
//!
//! `io` → `clients` → `files`, `workers` → `request` → `lanes` → `control` → this file
//!
//! (`files` and `workers` do not import each other.) Each `mod.rs` says what its room is,
//! what it may touch and what it must not.

pub(crate) mod certificates;
mod clients;
mod control;
mod files;
pub mod heads;
mod io;
mod lanes;
mod metrics;
mod request;
mod workers;

pub(crate) use clients::edge::EDGE_END;
pub(crate) use files::compressing::SHORTEST as COMPRESSED_LEAST;
pub(crate) use files::mime;
pub use files::{opening, resolve_path};
pub(crate) use io::error_log::ErrorLog;
pub(crate) use io::log_file::LogWriter;
pub use io::tls::{Copied as CopiedCertificates, Copies as CopiedCertificatesDir};
pub use io::tls::{Problems as TlsProblems, inspect as inspect_tls};
pub(crate) use request::browsers::host_names;

use std::time::Duration;

use mfserv_core::Diagnostic;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::FrontOptions;
use crate::keeper_link::KeeperLink;
use crate::{control_socket, process};
use lanes::listener::Listener;
use lanes::threads::Lanes;
use request::state::Front;

/// How often idle connections to workers are swept, while there are some.
const SWEEP_EVERY: Duration = Duration::from_millis(250);
/// How long after a worker did something on an idle connection all are swept.
const SWEEP_PAUSE: Duration = Duration::from_millis(10);
/// How often a front that ends looks whether it has no connection left.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Runs a front until SIGTERM or SIGINT, and until its requests are answered. This thread
/// serves daemons; the lanes serve clients.
pub fn run(options: FrontOptions) -> Result<(), Diagnostic> {
    process::run(live(options))
}

async fn live(options: FrontOptions) -> Result<(), Diagnostic> {
    process::raise_descriptors();
    let mut ending = Ending::new()?;
    let log = |name: &str| {
        let path = options.log_dir.join(name);
        LogWriter::start(path, options.rotation)
            .map_err(|why| Diagnostic::error(format!("no thread for {name}")).because(why))
    };
    let errors = ErrorLog::new(log("nginx_error.log")?);
    let edge_key = options.edge_key.unwrap_or_default();
    let front = Front::new(log("nginx_access.log")?, errors, edge_key);
    let mut listeners = Vec::new();
    for (name, socket) in &options.listeners {
        listeners.push(Listener::adopt(name, socket)?);
    }
    let control = control_socket::listen(&options.control_socket)?;
    let keeper = options
        .keeper_socket
        .map(|socket| KeeperLink::start(socket, options.listeners))
        .transpose()?;
    let lanes = Lanes::start(front.clone())?;
    let metrics = options
        .metrics_socket
        .map(|socket| metrics::Sender::start(front.clone(), socket))
        .transpose()
        .map_err(|why| Diagnostic::error("no thread for metrics").because(why))?;
    for listener in listeners {
        let (front, lanes_of_it) = (front.clone(), lanes.clone());
        lanes.start_in_first(move || listener.serve(front, lanes_of_it));
    }
    let (of_front, of_lanes) = (front.clone(), lanes.clone());
    tokio::task::spawn_local(control_socket::serve(control, front.errors.clone(), move |stream| {
        let (front, lanes) = (of_front.clone(), of_lanes.clone());
        async move { control::converse(&front, &lanes, stream).await }
    }));
    certificates::watch(&front)
        .map_err(|why| Diagnostic::error("no thread for certificates").because(why))?;
    let sweeping = front.clone();
    let sweep = async move { sweeping.pool.keep_sweeping(SWEEP_PAUSE, SWEEP_EVERY).await };
    // Unconstrained: a sweep reads from many connections, more than a task's budget allows.
    tokio::task::spawn_local(tokio::task::unconstrained(sweep));
    ending.asked().await;
    finish(&front, options.grace, &mut ending).await;
    lanes.end();
    if let Some(metrics) = metrics {
        metrics.end();
    }
    drop(keeper);
    // What is there is this front's: the daemon gives the path to another front only after
    // this process has ended.
    let _ = std::fs::remove_file(&options.control_socket);
    Ok(())
}

/// The signals of the system that ask the front to end.
struct Ending {
    term: Signal,
    int: Signal,
    /// Received and not obeyed: who sends SIGHUP to every process of a node wants it to
    /// reload. The daemon sends the routes.
    _hangup: Signal,
    /// Received, so that it does not end the front: a write beyond RLIMIT_FSIZE fails with EFBIG
    /// then (setrlimit(2)), as on a full disk.
    _file_size: Signal,
}

impl Ending {
    fn new() -> Result<Self, Diagnostic> {
        let on = |kind| {
            signal(kind).map_err(|why| Diagnostic::error("no signals can be received").because(why))
        };
        Ok(Self {
            term: on(SignalKind::terminate())?,
            int: on(SignalKind::interrupt())?,
            _hangup: on(SignalKind::hangup())?,
            _file_size: on(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// Waits until all requests are answered, while nothing new is accepted; not longer than
/// `grace`, and not beyond another SIGINT.
async fn finish(front: &Front, grace: Duration, ending: &mut Ending) {
    // Another front has the workers, and decides how they are scheduled.
    front.pool.company.disband();
    front.closing.raise();
    front.pool.sweep(true);
    let empty = async {
        while front.connections() > 0 || front.pool.lingers() {
            let _ = tokio::time::timeout(LOOK_EVERY, front.closed.notified()).await;
        }
    };
    tokio::select! {
        () = empty => {}
        () = tokio::time::sleep(grace) => {
            let left = front.connections();
            front.errors.report(&format!("{left} connections cut at the end"));
        }
        _ = ending.int.recv() => {}
    }
}

//! The front that is built in.

mod clients;
mod control;
mod files;
mod io;
mod lanes;
mod request;
mod workers;

pub use files::{opening, resolve_path};
pub use workers::heads::{Told, answer_for_client, request_for_worker};

use std::sync::Arc;
use std::time::Duration;

use mfserv_core::Diagnostic;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::LocalOptions;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::FrontOptions;
use crate::keeper_link::KeeperLink;
use io::error_log::ErrorLog;
use io::log_file::Log;
use lanes::lane::Lanes;
use lanes::listener::Listener;
use request::state::Front;

/// How often idle connections to workers are looked at, while there are some.
const SWEEP_EVERY: Duration = Duration::from_millis(250);
/// So long after a worker did something on an idle connection, all are looked at.
const SWEEP_PAUSE: Duration = Duration::from_millis(10);
/// How often a front that ends looks whether it is empty, should it not be told.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Runs a front until SIGTERM or SIGINT, and until what it holds then is over. This
/// thread speaks with daemons; the lanes serve.
pub fn run(options: FrontOptions) -> Result<(), Diagnostic> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(|why| Diagnostic::error("the front cannot start").because(why))?;
    runtime.block_on(live(options))
}

/// Each client and each worker connection is a descriptor: as many as are allowed.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Then those that there are have to do.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
}

async fn live(options: FrontOptions) -> Result<(), Diagnostic> {
    raise_descriptors();
    let mut ending = Ending::new()?;
    let log = |name: &str| {
        let path = options.log_dir.join(name);
        Log::start(path, options.rotation)
            .map_err(|why| Diagnostic::error(format!("no thread for {name}")).because(why))
    };
    let front = Front::new(log("nginx_access.log")?, ErrorLog::new(log("nginx_error.log")?));
    let mut listeners = Vec::new();
    for (name, socket) in &options.listeners {
        listeners.push(Listener::adopt(name, socket)?);
    }
    let control = control::listen(&options.control_socket)?;
    let keeper = options
        .keeper_socket
        .map(|socket| KeeperLink::start(socket, options.listeners))
        .transpose()?;
    let lanes = Lanes::start(front.clone())?;
    listeners.into_iter().for_each(|listener| lanes.accept(listener));
    tokio::task::spawn_local(control::serve(front.clone(), lanes.clone(), control));
    // It looks at many connections at a time.
    tokio::task::spawn_local(tokio::task::unconstrained(sweep(front.clone())));
    ending.asked().await;
    finish(&front, options.grace, &mut ending).await;
    lanes.end();
    drop(keeper);
    // The daemon may have put another front's socket there meanwhile; it never does while
    // this one lives, so what is there is ours.
    let _ = std::fs::remove_file(&options.control_socket);
    Ok(())
}

/// Signals that ask the front to end.
struct Ending {
    term: Signal,
    int: Signal,
}

impl Ending {
    fn new() -> Result<Self, Diagnostic> {
        let on = |kind| {
            signal(kind).map_err(|why| Diagnostic::error("no signals can be received").because(why))
        };
        Ok(Self { term: on(SignalKind::terminate())?, int: on(SignalKind::interrupt())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// Answers what is being asked, accepts nothing new; not longer than `grace`, and not
/// longer than until it is asked again by SIGINT.
async fn finish(front: &Front, grace: Duration, ending: &mut Ending) {
    front.closing.ring();
    front.sweep(true);
    let empty = async {
        while front.connections() > 0 {
            let _ = tokio::time::timeout(LOOK_EVERY, front.closed.notified()).await;
        }
    };
    tokio::select! {
        () = empty => {}
        () = tokio::time::sleep(grace) => {
            let left = front.connections();
            front.errors.say(&format!("{left} connections cut at the end"));
        }
        _ = ending.int.recv() => {}
    }
}

/// Closes idle connections to workers when their time has come, and soon after a worker
/// has ended one or spoken on it.
async fn sweep(front: Arc<Front>) {
    loop {
        front.signals.sweep_wanted().await;
        loop {
            tokio::time::sleep(SWEEP_PAUSE).await;
            if !front.sweep(false) {
                front.signals.none_parked();
                if !front.sweep(false) {
                    break;
                }
            }
            let _ = tokio::time::timeout(SWEEP_EVERY, front.signals.sweep_wanted()).await;
        }
    }
}

//! The front that is built in.

mod alarm;
mod answer;
mod buffer;
mod client;
mod control;
mod endpoints;
mod error_log;
mod files;
mod forward;
pub mod h1;
mod listener;
mod log;
mod mime;
mod relay;
mod rewrite;
mod serve;
mod state;
mod tunnel;
mod upload;
mod upstream;
mod visit;
mod wire;

pub use files::place;

use std::rc::Rc;
use std::time::Duration;

use mfserv_core::Diagnostic;
use tokio::runtime::LocalOptions;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::FrontOptions;
use crate::keeper_link::KeeperLink;
use error_log::ErrorLog;
use listener::Listener;
use log::Log;
use state::Front;

/// Threads that open and read files.
const FILE_THREADS: usize = 4;
/// How often idle connections to workers are looked at, while there are some.
const SWEEP_EVERY: Duration = Duration::from_millis(250);

/// Runs a front until SIGTERM or SIGINT, and until what it holds then is over.
pub fn run(options: FrontOptions) -> Result<(), Diagnostic> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(FILE_THREADS)
        .build_local(LocalOptions::default())
        .map_err(|why| Diagnostic::error("the front cannot start").because(why))?;
    runtime.block_on(live(options))
}

async fn live(options: FrontOptions) -> Result<(), Diagnostic> {
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
    tokio::task::spawn_local(control::serve(front.clone(), control));
    tokio::task::spawn_local(sweep(front.clone()));
    for listener in listeners {
        tokio::task::spawn_local(listener.serve(front.clone()));
    }
    ending.asked().await;
    finish(&front, options.grace, &mut ending).await;
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
async fn finish(front: &Rc<Front>, grace: Duration, ending: &mut Ending) {
    front.closing.ring();
    front.sweep(true);
    let empty = async {
        while front.connections.get() > 0 {
            front.closed.notified().await;
        }
    };
    tokio::select! {
        () = empty => {}
        () = tokio::time::sleep(grace) => {
            let left = front.connections.get();
            front.errors.say(&format!("{left} connections cut at the end"));
        }
        _ = ending.int.recv() => {}
    }
}

/// Closes idle connections to workers when their time has come.
async fn sweep(front: Rc<Front>) {
    loop {
        front.parked.notified().await;
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            if !front.sweep(false) {
                break;
            }
        }
    }
}

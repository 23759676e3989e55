//! What a watcher acts through: keeper, fronts, events and files. Nothing is decided here.

use std::path::{Path, PathBuf};

use mfserv_core::event::Fact;
use mfserv_core::names::{WatcherName, WorkerId};
use mfserv_core::watcher::{Probe, WatcherSpec};
use mfserv_core::wire::front::{Address, Peer};
use mfserv_core::wire::keeper::{Ask, Scope};
use mfserv_platform::disk;
use mfserv_platform::sync::lock;
use tokio::task::AbortHandle;

use crate::handle::{Handle, Message};
use crate::keeper_link::KeeperLink;
use crate::place::Place;
use crate::probe::{self, Found, Question, Saw};
use crate::spawn;
use crate::supervisor::Emit;
use crate::traffic::Traffic;

const SIGKILL: i32 = 9;

pub(crate) struct Context {
    pub keeper: KeeperLink,
    pub traffic: Box<dyn Traffic>,
    pub emit: Emit,
    pub run_dir: PathBuf,
    /// Tasks that are started here report their result through it.
    pub handle: Handle,
    /// Something that the next daemon must know has changed.
    pub changed: bool,
}

impl Context {
    pub fn emit(&self, fact: Fact) {
        (self.emit)(fact);
    }

    // ---- the keeper ----

    /// Asks for the process of a worker. The answer comes as [`Message::Spawned`].
    pub fn spawn(&self, spec: &WatcherSpec, id: &WorkerId, prepared: bool, port: Option<u16>) {
        let spec = Box::new(spawn::process_spec(spec, id, &self.run_dir, prepared, port));
        let (keeper, handle, id) = (self.keeper.clone(), self.handle.clone(), id.clone());
        tokio::spawn(async move {
            let answer = keeper.ask(Ask::Spawn { spec }).await;
            handle.send(Message::Spawned(id, answer));
        });
    }

    /// Sends a signal to the worker's own process.
    pub fn signal(&self, id: &WorkerId, signal: i32) {
        self.keeper.notify(Ask::Signal { id: id.to_string(), signal, scope: Scope::Process });
    }

    /// Kills the worker's process and everything that it started.
    pub fn kill_tree(&self, id: &WorkerId) {
        let scope = Scope::Tree;
        self.keeper.notify(Ask::Signal { id: id.to_string(), signal: SIGKILL, scope });
    }

    /// The exit of this process has been dealt with.
    pub fn forget_exit(&self, id: String) {
        self.keeper.notify(Ask::Forget { id });
    }

    // ---- readiness ----

    /// Starts the task that sends [`Message::Ready`] once the worker is ready, or
    /// [`Message::PortTaken`]. `None` if it cannot be observed: the worker then runs into its start
    /// timeout, and `saw` says why.
    pub fn probe(
        &self,
        probe: Probe,
        id: &WorkerId,
        place: Option<Place>,
        saw: &Saw,
    ) -> Option<AbortHandle> {
        let notify = spawn::notify_path(&self.run_dir, id);
        let prepared = match probe::prepare(&probe, place, &notify) {
            Ok(prepared) => prepared,
            Err(error) => {
                lock(saw).text = format!("the socket {} cannot be made: {error}", notify.display());
                return None;
            }
        };
        let (handle, id, saw) = (self.handle.clone(), id.clone(), saw.clone());
        let task = tokio::spawn(async move {
            handle.send(match probe::until_ready(probe, prepared, saw).await {
                Found::Ready => Message::Ready(id),
                Found::PortTaken => Message::PortTaken(id),
            });
        });
        Some(task.abort_handle())
    }

    /// Starts the task that asks a worker which was ready whether it still answers, and sends
    /// [`Message::Checked`]. `was_idle`: it had nothing in hand.
    pub fn check(
        &self,
        id: &WorkerId,
        question: Question,
        was_idle: bool,
        saw: &Saw,
    ) -> AbortHandle {
        let (handle, id, saw) = (self.handle.clone(), id.clone(), saw.clone());
        let task = tokio::spawn(async move {
            let checked = probe::check(&question, &saw).await;
            handle.send(Message::Checked { id, was_idle, checked });
        });
        task.abort_handle()
    }

    // ---- requests ----

    /// Gives requests to a worker, if it serves any: where it takes them, and its process.
    pub fn admit(
        &mut self,
        spec: &WatcherSpec,
        id: &WorkerId,
        (address, pid): (Option<Address>, Option<u32>),
    ) {
        let (Some(upstream), Some(address)) = (&spec.upstream, address) else { return };
        if let (Address::Socket(socket), Some(link)) = (&address, spec.socket_link_of(id)) {
            // Requests reach the worker by its socket; only people use the link.
            let _ = disk::relink(&link, socket);
        }
        let dir = Some(spec.cwd.clone());
        self.traffic.admit(upstream, Peer { worker: id.clone(), address, dir, pid });
    }

    // ---- files ----

    /// Removes the sockets of a worker that has no process, and the link if it leads to them.
    pub fn remove_sockets(&self, spec: &WatcherSpec, id: &WorkerId) {
        let _ = std::fs::remove_file(spawn::notify_path(&self.run_dir, id));
        if let Some(socket) = spec.socket_of(id).filter(|_| id.watcher == WatcherName::front()) {
            remove_beside(&socket);
        }
        let (Some(socket), Some(link)) = (spec.socket_of(id), spec.socket_link_of(id)) else {
            return;
        };
        let _ = std::fs::remove_file(&socket);
        if std::fs::read_link(&link).is_ok_and(|to| to == socket) {
            let _ = std::fs::remove_file(link);
        }
    }
}

/// Removes what a front that was killed has left beside its socket `front_N.K.socket`: a front
/// behind nginx has sockets whose names begin with the same words.
fn remove_beside(socket: &Path) {
    let (Some(dir), Some(stem)) = (socket.parent(), socket.file_stem()) else { return };
    let start = format!("{}.", stem.to_string_lossy());
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&start) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

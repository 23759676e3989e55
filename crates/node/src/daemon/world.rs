//! What the node sees of the world: the keeper, the fronts, the clock and the disk, each behind
//! a small trait. A test, or a simulation of a whole node, plays them.

use std::collections::BTreeMap;
use std::sync::Arc;

use mfserv_core::Diagnostic;
use mfserv_core::names::WorkerId;
use mfserv_core::node_state::NodeState;
use mfserv_core::route::RouteTable;
use mfserv_core::wire::front::{Breakage, Peer, Stats};
use mfserv_core::wire::keeper::{Answer, Ask};
use mfserv_platform::clock::{Clock, SystemClock};
use mfserv_platform::disk::{Disk, RealDisk};
use mfserv_supervisor::{KeeperLink, Traffic};

use crate::control::Pending;

/// Who holds the listening sockets and is the parent of every process.
pub trait Keeper: Send + Sync {
    /// Asks, and waits for the answer. An error if the keeper refuses or is lost.
    fn ask(&self, ask: Ask) -> Pending<'_, Result<Answer, Diagnostic>>;

    /// Asks without waiting for the answer; a refusal is of no interest.
    fn send(&self, ask: Ask);
}

impl Keeper for KeeperLink {
    fn ask(&self, ask: Ask) -> Pending<'_, Result<Answer, Diagnostic>> {
        Box::pin(KeeperLink::ask(self, ask))
    }

    fn send(&self, ask: Ask) {
        KeeperLink::notify(self, ask);
    }
}

/// The living fronts, as one.
pub trait Front: Send + Sync {
    /// Every front routes by this table from now on; returns when they all do.
    fn publish(&self, generation: u64, table: RouteTable) -> Pending<'_, Result<(), Diagnostic>>;

    /// The counters of the fronts that answer soon, summed over them.
    fn stats(&self) -> Pending<'_, Stats>;

    /// The node has this state: what the health endpoint answers.
    fn state(&self, state: NodeState);

    /// These plugins under development, by name, have code that does not start.
    fn broken(&self, broken: BTreeMap<String, Breakage>);

    /// This worker is ready: give it requests.
    fn admit(&self, upstream: &str, peer: Peer);

    /// Give it no more. The supervisor is told once it holds none.
    fn drain(&self, upstream: &str, worker: &WorkerId);

    /// Its process is gone.
    fn forget(&self, upstream: &str, worker: &WorkerId);

    /// Which of these workers, by upstream, have nothing in hand? The supervisor is told.
    fn ask_idle(&self, workers: BTreeMap<String, Vec<WorkerId>>);
}

/// The fronts, as the supervisor sees them.
pub struct Requests(pub Arc<dyn Front>);

impl Traffic for Requests {
    fn admit(&mut self, upstream: &str, peer: Peer) {
        self.0.admit(upstream, peer);
    }

    fn drain(&mut self, upstream: &str, worker: &WorkerId) {
        self.0.drain(upstream, worker);
    }

    fn forget(&mut self, upstream: &str, worker: &WorkerId) {
        self.0.forget(upstream, worker);
    }

    fn ask_idle(&mut self, workers: BTreeMap<String, Vec<WorkerId>>) {
        self.0.ask_idle(workers);
    }
}

/// Everything outside of the node that it speaks with.
#[derive(Clone)]
pub struct World {
    /// The keeper.
    pub keeper: Arc<dyn Keeper>,
    /// The fronts.
    pub fronts: Arc<dyn Front>,
    /// The wall clock. Waiting is tokio's, which a test can pause.
    pub clock: Arc<dyn Clock>,
    /// The files that the daemon keeps.
    pub disk: Arc<dyn Disk>,
}

impl World {
    /// The world of a real node.
    pub fn real(keeper: KeeperLink, fronts: Arc<dyn Front>) -> World {
        World {
            keeper: Arc::new(keeper),
            fronts,
            clock: Arc::new(SystemClock),
            disk: Arc::new(RealDisk),
        }
    }
}

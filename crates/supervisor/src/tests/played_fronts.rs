//! The fronts, played.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use mfserv_core::names::WorkerId;
use mfserv_core::wire::front::{Address, Peer};
use tokio::time::Instant;

use crate::{Handle, Traffic};

/// The fronts, played: who is given requests, and who still holds some.
#[derive(Default)]
pub struct Fronts {
    pub serving: BTreeSet<String>,
    pub fewest: usize,
    pub most: usize,
    /// Workers whose requests take long.
    pub busy: BTreeSet<String>,
    /// When a worker's last request was over; an hour ago, if nothing says so.
    pub served: BTreeMap<String, Instant>,
    /// How many idle workers were asked for at a time.
    pub asked: Vec<usize>,
    pub draining: BTreeSet<String>,
    pub addresses: BTreeMap<String, Address>,
    pub forgotten: Vec<String>,
    pub handle: Option<Handle>,
}

pub struct PlayedFronts(pub Arc<Mutex<Fronts>>);

impl Traffic for PlayedFronts {
    fn admit(&mut self, upstream: &str, peer: Peer) {
        let mut fronts = self.0.lock().unwrap();
        assert_eq!(upstream, peer.worker.watcher.as_str());
        fronts.addresses.insert(peer.worker.to_string(), peer.address);
        fronts.serving.insert(peer.worker.to_string());
        fronts.most = fronts.most.max(fronts.serving.len());
    }

    fn drain(&mut self, _: &str, worker: &WorkerId) {
        let mut fronts = self.0.lock().unwrap();
        fronts.serving.remove(&worker.to_string());
        fronts.fewest = fronts.fewest.min(fronts.serving.len());
        match fronts.busy.contains(&worker.to_string()) {
            true => drop(fronts.draining.insert(worker.to_string())),
            false => fronts.handle.as_ref().unwrap().drained(worker.clone()),
        }
    }

    fn forget(&mut self, _: &str, worker: &WorkerId) {
        let mut fronts = self.0.lock().unwrap();
        fronts.serving.remove(&worker.to_string());
        fronts.draining.remove(&worker.to_string());
        fronts.fewest = fronts.fewest.min(fronts.serving.len());
        fronts.forgotten.push(worker.to_string());
    }
    fn ask_idle(&mut self, workers: BTreeMap<String, Vec<WorkerId>>) {
        let mut fronts = self.0.lock().unwrap();
        let asked: Vec<WorkerId> = workers.into_values().flatten().collect();
        fronts.asked.push(asked.len());
        let quiet = asked.into_iter().filter_map(|worker| {
            let name = worker.to_string();
            let serves = fronts.serving.contains(&name) && !fronts.busy.contains(&name);
            let for_ms = fronts.served.get(&name).map_or(3_600_000, |at| at.elapsed().as_millis());
            serves.then_some((worker, for_ms as u64))
        });
        let quiet = quiet.collect();
        fronts.handle.as_ref().unwrap().idle(quiet);
    }
}

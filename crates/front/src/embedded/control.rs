//! The control socket of a front: the daemon's messages (`ToFront`) are obeyed, and
//! answered or followed by messages to it (`FromFront`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mfserv_core::names::WorkerId;
use mfserv_core::route::Amendment;
use mfserv_core::wire::front::{FromFront, Peer, Stats, ToFront, TroubleCause, VERSION};
use mfserv_platform::link::{AsyncLink, LinkError};
use tokio::net::UnixStream;

use super::lanes::threads::Lanes;
use super::request::state::Front;
use crate::control_socket::WRITE_PATIENCE;

/// Serves one daemon, until it disconnects.
pub async fn converse(front: &Front, lanes: &Arc<Lanes>, stream: UnixStream) -> Result<(), String> {
    let mut link = AsyncLink::new(stream);
    let mut reports = front.pool.reports();
    // Workers that the daemon wants drained: at most one entry for each.
    let mut owed: BTreeSet<(String, WorkerId)> = BTreeSet::new();
    let mut answers = vec![hello(front)];
    let mut reported = None;
    loop {
        reports.borrow_and_update();
        owed.retain(|(upstream, worker)| {
            let held = front.pool.holds(upstream, worker);
            if !held {
                answers.push(FromFront::Drained { worker: worker.clone() });
            }
            held
        });
        let (troubles, next) = front.pool.troubles(reported);
        reported = Some(next);
        let trouble = |(worker, cause, detail)| FromFront::Trouble { worker, cause, detail };
        answers.extend(troubles.into_iter().map(trouble));
        send(&mut link, &mut answers).await?;
        tokio::select! {
            message = link.receive() => match message {
                Ok(message) => answers.extend(obey(front, lanes, message, &mut owed)),
                Err(LinkError::Closed | LinkError::Cut) => return Ok(()),
                Err(why) => return Err(why.to_string()),
            },
            _ = reports.changed() => {}
        }
        // Messages that arrived together are answered together.
        while let Some(message) = link.buffered().map_err(|e| e.to_string())? {
            answers.extend(obey(front, lanes, message, &mut owed));
        }
    }
}

fn hello(front: &Front) -> FromFront {
    FromFront::Hello {
        version: VERSION,
        pid: std::process::id(),
        generation: front.generation(),
        peers: front
            .pool
            .upstreams()
            .iter()
            .map(|one| (one.name.clone(), one.admitted()))
            .collect(),
    }
}

async fn send(link: &mut AsyncLink, answers: &mut Vec<FromFront>) -> Result<(), String> {
    let answers = std::mem::take(answers);
    match tokio::time::timeout(WRITE_PATIENCE, link.send_all(&answers)).await {
        Ok(written) => written.map_err(|e| e.to_string()),
        Err(_) => Err("it does not read".into()),
    }
}

/// Obeys a message; returns the answer, if it has one at once.
fn obey(
    front: &Front,
    lanes: &Arc<Lanes>,
    message: ToFront,
    owed: &mut BTreeSet<(String, WorkerId)>,
) -> Option<FromFront> {
    match message {
        // Unknown fields are ignored, so every version is welcome.
        ToFront::Hello { .. } => None,
        ToFront::Publish { generation, table, peers } => {
            Some(publish(front, lanes, (None, generation), Amendment::whole(*table), &peers))
        }
        ToFront::Amend { base, generation, amendment, peers } => {
            Some(publish(front, lanes, (Some(base), generation), *amendment, &peers))
        }
        ToFront::Admit { upstream, peer } => Some(match front.pool.upstream(&upstream) {
            Some(app) => {
                app.admit(&peer);
                lanes.link_workers(&[app]);
                FromFront::Admitted { worker: peer.worker }
            }
            None => {
                let (worker, detail) = (peer.worker, String::new());
                FromFront::Trouble { worker, cause: TroubleCause::UnknownApp, detail }
            }
        }),
        ToFront::Drain { upstream, worker } => {
            if let Some(app) = front.pool.upstream(&upstream) {
                app.drain(&worker);
            }
            owed.insert((upstream, worker));
            None
        }
        ToFront::Forget { upstream, worker } => {
            front.pool.forget(&upstream, &worker);
            None
        }
        ToFront::State { node, broken, backing_off } => {
            front.set_node_state(node);
            for upstream in front.pool.upstreams() {
                upstream.rest_until(backing_off.get(&upstream.name).copied().unwrap_or(0));
            }
            front.extensions.set_state(&broken);
            None
        }
        ToFront::Idle { workers } => Some(FromFront::Idle { quiet: front.pool.quiet(&workers) }),
        ToFront::Stats => Some(FromFront::Stats(Stats {
            connections: front.connections(),
            accepted: front.accepted(),
            requests: front.requests().0,
            under_way: front.under_way(),
            upstreams: front.pool.stats(),
            warnings: front.warnings(),
        })),
    }
}

fn publish(
    front: &Front,
    lanes: &Arc<Lanes>,
    (base, generation): (Option<u64>, u64),
    amendment: Amendment,
    peers: &BTreeMap<String, Vec<Peer>>,
) -> FromFront {
    let threads = amendment.server.threads as usize;
    match front.publish(base, generation, amendment, peers) {
        Ok(()) => {
            if let Err(why) = lanes.grow(threads) {
                front.errors.report(&format!("fewer than {threads} threads: {why}"));
            }
            let renewed: Vec<_> = peers.keys().filter_map(|app| front.pool.upstream(app)).collect();
            lanes.link_workers(&renewed);
            FromFront::Published { generation }
        }
        Err(reason) => {
            front.errors.report(&format!("table {generation} refused: {reason}"));
            FromFront::Refused { generation, reason }
        }
    }
}

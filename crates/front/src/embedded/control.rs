//! What the daemon says to this front, and what the front says back.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_core::names::WorkerId;
use mfserv_core::route::Amendment;
use mfserv_core::wire::front::{FromFront, Peer, Stats, ToFront, VERSION};
use mfserv_platform::link::{AsyncLink, LinkError};
use tokio::net::{UnixListener, UnixStream};

use crate::embedded::lanes::lane::Lanes;
use crate::embedded::request::state::Front;

/// Daemons (and who looks over their shoulder) at the same time.
const CONNECTIONS_MAX: usize = 8;
/// A daemon that does not read for so long is let go.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// Listens where the daemon will look for this front. What an earlier process left
/// there is replaced.
pub fn listen(path: &Path) -> Result<UnixListener, Diagnostic> {
    let cannot = |why: std::io::Error| {
        Diagnostic::error(format!("the front cannot listen on {}", path.display())).because(why)
    };
    match std::fs::remove_file(path) {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => return Err(cannot(why)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(cannot)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(cannot)?;
    Ok(listener)
}

/// Serves daemons, one after the other or side by side, for ever.
pub async fn serve(front: Arc<Front>, lanes: Arc<Lanes>, listener: UnixListener) {
    let open = Rc::new(Cell::new(0));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        if open.get() >= CONNECTIONS_MAX {
            continue;
        }
        open.set(open.get() + 1);
        let (front, lanes, open) = (front.clone(), lanes.clone(), open.clone());
        tokio::task::spawn_local(async move {
            if let Err(why) = talk(&front, &lanes, stream).await {
                front.errors.say(&format!("daemon: {why}"));
            }
            open.set(open.get() - 1);
        });
    }
}

/// One daemon, until it goes.
async fn talk(front: &Front, lanes: &Arc<Lanes>, stream: UnixStream) -> Result<(), String> {
    let mut link = AsyncLink::new(stream);
    let mut stirred = front.signals.stir.subscribe();
    let mut owed: Vec<(String, WorkerId)> = Vec::new();
    let mut said = vec![hello(front)];
    let mut heard = None;
    loop {
        stirred.borrow_and_update();
        owed.retain(|(upstream, worker)| {
            let held = front.holds(upstream, worker);
            if !held {
                said.push(FromFront::Drained { worker: worker.clone() });
            }
            held
        });
        let (troubles, next) = front.troubles(heard);
        heard = Some(next);
        let tell = |(worker, cause): (_, &str)| FromFront::Trouble { worker, cause: cause.into() };
        said.extend(troubles.into_iter().map(tell));
        send(&mut link, &mut said).await?;
        tokio::select! {
            message = link.receive() => match message {
                Ok(message) => said.extend(obey(front, lanes, message, &mut owed)),
                Err(LinkError::Closed | LinkError::Cut) => return Ok(()),
                Err(why) => return Err(why.to_string()),
            },
            _ = stirred.changed() => {}
        }
        // all that arrived together is answered together
        while let Some(message) = link.buffered().map_err(|e| e.to_string())? {
            said.extend(obey(front, lanes, message, &mut owed));
        }
    }
}

fn hello(front: &Front) -> FromFront {
    FromFront::Hello {
        version: VERSION,
        pid: std::process::id(),
        generation: front.generation(),
        peers: front.upstreams().iter().map(|one| (one.name.clone(), one.admitted())).collect(),
    }
}

async fn send(link: &mut AsyncLink, said: &mut Vec<FromFront>) -> Result<(), String> {
    let said = std::mem::take(said);
    match tokio::time::timeout(WRITE_PATIENCE, link.send_all(&said)).await {
        Ok(written) => written.map_err(|e| e.to_string()),
        Err(_) => Err("it does not read".into()),
    }
}

/// Does what is said; returns what is answered at once.
fn obey(
    front: &Front,
    lanes: &Arc<Lanes>,
    message: ToFront,
    owed: &mut Vec<(String, WorkerId)>,
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
        ToFront::Admit { upstream, peer } => Some(match front.upstream(&upstream) {
            Some(app) => {
                app.admit(&peer);
                FromFront::Admitted { worker: peer.worker }
            }
            None => FromFront::Trouble { worker: peer.worker, cause: "unknown_app".into() },
        }),
        ToFront::Drain { upstream, worker } => {
            if let Some(app) = front.upstream(&upstream) {
                app.drain(&worker);
            }
            owed.push((upstream, worker));
            None
        }
        ToFront::Forget { upstream, worker } => {
            front.forget(&upstream, &worker);
            None
        }
        ToFront::State { node, broken } => {
            front.set_node_state(node);
            front.broken.set(broken);
            None
        }
        ToFront::Stats => Some(FromFront::Stats(Stats {
            connections: front.connections(),
            accepted: front.accepted(),
            requests: lanes.requests().0,
            upstreams: front.upstream_stats(),
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
                front.errors.say(&format!("fewer than {threads} threads: {why}"));
            }
            FromFront::Published { generation }
        }
        Err(reason) => {
            front.errors.say(&format!("table {generation} refused: {reason}"));
            FromFront::Refused { generation, reason }
        }
    }
}

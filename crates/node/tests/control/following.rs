//! A client that follows an operation: when it stops looking, and what it leaves alone.

use std::time::Duration;

use mfserv_core::Kind;
use mfserv_node::control::protocol::Version;
use mfserv_plugin::Cancel;

use crate::{Daemon, PATIENCE, Played, followed, id, step};

#[tokio::test]
async fn a_follower_stops_looking_when_its_patience_ends() {
    let daemon = Daemon::with(Played { stays_open: true, ..Played::default() }, Version::own());
    daemon.node.events.lock().unwrap().insert(id("one"), vec![step(1, "starting")]);
    let patience = Duration::from_millis(50);
    let (outcome, _) = followed(daemon.socket(), patience, Cancel::default()).await;
    let problem = outcome.unwrap_err();
    assert_eq!(problem.kind, Kind::Timeout);
    assert!(problem.help.unwrap().contains("mfserv wait one"));
}

#[tokio::test]
async fn ctrl_c_leaves_an_operation_alone_that_is_committed() {
    let node = Played { stays_open: true, committed: true, ..Played::default() };
    let daemon = Daemon::with(node, Version::own());
    daemon.node.events.lock().unwrap().insert(id("one"), vec![step(1, "serving")]);
    let cancel = Cancel::default();
    cancel.cancel();
    let (outcome, _) = followed(daemon.socket(), PATIENCE, cancel).await;
    let problem = outcome.unwrap_err();
    assert_eq!(problem.because, ["it is committed"]);
    assert!(problem.help.unwrap().contains("mfserv wait one"));
}

#[tokio::test]
async fn an_operation_that_nobody_knows_is_not_waited_for() {
    let daemon = Daemon::start();
    let (outcome, _) = followed(daemon.socket(), PATIENCE, Cancel::default()).await;
    assert_eq!(outcome.unwrap_err().kind, Kind::Usage);
}

//! `mfserv stop` ends everything, whoever is dead or deaf.

use std::time::{Duration, Instant};

use mfserv_testkit::{Load, Node, Plugin, Signal, kill, process, programs, until};

use crate::{PATIENCE, Turn, node};

/// How long a stop may take when nobody helps.
const BOUND: Duration = Duration::from_secs(40);

fn serving() -> Node {
    let node = node();
    node.add(&Plugin::python("hello", programs::SERVES).key("app_main", "numprocesses", "2"));
    node.add(&Plugin::python("deaf", programs::DEAF).key("app_main", "smart_stop_delay", "1"));
    node.start();
    node
}

#[track_caller]
fn assert_stop_ends_everything(node: &Node, hash: Option<&str>) {
    let began = Instant::now();
    node.mfserv(&["stop"]).code(0);
    assert!(began.elapsed() < BOUND, "it took {:?}", began.elapsed());
    node.assert_nothing_left(hash);
    node.mfserv(&["status"]).code(3);
}

#[test]
fn stop_ends_everything_while_the_daemon_is_stopped() {
    let _turn = Turn::cheap();
    let node = serving();
    let hash = node.hash();
    kill(node.role_pid("daemon"), Signal::STOP);
    assert_stop_ends_everything(&node, hash.as_deref());
}

#[test]
fn stop_ends_everything_while_the_daemon_is_being_restarted() {
    let _turn = Turn::cheap();
    let node = serving();
    let hash = node.hash();
    kill(node.role_pid("daemon"), Signal::KILL);
    assert_stop_ends_everything(&node, hash.as_deref());
}

#[test]
fn stop_ends_everything_while_the_keeper_is_dead() {
    let _turn = Turn::cheap();
    let node = serving();
    let hash = node.hash();
    node.kill(node.role_pid("keep"));
    assert_stop_ends_everything(&node, hash.as_deref());
}

#[test]
fn stop_ends_everything_while_keeper_daemon_and_front_are_dead() {
    let _turn = Turn::cheap();
    let node = serving();
    let hash = node.hash();
    let roles = ["keep", "daemon", "front"].map(|role| node.role_pid(role));
    roles.iter().for_each(|pid| kill(*pid, Signal::KILL));
    until("they are gone", PATIENCE, || roles.iter().all(|pid| process(*pid).is_none()));
    assert_stop_ends_everything(&node, hash.as_deref());
}

#[test]
fn the_keeper_ends_everything_in_order_when_it_is_asked_to_end() {
    let _turn = Turn::cheap();
    let node = serving();
    let hash = node.hash();
    let keeper = node.role_pid("keep");
    kill(keeper, Signal::TERM);
    until("everything has ended", BOUND, || node.processes(hash.as_deref()).is_empty());
    assert_eq!(std::fs::read_to_string(node.path("var/status")).unwrap(), "STOPPED\n");
    node.mfserv(&["stop"]).code(0);
    node.assert_nothing_left(hash.as_deref());
}

#[test]
fn requests_under_way_are_finished_before_the_workers_end() {
    let _turn = Turn::cheap();
    let node = serving();
    let address = node.address();
    let slow = std::thread::spawn(move || mfserv_testkit::get(address, "/hello/slow?1500"));
    until("the request is being handled", PATIENCE, || {
        node.log_lines("app_hello_main").iter().any(|line| line == "slow begins")
    });
    node.stop();
    let answer = slow.join().unwrap().expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (200, "slow"));
}

#[test]
fn a_node_stopped_under_load_can_be_started_again_at_once() {
    let _turn = Turn::heavy();
    let node = serving();
    let load = Load::new(node.address(), "/hello").connections(16).start();
    for _ in 0..2 {
        node.stop();
        node.start();
    }
    let before = load.answered();
    until("the load is served again", PATIENCE, || load.answered() > before + 50);
    load.stop();
    node.stop();
}

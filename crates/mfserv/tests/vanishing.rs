//! What a role has made and needs is made again when a cleaner, a program or a person removes it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use mfserv_platform::clock::now_ms;
use mfserv_testkit::{Node, Plugin, programs, until};

use crate::{PATIENCE, Turn, node};

/// A role looks every 2 s.
const HEALED: Duration = Duration::from_secs(5);

fn serving() -> Node {
    let node = node();
    node.add(&Plugin::python("hello", programs::SERVES).key("app_main", "numprocesses", "2"));
    node.start();
    node
}

fn roles(node: &Node) -> [u32; 3] {
    ["keep", "daemon", "front"].map(|role| node.role_pid(role))
}

fn sockets(node: &Node) -> Vec<PathBuf> {
    let entries = fs::read_dir(node.path("var/run")).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .filter(|path| path.extension().is_some_and(|end| end == "sock" || end == "socket"))
        .collect()
}

#[test]
fn the_sockets_of_all_roles_are_made_again_and_no_role_is_replaced() {
    let _turn = Turn::cheap();
    let node = serving();
    let (before, made) = (roles(&node), sockets(&node));
    assert!(made.len() >= 3, "keeper, daemon and front have one each: {made:?}");
    made.iter().for_each(|socket| fs::remove_file(socket).unwrap());
    until("they are there again", HEALED, || made.iter().all(|socket| socket.exists()));
    node.mfserv(&["status"]).code(0);
    node.add(&Plugin::python("second", programs::SERVES));
    node.mfserv(&["reload"]).code(0);
    assert_eq!(node.get("/second").status, 200);
    assert_eq!(roles(&node), before);
    // The next daemon finds the same front by its socket.
    node.kill(before[1]);
    node.runs();
    assert_eq!(roles(&node)[2], before[2]);
    node.stop();
}

#[test]
fn status_start_and_stop_work_at_once_without_the_sockets() {
    let _turn = Turn::cheap();
    let node = serving();
    let hash = node.hash();
    // Roles that are younger may be about to make their first socket.
    until("the roles have lived for a while", PATIENCE, || {
        node.status().daemon.since_ms + 3000 < now_ms()
    });
    let before = roles(&node);
    let remove = || {
        for name in ["keep.sock", "control.sock"] {
            let _ = fs::remove_file(node.path("var/run").join(name));
        }
    };
    remove();
    node.mfserv(&["status"]).code(0);
    remove();
    let ran = node.mfserv(&["start"]).code(0);
    assert!(ran.stdout.contains("already running"), "{ran:?}");
    assert_eq!(roles(&node), before);
    remove();
    node.mfserv(&["stop"]).code(0);
    node.assert_nothing_left(hash.as_deref());
}

#[test]
fn a_node_whose_var_run_is_removed_as_a_whole_goes_on_with_one_keeper_and_stops() {
    let _turn = Turn::cheap();
    let node = serving();
    let hash = node.hash();
    until("the roles have lived for a while", PATIENCE, || {
        node.status().daemon.since_ms + 3000 < now_ms()
    });
    let (before, workers) = (roles(&node), node.worker_pids());
    fs::remove_dir_all(node.path("var/run")).unwrap();
    node.mfserv(&["start"]).code(0);
    assert_eq!(roles(&node), before, "a second keeper would kill what it does not know");
    until("what is needed is there again", HEALED, || {
        ["keeper.lock", "keeper.json", "keep.sock", "control.sock", "fifo"]
            .iter()
            .all(|name| node.path("var/run").join(name).exists())
    });
    node.mfserv(&["status"]).code(0);
    assert_eq!(node.worker_pids(), workers);
    // Something new can be started: its FIFO has a place.
    node.add(&Plugin::python("second", programs::SERVES));
    node.mfserv(&["reload"]).code(0);
    assert_eq!(node.get("/second").status, 200);
    assert_eq!(node.get("/hello").status, 200);
    node.mfserv(&["stop"]).code(0);
    node.assert_nothing_left(hash.as_deref());
}

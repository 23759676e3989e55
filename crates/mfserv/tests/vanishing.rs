//! What a role has made and needs is made again when a cleaner, a program or a person removes it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use mfserv_core::event::{EndReason, Fact};
use mfserv_core::node_state::NodeState;
use mfserv_platform::clock::now_ms;
use mfserv_testkit::{Load, Node, Plugin, Signal, kill, programs, until};

use crate::{PATIENCE, Turn, node};

/// A role looks every 2 s; the rest is for a busy machine.
const HEALED: Duration = Duration::from_secs(30);

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
fn status_and_stop_wait_for_the_daemon_that_follows_one_that_has_died() {
    let _turn = Turn::cheap();
    let node = serving();
    let hash = node.hash();
    for _ in 0..3 {
        let daemon = node.role_pid("daemon");
        node.kill(daemon);
        node.mfserv(&["status"]).code(0);
        assert_ne!(node.role_pid("daemon"), daemon);
    }
    // The commands of MFSERV, and those that ask for something else.
    for args in [&["jobs"][..], &["jobs", "--json"], &["ps"]] {
        node.kill(node.role_pid("daemon"));
        node.mfserv(args).code(0);
    }
    let old = node.path("mfserv.status");
    std::os::unix::fs::symlink(crate::PROGRAM, &old).unwrap();
    node.kill(node.role_pid("daemon"));
    let ran = mfserv_testkit::Ran::of(node.other(&old, &[]));
    assert!(ran.stdout.contains("Checking circus status... [ OK ]"), "{ran:?}");
    node.kill(node.role_pid("daemon"));
    node.mfserv(&["stop"]).code(0);
    node.assert_nothing_left(hash.as_deref());
    let stops = |event: &mfserv_core::event::Event| {
        event.fact == Fact::NodeState { state: NodeState::Stopping }
    };
    assert!(node.events().iter().any(stops), "it was not killed");
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

/// The socket of a worker of `hello`.
fn socket_of(node: &Node, slot: u32) -> PathBuf {
    let link = node.path(&format!("var/app_hello_main_{slot}.socket"));
    fs::read_link(&link).unwrap_or_else(|e| panic!("{}: {e}", link.display()))
}

fn is_stuck(node: &Node, pid: u32) -> bool {
    let mut worker = None;
    node.events().into_iter().any(|event| match event.fact {
        Fact::WorkerStarted { worker: id, pid: started } if started == pid => {
            worker = Some(id);
            false
        }
        Fact::WorkerEnded { worker: ended, why: EndReason::Stuck { .. }, .. } => {
            worker.as_ref() == Some(&ended)
        }
        _ => false,
    })
}

#[test]
fn a_worker_whose_socket_is_removed_under_load_is_replaced_alone_and_no_request_fails() {
    let _turn = Turn::heavy();
    let node = serving();
    let watcher = node.watcher("app.hello.main");
    let pid = |slot| watcher.workers.iter().find(|w| w.id.slot == slot).unwrap().pid.unwrap();
    let load = Load::new(node.address(), "/hello").connections(4).start();
    load.answers(50);
    fs::remove_file(socket_of(&node, 1)).unwrap();
    until("it is replaced", PATIENCE, || is_stuck(&node, pid(1)));
    load.answers(50);
    load.stop().assert_nothing_failed();
    assert!(node.pids("app.hello.main").contains(&pid(2)));
    node.settled("app.hello.main");
    node.stop();
}

#[test]
fn the_only_worker_without_its_socket_is_replaced_and_its_link_is_made_again() {
    let _turn = Turn::cheap();
    let node = node();
    node.add(&Plugin::python("hello", programs::SERVES).key("app_main", "numprocesses", "1"));
    node.start();
    let before = node.pids("app.hello.main");
    let link = node.path("var/app_hello_main_1.socket");
    fs::remove_file(socket_of(&node, 1)).unwrap();
    fs::remove_file(&link).unwrap();
    assert_eq!(node.get("/hello").status, 200, "the request waits for the next worker");
    until(
        "another worker serves",
        PATIENCE,
        || matches!(node.pids("app.hello.main")[..], [other] if other != before[0]),
    );
    until("the link leads to a socket", PATIENCE, || link.exists());
    until("its end is told", PATIENCE, || is_stuck(&node, before[0]));
    node.stop();
}

#[test]
fn a_worker_that_a_signal_has_stopped_is_replaced_alone() {
    let _turn = Turn::cheap();
    let node = serving();
    let before = node.pids("app.hello.main");
    kill(before[0], Signal::STOP);
    until("status says so", PATIENCE, || {
        let ran = node.mfserv(&["status"]);
        ran.stdout.contains("does not answer") || is_stuck(&node, before[0])
    });
    until("it is replaced", PATIENCE, || is_stuck(&node, before[0]));
    let after = node.settled("app.hello.main");
    assert_eq!(after.ready, 2);
    assert!(node.pids("app.hello.main").contains(&before[1]));
    node.stop();
}

#[test]
fn a_worker_whose_request_takes_too_long_is_left_alone_while_it_answers_others() {
    let _turn = Turn::cheap();
    let node = node();
    let app = Plugin::python("hello", programs::SERVES).key("app_main", "numprocesses", "1");
    node.add(&app.key("app_main", "timeout", "3"));
    node.start();
    let before = node.pids("app.hello.main");
    assert_eq!(node.get("/hello/slow?30000").status, 504);
    let asked = std::time::Instant::now();
    until("three misses would have ended it", PATIENCE, || {
        node.get("/hello").status == 200 && asked.elapsed() > Duration::from_secs(4)
    });
    assert_eq!(node.pids("app.hello.main"), before);
    node.stop();
}

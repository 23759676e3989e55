//! Roles that come back, or hang, beside a configuration that is not what it was.

use std::time::{Duration, Instant};

use mfserv_core::status::WatcherState;
use mfserv_core::worker::Phase;
use mfserv_testkit::{Node, Plugin, Signal, kill, programs, until};

use crate::{PATIENCE, Turn, node};

fn serving(name: &str) -> Node {
    let node = node();
    node.add(&Plugin::python(name, programs::SERVES).key("app_main", "numprocesses", "2"));
    node.start();
    node
}

fn kill_the_daemon(node: &Node) {
    let before = node.status().daemon.pid;
    node.kill(before);
    until("another daemon answers", PATIENCE, || {
        node.try_status().is_some_and(|status| status.daemon.pid != before)
    });
}

#[test]
fn a_node_whose_configuration_is_broken_goes_on_as_it_was_when_its_daemon_is_killed() {
    let _turn = Turn::cheap();
    let node = serving("stays");
    let config = node.path("config/config.ini");
    let good = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{good}\nthis line is no assignment\n")).unwrap();
    kill_the_daemon(&node);
    let pids = node.pids("app.stays.main");
    assert_eq!(pids.len(), 2);
    assert_eq!(node.get("/__health").status, 200, "it serves, and says so");
    until("the problem is said", PATIENCE, || {
        node.status().notes.iter().any(|note| note.contains("config.ini"))
    });
    node.kill(pids[0]);
    until("a killed worker is replaced all the same", PATIENCE, || {
        let now = node.pids("app.stays.main");
        node.watcher("app.stays.main").ready == 2 && !now.contains(&pids[0])
    });
    assert_eq!(node.get("/stays").status, 200);
    std::fs::write(&config, good).unwrap();
    until("it is read again once it is repaired", PATIENCE, || node.status().notes.is_empty());
    node.stop();
}

#[test]
fn a_front_that_hangs_holds_up_neither_reload_nor_stop() {
    let _turn = Turn::cheap();
    let node = serving("first");
    let front = node.role_pid("front");
    kill(front, Signal::STOP);
    node.add(&Plugin::python("second", programs::SERVES));
    let began = Instant::now();
    node.mfserv(&["reload", "--timeout", "30"]).code(0);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    until("another front serves the new plugin", PATIENCE, || {
        node.role_pids("front").iter().any(|pid| *pid != front) && node.get("/second").status == 200
    });
    kill(front, Signal::KILL);
    node.stop();
}

#[test]
fn an_app_that_is_scaled_to_nothing_comes_back_when_it_is_scaled_again() {
    let _turn = Turn::cheap();
    let node = serving("scaled");
    node.mfserv(&["scale", "scaled", "0"]).code(0);
    until("nothing of it lives", PATIENCE, || {
        node.watcher("app.scaled.main").state == WatcherState::Off
    });
    assert_eq!(node.get("/scaled").status, 503, "at once, not after the queue's patience");
    node.mfserv(&["scale", "scaled", "3"]).code(0);
    assert_eq!(node.settled("app.scaled.main").ready, 3);
    node.mfserv(&["scale", "scaled", "config"]).code(0);
    assert_eq!(node.settled("app.scaled.main").wanted, 2);
    assert_eq!(node.get("/scaled").status, 200);
    node.mfserv(&["scale", "front", "3"]).code(2);
    node.stop();
}

/// Says once that it is ready, as sd_notify(3) does, and then nothing more.
const SAYS_READY_ONCE: &str = r#"
import os, socket, time
to = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
to.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
while True:
    time.sleep(60)
"#;

#[test]
fn a_worker_that_has_said_once_that_it_is_ready_is_ready_for_the_next_daemon_too() {
    let _turn = Turn::cheap();
    let node = node();
    let daemon = Plugin::new("notes")
        .file("ready.py", SAYS_READY_ONCE)
        .key("extra_daemon_once", "_cmd_and_args", "python3 {plugin_dir}/ready.py")
        .key("extra_daemon_once", "numprocesses", "1")
        .key("extra_daemon_once", "_ready", "notify")
        .key("extra_daemon_once", "_start_timeout", "4");
    node.add(&daemon);
    node.start();
    let before = node.settled("extra.notes.once");
    // On a busy machine the first one may have been given up.
    let ready = serde_json::json!([before.workers[0].id.incarnation]);
    // What is remembered is written a moment after it has happened; that of other watchers may be there before.
    until("its readiness is remembered", PATIENCE, || {
        let text = std::fs::read(node.path("var/run/supervisor.json")).unwrap_or_default();
        let saved: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        saved["watchers"]["extra.notes.once"]["ready"] == ready
    });
    kill_the_daemon(&node);
    let ready = |node: &Node| {
        let watcher = node.watcher("extra.notes.once");
        watcher.workers.iter().any(|worker| worker.phase == Phase::Ready)
    };
    until("it is found ready", PATIENCE, || ready(&node));
    let found = Instant::now();
    until("its start would have been given up", PATIENCE, || {
        found.elapsed() > Duration::from_secs(5)
    });
    let after = node.watcher("extra.notes.once");
    assert_eq!(after.workers[0].pid, before.workers[0].pid, "{after:?}");
    assert_eq!(after.crashes, before.crashes);
    node.stop();
}

#[test]
fn a_repaired_plugin_does_not_wait_for_the_backoff_of_the_broken_one() {
    let _turn = Turn::cheap();
    let node = serving("repaired");
    let broken = Plugin::python("repaired", programs::EXITS_AT_ONCE);
    node.add(&broken.key("app_main", "_cmd_and_args", "false {unix_socket_path}"));
    node.mfserv(&["reload"]).code(1);
    until("its slot waits", PATIENCE, || {
        let workers = node.watcher("app.repaired.main").workers;
        workers.iter().any(|worker| worker.phase == Phase::Backoff)
    });
    node.add(&Plugin::python("repaired", programs::SERVES).key("app_main", "numprocesses", "2"));
    let began = Instant::now();
    node.mfserv(&["reload"]).code(0);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(node.settled("app.repaired.main").ready, 2);
    node.stop();
}

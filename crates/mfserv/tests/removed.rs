//! Directories, files, FIFOs and links below the home are removed while the node runs.

use std::fs;
use std::time::Duration;

use mfserv_testkit::{Client, Method, Node, Plugin, programs, until};

use crate::install::{install, release};
use crate::{PATIENCE, Turn, node, samples};

/// The daemon and the keeper look every 2 s; the rest is for a busy machine.
const HEALED: Duration = Duration::from_secs(30);

fn serving() -> Node {
    let node = node();
    node.add(&Plugin::python("hello", programs::SERVES).key("app_main", "numprocesses", "1"));
    node.start();
    node
}

/// A request whose line is in the log of the app afterwards.
fn logs_a_request(node: &Node, id: &str) {
    let fields = [("X-Load-Id", id)];
    let answer = Client::new(node.address()).ask(Method::Get, "/hello", &fields, b"");
    assert_eq!(answer.unwrap().status, 200);
    until("its line is in the log", PATIENCE, || {
        node.mfserv(&["logs", "hello"]).stdout.contains(&format!("handled GET {id}"))
    });
}

#[test]
fn log_and_tmp_and_state_files_are_made_again_and_workers_go_on_logging() {
    let _turn = Turn::cheap();
    let node = serving();
    let (workers, uuid) = (node.worker_pids(), node.get("/__uuid").text());
    logs_a_request(&node, "before");
    let files = [
        "log/keeper.log",
        "var/status",
        "var/uuid",
        "var/run/supervisor.json",
        "var/run/plan.json",
        "tmp/hello",
        "tmp/config_auto",
    ];
    until("all are there", PATIENCE, || files.iter().all(|file| node.path(file).exists()));
    for file in files.iter().filter(|file| file.starts_with("var/")) {
        fs::remove_file(node.path(file)).unwrap();
    }
    for dir in ["log", "tmp"] {
        fs::remove_dir_all(node.path(dir)).unwrap();
    }
    until("all are made again", HEALED, || files.iter().all(|file| node.path(file).exists()));
    assert_eq!(fs::read_to_string(node.path("var/status")).unwrap(), "RUNNING\n");
    logs_a_request(&node, "after");
    until("the front logs again", PATIENCE, || node.path("log/nginx_access.log").exists());
    node.mfserv(&["reload"]).code(0);
    assert_eq!(node.get("/__uuid").text(), uuid);
    assert_eq!(node.worker_pids(), workers, "nothing was replaced");
    // The next daemon has all that the one before knew.
    node.kill(node.role_pid("daemon"));
    node.runs();
    assert_eq!(node.worker_pids(), workers);
    logs_a_request(&node, "for-the-next-daemon");
    node.stop();
}

#[test]
fn output_is_copied_on_without_the_names_of_its_fifos_also_by_the_next_keeper() {
    let _turn = Turn::cheap();
    let node = serving();
    let workers = node.worker_pids();
    until("the state of the keeper is on the disk", PATIENCE, || {
        let saved = fs::read_to_string(node.path("var/run/keeper.json")).unwrap_or_default();
        saved.contains("app.hello.main")
    });
    for fifo in fs::read_dir(node.path("var/run/fifo")).unwrap().flatten() {
        fs::remove_file(fifo.path()).unwrap();
    }
    logs_a_request(&node, "nameless");
    node.kill(node.role_pid("keep"));
    node.mfserv(&["start"]).code(0);
    logs_a_request(&node, "adopted");
    assert_eq!(node.worker_pids(), workers);
    node.stop();
}

#[test]
fn the_link_of_a_release_is_made_again_and_a_release_that_has_gone_is_said() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let dir = node.path("work/sample_static");
    samples().copy("sample_static", &dir);
    install(&node, &release(&node, &dir));
    let link = node.path("var/plugins/sample_static");
    let leads_to = fs::read_link(&link).unwrap();
    fs::remove_file(&link).unwrap();
    until("the link is there again", HEALED, || link.exists());
    assert_eq!(fs::read_link(&link).unwrap(), leads_to);
    node.mfserv(&["reload"]).code(0);
    assert_eq!(node.get("/sample_static/").status, 200);

    fs::remove_dir_all(node.path("var/releases/sample_static")).unwrap();
    let ran = node.mfserv(&["status"]);
    assert!(ran.stderr.contains("the directory of plugin sample_static has gone"), "{ran:?}");
    assert!(ran.stderr.contains("`mfserv install FILE` makes a new one"), "{ran:?}");

    // One that was uninstalled stays so.
    install(&node, &release(&node, &dir));
    node.mfserv(&["uninstall", "sample_static"]).code(0);
    let uninstalled = std::time::Instant::now();
    until("it was looked at twice", PATIENCE, || {
        assert!(fs::symlink_metadata(&link).is_err(), "it came back");
        uninstalled.elapsed() > Duration::from_secs(5)
    });
    node.stop();
}

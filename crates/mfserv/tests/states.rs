//! Exit codes and states tell the truth.

use mfserv_core::node_state::NodeState;
use mfserv_testkit::{Plugin, Ran, Signal, kill, programs, until};

use crate::compat::OldNames;
use crate::{PATIENCE, Turn, node, tree};

fn serves(name: &str) -> Plugin {
    Plugin::python(name, programs::SERVES)
}

fn exits(name: &str) -> Plugin {
    Plugin::python(name, programs::EXITS_AT_ONCE)
}

#[track_caller]
fn says(ran: &Ran, text: &str) {
    assert!(ran.stdout.contains(text) || ran.stderr.contains(text), "{text}: {ran:?}");
}

#[test]
fn status_and_dev_fail_while_something_is_missing_or_refused() {
    let _turn = Turn::cheap();
    let node = node();
    node.add(&serves("good"));
    let bad = node.add(&exits("bad")).to_string_lossy().into_owned();
    node.mfserv(&["start"]).code(0);
    until("its first starts have failed", PATIENCE, || node.watcher("app.bad.main").crashes >= 2);
    says(&node.mfserv(&["status"]).code(1), "mfserv is RUNNING, 1 of 2 apps down at ");
    node.mfserv(&["status", "--json"]).code(1);
    assert_eq!(node.get("/__health").status, 200, "it speaks of the node");
    // Linked already, and known to fail: there is no URL to be proud of.
    let ran = node.mfserv(&["dev", &bad, "--detach"]).code(1);
    says(&ran, "app.bad.main");
    says(&ran, "cannot find the database: giving up");
    node.mfserv(&["dev", &bad, "--json"]).code(1);
    node.add(&serves("bad"));
    node.mfserv(&["dev", &bad, "--detach"]).code(0);
    node.settled("app.bad.main");
    node.mfserv(&["status"]).code(0);

    // A configuration that is refused: what served before goes on.
    node.add(&serves("bad").key("app_main", "_no_such_key", "1"));
    for command in [&["reload"][..], &["reload", "--json"], &["dev", &bad], &["dev", &bad]] {
        node.mfserv(command).code(4);
    }
    for command in [&["restart", "bad"][..], &["restart"], &["scale", "bad.main", "1"]] {
        node.mfserv(command).code(4);
    }
    node.mfserv(&["restart", "good"]).code(0);
    says(&node.mfserv(&["status"]).code(1), "RUNNING, 1 plugin refused at ");
    assert_eq!(node.get("/bad").status, 200);
    node.add(&serves("bad"));
    node.mfserv(&["reload"]).code(0);

    let queue = Plugin::new("queue").key("extra_daemon_q", "_cmd_and_args", "/bin/false");
    node.add(&queue.key("extra_daemon_q", "numprocesses", "1"));
    node.mfserv(&["reload", "--no-wait"]).code(0);
    says(&node.mfserv(&["status"]).code(1), "1 of 1 extra daemon down");
    node.mfserv(&["uninstall", "queue"]).code(0);

    node.mfserv(&["status"]).code(0);
    kill(node.keeper_pid().unwrap(), Signal::KILL);
    until("the daemon has noticed", PATIENCE, || node.status().keeper.is_none());
    says(&node.mfserv(&["status"]).code(1), "RUNNING, no keeper at ");
    node.mfserv(&["start"]).code(0);
    node.runs();
    node.mfserv(&["status"]).code(0);
    node.stop();
}

#[test]
fn a_detached_dev_starts_the_node_and_fails_if_it_serves_nothing() {
    let _turn = Turn::cheap();
    let node = node();
    let good = serves("good").write(&node.path("work")).to_string_lossy().into_owned();
    let bad = exits("bad").write(&node.path("work")).to_string_lossy().into_owned();
    says(&node.mfserv(&["dev", &good, "--no-wait"]).code(0), "after `mfserv start`");
    node.set("startup.flag", "0");
    says(&node.mfserv(&["dev", &good, "--detach"]).code(3), "after `mfserv start`");
    node.set("startup.flag", "1");
    let ran = node.mfserv(&["dev", &good, "--detach", "--json"]).code(0);
    let last = ran.stdout.lines().last().unwrap();
    assert!(serde_json::from_str::<serde_json::Value>(last).unwrap()["ok"] == true, "{ran:?}");
    assert_eq!(node.get("/good").status, 200);
    node.mfserv(&["dev", &bad, "--detach"]).code(1);
    node.mfserv(&["dev", &bad, "--detach"]).code(1);
    node.stop();
    node.mfserv(&["uninstall", "good"]).code(0);
    node.mfserv(&["dev", &bad]).code(1);
    node.stop();
}

#[test]
fn the_flags_of_front_and_startup_mean_what_they_meant() {
    let _turn = Turn::cheap();
    let node = node();
    let dir = node.add(&serves("good")).to_string_lossy().into_owned();
    let old = OldNames::new(&node);
    node.set("nginx.flag", "0");
    let ran = old.run(&["mfserv.start"]).code(0);
    assert!(!ran.stdout.contains("nginx"), "{ran:?}");
    says(&old.run(&["mfserv.status"]).code(0), "OK !");
    says(&node.mfserv(&["status"]).code(0), "RUNNING at no listener");
    assert_eq!(node.settled("app.good.main").ready, 1);
    says(&node.mfserv(&["dev", &dir]).code(1), "the node has no front");

    node.set("startup.flag", "0");
    for ran in [old.run(&["mfserv.stop"]), node.mfserv(&["stop"]), node.mfserv(&["start"])] {
        says(&ran.code(0), "MFSERV_STARTUP_FLAG=0 => nothing to st");
    }
    assert_eq!(node.status().state, NodeState::Running);
    let hash = node.hash();
    node.mfserv(&["stop", "--kill"]).code(0);
    node.assert_nothing_left(hash.as_deref());
    says(&old.run(&["mfserv.start"]).code(0), "MFSERV_STARTUP_FLAG=0 => nothing to start");
    node.mfserv(&["status"]).code(3);
    node.set("startup.flag", "1");
    node.set("nginx.flag", "1");
}

#[test]
fn what_is_asked_for_and_has_no_effect_lets_a_node_run_and_is_said() {
    let _turn = Turn::cheap();
    let node = node();
    node.add(&serves("good"));
    let file = node.path("config/config.ini");
    let good = std::fs::read_to_string(&file).unwrap();
    node.start();
    std::fs::write(&file, format!("{good}\n[vector]\nnginxlog_port = 5999\n")).unwrap();
    says(&node.mfserv(&["reload"]).code(0), "[vector] nginxlog_port has no effect");
    says(&node.mfserv(&["status"]).code(0), "[vector] nginxlog_port has no effect");
    node.stop();
}

#[test]
fn a_check_sees_what_will_not_work_on_a_home_that_never_started_and_writes_nothing() {
    let _turn = Turn::cheap();
    let node = node();
    let bare = node.path("never");
    let check = |more: &[&str]| {
        let mut command = node.command(&["check"]);
        Ran::of({
            command.env("MFMODULE_RUNTIME_HOME", &bare).args(more);
            command
        })
    };
    std::fs::create_dir(&bare).unwrap();
    let free = ["--set", "nginx.port=0"];
    says(&check(&free).code(0), "ok");
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = format!("nginx.port={}", taken.local_addr().unwrap().port());
    says(&check(&["--set", &port]).code(4), "could not listen on");
    says(&check(&[&free[..], &["--set", "nginx.workers=3"]].concat()).code(0), "[nginx]");
    for key in ["vector.nginxlog_port=5999", "nginx.workers=3"] {
        says(&check(&[&free[..], &["--set", key, "--strict"]].concat()).code(4), "(--strict)");
    }
    says(&check(&[&free[..], &["--strict"]].concat()).code(0), "ok");

    let web = |name: &str, command: &str| {
        Plugin::new(name).app("main", command).write(&node.path("work")).display().to_string()
    };
    for (command, text) in [
        ("no-such-server {unix_socket_path}", "the program no-such-server of web/main"),
        ("{plugin_dir}/no-such-file {unix_socket_path}", "no-such-file of web/main"),
        ("python3 -m http.server 8000", "web/main never gets a request"),
    ] {
        says(&check(&[&web("web", command)]).code(4), text);
    }
    let python = serves("web").key("general", "_python", "python3.99").write(&node.path("work"));
    says(&check(&[&python.to_string_lossy()]).code(4), "python3.99");
    says(&check(&[&web("web", "sleep {unix_socket_path}")]).code(0), "ok");
    assert_eq!(tree(&bare), Vec::<std::path::PathBuf>::new(), "something was written");

    // The same of what is installed, and the routes of others.
    node.add(&serves("live").key("app_main", "prefix_based_routing_extra_routes", "/"));
    node.mfserv(&["check"]).code(0);
    let thief = serves("thief").key("app_main", "prefix_based_routing_extra_routes", "/");
    let thief = thief.write(&node.path("work")).display().to_string();
    says(&node.mfserv(&["check", &thief]).code(4), "requests of / go to live/main");
    node.add(&Plugin::new("web").app("main", "no-such-server {unix_socket_path}"));
    says(&node.mfserv(&["check"]).code(4), "the program no-such-server of web/main");
}

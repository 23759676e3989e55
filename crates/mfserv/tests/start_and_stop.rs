//! A fresh home becomes a serving node with one command, and nothing with another.

use std::path::Path;

use mfserv_core::event::Fact;
use mfserv_core::names::WatcherName;
use mfserv_core::node_state::NodeState;
use mfserv_core::status::Status;
use mfserv_testkit::{Plugin, Ran, get, programs, until};

use crate::{PATIENCE, Turn, node, samples};

#[test]
fn a_fresh_home_serves_all_samples_after_start_and_nothing_is_left_after_stop() {
    let _turn = Turn::cheap();
    let node = node();
    for name in ["sample_flask", "sample_node", "sample_static"] {
        let dir = samples().dir(name);
        let ran = node.mfserv(&["dev", &dir.to_string_lossy(), "--no-wait"]).code(0);
        assert!(ran.stdout.contains("after `mfserv start`"), "{ran:?}");
    }
    assert_eq!(node.mfserv(&["status"]).code(3).stdout, "");
    let ran = node.mfserv(&["start"]).code(0);
    assert!(ran.stdout.contains(&format!("running at http://{}", node.address())), "{ran:?}");

    let status: Status = node.status();
    assert_eq!(status.state, NodeState::Running);
    assert_eq!(status.address.as_deref(), Some(&*format!("http://{}", node.address())));
    let paths: Vec<&String> = status.plugins.iter().flat_map(|p| &p.paths).collect();
    assert_eq!(paths.len(), 4, "{paths:?}");
    for path in paths {
        let answer = node.get(&format!("{path}/"));
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
    assert!(node.get("/sample_flask/").text().contains("Hello World"));
    assert!(node.get("/sample_node").text().contains("Hello World from sample_node"));
    assert!(node.get("/sample_static/").text().contains("sample_static"));
    assert_eq!(node.get("/nothing/here").status, 404);
    assert_eq!(node.get("/__health").status, 200);

    let hash = node.hash();
    assert!(hash.is_some(), "no process carries its marker");
    let ran = node.mfserv(&["stop"]).code(0);
    assert!(ran.stdout.contains("mfserv is stopped"), "{ran:?}");
    node.assert_nothing_left(hash.as_deref());
    assert_eq!(std::fs::read_to_string(node.path("var/status")).unwrap(), "STOPPED\n");
    node.mfserv(&["stop"]).code(0);
    node.mfserv(&["status"]).code(3);
    node.mfserv(&["ps"]).code(3);
    node.mfserv(&["restart"]).code(3);
}

#[test]
fn a_start_delay_passes_between_the_first_answer_of_the_front_and_the_state_running() {
    let _turn = Turn::cheap();
    let node = node();
    node.set("nginx.smart_start_delay", "3");
    node.link_sample("sample_static", &[]);
    node.mfserv(&["start", "--no-wait"]).code(0);
    until("the front answers", PATIENCE, || get(node.address(), "/sample_static/").is_ok());
    assert_eq!(node.get("/sample_static/").status, 200);
    let health = node.get("/__health");
    assert_eq!((health.status, health.text().as_str()), (503, "STARTING"));
    node.runs();
    assert_eq!(node.get("/__health").status, 200);
    let events = node.events();
    let at = |wanted: &dyn Fn(&Fact) -> bool| {
        events
            .iter()
            .find(|event| wanted(&event.fact))
            .unwrap_or_else(|| panic!("{events:?}"))
            .at_ms
    };
    let front = WatcherName::front();
    let ready =
        |fact: &Fact| matches!(fact, Fact::WorkerReady { worker, .. } if worker.watcher == front);
    let runs = |fact: &Fact| *fact == Fact::NodeState { state: NodeState::Running };
    assert!(at(&runs) - at(&ready) >= 3000, "{events:?}");
    node.stop();

    // A stop does not wait for it.
    node.set("nginx.smart_start_delay", "600");
    node.mfserv(&["start", "--no-wait"]).code(0);
    until("the front answers again", PATIENCE, || get(node.address(), "/sample_static/").is_ok());
    assert_eq!(node.status().state, NodeState::Starting);
    node.stop();
}

#[test]
fn status_ps_logs_and_events_say_what_is_there_for_people_and_for_scripts() {
    let _turn = Turn::cheap();
    let node = node();
    node.link_sample("sample_flask", &[("app_main", "numprocesses", "2")]);
    node.link_sample("sample_static", &[]);
    node.start();
    assert_eq!(node.get("/sample_flask/").status, 200);

    let text = node.mfserv(&["status"]).code(0).stdout;
    for word in ["RUNNING", "app.sample_flask.main", "2/2", "sample_static", "front", "keeper"] {
        assert!(text.contains(word), "{word} is missing in {text}");
    }
    let ps = node.mfserv(&["ps"]).code(0).stdout;
    let workers: serde_json::Value =
        serde_json::from_str(&node.mfserv(&["ps", "--json"]).code(0).stdout).unwrap();
    let workers = workers.as_array().unwrap();
    assert_eq!(workers.len(), 4, "two workers, front, telemetry: {workers:?}");
    for worker in workers {
        let (pss, memory) = (&worker["pss_bytes"], &worker["memory_bytes"]);
        assert!(pss.as_u64().is_some_and(|pss| pss > 100_000), "{worker}");
        assert!(memory.is_null() || pss.as_u64() < memory.as_u64().map(|m| m * 2), "{worker}");
        assert!(ps.contains(worker["id"].as_str().unwrap()), "{ps}");
        assert!(ps.contains(&worker["pid"].to_string()), "{ps}");
    }

    // The logger of Flask writes to standard error, which goes to the same file.
    let logs = node.mfserv(&["logs", "sample_flask"]).code(0).stdout;
    assert!(logs.contains("this is an info message"), "{logs}");
    let line = node.mfserv(&["logs", "sample_flask", "--json", "-n", "1"]).code(0).stdout;
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["log"], "app_sample_flask_main");
    node.mfserv(&["logs", "nobody"]).code(2);

    let events = node.events();
    let ready = |fact: &Fact| matches!(fact, Fact::WorkerReady { .. });
    assert_eq!(events.iter().filter(|event| ready(&event.fact)).count(), 4);
    assert!(events.iter().any(|e| e.fact == Fact::NodeState { state: NodeState::Running }));
    let text = node.mfserv(&["events"]).code(0).stdout;
    assert!(text.contains("app.sample_flask.main.1.1"), "{text}");
    // Times are those of the zone that TZ names.
    if Path::new("/usr/share/zoneinfo/Asia/Kolkata").exists() {
        let first = |zone: &str| {
            let text = Ran::of({
                let mut command = node.command(&["events"]);
                command.env("TZ", zone);
                command
            });
            text.code(0).stdout.split_whitespace().nth(1).unwrap().to_string()
        };
        assert_eq!(first("Asia/Kolkata"), first("IST-5:30"));
        assert_ne!(first("Asia/Kolkata"), first("UTC"));
    } else {
        mfserv_testkit::skipped("the zone of TZ: this machine has no tzdata");
    }
    node.stop();
}

#[test]
fn a_second_start_changes_nothing() {
    let _turn = Turn::cheap();
    let node = node();
    node.add(&Plugin::python("hello", programs::SERVES));
    node.start();
    let before = node.processes(None);
    let ran = node.mfserv(&["start"]).code(0);
    assert!(ran.stdout.contains("already running"), "{ran:?}");
    assert_eq!(node.processes(None), before);
    node.stop();
}

#[test]
fn a_second_keeper_in_the_same_home_is_refused() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let before = node.processes(None);
    let ran = node.mfserv(&["run"]).code(5);
    assert!(ran.stderr.contains("error"), "{ran:?}");
    assert_eq!(node.processes(None), before);
    node.stop();
}

#[test]
fn a_second_node_on_the_same_port_is_refused_loudly_and_the_first_goes_on() {
    let _turn = Turn::cheap();
    let (first, second) = (node(), node());
    first.add(&Plugin::python("hello", programs::SERVES));
    first.start();
    second.set("nginx.port", &first.address().port().to_string());
    let hash = second.hash();
    let ran = second.mfserv(&["start"]).code(5);
    assert!(ran.stderr.contains("cannot listen on"), "{ran:?}");
    assert!(ran.stderr.contains(&first.address().to_string()), "{ran:?}");
    let keeper = format!("process {} (", first.keeper_pid().unwrap());
    assert!(ran.stderr.contains(&keeper), "who holds the port is named: {ran:?}");
    second.assert_nothing_left(hash.as_deref());
    assert_eq!(first.get("/hello").status, 200);
    first.stop();
}

#[test]
fn a_broken_module_configuration_is_refused_at_its_line_before_anything_starts() {
    let _turn = Turn::cheap();
    let node = node();
    let file = node.path("config/config.ini");
    std::fs::write(&file, "[nginx]\nport = 80 or so\n").unwrap();
    let ran = node.mfserv(&["start"]).code(4);
    assert!(ran.stderr.contains(&format!("{}:2", file.display())), "{ran:?}");
    assert!(ran.stderr.contains("help:"), "{ran:?}");
    assert!(node.processes(None).is_empty());
    let run = std::fs::read_dir(node.path("var/run")).unwrap();
    assert_eq!(run.count(), 0, "something was prepared");
    node.mfserv(&["check"]).code(4);
    node.mfserv(&["run"]).code(4);
}

#[test]
fn root_neither_starts_nor_stops_a_node_of_another_user() {
    let _turn = Turn::cheap();
    if !rustix::process::geteuid().is_root() {
        return mfserv_testkit::skipped("root and the node of another user: this user is not root");
    }
    let node = node();
    let run = node.path("var/run");
    std::fs::create_dir_all(&run).unwrap();
    std::os::unix::fs::chown(&run, Some(65534), None).unwrap();
    let started = node.mfserv(&["start"]).code(5).stderr;
    assert!(started.contains("belongs to the user") && started.contains("runuser"), "{started}");
    assert!(!run.join("keep.sock").exists());
    // What a keeper that was killed has left: a stop needs another one.
    std::fs::write(run.join("keeper.json"), "{}").unwrap();
    let stopped = node.mfserv(&["stop"]).code(5).stderr;
    assert!(stopped.contains("belongs to the user"), "{stopped}");
    std::os::unix::fs::chown(&run, Some(0), None).unwrap();
    std::fs::remove_file(run.join("keeper.json")).unwrap();
}

#[test]
fn a_check_and_a_start_name_the_process_that_has_the_port_of_the_front() {
    let _turn = Turn::cheap();
    let node = node();
    let _other = std::net::TcpListener::bind(node.address()).unwrap();
    let who = format!("process {} (", std::process::id());
    let port = format!("listens on port {}", node.address().port());
    for (command, code) in [("check", 4), ("start", 5)] {
        let ran = node.mfserv(&[command]).code(code);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(said.contains(&who) && said.contains(&port), "{said}");
    }
    node.mfserv(&["stop", "--kill"]);
}

//! `mfserv maintenance`: pages and waiting requests in place of apps, on a real node.

use std::time::Duration;

use mfserv_testkit::{Load, Node, Plugin, get, programs, until};

use crate::{Turn, node};

/// A node with the plugins `own` and `other`.
fn two() -> Node {
    let node = node();
    for name in ["own", "other"] {
        node.add(&Plugin::python(name, programs::SERVES).key("app_main", "numprocesses", "2"));
    }
    node.start();
    node
}

#[test]
fn a_pause_in_which_requests_wait_loses_none_under_load() {
    let _turn = Turn::heavy();
    let node = two();
    let pids = node.pids("app.own.main");
    let load = Load::new(node.address(), "/own/x").connections(8).post_every(5).start();
    load.answers(100);
    node.mfserv(&["maintenance", "on", "own", "--hold"]).code(0);
    assert_eq!(node.get("/other/x").status, 200);
    assert!(node.mfserv(&["status"]).code(0).stdout.contains("its requests wait"));
    // The pause itself: what a migration takes.
    std::thread::sleep(Duration::from_secs(2));
    node.mfserv(&["maintenance", "off", "own"]).code(0);
    load.answers(100);
    let report = load.stop();
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    let longest = report.latencies.last().copied().unwrap_or_default();
    assert!(longest >= Duration::from_secs(2), "they have waited: {longest:?}");
    assert_eq!(node.pids("app.own.main"), pids, "the workers are the same");
}

#[test]
fn requests_that_wait_in_a_front_that_is_replaced_are_answered_too() {
    let _turn = Turn::heavy();
    let node = two();
    let load = Load::new(node.address(), "/own/x").connections(4).start();
    load.answers(50);
    node.mfserv(&["maintenance", "on", "own", "--hold"]).code(0);
    let waiting = |node: &Node| node.status().requests.values().map(|of| of.waiting).sum::<u64>();
    until("all requests wait", Duration::from_secs(60), || waiting(&node) == 4);
    let before = node.role_pids("front");
    node.mfserv(&["restart", "front", "--no-wait"]).code(0);
    let is_another = || node.role_pids("front").iter().any(|pid| !before.contains(pid));
    until("the next front is there", Duration::from_secs(60), is_another);
    node.mfserv(&["maintenance", "off", "own"]).code(0);
    load.answers(100);
    let report = load.stop();
    assert!(report.failures.is_empty(), "{:?}", report.failures);
}

#[test]
fn a_page_stands_in_place_of_an_app_until_that_is_ended_also_after_a_restart() {
    let _turn = Turn::heavy();
    let node = two();
    let page = node.path("page.html");
    std::fs::write(&page, "<h1>Back at noon</h1>").unwrap();
    let page = page.to_str().unwrap();
    let said = node.mfserv(&["maintenance", "on", "own", "--page", page, "--json"]).code(0);
    assert!(said.stdout.contains("\"ok\""), "{said:?}");
    std::fs::remove_file(page).unwrap();
    let shows = |text: &str| {
        let answer = node.get("/own/x");
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert_eq!(answer.field("retry-after"), Some("30"));
        assert!(answer.text().contains(text), "{}", answer.text());
        assert_eq!((node.get("/other/x").status, node.get("/__health").status), (200, 200));
    };
    shows("Back at noon");
    node.mfserv(&["reload"]).code(0);
    shows("Back at noon");
    node.mfserv(&["stop"]).code(0);
    node.mfserv(&["start"]).code(0);
    shows("Back at noon");
    let text = node.mfserv(&["status"]).code(0).stdout;
    assert!(text.contains("own is in maintenance") && text.contains("off own"), "{text}");
    assert!(node.status().maintenance.of("own", "main").is_some_and(|mark| !mark.hold));
    node.mfserv(&["maintenance", "on", "own.main"]).code(0);
    shows("being worked on");
    node.mfserv(&["maintenance", "off", "own"]).code(0);
    assert_eq!(node.get("/own/x").status, 200);
    assert!(node.status().maintenance.is_empty());
    assert!(!node.path("var/maintenance").read_dir().unwrap().any(|_| true), "no page is left");
}

#[test]
fn the_whole_node_can_be_in_maintenance_and_what_cannot_be_is_said() {
    let _turn = Turn::heavy();
    let node = two();
    node.mfserv(&["maintenance", "on"]).code(0);
    assert_eq!((node.get("/own/x").status, node.get("/other/x").status), (503, 503));
    assert_eq!(node.get("/__health").status, 200);
    let said = node.mfserv(&["maintenance", "off", "own"]).stderr;
    assert!(said.contains("as a whole") && said.contains("`mfserv maintenance off`"), "{said}");
    assert_eq!(node.get("/own/x").status, 503);
    node.mfserv(&["maintenance", "off"]).code(0);
    assert_eq!((node.get("/own/x").status, node.get("/other/x").status), (200, 200));
    let said = node.mfserv(&["maintenance", "on", "nobody"]).stderr;
    assert!(said.contains("nobody") && said.contains("own"), "{said}");
    let said = node.mfserv(&["maintenance", "on", "own", "--page", "/none.html"]).stderr;
    assert!(said.contains("/none.html cannot be the page"), "{said}");
    assert_eq!(node.get("/own/x").status, 200, "nothing has changed");
    node.mfserv(&["maintenance", "on", "own"]).code(0);
    node.mfserv(&["uninstall", "own"]).code(0);
    assert!(node.status().maintenance.is_empty(), "the next plugin of that name is not in it");
}

#[test]
fn the_command_returns_when_workers_have_answered_what_they_had() {
    let _turn = Turn::heavy();
    let node = node();
    node.add(&Plugin::python("own", programs::SERVES).key("app_main", "numprocesses", "1"));
    node.start();
    let address = node.address();
    let slow = std::thread::spawn(move || get(address, "/own/slow?10000").unwrap().status);
    let in_flight = || {
        let requests = node.status().requests;
        requests["own/main"].in_flight.values().sum::<u64>()
    };
    until("the worker has it", Duration::from_secs(60), || in_flight() == 1);
    let said = node.mfserv(&["maintenance", "on", "own", "--timeout", "1"]).code(0);
    assert!(said.stdout.contains("own is in maintenance: its requests get 503"), "{said:?}");
    assert!(said.stderr.contains("1 request that came before still runs"), "{said:?}");
    node.mfserv(&["maintenance", "on", "own", "--hold", "--no-wait"]).code(0);
    assert_eq!(in_flight(), 1);
    let said = node.mfserv(&["maintenance", "on", "own"]).code(0);
    assert!(!said.stderr.contains("still runs"), "{said:?}");
    assert_eq!((in_flight(), slow.join().unwrap()), (0, 200));
}

#[test]
fn a_node_that_stops_answers_the_requests_that_wait() {
    let _turn = Turn::heavy();
    let node = two();
    node.mfserv(&["maintenance", "on", "own", "--hold"]).code(0);
    let address = node.address();
    let held = std::thread::spawn(move || get(address, "/own/x").unwrap());
    let waiting = || node.status().requests.values().map(|of| of.waiting).sum::<u64>();
    until("it waits", Duration::from_secs(60), || waiting() == 1);
    node.mfserv(&["stop"]).code(0);
    let answer = held.join().unwrap();
    assert_eq!((answer.status, answer.field("retry-after")), (503, Some("30")));
}

#[test]
fn what_cannot_be_read_ends_no_maintenance() {
    let _turn = Turn::heavy();
    let node = two();
    node.mfserv(&["maintenance", "on", "own"]).code(0);
    std::fs::write(node.path("var/maintenance.json"), "{").unwrap();
    // It is done, and exits as with any problem of the configuration.
    assert!(node.mfserv(&["reload"]).stderr.contains("it is not known"));
    let still = |node: &Node| {
        assert_eq!((node.get("/own/x").status, node.get("/other/x").status), (503, 200));
        let status = node.status();
        assert!(status.maintenance.of("own", "main").is_some());
        let said: Vec<_> = status.problems.iter().map(|problem| &*problem.what).collect();
        assert!(said.contains(&"it is not known which apps are in maintenance"), "{said:?}");
    };
    still(&node);
    node.mfserv(&["stop"]).code(0);
    node.mfserv(&["start"]);
    still(&node);
    let said = node.mfserv(&["maintenance", "on", "other"]).stderr;
    assert!(said.contains("maintenance.json"), "{said}");
    node.mfserv(&["maintenance", "off"]).code(0);
    assert_eq!((node.get("/own/x").status, node.status().problems.len()), (200, 0));
}

#[test]
fn a_node_that_is_stopped_can_be_put_into_maintenance_and_out_of_it() {
    let _turn = Turn::heavy();
    let node = two();
    node.mfserv(&["stop"]).code(0);
    let said = node.mfserv(&["maintenance", "on", "own.main"]).code(0).stdout;
    assert!(
        said.contains("own.main is in maintenance") && said.contains("once the node"),
        "{said}"
    );
    let said = node.mfserv(&["maintenance", "on", "own.nosuch"]).stderr;
    assert!(said.contains("own.nosuch") && said.contains("there are: own.main"), "{said}");
    node.mfserv(&["start"]).code(0);
    assert_eq!((node.get("/own/x").status, node.get("/other/x").status), (503, 200));
    node.mfserv(&["stop"]).code(0);
    node.mfserv(&["maintenance", "off", "own"]).code(0);
    node.mfserv(&["start"]).code(0);
    assert_eq!(node.get("/own/x").status, 200);
}

#[test]
fn the_maintenance_of_what_is_gone_ends_and_a_plugin_may_be_called_app() {
    let _turn = Turn::heavy();
    let node = node();
    node.add(&Plugin::python("app", programs::SERVES));
    let mark = r#"{"gone": {"since_ms": 1}, "app.gone": {"since_ms": 1}}"#;
    std::fs::create_dir_all(node.path("var")).unwrap();
    std::fs::write(node.path("var/maintenance.json"), mark).unwrap();
    node.start();
    for gone in ["gone", "app.gone"] {
        node.mfserv(&["maintenance", "off", gone]).code(0);
    }
    assert!(node.status().maintenance.is_empty());
    for name in ["app.main", "app.app.main", "app"] {
        node.mfserv(&["maintenance", "on", name]).code(0);
        assert_eq!(node.get("/app/x").status, 503, "{name}");
        node.mfserv(&["maintenance", "off", name]).code(0);
        assert_eq!(node.get("/app/x").status, 200, "{name}");
    }
    let said = node.mfserv(&["maintenance", "on", "app.nosuch"]).stderr;
    assert!(said.contains("there are: app.main"), "{said}");
}

//! `mfserv maintenance`: pages and waiting requests in place of apps, on a real node.

use std::time::Duration;

use mfserv_testkit::{Load, Node, Plugin, programs, until};

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

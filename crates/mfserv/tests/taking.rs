//! A plugin takes no route from a live one, unless that is insisted on.

use std::path::Path;

use mfserv_testkit::{Node, Plugin, Ran, programs};

use crate::compat::OldNames;
use crate::install::release;
use crate::newcomer::app;
use crate::{Turn, node};

fn plugin(name: &str, routes: &str) -> Plugin {
    Plugin::python(name, programs::SERVES).key(
        "app_main",
        "prefix_based_routing_extra_routes",
        routes,
    )
}

/// A package; its `postinstall` leaves a trace.
fn packed(node: &Node, name: &str, routes: &str) -> String {
    let hook = format!("#!/bin/sh\ntouch {}\n", node.path("hook-ran").display());
    let dir = plugin(name, routes).file("postinstall", &hook).write(&node.path("work"));
    release(node, &dir).to_string_lossy().into_owned()
}

/// Who answers.
fn answers(node: &Node, path: &str) -> String {
    node.get(path).text().trim_start_matches("hello from ").to_string()
}

#[track_caller]
fn names_the_holder(ran: &Ran, route: &str, holder: &str) {
    let text = format!("requests of {route} go to {holder}");
    assert!(ran.stderr.contains(&text) && ran.stderr.contains("--take-route"), "{ran:?}");
}

#[test]
fn an_installation_takes_a_route_from_a_live_plugin_only_with_take_route() {
    let _turn = Turn::cheap();
    let node = node();
    node.add(&plugin("mid", "/;/api"));
    node.start();
    // Whether the route would go to it or not, by the order of names.
    for (name, route) in [("aaa", "/"), ("zzz", "/"), ("zzz", "/api"), ("aaa", "/mid/main/x")] {
        let file = packed(&node, name, route);
        for verb in ["install", "info"] {
            names_the_holder(&node.mfserv(&[verb, &file]).code(5), route, "mid/main");
        }
        assert_eq!(node.mfserv(&["releases", name]).stdout.lines().count(), 0);
        assert!(!node.path("hook-ran").exists() && node.status().plugins.len() == 2);
        assert_eq!(answers(&node, "/"), "mid");
    }
    let old = OldNames::new(&node);
    let file = packed(&node, "zzz", "/");
    names_the_holder(&old.run(&["plugins.install", &file]).code(2), "/", "mid/main");

    let dir = plugin("zzz", "/").write(&node.path("dev"));
    let dir = dir.to_string_lossy().into_owned();
    names_the_holder(&node.mfserv(&["dev", &dir]).code(5), "/", "mid/main");

    let said = node.mfserv(&["install", &file, "--take-route"]).code(0);
    assert_eq!(answers(&node, "/"), "zzz", "{said:?}");
    assert_eq!(answers(&node, "/api"), "mid");
    let told = node.mfserv(&["status"]);
    assert!(told.stderr.contains("mid/main does not get the requests of /"), "{told:?}");
    // It is remembered, and a further release keeps it; the loser may not take it back silently.
    node.mfserv(&["install", &file]).code(0);
    node.mfserv(&["reload"]).code(0);
    assert_eq!(answers(&node, "/"), "zzz");
    let third = packed(&node, "third", "/");
    names_the_holder(&node.mfserv(&["install", &third]).code(5), "/", "zzz/main");
    node.mfserv(&["uninstall", "zzz"]).code(0);
    assert_eq!(answers(&node, "/"), "mid");
    node.stop();

    // The same without a node that runs.
    names_the_holder(&node.mfserv(&["install", &file]).code(5), "/", "mid/main");
    node.mfserv(&["install", &file, "--take-route"]).code(0);
    node.start();
    assert_eq!(answers(&node, "/"), "zzz");
    node.stop();
}

#[test]
fn a_rollback_and_a_hotswap_take_no_route_either() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let (first, second) = (packed(&node, "one", "/shared"), packed(&node, "one", "/one2"));
    // The packages have the same name: the second has replaced the first.
    assert_eq!(first, second);
    packed(&node, "one", "/shared");
    node.mfserv(&["install", &first]).code(0);
    packed(&node, "one", "/one2");
    node.mfserv(&["install", &first]).code(0);
    node.mfserv(&["install", &packed(&node, "two", "/shared")]).code(0);
    names_the_holder(&node.mfserv(&["rollback", "one"]).code(5), "/shared", "two/main");
    assert_eq!(answers(&node, "/shared"), "two");
    packed(&node, "one", "/shared");
    names_the_holder(&node.mfserv(&["hotswap", &first]).code(5), "/shared", "two/main");
    node.mfserv(&["rollback", "one", "--take-route"]).code(0);
    assert_eq!(answers(&node, "/shared"), "one");
    node.stop();
}

#[test]
fn a_home_whose_plugins_share_a_route_starts_and_says_so() {
    let _turn = Turn::cheap();
    let node = node();
    let dir = node.add(&plugin("one", "/shared"));
    node.add(&plugin("two", "/shared"));
    node.start();
    let told = node.mfserv(&["status"]);
    assert!(told.stderr.contains("two apps ask for the requests of /shared"), "{told:?}");
    assert_eq!(answers(&node, "/shared"), "one");
    // What is so already is no refusal.
    node.mfserv(&["dev", &dir.to_string_lossy()]).code(0);
    node.stop();
}

#[test]
fn an_app_whose_root_was_taken_asks_for_it_as_before_and_has_it_again_when_the_taker_goes() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let first = app(&node, "first", &[("index.html", "first")]);
    let second = app(&node, "second", &[("index.html", "second")]);
    let deploy = |dir: &Path, more: &[&str]| {
        let edited = std::fs::read_to_string(dir.join("index.html")).unwrap() + ".";
        std::fs::write(dir.join("index.html"), edited).unwrap();
        node.mfserv(&[&["deploy", dir.to_str().unwrap()], more].concat()).code(0)
    };
    let answers = |name: &str| node.get("/").text().starts_with(name);
    deploy(&first, &[]);
    deploy(&second, &["--take-route"]);
    assert!(answers("second"));
    let said = deploy(&first, &[]).stderr;
    assert!(said.contains("second has taken / from it"), "{said}");
    assert!(said.contains("--take-route takes / back") && said.contains("--no-root"), "{said}");
    deploy(&second, &[]);
    assert!(answers("second"), "what was taken stays taken");
    deploy(&second, &["--no-root"]);
    assert!(answers("first"));
    deploy(&second, &["--root", "--take-route"]);
    deploy(&first, &[]);
    assert!(answers("second"));
    node.mfserv(&["uninstall", "second"]).code(0);
    assert!(answers("first"));
    node.stop();
}

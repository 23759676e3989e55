//! Routes with a host: which of them answers a request, and what its app and the access log learn.

use mfserv_core::route::{Route, RouteTable, Slots, Target};

use crate::world::*;

/// The app `p/a` at these hosts, and a fixed answer without a host.
fn with_hosts(hosts: &[&str]) -> RouteTable {
    let mut table = table(Slots::Unlimited, true);
    let app = Target::Upstream { name: "p/a".into() };
    let host = |host: &&str| Route { host: Some(host.to_string()), ..route("/", app.clone()) };
    table.routes = hosts.iter().map(host).collect();
    let other = Target::Fixed { status: 203, body: "no host".into() };
    table.routes.push(route("/", other));
    table
}

#[test]
fn a_request_goes_to_the_app_of_the_host_that_it_names() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let front = world.serving(with_hosts(&["app.org", "*.wild.org", "[::1]"]), &[&worker]);
    for (request, status) in [
        ("GET /x HTTP/1.1\r\nHost: app.org\r\n", 200),
        ("GET /x HTTP/1.1\r\nHost: APP.org.:81\r\n", 200),
        ("GET /x HTTP/1.1\r\nHost: a.b.wild.org\r\n", 200),
        ("GET /x HTTP/1.1\r\nHost: [0::1]:80\r\n", 200),
        ("GET /x HTTP/1.1\r\nHost: wild.org\r\n", 203),
        ("GET /x HTTP/1.1\r\nHost: other.org\r\n", 203),
        ("GET /x HTTP/1.0\r\n", 203),
        ("GET /x HTTP/1.0\r\nHost: app.org\r\n", 200),
        // The target wins over the field.
        ("GET http://app.org/x HTTP/1.1\r\nHost: other.org\r\n", 200),
        ("GET http://other.org/x HTTP/1.1\r\nHost: app.org\r\n", 203),
    ] {
        let answer = ask(front.address, format!("{request}Connection: close\r\n\r\n"));
        assert_eq!(answer.status, status, "{request}: {}", answer.text());
    }
}

#[test]
fn an_app_and_the_access_log_learn_the_host_as_it_was_sent() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let front = world.serving(with_hosts(&["app.org"]), &[&worker]);
    let asked = |line: &str| format!("{line}\r\nHost: App.org:81\r\nConnection: close\r\n\r\n");
    assert_eq!(ask(front.address, asked("GET /seen?q HTTP/1.1")).status, 200);
    let received = worker.last();
    assert_eq!((received.target(), received.field("host")), ("/seen?q", vec!["App.org:81".into()]));
    assert_eq!(received.field("x-forwarded-host"), ["app.org:81"]);
    let line = world.logged("uri", "/seen?q");
    assert_eq!((&line["plugin"], &line["host"]), (&"p".into(), &"app.org".into()), "{line}");
    assert_eq!(ask(front.address, asked("GET http://app.org:82/y HTTP/1.1")).status, 200);
    assert_eq!(worker.last().field("host"), ["app.org:82"]);
}

#[test]
fn on_the_host_of_an_app_names_that_any_site_has_are_its_own() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "from the app");
    let front = world.serving(with_hosts(&["app.localhost"]), &[&worker]);
    let get = |host: &str, path: &str| {
        let text = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        ask(front.address, text).text()
    };
    for path in ["/status", "/uuid"] {
        assert_eq!(get("app.localhost", path), "from the app", "{path}");
        assert_ne!(get("localhost", path), "from the app", "{path}");
    }
    assert_eq!(get("app.localhost", "/__uuid").trim(), "the-uuid");
}

#[test]
fn hosts_change_with_a_reload_and_go_with_their_plugin() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let mut front = world.serving(with_hosts(&["old.org"]), &[&worker]);
    let status = |address, host: &str| {
        ask(address, format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).status
    };
    assert_eq!(status(front.address, "old.org"), 200);
    front.daemon.publish(2, with_hosts(&["new.org"]), &[&worker]);
    assert_eq!((status(front.address, "old.org"), status(front.address, "new.org")), (203, 200));
}

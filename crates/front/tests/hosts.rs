//! Routes with a host: which of them answers a request, and what its app and the access log learn.

use mfserv_core::route::{Route, RouteTable, Slots, Target, UnknownHost};

use crate::tls::kit::{Authority, curl, settings, try_curl};
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

/// Asks for a page with this host; the status, the cause, or nothing where the connection ends.
fn page_of(front: &Front, host: &str, path: &str) -> Option<(u16, String)> {
    let text = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let answer = try_ask(front.address, text)?;
    Some((answer.status, answer.field("x-mfserv-cause").join(" ")))
}

#[test]
fn a_host_of_no_app_is_refused_as_the_settings_say_and_known_ones_are_not() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let mut front = world.front(1);
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    for (generation, (unknown_host, status)) in [
        (UnknownHost::Default, None),
        (UnknownHost::NotFound, Some(404)),
        (UnknownHost::Misdirected, Some(421)),
        (UnknownHost::Close, Some(444)),
    ]
    .into_iter()
    .enumerate()
    {
        let mut table = with_hosts(&["app.org", "*.wild.org"]);
        table.server.unknown_host = unknown_host;
        front.daemon.publish(generation as u64 + 1, table, &[&worker]);
        for (host, path, expected) in [
            ("app.org", "/x", 200),
            ("a.wild.org:81", "/x", 200),
            ("localhost", "/x", 203),
            ("any.localhost:18868", "/x", 203),
            ("127.0.0.1:80", "/x", 203),
            ("127.8.8.8", "/x", 203),
            ("[::1]:80", "/x", 203),
            (&machine, "/x", 203),
            // The health check: no daemon has said yet that the node runs.
            ("other.org", "/__health", 503),
            ("10.1.2.3", "/__uuid", 200),
        ] {
            let seen = page_of(&front, host, path).map(|(status, _)| status);
            assert_eq!(seen, Some(expected), "{unknown_host:?} {host} {path}");
        }
        let refused = |status: u16| match status {
            444 => None,
            status => Some((status, "unknown_host".to_string())),
        };
        for host in ["other.org", "wild.org", "192.168.1.7:80", "[2001:db8::1]", "localhost.org"] {
            let expected = status.map_or(Some((203, String::new())), refused);
            assert_eq!(page_of(&front, host, "/a%20b"), expected, "{unknown_host:?} {host}");
        }
        if let Some(status) = status {
            for path in ["/status", "/__socket_up/x", "/"] {
                let seen = page_of(&front, "other.org", path);
                assert_eq!(seen, refused(status), "{unknown_host:?} {path}");
            }
            assert_eq!(try_ask(front.address, "GET /old HTTP/1.0\r\n\r\n").map(|a| a.status), {
                Some(status).filter(|status| *status != 444)
            });
            let line = world.logged("status", status);
            assert_eq!(line["cause"], "unknown_host", "{line}");
        }
    }
}

#[test]
fn a_refused_host_leaves_a_kept_connection_usable_unless_it_is_closed() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let mut table = with_hosts(&["app.org"]);
    table.server.unknown_host = UnknownHost::Misdirected;
    let mut front = world.serving(table.clone(), &[&worker]);
    let ask = |client: &mut Client, host: &str| {
        client.send(format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        client.receive().map(|answer| answer.status)
    };
    let mut client = Client::connect(front.address);
    assert_eq!(ask(&mut client, "other.org"), Some(421));
    assert_eq!(ask(&mut client, "app.org"), Some(200));
    table.server.unknown_host = UnknownHost::Close;
    front.daemon.publish(2, table, &[&worker]);
    let mut client = Client::connect(front.address);
    assert_eq!(ask(&mut client, "app.org"), Some(200));
    assert_eq!(ask(&mut client, "other.org"), None);
    assert!(client.is_closed());
    assert_eq!(worker.count(), 2);
}

#[test]
fn over_tls_it_is_the_host_of_the_request_that_has_to_be_known() {
    let world = World::new().and_tls();
    let worker = Worker::saying(&world, 1, "ok");
    let ca = Authority::new(&world);
    ca.issue(&world, "server", &["app.org", "other.org"]);
    let mut table = with_hosts(&["app.org"]);
    table.server.tls = Some(settings(&world, "server"));
    table.server.unknown_host = UnknownHost::Misdirected;
    let mut front = world.serving(table.clone(), &[&worker]);
    assert!(curl(&world, &ca, "app.org", "/x", &[]).ends_with("ok"));
    assert!(curl(&world, &ca, "other.org", "/x", &[]).starts_with("HTTP/1.1 421 "));
    table.server.unknown_host = UnknownHost::Close;
    front.daemon.publish(2, table, &[&worker]);
    assert!(curl(&world, &ca, "app.org", "/x", &[]).ends_with("ok"));
    let why = try_curl(&world, &ca, "other.org", "/x", &[]).unwrap_err();
    assert!(why.contains("mpty reply"), "{why}");
}

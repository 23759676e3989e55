//! Fragments of apps with hosts of their own, in clear and over TLS.

use std::io::Write;

use mfserv_core::route::{AppFragments, Fragment, Route, RouteTable, Slots, Target, UnknownHost};

use super::{brings, brings_to_app, said};
use crate::tls::kit::{Authority, curl, settings};
use crate::world::*;

const HOSTS: [&str; 3] = ["app.org", "*.wild.org", "[::1]"];

/// The app `p/a` at these hosts and behind `/a`, with a fragment, and `q/b` at another one, without.
fn table_with(hosts: &[&str]) -> RouteTable {
    let mut table = table(Slots::Unlimited, true);
    let spec = table.upstreams["p/a"].clone();
    table.upstreams.insert("q/b".into(), spec);
    let at = |host: &str, app: &str| {
        let (plugin, name) = app.split_once('/').unwrap();
        let target = Target::Upstream { name: app.into() };
        let (host, plugin) = (Some(host.to_string()), plugin.to_string());
        Route { host, plugin, app: name.into(), ..route("/", target) }
    };
    table.routes.extend(hosts.iter().map(|host| at(host, "p/a")));
    table.routes.push(at("plain.org", "q/b"));
    brings_to_app(&mut table, "add_header X-App $plugin;\n");
    table
}

#[test]
fn an_app_has_its_fragment_at_each_of_its_hosts() {
    let Some(world) = World::with_lua().map(World::and_tls) else { return };
    let worker = Worker::saying(&world, 1, "ok");
    let other = Worker::start_of(&world, "q/b", 1, true, |stream, _| say(stream, "other"));
    let ca = Authority::new(&world);
    ca.issue(&world, "server", &["localhost", "app.org", "*.wild.org", "plain.org", "other.org"]);
    let long = format!("{}.{}.org", "l".repeat(60), "m".repeat(60));
    let hosts: Vec<String> = (0..300).map(|number| format!("h{number}.example.org")).collect();
    let hosts: Vec<&str> =
        HOSTS.into_iter().chain([&*long]).chain(hosts.iter().map(String::as_str)).collect();
    let mut table = table_with(&hosts);
    table.server.tls = Some(settings(&world, "server"));
    // A server of a plugin on the port of the node gets its own name only.
    let server = "server { listen PORT; server_name own.org; return 200 own; }\n";
    let port = world.address.to_string();
    brings(&mut table, "q", &server.replace("PORT", &port), "");
    let mut front = world.serving(table, &[&worker, &other]);
    assert_eq!(said(&mut front), "");
    let own = |text: &str| text.contains("\r\nX-App: p\r\n") && text.ends_with("ok");
    for (line, host, body, has_own) in [
        ("GET /x", "app.org", "ok", true),
        ("GET /status", "app.org", "ok", true),
        ("GET /a/x", "app.org", "ok", true),
        ("GET /x", "APP.org.:81", "ok", true),
        ("GET /x", "a.b.wild.org", "ok", true),
        ("GET /x", "[::1]:80", "ok", true),
        ("GET /x", &long, "ok", true),
        ("GET /x", "h299.example.org", "ok", true),
        ("GET http://app.org/x", "plain.org", "ok", true),
        ("GET http://plain.org/x", "app.org", "other", false),
        ("GET /x", "plain.org", "other", false),
        ("GET /a/x", "plain.org", "other", false),
        ("GET /a/x", "other.org", "ok", true),
        ("GET /a/x", "wild.org", "ok", true),
        ("GET /x", "own.org", "own", false),
    ] {
        let request = format!("{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = ask(world.address, request);
        let seen = (answer.text(), answer.field("x-app").len());
        assert_eq!(seen, (body.to_string(), usize::from(has_own)), "{line} {host}");
    }
    for host in ["app.org", "a.wild.org"] {
        assert!(own(&curl(&world, &ca, host, "/x", &[])), "{host}");
    }
    assert!(curl(&world, &ca, "plain.org", "/x", &[]).ends_with("other"));
    assert!(own(&curl(&world, &ca, "other.org", "/a/x", &[])));
}

#[test]
fn files_of_a_host_with_a_fragment_are_nginxs_own_and_hosts_go_with_a_reload() {
    let Some(world) = World::with_lua() else { return };
    let worker = Worker::saying(&world, 1, "ok");
    let root = world.path("files");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("a.html"), "a file").unwrap();
    let with = |host: &str| {
        let mut table = table_with(&[]);
        let target = Target::Static { root: root.clone() };
        table.routes.insert(0, Route { host: Some(host.into()), ..route("/static", target) });
        let text = "expires 1h;\n".into();
        let fragment = Some(Fragment { file: "static.conf".into(), text });
        let apps = &mut table.fragments.get_mut("p").unwrap().apps;
        let app = AppFragments { static_location: fragment, ..AppFragments::default() };
        apps.insert("a".into(), app);
        table
    };
    let mut front = world.serving(with("one.org"), &[&worker]);
    said(&mut front);
    let seen = |front: &Front, host: &str| {
        let request = format!("GET /static/a.html HTTP/1.1\r\nHost: {host}\r\n");
        let answer = ask(front.address, format!("{request}Connection: close\r\n\r\n"));
        (answer.status, answer.field("cache-control").join(" "))
    };
    let (has, has_not) = ((200, "max-age=3600".to_string()), 404);
    assert_eq!((seen(&front, "one.org"), seen(&front, "two.org").0), (has.clone(), has_not));
    front.daemon.publish(2, with("two.org"), &[&worker]);
    said(&mut front);
    assert_eq!((seen(&front, "one.org").0, seen(&front, "two.org")), (has_not, has));
    assert_eq!(said(&mut front), "");
}

#[test]
fn what_nginx_answers_itself_is_no_page_for_hosts_of_no_app() {
    let Some(world) = World::with_lua() else { return };
    let worker = Worker::saying(&world, 1, "ok");
    let root = world.path("files");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("a.html"), "a file").unwrap();
    let mut table = table_with(&["app.org"]);
    table.routes.insert(0, route("/static", Target::Static { root }));
    let text = "expires 1h;\n".into();
    let static_location = Some(Fragment { file: "static.conf".into(), text });
    let app = AppFragments { static_location, ..AppFragments::default() };
    table.fragments.get_mut("p").unwrap().apps.insert("a".into(), app);
    let mut front = world.front(1);
    let seen = |host: &str, path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        try_ask(world.address, request).map(|answer| answer.status)
    };
    for (generation, (unknown_host, refused)) in [
        (UnknownHost::Default, Some(200)),
        (UnknownHost::NotFound, Some(404)),
        (UnknownHost::Misdirected, Some(421)),
        (UnknownHost::Close, None),
    ]
    .into_iter()
    .enumerate()
    {
        table.server.unknown_host = unknown_host;
        front.daemon.publish(generation as u64 + 1, table.clone(), &[&worker]);
        assert_eq!(said(&mut front), "");
        for host in ["localhost", "p.localhost", "127.0.0.1:80", "[::1]"] {
            assert_eq!(seen(host, "/static/a.html"), Some(200), "{unknown_host:?} {host}");
        }
        assert_eq!(seen("app.org", "/x"), Some(200), "{unknown_host:?}");
        assert_eq!(seen("other.org", "/static/a.html"), refused, "{unknown_host:?}");
        assert_eq!(seen("other.org", "/a/x"), refused, "{unknown_host:?}");
    }
}

#[test]
fn a_connection_is_ended_whatever_pages_a_fragment_has_and_apps_may_say_any_status() {
    let Some(world) = World::with_lua() else { return };
    let worker = Worker::start(&world, 1, |stream, received| {
        let status = received.target().rsplit('/').next().unwrap().to_string();
        let head = format!("HTTP/1.1 {status} Own\r\nContent-Length: 3\r\n\r\nown");
        stream.write_all(head.as_bytes()).is_ok()
    });
    let mut table = table_with(&["app.org"]);
    table.server.unknown_host = UnknownHost::Close;
    let mut front = world.front(1);
    let seen = |host: &str, path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        try_ask(world.address, request).map(|answer| (answer.status, answer.text()))
    };
    let pages = "error_page 404 502 503 /elsewhere;\n";
    let intercepts = format!("proxy_intercept_errors on;\n{pages}");
    for (generation, text) in [(1, pages), (2, &intercepts)] {
        let text = text.to_string();
        let location = Some(Fragment { file: "location.conf".into(), text });
        let app = AppFragments { location, ..AppFragments::default() };
        table.fragments.get_mut("p").unwrap().apps.insert("a".into(), app);
        front.daemon.publish(generation, table.clone(), &[&worker]);
        assert_eq!(said(&mut front), "");
        for path in ["/a/x", "/x", "/status"] {
            assert_eq!(seen("other.org", path), None, "{path}");
        }
        for status in [200, 421, 597] {
            let own = Some((status, "own".to_string()));
            assert_eq!(seen("localhost", &format!("/a/{status}")), own);
        }
        let is_own = seen("localhost", "/a/503") == Some((503, "own".into()));
        assert_eq!(is_own, generation == 1, "the fragment decides on pages of its app");
    }
}

//! What fragments of locations may say, and what they may not.

use std::net::{Ipv4Addr, SocketAddr};

use mfserv_core::route::{AppFragments, Fragment, RouteTable, Slots, Target};

use super::{brings, brings_to_app, said, serves, with_good};
use crate::world::*;

#[test]
fn limits_of_a_location_can_only_be_stricter() {
    let Some(world) = World::with_lua() else { return };
    let worker = Worker::saying(&world, 1, "ok");
    let mut front = world.front(1);
    let post = |length: usize| {
        let fields = format!("Host: h\r\nConnection: close\r\nContent-Length: {length}");
        let body = "x".repeat(length);
        ask(world.address, format!("POST /a HTTP/1.1\r\n{fields}\r\n\r\n{body}")).status
    };
    for (generation, limit, [short, long]) in [(1, 5, [413, 413]), (2, 100, [200, 413])] {
        let mut table = table(Slots::Unlimited, true);
        table.server.max_body_bytes = 10;
        brings_to_app(&mut table, &format!("client_max_body_size {limit};\n"));
        front.daemon.publish(generation, table, &[&worker]);
        said(&mut front);
        assert_eq!([post(6), post(11)], [short, long], "{limit}");
    }
    let mut table = table(Slots::Unlimited, true);
    brings_to_app(&mut table, "proxy_pass http://127.0.0.1:1;\n");
    front.daemon.publish(3, table, &[&worker]);
    said(&mut front);
    assert!(said(&mut front).contains("\"proxy_pass\" directive is duplicate"));
    assert_eq!(post(6), 200);
}

#[test]
fn a_location_that_every_server_has_is_refused_with_what_to_write() {
    let Some(world) = World::with_lua() else { return };
    let mut table = with_good();
    brings(&mut table, "all", "", "location / { return 200 all; }\n");
    let mut front = world.serving(table, &[]);
    said(&mut front);
    let warned = said(&mut front);
    for words in ["plugin all: server.conf", "duplicate location \"/\"", "`location ~ ^/`"] {
        assert!(warned.contains(words), "{warned}");
    }
    assert!(serves(&front, "/good"));
}

/// A table with the files of a directory, which nginx reads itself.
fn with_files(world: &World, fragment: &str) -> RouteTable {
    let root = world.path("files");
    std::fs::create_dir_all(root.join("sub")).unwrap();
    std::fs::write(root.join("sub/index.html"), "of sub").unwrap();
    let mut table = table(Slots::Unlimited, true);
    table.routes.insert(0, route("/s", Target::Static { root }));
    let static_location = Some(Fragment { file: "static.conf".into(), text: fragment.into() });
    let app = AppFragments { static_location, ..AppFragments::default() };
    table.fragments.entry("p".into()).or_default().apps.insert("a".into(), app);
    table
}

#[test]
fn the_redirect_to_a_directory_holds_behind_any_proxy_unless_the_fragment_wants_another() {
    let Some(world) = World::with_lua() else { return };
    let mut front = world.front(1);
    let port = world.address.port();
    for (generation, fragment, location) in [
        (1, "expires 1h;\n", "/s/sub/".to_string()),
        (2, "absolute_redirect on;\n", format!("http://h:{port}/s/sub/")),
    ] {
        front.daemon.publish(generation, with_files(&world, fragment), &[]);
        assert_eq!(said(&mut front), "");
        let request = "GET /s/sub HTTP/1.1\r\nHost: h\r\nX-Forwarded-Proto: https\r\n\r\n";
        let moved = ask(world.address, request);
        assert_eq!((moved.status, moved.field("location")), (301, vec![location]));
    }
}

#[test]
fn lines_of_what_nginx_answers_itself_have_the_cause_and_the_address_that_others_have() {
    let Some(mut world) = World::with_lua() else { return };
    let of_all = World::listening_on("[::]:0");
    (world.listeners, world.address) = (of_all.listeners, of_all.address);
    let front = world.serving(with_files(&world, "expires 1h;\n"), &[]);
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, front.address.port()));
    assert_eq!(get(to, "/s/none").status, 404);
    assert_eq!(get(to, "/s/sub/index.html").status, 200);
    assert_eq!(get(to, "/none").status, 404);
    let line = |path: &str| world.logged("uri", path);
    // The same of the front behind nginx, and of nginx.
    for (path, cause) in [("/none", "no_route"), ("/s/none", "not_found")] {
        assert_eq!(
            (&line(path)["from"], &line(path)["cause"]),
            (&"127.0.0.1".into(), &cause.into())
        );
    }
    let keys = |path: &str| line(path).as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys("/none"), keys("/s/none"));
    let good = line("/s/sub/index.html");
    assert!(good["from"] == "127.0.0.1" && good.get("cause").is_none(), "{good}");
}

//! What fragments of locations may say, and what they may not.

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

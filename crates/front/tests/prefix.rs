//! Routes that strip their prefix: the target that a worker gets, and what it is told of it.

use mfserv_core::route::{RealIp, Route, RouteTable, Slots, Target};

use crate::pull::puller::{Act, Puller, pulling};
use crate::routes::route;
use crate::world::*;

/// The app `p/a`, stripped at these prefixes and at `/` of a host, and as it is at `/a`.
fn stripping(mut table: RouteTable, prefixes: &[&str]) -> RouteTable {
    let app = Target::Upstream { name: "p/a".into() };
    let at = |prefix: &str| Route { strip_prefix: true, ..route(prefix, app.clone()) };
    table.routes = prefixes.iter().map(|prefix| at(prefix)).collect();
    table.routes.push(Route { host: Some("app.org".into()), ..at("/") });
    table.routes.push(route("/a", app.clone()));
    table
}

fn get(front: &Front, target: &str, fields: &str) -> Answer {
    let head = format!("GET {target} HTTP/1.1\r\nHost: h\r\n{fields}Connection: close\r\n\r\n");
    ask(front.address, head)
}

#[test]
fn a_worker_gets_the_rest_of_the_path_byte_by_byte_and_the_prefix_beside_it() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let table = stripping(table(Slots::Unlimited, true), &["/shop", "/deep/er", "/caf\u{e9} x"]);
    let front = world.serving(table, &[&worker]);
    for (target, rest, prefix) in [
        ("/shop", "/", "/shop"),
        ("/shop?q=/a", "/?q=/a", "/shop"),
        ("/shop/", "/", "/shop"),
        ("/shop/a/b?c=%2F", "/a/b?c=%2F", "/shop"),
        ("/shop/a%2Fb%20c//d", "/a%2Fb%20c//d", "/shop"),
        ("/shop//a", "//a", "/shop"),
        ("/other/../%73hop/x", "/x", "/shop"),
        ("http://other.org/shop/x", "/x", "/shop"),
        ("/deep/er/x/", "/x/", "/deep/er"),
        ("/caf%C3%A9%20x/y", "/y", "/caf%C3%A9%20x"),
    ] {
        assert_eq!(get(&front, target, "").status, 200, "{target}");
        let received = worker.last();
        assert_eq!(
            (received.target(), received.field("x-forwarded-prefix").concat()),
            (rest, prefix.into()),
            "{target}"
        );
        let whole = target.trim_start_matches("http://other.org");
        assert_eq!(received.field("x-forwarded-path"), [whole], "{target}");
    }
    let line = world.logged("uri", "/shop/a/b?c=%2F");
    assert_eq!(line["status"], 200, "the log has what the client asked for: {line}");
}

#[test]
fn a_client_names_no_prefix_and_a_route_without_one_strips_nothing() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let mut table = stripping(table(Slots::Unlimited, true), &["/shop"]);
    let mut front = world.serving(table.clone(), &[&worker]);
    let claimed = "X-Forwarded-Prefix: /evil\r\nx-forwarded-PREFIX: /evil\r\n";
    let none: [&str; 0] = [];
    for (is_told, generation) in [(true, 2), (false, 3)] {
        table.server.add_forwarded = is_told;
        front.daemon.publish(generation, table.clone(), &[&worker]);
        get(&front, "/shop/x", claimed);
        assert_eq!(worker.last().field("x-forwarded-prefix"), ["/shop"], "{is_told}");
        let asked =
            format!("GET /shop/x HTTP/1.1\r\nHost: app.org\r\n{claimed}Connection: close\r\n\r\n");
        ask(front.address, asked);
        let received = worker.last();
        assert_eq!(
            (received.target(), received.field("x-forwarded-prefix")),
            ("/shop/x", none.map(String::from).to_vec())
        );
        // As ever: who strips nothing has no word about it.
        get(&front, "/a/x", "X-Forwarded-Prefix: /outer\r\n");
        let received = worker.last();
        assert_eq!(
            (received.target(), received.field("x-forwarded-prefix").concat()),
            ("/a/x", "/outer".into())
        );
    }
}

#[test]
fn the_prefix_of_a_trusted_proxy_comes_before_that_of_the_route() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let trusting = |proxy: &str| {
        let mut table = stripping(table(Slots::Unlimited, true), &["/shop"]);
        let proxies = vec![proxy.to_string()];
        table.server.real_ip =
            Some(RealIp { header: "X-Forwarded-For".into(), recursive: true, proxies });
        table
    };
    let mut front = world.serving(trusting("127.0.0.0/8"), &[&worker]);
    for (said, told) in [
        ("", "/shop"),
        ("X-Forwarded-Prefix: /outer/\r\n", "/outer/shop"),
        ("X-Forwarded-Prefix: /a, /b/c\r\nX-Forwarded-Prefix: /d\r\n", "/a/b/c/d/shop"),
        ("X-Forwarded-Prefix: /a%20b/%C3%A9/../c%2fd?\r\n", "/a%20b/c/d%3F/shop"),
        ("X-Forwarded-Prefix: /%252Fevil.com\r\n", "/%252Fevil.com/shop"),
        ("X-Forwarded-Prefix: //evil.com\r\n", "/shop"),
        ("X-Forwarded-Prefix: /%2Fevil.com\r\n", "/shop"),
        ("X-Forwarded-Prefix: %2F%2Fevil.com\r\n", "/shop"),
        ("X-Forwarded-Prefix: /\\evil.com\r\n", "/shop"),
        ("X-Forwarded-Prefix: /%5Cevil.com\r\n", "/shop"),
        ("X-Forwarded-Prefix: /..//evil.com\r\n", "/shop"),
        ("X-Forwarded-Prefix: /./%2fevil.com\r\n", "/evil.com/shop"),
        ("X-Forwarded-Prefix: /a%0d%0ab\r\n", "/shop"),
        ("X-Forwarded-Prefix: /a%zz, evil.com, http://evil.com\r\n", "/shop"),
        ("X-Forwarded-Prefix: /\r\n", "/shop"),
    ] {
        get(&front, "/shop/x", said);
        assert_eq!(worker.last().field("x-forwarded-prefix"), [told], "{said}");
    }
    let at_host = "GET /x HTTP/1.1\r\nHost: app.org\r\nX-Forwarded-Prefix: /outer\r\nConnection: close\r\n\r\n";
    ask(front.address, at_host);
    assert_eq!(worker.last().field("x-forwarded-prefix"), ["/outer"]);
    front.daemon.publish(2, trusting("10.0.0.0/8"), &[&worker]);
    get(&front, "/shop/x", "X-Forwarded-Prefix: /outer\r\n");
    assert_eq!(worker.last().field("x-forwarded-prefix"), ["/shop"]);
}

#[test]
fn requests_to_upgrade_and_those_that_workers_pull_are_stripped_as_well() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let front = world.serving(stripping(table(Slots::Unlimited, true), &["/shop"]), &[&worker]);
    get(&front, "/shop/ws", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n");
    let upgrade =
        "GET /shop/ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
    ask(front.address, upgrade);
    let received = worker.last();
    assert_eq!(
        (received.target(), received.field("upgrade").concat()),
        ("/ws", "websocket".into())
    );
    assert_eq!(received.field("x-forwarded-prefix"), ["/shop"]);

    let world = World::new();
    let says = |text: &str| {
        text.lines().find(|line| line.starts_with("X-Forwarded-Prefix")).map(str::to_owned)
    };
    let puller = Puller::start(&world, 1, move |had| {
        Act::Say(format!("{} {}", had.target(), says(&had.text).unwrap_or_default()))
    });
    let front = world.serving(stripping(pulling(), &["/shop"]), &[&puller.worker]);
    puller.is_linked(&front);
    assert_eq!(get(&front, "/shop/a//b", "").text(), "/a//b X-Forwarded-Prefix: /shop");
    assert_eq!(get(&front, "/a/x", "").text(), "/a/x ");
}

//! Clients of IPv6: what apps, logs and rules learn of them, beside those of IPv4.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use mfserv_core::route::{RealIp, Slots};

use crate::world::*;

#[test]
fn an_app_and_the_log_learn_the_address_of_a_client_of_ipv6() {
    let world = World::listening_on("[::1]:0");
    let worker = Worker::saying(&world, 1, "ok");
    let front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    let (address, port) = (front.address, front.address.port());
    assert_eq!(address.to_string(), format!("[::1]:{port}"));
    let request = format!("GET /a/x HTTP/1.1\r\nHost: [::1]:{port}\r\nConnection: close\r\n\r\n");
    assert_eq!(ask(address, request).text(), "ok");
    let received = worker.last();
    for (name, value) in [
        ("x-real-ip", "::1".to_string()),
        ("x-forwarded-for", "::1".to_string()),
        ("host", format!("[::1]:{port}")),
        ("x-forwarded-host", format!("[::1]:{port}")),
        ("x-forwarded-port", port.to_string()),
    ] {
        assert_eq!(received.field(name), [value], "{name}");
    }
    let line = world.logged("uri", "/a/x");
    assert_eq!((&line["from"], &line["host"]), (&"::1".into(), &"[::1]".into()), "{line}");
    assert_eq!(ask(address, "GET /__uuid HTTP/1.1\r\nHost: [::1]\r\n\r\n").status, 200, "local");
}

#[test]
fn one_socket_for_all_addresses_knows_clients_of_ipv4_by_their_own() {
    let world = World::listening_on("[::]:0");
    let worker = Worker::saying(&world, 1, "ok");
    let front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    let port = front.address.port();
    let of_4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let of_6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    for (to, path, from) in [(of_4, "/a/4", "127.0.0.1"), (of_6, "/a/6", "::1")] {
        assert_eq!(get(to, path).text(), "ok", "{to}");
        assert_eq!(worker.last().field("x-real-ip"), [from], "{to}");
        assert_eq!(world.logged("uri", path)["from"], from, "{to}");
        assert_eq!(get(to, "/status").status, 200, "{to}: it is local");
    }
}

#[test]
fn proxies_of_ipv6_are_trusted_by_their_networks() {
    let world = World::listening_on("[::]:0");
    let worker = Worker::saying(&world, 1, "ok");
    let port = world.address.port();
    let to = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    let mut front = world.front(1);
    let said = |fields: &str, path: &str| {
        let text = format!("GET {path} HTTP/1.1\r\nHost: h\r\n{fields}Connection: close\r\n\r\n");
        assert_eq!(ask(to, text).status, 200);
        let line = world.logged("uri", path);
        (worker.last().field("x-real-ip").join(" "), line["from"].clone(), line["via"].clone())
    };
    let field = "X-Forwarded-For: 9.9.9.9, 2001:db8::7, fd00::1\r\n";
    for (generation, proxies, client) in [
        (1, vec!["::1/128", "fd00::/8"], "2001:db8::7"),
        (2, vec!["::1"], "fd00::1"),
        (3, vec!["2001:db8::/32", "10.0.0.0/8"], "::1"),
    ] {
        let mut table = table(Slots::Unlimited, true);
        table.server.real_ip = Some(RealIp {
            header: "X-Forwarded-For".into(),
            recursive: true,
            proxies: proxies.iter().map(ToString::to_string).collect(),
        });
        front.daemon.publish(generation, table, &[&worker]);
        let expected = (client.to_string(), client.into(), "::1".into());
        assert_eq!(said(field, &format!("/a/{generation}")), expected, "{proxies:?}");
    }
}

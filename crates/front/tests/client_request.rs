//! What the client has sent reaches the app as it was sent: ports, raw bytes in paths; and heads
//! of an unusual size or form.

use std::io::Write;

use mfserv_core::route::Slots;

use crate::world::*;

#[test]
fn an_app_learns_which_port_its_client_has_and_which_one_it_connected_to() {
    let Some(world) = World::where_holds("old_clients") else { return };
    let worker = Worker::saying(&world, 1, "ok");
    let front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    let port = front.address.port().to_string();
    let none: [&str; 0] = [];
    for (fields, host, forwarded_port) in [
        ("Host: www.example.org:8443", &["www.example.org:8443"][..], &["8443"][..]),
        ("Host: WWW.Example.org", &["www.example.org"], &[port.as_str()]),
        ("Host: [::1]:99", &["[::1]:99"], &["99"]),
        ("Host: h\r\nX-Forwarded-Port: 444", &["h"], &["444"]),
        // A proxy knows the port, or nobody does.
        ("Host: h:1\r\nX-Forwarded-Proto: https", &["h:1"], &none),
        ("Host: h:1\r\nX-Forwarded-Host: outer:2", &["outer:2"], &none),
        ("X-Real-Port: 5\r\nHost: h\r\nX-Forwarded-Prefix: /x", &["h"], &[port.as_str()]),
    ] {
        let mut client = Client::connect(front.address);
        let own = client.stream.local_addr().unwrap().port().to_string();
        client.send(format!("GET /a HTTP/1.1\r\n{fields}\r\n\r\n"));
        assert_eq!(client.receive().unwrap().status, 200, "{fields}");
        let received = worker.last();
        assert_eq!(received.field("x-forwarded-host"), host, "{fields}");
        assert_eq!(received.field("x-forwarded-port"), forwarded_port, "{fields}");
        assert_eq!(received.field("x-real-port"), [own], "{fields}");
    }
    assert_eq!(worker.last().field("x-forwarded-prefix"), ["/x"]);
    // Without Host (HTTP/1.0) no host is made up.
    ask(front.address, "GET /a HTTP/1.0\r\n\r\n");
    assert_eq!(worker.last().field("x-forwarded-host"), none);
    assert_eq!(worker.last().field("x-forwarded-port"), [port]);
}

#[test]
fn raw_utf_8_in_a_path_reaches_the_app_as_it_was_sent() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    for path in ["/a/café?q=é", "/a/日本/", "/a/%E9/é%20"] {
        let path = path.as_bytes();
        let mut client = Client::connect(front.address);
        client.send([b"GET ", path, b" HTTP/1.1\r\nHost: h\r\n\r\n"].concat());
        assert_eq!(client.receive().unwrap().status, 200, "{path:?}");
        // The connection to the worker is used again: what came on it stands one after the other.
        let raw = worker.raw.lock().unwrap().concat();
        let line = [b"GET ", path, b" HTTP/1.1\r\n"].concat();
        assert!(raw.windows(line.len()).any(|part| part == line), "{path:?}");
    }
}

#[test]
fn a_blank_in_the_target_is_a_bad_request_and_a_strange_version_is_not_supported() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    for (line, status) in [
        ("GET /a b HTTP/1.1", 400),
        ("GET /a?q=x y z HTTP/1.1", 400),
        ("POST /a b HTTP/1.0", 400),
        ("GET /a HTTP/2.0", 505),
        ("GET /a HTTP/3", 505),
    ] {
        let answer = ask(front.address, format!("{line}\r\nHost: h\r\n\r\n"));
        assert_eq!(answer.status, status, "{line}");
    }
    assert_eq!(worker.count(), 0);
}

#[test]
fn answers_with_hundreds_of_fields_pass() {
    let world = World::new();
    let worker = Worker::start(&world, 1, |stream, request| {
        let count: usize = request.target().trim_start_matches("/a/").parse().unwrap();
        let cookies: String = (0..count).map(|n| format!("Set-Cookie: c{n}=v\r\n")).collect();
        let head = format!("HTTP/1.1 200 OK\r\n{cookies}Content-Length: 2\r\n\r\nok");
        stream.write_all(head.as_bytes()).is_ok()
    });
    let front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    for count in [99, 150, 900] {
        let answer = front.get(&format!("/a/{count}"));
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{count}");
        assert_eq!(answer.field("set-cookie").len(), count);
    }
}

//! What a request or an answer leaves behind must not show in the next one.

use std::io::Write;
use std::time::Duration;

use mfserv_core::route::Slots;

use crate::world::*;

#[test]
fn a_refused_head_shows_nothing_of_the_request_before_it_and_is_counted_out() {
    let Some(world) = World::where_holds("own_refusals") else { return };
    let worker = Worker::saying(&world, 1, "ok");
    let front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    // Small ones leave their bytes behind, large ones leave none.
    for padding in [10, 6000] {
        for _ in 0..4 {
            let fields = format!("Host: h\r\nX: {}\r\nConnection: close", "x".repeat(padding));
            let before = format!("GET /a/secret?token=abc HTTP/1.1\r\n{fields}\r\n\r\n");
            assert_eq!(ask(front.address, before).text(), "ok");
            assert_eq!(ask(front.address, "GET / HTTP/2.0\r\n\r\n").status, 505);
        }
    }
    let log = world.path("log/nginx_error.log");
    let errors = || std::fs::read_to_string(&log).unwrap_or_default();
    until("the refusals are in the log", || errors().matches("answered 505").count() == 8);
    assert!(!errors().contains("secret"), "{}", errors());
    let status = get(front.address, "/__status").text();
    assert!(status.contains("Writing: 1 "), "{status}");
}

#[test]
fn an_answer_whose_connection_field_names_its_length_keeps_it() {
    let world = World::new();
    let worker = Worker::start(&world, 1, |stream, received| {
        let body = received.target();
        let fields = "Connection: Content-Length, X-Hop\r\nX-Hop: 1";
        let answer =
            format!("HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).is_ok()
    });
    let front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    let mut client = Client::connect(front.address);
    let one = |n| format!("GET /a/{n} HTTP/1.1\r\nHost: h\r\n\r\n");
    client.send(one(1) + &one(2));
    for wanted in ["/a/1", "/a/2"] {
        let answer = client.receive().unwrap();
        assert_eq!(answer.text(), wanted);
        assert_eq!(answer.field("x-hop"), [""; 0]);
    }
}

#[test]
fn a_proxy_on_the_same_machine_has_no_say_over_sockets_and_counters() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    for path in ["/__status", "/__upstream_status", "/__socket_down/L2E=", "/__uuid"] {
        for claim in ["X-Forwarded-For: 203.0.113.9", "X-Real-IP: 203.0.113.9"] {
            let fields = format!("Host: localhost\r\n{claim}\r\nConnection: close");
            let answer = ask(front.address, format!("GET {path} HTTP/1.1\r\n{fields}\r\n\r\n"));
            assert_eq!(answer.status, 403, "{path} {claim}");
        }
    }
    assert_eq!(get(front.address, "/__status").status, 200);
    assert_eq!(front.get("/a").text(), "ok");
}

#[test]
fn a_head_is_logged_with_its_time_and_its_length_also_when_it_is_refused() {
    let Some(world) = World::where_holds("lengths") else { return };
    let worker = Worker::saying(&world, 1, "ok");
    let front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    let mut client = Client::connect(front.address);
    client.send("GET /a HTTP/1.1\r\n");
    // The time is what the log is to have; the front may see the first bytes late.
    std::thread::sleep(Duration::from_millis(400));
    client.send("Host: h\r\n\r\n");
    assert_eq!(client.receive().unwrap().text(), "ok");
    assert_eq!(ask(front.address, "GET /a HTTP/1.1\r\nHost h\r\n\r\n").status, 400);
    let lines = world.access_log(2);
    // Lines of two connections may change places.
    let with = |status| lines.iter().find(|line| line["status"] == status).unwrap();
    assert!(with(200)["duration"].as_f64().unwrap() >= 0.2, "{}", with(200));
    assert_eq!(with(200)["request_length"], 28);
    assert_eq!(with(400)["request_length"], 27, "{}", with(400));
}

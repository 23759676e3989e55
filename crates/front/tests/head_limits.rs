//! How large heads may be, and what may stand in them.

use std::io::Write;

use mfserv_core::route::{HeadLimits, RouteTable, Slots, Target};
use mfserv_core::wire::front::Warned;

use crate::world::*;

/// Answers `/a/COUNT/LENGTH` with so many Set-Cookie fields with values of this length.
fn baker(world: &World) -> Worker {
    Worker::start(world, 1, |stream, received| {
        let numbers = received.target().split('/').filter_map(|part| part.parse::<usize>().ok());
        let numbers: Vec<usize> = numbers.collect();
        let [count, length] = numbers[..] else { return say(stream, "ok") };
        let cookie = format!("Set-Cookie: {}\r\n", "c".repeat(length)).repeat(count);
        let head = format!("HTTP/1.1 200 OK\r\n{cookie}Content-Length: 2\r\n\r\nok");
        stream.write_all(head.as_bytes()).is_ok()
    })
}

/// With these limits of requests and of answers: bytes and fields.
fn limited(request: (u32, u32), answer: (u32, u32)) -> RouteTable {
    let limits = |(bytes, fields)| HeadLimits { bytes, fields };
    let mut table = table(Slots::Unlimited, true);
    (table.server.request_head, table.server.answer_head) = (limits(request), limits(answer));
    table
}

/// The status of a request with so many further fields of such a length.
fn status_with(front: &Front, count: usize, length: usize) -> u16 {
    let fields = format!("X: {}\r\n", "x".repeat(length)).repeat(count);
    let head = format!("GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{fields}\r\n");
    ask(front.address, head).status
}

#[test]
fn the_head_of_an_answer_has_the_room_that_the_settings_say() {
    let world = World::new();
    let worker = baker(&world);
    let mut front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    let cookies = |front: &Front, path: &str| {
        let answer = front.get(path);
        (answer.status, answer.field("set-cookie").len())
    };
    let log = || std::fs::read_to_string(world.path("log/nginx_error.log")).unwrap_or_default();
    // What a login of some frameworks sets, and more than nginx has room for.
    for (path, count) in [("/a/150/200", 150), ("/a/150/400", 150), ("/a/999/40", 999)] {
        assert_eq!(cookies(&front, path), (200, count), "{path}");
    }
    for path in ["/a/1000/9", "/a/1/70000", "/a/200/400"] {
        assert_eq!(cookies(&front, path), (502, 0), "{path}");
        until("it is said", || log().contains("[front] answer_head_max or answer_fields_max"));
    }
    front.daemon.publish(2, limited((32 << 10, 100), (512 << 10, 1000)), &[&worker]);
    for (path, count) in [("/a/1/70000", 1), ("/a/600/800", 600), ("/a/3/150", 3)] {
        assert_eq!(cookies(&front, path), (200, count), "{path}");
    }
    assert_eq!(cookies(&front, "/a/1/530000"), (502, 0));
    front.daemon.publish(3, limited((32 << 10, 100), (1 << 10, 10)), &[&worker]);
    for (path, status) in [("/a/9/10", 200), ("/a/10/10", 502), ("/a/1/1100", 502)] {
        assert_eq!(front.get(path).status, status, "{path}");
    }
}

#[test]
fn the_head_of_a_request_has_the_room_that_the_settings_say() {
    let Some(world) = World::where_holds("own_refusals") else { return };
    let worker = Worker::saying(&world, 1, "ok");
    let mut front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    for (count, length, status) in
        [(98, 9, 200), (99, 9, 431), (1, 32_000, 200), (1, 33_000, 431), (4, 8000, 200)]
    {
        assert_eq!(status_with(&front, count, length), status, "{count} of {length}");
    }
    front.daemon.publish(2, limited((256 << 10, 1000), (64 << 10, 1000)), &[&worker]);
    for (count, length, status) in
        [(998, 9, 200), (999, 9, 431), (1, 200_000, 200), (1, 270_000, 431), (300, 800, 200)]
    {
        assert_eq!(status_with(&front, count, length), status, "{count} of {length}");
    }
    // Two large ones in one piece, the second one behind what is left of the first.
    let mut client = Client::connect(front.address);
    let one = format!("GET /a HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    client.send(one.repeat(2));
    for _ in 0..2 {
        assert_eq!(client.receive().unwrap().text(), "ok");
    }
    front.daemon.publish(3, limited((1 << 10, 5), (64 << 10, 1000)), &[&worker]);
    for (count, length, status) in [(3, 9, 200), (4, 9, 431), (1, 800, 200), (1, 1000, 431)] {
        assert_eq!(status_with(&front, count, length), status, "{count} of {length}");
    }
}

#[test]
fn any_byte_from_0x80_on_in_a_target_reaches_the_app_as_it_was_written() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let mut table = table(Slots::Unlimited, true);
    std::fs::create_dir(world.path("files")).unwrap();
    table.routes.push(route("/files", Target::Static { root: world.path("files") }));
    let front = world.serving(table, &[&worker]);
    let ask_for = |target: &[u8]| {
        let line = [b"GET ", target, b" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"].concat();
        ask(front.address, line).status
    };
    for target in [
        &b"/a/caf\xe9"[..],
        b"/a/caf\xc3\xa9/\xff?q=\xe9",
        b"/a/\xed\xa0\x80",
        b"/a/\xff/../\xfe",
        b"/b/../a/\xff",
    ] {
        assert_eq!(ask_for(target), 200, "{}", target.escape_ascii());
        let raw = worker.raw.lock().unwrap().concat();
        let line = [b"GET ", target, b" HTTP/1.1\r\n"].concat();
        assert!(find(&raw, &line).is_some(), "{}", target.escape_ascii());
        let path = [b"X-Forwarded-Path: ", target, b"\r\n"].concat();
        assert!(find(&raw, &path).is_some(), "{}", target.escape_ascii());
    }
    for (target, status) in
        [(&b"/files/\xff"[..], 404), (b"/\xff", 404), (b"/\xff/../../a", 400), (b"/a/\xff%zz", 400)]
    {
        assert_eq!(ask_for(target), status, "{}", target.escape_ascii());
    }
    let lines = world.access_log(9);
    assert!(lines.iter().any(|line| line["uri"] == "/a/caf\u{fffd}"), "{lines:?}");
}

#[test]
fn an_app_that_asks_for_a_file_is_warned_of_once_and_its_client_sees_no_path_of_the_node() {
    let Some(world) = World::where_holds("own_refusals") else { return };
    let worker = Worker::start(&world, 1, |stream, received| {
        let name = received.target().trim_start_matches("/a/").to_string();
        let field = format!("{name}: /internal/secret.pdf\r\nContent-Length: 2\r\n\r\nok");
        stream.write_all(format!("HTTP/1.1 200 OK\r\n{field}").as_bytes()).is_ok()
    });
    let mut front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    // Limits of the machine may be warned of besides.
    let warned = |front: &mut Front| {
        let mut warnings = front.daemon.stats().warnings;
        warnings.retain(|sentence, _| sentence.starts_with("app "));
        warnings
    };
    assert!(warned(&mut front).is_empty());
    for name in ["X-Accel-Redirect", "x-accel-redirect", "X-Sendfile"] {
        let answer = front.get(&format!("/a/{name}"));
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
        assert!(!answer.head.contains("internal"), "{}", answer.head);
    }
    let other = front.get("/a/X-Accel-Expires");
    assert_eq!(other.field("x-accel-expires"), ["/internal/secret.pdf"]);
    let warnings = warned(&mut front);
    let [(sentence, Warned { count: 3, last_ms, is_fault: false, .. })] =
        warnings.iter().collect::<Vec<_>>()[..]
    else {
        panic!("{warnings:?}")
    };
    assert!(sentence.starts_with("app p/a: it answers with X-Accel-Redirect"), "{sentence}");
    assert!(*last_ms > 1_600_000_000_000);
    let log = || std::fs::read_to_string(world.path("log/nginx_error.log")).unwrap_or_default();
    until("it is in the log", || log().contains("X-Accel-Redirect"));
    // What comes after it is in the log, too.
    assert_eq!(ask(front.address, "GET / HTTP/2.0\r\n\r\n").status, 505);
    until("the next line is there", || log().contains("answered 505"));
    assert_eq!(log().matches("X-Accel-Redirect").count(), 1, "{}", log());
}

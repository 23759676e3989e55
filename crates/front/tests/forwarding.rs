//! Which request goes where, with which fields; the front's own paths; the access log.

use std::time::Duration;

use mfserv_core::route::{Slots, Target};

use crate::world::*;

#[test]
fn requests_go_to_the_app_of_the_first_matching_route() {
    let world = World::new();
    let mut routes = table(Slots::Unlimited, true);
    routes.upstreams.insert("p/b".into(), routes.upstreams["p/a"].clone());
    routes.routes = vec![
        route("/p/b", Target::Upstream { name: "p/b".into() }),
        route("/p", Target::Upstream { name: "p/a".into() }),
        route("/fixed", Target::Fixed { status: 418, body: "short".into() }),
    ];
    let a = Worker::saying(&world, 1, "a");
    let b = Worker::start_of(&world, "p/b", 1, true, |stream, _| say(stream, "b"));
    let front = world.serving(routes, &[&a, &b]);
    for (path, status, body) in [
        ("/p", 200, "a"),
        ("/p/", 200, "a"),
        ("/p/x?y", 200, "a"),
        ("/p/b", 200, "b"),
        ("/p/b/c", 200, "b"),
        ("/p/bb", 200, "a"),
        ("/%70/%62", 200, "b"),
        ("/x/../p//b", 200, "b"),
        ("/fixed/below", 418, "short"),
    ] {
        let answer = front.get(path);
        assert_eq!((answer.status, answer.text().as_str()), (status, body), "{path}");
    }
    for (path, status) in [("/px", 404), ("/", 404), ("/..", 400), ("/%00", 400), ("/%zz", 400)] {
        assert_eq!(front.get(path).status, status, "{path}");
    }
}

#[test]
fn the_worker_gets_the_original_uri_and_the_fields_of_the_reference() {
    let Some(world) = World::where_holds("nominated_fields") else { return };
    let worker = Worker::saying(&world, 1, "ok");
    let front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    let answer = ask(
        front.address,
        "GET /a//b%2Fc/../d?q=%20&x HTTP/1.1\r\nHost: Name.Example:8080\r\nX-Custom: 1\r\n\
         X-Forwarded-For: 9.9.9.9\r\nX-Real-IP: 6.6.6.6\r\nX-Request-Id: mine\r\n\
         Connection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: x\r\nTE: trailers\r\n\
         Proxy-Authorization: secret\r\nProxy: http://evil\r\nX_Forwarded_For: 1\r\n\
         Upgrade: websocket\r\nAccept: */*\r\n\r\n",
    );
    let received = worker.last();
    assert_eq!(received.target(), "/a//b%2Fc/../d?q=%20&x");
    let id = answer.field("x-request-id");
    assert!(id[0].len() == 32 && id[0].bytes().all(|b| b"0123456789abcdef".contains(&b)));
    for (name, values) in [
        ("Host", vec!["Name.Example:8080"]),
        ("X-Custom", vec!["1"]),
        ("Accept", vec!["*/*"]),
        ("X-Real-IP", vec!["127.0.0.1"]),
        ("X-Forwarded-For", vec!["9.9.9.9, 127.0.0.1"]),
        ("X-Forwarded-Proto", vec!["http"]),
        ("X-Forwarded-Host", vec!["name.example:8080"]),
        ("X-Forwarded-Port", vec!["8080"]),
        ("X-Forwarded-Path", vec!["/a//b%2Fc/../d?q=%20&x"]),
        ("X-Request-Id", vec![id[0].as_str()]),
        ("Connection", vec![]),
        ("X-Hop", vec![]),
        ("Keep-Alive", vec![]),
        ("TE", vec![]),
        ("Upgrade", vec![]),
        ("Proxy", vec![]),
        ("Proxy-Authorization", vec![]),
        ("X_Forwarded_For", vec![]),
        ("Content-Length", vec![]),
    ] {
        assert_eq!(received.field(name), values, "{name}");
    }
}

#[test]
fn forwarded_fields_that_came_in_win() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    ask(
        front.address,
        "GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Host: outer\r\nX-Forwarded-Port: 444\r\nX-Forwarded-Path: /outer\r\n\r\n",
    );
    let received = worker.last();
    for (name, value) in [
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "outer"),
        ("X-Forwarded-Port", "444"),
        ("X-Forwarded-Path", "/outer"),
    ] {
        assert_eq!(received.field(name), [value], "{name}");
    }
}

#[test]
fn a_fresh_connection_per_request_says_that_it_is_closed() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let front = world.serving(table(Slots::Unlimited, false), &[&worker]);
    let mut client = Client::connect(front.address);
    for _ in 0..3 {
        assert_eq!(client.get("/a").text(), "ok");
    }
    assert_eq!(worker.last().field("connection"), ["close"]);
    assert_eq!(worker.raw.lock().unwrap().len(), 3);
}

#[test]
fn a_kept_connection_carries_request_after_request() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    let mut client = Client::connect(front.address);
    for _ in 0..20 {
        assert_eq!(client.get("/a").text(), "ok");
    }
    assert_eq!(worker.raw.lock().unwrap().len(), 1);
    until("the idle connection is closed", || {
        worker.open.load(std::sync::atomic::Ordering::SeqCst) == 0
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let world = World::new();
    let worker = Worker::start(&world, 1, |stream, received| say(stream, received.target()));
    let front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    let mut client = Client::connect(front.address);
    let all: String = (0..50).map(|n| format!("GET /a/{n} HTTP/1.1\r\nHost: h\r\n\r\n")).collect();
    client.send(all);
    for n in 0..50 {
        assert_eq!(client.receive().unwrap().text(), format!("/a/{n}"));
    }
}

#[test]
fn old_clients_get_answers_that_they_understand() {
    let world = World::new();
    let worker = Worker::start(&world, 1, |stream, _| {
        use std::io::Write;
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        stream.write_all(chunked.as_bytes()).is_ok()
    });
    let front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    let answer = ask(front.address, "GET /a HTTP/1.0\r\n\r\n");
    assert_eq!(answer.field("transfer-encoding"), [""; 0]);
    assert_eq!((answer.text().as_str(), answer.field("connection")), ("abc", vec!["close".into()]));
    let answer = front.get("/a");
    assert_eq!((answer.text().as_str(), answer.field("transfer-encoding").len()), ("abc", 1));
}

#[test]
fn answers_without_body_are_passed_on_without_one() {
    let world = World::new();
    let worker = Worker::start(&world, 1, |stream, received| {
        use std::io::Write;
        let status = received.target().rsplit('/').next().unwrap().to_string();
        let length = if status == "204" { "" } else { "Content-Length: 5\r\n" };
        stream.write_all(format!("HTTP/1.1 {status} X\r\n{length}\r\n").as_bytes()).is_ok()
    });
    let front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    let mut client = Client::connect(front.address);
    for _ in 0..3 {
        client.send("HEAD /a/200 HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(client.receive_to(true).unwrap().field("content-length"), ["5"]);
        assert_eq!(client.get("/a/304").status, 304);
        assert_eq!(client.get("/a/204").status, 204);
    }
}

#[test]
fn the_access_log_has_its_fields_in_order_and_stays_json() {
    let Some(world) = World::where_holds("lengths") else { return };
    let worker = Worker::saying(&world, 1, "hello");
    let front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    let request = "GET /a?\"q\\ HTTP/1.1\r\nHost: Some.Host:81\r\nConnection: close\r\n\r\n";
    let answer = ask(front.address, request);
    let id = answer.field("x-request-id").remove(0);
    front.get("/none");
    front.get("/status");
    ask(front.address, "nonsense\r\n\r\n");
    world.access_log(3);
    let text = std::fs::read_to_string(world.path("log/nginx_access.log")).unwrap();
    assert!(
        text.lines().all(|line| line.starts_with("{ \"@timestamp\": \"") && line.ends_with(" }"))
    );
    let of_the_first = text.lines().find(|line| line.contains(&id)).expect(&text);
    let places: Vec<usize> = [
        "@timestamp",
        "from",
        "host",
        "method",
        "uri",
        "duration",
        "status",
        "request_length",
        "reply_length",
        "plugin",
        "request_id",
    ]
    .iter()
    .map(|key| of_the_first.find(&format!("\"{key}\": ")).expect(key))
    .collect();
    assert!(places.is_sorted(), "{places:?}");
    let line = world.logged("request_id", id);
    assert_eq!(line["from"], "127.0.0.1");
    assert_eq!(line["host"], "some.host");
    assert_eq!(line["method"], "GET");
    assert_eq!(line["uri"], "/a?\"q\\");
    assert_eq!(line["status"], 200);
    assert_eq!(line["request_length"], request.len());
    assert_eq!(line["reply_length"], answer.head.len() + 5);
    assert_eq!(line["plugin"], "p");
    assert!(line["duration"].is_f64());
    assert_eq!(world.logged("status", 404)["plugin"], "#unknown#");
    world.logged("status", 400);
}

#[test]
fn every_answer_has_a_request_id_and_errors_a_cause() {
    let world = World::new();
    let front = world.serving(
        {
            let mut table = table(Slots::Unlimited, true);
            table.upstreams.get_mut("p/a").unwrap().queue_timeout_ms = 50;
            table
        },
        &[],
    );
    for (request, status, cause) in [
        ("GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", 503, "no_worker"),
        ("GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", 404, "no_route"),
        ("GET / HTTP/1.1\r\n\r\n", 400, "bad_request"),
    ] {
        let answer = ask(front.address, request);
        assert_eq!(answer.status, status);
        assert_eq!(answer.field("x-mfserv-cause"), [cause]);
        assert_eq!(answer.field("x-request-id")[0].len(), 32);
        assert_eq!(answer.field("retry-after").len(), usize::from(status == 503));
    }
}

#[test]
fn the_page_for_unknown_urls_comes_with_status_404() {
    let world = World::new();
    std::fs::write(world.path("welcome.html"), "<b>welcome</b>").unwrap();
    let mut with_page = table(Slots::Unlimited, true);
    with_page.not_found_page = Some(world.path("welcome.html"));
    let front = world.serving(with_page, &[]);
    let answer = front.get("/");
    assert_eq!((answer.status, answer.text().as_str()), (404, "<b>welcome</b>"));
    assert_eq!(answer.field("content-type"), ["text/html"]);
}

#[test]
fn slow_clients_and_idle_connections_are_let_go() {
    let Some(world) = World::where_holds("client_limits") else { return };
    let worker = Worker::saying(&world, 1, "ok");
    let mut quick = table(Slots::Unlimited, true);
    quick.server.header_timeout_ms = 2000;
    quick.server.keepalive_timeout_ms = 2000;
    quick.server.client_timeout_ms = 2000;
    let front = world.serving(quick, &[&worker]);
    let mut silent = Client::connect(front.address);
    let mut slow = Client::connect(front.address);
    slow.send("GET /a HTTP/1.1\r\nHo");
    let mut idle = Client::connect(front.address);
    idle.get("/a");
    let mut body = Client::connect(front.address);
    body.send("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc");
    assert!(silent.is_closed());
    assert_eq!(slow.receive().unwrap().status, 408);
    assert!(idle.is_closed());
    assert_eq!(body.receive().unwrap().status, 408);
    assert_eq!(worker.count(), 1);
}

#[test]
fn clients_beyond_the_limit_wait_until_another_goes() {
    let Some(world) = World::where_holds("client_limits") else { return };
    let worker = Worker::saying(&world, 1, "ok");
    let mut few = table(Slots::Unlimited, true);
    few.server.max_connections = 2;
    let front = world.serving(few, &[&worker]);
    // A request that has begun is no rest.
    let begun = || {
        let mut client = Client::connect(front.address);
        client.send("GET /a HTTP/1.1\r\n");
        client
    };
    let (first, mut second) = (begun(), begun());
    let mut third = Client::connect(front.address);
    third.send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
    third.stream.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
    assert!(third.receive().is_none());
    assert_eq!(worker.count(), 0);
    drop(first);
    third.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(third.receive().unwrap().text(), "ok");
    second.send("Host: h\r\n\r\n");
    assert_eq!(second.receive().unwrap().text(), "ok");
}

#[test]
fn idle_clients_do_not_lock_out_new_ones() {
    let Some(world) = World::where_holds("client_limits") else { return };
    let worker = Worker::saying(&world, 1, "ok");
    let mut few = table(Slots::Unlimited, true);
    few.server.max_connections = 4;
    few.server.keepalive_timeout_ms = NEVER_MS;
    few.server.header_timeout_ms = NEVER_MS;
    let mut front = world.serving(few, &[&worker]);
    // Kept, silent from the beginning, and answered early without an end.
    let mut kept = Client::connect(front.address);
    assert_eq!(kept.get("/a").text(), "ok");
    let mut silent = Client::connect(front.address);
    until("it is accepted", || front.daemon.stats().connections == 2);
    let mut early = Client::connect(front.address);
    early.send("POST /nowhere HTTP/1.1\r\nHost: h\r\nContent-Length: 50\r\n\r\n");
    assert_eq!(early.receive().unwrap().status, 404);
    let mut busy = Client::connect(front.address);
    busy.send("GET /a HTTP/1.1\r\n");
    let mut others: Vec<Client> = (0..3).map(|_| Client::connect(front.address)).collect();
    for other in &mut others {
        assert_eq!(other.get("/a").text(), "ok");
    }
    assert!(kept.is_closed() && silent.is_closed() && early.is_closed());
    busy.send("Host: h\r\n\r\n");
    assert_eq!(busy.receive().unwrap().text(), "ok");
    // Two lanes that look at once may have made room for the same client.
    let before = front.daemon.stats().connections;
    assert!((3..=4).contains(&before), "{before}");
    // While nobody waits, nobody has to go: nothing must happen for longer than the second in
    // which the front looks again.
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(front.daemon.stats().connections, before);
}

#[test]
fn a_request_id_of_the_client_is_kept_where_that_is_allowed() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let mut accepting = table(Slots::Unlimited, true);
    accepting.server.accept_request_id = true;
    let front = world.serving(accepting, &[&worker]);
    let with = |id: &str| {
        let request = format!(
            "GET /a HTTP/1.1\r\nHost: h\r\nX-Request-Id: {id}\r\nConnection: close\r\n\r\n"
        );
        let answer = ask(front.address, request);
        let seen = worker.last().field("x-request-id");
        assert_eq!(answer.field("x-request-id"), seen);
        seen[0].clone()
    };
    assert_eq!(with("mine-1"), "mine-1");
    for unfit in ["", "two words", &"x".repeat(200)] {
        assert_eq!(with(unfit).len(), 32, "{unfit:?}");
    }
}

#[test]
fn without_the_options_no_field_is_added_and_theirs_pass_through() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let mut plain = table(Slots::Unlimited, true);
    (plain.server.add_forwarded, plain.server.add_request_id) = (false, false);
    let front = world.serving(plain, &[&worker]);
    let answer = ask(
        front.address,
        "GET /a HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 1.1.1.1\r\nX-Request-Id: theirs\r\n\
         Connection: close\r\n\r\n",
    );
    let received = worker.last();
    assert_eq!(received.field("x-forwarded-for"), ["1.1.1.1"]);
    assert_eq!(received.field("x-request-id"), ["theirs"]);
    assert_eq!(received.field("x-real-ip"), [""; 0]);
    assert_eq!(answer.field("x-request-id"), [""; 0]);
}

//! The access log of a front. Each lane writes lines of its own, so their order says nothing: a
//! test finds a line by what is in it.

use std::io::Write;
use std::net::SocketAddr;

use mfserv_core::route::Slots;
use mfserv_logfile::{Index, request_hash};
use serde_json::Value;

use crate::world::{Client, Front, ONE, Worker, World, ask, say, table, until};

impl World {
    /// The parsed lines, once there are at least `count`.
    pub fn access_log(&self, count: usize) -> Vec<Value> {
        let mut lines = Vec::new();
        until("lines in the access log", || {
            let text = std::fs::read_to_string(self.path("log/nginx_access.log"));
            lines = text.unwrap_or_default().lines().map(String::from).collect();
            lines.len() >= count
        });
        lines.iter().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    /// The first line that has this value, once there is one.
    pub fn logged(&self, key: &str, value: impl Into<Value>) -> Value {
        let (mut found, value) = (None, value.into());
        until(&format!("a line of the access log with {key} {value}"), || {
            found = self.access_log(0).into_iter().find(|line| line[key] == value);
            found.is_some()
        });
        found.unwrap_or_default()
    }
}

#[test]
fn the_id_of_each_error_page_leads_to_a_line_that_ends_with_its_cause() {
    let Some(world) = World::where_holds("own_refusals") else { return };
    let worker = Worker::saying(&world, 1, "ok");
    let mut routes = table(Slots::Unlimited, true);
    routes.server.max_body_bytes = 10;
    let front = world.serving(routes, &[&worker]);
    let with = |start: &str, host: &str, rest: &str| {
        format!("{start} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{rest}\r\n")
    };
    let plain = |start: &str| with(start, "localhost", "");
    for (request, status, cause) in [
        (plain("GET /nothing"), 404, "no_route"),
        (plain("GET /a%00"), 400, "bad_path"),
        (plain("TRACE /a"), 405, "method"),
        (with("POST /a", "localhost", "Content-Length: 11\r\n"), 413, "too_large"),
        (with("GET /a", "localhost", "Host: again\r\n"), 400, "bad_request"),
        (plain("POST /__health"), 405, "method"),
        (plain("POST /status"), 405, "method"),
        (plain("DELETE /uuid"), 405, "method"),
        (plain("POST /__socket_up/foo"), 400, "bad_socket"),
        (plain("GET /__socket_up/foo"), 405, "post_only"),
        (with("GET /status", "evil.example", ""), 403, "foreign_page"),
    ] {
        let answer = ask(front.address, request.clone());
        assert_eq!(answer.status, status, "{request}");
        assert!(answer.text().contains(&format!("cause: {cause}<br>")), "{}", answer.text());
        let line = world.logged("request_id", answer.field("x-request-id")[0].as_str());
        assert_eq!((&line["status"], &line["cause"]), (&status.into(), &cause.into()), "{line}");
    }
    let text = std::fs::read_to_string(world.path("log/nginx_access.log")).unwrap();
    assert!(text.lines().all(|line| line.ends_with("\" }") && line.contains("\", \"cause\": \"")));
    // What is not refused is as it was: an answer of an app has no cause, and /status no line.
    assert_eq!(front.get("/status").status, 200);
    assert_eq!(front.get("/a/well").status, 200);
    let line = world.logged("uri", "/a/well");
    assert!(line.get("cause").is_none(), "{line}");
    assert!(
        !world.access_log(0).iter().any(|line| line["status"] == 200 && line["uri"] != "/a/well")
    );
}

/// A worker that answers a request each time that it is told to.
fn waiting(world: &World) -> (Worker, std::sync::mpsc::Sender<()>) {
    let (answers, may_answer) = std::sync::mpsc::channel::<()>();
    let may_answer = std::sync::Mutex::new(may_answer);
    let worker = Worker::start(world, 1, move |stream, _| {
        may_answer.lock().unwrap().recv().unwrap();
        say(stream, "ok")
    });
    (worker, answers)
}

#[test]
fn the_index_of_the_access_log_says_when_a_worker_had_a_request() {
    let world = World::new();
    let (worker, answers) = waiting(&world);
    let front = world.serving(table(ONE, true), &[&worker]);
    let now_ms = || jiff::Timestamp::now().as_millisecond() as u64;
    let began = now_ms();
    let mut clients = [Client::connect(front.address), Client::connect(front.address)];
    clients[0].stream.write_all(b"GET /a/first HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    until("the worker has the first one", || worker.count() == 1);
    let asked = now_ms();
    clients[1].stream.write_all(b"GET /a/second HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    // Time passes in the worker: the second request waits for it meanwhile.
    until("a while", || now_ms() > asked + 50);
    let answered = now_ms();
    answers.send(()).unwrap();
    clients[0].receive().unwrap();
    until("the worker has the second one", || worker.count() == 2);
    answers.send(()).unwrap();
    clients[1].receive().unwrap();
    let ended = now_ms();
    let [first, second] = ["/a/first", "/a/second"].map(|uri| {
        let line = world.logged("uri", uri);
        let hash = request_hash(line["request_id"].as_str().unwrap().as_bytes());
        let mut found = Index::requests(&world.path("log/nginx_access.log"), hash).unwrap();
        found.next().unwrap()
    });
    let (one, two) = (first.served.unwrap(), second.served.unwrap());
    assert!(began <= one.from_ms && one.from_ms <= asked, "{began} {one:?} {asked}");
    assert!(answered <= one.to_ms && one.to_ms <= one.end_ms, "{answered} {one:?}");
    // Not while it waited for the first one.
    assert!(one.to_ms <= two.from_ms && two.end_ms <= ended, "{one:?} {two:?} {ended}");
    assert_eq!((first.next_ms, second.next_ms), (Some(two.from_ms), None));
}

/// A client that has sent this much.
fn begins(address: SocketAddr, uri: &str, rest: &str) -> Client {
    let mut client = Client::connect(address);
    client.send(format!("POST {uri} HTTP/1.1\r\nHost: localhost\r\n{rest}"));
    client
}

/// Ends a front, with which both of its processes have written all lines, and counts those of
/// each request.
fn assert_one_line_each(world: &World, mut front: Front, uris: &[&str]) {
    for uri in uris {
        world.logged("uri", *uri);
    }
    front.signal(rustix::process::Signal::TERM);
    front.ended();
    let lines = world.access_log(0);
    for uri in uris {
        let of_it: Vec<_> = lines.iter().filter(|line| line["uri"] == **uri).collect();
        assert_eq!(of_it.len(), 1, "{of_it:?}");
    }
}

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n";

#[test]
fn a_request_that_its_client_breaks_off_has_one_line() {
    let world = World::new();
    let (worker, answers) = waiting(&world);
    let mut front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    let address = front.address;
    // It waits for its answer.
    let client = begins(address, "/a/held", "Content-Length: 0\r\n\r\n");
    until("the worker has it", || worker.count() == 1);
    drop(client);
    world.logged("uri", "/a/held");
    answers.send(()).unwrap();
    // In the middle of its body, before and after the front behind nginx has its head.
    let length = "Content-Length: 10\r\n\r\n12345";
    drop(begins(address, "/a/length", length));
    drop(begins(address, "/a/chunked", CHUNKED));
    for (uri, rest) in [("/a/later", length), ("/a/later_chunked", CHUNKED)] {
        until("the others have ended", || front.daemon.stats().under_way == 0);
        let client = begins(address, uri, rest);
        until("the front has its head", || front.daemon.stats().under_way == 1);
        drop(client);
    }
    let uris = ["/a/held", "/a/length", "/a/chunked", "/a/later", "/a/later_chunked"];
    assert_one_line_each(&world, front, &uris);
}

#[test]
fn a_request_whose_body_turns_out_to_be_broken_or_too_large_has_one_line() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let mut routes = table(Slots::Unlimited, true);
    routes.server.max_body_bytes = 1000;
    let mut front = world.serving(routes, &[&worker]);
    let address = front.address;
    let large = format!("3E9\r\n{}\r\n0\r\n\r\n", "x".repeat(1001));
    begins(address, "/a/large", &format!("{CHUNKED}{large}")).receive();
    begins(address, "/a/broken", &format!("{CHUNKED}xyz\r\n")).receive();
    for (uri, rest) in [("/a/later_large", &*large), ("/a/later_broken", "xyz\r\n")] {
        let mut client = begins(address, uri, CHUNKED);
        until("the front has its head", || front.daemon.stats().under_way == 1);
        client.send(rest);
        client.receive();
        until("it has ended", || front.daemon.stats().under_way == 0);
    }
    let uris = ["/a/large", "/a/broken", "/a/later_large", "/a/later_broken"];
    assert_one_line_each(&world, front, &uris);
}

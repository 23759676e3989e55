//! A node that is being stopped: its front finishes what it has, and refuses the rest.

use std::time::Instant;

use mfserv_core::route::RouteTable;

use crate::world::*;

fn stopping(before: &RouteTable) -> RouteTable {
    let mut next = before.clone();
    next.server.stopping = true;
    next
}

/// It was answered at once, that the node is being stopped, and the connection ends.
fn assert_refused(client: &mut Client, path: &str) {
    let began = Instant::now();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
    let answer = client.receive().unwrap();
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    assert_eq!(answer.status, 503, "{path}");
    let field = |name: &str| answer.field(name).join(",");
    assert_eq!(field("x-mfserv-cause"), "stopping");
    assert_eq!((field("retry-after"), field("connection")), ("5".into(), "close".into()));
    assert!(answer.text().contains("<p>cause: stopping<br>request: "), "{}", answer.text());
    assert!(client.is_closed());
}

#[test]
fn what_the_front_has_is_answered_and_what_comes_later_is_refused_at_once() {
    let Some(world) = World::where_holds("connection_end") else { return };
    let worker = Worker::saying(&world, 1, "ok");
    let mut before = table(ONE, true);
    let app = before.upstreams.get_mut("p/a").unwrap();
    (app.timeout_ms, app.queue_timeout_ms) = (NEVER_MS, NEVER_MS);
    before.server.client_timeout_ms = NEVER_MS;
    before.server.keepalive_timeout_ms = NEVER_MS;
    let mut front = world.serving(before.clone(), &[]);
    let mut waits = Client::connect(front.address);
    waits.send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
    let mut uploads = Client::connect(front.address);
    uploads.send("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nab");
    until("both are there", || front.daemon.stats().under_way == 2);
    let mut kept = Client::connect(front.address);
    assert_eq!(kept.get("/uuid").status, 200);

    front.daemon.amend(2, (&before, &stopping(&before)), &[]);
    assert_refused(&mut kept, "/a");
    assert_refused(&mut Client::connect(front.address), "/a");
    assert_refused(&mut Client::connect(front.address), "/nowhere");
    assert_eq!(front.get("/uuid").text(), "the-uuid\n");
    assert_eq!(front.daemon.stats().under_way, 2);

    uploads.send("cd");
    front.daemon.admit(&worker);
    for client in [&mut waits, &mut uploads] {
        assert_eq!(client.receive().unwrap().text(), "ok");
    }
    until("both are answered", || front.daemon.stats().under_way == 0);
}

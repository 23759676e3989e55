//! nginx that accepts nobody and does not hang: one that ends. Its requests go on.

use std::time::Duration;

use mfserv_core::route::Slots;
use rustix::process::Signal;

use crate::fragments::is_ending;
use crate::heavy::alone;
use crate::kind;
use crate::world::*;

/// So often nginx is looked at here.
const LOOK: Duration = Duration::from_millis(200);
/// nginx that leaves connections unanswered is killed after less than this: 15 looks, and as much
/// again, since each look takes its time too.
const LONGER: Duration = Duration::from_millis(15 * 200 * 2);

/// `None` in the runs with other kinds than nginx.
fn world() -> Option<World> {
    let mut world = (kind::under_test().0 == "nginx").then(World::new)?;
    world.env.push(("FRONT_LOOK_MS", LOOK.as_millis().to_string()));
    Some(world)
}

/// A worker that answers `/a/long` after longer than nginx may be silent, and all else at once.
fn patient(world: &World) -> Worker {
    Worker::start(world, 1, |stream, request| {
        if request.target() == "/a/long" {
            std::thread::sleep(LONGER);
        }
        say(stream, "at last")
    })
}

/// A client whose request the worker has.
fn waiting(front: &Front, worker: &Worker) -> Client {
    let mut client = Client::connect(front.address);
    client.send("GET /a/long HTTP/1.1\r\nHost: h\r\n\r\n");
    until("the worker has the request", || worker.count() == 1);
    client
}

fn lasting_table() -> mfserv_core::route::RouteTable {
    let mut table = table(Slots::Unlimited, true);
    table.upstreams.get_mut("p/a").unwrap().timeout_ms = NEVER_MS;
    (table.server.max_connections, table.server.header_timeout_ms) = (40_000, NEVER_MS);
    table
}

#[test]
fn a_front_that_ends_finishes_a_request_that_lasts_longer_than_nginx_may_be_silent() {
    let Some(world) = world() else { return };
    let _alone = alone();
    let worker = patient(&world);
    let mut front = world.serving(lasting_table(), &[&worker]);
    let mut client = waiting(&front, &worker);
    front.signal(Signal::TERM);
    until("nginx is asked to end", || is_ending(&front));
    assert_eq!(client.receive().expect("an answer").text(), "at last");
    assert!(front.ended().success());
}

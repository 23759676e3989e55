//! Tables that are said by what differs.

use std::collections::BTreeMap;
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use mfserv_core::route::{Amendment, Route, RouteTable, Slots, Target};
use mfserv_core::wire::front::{FromFront, ToFront};

use crate::world::*;

/// The table of the tests with a plugin `q` beside `p`, behind this prefix.
fn with_q(prefix: &str) -> RouteTable {
    let mut both = table(ONE, true);
    both.upstreams.insert("q/b".into(), both.upstreams["p/a"].clone());
    let behind = route(prefix, Target::Upstream { name: "q/b".into() });
    both.routes.push(Route { plugin: "q".into(), app: "b".into(), ..behind });
    both
}

/// A worker of `q/b`.
fn of_q(mut worker: Worker) -> Worker {
    worker.app = "q/b".into();
    worker
}

#[test]
fn an_amendment_changes_the_plugin_that_it_names_and_no_other() {
    let world = World::new();
    let (tell, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let of_p = Worker::start(&world, 1, move |stream, received| {
        if received.target() == "/a/wait" {
            told.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        }
        say(stream, "p")
    });
    let (one, two) =
        (of_q(Worker::saying(&world, 2, "one")), of_q(Worker::saying(&world, 3, "two")));
    let mut front = world.serving(with_q("/b"), &[&of_p, &one]);
    let mut busy = Client::connect(front.address);
    busy.send("GET /a/wait HTTP/1.1\r\nHost: h\r\n\r\n");
    until("the worker of p is busy", || of_p.count() == 1);
    assert_eq!(front.get("/b").text(), "one");
    // Another prefix and another worker of q; p is not said.
    front.daemon.amend(2, (&with_q("/b"), &with_q("/c")), &[&two]);
    assert_eq!(front.get("/c").text(), "two");
    assert_eq!(front.get("/b").status, 404);
    front.daemon.drain(&one);
    front.daemon.drained(&one);
    tell.send(()).unwrap();
    assert_eq!(busy.receive().unwrap().text(), "p");
    assert_eq!(front.get("/a").text(), "p");
    // It goes.
    front.daemon.amend(3, (&with_q("/c"), &table(ONE, true)), &[]);
    assert_eq!(front.get("/c").status, 404);
    assert_eq!(front.get("/a").text(), "p");
    front.daemon.drain(&two);
    front.daemon.drained(&two);
}

#[test]
fn an_amendment_of_another_table_or_one_that_is_wrong_changes_nothing() {
    let world = World::new();
    let (of_p, one) = (Worker::saying(&world, 1, "p"), of_q(Worker::saying(&world, 2, "one")));
    let mut front = world.serving(with_q("/b"), &[&of_p, &one]);
    let to = |after: &RouteTable| Amendment::between(&with_q("/b"), after);
    let mut unknown = with_q("/b");
    unknown.routes[1].target = Target::Upstream { name: "q/unknown".into() };
    let mut foreign = with_q("/b");
    foreign.routes[1].target = Target::Upstream { name: "p/a".into() };
    let mut pattern = with_q("/(");
    pattern.routes[1].pattern = true;
    let mut slots = with_q("/b");
    slots.upstreams.get_mut("q/b").unwrap().slots = Slots::Finite { per_worker: 0 };
    for (base, generation, after) in [
        (0, 2, with_q("/c")),
        (2, 3, with_q("/c")),
        (1, 0, with_q("/c")),
        (1, 2, unknown),
        (1, 2, foreign),
        (1, 2, pattern),
        (1, 2, slots),
    ] {
        let (amendment, peers) = (Box::new(to(&after)), BTreeMap::new());
        front.daemon.say(&ToFront::Amend { base, generation, amendment, peers });
        front.daemon.wait_for(
            |m| matches!(m, FromFront::Refused { generation: g, .. } if *g == generation),
        );
        assert_eq!(front.get("/a").text(), "p");
        assert_eq!(front.get("/b").text(), "one");
    }
    let early = |m: &FromFront| matches!(m, FromFront::Published { .. });
    assert!(!front.daemon.says(early, Duration::from_millis(50)));
}

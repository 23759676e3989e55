//! Clients that come back to the worker that they have had, while it serves.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use mfserv_core::route::{Affinity, RealIp, RouteTable, Slots, Target};

use crate::files::asking;
use crate::world::*;

fn by_cookie() -> Option<Affinity> {
    Some(Affinity::Cookie { name: "who".into() })
}

fn sticky(slots: Slots, affinity: Option<Affinity>) -> RouteTable {
    let mut table = table(slots, true);
    table.upstreams.get_mut("p/a").unwrap().affinity = affinity;
    table
}

/// Workers that say their number.
fn workers(world: &World) -> Vec<Worker> {
    (1..=3)
        .map(|number| {
            Worker::start(world, number, move |stream, _| say(stream, &number.to_string()))
        })
        .collect()
}

/// What a browser sends back of a cookie.
fn cookie(answer: &Answer) -> String {
    let set = answer.field("set-cookie");
    assert_eq!(set.len(), 1, "{}", answer.head);
    set[0].split(';').next().unwrap().to_string()
}

fn with_cookie(front: &Front, cookie: &str) -> Answer {
    ask(front.address, asking("/a/x", &format!("Cookie: a=b; {cookie}; c=d")))
}

#[test]
fn a_client_with_the_cookie_of_a_worker_has_that_one_and_any_other_when_it_has_gone() {
    let world = World::new();
    let all = workers(&world);
    let mut front = world.serving(sticky(ONE, by_cookie()), &[&all[0], &all[1], &all[2]]);
    let first = front.get("/a/x");
    let set = first.field("set-cookie").remove(0);
    assert!(set.starts_with("who=") && set.ends_with("; Path=/a; HttpOnly; SameSite=Lax"), "{set}");
    let mut marked = cookie(&first);
    let mut left: Vec<&Worker> = all.iter().collect();
    let mut had = first.text();
    while left.len() > 1 {
        for _ in 0..10 {
            let answer = with_cookie(&front, &marked);
            assert_eq!((answer.status, answer.text()), (200, had.clone()));
            assert!(answer.field("set-cookie").is_empty(), "it has one: {}", answer.head);
        }
        let at = left.iter().position(|one| one.id.slot.to_string() == had).unwrap();
        let gone = left.remove(at);
        match left.len() {
            2 => front.daemon.drain(gone),
            _ => front.daemon.forget(gone),
        }
        let answer = until_another(&front, &marked, &had);
        (marked, had) = (cookie(&answer), answer.text());
    }
    // What names no worker, or nothing that could.
    for invented in ["who=0123456789abcdef", "who=", "who", "whom=1"] {
        let answer = with_cookie(&front, invented);
        assert_eq!((answer.status, answer.field("set-cookie").len()), (200, 1), "{invented}");
    }
    let two = format!("who=0123456789abcdef; {marked}");
    assert!(with_cookie(&front, &two).field("set-cookie").is_empty(), "one of both is right");
}

/// The first answer of another worker. None fails until then.
fn until_another(front: &Front, marked: &str, had: &str) -> Answer {
    let mut found = None;
    until("another worker answers", || {
        let answer = with_cookie(front, marked);
        assert_eq!(answer.status, 200);
        let is_other = answer.text() != had;
        found = Some(answer);
        is_other
    });
    found.unwrap()
}

#[test]
fn clients_without_a_cookie_are_spread_and_those_of_an_app_without_affinity_get_none() {
    let world = World::new();
    let all = workers(&world);
    let mut front = world.serving(sticky(ONE, by_cookie()), &[&all[0], &all[1], &all[2]]);
    let seen: BTreeSet<String> = (0..9).map(|_| front.get("/a/x").text()).collect();
    assert_eq!(seen.len(), 3);
    front.daemon.publish(2, sticky(ONE, None), &[&all[0], &all[1], &all[2]]);
    assert!(front.get("/a/x").field("set-cookie").is_empty());
}

#[test]
fn a_client_has_the_worker_of_its_address() {
    let world = World::new();
    let all = workers(&world);
    let mut table = sticky(Slots::Unlimited, Some(Affinity::Ip));
    let header = "X-Forwarded-For".into();
    let proxies = vec!["127.0.0.0/8".into()];
    table.server.real_ip = Some(RealIp { header, recursive: false, proxies });
    let mut front = world.serving(table, &[&all[0], &all[1], &all[2]]);
    let of = |front: &Front, client: usize| {
        let answer =
            ask(front.address, asking("/a/x", &format!("X-Forwarded-For: 10.1.2.{client}")));
        assert_eq!((answer.status, answer.field("set-cookie").len()), (200, 0));
        answer.text()
    };
    let before: Vec<String> = (0..40).map(|client| of(&front, client)).collect();
    let again: Vec<String> = (0..40).map(|client| of(&front, client)).collect();
    assert_eq!(before, again);
    assert_eq!(before.iter().collect::<BTreeSet<_>>().len(), 3);
    front.daemon.drain(&all[1]);
    front.daemon.drained(&all[1]);
    for (client, had) in before.iter().enumerate() {
        let now = of(&front, client);
        assert!(now != "2" && (now == *had || had == "2"), "only clients of the second one move");
    }
}

#[test]
fn a_request_waits_for_its_worker_for_half_of_the_time_in_the_queue_and_then_has_another() {
    let world = World::new();
    let is_held = Arc::new(AtomicBool::new(false));
    let (tell, told) = mpsc::channel::<()>();
    let (told, held) = (std::sync::Mutex::new(told), is_held.clone());
    let slow = Worker::start(&world, 1, move |stream, received| {
        if received.target().contains("hold") {
            held.store(true, Ordering::SeqCst);
            let _ = told.lock().unwrap().recv_timeout(PATIENCE);
        }
        say(stream, "1")
    });
    let mut routes = sticky(ONE, by_cookie());
    let spec = routes.upstreams.get_mut("p/a").unwrap();
    (spec.timeout_ms, spec.queue_timeout_ms) = (NEVER_MS, 2000);
    let mut front = world.serving(routes.clone(), &[&slow]);
    let marked = cookie(&front.get("/a/x"));
    let mut holder = Client::connect(front.address);
    holder.send(format!("GET /a/hold HTTP/1.1\r\nHost: h\r\nCookie: {marked}\r\n\r\n"));
    until("the worker is busy", || is_held.load(Ordering::SeqCst));
    let idle = Worker::saying(&world, 2, "2");
    front.daemon.admit(&idle);
    until("the other worker serves", || front.get("/a/x").text() == "2");
    let begun = Instant::now();
    let answer = with_cookie(&front, &marked);
    assert_eq!((answer.status, answer.text().as_str()), (200, "2"));
    assert!(begun.elapsed() >= Duration::from_millis(1000), "{:?}", begun.elapsed());
    assert_ne!(cookie(&answer), marked, "from now on it has the other one");
    // One that waits gets its worker as soon as that is free, and nobody stands behind it.
    routes.upstreams.get_mut("p/a").unwrap().queue_timeout_ms = NEVER_MS;
    front.daemon.publish(2, routes, &[&slow, &idle]);
    let mut waits = Client::connect(front.address);
    waits.send(format!("GET /a/x HTTP/1.1\r\nHost: h\r\nCookie: {marked}\r\n\r\n"));
    until("it waits", || front.daemon.stats().upstreams["p/a"].waiting == 1);
    for _ in 0..5 {
        assert_eq!(front.get("/a/x").text(), "2");
    }
    tell.send(()).unwrap();
    assert_eq!(waits.receive().unwrap().text(), "1");
    assert_eq!(holder.receive().unwrap().text(), "1");
}

#[test]
fn the_cookie_is_for_the_prefix_of_the_route_and_comes_with_upgrades_too() {
    let world = World::new();
    let worker = Worker::start(&world, 1, |stream, received| {
        if received.field("upgrade").is_empty() {
            return say(stream, "1");
        }
        let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n";
        let _ = stream.write_all(head.as_bytes());
        false
    });
    let mut table = sticky(Slots::Unlimited, by_cookie());
    table.routes.push(route("/", Target::Upstream { name: "p/a".into() }));
    table.routes.push(route("/b/c", Target::Upstream { name: "p/a".into() }));
    let front = world.serving(table, &[&worker]);
    for (path, prefix) in [("/a/x", "/a"), ("/a", "/a"), ("/b/c/d", "/b/c"), ("/other", "/")] {
        let set = front.get(path).field("set-cookie").remove(0);
        assert!(set.contains(&format!("; Path={prefix}; ")), "{path}: {set}");
    }
    let upgrade = "Connection: upgrade\r\nUpgrade: x";
    let mut client = Client::connect(front.address);
    client.send(format!("GET /a/ws HTTP/1.1\r\nHost: h\r\n{upgrade}\r\n\r\n"));
    let answer = client.receive().unwrap();
    assert_eq!((answer.status, answer.field("set-cookie").len()), (101, 1), "{}", answer.head);
}

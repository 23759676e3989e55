//! Apps in maintenance: a page in their place, or requests that wait until it is over.

use std::path::PathBuf;
use std::sync::{Mutex, mpsc};
use std::thread::{JoinHandle, spawn};

use mfserv_core::maintenance::{Maintenance, Shut};
use mfserv_core::route::{Route, RouteTable, Slots, Target};

use crate::pull;
use crate::pull::puller::pulling;
use crate::world::*;

/// `p/a` with a worker behind `/a` and files behind `/files`, and `p/b` with a worker behind `/b`.
fn apps(world: &World) -> RouteTable {
    let mut table = table(ONE, true);
    let spec = table.upstreams["p/a"].clone();
    table.upstreams.insert("p/b".into(), spec);
    let other = Target::Upstream { name: "p/b".into() };
    table.routes.push(Route { app: "b".into(), ..route("/b", other) });
    let root = world.path("files");
    std::fs::create_dir_all(&root).unwrap();
    std::fs::write(root.join("f.txt"), "a file").unwrap();
    table.routes.push(route("/files", Target::Static { root }));
    table
}

/// The same with `p/a` in maintenance.
fn shut(world: &World, page: Option<PathBuf>) -> RouteTable {
    let mut table = apps(world);
    for route in table.routes.iter_mut().filter(|route| route.app == "a") {
        route.maintenance = Some(Shut { page: page.clone() });
    }
    table.upstreams.get_mut("p/a").unwrap().maintenance = Some(Maintenance::Shut);
    table
}

fn holding(world: &World) -> RouteTable {
    let mut table = apps(world);
    table.upstreams.get_mut("p/a").unwrap().maintenance = Some(Maintenance::Hold);
    table
}

#[test]
fn an_app_in_maintenance_gets_no_request_and_its_clients_a_page() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let other = Worker::start_of(&world, "p/b", 2, true, |stream, _| say(stream, "other"));
    let mut front = world.serving(shut(&world, None), &[&worker, &other]);
    let page = world.path("page.html");
    std::fs::write(&page, "<h1>Back at noon</h1>").unwrap();
    for (generation, table, text, kind) in [
        (2, shut(&world, None), "being worked on", "text/html"),
        (3, shut(&world, Some(page)), "<h1>Back at noon</h1>", "text/html"),
        (4, shut(&world, Some(world.path("missing.html"))), "cause: maintenance", "text/html"),
    ] {
        front.daemon.publish(generation, table, &[&worker, &other]);
        for path in ["/a/x", "/files/f.txt", "/a"] {
            let answer = front.get(path);
            assert_eq!(answer.status, 503, "{path}");
            assert!(answer.text().contains(text), "{path}: {}", answer.text());
            assert_eq!(answer.field("x-mfserv-cause"), ["maintenance"], "{path}");
            assert_eq!(answer.field("retry-after"), ["30"], "{path}");
            assert!(answer.field("content-type")[0].starts_with(kind), "{path}");
        }
        let post = "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(ask(front.address, post).status, 503);
        assert_eq!((front.get("/b").text().as_str(), worker.count()), ("other", 0));
        // No daemon has said yet that the node runs: that is all the health check says.
        assert_eq!(front.get("/__health").field("x-mfserv-cause"), [""; 0]);
    }
    let line = world.logged("uri", "/a/x");
    assert_eq!((&line["cause"], &line["status"]), (&"maintenance".into(), &503.into()), "{line}");
    front.daemon.publish(5, apps(&world), &[&worker, &other]);
    assert_eq!(
        (front.get("/a").text(), front.get("/files/f.txt").text()),
        ("ok".into(), "a file".into())
    );
    let log = std::fs::read_to_string(world.path("log/nginx_error.log")).unwrap_or_default();
    assert!(!log.contains("maintenance"), "{log}");
}

/// A client that asks for `/a` and waits for its answer.
fn asking(front: &Front) -> JoinHandle<(u16, String)> {
    let address = front.address;
    spawn(move || {
        let answer = get(address, "/a");
        (answer.status, answer.field("x-mfserv-cause").join(" "))
    })
}

fn waiting(front: &mut Front) -> u64 {
    front.daemon.stats().upstreams["p/a"].waiting
}

#[test]
fn requests_wait_until_maintenance_is_over_and_others_do_not() {
    for slots in [ONE, Slots::Unlimited] {
        let world = World::new();
        let worker = Worker::saying(&world, 1, "ok");
        let other = Worker::start_of(&world, "p/b", 2, true, |stream, _| say(stream, "other"));
        let with = |mut table: RouteTable| {
            table.upstreams.values_mut().for_each(|spec| spec.slots = slots);
            table
        };
        let mut front = world.serving(with(apps(&world)), &[&worker, &other]);
        assert_eq!(front.get("/a").text(), "ok");
        for round in 0..2 {
            front.daemon.publish(2 + round * 2, with(holding(&world)), &[&worker, &other]);
            let clients: Vec<_> = (0..20).map(|_| asking(&front)).collect();
            until("all wait", || waiting(&mut front) == 20);
            assert_eq!(front.get("/b").text(), "other");
            assert_eq!(front.get("/files/f.txt").text(), "a file");
            assert_eq!(worker.count() as u64, 1 + round * 20, "{slots:?}");
            front.daemon.publish(3 + round * 2, with(apps(&world)), &[&worker, &other]);
            for client in clients {
                assert_eq!(client.join().unwrap(), (200, String::new()), "{slots:?}");
            }
            assert_eq!(waiting(&mut front), 0);
        }
    }
}

#[test]
fn no_more_requests_wait_than_for_a_worker_and_no_longer() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let mut table = holding(&world);
    let spec = table.upstreams.get_mut("p/a").unwrap();
    (spec.queue_max, spec.queue_timeout_ms) = (2, NEVER_MS);
    let mut front = world.serving(table.clone(), &[&worker]);
    let clients: Vec<_> = (0..2).map(|_| asking(&front)).collect();
    until("two wait", || waiting(&mut front) == 2);
    assert_eq!(asking(&front).join().unwrap(), (503, "queue_full".into()));
    // One that goes makes room.
    let mut gone = Client::connect(front.address);
    front.daemon.publish(2, shut(&world, None), &[&worker]);
    for client in clients {
        assert_eq!(
            client.join().unwrap(),
            (503, "maintenance".into()),
            "it does not wait any more"
        );
    }
    table.upstreams.get_mut("p/a").unwrap().queue_timeout_ms = 100;
    front.daemon.publish(3, table, &[&worker]);
    gone.send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
    let answer = gone.receive().unwrap();
    assert_eq!(answer.field("x-mfserv-cause"), ["maintenance"], "after the time of the queue");
    assert_eq!((waiting(&mut front), worker.count()), (0, 0));
}

#[test]
fn a_client_that_goes_while_it_waits_is_forgotten() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let mut table = holding(&world);
    table.upstreams.get_mut("p/a").unwrap().queue_timeout_ms = NEVER_MS;
    let mut front = world.serving(table, &[&worker]);
    let mut client = Client::connect(front.address);
    client.send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
    until("it waits", || waiting(&mut front) == 1);
    drop(client);
    until("it does not wait any more", || waiting(&mut front) == 0);
    assert_eq!(worker.count(), 0);
}

#[test]
fn requests_that_wait_for_an_app_that_is_removed_are_told_so() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let mut front = world.serving(holding(&world), &[&worker]);
    let client = asking(&front);
    until("it waits", || waiting(&mut front) == 1);
    let mut without = apps(&world);
    without.routes.remove(0);
    without.upstreams.remove("p/a");
    front.daemon.publish(2, without, &[]);
    assert_eq!(client.join().unwrap(), (503, "removed".into()));
}

fn in_flight(front: &mut Front) -> u64 {
    front.daemon.stats().upstreams["p/a"].in_flight.values().sum()
}

/// The first request is at a worker when its app goes into maintenance, and five wait for that worker.
/// It is told to answer; `count` says how many requests it has had.
fn none_comes_after_the_running_one(
    front: &mut Front,
    (worker, tables): (&Worker, [RouteTable; 2]),
    tell: &dyn Fn(),
    count: &dyn Fn() -> usize,
) {
    let before = count();
    let mut running = Client::connect(front.address);
    running.send("GET /a/hold HTTP/1.1\r\nHost: h\r\n\r\n");
    until("a worker has it", || count() == before + 1);
    let clients: Vec<_> = (0..5).map(|_| asking(front)).collect();
    until("five wait", || waiting(front) == 5);
    let [closed, open] = tables;
    front.daemon.publish(2, closed, &[worker]);
    tell();
    assert_eq!(running.receive().unwrap().status, 200);
    until("the worker has nothing", || in_flight(front) == 0);
    assert_eq!((waiting(front), count()), (5, before + 1), "they wait for the end of it");
    front.daemon.publish(3, open, &[worker]);
    for client in clients {
        assert_eq!(client.join().unwrap(), (200, String::new()));
    }
    assert_eq!((waiting(front), count()), (0, before + 6));
}

#[test]
fn requests_that_wait_for_a_worker_do_not_reach_it_once_its_app_is_in_maintenance() {
    let world = World::new();
    let (tell, told) = mpsc::channel();
    let told = Mutex::new(told);
    let worker = Worker::start(&world, 1, move |stream, got| {
        if got.target().contains("hold") {
            told.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        }
        say(stream, "ok")
    });
    let mut front = world.serving(apps(&world), &[&worker]);
    let tables = [holding(&world), apps(&world)];
    let tell = || tell.send(()).unwrap();
    none_comes_after_the_running_one(&mut front, (&worker, tables), &tell, &|| worker.count());
}

#[test]
fn requests_in_the_queue_that_workers_pull_from_are_taken_back_in_maintenance() {
    let world = World::new();
    let (puller, tell) = pull::holding(&world, 1);
    let mut front = world.serving(pulling(), &[&puller.worker]);
    puller.is_linked(&front);
    let mut closed = pulling();
    closed.upstreams.get_mut("p/a").unwrap().maintenance = Some(Maintenance::Hold);
    let tell = || tell.send(()).unwrap();
    let count = || puller.count();
    let both = (&puller.worker, [closed, pulling()]);
    none_comes_after_the_running_one(&mut front, both, &tell, &count);
}

#[test]
fn requests_that_wait_for_the_end_of_maintenance_get_its_page_when_it_has_one() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let mut front = world.serving(holding(&world), &[&worker]);
    let address = front.address;
    let client = spawn(move || get(address, "/a"));
    until("it waits", || waiting(&mut front) == 1);
    let page = world.path("page.html");
    std::fs::write(&page, "<h1>Back at noon</h1>").unwrap();
    front.daemon.publish(2, shut(&world, Some(page)), &[&worker]);
    let answer = client.join().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (503, "<h1>Back at noon</h1>"));
    assert_eq!(worker.count(), 0);
}

#[test]
fn requests_that_wait_for_the_end_of_maintenance_are_answered_when_the_node_stops() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let mut table = holding(&world);
    table.upstreams.get_mut("p/a").unwrap().queue_timeout_ms = NEVER_MS;
    let mut front = world.serving(table.clone(), &[&worker]);
    let address = front.address;
    let client = spawn(move || get(address, "/a"));
    until("it waits", || waiting(&mut front) == 1);
    table.server.stopping = true;
    front.daemon.publish(2, table, &[&worker]);
    let answer = client.join().unwrap();
    assert_eq!(answer.field("x-mfserv-cause"), ["maintenance"]);
    assert_eq!((answer.status, answer.field("retry-after")), (503, vec!["30".into()]));
}

#[test]
fn bodies_are_not_read_while_their_requests_wait_for_the_end_of_maintenance() {
    let world = World::new();
    let worker = Worker::start(&world, 1, |stream, got| say(stream, &got.body.len().to_string()));
    let mut front = world.serving(holding(&world), &[&worker]);
    let mut client = Client::connect(front.address);
    client.send("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nabc");
    // It would not, if its body had to be here first.
    until("it waits", || waiting(&mut front) == 1);
    front.daemon.publish(2, apps(&world), &[&worker]);
    client.send("def");
    assert_eq!(client.receive().unwrap().text(), "6");
    front.daemon.publish(3, holding(&world), &[&worker]);
    let mut client = Client::connect(front.address);
    client.send("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nabc");
    until("it waits", || waiting(&mut front) == 1);
    front.daemon.publish(4, shut(&world, None), &[&worker]);
    assert_eq!(client.receive().unwrap().status, 503, "without the rest of its body");
}

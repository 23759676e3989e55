//! Slow requests leave a worker to the others.

use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use mfserv_core::route::{RouteTable, UpstreamSpec};
use mfserv_core::wire::front::UpstreamStats;

use crate::world::*;

const SLOW: &str = "GET /a/report/*";

/// A worker that takes 120 ms for a report, and for the report 0 until it is told.
fn reporter(world: &World, number: u32, told: &Arc<Mutex<mpsc::Receiver<()>>>) -> Worker {
    let told = told.clone();
    Worker::start(world, number, move |stream, received| {
        match received.target() {
            "/a/report/0" => drop(told.lock().unwrap().recv_timeout(PATIENCE)),
            // A report takes time: that is what the front learns.
            target if target.contains("report") => std::thread::sleep(Duration::from_millis(120)),
            _ => {}
        }
        say(stream, received.target())
    })
}

fn stats(front: &mut Front) -> UpstreamStats {
    front.daemon.stats().upstreams["p/a"].clone()
}

/// 60 pages and 4 reports, from which the front can learn.
fn ask_for_pages_and_reports(front: &Front) {
    let mut client = Client::connect(front.address);
    for number in 0..64 {
        let target = if number % 16 == 0 { "/a/report/1" } else { "/a/page" };
        assert_eq!(client.get(target).status, 200);
    }
}

/// On a busy machine pages may take long too, for a while.
fn teach(front: &mut Front) {
    until("the front knows what is slow", || {
        ask_for_pages_and_reports(front);
        stats(front).slow_kinds == [SLOW]
    });
}

/// Clients that wait for a report that is not ready.
fn ask_for_reports(front: &Front, count: usize) -> Vec<Client> {
    let ask = |_| {
        let mut client = Client::connect(front.address);
        client.send("GET /a/report/0 HTTP/1.1\r\nHost: h\r\n\r\n");
        client
    };
    (0..count).map(ask).collect()
}

#[test]
fn slow_requests_leave_a_worker_to_the_others_and_all_are_answered() {
    let world = World::new();
    let (tell, told) = mpsc::channel();
    let told = Arc::new(Mutex::new(told));
    let workers = [1, 2, 3].map(|number| reporter(&world, number, &told));
    let mut routes = table(ONE, true);
    let spec = routes.upstreams.get_mut("p/a").unwrap();
    (spec.timeout_ms, spec.queue_timeout_ms) = (NEVER_MS, NEVER_MS);
    spec.slow_lane_wait_ms = NEVER_MS;
    let mut front = world.serving(routes, &workers.each_ref());
    teach(&mut front);
    let mut slow = ask_for_reports(&front, 6);
    until("two of three workers have a report", || {
        let stats = stats(&mut front);
        (stats.slow_in_flight, stats.slow_waiting, stats.waiting) == (2, 4, 4)
    });
    let mut client = Client::connect(front.address);
    for _ in 0..50 {
        assert_eq!(client.get("/a/page").status, 200);
    }
    // What is slow by GET may be fast by POST.
    client.send("POST /a/report/1 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.receive().unwrap().status, 200);
    assert_eq!(stats(&mut front).slow_waiting, 4);
    (0..6).for_each(|_| tell.send(()).unwrap());
    slow.iter_mut().for_each(|client| assert_eq!(client.receive().unwrap().status, 200));
}

#[test]
fn a_slow_request_that_has_waited_long_gets_the_last_worker() {
    let world = World::new();
    let (tell, told) = mpsc::channel();
    let told = Arc::new(Mutex::new(told));
    let workers = [1, 2].map(|number| reporter(&world, number, &told));
    let mut routes = table(ONE, true);
    let spec = routes.upstreams.get_mut("p/a").unwrap();
    (spec.timeout_ms, spec.queue_timeout_ms) = (NEVER_MS, NEVER_MS);
    spec.slow_lane_wait_ms = 20;
    let mut front = world.serving(routes, &workers.each_ref());
    teach(&mut front);
    let mut slow = ask_for_reports(&front, 3);
    until("both workers have a report", || {
        let stats = stats(&mut front);
        (stats.slow_in_flight, stats.slow_waiting, stats.waiting) == (2, 0, 1)
    });
    (0..3).for_each(|_| tell.send(()).unwrap());
    slow.iter_mut().for_each(|client| assert_eq!(client.receive().unwrap().status, 200));
}

#[test]
fn nothing_is_learnt_without_a_slow_lane() {
    let world = World::new();
    let (_tell, told) = mpsc::channel();
    let told = Arc::new(Mutex::new(told));
    let workers = [1, 2].map(|number| reporter(&world, number, &told));
    let mut routes = table(ONE, true);
    routes.upstreams.get_mut("p/a").unwrap().slow_lane_wait_ms = 0;
    let mut front = world.serving(routes, &workers.each_ref());
    ask_for_pages_and_reports(&front);
    assert!(stats(&mut front).slow_kinds.is_empty());
}

/// Two workers whose front knows what is slow, with this policy of the lane, and what tells them
/// that report 0 is ready.
fn two_workers(
    world: &World,
    change: impl Fn(&mut UpstreamSpec),
) -> (Front, RouteTable, [Worker; 2], mpsc::Sender<()>) {
    let (tell, told) = mpsc::channel();
    let told = Arc::new(Mutex::new(told));
    let workers = [1, 2].map(|number| reporter(world, number, &told));
    let mut routes = table(ONE, true);
    let spec = routes.upstreams.get_mut("p/a").unwrap();
    (spec.timeout_ms, spec.queue_timeout_ms, spec.slow_lane_wait_ms) =
        (NEVER_MS, NEVER_MS, NEVER_MS);
    change(spec);
    let mut front = world.serving(routes.clone(), &workers.each_ref());
    teach(&mut front);
    (front, routes, workers, tell)
}

fn in_flight_and_waiting(front: &mut Front) -> (u64, u64) {
    let stats = stats(front);
    (stats.in_flight.values().sum(), stats.waiting)
}

#[test]
fn a_slow_request_gets_a_free_worker_before_it_is_refused() {
    let at_the_deadline = |spec: &mut UpstreamSpec| {
        (spec.queue_timeout_ms, spec.slow_lane_wait_ms) = (300, 300);
    };
    let with_a_full_queue = |spec: &mut UpstreamSpec| spec.queue_max = 1;
    let changes: [&dyn Fn(&mut UpstreamSpec); 2] = [&at_the_deadline, &with_a_full_queue];
    for change in changes {
        let world = World::new();
        let (mut front, _, _workers, tell) = two_workers(&world, change);
        let mut slow = ask_for_reports(&front, 2);
        until("both workers have a report", || in_flight_and_waiting(&mut front) == (2, 0));
        (0..2).for_each(|_| tell.send(()).unwrap());
        slow.iter_mut().for_each(|client| assert_eq!(client.receive().unwrap().status, 200));
    }
}

#[test]
fn slow_requests_wait_no_longer_when_the_lane_ends_or_one_worker_is_left() {
    for drains in [true, false] {
        let world = World::new();
        let (mut front, routes, workers, tell) = two_workers(&world, |_| {});
        let mut slow = ask_for_reports(&front, 2);
        until("one waits", || stats(&mut front).slow_waiting == 1);
        if drains {
            let has_report = |worker: &&Worker| worker.last().target() == "/a/report/0";
            // The front has given it to one, which may not have read it yet.
            until("a worker has it", || workers.iter().any(|worker| has_report(&worker)));
            front.daemon.drain(workers.iter().find(has_report).unwrap());
        } else {
            let mut without_lane = routes.clone();
            without_lane.upstreams.get_mut("p/a").unwrap().slow_lane_wait_ms = 0;
            front.daemon.amend(2, (&routes, &without_lane), &workers.each_ref());
        }
        until("both have a worker", || in_flight_and_waiting(&mut front) == (2, 0));
        (0..2).for_each(|_| tell.send(()).unwrap());
        slow.iter_mut().for_each(|client| assert_eq!(client.receive().unwrap().status, 200));
    }
}

#[test]
fn a_slow_request_that_has_waited_long_does_not_wait_so_again_for_its_second_try() {
    let world = World::new();
    let (tell, told) = mpsc::channel::<()>();
    let told = Arc::new(Mutex::new(told));
    let tries: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let workers = [1, 2].map(|number| {
        let (told, tries) = (told.clone(), tries.clone());
        Worker::start(&world, number, move |stream, received| {
            match received.target() {
                "/a/report/0" => drop(told.lock().unwrap().recv_timeout(PATIENCE)),
                "/a/report/2" => {
                    let mut tries = tries.lock().unwrap();
                    tries.push(Instant::now());
                    // The first one ends without an answer.
                    if tries.len() == 1 {
                        return false;
                    }
                }
                target if target.contains("report") => {
                    // A report takes time: that is what the front learns.
                    std::thread::sleep(Duration::from_millis(120));
                }
                _ => {}
            }
            say(stream, received.target())
        })
    });
    let mut routes = table(ONE, true);
    let spec = routes.upstreams.get_mut("p/a").unwrap();
    let wait = Duration::from_millis(1_500);
    spec.slow_lane_wait_ms = wait.as_millis() as u64;
    (spec.timeout_ms, spec.queue_timeout_ms) = (NEVER_MS, NEVER_MS);
    let mut front = world.serving(routes, &workers.each_ref());
    teach(&mut front);
    let mut slow = ask_for_reports(&front, 1);
    until("a worker has it", || in_flight_and_waiting(&mut front) == (1, 0));
    assert_eq!(front.get("/a/report/2").status, 200);
    let tries = tries.lock().unwrap().clone();
    assert!(tries.len() == 2 && tries[1] - tries[0] < wait - Duration::from_millis(300));
    tell.send(()).unwrap();
    assert_eq!(slow[0].receive().unwrap().status, 200);
}

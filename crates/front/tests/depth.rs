//! Short requests may wait at a worker that is busy, and none behind a long one while another
//! worker is free.

use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use mfserv_core::route::RouteTable;

use crate::world::*;

/// A request as a worker had it: when it came, when it was its turn, when it was over.
struct Had {
    target: String,
    came: Instant,
    began: Instant,
    ended: Instant,
}

/// A worker that takes any number of connections and serves one request at a time. It answers a
/// request with `hold` in it only when told.
struct OneAtATime {
    worker: Worker,
    had: Arc<Mutex<Vec<Had>>>,
}

impl OneAtATime {
    fn start(world: &World, number: u32, told: &Arc<Mutex<mpsc::Receiver<()>>>) -> Self {
        let (told, turn) = (told.clone(), Mutex::new(()));
        let had: Arc<Mutex<Vec<Had>>> = Arc::default();
        let all = had.clone();
        let worker = Worker::start(world, number, move |stream, received| {
            let came = Instant::now();
            let _turn = turn.lock().unwrap();
            let began = Instant::now();
            match received.target() {
                target if target.contains("hold") => {
                    let _ = told.lock().unwrap().recv_timeout(PATIENCE);
                }
                // A slow request takes time: that is what the front learns.
                "/a/slow" => std::thread::sleep(Duration::from_millis(30)),
                _ => {}
            }
            let target = received.target().to_string();
            all.lock().unwrap().push(Had { target, came, began, ended: Instant::now() });
            say(stream, "ok")
        });
        Self { worker, had }
    }
}

/// Workers, and what tells them to answer what they hold.
fn workers<const N: usize>(world: &World) -> ([OneAtATime; N], mpsc::Sender<()>) {
    let (tell, told) = mpsc::channel();
    let told = Arc::new(Mutex::new(told));
    (std::array::from_fn(|at| OneAtATime::start(world, at as u32 + 1, &told)), tell)
}

fn deep(depth: u32, reads_in_turn: bool) -> RouteTable {
    let mut routes = table(ONE, true);
    let spec = routes.upstreams.get_mut("p/a").unwrap();
    (spec.depth, spec.reads_in_turn) = (depth, reads_in_turn);
    routes
}

/// How many requests were given to a busy worker.
fn behind(front: &mut Front) -> u64 {
    front.daemon.stats().upstreams["p/a"].behind
}

/// 12 clients with 40 requests each.
fn load(front: &Front, request: &str) {
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                let mut client = Client::connect(front.address);
                for _ in 0..40 {
                    client.send(request);
                    assert_eq!(client.receive().unwrap().status, 200);
                }
            });
        }
    });
}

const PAGE: &str = "GET /a/page HTTP/1.1\r\nHost: h\r\n\r\n";
const POST: &str = "POST /a/page HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi";

#[test]
fn short_requests_wait_at_a_busy_worker_and_unsafe_ones_only_where_they_are_read_in_turn() {
    let world = World::new();
    for (depth, reads_in_turn, request) in
        [(1, true, PAGE), (8, false, PAGE), (8, false, POST), (8, true, POST)]
    {
        let ([one], _tell) = workers(&world);
        let mut front = world.serving(deep(depth, reads_in_turn), &[&one.worker]);
        if depth == 1 || (request == POST && !reads_in_turn) {
            load(&front, request);
            load(&front, request);
            assert_eq!(behind(&mut front), 0, "{depth} {request}");
            continue;
        }
        until("some wait at the worker", || {
            load(&front, request);
            behind(&mut front) > 0
        });
        let most = one.worker.most.load(std::sync::atomic::Ordering::SeqCst);
        assert!(most <= depth as usize, "{most} connections");
    }
}

#[test]
fn no_short_request_is_given_to_a_worker_that_has_a_slow_one() {
    let world = World::new();
    let (all, _tell) = workers::<2>(&world);
    let mut front =
        world.serving(deep(8, true), &all.each_ref().map(|one: &OneAtATime| &one.worker));
    load(&front, PAGE);
    until("some wait at the workers", || {
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut client = Client::connect(front.address);
                    (0..10).for_each(|_| assert_eq!(client.get("/a/slow").status, 200));
                });
            }
            load(&front, PAGE);
        });
        behind(&mut front) > 0
    });
    for one in &all {
        let had = one.had.lock().unwrap();
        let (slow, short): (Vec<&Had>, Vec<&Had>) =
            had.iter().partition(|had| had.target == "/a/slow");
        for page in short {
            for slow in &slow {
                let (from, to) = (page.came.max(slow.began), page.began.min(slow.ended));
                let stood = to.saturating_duration_since(from);
                assert!(stood < Duration::from_millis(5), "{stood:?} behind a slow one");
            }
        }
    }
}

/// Each of these clients sends a request.
fn ask(clients: &mut [Client], request: &str) {
    clients.iter_mut().for_each(|client| client.send(request));
}

fn answered(clients: &mut [Client]) {
    clients.iter_mut().for_each(|client| assert_eq!(client.receive().unwrap().status, 200));
}

#[test]
fn what_waits_behind_a_request_that_turns_out_long_is_taken_back_when_a_worker_is_free() {
    let world = World::new();
    let (all, tell) = workers::<2>(&world);
    let mut routes = deep(8, false);
    routes.upstreams.get_mut("p/a").unwrap().timeout_ms = NEVER_MS;
    let mut front = world.serving(routes, &all.each_ref().map(|one: &OneAtATime| &one.worker));
    let mut long: Vec<Client> = (0..2).map(|_| Client::connect(front.address)).collect();
    let mut pages: Vec<Client> = (0..6).map(|_| Client::connect(front.address)).collect();
    until("some waited behind the one that is held", || {
        load(&front, PAGE);
        load(&front, POST);
        let (before, retried) = (behind(&mut front), retried(&mut front));
        // Each of them gets a worker of its own, since it is unsafe; others may wait behind it.
        ask(&mut long, "POST /a/page?hold HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
        ask(&mut pages, PAGE);
        until("both are held", || {
            let had = |one: &OneAtATime| {
                let requests = one.worker.requests.lock().unwrap();
                requests.iter().filter(|received| received.target().contains("hold")).count()
            };
            let answered = |one: &OneAtATime| {
                let had = one.had.lock().unwrap();
                had.iter().filter(|had| had.target.contains("hold")).count()
            };
            all.iter().map(had).sum::<usize>() == all.iter().map(answered).sum::<usize>() + 2
        });
        tell.send(()).unwrap();
        answered(&mut pages);
        tell.send(()).unwrap();
        answered(&mut long);
        behind(&mut front) > before && self::retried(&mut front) > retried
    });
}

fn retried(front: &mut Front) -> u64 {
    front.daemon.stats().upstreams["p/a"].retried
}

/// The parts of `Server-Timing`, milliseconds: queue, app, total.
fn timings(client: &mut Client) -> Vec<f64> {
    let answer = client.receive().unwrap();
    assert_eq!(answer.status, 200);
    let field = answer.field("server-timing").pop().unwrap();
    let ms = |part: &str| part.split_once("dur=").unwrap().1.parse().unwrap();
    field.split(", ").map(ms).collect()
}

#[test]
fn a_request_that_waits_at_a_worker_has_its_time_from_when_it_is_its_turn() {
    let world = World::new();
    let ([one], tell) = workers(&world);
    let mut routes = deep(8, true);
    routes.server.server_timing = true;
    let spec = routes.upstreams.get_mut("p/a").unwrap();
    (spec.timeout_ms, spec.queue_timeout_ms) = (3_000, NEVER_MS);
    let mut front = world.serving(routes, &[&one.worker]);
    let mut both: Vec<Client> = (0..2).map(|_| Client::connect(front.address)).collect();
    until("one waits at the worker behind the other", || {
        load(&front, PAGE);
        let before = behind(&mut front);
        ask(&mut both, "GET /a/page?hold HTTP/1.1\r\nHost: h\r\n\r\n");
        until("both have come", || {
            let stats = &front.daemon.stats().upstreams["p/a"];
            stats.in_flight.values().sum::<u64>() + stats.waiting == 2
        });
        let is_behind = behind(&mut front) > before;
        if !is_behind {
            (0..2).for_each(|_| tell.send(()).unwrap());
            answered(&mut both);
        }
        is_behind
    });
    for _ in 0..2 {
        // More than half of what one may take.
        std::thread::sleep(Duration::from_millis(1_700));
        tell.send(()).unwrap();
    }
    let mut found: Vec<Vec<f64>> = both.iter_mut().map(timings).collect();
    found.sort_by(|a, b| a[0].total_cmp(&b[0]));
    assert!(found[0][0] < 1_000.0 && found[1][0] >= 1_600.0, "the second one waited: {found:?}");
    assert!(found.iter().all(|ms| ms[1] >= 1_600.0 && ms[1] < 3_000.0), "{found:?}");
}

#[test]
fn a_kind_of_requests_is_short_though_it_has_waited_at_a_worker() {
    let world = World::new();
    let ([one], tell) = workers(&world);
    let mut routes = deep(8, true);
    routes.upstreams.get_mut("p/a").unwrap().timeout_ms = NEVER_MS;
    let mut front = world.serving(routes, &[&one.worker]);
    let get = |target: &str| format!("GET /a/{target} HTTP/1.1\r\nHost: h\r\n\r\n");
    let mut first = vec![Client::connect(front.address)];
    let mut others: Vec<Client> = (0..6).map(|_| Client::connect(front.address)).collect();
    until("the others wait at the worker, before and after", || {
        for target in ["page", "first", "other"].repeat(32) {
            ask(&mut first, &get(target));
            answered(&mut first);
        }
        let before = front.daemon.stats().upstreams["p/a"].clone();
        ask(&mut first, &get("first?hold"));
        ask(&mut others, &get("other"));
        until("all have come", || {
            let now = &front.daemon.stats().upstreams["p/a"];
            let answered = now.by_class[1] - before.by_class[1];
            answered + now.in_flight.values().sum::<u64>() + now.waiting == 7
        });
        let now = &front.daemon.stats().upstreams["p/a"];
        let all_wait = now.by_class == before.by_class && now.behind == before.behind + 6;
        if all_wait {
            // A kind that took so long would not be short for its next hundred requests.
            std::thread::sleep(Duration::from_millis(300));
        }
        tell.send(()).unwrap();
        answered(&mut first);
        answered(&mut others);
        let before = behind(&mut front);
        std::thread::scope(|scope| {
            for client in &mut others {
                scope.spawn(|| (0..15).for_each(|_| drop(client.get("/a/other"))));
            }
        });
        all_wait && behind(&mut front) > before
    });
}

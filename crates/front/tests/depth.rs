//! Short requests may wait at a worker that is busy, and none stays behind a long one.

mod kinds;

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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

/// True if nobody waits for the answer any more.
fn is_abandoned(stream: &mut UnixStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let is_abandoned = matches!(stream.read(&mut [0]), Ok(0));
    stream.set_nonblocking(false).unwrap();
    is_abandoned
}

/// A worker that takes any number of connections and serves one request at a time, none that has
/// been abandoned. It answers a request with `hold` in it only when told, and of those with `again`
/// every second one, after a millisecond.
struct OneAtATime {
    worker: Worker,
    had: Arc<Mutex<Vec<Had>>>,
}

impl OneAtATime {
    fn start(
        world: &World,
        number: u32,
        told: &Arc<Mutex<mpsc::Receiver<()>>>,
        asked_again: &Arc<AtomicUsize>,
    ) -> Self {
        let asked_again = asked_again.clone();
        let (told, turn) = (told.clone(), Mutex::new(()));
        let had: Arc<Mutex<Vec<Had>>> = Arc::default();
        let all = had.clone();
        let worker = Worker::start(world, number, move |stream, received| {
            let came = Instant::now();
            let _turn = turn.lock().unwrap();
            if is_abandoned(stream) {
                return false;
            }
            let began = Instant::now();
            match received.target() {
                target if target.contains("again") => {
                    if asked_again.fetch_add(1, Ordering::SeqCst) % 2 == 0 {
                        return false;
                    }
                    // Long enough for others to come meanwhile.
                    std::thread::sleep(Duration::from_millis(1));
                }
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
    let asked_again = Arc::default();
    let start = |at: usize| OneAtATime::start(world, at as u32 + 1, &told, &asked_again);
    (std::array::from_fn(start), tell)
}

fn deep(depth: u32) -> RouteTable {
    let mut routes = table(ONE, true);
    routes.upstreams.get_mut("p/a").unwrap().depth = depth;
    routes
}

/// How many requests have come to these workers, those that were taken back again included.
fn came(all: &[OneAtATime]) -> usize {
    all.iter().map(|one| one.worker.count()).sum()
}

/// How many requests with `hold` in them these workers have.
fn held(all: &[OneAtATime]) -> usize {
    let held = |one: &OneAtATime| {
        let had = one.had.lock().unwrap();
        let over = had.iter().filter(|had| had.target.contains("hold")).count();
        let requests = one.worker.requests.lock().unwrap();
        requests.iter().filter(|received| received.target().contains("hold")).count() - over
    };
    all.iter().map(held).sum()
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

const HELD_POST: &str = "POST /a/page?hold HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n";

#[test]
fn short_safe_requests_wait_at_a_busy_worker_and_others_in_the_front() {
    let world = World::new();
    for (depth, request) in [(1, PAGE), (8, PAGE), (8, POST)] {
        let ([one], _tell) = workers(&world);
        let mut front = world.serving(deep(depth), &[&one.worker]);
        let waits_there = depth > 1 && request == PAGE;
        until("some had to wait", || {
            load(&front, request);
            let stats = &front.daemon.stats().upstreams["p/a"];
            stats.queued > 100 && (stats.behind > 0 || !waits_there)
        });
        assert!(waits_there || behind(&mut front) == 0, "{depth} {request}");
        let had = one.had.lock().unwrap();
        let at_once = |at: Instant| had.iter().filter(move |had| had.came <= at && at <= had.ended);
        let most = had.iter().map(|had| at_once(had.came).count()).max().unwrap();
        assert!(most <= depth as usize, "{most} at once");
    }
}

#[test]
fn no_short_request_is_given_to_a_worker_that_has_a_slow_one() {
    let world = World::new();
    let (all, _tell) = workers::<2>(&world);
    let mut front = world.serving(deep(8), &all.each_ref().map(|one: &OneAtATime| &one.worker));
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
    let mut routes = deep(8);
    routes.upstreams.get_mut("p/a").unwrap().timeout_ms = NEVER_MS;
    let mut front = world.serving(routes, &all.each_ref().map(|one: &OneAtATime| &one.worker));
    let mut long: Vec<Client> = (0..2).map(|_| Client::connect(front.address)).collect();
    let mut pages: Vec<Client> = (0..6).map(|_| Client::connect(front.address)).collect();
    until("some waited behind the one that is held", || {
        load(&front, PAGE);
        load(&front, POST);
        let (before, came_before) = (behind(&mut front), came(&all));
        // Each of them gets a worker of its own, since it is unsafe; others may wait behind it.
        ask(&mut long, HELD_POST);
        ask(&mut pages, PAGE);
        until("both are held", || held(&all) == 2);
        tell.send(()).unwrap();
        answered(&mut pages);
        tell.send(()).unwrap();
        answered(&mut long);
        behind(&mut front) > before && came(&all) > came_before + pages.len() + long.len()
    });
    assert_eq!(front.daemon.stats().upstreams["p/a"].retried, 0, "no worker has failed");
}

/// The end of clients that ask again and again, also where the test fails.
struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn nobody_stays_behind_a_long_request_while_others_keep_all_other_workers_busy() {
    let world = World::new();
    let (all, tell) = workers::<2>(&world);
    let mut routes = deep(8);
    let spec = routes.upstreams.get_mut("p/a").unwrap();
    (spec.timeout_ms, spec.queue_timeout_ms) = (NEVER_MS, NEVER_MS);
    let front = world.serving(routes, &all.each_ref().map(|one: &OneAtATime| &one.worker));
    let answers: [AtomicUsize; 24] = Default::default();
    let is_over = AtomicBool::new(false);
    let mut long = Client::connect(front.address);
    std::thread::scope(|scope| {
        for count in &answers {
            let (front, is_over) = (&front, &is_over);
            scope.spawn(move || {
                let mut client = Client::connect(front.address);
                while !is_over.load(Ordering::SeqCst) {
                    assert_eq!(client.get("/a/page").status, 200);
                    count.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let counts = || answers.each_ref().map(|count| count.load(Ordering::SeqCst));
        let all_have = |more: usize, since: [usize; 24]| {
            until("each client has had answers", || {
                counts().iter().zip(since).all(|(now, before)| *now >= before + more)
            });
        };
        load(&front, POST);
        let _end = SetWhenDropped(&is_over);
        all_have(20, counts());
        let (came_before, answered_before) = (came(&all), counts().iter().sum::<usize>());
        let mut long_ones = 0;
        until("some have stood behind it", || {
            // An unsafe one stands behind no other.
            ask(std::slice::from_mut(&mut long), HELD_POST);
            until("it is held", || held(&all) == 1);
            all_have(3, counts());
            tell.send(()).unwrap();
            assert_eq!(long.receive().unwrap().status, 200);
            long_ones += 1;
            let answered = counts().iter().sum::<usize>() - answered_before + long_ones;
            // More than those on their way: some have come twice.
            came(&all) > came_before + answered + answers.len()
        });
    });
}

#[test]
fn a_request_behind_a_long_one_waits_no_longer_than_any_other() {
    let world = World::new();
    let ([one], tell) = workers(&world);
    let mut routes = deep(8);
    let spec = routes.upstreams.get_mut("p/a").unwrap();
    (spec.timeout_ms, spec.queue_timeout_ms) = (NEVER_MS, 1_000);
    let mut front = world.serving(routes, &[&one.worker]);
    let mut both: Vec<Client> = (0..2).map(|_| Client::connect(front.address)).collect();
    until("one has waited at the worker behind the other", || {
        load(&front, PAGE);
        let before = behind(&mut front);
        ask(&mut both[..1], "GET /a/page?hold HTTP/1.1\r\nHost: h\r\n\r\n");
        ask(&mut both[1..], PAGE);
        let refused = both[1].receive().unwrap();
        // The other one may have come first.
        if refused.status == 503 {
            assert_eq!(refused.field("x-mfserv-cause"), ["queue_timeout"]);
        }
        tell.send(()).unwrap();
        answered(&mut both[..1]);
        refused.status == 503 && behind(&mut front) > before
    });
}

#[test]
fn nothing_is_given_to_a_worker_that_has_a_request_which_another_worker_has_failed() {
    let world = World::new();
    let (all, _tell) = workers::<2>(&world);
    let mut front = world.serving(deep(8), &all.each_ref().map(|one: &OneAtATime| &one.worker));
    load(&front, PAGE);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = Client::connect(front.address);
            (0..40).for_each(|_| assert_eq!(client.get("/a/page?again").status, 200));
        });
        load(&front, PAGE);
        load(&front, PAGE);
    });
    assert!(behind(&mut front) > 0 && front.daemon.stats().upstreams["p/a"].retried >= 40);
    for one in &all {
        let had = one.had.lock().unwrap();
        for again in had.iter().filter(|had| had.target.contains("again")) {
            let meanwhile =
                had.iter().filter(|had| again.came < had.came && had.came < again.ended);
            assert_eq!(meanwhile.count(), 0);
        }
    }
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
#[ignore = "compares times of seconds with a timeout of three: needs a machine that is not busy"]
fn a_request_that_waits_at_a_worker_has_its_time_from_when_it_is_its_turn() {
    let world = World::new();
    let ([one], tell) = workers(&world);
    let mut routes = deep(8);
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

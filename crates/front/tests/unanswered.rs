//! nginx that accepts nobody and does not hang: one that ends, has too many clients, or is debugged.
//! Its requests go on.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mfserv_core::route::Slots;
use mfserv_core::wire::front::{FromFront, ToFront};
use mfserv_testkit::skipped;
use rustix::process::{Pid, Signal, kill_process};

use crate::fragments::{below, is_ending, master};
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
            // What is tested is that time.
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

#[test]
fn of_a_worker_that_hangs_while_nginx_ends_the_daemon_is_told_that_no_other_one_comes() {
    let Some(world) = world() else { return };
    let _alone = alone();
    let worker = patient(&world);
    let mut front = world.serving(lasting_table(), &[&worker]);
    front.daemon.say(&ToFront::Hello { version: mfserv_core::wire::front::VERSION });
    let _client = waiting(&front, &worker);
    let nginx = master(&front).unwrap();
    front.signal(Signal::TERM);
    let leaving = || below(nginx, "worker process is shutting down");
    until("one worker has the request", || {
        leaving() == below(nginx, "worker") && leaving().len() == 1
    });
    let stopped = leaving()[0];
    kill_process(Pid::from_raw(i32::try_from(stopped).unwrap()).unwrap(), Signal::STOP).unwrap();
    let said = front.daemon.wait_for(|said| matches!(said, FromFront::NginxEnded(_)));
    let FromFront::NginxEnded(end) = said else { unreachable!() };
    assert_eq!((end.pid, end.is_worker, end.is_leaving), (stopped, true, true));
    assert!(front.ended().success());
}

/// Debugs processes, which stand still, until there is no more to read.
const DEBUGGER: &str = "import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
for pid in map(int, sys.argv[1:]):
    for request in (0x4206, 0x4207):  # PTRACE_SEIZE, PTRACE_INTERRUPT
        if libc.ptrace(request, pid, None, None) < 0:
            sys.exit(os.strerror(ctypes.get_errno()))
    os.waitpid(pid, 0x40000000)  # __WALL
print('they stand still', flush=True)
sys.stdin.read()
";

#[test]
fn nginx_is_left_alone_while_somebody_debugs_its_workers() {
    let Some(world) = world() else { return };
    let _alone = alone();
    let worker = patient(&world);
    let front = world.serving(lasting_table(), &[&worker]);
    let nginx = |front: &Front| (master(front), below(master(front).unwrap(), "worker"));
    let before = nginx(&front);
    let pids = before.1.iter().map(u32::to_string);
    let mut command = Command::new("python3");
    command.args(["-c", DEBUGGER]).args(pids).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut debugger = command.spawn().unwrap();
    let mut said = String::new();
    BufReader::new(debugger.stdout.take().unwrap()).read_line(&mut said).unwrap();
    if said != "they stand still\n" {
        debugger.wait().unwrap();
        return skipped("debugging nginx: this machine does not permit it");
    }
    // Nothing is to happen for so long.
    std::thread::sleep(LONGER);
    drop(debugger.stdin.take());
    assert!(debugger.wait().unwrap().success());
    assert_eq!(front.get("/a").text(), "at last");
    assert_eq!(nginx(&front), before);
}

#[test]
fn a_flood_of_clients_that_take_all_descriptors_has_nothing_killed() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Some(mut world) = world() else { return };
    let _alone = alone();
    // This process has all these clients.
    let own = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: own.maximum, ..own }).unwrap();
    world.env.push(("FRONT_DESCRIPTORS", "256".into()));
    let worker = patient(&world);
    let front = world.serving(lasting_table(), &[&worker]);
    let nginx = |front: &Front| (master(front), below(master(front).unwrap(), "worker"));
    let before = nginx(&front);
    let mut client = waiting(&front, &worker);
    // Those that have begun a request are not idle: nginx ends none of them for another one.
    let end = Instant::now() + LONGER;
    let mut flood = Vec::new();
    while Instant::now() < end {
        for began in ["", "GET /a HTTP/1.1\r\nHo"] {
            let mut silent = Client::connect(front.address);
            // nginx may have closed it already.
            let _ = std::io::Write::write_all(&mut silent.stream, began.as_bytes());
            flood.push(silent);
        }
        // The pace of the flood.
        std::thread::sleep(Duration::from_millis(2));
        flood.drain(..flood.len().saturating_sub(1500));
    }
    assert_eq!(client.receive().expect("an answer").text(), "at last");
    assert_eq!(nginx(&front), before);
    drop(flood);
    until("others are served again", || {
        let mut client = Client::connect(front.address);
        let _ = std::io::Write::write_all(&mut client.stream, b"GET /a HTTP/1.0\r\n\r\n");
        client.receive().is_some_and(|answer| answer.text() == "at last")
    });
}

//! Kills by the thousand: workers, fronts and daemons die with requests in hand, and each request
//! is accounted for by what its app wrote down.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mfserv_testkit::{
    Failure, Load, Method, Node, Plugin, Report, Running, Signal, kill, process, until,
};

use crate::{PATIENCE, Turn, node};

/// Writes the id of each POST down before it answers, one write to the end of a file. Each request
/// takes a while, so that workers are killed before, at and after that write.
const WRITES_DOWN: &str = r#"
import os
import time

HERE = os.path.dirname(os.path.abspath(__file__))
POSTS, PIDS = [
    os.open(os.path.join(HERE, name), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for name in ("posts", "pids")
]
os.write(PIDS, b"%d\n" % os.getpid())


def application(environ, start_response):
    body = environ["wsgi.input"].read()
    time.sleep(0.001)
    if environ["REQUEST_METHOD"] == "POST":
        os.write(POSTS, body + b"\n")
    time.sleep(0.001)
    body = body or b"hello"
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"#;

/// The same for ASGI: a worker has several requests in hand.
const WRITES_DOWN_ASGI: &str = r#"
import asyncio
import os

HERE = os.path.dirname(os.path.abspath(__file__))
POSTS, PIDS, BEGUN = [
    os.open(os.path.join(HERE, name), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for name in ("posts", "pids", "begun")
]
os.write(PIDS, b"%d\n" % os.getpid())


async def application(scope, receive, send):
    assert scope["type"] == "http"
    load_id = dict(scope["headers"]).get(b"x-load-id", b"none")
    os.write(BEGUN, b"%s %d\n" % (load_id, os.getpid()))
    body, has_more = b"", True
    while has_more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        has_more = message["more_body"]
    await asyncio.sleep(0.001)
    if scope["method"] == "POST":
        os.write(POSTS, body + b"\n")
    await asyncio.sleep(0.001)
    body = body or b"hello"
    length = str(len(body)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": body})
"#;

/// How requests reach the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    /// They pull them from a queue, one at a time.
    Queue,
    /// The front sends them to an ASGI app, any number at a time.
    Http,
}

/// Of how many workers.
const WORKERS: usize = 24;
/// How many requests are under way at a time.
const CONNECTIONS: usize = 20;
/// Between two kills. A slot is killed each three seconds then, which its backoff takes for no fault.
const PACE: Duration = Duration::from_millis(120);

/// A node under load, and who of it was killed.
struct Trial {
    over: Over,
    node: Node,
    load: Running,
    dir: PathBuf,
    /// Workers that have imported their app, the oldest first.
    alive: VecDeque<u32>,
    /// How much of the file of pids was read, bytes.
    read: usize,
    /// The workers that were killed.
    killed: Vec<u32>,
    /// When fronts were killed, milliseconds since the Unix epoch.
    fronts: Vec<u64>,
    daemons: usize,
}

impl Trial {
    fn start(over: Over) -> Self {
        let node = node();
        let (app, interface) = match over {
            Over::Queue => (WRITES_DOWN, "--wsgi"),
            Over::Http => (WRITES_DOWN_ASGI, "--asgi"),
        };
        let command = format!(
            "mfserv_worker {interface} --timeout={{timeout}} main:application {{unix_socket_path}}"
        );
        let plugin = Plugin::new("counts").file("main.py", app).app("main", &command);
        let dir = node.add(&plugin.key("app_main", "numprocesses", &WORKERS.to_string()));
        node.start();
        let load = Load::new(node.address(), "/counts/x").connections(CONNECTIONS).post_every(2);
        let load = load.pause(Duration::from_millis(4)).start();
        let (alive, read, killed) = (VecDeque::new(), 0, Vec::new());
        Self { over, node, load, dir, alive, read, killed, fronts: Vec::new(), daemons: 0 }
    }

    /// Adds those that have started, and leaves out those that are gone.
    fn look(&mut self) {
        let text = fs::read(self.dir.join("pids")).unwrap_or_default();
        let new = &text[self.read.min(text.len())..];
        let end = new.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines = String::from_utf8_lossy(&new[..end]).into_owned();
        self.alive.extend(lines.lines().map(|pid| pid.parse::<u32>().unwrap()));
        self.read += end;
        // The number of one that has gone may be another process by now.
        self.alive.retain(|pid| process(*pid).is_some_and(|it| it.marker.is_some()));
    }

    fn kill_a_worker(&mut self, turn: usize) {
        until("most workers have started", PATIENCE, || {
            self.look();
            self.alive.len() >= WORKERS * 3 / 4
        });
        // Mostly the oldest one, so that all have their turn; sometimes one that has just begun.
        let at = if turn % 8 == 7 { self.alive.len() - 1 } else { turn % 3 };
        let pid = self.alive.remove(at).unwrap();
        kill(pid, Signal::KILL);
        self.killed.push(pid);
    }

    fn kill_the_front(&mut self) {
        let front = self.node.role_pid("front");
        self.fronts.push(now_ms());
        self.node.kill(front);
        // Until it answers, so that no client meets two dead fronts in a row.
        self.load.answers(200);
    }

    fn kill_the_daemon(&mut self) {
        let daemon = self.node.role_pid("daemon");
        self.node.kill(daemon);
        self.daemons += 1;
    }

    /// Kills so many workers, and each `every` kills of them a front and a daemon.
    fn kill(&mut self, count: usize, every: usize) {
        for turn in 0..count {
            self.kill_a_worker(turn);
            match turn % every {
                at if at == every / 3 => self.kill_the_front(),
                at if at == every / 2 => self.kill_the_daemon(),
                _ => {}
            }
            // The pace of the kills.
            std::thread::sleep(PACE);
            if turn % 500 == 499 {
                println!("{} killed, {} answered", turn + 1, self.load.answered());
            }
        }
    }

    fn end(self) {
        let settled = self.node.settled("app.counts.main");
        let pid = settled.workers[0].pid.unwrap();
        assert_eq!(pulls(pid), self.over == Over::Queue, "this trial says nothing of it");
        self.load.answers(200);
        let (workers, fronts, daemons) = (self.killed.len(), self.fronts, self.daemons);
        let report = self.load.stop();
        println!("killed: {workers} workers, {} fronts, {daemons} daemons", fronts.len());
        println!("{}", report.sentence());
        match self.over {
            Over::Queue => {
                let gets: Vec<_> = report.failed(Method::Get).collect();
                assert!(gets.is_empty(), "{}: {gets:#?}", report.sentence());
            }
            Over::Http => {
                assert_two_workers_died_of(&report, &self.dir.join("begun"), &self.killed);
            }
        }
        let lost = assert_failures_are_explained(&report, &fronts);
        println!("{lost} POSTs were in the hands of a worker that died, and got the cause");
        let in_hand = if self.over == Over::Queue { 1 } else { CONNECTIONS };
        assert!(lost <= workers * in_hand, "more POSTs were lost than workers had: {lost}");
        assert_posts_are_written_down(&self.dir.join("posts"), &report);
        self.node.stop();
    }
}

/// Whether a worker shares the page of a queue with its front.
fn pulls(pid: u32) -> bool {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    maps.contains("mfserv-requests")
}

/// A GET that has died with two workers is not given to a third one: it could be what kills them.
/// No other one may fail. The second worker may die before its app begins.
fn assert_two_workers_died_of(report: &Report, begun: &Path, killed: &[u32]) {
    let killed: BTreeSet<u32> = killed.iter().copied().collect();
    let text = fs::read_to_string(begun).unwrap();
    let mut had: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for (id, pid) in text.lines().map(|line| line.split_once(' ').unwrap()) {
        had.entry(id).or_default().push(pid.parse().unwrap());
    }
    for get in report.failed(Method::Get) {
        let workers = had.get(get.id.as_str()).map(Vec::as_slice).unwrap_or_default();
        println!("{get:?} was begun by {workers:?}");
        assert_eq!((get.status, get.cause.as_deref()), (Some(502), Some("reset")), "{get:?}");
        // A client asks again when a front was killed; that worker lives on.
        let dead = workers.iter().filter(|pid| killed.contains(pid)).count();
        assert!((1..=2).contains(&dead), "{get:?}: {workers:?}");
    }
}

/// Returns how many POSTs a worker had taken with it.
fn assert_failures_are_explained(report: &Report, fronts: &[u64]) -> usize {
    // A front that is killed takes its connections along: nobody can say more to their clients.
    let of_front = |failure: &Failure| {
        let near = |at: &u64| failure.at_ms.abs_diff(*at) < 10_000;
        failure.status.is_none() && !failure.refused && fronts.iter().any(near)
    };
    let (with_front, others): (Vec<_>, Vec<_>) =
        report.failed(Method::Post).partition(|failure| of_front(failure));
    println!("{} POSTs were under way in a front that was killed", with_front.len());
    for post in &others {
        let says_why = post.status == Some(502) && post.cause.as_deref() == Some("reset");
        let is_cut = post.why.starts_with("cut within the answer");
        assert!(says_why || is_cut, "{post:?}");
    }
    others.len()
}

/// No id is there twice, and each that was answered is there.
fn assert_posts_are_written_down(file: &Path, report: &Report) {
    let text = fs::read_to_string(file).unwrap();
    let ids: Vec<&str> = text.lines().collect();
    let once: BTreeSet<&str> = ids.iter().copied().collect();
    println!("{} POSTs were done, {} answered", ids.len(), report.posts.len());
    let mut sorted = ids;
    sorted.sort_unstable();
    let twice: Vec<_> = sorted.windows(2).filter(|two| two[0] == two[1]).collect();
    assert!(twice.is_empty(), "done twice: {twice:?}");
    let missing: Vec<_> = report.posts.iter().filter(|id| !once.contains(id.as_str())).collect();
    assert!(missing.is_empty(), "answered, and not done: {missing:?}");
    // None that was not asked for: done without an answer are those that were lost on the way.
    let failed: BTreeSet<&str> = report.failed(Method::Post).map(|one| one.id.as_str()).collect();
    let answered: BTreeSet<&str> = report.posts.iter().map(String::as_str).collect();
    let odd: Vec<_> =
        once.iter().filter(|id| !answered.contains(*id) && !failed.contains(*id)).collect();
    assert!(odd.is_empty(), "done, and never asked for: {odd:?}");
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[test]
fn workers_that_pull_are_killed_again_and_again_and_no_post_is_done_twice_or_lost_in_silence() {
    kill_again_and_again(Over::Queue);
}

#[test]
fn workers_of_asgi_are_killed_again_and_again_and_no_post_is_done_twice_or_lost_in_silence() {
    kill_again_and_again(Over::Http);
}

fn kill_again_and_again(over: Over) {
    let _turn = Turn::heavy();
    let mut trial = Trial::start(over);
    let asked = std::env::var("MFSERV_TEST_KILLS").ok().and_then(|text| text.parse().ok());
    let (count, every) = match (asked, std::env::var_os("MFSERV_LONG")) {
        (Some(count), _) => (count, 500),
        (None, Some(_)) => (10_000, 500),
        (None, None) => (50, 50),
    };
    trial.kill(count, every);
    trial.end();
}

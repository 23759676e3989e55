//! A worker that uses too much memory is replaced or killed, and no other one is.

use std::os::unix::fs::lchown;
use std::path::Path;
use std::time::{Duration, Instant};

use mfserv_core::event::{EndReason, Event, Fact};
use mfserv_core::memory::Mechanism;
use mfserv_core::names::WorkerId;
use mfserv_core::status::WorkerMemory;
use mfserv_testkit::{Load, Node, Plugin, Ran, post, programs, skipped, until};

use crate::{PATIENCE, PROGRAM, Turn, load_time, node, tree};

/// A user without rights, whom each system knows as nobody.
const NOBODY: u32 = 65_534;
/// The interpreter that everybody may execute.
const PYTHON: &str = "/usr/bin/python3";
const MIB: u64 = 1 << 20;

/// Serves. `/leak`: from now on 10 MB more are used each second. `/grab`: memory is taken until
/// the process dies. `/child`: the same in a child. `/cache`: a file of 200 MB is written and
/// read.
fn greedy() -> String {
    let more = r#"elif path.endswith("/leak"):
            if not leaking:
                leaking.append(True)
                threading.Thread(target=take, args=(0.1,), daemon=True).start()
            body = "leaks"
        elif path.endswith("/grab"):
            print("taking all memory", flush=True)
            take(0.01)
        elif path.endswith("/child"):
            if os.fork() == 0:
                os.setsid()
                take(0.01)
            body = "child"
        elif path.endswith("/cache"):
            import tempfile
            with tempfile.TemporaryFile() as file:
                for _ in range(200):
                    file.write(b"x" * 1000000)
                file.seek(0)
                while file.read(1000000):
                    pass
            body = "cached"
        elif path.endswith("/slow")"#;
    let head = "import threading\nleaking, kept = [], []\n\n\ndef take(pause):\n    while True:\n        \
                kept.append(b\"x\" * 1000000)\n        time.sleep(pause)\n\n\n";
    // Its last lines are to be those of the request that it dies of.
    let quiet = programs::SERVES.replacen("if load_id:", "if False:", 1);
    let program = quiet.replacen("elif path.endswith(\"/slow\")", more, 1);
    program.replacen("class Exchange", &(head.to_owned() + "class Exchange"), 1)
}

fn plugin(limit: &str, high: &str) -> Plugin {
    let plugin = Plugin::new("greedy").file("main.py", &greedy());
    let command = format!("{PYTHON} -u {{plugin_dir}}/main.py {{unix_socket_path}}");
    let plugin = plugin.app("main", &command).key("app_main", "numprocesses", "2");
    plugin.key("app_main", "memory_limit", limit).key("app_main", "memory_high", high)
}

/// Whose node it is.
#[derive(Clone, Copy, PartialEq)]
enum User {
    /// Who runs the tests.
    Own,
    /// A user who may make no cgroup.
    Ordinary,
}

impl User {
    /// Starts a node that has this plugin; false if that cannot be tried here.
    fn start(self, node: &Node) -> bool {
        if !Path::new(PYTHON).exists() {
            skipped(&format!("limits of memory: there is no {PYTHON}"));
            return false;
        }
        if self == User::Own {
            node.start();
            return true;
        }
        if !is_root() {
            skipped("limits of memory as another user: the tests do not run as root");
            return false;
        }
        for path in tree(node.home()).iter().chain([&node.home().to_owned()]) {
            lchown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        self.mfserv(node, "start").code(0);
        true
    }

    /// Runs a command as this user.
    fn mfserv(self, node: &Node, verb: &str) -> Ran {
        if self == User::Own {
            return node.mfserv(&[verb]);
        }
        let nobody = NOBODY.to_string();
        let mut command =
            node.other(Path::new("setpriv"), &["--reuid", &nobody, "--regid", &nobody]);
        command.arg("--clear-groups").arg(PROGRAM).arg(verb);
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", node.home());
        Ran::of(command)
    }

    /// What is to enforce its limits: the kernel where the user may make a cgroup.
    fn check(self, memory: &WorkerMemory) {
        let why = &memory.control.why_not_better;
        if self == User::Ordinary || !is_root() {
            assert_eq!(memory.control.mechanism, Mechanism::Sampling, "{why}");
            assert!(why.contains("cgroup v2") && why.contains("cgroup v1"), "{why}");
        } else if memory.control.mechanism == Mechanism::Sampling {
            skipped(&format!("limits of memory by the kernel: {why}"));
        }
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

fn memory(node: &Node) -> Vec<(WorkerId, WorkerMemory)> {
    let workers = node.watcher("app.greedy.main").workers;
    workers.into_iter().filter_map(|worker| Some((worker.id, worker.memory?))).collect()
}

fn ends(node: &Node) -> Vec<(WorkerId, EndReason, String)> {
    let of = |fact| match fact {
        Fact::WorkerEnded { worker, why, last_output, .. } => Some((worker, why, last_output)),
        _ => None,
    };
    let all = node.events().into_iter().filter_map(|event| of(event.fact));
    all.filter(|(worker, ..)| worker.watcher.plugin() == Some("greedy")).collect()
}

/// How long the workers leak under load: longer with `MFSERV_LONG`.
fn leak_time() -> Duration {
    match std::env::var_os("MFSERV_LONG") {
        Some(_) => Duration::from_secs(60),
        None => load_time(),
    }
}

fn a_leak_costs_no_request(user: User) {
    let node = node();
    // The limit is far away: no worker is killed while a slow machine starts its successor.
    node.add(&plugin("1G", "64M"));
    if !user.start(&node) {
        return;
    }
    memory(&node).iter().for_each(|(_, memory)| user.check(memory));
    let load = Load::new(node.address(), "/greedy/leak").post_every(5).start();
    let (began, lasts) = (Instant::now(), leak_time());
    let mut most = 0;
    let is_replaced = |(_, why, _): &(WorkerId, EndReason, String)| {
        matches!(why, EndReason::OverMemoryHigh { used_bytes, high_bytes }
            if *high_bytes == 64 * MIB && used_bytes > high_bytes)
    };
    // Both workers leak, and are replaced one after the other.
    until("two workers have been replaced", lasts + PATIENCE, || {
        most = memory(&node)
            .iter()
            .filter_map(|(_, memory)| memory.used_bytes)
            .chain([most])
            .max()
            .unwrap();
        began.elapsed() > lasts && ends(&node).len() >= 2
    });
    let report = load.stop();
    report.assert_nothing_failed();
    let ends = ends(&node);
    println!(
        "{} requests in {:?}, {} workers replaced, the largest had {} MiB",
        report.answered(),
        began.elapsed(),
        ends.len(),
        most / MIB
    );
    assert!(ends.iter().all(is_replaced), "{ends:?}");
    assert!(most > 40 * MIB && most < 1024 * MIB, "{most}");
    assert_eq!(node.watcher("app.greedy.main").crashes, 0);
    let ini = std::fs::read_to_string(node.path("tmp/config_auto/circus.ini")).unwrap();
    assert!(ini.contains(&format!("\nmemory_limit = {}\n", 1024 * MIB)), "{ini}");
    let shown = node.mfserv(&["status"]).code(0).stdout;
    let mechanism = memory(&node)[0].1.control.mechanism;
    let line = format!("memory_limit 1 GiB, memory_high 64 MiB, by {mechanism}; used ");
    assert!(shown.contains(&line) && shown.contains("not by cgroup v2: "), "{shown}");
    node.stop();
}

/// The same with a job that takes all memory.
fn with_a_greedy_job() -> Plugin {
    let job = "[job_grab]\nschedule=@yearly\nmemory_limit=32M\n_cmd_and_args=";
    let command = format!("{PYTHON} {{plugin_dir}}/grab.py\n");
    let text = plugin("96M", "0").config_text() + job + &command;
    let grab = "import time\nkept = []\nwhile True:\n    kept.append(b'x' * 1000000)\n    \
                time.sleep(0.01)\n";
    plugin("96M", "0").file("grab.py", grab).config(&text)
}

fn only_the_greedy_worker_dies(user: User) {
    let node = node();
    node.add(&with_a_greedy_job());
    if !user.start(&node) {
        return;
    }
    let load = Load::new(node.address(), "/greedy/x").start();
    load.answers(50);
    // Page cache is nobody's memory.
    let before = node.pids("app.greedy.main");
    assert_eq!(node.get("/greedy/cache").text(), "cached");
    assert_eq!(node.pids("app.greedy.main"), before);
    let by_kernel = memory(&node)[0].1.control.mechanism != Mechanism::Sampling;
    let is_right = |why: &EndReason| match why {
        EndReason::OutOfMemory { limit_bytes } => by_kernel && *limit_bytes == Some(96 * MIB),
        EndReason::OverMemoryLimit { limit_bytes, .. } => !by_kernel && *limit_bytes == 96 * MIB,
        _ => false,
    };
    let limit = "mfserv_worker_memory_limit_bytes{plugin=\"greedy\",app=\"main\",kind=\"app\"} ";
    let limit = format!("{limit}{}", 96 * MIB);
    until("the limit is a metric", PATIENCE, || node.mfserv(&["metrics"]).stdout.contains(&limit));
    let cgroups = memory(&node);
    // A POST is not asked of another worker.
    let answered = post(node.address(), "/greedy/grab", b"").unwrap();
    assert_eq!(answered.status, 502);
    until("its end is said", PATIENCE, || ends(&node).len() == 1);
    let (ended, why, said) = ends(&node).remove(0);
    assert!(is_right(&why) && said.contains("taking all memory"), "{why} {said}");
    let settled = node.settled("app.greedy.main");
    let survivors = settled.workers.iter().filter(|w| before.contains(&w.pid.unwrap_or(0)));
    assert_eq!((settled.ready, survivors.count()), (2, 1), "the other one goes on");
    let in_its_hands = |event: Event| match event.fact {
        Fact::WorkerTrouble { worker, detail, .. } => {
            worker == ended && detail.contains("path /greedy/grab, request ")
        }
        _ => false,
    };
    until("its requests are said", PATIENCE, || node.events().into_iter().any(in_its_hands));
    let (_, old) = cgroups.iter().find(|(worker, _)| *worker == ended).unwrap();
    assert!(old.control.cgroup.as_ref().is_none_or(|leaf| !leaf.exists()), "{old:?}");
    // Whoever has the error page finds out why.
    let request = answered.field("x-request-id").unwrap();
    let is_explained = || {
        let said = node.mfserv(&["logs", "--request", request]).stdout;
        said.contains(&format!("{ended} ended: {why}")) && said.contains("taking all memory")
    };
    until("the request is explained", PATIENCE, is_explained);
    // What a worker has started counts, and nothing of it goes on.
    assert_eq!(node.get("/greedy/child").text(), "child");
    until("its end is said too", PATIENCE, || ends(&node).len() == 2);
    assert!(is_right(&ends(&node)[1].1), "{:?}", ends(&node));
    node.settled("app.greedy.main");
    load.stop().assert_nothing_failed();
    let run = node.mfserv(&["jobs", "run", "greedy.grab", "--wait"]).code(137);
    let word = if by_kernel { "out of memory at 32 MiB" } else { "over memory limit 32 MiB" };
    assert!(run.stdout.contains(word), "{run:?}");
    ends_without_its_keeper(&node, user);
}

/// The next keeper takes over the cgroups too, and removes them.
fn ends_without_its_keeper(node: &Node, user: User) {
    node.kill(node.keeper_pid().unwrap());
    let hash = node.hash();
    user.mfserv(node, "stop").code(0);
    node.assert_nothing_left(hash.as_deref());
}

#[test]
fn a_leak_costs_no_request_with_the_best_limit_that_there_is() {
    let _turn = Turn::heavy();
    a_leak_costs_no_request(User::Own);
}

#[test]
fn a_leak_costs_no_request_where_memory_is_sampled() {
    let _turn = Turn::heavy();
    a_leak_costs_no_request(User::Ordinary);
}

#[test]
fn only_the_worker_that_takes_all_memory_dies_and_the_kernel_or_mfserv_says_why() {
    let _turn = Turn::heavy();
    only_the_greedy_worker_dies(User::Own);
}

#[test]
fn only_the_worker_that_takes_all_memory_dies_where_memory_is_sampled() {
    let _turn = Turn::heavy();
    only_the_greedy_worker_dies(User::Ordinary);
}

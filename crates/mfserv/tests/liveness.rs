//! What hangs is found without a request and without a change of the node, and replaced alone.

use std::time::{Duration, Instant};

use mfserv_core::event::{EndReason, Fact};
use mfserv_core::names::WorkerId;
use mfserv_testkit::{Load, Node, Plugin, Signal, kill, programs, until};

use crate::{PATIENCE, Turn, node};

/// Serves. `/hang`: a moment after its answer the whole process is in an endless loop, and a
/// signal wakes nothing of it. `/trace`: a child attaches to it as a debugger does.
fn hangs() -> String {
    let more = r#"elif path.endswith("/hang"):
            import re, threading
            threading.Timer(0.2, lambda: re.match("(a+)+$", "a" * 64 + "b")).start()
            body = "hangs"
        elif path.endswith("/trace"):
            import ctypes
            libc, parent = ctypes.CDLL(None), os.getpid()
            libc.prctl(0x59616D61, ctypes.c_ulong(2**64 - 1), 0, 0, 0)
            tell, told = os.pipe()
            tracer = os.fork()
            if tracer == 0:
                libc.ptrace(0x4206, parent, 0, 0)
                os.write(told, b".")
                while True:
                    time.sleep(60)
            os.read(tell, 1)
            body = str(tracer)
        elif path.endswith("/slow")"#;
    programs::SERVES.replacen("elif path.endswith(\"/slow\")", more, 1)
}

/// How long a role that hangs may be missed for.
const BOUND: Duration = Duration::from_secs(60);

fn ended_stuck(node: &Node, worker: &WorkerId) -> bool {
    node.events().into_iter().any(|event| match event.fact {
        Fact::WorkerEnded { worker: ended, why: EndReason::Stuck { .. }, .. } => ended == *worker,
        _ => false,
    })
}

/// The worker with this process.
fn worker(node: &Node, watcher: &str, pid: u32) -> WorkerId {
    let workers = node.watcher(watcher).workers;
    workers.into_iter().find(|worker| worker.pid == Some(pid)).expect("it lives").id
}

#[test]
fn an_endless_loop_without_a_request_is_found_unless_the_app_is_debugged() {
    // Its loops take the processors from everybody.
    let _turn = Turn::heavy();
    let node = node();
    for (name, workers, debug) in
        [("looping", "2", "0"), ("debugged", "1", "1"), ("traced", "1", "0")]
    {
        let plugin = Plugin::python(name, &hangs());
        let plugin = plugin.key("app_main", "numprocesses", workers);
        // A worker without requests has this long to answer its probe.
        let plugin = plugin.key("app_main", "timeout", "3");
        node.add(&plugin.key("app_main", "debug", debug));
    }
    node.start();
    let watcher = "app.looping.main";
    let (before, debugged) = (node.pids(watcher), node.pids("app.debugged.main"));
    let traced = worker(&node, "app.traced.main", node.pids("app.traced.main")[0]);
    let tracer: u32 = node.get("/traced/trace").text().parse().unwrap();
    for name in ["debugged", "traced"] {
        assert_eq!(node.get(&format!("/{name}/hang")).status, 200);
    }
    let looping: u32 = node.get("/looping/pid").text().parse().unwrap();
    // The workers take turns: the other one hangs.
    assert_eq!(node.get("/looping/hang").status, 200);
    let hangs = *before.iter().find(|pid| **pid != looping).unwrap();
    let hangs = worker(&node, watcher, hangs);
    until("it is replaced", PATIENCE, || ended_stuck(&node, &hangs));
    assert!(node.pids(watcher).contains(&looping), "the one that answers is left alone");
    assert_eq!(node.settled(watcher).ready, 2);
    assert!(!ended_stuck(&node, &traced));
    kill(tracer, Signal::KILL);
    until("nobody debugs it any more", PATIENCE, || ended_stuck(&node, &traced));
    assert_eq!(node.pids("app.debugged.main"), debugged);
    node.stop();
}

const BLOCKS: &str = r#"
async def app(scope, receive, send):
    assert scope["type"] == "http"
    if scope["path"].endswith("/blocks"):
        never_ends()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})

def never_ends():
    while True:
        pass
"#;

#[test]
fn the_log_of_an_asgi_app_that_blocks_its_event_loop_says_where_before_its_worker_is_replaced() {
    let _turn = Turn::heavy();
    let node = node();
    let plugin = Plugin::new("blocking").file("main/__init__.py", "");
    let plugin = plugin.file("main/application.py", BLOCKS).app(
        "main",
        "mfserv_worker --asgi --timeout={timeout} main.application:app {unix_socket_path}",
    );
    node.add(&plugin.key("app_main", "timeout", "3"));
    node.start();
    assert_eq!(node.get("/blocking/blocks").status, 504);
    until("the log says where", PATIENCE, || {
        let lines = node.log_lines("app_blocking_main");
        lines.iter().any(|line| line.contains("in never_ends"))
    });
    until("it serves again", PATIENCE, || node.get("/blocking").status == 200);
    node.stop();
}

#[test]
fn a_server_with_one_connection_at_a_time_answers_its_clients_and_is_not_called_stuck() {
    let _turn = Turn::cheap();
    let node = node();
    let plugin = Plugin::python("single", programs::ONE_AT_A_TIME);
    node.add(&plugin.key("app_main", "numprocesses", "2"));
    node.start();
    let before = node.pids("app.single.main");
    let began = Instant::now();
    // Requests with pauses of all lengths: kept connections, none, and probes between them.
    let load = Load::new(node.address(), "/single").connections(1).start();
    load.answers(20);
    load.stop().assert_nothing_failed();
    while began.elapsed() < Duration::from_secs(26) {
        // Whether it is probed in such a pause is what is tried.
        std::thread::sleep(Duration::from_millis(700 + began.elapsed().as_millis() as u64 % 1900));
        let asked = Instant::now();
        assert_eq!(node.get("/single").status, 200);
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    }
    assert_eq!(node.pids("app.single.main"), before);
    node.stop();
}

#[test]
fn roles_that_signals_have_stopped_are_replaced_and_clients_and_commands_are_served() {
    let _turn = Turn::cheap();
    let node = node();
    node.add(&Plugin::python("hello", programs::SERVES).key("app_main", "numprocesses", "1"));
    node.start();
    let workers = node.pids("app.hello.main");
    // The telemetry role, the daemon alone, the front alone, then both.
    let sets = [vec!["telemetry"], vec!["daemon"], vec!["front"], vec!["daemon", "front"]];
    for roles in sets {
        let stopped: Vec<u32> = roles.iter().map(|role| node.role_pid(role)).collect();
        stopped.iter().for_each(|pid| kill(*pid, Signal::STOP));
        if roles == ["telemetry"] {
            // The command waits for the next one.
            node.mfserv(&["metrics"]).code(0);
        }
        // The daemon is missed after 6 s; a front after 6 s more, if the daemon was away too. The
        // rest is for a busy machine.
        until("those that were stopped have gone, and others are there", BOUND, || {
            roles.iter().all(|role| {
                let pids = node.role_pids(role);
                pids.len() == 1 && !stopped.contains(&pids[0])
            })
        });
        node.runs();
        assert_eq!(node.get("/hello").status, 200, "{roles:?}");
    }
    assert_eq!(node.pids("app.hello.main"), workers, "workers go on");
    node.stop();
}

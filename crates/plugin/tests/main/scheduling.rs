//! How workers are scheduled: `mfserv_scheduling` says why.

use std::fs;
use std::process::Command;

use crate::templates::with_base;
use crate::wsgi::PATIENT;
use crate::wsgi_client::{get, until_it_listens};
use crate::{Node, asgi, until};

/// Answers with its scheduling policy and that of a child that it has forked.
const APP: &str = r#"
import os

def policies():
    child = os.fork()
    if child == 0:
        os._exit(os.sched_getscheduler(0))
    of_child = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return b"%d %d" % (os.sched_getscheduler(0), of_child)

def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "3")])
    return [policies()]

async def served_by_an_event_loop(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
    await send({"type": "http.response.body", "body": policies()})
"#;

/// Whether an ordinary thread may choose another policy here, and this one is one: sched(7).
fn may_choose() -> bool {
    let chosen = Command::new("chrt").args(["--batch", "0", "true"]).output();
    let own = Command::new("chrt").args(["-p", &std::process::id().to_string()]).output();
    let is_ordinary = own.is_ok_and(|own| String::from_utf8_lossy(&own.stdout).contains("OTHER"));
    is_ordinary && chosen.is_ok_and(|done| done.status.success())
}

#[test]
fn workers_interrupt_nobody_when_they_wake_and_processes_that_they_fork_are_as_any() {
    let node = Node::new();
    let shared = with_base(&node);
    let expected = if may_choose() { "3 0" } else { "0 0" };
    let one_thread = &["main.wsgi:application"][..];
    let threads = &["--threads=4", "main.wsgi:application"][..];
    let event_loop = &["main.wsgi:served_by_an_event_loop"][..];
    for (name, arguments) in [("one", one_thread), ("four", threads), ("loop", event_loop)] {
        let dir = node.plugin("python3_raw_wsgi", name);
        fs::write(dir.join("main/wsgi.py"), APP).unwrap();
        let socket = node.work().join(format!("{name}.s"));
        let arguments = [&[PATIENT], arguments].concat();
        let _worker = asgi::worker(&node, &shared.environment, &dir, &arguments, &socket);
        until_it_listens(&socket);
        // One that has to wait long for a processor is an ordinary thread for a while.
        until(&format!("{name}: the policies are {expected}"), || {
            let policies = get(&socket, "/", "").1;
            assert!(policies == expected || policies == "0 0", "{name}: {policies}");
            policies == expected
        });
    }
}

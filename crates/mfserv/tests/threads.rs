//! Python workers with several threads, behind the front.

use std::time::Duration;

use mfserv_core::event::Fact;

use mfserv_testkit::{Load, Plugin, get, until};

use crate::{PATIENCE, Turn, node};

const APP: &str = r#"
import threading, time

eight = threading.Barrier(8, timeout=60)

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path.endswith("/eight"):
        eight.wait()
    elif path.endswith("/hangs"):
        time.sleep(1000)
    else:
        time.sleep(0.01)
    body = environ["wsgi.input"].read() or b"fine"
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"#;

fn plugin(name: &str) -> Plugin {
    let command = "mfserv_worker --timeout={timeout} main.wsgi:application {unix_socket_path}";
    let plugin = Plugin::new(name).file("main/__init__.py", "").file("main/wsgi.py", APP);
    plugin.app("main", command).key("app_main", "_python_threads", "8")
}

#[test]
fn a_worker_has_a_request_in_each_thread_and_a_restart_under_load_fails_none() {
    let _turn = Turn::heavy();
    let node = node();
    node.add(&plugin("threaded"));
    node.start();
    // Its only worker answers none of them before it has all.
    let address = node.address();
    let eight: Vec<_> = (0..8)
        .map(|_| std::thread::spawn(move || get(address, "/threaded/eight").unwrap().status))
        .collect();
    for one in eight {
        assert_eq!(one.join().unwrap(), 200);
    }
    let load = Load::new(address, "/threaded").connections(32).pause(Duration::from_millis(5));
    let load = load.post_every(4).start();
    load.answers(300);
    let before = node.pids("app.threaded.main");
    node.mfserv(&["restart", "threaded"]).code(0);
    load.answers(300);
    let report = load.stop();
    println!("{}", report.sentence());
    report.assert_nothing_failed();
    assert_ne!(node.pids("app.threaded.main"), before);
    node.stop();
}

#[test]
fn a_request_that_hangs_in_a_thread_fails_no_other_and_its_worker_is_replaced() {
    let _turn = Turn::heavy();
    let node = node();
    let plugin = plugin("hanging").key("app_main", "numprocesses", "2");
    node.add(&plugin.key("app_main", "timeout", "3"));
    node.start();
    let (address, before) = (node.address(), node.pids("app.hanging.main"));
    let load = Load::new(address, "/hanging").connections(16).pause(Duration::from_millis(5));
    let load = load.post_every(4).start();
    load.answers(100);
    let hangs = get(address, "/hanging/hangs").unwrap();
    assert_eq!(hangs.status, 504, "{}", hangs.text());
    until("its worker has ended", PATIENCE, || {
        let of_app = |fact: &Fact| matches!(fact, Fact::WorkerEnded { worker, .. } if worker.to_string().contains("hanging"));
        node.events().iter().any(|event| of_app(&event.fact))
    });
    load.answers(300);
    let report = load.stop();
    println!("{}", report.sentence());
    report.assert_nothing_failed();
    assert_eq!(node.settled("app.hanging.main").ready, 2);
    let after = node.pids("app.hanging.main");
    assert_eq!(after.iter().filter(|pid| before.contains(pid)).count(), 1, "{before:?} {after:?}");
    node.stop();
}

//! Programs that insist on the number of a port are served like those with a socket.

use std::collections::BTreeSet;

use mfserv_testkit::{Load, Method, Node, Plugin, until};

use crate::install::{edit, install, release};
use crate::{PATIENCE, Turn, node};

/// Answers with its port; Python's server sends an answer and its end at once.
const PYTHON: &str = "\
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Exchange(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        received = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        body = ('one ' + os.environ['PORT'] + ' ' + str(len(received))).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
    def log_message(self, *args):
        pass

class Server(ThreadingHTTPServer):
    request_queue_size = 1024

Server((os.environ['HOST'], int(os.environ['PORT'])), Exchange).serve_forever()
";

/// As many Node apps do it: with a path `Number` would give none.
const NODE: &str = "\
const server = require('http').createServer((request, answer) => {
  request.resume();
  request.on('end', () => answer.end('one ' + process.env.PORT));
});
server.listen(Number(process.env.PORT), process.env.HOST);
process.on('SIGTERM', () => server.close());
";

fn python(name: &str) -> Plugin {
    Plugin::new(name).file("main.py", PYTHON).app("main", "python3 -u {plugin_dir}/main.py").key(
        "app_main",
        "numprocesses",
        "2",
    )
}

/// The ports on which the workers of an app answer.
fn ports(node: &Node, path: &str, count: usize) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    until("every worker has answered", PATIENCE, || {
        let text = node.get(path).text();
        seen.insert(text.split(' ').nth(1).unwrap_or_else(|| panic!("{text}")).to_string());
        seen.len() >= count
    });
    seen
}

#[test]
fn programs_on_ports_are_served_restarted_scaled_killed_and_released_without_a_lost_get() {
    let _turn = Turn::heavy();
    let node = node();
    node.add(&python("fresh"));
    node.add(&python("kept").key("app_main", "_keep_alive", "1"));
    let js = Plugin::new("js").file("server.js", NODE);
    let js = js.app("main", "node {plugin_dir}/server.js");
    node.add(&js.key("app_main", "numprocesses", "2").key("app_main", "rlimit_as", "0"));
    let files = Plugin::new("files").file("files/index.html", "of a directory");
    node.add(&files.app("main", "env -C {plugin_dir} python3 -m http.server --bind {host} {port}"));
    let open = "env -C {plugin_dir} python3 -m http.server {port}";
    node.add(&Plugin::new("open").app("main", open));
    node.start();
    assert!(node.get("/files/").text().contains("of a directory"));
    let shown = node.mfserv(&["status"]).stdout;
    assert!(shown.contains("app.open.main listens on 0.0.0.0:"), "{shown}");
    assert!(!shown.contains("app.fresh.main listens"), "{shown}");
    let mut all = BTreeSet::new();
    for app in ["/fresh", "/kept", "/js"] {
        all.extend(ports(&node, app, 2));
    }
    assert_eq!(all.len(), 6, "each worker has a port of its own: {all:?}");

    let load = || Load::new(node.address(), "/fresh").also("/kept").also("/js");
    let running = load().post_every(3).start();
    for app in ["fresh", "kept", "js"] {
        running.answers(60);
        node.mfserv(&["restart", app]).code(0);
        node.mfserv(&["scale", app, "4"]).code(0);
        node.mfserv(&["scale", app, "2"]).code(0);
    }
    running.stop().assert_nothing_failed();
    let after = ports(&node, "/fresh", 2);
    assert!(all.is_disjoint(&after), "{all:?} {after:?}");

    let running = load().start();
    for app in ["app.fresh.main", "app.kept.main", "app.js.main"] {
        for _ in 0..2 {
            running.answers(40);
            let workers = node.settled(app).workers;
            node.kill(workers[0].pid.unwrap());
        }
        node.settled(app);
    }
    let report = running.stop();
    let lost: Vec<_> = report.failed(Method::Get).collect();
    assert!(lost.is_empty(), "{lost:#?}");
    a_daemon_that_dies_changes_nothing(&node);
    node.stop();
}

fn a_daemon_that_dies_changes_nothing(node: &Node) {
    let before = (node.pids("app.fresh.main"), ports(node, "/fresh", 2));
    let daemon = node.role_pid("daemon");
    let load = Load::new(node.address(), "/fresh").start();
    node.kill(daemon);
    until("a new daemon answers", PATIENCE, || {
        node.try_status().is_some() && node.role_pids("daemon").iter().all(|pid| *pid != daemon)
    });
    node.settled("app.fresh.main");
    assert_eq!((node.pids("app.fresh.main"), ports(node, "/fresh", 2)), before);
    load.stop().assert_nothing_failed();
}

/// Takes its socket as systemd gives it.
const ACTIVATED: &str = "\
import os, socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

assert os.environ['LISTEN_PID'] == str(os.getpid()) and os.environ['LISTEN_FDS'] == '1'

class Exchange(BaseHTTPRequestHandler):
    def do_GET(self):
        self.client_address = ('', 0)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'activated')
    def log_message(self, *args):
        pass

server = ThreadingHTTPServer(('', 0), Exchange, bind_and_activate=False)
server.socket = socket.socket(fileno=3)
server.serve_forever()
";

#[test]
fn a_program_gets_its_socket_as_systemd_gives_one() {
    let _turn = Turn::cheap();
    let node = node();
    let command = "socket_activate {unix_socket_path} python3 -u {plugin_dir}/main.py";
    let plugin = Plugin::new("given").file("main.py", ACTIVATED).app("main", command);
    node.add(&plugin.key("app_main", "numprocesses", "2"));
    node.mfserv(&["check"]).code(0);
    node.start();
    let load = Load::new(node.address(), "/given").connections(4).start();
    load.answers(10);
    node.mfserv(&["restart", "given"]).code(0);
    node.kill(node.settled("app.given.main").workers[0].pid.unwrap());
    node.settled("app.given.main");
    assert_eq!(node.get("/given").text(), "activated");
    load.stop().assert_nothing_failed();
    node.stop();
}

#[test]
fn a_new_release_of_a_program_on_a_port_starts_beside_the_old_one() {
    let _turn = Turn::heavy();
    let node = node();
    node.start();
    let dir = python("shop").write(&node.path("work"));
    install(&node, &release(&node, &dir));
    let before = ports(&node, "/shop", 2);
    edit(&dir.join("main.py"), "'one '", "'two '");
    edit(&dir.join("config.ini"), "1.0.0", "1.0.1");
    let package = release(&node, &dir);
    let load = Load::new(node.address(), "/shop").post_every(3).start();
    install(&node, &package);
    assert!(node.get("/shop").text().starts_with("two "));
    assert!(ports(&node, "/shop", 2).is_disjoint(&before));
    load.answers(100);
    load.stop().assert_nothing_failed();
    node.stop();
}

#[test]
fn an_app_that_serves_nothing_is_kept_alive_and_gets_requests_if_it_listens_after_all() {
    let _turn = Turn::cheap();
    let node = node();
    let go = node.home().join("go");
    let wait = format!("import os, time\nwhile not os.path.exists({go:?}): time.sleep(0.05)\n");
    let late = Plugin::new("late").file("main.py", &(wait + PYTHON));
    let late = late.app("main", "python3 -u {plugin_dir}/main.py");
    node.add(&late.key("app_main", "_start_timeout", "2"));
    node.mfserv(&["start"]).code(0);
    let before = node.settled("app.late.main").workers[0].pid;
    let said = node.mfserv(&["events"]).stdout;
    assert!(said.contains("app.late.main never gets a request"), "{said}");
    std::fs::write(&go, "").unwrap();
    until("it is served", PATIENCE, || node.get("/late").status == 200);
    let watcher = node.settled("app.late.main");
    assert_eq!((watcher.workers[0].pid, watcher.crashes), (before, 0));
    node.stop();
}

#[test]
fn a_program_that_does_not_listen_on_its_port_is_said_with_where_it_listens() {
    let _turn = Turn::cheap();
    let node = node();
    let elsewhere = PYTHON.replace("int(os.environ['PORT'])", "0");
    node.add(
        &Plugin::new("lost")
            .file("main.py", &elsewhere)
            .app("main", "python3 -u {plugin_dir}/main.py")
            .key("app_main", "_start_timeout", "2"),
    );
    node.mfserv(&["start"]);
    let mut why = String::new();
    until("it is said what is wrong", PATIENCE, || {
        let end = node.watcher("app.lost.main").last_end;
        why = end.map(|end| end.why.to_string()).unwrap_or_default();
        why.contains("; it listens on 127.0.0.1:")
    });
    assert!(why.contains("not listening on its port"), "{why}");
    node.stop();
}

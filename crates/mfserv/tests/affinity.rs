//! Clients that come back to their worker, with real workers that come and go.

use std::collections::BTreeSet;

use mfserv_testkit::{Client, Method, Node, Plugin, Response, until};

use crate::{PATIENCE, Turn, node};

const APP: &str = r#"
import os

def application(environ, start_response):
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"#;

fn plugin(name: &str, affinity: &str) -> Plugin {
    let command = "mfserv_worker --timeout={timeout} main.wsgi:application {unix_socket_path}";
    let plugin = Plugin::new(name).file("main/__init__.py", "").file("main/wsgi.py", APP);
    let plugin = plugin.app("main", command).key("app_main", "numprocesses", "3");
    plugin.key("app_main", "_affinity", affinity)
}

fn ask(node: &Node, path: &str, cookie: &str) -> Response {
    let fields = [("Cookie", cookie)];
    let fields = if cookie.is_empty() { &fields[..0] } else { &fields[..] };
    let answer = Client::new(node.address()).ask(Method::Get, path, fields, b"").unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

#[test]
fn clients_of_wsgi_workers_come_back_to_theirs_until_it_is_killed_or_replaced() {
    let _turn = Turn::cheap();
    let node = node();
    node.add(&plugin("marked", "cookie"));
    node.add(&plugin("placed", "ip"));
    node.start();
    let all: BTreeSet<String> = (0..30).map(|_| ask(&node, "/marked", "").text()).collect();
    assert_eq!(all.len(), 3, "without a cookie any worker will do");
    let placed: BTreeSet<String> = (0..30).map(|_| ask(&node, "/placed", "").text()).collect();
    assert_eq!(placed.len(), 1, "all of it comes from one address");
    let first = ask(&node, "/marked", "");
    let set = first.field("set-cookie").unwrap().to_string();
    assert!(set.starts_with("mfserv_worker=") && set.contains("; Path=/marked;"), "{set}");
    let mut cookie = set.split(';').next().unwrap().to_string();
    let mut had = first.text();
    for event in ["killed", "replaced"] {
        for _ in 0..20 {
            let answer = ask(&node, "/marked", &cookie);
            assert_eq!((answer.text(), answer.field("set-cookie")), (had.clone(), None), "{event}");
        }
        match event {
            "killed" => node.kill(had.parse().unwrap()),
            _ => drop(node.mfserv(&["restart", "marked"]).code(0)),
        }
        let mut next = None;
        until("another worker has its clients", PATIENCE, || {
            let answer = ask(&node, "/marked", &cookie);
            let is_other = answer.text() != had;
            next = Some(answer);
            is_other
        });
        let next = next.unwrap();
        cookie = next.field("set-cookie").unwrap().split(';').next().unwrap().to_string();
        had = next.text();
    }
    node.stop();
}

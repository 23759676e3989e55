//! Limits of request bodies, on a real node.

use mfserv_testkit::{Node, Plugin, post, programs};

use crate::{Turn, node};

const KIB: usize = 1024;

/// The status of a request with so long a body, and what the front says of it.
fn posted(node: &Node, path: &str, length: usize) -> (u16, String) {
    let answer = post(node.address(), path, "x".repeat(length).as_bytes()).unwrap();
    (answer.status, answer.field("x-mfserv-cause").unwrap_or_default().to_string())
}

#[test]
fn an_app_takes_bodies_up_to_its_own_limit_and_a_reload_changes_it_without_new_workers() {
    let _turn = Turn::cheap();
    let node = node();
    node.set("nginx.upload_max_body_size", "1");
    let app = |name: &str| Plugin::python(name, programs::SERVES);
    let limited = |size: &str| app("own").key("app_main", "_max_body_size", size);
    node.add(&limited("10k"));
    node.add(&app("other"));
    node.start();
    let refused = || (413, "too_large".to_string());
    let taken = || (200, String::new());
    assert_eq!(posted(&node, "/own/x", 10 * KIB), taken());
    assert_eq!(posted(&node, "/own/x", 10 * KIB + 1), refused());
    assert_eq!(posted(&node, "/other/x", 1000 * KIB), taken());
    let pid = node.get("/own/pid").text();
    node.add(&limited("2m"));
    node.mfserv(&["reload"]).code(0);
    assert_eq!(posted(&node, "/own/x", 2048 * KIB), taken(), "more than the node's");
    assert_eq!(posted(&node, "/own/x", 2048 * KIB + 1), refused());
    assert_eq!(posted(&node, "/other/x", 1100 * KIB), refused());
    assert_eq!(node.get("/own/pid").text(), pid, "the worker is the same");
    node.add(&limited("10"));
    let said = node.mfserv(&["check"]);
    let said = format!("{}{}", said.stdout, said.stderr);
    assert!(said.contains("_max_body_size") && said.contains("for example 10m"), "{said}");
}

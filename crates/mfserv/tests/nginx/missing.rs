//! An nginx that is not there, or is none.

use std::os::unix::fs::PermissionsExt;

use mfserv_core::node_state::NodeState;
use mfserv_testkit::{Plugin, programs, until};

use super::behind_nginx;
use crate::{PATIENCE, Turn, node};

#[test]
fn without_nginx_a_node_that_is_to_have_it_says_so() {
    let _turn = Turn::cheap();
    let node = node();
    node.set("front.kind", "nginx");
    node.set("front.nginx_program", "/nowhere/nginx");
    node.add(&Plugin::python("hello", programs::SERVES));
    let ran = node.mfserv(&["start"]);
    assert_ne!(ran.code, 0, "{ran:?}");
    let log = node.log_lines("front").join("\n");
    assert!(log.contains("/nowhere/nginx cannot be the front"), "{log}\n{ran:?}");
    node.mfserv(&["stop"]);
}

#[test]
fn a_check_refuses_a_program_that_is_not_there_not_executable_or_no_nginx() {
    let _turn = Turn::cheap();
    let node = node();
    node.mfserv(&["check"]).code(0);
    let plain = node.path("plain");
    std::fs::write(&plain, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&plain, PermissionsExt::from_mode(0o600)).unwrap();
    let plain = plain.display().to_string();
    node.set("front.nginx_program", "/nowhere/nginx");
    // Another kind of front needs no nginx.
    let embedded = node.mfserv(&["check", "--set", "front.kind=embedded"]).code(0);
    assert!(!embedded.stderr.contains("cannot be the front"), "{embedded:?}");
    node.set("front.kind", "nginx");
    for (program, why) in [
        ("/nowhere/nginx", "No such file"),
        ("no-such-nginx", "No such file"),
        (&plain, "Permission denied"),
        ("/bin/true", "it is no nginx"),
    ] {
        node.set("front.nginx_program", program);
        let said = node.mfserv(&["check"]).code(4).stderr;
        let what = format!("{program} cannot be the front");
        for words in [&*what, why, "config.ini:", "name the program as [front] nginx_program"] {
            assert!(said.contains(words), "{words}: {said}");
        }
    }
    // A node without a front needs none.
    let alone = node.mfserv(&["check", "--set", "nginx.flag=0"]);
    assert!(!alone.stderr.contains("cannot be the front"), "{alone:?}");
}

#[test]
fn the_status_of_a_node_whose_new_front_does_not_start_is_a_failure() {
    let _turn = Turn::heavy();
    let Some(node) = behind_nginx("1") else { return };
    node.mfserv(&["status"]).code(0);
    node.set("front.nginx_program", "/nowhere/nginx");
    assert_ne!(node.mfserv(&["reload"]).code, 0);
    until("its starts fail", PATIENCE, || node.mfserv(&["status"]).code == 1);
    let said = node.mfserv(&["status"]).stdout;
    assert!(said.contains("RUNNING, the new front does not start at "), "{said}");
    assert!(said.contains("/nowhere/nginx cannot be the front"), "{said}");
    assert_eq!(node.status().state, NodeState::Running);
    assert_eq!(node.get("/hello").status, 200, "the front of before serves");
    node.stop();
}

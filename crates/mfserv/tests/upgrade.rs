//! Going over to another version of the program does not touch the apps.

use mfserv_testkit::Load;

use crate::{Turn, assert_no_line_is_lost, node};

#[test]
fn an_upgrade_under_load_fails_no_request_and_touches_no_worker() {
    let _turn = Turn::heavy();
    let node = node();
    node.link_sample("sample_flask", &[("app_main", "numprocesses", "4")]);
    node.link_sample("sample_static", &[]);
    node.start();
    let workers = node.worker_pids();
    let before = ["keep", "daemon", "front"].map(|role| node.role_pid(role));
    let load = Load::new(node.address(), "/sample_flask/count").post_every(4).start();
    load.answers(200);
    node.mfserv(&["upgrade"]).code(0);
    load.answers(200);
    let report = load.stop();
    println!("{}", report.sentence());
    report.assert_nothing_failed();
    let lines = assert_no_line_is_lost(&node, &report);
    assert_eq!(lines, report.answered(), "as many lines as requests");
    node.settled("front");
    let after = ["keep", "daemon", "front"].map(|role| node.role_pid(role));
    assert_eq!(after[0], before[0], "the keeper is replaced in place");
    assert_ne!(after[1], before[1], "there is a new daemon");
    assert_ne!(after[2], before[2], "there is a new front");
    assert_eq!(node.worker_pids(), workers);
    let status = node.status();
    assert!(status.notes.is_empty(), "nothing is lost by an upgrade: {:?}", status.notes);
    node.stop();
}

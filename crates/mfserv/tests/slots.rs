//! A worker is never given more requests, nor more connections, than it can take.

use std::time::Duration;

use mfserv_testkit::{Load, Node, Plugin, Report, programs, until};

use crate::{PATIENCE, Turn, node};

/// No request may wait longer than this: a stall would last until a timeout, 60 s.
const NO_STALL: Duration = Duration::from_secs(20);

fn many_kept_connections(node: &Node, path: &str) -> Report {
    let load = Load::new(node.address(), path).connections(64).pause(Duration::from_millis(5));
    let load = load.post_every(5).start();
    load.answers(500);
    let report = load.stop();
    println!("{path}: {}", report.sentence());
    report.assert_nothing_failed();
    assert!(report.percentile(100.0) < NO_STALL, "{}", report.sentence());
    assert!(report.connections <= 64, "client connections are kept: {}", report.sentence());
    report
}

#[test]
fn a_server_of_one_connection_at_a_time_serves_64_kept_connections_without_a_stall() {
    let _turn = Turn::heavy();
    let node = node();
    let plugin = Plugin::python("alone", programs::ONE_AT_A_TIME)
        .key("app_main", "numprocesses", "2")
        .key("app_main", "_requests_per_worker", "1")
        .key("app_main", "_keep_alive", "1");
    node.add(&plugin);
    node.start();
    let report = many_kept_connections(&node, "/alone");
    let handled = || {
        let lines = node.log_lines("app_alone_main");
        lines.iter().filter(|line| line.starts_with("handled")).count()
    };
    until("each answer is in the log", PATIENCE, || handled() >= report.answered());
    assert_eq!(handled(), report.answered(), "each was handled once");
    node.mfserv(&["restart", "alone"]).code(0);
    many_kept_connections(&node, "/alone");
    node.stop();
}

#[test]
fn gunicorn_sync_serves_64_kept_connections_without_a_stall() {
    let _turn = Turn::heavy();
    let node = node();
    node.link_sample("sample_gunicorn", &[("app_main", "numprocesses", "2")]);
    node.start();
    many_kept_connections(&node, "/sample_gunicorn");
    node.stop();
}

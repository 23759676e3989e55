//! An operation answers for what it does: an app that was down before is no failure of it, unless
//! somebody has named it.

use mfserv_core::status::WatcherState;
use mfserv_testkit::{Node, Plugin, programs, until};
use serde_json::Value;

use crate::{PATIENCE, Turn, node};

const STILL_DOWN: &str = "app.ill.main was down before, and still is";

fn ill(workers: &str) -> Plugin {
    let command = "false {unix_socket_path}";
    Plugin::python("ill", programs::SERVES).key("app_main", "_cmd_and_args", command).key(
        "app_main",
        "numprocesses",
        workers,
    )
}

fn well(workers: &str) -> Plugin {
    Plugin::python("well", programs::SERVES).key("app_main", "numprocesses", workers)
}

/// A node with an app that serves and one that does not start.
fn half_well() -> Node {
    let node = node();
    node.add(&well("1"));
    node.add(&ill("1"));
    node.start();
    until("the app is known to fail", PATIENCE, || {
        node.watcher("app.ill.main").state == WatcherState::Failing
    });
    node
}

#[test]
fn an_app_that_was_down_before_is_a_warning_of_an_operation_and_a_failure_where_it_is_named() {
    let _turn = Turn::cheap();
    let node = half_well();
    let ran = node.mfserv(&["restart"]).code(0);
    assert!(ran.stderr.contains(STILL_DOWN) && ran.stderr.contains("mfserv logs ill"), "{ran:?}");
    // Touched by what others have written, and still down for its own reason.
    node.add(&ill("3"));
    let ran = node.mfserv(&["reload"]).code(0);
    assert!(ran.stderr.contains(STILL_DOWN), "{ran:?}");
    node.add(&ill("1"));
    let ran = node.mfserv(&["scale", "well", "2", "--json"]).code(0);
    let outcome: Value = serde_json::from_str(ran.stdout.lines().last().unwrap()).unwrap();
    let warnings = outcome["warnings"].to_string();
    assert!(outcome["ok"] == true && warnings.contains(STILL_DOWN), "{outcome}");
    assert_eq!(node.settled("app.well.main").ready, 2);
    for args in [&["restart", "ill"][..], &["restart", "well", "ill"], &["scale", "ill", "2"]] {
        let ran = node.mfserv(args).code(1);
        assert!(ran.stderr.contains("app.ill.main does not start"), "{ran:?}");
    }
    node.stop();
}

#[test]
fn an_app_that_a_reload_takes_down_is_its_failure_and_one_that_it_mends_is_no_warning() {
    let _turn = Turn::cheap();
    let node = half_well();
    let broken = well("1").key("app_main", "_cmd_and_args", "false {unix_socket_path}");
    node.add(&broken);
    let ran = node.mfserv(&["reload"]).code(1);
    assert!(ran.stderr.contains("app.well.main does not start"), "{ran:?}");
    node.add(&well("1"));
    node.add(&Plugin::python("ill", programs::SERVES));
    let ran = node.mfserv(&["reload"]).code(0);
    assert!(!ran.stderr.contains("was down before"), "{ran:?}");
    assert!(node.settled("app.ill.main").ready > 0 && node.settled("app.well.main").ready == 1);
    node.stop();
}

//! What a session has started does not outlive it when it is killed.

use std::path::Path;

use mfserv_testkit::{programs, until};

use super::builds::slow;
use super::terminal::Session;
use super::watched;
use crate::{PATIENCE, Turn, node};

/// Processes that work in this directory and were started with this word.
fn working_in(dir: &Path, word: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let is_meant = |process: &std::path::PathBuf| {
        let words = std::fs::read(process.join("cmdline")).unwrap_or_default();
        std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == dir)
            && String::from_utf8_lossy(&words).contains(word)
    };
    processes.filter(is_meant).count()
}

#[test]
fn a_session_that_is_killed_leaves_no_build() {
    // Alone: other commands end builds that were left, too.
    let _turn = Turn::heavy();
    let node = node();
    node.start();
    let dir = slow(&node).canonicalize().unwrap();
    let session = Session::start(&node, &dir, &["--follow"]);
    session.until_said("what you save is built");
    std::fs::write(dir.join("../hold"), "").unwrap();
    let text = std::fs::read_to_string(dir.join("server.src.js")).unwrap();
    std::fs::write(dir.join("server.src.js"), text + "// edited\n").unwrap();
    until("it builds", PATIENCE, || working_in(&dir, "build.js") > 0);
    // SIGKILL.
    drop(session);
    until("the build has ended", PATIENCE, || working_in(&dir, "build.js") == 0);
    assert!(dir.join("../hold").exists(), "it has not ended by itself");
    node.stop();
}

#[test]
fn a_node_that_runs_for_a_session_alone_ends_with_it_when_that_is_killed() {
    let _turn = Turn::cheap();
    let node = node();
    let dir = watched("shop").write(&node.path("work"));
    std::fs::write(dir.join("main.py"), programs::SERVES).unwrap();
    let session = Session::start(&node, &dir, &["--follow"]);
    session.until_said("Ctrl-C ends this");
    node.mfserv(&["status"]).code(0);
    drop(session);
    until("it is stopped", PATIENCE, || node.mfserv(&["status"]).code == 3);
}

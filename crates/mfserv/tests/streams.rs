//! A reader that goes away, or a full disk behind the output, stops no operation half-way.

use std::fs::File;
use std::process::Stdio;

use mfserv_testkit::{Node, Ran};

use crate::install::{edit, install, release};
use crate::{Turn, node, samples};

/// A pipe that nobody reads.
fn nobody() -> Stdio {
    let (_, writer) = rustix::pipe::pipe().unwrap();
    writer.into()
}

/// A disk without room.
fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

fn ran(node: &Node, args: &[&str], out: Stdio, err: Stdio) -> Ran {
    let mut command = node.command(args);
    command.stdout(out).stderr(err);
    Ran::of(command)
}

#[test]
fn what_was_begun_is_finished_when_nobody_reads_what_it_says() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let dir = node.path("work/sample_static");
    samples().copy("sample_static", &dir);
    install(&node, &release(&node, &dir));
    let editions = [("default home page", "second edition"), ("second edition", "third edition")];
    for ((from, to), release_number) in editions.into_iter().zip(1..) {
        edit(&dir.join("main/index.html"), from, to);
        let (old, new) = (release_number, release_number + 1);
        edit(&dir.join("config.ini"), &format!("_release={old}"), &format!("_release={new}"));
        let file = release(&node, &dir);
        let args = ["install", &file.to_string_lossy()];
        if new == 2 {
            ran(&node, &args, nobody(), nobody()).code(0);
        } else {
            let said = ran(&node, &args, full(), Stdio::piped()).code(1).stderr;
            assert!(said.contains("standard output could not be written"), "{said}");
        }
        let served = node.get("/sample_static/").text();
        assert!(served.contains(to), "{to} is not served: {served}");
    }
    ran(&node, &["rollback", "sample_static"], nobody(), full()).code(0);
    assert!(node.get("/sample_static/").text().contains("second edition"));
    let hash = node.hash();
    ran(&node, &["stop"], nobody(), nobody()).code(0);
    node.assert_nothing_left(hash.as_deref());
}

#[test]
fn a_node_that_dev_has_started_is_stopped_when_its_terminal_has_gone() {
    let _turn = Turn::cheap();
    let node = node();
    let dir = node.path("work/sample_static");
    samples().copy("sample_static", &dir);
    ran(&node, &["dev", &dir.to_string_lossy(), "--follow"], nobody(), nobody()).code(0);
    node.mfserv(&["status"]).code(3);
    node.assert_nothing_left(None);
}

#[test]
fn following_ends_when_nobody_reads_any_more() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    ran(&node, &["events", "--follow"], nobody(), Stdio::piped()).code(0);
    node.stop();
}

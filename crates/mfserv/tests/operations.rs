//! Operations go on whoever dies; two on one plugin wait for each other; Ctrl-C, the API, a node
//! that does not run.

mod killed;
mod stage;

use std::fs;
use std::process::Stdio;

use mfserv_testkit::{Node, Plugin, Signal, kill, programs, until};
use serde_json::Value;

use crate::install::release;
use crate::{PATIENCE, Turn};
use stage::Stage;

#[test]
fn an_asker_that_is_killed_while_it_stages_leaves_nothing_and_a_daemon_that_dies_then_is_replaced()
{
    let _turn = Turn::cheap();
    let stage = Stage::new();
    let file = stage.package(3);
    stage.hold("staging");
    let asker = stage.ask(&["install", &file]);
    stage.until_reached();
    asker.kill();
    assert_eq!(stage.releases(), 3, "it was being made");
    // The next operation on the plugin removes it, and says for whom it waits as long as need be.
    stage.let_go();
    stage.hold("staging");
    let asker = stage.ask(&["install", &file]);
    stage.until_reached();
    stage.kill_daemon();
    stage.let_go();
    assert_eq!(asker.code(), Some(0));
    assert_eq!((stage.current(), stage.releases()), (Some(3), 3));
    stage.node.stop();
}

#[test]
fn the_second_of_two_operations_on_a_plugin_waits_and_says_for_whom_and_another_plugin_does_not() {
    let _turn = Turn::cheap();
    let stage = Stage::new();
    let file = stage.package(3);
    stage.hold("start");
    let first = stage.ask(&["install", &file]);
    let id = first.id();
    stage.until_reached();
    let out = stage.node.path("second.out");
    let mut second = stage.node.command(&["uninstall", "foo"]);
    let second = second.stderr(fs::File::create(&out).unwrap()).stdout(Stdio::null());
    let mut second = second.spawn().unwrap();
    until("the second one says for whom it waits", PATIENCE, || {
        let said = fs::read_to_string(&out).unwrap_or_default();
        said.contains("waiting for mfserv") && said.contains(&id)
    });

    // Another plugin is deployed, restarted and removed meanwhile.
    let plugin = Plugin::python("bar", programs::SERVES);
    let other = release(&stage.node, &plugin.write(&stage.node.path("work")));
    stage.node.mfserv(&["install", &other.to_string_lossy()]).code(0);
    assert_eq!(stage.node.get("/bar").text(), "hello from bar");
    stage.node.mfserv(&["restart", "bar"]).code(0);
    stage.node.mfserv(&["uninstall", "bar"]).code(0);
    assert!(second.try_wait().unwrap().is_none(), "it waits");
    assert_eq!(stage.current(), Some(2));

    // One that is not given much time is refused, and told who has the plugin.
    let ran = stage.node.mfserv(&["rollback", "foo", "--timeout", "1"]).code(5);
    assert!(
        ran.stderr.contains("being changed by another command") && ran.stderr.contains(&id),
        "{ran:?}"
    );

    stage.let_go();
    assert_eq!(first.code(), Some(0));
    assert!(second.wait().unwrap().success());
    assert_eq!(stage.current(), None);
    stage.node.stop();
}

#[test]
fn ctrl_c_cancels_until_the_commit_and_after_it_the_asker_only_stops_looking() {
    let _turn = Turn::cheap();
    let stage = Stage::new();
    let file = stage.package(3);
    stage.hold("start");
    let asker = stage.ask(&["install", &file]);
    let id = asker.id();
    stage.until_reached();
    kill(asker.child.id(), Signal::INT);
    assert_eq!(asker.code(), Some(1));
    let outcome = stage.outcome(&id);
    assert_eq!(outcome["problem"]["what"], "interrupted: nothing has changed", "{outcome}");
    assert_eq!((stage.current(), stage.releases()), (Some(2), 2));
    stage.let_go();

    stage.hold("end");
    let mut command = stage.node.command(&["install", &file]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    until("it is committed", PATIENCE, || stage.current() == Some(3));
    kill(child.id(), Signal::INT);
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    let id = said.split("`mfserv wait ").nth(1).and_then(|rest| rest.split('`').next());
    let id = id.unwrap_or_else(|| panic!("{said}"));
    stage.let_go();
    assert_eq!(stage.outcome(id)["ok"], true);
    assert_eq!(stage.current(), Some(3));
    stage.node.stop();
}

#[test]
fn a_second_interrupt_ends_a_command_at_once_and_says_what_goes_on_without_it() {
    let _turn = Turn::cheap();
    let stage = Stage::new();
    let file = stage.package(3);
    stage.hold("start");
    let mut command = stage.node.command(&["install", &file]);
    let says = stage.node.path("asker.err");
    let stderr = fs::File::create(&says).unwrap();
    let mut child = command.stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
    let said = || fs::read_to_string(&says).unwrap();
    until("the node tries it", PATIENCE, || said().contains("starting the new release"));
    // A daemon that does not answer: the first interrupt cannot cancel.
    let daemon = stage.node.role_pid("daemon");
    kill(daemon, Signal::STOP);
    // Two signals of one kind that come together are one.
    kill(child.id(), Signal::INT);
    kill(child.id(), Signal::TERM);
    let ended = child.wait().unwrap();
    kill(daemon, Signal::CONT);
    let said = said();
    assert_eq!(ended.code(), None, "a signal has ended it: {said}");
    assert!(said.contains("ended at once; the node goes on with operation "), "{said}");
    let id = said.split("`mfserv wait ").nth(1).and_then(|rest| rest.split('`').next());
    stage.let_go();
    // The daemon may have read the first interrupt in the end.
    let done = stage.outcome(id.unwrap_or_else(|| panic!("{said}")))["ok"] == true;
    assert_eq!(stage.current(), Some(if done { 3 } else { 2 }));
    stage.node.stop();
}

#[test]
fn what_waits_is_refused_and_what_is_not_committed_is_undone_when_the_node_stops() {
    let _turn = Turn::cheap();
    let stage = Stage::new();
    let file = stage.package(3);
    stage.hold("start");
    let first = stage.ask(&["install", &file]);
    let id = first.id();
    stage.until_reached();
    let hash = stage.node.hash();
    stage.node.mfserv(&["stop"]).code(0);
    // The command that has asked ends behind the node.
    assert_eq!(first.code(), Some(1));
    stage.node.assert_nothing_left(hash.as_deref());
    stage.let_go();
    assert_eq!(stage.outcome(&id)["ok"], false, "the journal knows it without a node");
    assert_eq!((stage.current(), stage.releases()), (Some(2), 2));
}

#[test]
fn where_no_node_runs_the_same_operations_are_conducted_by_the_command() {
    let _turn = Turn::cheap();
    let stage = Stage::new();
    let file = stage.package(3);
    stage.node.stop();
    let said = stage.node.mfserv(&["install", &file, "--json"]).code(0).stdout;
    let outcome: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!(outcome["finished_by"], "asker", "{outcome}");
    assert_eq!(outcome["plugin"]["origin"]["packed"], 3, "{outcome}");
    assert!(outcome["applied"].is_null(), "{outcome}");
    stage.node.mfserv(&["rollback", "foo", "1"]).code(0);
    assert_eq!(stage.current(), Some(1));
    let journal = stage.node.mfserv(&["operations", "--json"]).code(0).stdout;
    let last: Vec<Value> =
        journal.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = &last[last.len() - 2..];
    assert_eq!(last[0]["request"]["operation"], "deploy", "{last:?}");
    assert_eq!(last[1]["request"]["operation"], "rollback", "{last:?}");
    assert_eq!(last[1]["who"]["command"], "mfserv rollback", "{last:?}");
    stage.node.start();
    assert_eq!(stage.node.get("/foo").text(), "hello from foo");
    stage.node.mfserv(&["uninstall", "foo"]).code(0);
    stage.node.stop();
}

/// Submits over the control socket, as a client without a process on this machine does.
fn submit(node: &Node, body: &Value) -> String {
    use std::io::{Read, Write};
    let mut socket =
        std::os::unix::net::UnixStream::connect(node.path("var/run/control.sock")).unwrap();
    let body = body.to_string();
    let length = body.len();
    write!(
        socket,
        "POST /v1/operations HTTP/1.1\r\nHost: mfserv\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn over_the_api_a_package_is_staged_by_a_process_of_its_own_and_a_release_is_gone_back_to() {
    let _turn = Turn::cheap();
    let stage = Stage::new();
    let file = stage.package(3);
    let deploy = serde_json::json!({
        "id": "mine", "operation": "deploy_package", "file": file, "replace": true,
    });
    for _ in 0..2 {
        // The second time it joins the first one.
        let answer = submit(&stage.node, &deploy);
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }
    let outcome = stage.outcome("mine");
    assert_eq!(outcome["plugin"]["origin"]["packed"], 3, "{outcome}");
    assert_eq!((stage.current(), stage.releases()), (Some(3), 3));
    let rollback = serde_json::json!({"id": "back", "operation": "rollback", "plugin": "foo"});
    submit(&stage.node, &rollback);
    assert_eq!(stage.outcome("back")["ok"], true);
    assert_eq!(stage.current(), Some(2));

    // What is staged so is given up when the operation is cancelled, with its hook.
    stage.hold("staging");
    let again = serde_json::json!({
        "id": "again", "operation": "deploy_package", "file": file, "replace": true,
    });
    submit(&stage.node, &again);
    stage.until_reached();
    let mut socket =
        std::os::unix::net::UnixStream::connect(stage.node.path("var/run/control.sock")).unwrap();
    use std::io::{Read, Write};
    write!(socket, "DELETE /v1/operations/again HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(stage.outcome("again")["ok"], false);
    assert_eq!(stage.current(), Some(2));
    stage.let_go();
    stage.node.mfserv(&["restart", "foo"]).code(0);
    stage.node.stop();
}

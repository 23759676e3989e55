//! A name that nothing has, and a node that does not run, have one exit code over all commands.

use mfserv_testkit::{Plugin, programs};
use serde_json::Value;

use crate::{Turn, node};

/// What is typed before the name, and behind it.
const COMMANDS: &[(&[&str], &[&str])] = &[
    (&["logs"], &[]),
    (&["logs"], &["--follow"]),
    (&["history"], &[]),
    (&["restart"], &[]),
    (&["scale"], &["2"]),
    (&["start"], &[]),
    (&["stop"], &[]),
    (&["open"], &["--print"]),
    (&["shell"], &[]),
    (&["run"], &["--", "true"]),
    (&["exec"], &["--", "true"]),
    (&["env"], &[]),
    (&["env", "list"], &[]),
    (&["env", "set"], &["A=1"]),
    (&["env", "unset"], &["A"]),
    (&["maintenance", "on"], &[]),
    (&["maintenance", "off"], &[]),
    (&["jobs", "run"], &[]),
    (&["info"], &[]),
    (&["releases"], &[]),
    (&["rollback"], &[]),
    (&["repackage"], &[]),
    (&["uninstall"], &[]),
];
/// Those that take an app as well as a plugin.
const OF_APPS: usize = 18;

#[test]
fn each_command_refuses_a_plugin_and_an_app_that_are_not_there_as_a_wrong_command_line() {
    let _turn = Turn::cheap();
    let node = node();
    node.add(&Plugin::python("foo", programs::SERVES));
    node.start();
    for (before, behind) in COMMANDS {
        let ran = node.mfserv(&[before, &["nobody"][..], behind].concat()).code(2);
        assert!(ran.stderr.contains("nobody"), "{ran:?}");
    }
    for (before, behind) in &COMMANDS[..OF_APPS] {
        let ran = node.mfserv(&[before, &["foo.nothing"][..], behind].concat()).code(2);
        assert!(ran.stderr.contains("nothing"), "{ran:?}");
    }
    // A name among others that are right is not passed over.
    node.mfserv(&["logs", "foo", "nobody"]).code(2);
    node.stop();
}

#[test]
fn each_command_that_asks_the_node_says_that_it_does_not_run_and_does_not_wait_for_it() {
    let _turn = Turn::cheap();
    let node = node();
    let json: [&[&str]; 7] = [
        &["status", "--json"],
        &["ps", "--json"],
        &["top", "--json"],
        &["history", "--json"],
        &["alerts", "--json"],
        &["events", "--json"],
        &["wait", "abc", "--json"],
    ];
    for args in json {
        let ran = node.mfserv(args).code(3);
        assert_eq!(ran.stdout.lines().count(), 1, "{ran:?}");
        let line: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert!(line["ok"] == false && line["problem"]["kind"] == "not_running", "{line}");
    }
    for args in
        [&["top", "--once"][..], &["metrics"], &["wait", "abc"], &["reload"], &["stop", "x"]]
    {
        node.mfserv(args).code(3);
    }
}

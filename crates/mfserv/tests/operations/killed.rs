//! The table: who is killed, at which step of which operation, and what comes of it.

use std::fs;
use std::process::{Child, Stdio};

use mfserv_testkit::{Signal, kill, until};

use super::stage::{Asker, Stage};
use crate::{PATIENCE, Turn};

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Victim {
    Asker,
    Daemon,
}

/// When.
#[derive(Debug, Clone, Copy, PartialEq)]
enum At {
    /// Another operation has the plugin.
    Waiting,
    /// The new workers start beside the old ones.
    Trying,
    /// It is committed, and not all is done.
    Committed,
}

/// What comes of it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Comes {
    /// What was asked for.
    Done,
    /// Nothing has changed.
    Undone,
}

/// One row of the table: somebody is killed at a step of an operation, then everything may go on.
fn row(args: &[&str], at: At, victim: Victim, after: impl Fn(&Stage) -> bool, comes: Comes) {
    let when = format!("{args:?}: {victim:?} is killed when {at:?}");
    let stage = Stage::new();
    let file = stage.package(3);
    let args: Vec<&str> =
        args.iter().map(|arg| if *arg == "FILE" { &*file } else { arg }).collect();
    let pids = stage.node.pids("app.foo.main");

    let other = hold_up(&stage, at, args[0], &file);
    let asker = stage.ask(&args);
    let id = asker.id();
    until_at(&stage, at, args[0], &asker);
    let asker = match victim {
        Victim::Asker => {
            asker.kill();
            None
        }
        Victim::Daemon => {
            stage.kill_daemon();
            Some(asker)
        }
    };
    if let Some(mut other) = other {
        kill(other.id(), Signal::KILL);
        other.wait().unwrap();
    }
    stage.let_go();

    let outcome = stage.outcome(&id);
    assert_eq!(outcome["ok"], comes == Comes::Done, "{when}: {outcome}");
    if let Some(asker) = asker {
        assert_eq!(asker.code(), Some(i32::from(comes == Comes::Undone)), "{when}");
        assert_eq!(outcome["finished_by"], "next_daemon", "{when}");
        assert_eq!(stage.recovered(&id), Some(comes == Comes::Done), "{when}");
    } else {
        assert_eq!(outcome["finished_by"], "daemon", "{when}");
    }
    if comes == Comes::Undone {
        assert_eq!(stage.current(), Some(2), "{when}");
        assert_eq!(stage.node.pids("app.foo.main"), pids, "{when}: they serve as before");
        assert_eq!(stage.node.get("/foo").text(), "hello from foo", "{when}");
    }
    until(&when, PATIENCE, || after(&stage));
    assert!(fs::read_dir(stage.node.path("var/operations")).unwrap().next().is_none(), "{when}");
    stage.node.mfserv(&["reload"]).code(0);
    stage.node.stop();
}

/// Holds up what the operation comes to at this step. Returns the command that has the plugin.
fn hold_up(stage: &Stage, at: At, command: &str, file: &str) -> Option<Child> {
    match (at, command) {
        (At::Waiting, _) => {
            stage.hold("staging");
            let mut other = stage.node.command(&["install", file]);
            let other = other.stderr(Stdio::null()).spawn().unwrap();
            stage.until_reached();
            return Some(other);
        }
        (At::Committed, "install" | "rollback" | "uninstall") => stage.hold("end"),
        (At::Trying | At::Committed, _) => stage.hold("start"),
    }
    None
}

/// Waits until the operation is at this step.
fn until_at(stage: &Stage, at: At, command: &str, asker: &Asker) {
    let reported = |what: &str| asker.events().iter().any(|event| event["event"] == what);
    match at {
        At::Waiting => until("it waits", PATIENCE, || reported("waiting")),
        At::Trying => stage.until_reached(),
        At::Committed => until("it is committed", PATIENCE, || {
            reported("committed")
                && match command {
                    "install" => stage.current() == Some(3),
                    "rollback" => stage.current() == Some(1),
                    "uninstall" => stage.current().is_none(),
                    _ => stage.node.path("reached").exists(),
                }
        }),
    }
}

#[test]
fn a_deployment_is_finished_or_undone_whoever_is_killed_at_whichever_step() {
    let _turn = Turn::cheap();
    let install = ["install", "FILE"];
    let deployed = |stage: &Stage| stage.current() == Some(3) && stage.releases() == 3;
    let as_before = |stage: &Stage| stage.current() == Some(2) && stage.releases() == 2;
    row(&install, At::Trying, Victim::Asker, deployed, Comes::Done);
    row(&install, At::Trying, Victim::Daemon, as_before, Comes::Undone);
    row(&install, At::Committed, Victim::Asker, deployed, Comes::Done);
    row(&install, At::Committed, Victim::Daemon, deployed, Comes::Done);
}

#[test]
fn a_rollback_is_finished_or_undone_whoever_is_killed_at_whichever_step() {
    let _turn = Turn::cheap();
    let rollback = ["rollback", "foo"];
    let is = |number| move |stage: &Stage| stage.current() == Some(number) && stage.releases() == 2;
    row(&rollback, At::Trying, Victim::Asker, is(1), Comes::Done);
    row(&rollback, At::Trying, Victim::Daemon, is(2), Comes::Undone);
    row(&rollback, At::Committed, Victim::Asker, is(1), Comes::Done);
    row(&rollback, At::Committed, Victim::Daemon, is(1), Comes::Done);
}

#[test]
fn an_uninstallation_is_finished_or_undone_whoever_is_killed_at_whichever_step() {
    let _turn = Turn::cheap();
    let uninstall = ["uninstall", "foo"];
    let gone = |stage: &Stage| stage.current().is_none() && stage.releases() == 0;
    let as_before = |stage: &Stage| stage.current() == Some(2);
    row(&uninstall, At::Waiting, Victim::Asker, gone, Comes::Done);
    row(&uninstall, At::Waiting, Victim::Daemon, as_before, Comes::Undone);
    row(&uninstall, At::Committed, Victim::Asker, gone, Comes::Done);
    row(&uninstall, At::Committed, Victim::Daemon, gone, Comes::Done);
}

#[test]
fn a_restart_and_a_scaling_are_finished_whoever_is_killed() {
    let _turn = Turn::cheap();
    let two = |stage: &Stage| stage.node.watcher("app.foo.main").ready == 2;
    let one = |stage: &Stage| stage.node.watcher("app.foo.main").ready == 1;
    for victim in [Victim::Asker, Victim::Daemon] {
        row(&["restart", "foo.main"], At::Committed, victim, one, Comes::Done);
        row(&["scale", "foo.main", "2"], At::Committed, victim, two, Comes::Done);
    }
}

//! Operations go on whoever dies: a table of kill -9 of the asker and of the daemon at each step,
//! with the outcome of each. Steps are reached and left by files that programs and hooks wait for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use mfserv_core::event::Fact;
use mfserv_testkit::{Node, Plugin, Signal, kill, programs, until, until_some};
use serde_json::Value;

use crate::install::release;
use crate::{PATIENCE, Turn, node};

/// A node with a plugin of two releases. What starts, and what ends, can be held up.
///
/// - `main` (in every release) starts once `hold-start` is not there; it says so in `reached`.
/// - `side` (in release 2) ends once `hold-end` is not there.
struct Stage {
    node: Node,
}

impl Stage {
    fn new() -> Stage {
        let node = node();
        node.start();
        let stage = Stage { node };
        for number in [1, 2] {
            let file = stage.package(number);
            stage.node.mfserv(&["install", &file]).code(0);
        }
        stage
    }

    /// The package of a release: those with even numbers have `side`.
    fn package(&self, number: u32) -> String {
        let main = format!(
            "import os, time\n\
             open({:?}, 'a').close()\n\
             while os.path.exists({:?}): time.sleep(0.02)\n{}",
            self.node.path("reached"),
            self.node.path("hold-start"),
            programs::SERVES
        );
        let side = format!(
            "import os, signal, time\n\
             def end(*_):\n    \
                 while os.path.exists({:?}): time.sleep(0.02)\n    \
                 os._exit(0)\n\
             signal.signal(signal.SIGTERM, end)\n{}",
            self.node.path("hold-end"),
            programs::SERVES
        );
        let hook = format!(
            "#!/bin/sh\ntouch {}\nwhile [ -e {} ]; do sleep 0.02; done\n",
            self.node.path("reached").display(),
            self.node.path("hold-staging").display()
        );
        let mut plugin = Plugin::python("foo", &main)
            .key("general", "_release", &number.to_string())
            .file("postinstall", &hook);
        if number % 2 == 0 {
            let side_command = "python3 -u {plugin_dir}/side.py {unix_socket_path}";
            plugin = plugin.app("side", side_command).file("side.py", &side);
        }
        let dir = self.node.path(&format!("work/{number}"));
        release(&self.node, &plugin.write(&dir)).to_string_lossy().into_owned()
    }

    fn hold(&self, what: &str) {
        let _ = fs::remove_file(self.node.path("reached"));
        fs::write(self.node.path(&format!("hold-{what}")), "").unwrap();
    }

    fn let_go(&self) {
        for what in ["start", "end", "staging"] {
            let _ = fs::remove_file(self.node.path(&format!("hold-{what}")));
        }
    }

    fn until_reached(&self) {
        let reached = self.node.path("reached");
        until("a program or a hook is held up", PATIENCE, || reached.exists());
    }

    /// The number of the release that is current.
    fn current(&self) -> Option<u32> {
        let link = fs::read_link(self.node.path("var/plugins/foo")).ok()?;
        link.file_name()?.to_str()?.parse().ok()
    }

    fn releases(&self) -> usize {
        fs::read_dir(self.node.path("var/releases/foo")).map_or(0, Iterator::count)
    }

    /// A command whose events are read from a file.
    fn ask(&self, args: &[&str]) -> Asker {
        let out = self.node.path("asker.out");
        let mut command = self.node.command(args);
        command.arg("--json").stdout(fs::File::create(&out).unwrap()).stderr(Stdio::null());
        Asker { child: command.spawn().unwrap(), out }
    }

    /// Kills the daemon; returns when another one answers.
    fn kill_daemon(&self) {
        let before = self.node.role_pid("daemon");
        self.node.kill(before);
        until("another daemon answers", PATIENCE, || {
            self.node.try_status().is_some_and(|status| status.daemon.pid != before)
        });
    }

    /// What an operation came to, by its id.
    fn outcome(&self, id: &str) -> Value {
        let ran = self.node.mfserv(&["wait", id, "--json"]);
        let last = ran.stdout.lines().last().unwrap_or_default();
        let outcome: Value = serde_json::from_str(last).unwrap_or_else(|_| panic!("{ran:?}"));
        assert_eq!(outcome["event"], "outcome", "{ran:?}");
        assert_eq!(ran.code == 0, outcome["ok"] == true, "{ran:?}");
        outcome
    }

    /// Whether the events say that the operation was finished or undone by a later daemon.
    fn recovered(&self, id: &str) -> Option<bool> {
        self.node.events().into_iter().find_map(|event| match event.fact {
            Fact::OperationRecovered { id: of, finished, .. } if of == id => Some(finished),
            _ => None,
        })
    }
}

/// A command that asks for an operation.
struct Asker {
    child: Child,
    out: PathBuf,
}

impl Asker {
    fn events(&self) -> Vec<Value> {
        events_in(&self.out)
    }

    fn id(&self) -> String {
        until_some("the operation is accepted", PATIENCE, || {
            let events = self.events();
            let accepted = events.iter().find(|event| event["event"] == "accepted")?;
            Some(accepted["operation"].as_str().unwrap().to_string())
        })
    }

    fn kill(mut self) {
        kill(self.child.id(), Signal::KILL);
        self.child.wait().unwrap();
    }

    fn code(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

fn events_in(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

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

    let other = (at == At::Waiting).then(|| {
        stage.hold("staging");
        let other = stage.node.command(&["install", &file]).stderr(Stdio::null()).spawn().unwrap();
        stage.until_reached();
        other
    });
    match at {
        At::Waiting => {}
        At::Trying => stage.hold("start"),
        At::Committed => ["start", "end"].into_iter().for_each(|what| stage.hold(what)),
    }
    if at == At::Committed && ["install", "rollback"].contains(&args[0]) {
        fs::remove_file(stage.node.path("hold-start")).unwrap();
    }
    let asker = stage.ask(&args);
    let id = asker.id();
    match at {
        At::Waiting => until("it waits", PATIENCE, || {
            asker.events().iter().any(|event| event["event"] == "waiting")
        }),
        At::Trying => stage.until_reached(),
        At::Committed => until("it is committed", PATIENCE, || {
            asker.events().iter().any(|event| event["event"] == "committed")
                && match args[0] {
                    "install" => stage.current() == Some(3),
                    "rollback" => stage.current() == Some(1),
                    "uninstall" => stage.current().is_none(),
                    _ => stage.node.path("reached").exists(),
                }
        }),
    }
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
fn what_waits_is_refused_and_what_is_not_committed_is_undone_when_the_node_stops() {
    let _turn = Turn::cheap();
    let stage = Stage::new();
    let file = stage.package(3);
    stage.hold("start");
    let first = stage.ask(&["install", &file]);
    let id = first.id();
    stage.until_reached();
    stage.node.stop();
    stage.let_go();
    assert_eq!(first.code(), Some(1));
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

//! `mfserv stop` ends everything, whoever is dead or deaf.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use mfserv_testkit::{Load, Node, Plugin, Signal, get, kill, process, programs, pty, until};

use crate::{PATIENCE, PROGRAM, Turn, node};

/// How long a stop may take when nobody helps.
const BOUND: Duration = Duration::from_secs(40);

fn serving() -> Node {
    let node = node();
    node.add(&Plugin::python("hello", programs::SERVES).key("app_main", "numprocesses", "2"));
    node.add(&Plugin::python("deaf", programs::DEAF).key("app_main", "smart_stop_delay", "1"));
    node.start();
    node
}

#[track_caller]
fn assert_stop_ends_everything(node: &Node, hash: Option<&str>) {
    let began = Instant::now();
    node.mfserv(&["stop"]).code(0);
    assert!(began.elapsed() < BOUND, "it took {:?}", began.elapsed());
    node.assert_nothing_left(hash);
    node.mfserv(&["status"]).code(3);
}

#[test]
fn stop_ends_everything_while_the_daemon_is_stopped() {
    let _turn = Turn::cheap();
    let node = serving();
    let hash = node.hash();
    kill(node.role_pid("daemon"), Signal::STOP);
    assert_stop_ends_everything(&node, hash.as_deref());
}

#[test]
fn stop_ends_everything_while_the_daemon_is_being_restarted() {
    let _turn = Turn::cheap();
    let node = serving();
    let hash = node.hash();
    kill(node.role_pid("daemon"), Signal::KILL);
    assert_stop_ends_everything(&node, hash.as_deref());
}

#[test]
fn stop_ends_everything_while_the_keeper_is_dead() {
    let _turn = Turn::cheap();
    let node = serving();
    let hash = node.hash();
    node.kill(node.role_pid("keep"));
    assert_stop_ends_everything(&node, hash.as_deref());
}

#[test]
fn stop_ends_everything_while_keeper_daemon_and_front_are_dead() {
    let _turn = Turn::cheap();
    let node = serving();
    let hash = node.hash();
    let roles = ["keep", "daemon", "front"].map(|role| node.role_pid(role));
    roles.iter().for_each(|pid| kill(*pid, Signal::KILL));
    until("they are gone", PATIENCE, || roles.iter().all(|pid| process(*pid).is_none()));
    assert_stop_ends_everything(&node, hash.as_deref());
}

#[test]
fn the_keeper_ends_everything_in_order_when_it_is_asked_to_end() {
    let _turn = Turn::cheap();
    let node = serving();
    let hash = node.hash();
    let keeper = node.role_pid("keep");
    kill(keeper, Signal::TERM);
    until("everything has ended", BOUND, || node.processes(hash.as_deref()).is_empty());
    assert_eq!(std::fs::read_to_string(node.path("var/status")).unwrap(), "STOPPED\n");
    node.mfserv(&["stop"]).code(0);
    node.assert_nothing_left(hash.as_deref());
}

#[test]
fn requests_under_way_are_finished_and_those_that_come_meanwhile_are_refused_at_once() {
    let _turn = Turn::cheap();
    let node = serving();
    let address = node.address();
    let slow = std::thread::spawn(move || get(address, "/hello/slow?4000"));
    until("the request is being handled", PATIENCE, || {
        node.log_lines("app_hello_main").iter().any(|line| line == "slow begins")
    });
    let mut stop = node.command(&["stop"]).spawn().unwrap();
    let mut refused = 0;
    until("nobody is accepted any more", BOUND, || {
        let began = Instant::now();
        let answer = get(address, "/hello");
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        match answer.map(|answer| (answer.status, answer.field("retry-after").is_some())) {
            Ok((status, has_retry)) => {
                assert!((status, has_retry) == (503, true) || refused == 0, "{status}");
                refused += u32::from(status == 503);
                false
            }
            Err(_) => true,
        }
    });
    assert!(refused > 1, "{refused}");
    let answer = slow.join().unwrap().expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (200, "slow"));
    until("the command ends", BOUND, || stop.try_wait().unwrap().is_some_and(|end| end.success()));
}

#[test]
fn a_node_stopped_under_load_can_be_started_again_at_once() {
    let _turn = Turn::heavy();
    let node = serving();
    let load = Load::new(node.address(), "/hello").connections(16).start();
    for _ in 0..2 {
        node.stop();
        node.start();
    }
    let before = load.answered();
    until("the load is served again", PATIENCE, || load.answered() > before + 50);
    load.stop();
    node.stop();
}

/// All orders of three things.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

fn sigterm_to_every_role_ends_the_node(under_load: bool) {
    for order in ORDERS {
        let node = serving();
        let hash = node.hash();
        let roles = ["keep", "daemon", "front"].map(|role| (role, node.role_pid(role)));
        let load = under_load.then(|| Load::new(node.address(), "/hello").connections(8).start());
        if let Some(load) = &load {
            load.answers(50);
        }
        let said = order.map(|index| roles[index].0);
        order.iter().for_each(|index| kill(roles[*index].1, Signal::TERM));
        until(&format!("the node ends after SIGTERM to {said:?}"), BOUND, || {
            node.processes(hash.as_deref()).is_empty()
        });
        load.map(|load| load.stop());
        assert_eq!(std::fs::read_to_string(node.path("var/status")).unwrap(), "STOPPED\n");
        node.assert_nothing_left(hash.as_deref());
        node.mfserv(&["status"]).code(3);
    }
}

#[test]
fn sigterm_to_keeper_daemon_and_front_ends_the_node_in_every_order() {
    let _turn = Turn::cheap();
    sigterm_to_every_role_ends_the_node(false);
}

#[test]
fn sigterm_to_keeper_daemon_and_front_ends_a_node_under_load_in_every_order() {
    let _turn = Turn::heavy();
    sigterm_to_every_role_ends_the_node(true);
}

#[test]
fn a_daemon_that_dies_again_and_again_while_the_node_ends_forgets_nothing() {
    let _turn = Turn::cheap();
    let node = serving();
    let hash = node.hash();
    kill(node.role_pid("keep"), Signal::TERM);
    for signal in [Signal::TERM, Signal::KILL, Signal::INT] {
        node.role_pids("daemon").into_iter().for_each(|pid| kill(pid, signal));
    }
    until("everything has ended", BOUND, || node.processes(hash.as_deref()).is_empty());
    assert_eq!(std::fs::read_to_string(node.path("var/status")).unwrap(), "STOPPED\n");
    // A worker that dies of a signal leaves its socket.
    node.mfserv(&["stop"]).code(0);
    node.assert_nothing_left(hash.as_deref());
}

#[test]
fn sigterm_to_every_process_of_a_node_workers_included_ends_it() {
    let _turn = Turn::cheap();
    let node = serving();
    let hash = node.hash();
    let all = node.processes(hash.as_deref());
    all.iter().for_each(|process| kill(process.pid, Signal::TERM));
    until("everything has ended", BOUND, || node.processes(hash.as_deref()).is_empty());
    assert_eq!(std::fs::read_to_string(node.path("var/status")).unwrap(), "STOPPED\n");
    // A worker that dies of a signal leaves its socket.
    node.mfserv(&["stop"]).code(0);
    node.assert_nothing_left(hash.as_deref());
}

#[test]
fn sighup_to_one_or_every_role_of_a_detached_node_reloads_it_and_ends_none() {
    let _turn = Turn::cheap();
    let node = serving();
    let roles = ["keep", "daemon", "front"].map(|role| node.role_pid(role));
    let (workers, [keeper, daemon, _]) = (node.worker_pids(), roles);
    for (name, to) in [("one", vec![keeper]), ("two", vec![daemon]), ("three", roles.to_vec())] {
        node.add(&Plugin::python(name, programs::SERVES));
        to.into_iter().for_each(|pid| kill(pid, Signal::HUP));
        until("the new plugin is served", PATIENCE, || node.get(&format!("/{name}")).status == 200);
    }
    assert_eq!(["keep", "daemon", "front"].map(|role| node.role_pid(role)), roles);
    let now = node.worker_pids();
    assert!(workers.iter().all(|pid| now.contains(pid)), "{workers:?} {now:?}");
    node.stop();
}

#[test]
fn a_node_that_runs_in_a_terminal_ends_with_it() {
    let _turn = Turn::cheap();
    let node = node();
    node.add(&Plugin::python("hello", programs::SERVES));
    let terminal = Terminal::run(&node, &["run"]);
    node.runs();
    let hash = node.hash();
    terminal.close();
    until("everything has ended", BOUND, || node.processes(hash.as_deref()).is_empty());
    assert_eq!(std::fs::read_to_string(node.path("var/status")).unwrap(), "STOPPED\n");
    node.assert_nothing_left(hash.as_deref());
}

#[test]
fn a_node_that_dev_has_started_in_a_terminal_ends_with_it() {
    let _turn = Turn::cheap();
    let node = node();
    let dir = Plugin::python("hello", programs::SERVES).write(&node.path("work"));
    let terminal = Terminal::run(&node, &["dev", &dir.to_string_lossy()]);
    until("it serves", PATIENCE, || {
        mfserv_testkit::get(node.address(), "/hello").is_ok_and(|answer| answer.status == 200)
    });
    let hash = node.hash();
    terminal.close();
    until("everything has ended", BOUND, || node.processes(hash.as_deref()).is_empty());
    node.assert_nothing_left(hash.as_deref());
}

#[test]
fn a_node_that_nohup_has_started_in_a_terminal_outlives_it() {
    let _turn = Turn::cheap();
    let node = node();
    node.add(&Plugin::python("hello", programs::SERVES));
    let terminal = Terminal::run_program(&node, &["nohup", PROGRAM, "run"]);
    node.runs();
    let (keeper, hash) = (node.role_pid("keep"), node.hash());
    drop(terminal.ours);
    // What the shell and the system send when a terminal is closed.
    for _ in 0..2 {
        kill(keeper, Signal::HUP);
    }
    let closed = Instant::now();
    until("it had time to end", PATIENCE, || {
        assert_eq!(node.get("/hello").status, 200);
        closed.elapsed() > Duration::from_secs(2)
    });
    assert_eq!(node.role_pid("keep"), keeper);
    let mut child = terminal.child;
    node.stop();
    until("the command ends", BOUND, || child.try_wait().unwrap().is_some());
    node.assert_nothing_left(hash.as_deref());
}

#[test]
fn a_stop_whose_keeper_is_killed_meanwhile_is_finished_by_the_command_or_by_the_next_one() {
    let _turn = Turn::cheap();
    for is_asked_to_end in [false, true] {
        let node = serving();
        let hash = node.hash();
        let keeper = node.role_pid("keep");
        let address = node.address();
        let slow = std::thread::spawn(move || mfserv_testkit::get(address, "/hello/slow?3000"));
        until("a request holds the stop up", PATIENCE, || {
            node.log_lines("app_hello_main").iter().any(|line| line == "slow begins")
        });
        if is_asked_to_end {
            kill(keeper, Signal::TERM);
        }
        let mut stop = node.command(&["stop"]).spawn().unwrap();
        until("it is being stopped", PATIENCE, || {
            std::fs::read_to_string(node.path("var/status")).is_ok_and(|word| word == "STOPPING\n")
        });
        kill(keeper, Signal::KILL);
        until("the command ends", BOUND, || stop.try_wait().unwrap().is_some());
        // Whoever says it again succeeds at once.
        assert_stop_ends_everything(&node, hash.as_deref());
        let _ = slow.join();
    }
}

/// A command that has a terminal of its own, as a shell gives it.
struct Terminal {
    ours: OwnedFd,
    child: std::process::Child,
}

impl Terminal {
    fn run(node: &Node, args: &[&str]) -> Terminal {
        Terminal::run_program(node, &[&[PROGRAM], args].concat())
    }

    fn run_program(node: &Node, words: &[&str]) -> Terminal {
        let (ours, theirs) = pty();
        // Whoever runs the tests may ignore signals (nohup, a shell in the background).
        let words = [&["--ctty", "env", "--default-signal"], words].concat();
        let mut command = node.other(Path::new("setsid"), &words);
        command.stdin(theirs.try_clone().unwrap()).stdout(theirs.try_clone().unwrap());
        let child = command.stderr(theirs).spawn().unwrap();
        Terminal { ours, child }
    }

    /// The window is closed: the system sends SIGHUP.
    fn close(self) {
        drop(self.ours);
        let mut child = self.child;
        until("the command ends", BOUND, || child.try_wait().unwrap().is_some());
    }
}

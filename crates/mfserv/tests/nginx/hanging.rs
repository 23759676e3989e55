//! Processes of nginx that hang or are killed: others take their place, and the events say so.

use std::time::{Duration, Instant};

use mfserv_core::event::{EndReason, Fact};
use mfserv_testkit::{Load, Node, Plugin, Signal, get, kill, nginx_with_lua, programs, until};

use super::{behind_nginx, of_nginx, target, use_nginx};
use crate::{PATIENCE, Turn, node};

/// The processes of nginx that have ended without having been asked to, and why.
fn ends(node: &Node) -> Vec<(u32, bool, EndReason)> {
    let end = |fact| match fact {
        Fact::NginxEnded(end) => Some((end.pid, end.is_worker, end.why)),
        _ => None,
    };
    node.events().into_iter().filter_map(|event| end(event.fact)).collect()
}

fn until_said(node: &Node, pid: u32) -> (bool, EndReason) {
    let mut found = None;
    until("an event says it", PATIENCE, || {
        found = ends(node).into_iter().find(|(ended, ..)| *ended == pid);
        found.is_some()
    });
    found.map(|(_, is_worker, why)| (is_worker, why)).unwrap()
}

fn until_others_serve(node: &Node, before: &[u32]) {
    until("others serve", PATIENCE, || {
        let (masters, workers) = of_nginx(node);
        let are_new = masters.iter().chain(&workers).all(|pid| !before.contains(pid));
        are_new && masters.len() == 1 && !workers.is_empty()
    });
    assert_eq!(node.get("/hello").status, 200);
}

#[test]
fn nginx_that_a_signal_has_stopped_is_replaced_whole_or_in_part_and_the_events_say_so() {
    let _turn = Turn::heavy();
    let Some(node) = behind_nginx("1") else { return };
    let front = node.role_pid("front");
    // One worker; the master; both workers; everything.
    for round in 0..4 {
        let (masters, workers) = of_nginx(&node);
        let stopped = match round {
            0 => vec![workers[0]],
            1 => masters,
            2 => workers,
            _ => [masters, workers].concat(),
        };
        stopped.iter().for_each(|pid| kill(*pid, Signal::STOP));
        for pid in &stopped {
            let (_, why) = until_said(&node, *pid);
            assert_eq!(why, EndReason::Stuck { saw: "a signal has stopped it".into() }, "{round}");
        }
        until_others_serve(&node, &stopped);
    }
    assert_eq!(node.role_pid("front"), front, "the front behind nginx goes on");
    let said = node.mfserv(&["events"]).stdout;
    assert!(said.contains("a worker of nginx (pid "), "{said}");
    assert!(said.contains("does not answer any more (a signal has stopped it)"), "{said}");
    let hash = node.hash();
    node.stop();
    node.assert_nothing_left(hash.as_deref());
}

#[test]
fn an_event_says_that_a_killed_nginx_was_started_again() {
    let _turn = Turn::heavy();
    let Some(node) = behind_nginx("1") else { return };
    let (masters, workers) = of_nginx(&node);
    kill(masters[0], Signal::KILL);
    assert_eq!(until_said(&node, masters[0]), (false, EndReason::Signalled { signal: 9 }));
    until_others_serve(&node, &[masters, workers].concat());
    let said = node.mfserv(&["events"]).stdout;
    assert!(said.contains("ended: killed by SIGKILL; another one is started"), "{said}");
    // What is asked for is no such end.
    node.mfserv(&["restart", "front"]).code(0);
    node.stop();
    assert_eq!(ends(&node).len(), 1);
}

/// Locations that keep a worker of nginx for ever; the last one looks alive meanwhile.
const HANGS: &str = "location = /computes { content_by_lua_block { while true do end } }\n\
     location = /waits { content_by_lua_block { os.execute('sleep 1000') } }\n\
     location = /reads { content_by_lua_block { while true do\n\
     local file = io.open('/proc/self/stat'); file:read('*a'); file:close()\n\
     end } }\n";

#[test]
fn workers_of_nginx_that_lua_keeps_for_ever_are_replaced() {
    let _turn = Turn::heavy();
    let Some(nginx) = nginx_with_lua(target()) else { return };
    let node = node();
    use_nginx(&node, &nginx);
    // Each request is this one's.
    node.set("nginx.workers", "1");
    let plugin = Plugin::python("hello", programs::SERVES);
    let plugin = plugin.key("general", "_extra_nginx_server_conf_filename", "server.conf");
    node.add(&plugin.file("server.conf", HANGS));
    node.start();
    for (path, word) in [("/computes", "computed"), ("/waits", "waits in")] {
        let (masters, workers) = of_nginx(&node);
        let address = node.address();
        // All workers: each takes one of these, and then none.
        let asked: Vec<_> =
            workers.iter().map(|_| std::thread::spawn(move || drop(get(address, path)))).collect();
        for pid in &workers {
            let (is_worker, why) = until_said(&node, *pid);
            assert!(is_worker && why.to_string().contains(word), "{why}");
        }
        asked.into_iter().for_each(|asked| asked.join().unwrap());
        until_others_serve(&node, &workers);
        assert_eq!(of_nginx(&node).0, masters, "the master goes on");
    }
    // Nothing says that these hang but that nobody answers.
    let (masters, workers) = of_nginx(&node);
    let address = node.address();
    let asked = std::thread::spawn(move || drop(get(address, "/reads")));
    let unanswered = EndReason::Stuck { saw: "it leaves connections unanswered".into() };
    assert_eq!(until_said(&node, masters[0]), (false, unanswered));
    asked.join().unwrap();
    until_others_serve(&node, &[masters, workers].concat());
    node.stop();
}

#[test]
fn nginx_on_a_machine_that_others_keep_busy_is_not_taken_for_one_that_hangs() {
    let _turn = Turn::heavy();
    let Some(node) = behind_nginx("2") else { return };
    let before = of_nginx(&node);
    let end = Instant::now() + Duration::from_secs(16);
    let spin = move || while Instant::now() < end {};
    let spinning: Vec<_> = (0..12).map(|_| std::thread::spawn(spin)).collect();
    let load = Load::new(node.address(), "/hello").connections(32).start();
    // One of its workers has nothing else to do, and is often stopped for a moment.
    while Instant::now() < end {
        kill(before.1[0], Signal::STOP);
        // It is to stand still when the next look comes, or not.
        std::thread::sleep(Duration::from_millis(1500));
        kill(before.1[0], Signal::CONT);
        load.answers(5);
    }
    spinning.into_iter().for_each(|thread| thread.join().unwrap());
    load.stop().assert_nothing_failed();
    assert_eq!((of_nginx(&node), ends(&node)), (before, vec![]));
    node.stop();
}

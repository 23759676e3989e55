//! Daemon, front and keeper may be killed at any moment: the others go on, and `mfserv
//! start` makes the node whole.

use std::time::{Duration, Instant};

use mfserv_core::event::EndReason;
use mfserv_testkit::{Load, Method, Node, Plugin, Signal, kill, process, programs, until};

use crate::scheduling::who_serves_yields;
use crate::{PATIENCE, Turn, assert_no_line_is_lost, load_time, node};

const FLASK: &str = "app.sample_flask.main";

fn four_workers() -> Node {
    let node = node();
    node.link_sample("sample_flask", &[("app_main", "numprocesses", "4")]);
    node.link_sample("sample_static", &[]);
    node.start();
    node
}

#[test]
fn killing_the_daemon_every_3_seconds_fails_nothing_and_loses_no_line() {
    let _turn = Turn::heavy();
    let node = four_workers();
    let (workers, keeper) = (node.worker_pids(), node.role_pid("keep"));
    let load = Load::new(node.address(), "/sample_flask/count").post_every(4).start();
    let began = Instant::now();
    while began.elapsed() < load_time() {
        let daemon = node.role_pid("daemon");
        node.kill(daemon);
        // The pace of the kills: the new daemon has time to serve before the next one.
        std::thread::sleep(Duration::from_secs(3));
        let status = node.runs();
        assert_ne!(status.daemon.pid, daemon);
        assert_eq!(node.worker_pids(), workers, "the workers did not notice");
    }
    let report = load.stop();
    println!("{}", report.sentence());
    report.assert_nothing_failed();
    let lines = assert_no_line_is_lost(&node, &report);
    assert_eq!(lines, report.answered(), "as many lines as requests");
    assert_eq!(node.worker_pids(), workers);
    assert_eq!(node.role_pid("keep"), keeper);
    node.stop();
}

#[test]
fn killing_the_front_fails_only_what_it_held_and_refuses_no_connection() {
    let _turn = Turn::heavy();
    let node = four_workers();
    let workers = node.worker_pids();
    let connections = 64;
    let load = Load::new(node.address(), "/sample_flask/count")
        .also("/sample_static/")
        .connections(connections)
        .start();
    load.answers(200);
    let front = node.role_pid("front");
    node.kill(front);
    until("another front serves", PATIENCE, || {
        let fronts = node.role_pids("front");
        !fronts.is_empty() && !fronts.contains(&front) && node.get("/__health").status == 200
    });
    let failed_by_then = load.failures().len();
    load.answers(200);
    let report = load.stop();
    println!("{}", report.sentence());
    assert!(report.failures.iter().all(|f| !f.refused), "refused: {:#?}", report.failures);
    let held = report.failures.len() + report.asked_again as usize;
    assert!(held <= connections, "more than it can have held: {}", report.sentence());
    assert_eq!(report.failures.len(), failed_by_then, "it went on: {:#?}", report.failures);
    for failure in &report.failures {
        assert_eq!(failure.status, None, "{failure:?}");
    }
    assert_eq!(node.worker_pids(), workers, "the workers did not notice");
    node.settled("front");
    who_serves_yields(&node, "/sample_flask/count");
    node.stop();
}

#[test]
fn killing_the_keeper_stops_nothing_and_a_start_adopts_everything() {
    let _turn = Turn::heavy();
    let node = four_workers();
    let (workers, front, daemon) =
        (node.worker_pids(), node.role_pid("front"), node.role_pid("daemon"));
    let load = Load::new(node.address(), "/sample_flask/count").post_every(4).start();
    load.answers(200);
    let keeper = node.role_pid("keep");
    node.kill(keeper);
    until("the daemon says that there is no keeper", PATIENCE, || {
        node.try_status().is_some_and(|status| status.keeper.is_none())
    });
    assert!(node.mfserv(&["status"]).stdout.contains("no keeper"), "it is said to people too");
    load.answers(200);
    assert_eq!(node.worker_pids(), workers);

    node.mfserv(&["start"]).code(0);
    let status = node.runs();
    assert_ne!(node.role_pid("keep"), keeper);
    assert_eq!(node.role_pid("front"), front);
    assert_eq!(node.role_pid("daemon"), daemon);
    assert_eq!(node.worker_pids(), workers);
    let said = status.notes.join("\n");
    assert!(said.contains("adopted"), "what was lost is not said: {status:#?}");
    let adopted = status.watchers.iter().flat_map(|w| &w.workers).filter(|w| w.adopted);
    assert_eq!(adopted.count(), workers.len() + 2, "the front, telemetry: {status:#?}");

    let victim = node.watcher(FLASK).workers[0].clone();
    node.kill(victim.pid.unwrap());
    until("the killed worker is replaced", PATIENCE, || {
        let watcher = node.watcher(FLASK);
        watcher.ready == 4 && watcher.workers.iter().all(|w| w.id != victim.id)
    });
    let end = node.watcher(FLASK).last_end.expect("its end");
    let reasons = [EndReason::UnknownAdopted, EndReason::Signalled { signal: 9 }];
    assert!(end.worker == victim.id && reasons.contains(&end.why), "{end:?}");
    load.answers(200);
    let report = load.stop();
    println!("{}", report.sentence());
    assert_eq!(report.failed(Method::Get).count(), 0, "{:#?}", report.failures);
    assert!(report.failed(Method::Post).all(|f| f.cause.as_deref() == Some("reset")));
    assert_no_line_is_lost(&node, &report);
    node.stop();
}

#[test]
fn a_start_makes_a_node_whole_whose_keeper_daemon_and_front_were_killed_together() {
    let _turn = Turn::heavy();
    let node = four_workers();
    let workers = node.worker_pids();
    let roles = ["keep", "daemon", "front"].map(|role| node.role_pid(role));
    // Together: nobody has the time to restart anybody.
    roles.iter().for_each(|pid| kill(*pid, Signal::KILL));
    until("they are gone", PATIENCE, || roles.iter().all(|pid| process(*pid).is_none()));
    until("status says that nothing runs", PATIENCE, || node.mfserv(&["status"]).code == 3);

    node.mfserv(&["start"]).code(0);
    node.runs();
    for role in ["keep", "daemon", "front"] {
        assert!(!roles.contains(&node.role_pid(role)));
    }
    assert_eq!(node.worker_pids(), workers, "the workers are adopted");
    node.settled(FLASK);
    Load::new(node.address(), "/sample_flask/count")
        .post_every(3)
        .run_for(Duration::from_secs(1))
        .assert_nothing_failed();
    node.stop();
}

#[test]
fn a_worker_that_died_while_there_was_no_keeper_is_replaced_by_the_next_start() {
    let _turn = Turn::cheap();
    let node = node();
    node.add(&Plugin::python("hello", programs::SERVES).key("app_main", "numprocesses", "3"));
    node.start();
    let before = node.pids("app.hello.main");
    node.kill(node.role_pid("keep"));
    node.kill(before[1]);
    assert_eq!(node.get("/hello").status, 200, "the others serve");
    node.mfserv(&["start"]).code(0);
    until("three workers serve again, two of them as before", PATIENCE, || {
        let after = node.pids("app.hello.main");
        let ready = node.watcher("app.hello.main").ready;
        ready == 3
            && after.len() == 3
            && !after.contains(&before[1])
            && after.contains(&before[0])
            && after.contains(&before[2])
    });
    node.stop();
}

#[test]
fn a_node_without_keeper_and_daemon_goes_on_serving_until_a_start_makes_it_whole() {
    let _turn = Turn::cheap();
    let node = node();
    node.add(&Plugin::python("hello", programs::SERVES).key("app_main", "numprocesses", "2"));
    node.start();
    let (workers, front) = (node.worker_pids(), node.role_pid("front"));
    let roles = ["keep", "daemon"].map(|role| node.role_pid(role));
    roles.iter().for_each(|pid| kill(*pid, Signal::KILL));
    until("they are gone", PATIENCE, || roles.iter().all(|pid| process(*pid).is_none()));
    let load = Load::new(node.address(), "/hello").connections(16).post_every(3).start();
    until("the load is served", PATIENCE, || load.answered() > 100);
    node.mfserv(&["start"]).code(0);
    node.runs();
    let after = load.answered();
    until("the load is served", PATIENCE, || load.answered() > after + 100);
    load.stop().assert_nothing_failed();
    assert_eq!(node.worker_pids(), workers);
    assert_eq!(node.role_pid("front"), front);
    node.role_pid("keep");
    node.role_pid("daemon");
    node.stop();
}

#[test]
fn a_daemon_killed_in_the_middle_of_a_restart_leaves_no_request_unanswered() {
    let _turn = Turn::heavy();
    let node = four_workers();
    let load = Load::new(node.address(), "/sample_flask/count").post_every(4).start();
    for pause_ms in [50, 300, 600] {
        let old = node.role_pid("daemon");
        let restart = node.command(&["restart", "sample_flask"]).spawn();
        // The kill comes at different moments of the restart; none of them can be seen.
        std::thread::sleep(Duration::from_millis(pause_ms));
        node.kill(old);
        let _ = restart.expect("a restart").wait();
        node.runs();
        let watcher = node.settled(FLASK);
        assert_eq!((watcher.ready, watcher.workers.len()), (4, 4));
    }
    let report = load.stop();
    println!("{}", report.sentence());
    report.assert_nothing_failed();
    let lines = assert_no_line_is_lost(&node, &report);
    assert_eq!(lines, report.answered(), "as many lines as requests");
    node.stop();
}

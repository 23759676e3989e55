//! Plugins that misbehave disturb nobody but themselves, and status names each.

use std::time::{Duration, Instant};

use mfserv_core::event::{EndReason, Fact};
use mfserv_core::node_state::NodeState;
use mfserv_core::status::{LastEnd, Status};
use mfserv_testkit::{Load, Node, Plugin, process, programs, until, until_some};

use crate::{PATIENCE, Turn, node};

/// What the noise of a busy machine may cost a request.
const FLOOR: Duration = Duration::from_millis(100);

/// How often a request waits, at most, for a program to get the processor: the client, the front
/// and the worker, each a few times.
const WAITS: u32 = 10;

/// The 99th percentile of the answers to a light load, and of how late this thread woke meanwhile:
/// the machine is to blame for the latter.
fn light_load(node: &Node) -> (Duration, Duration) {
    let load = Load::new(node.address(), "/sample_flask/count")
        .also("/sample_node")
        .also("/sample_static/")
        .connections(8)
        .pause(Duration::from_millis(40))
        .start();
    let nap = Duration::from_millis(5);
    let (began, mut late) = (Instant::now(), Vec::new());
    while began.elapsed() < Duration::from_secs(5) {
        let asleep = Instant::now();
        // How late it wakes is what is measured.
        std::thread::sleep(nap);
        late.push(asleep.elapsed().saturating_sub(nap));
    }
    let report = load.stop();
    late.sort();
    let late = late[late.len() * 99 / 100];
    println!("{}; a thread woke {late:?} late", report.sentence());
    report.assert_nothing_failed();
    (report.percentile(99.0), late)
}

fn misbehaving() -> Vec<Plugin> {
    let python = |name: &str, program: &str| {
        // Who ends by itself is given the time to do so.
        let patience = if matches!(name, "exits" | "leaves") { "20" } else { "2" };
        Plugin::python(name, program).key("app_main", "_start_timeout", patience).key(
            "app_main",
            "smart_stop_delay",
            "1",
        )
    };
    vec![
        Plugin::python("broken", programs::SERVES).key("app_main", "_no_such_key", "1"),
        python("exits", programs::EXITS_AT_ONCE),
        python("never_listens", programs::NEVER_LISTENS),
        python("never_answers", programs::NEVER_ANSWERS),
        python("deaf", programs::DEAF),
        python("leaves", programs::LEAVES_A_DAEMON),
        python("writes", programs::WRITES_MUCH),
    ]
}

#[track_caller]
fn end_of(node: &Node, plugin: &str) -> LastEnd {
    until_some(&format!("status says how {plugin} ended"), PATIENCE, || {
        let status: Status = node.try_status()?;
        let name = format!("app.{plugin}.main");
        let watcher = status.watchers.into_iter().find(|w| w.name.as_str() == name)?;
        watcher.last_end
    })
}

#[test]
fn plugins_that_misbehave_are_named_with_their_reason_and_do_not_slow_down_the_others() {
    let _turn = Turn::alone();
    let node = node();
    for name in ["sample_flask", "sample_node"] {
        node.link_sample(name, &[("app_main", "numprocesses", "2")]);
    }
    node.link_sample("sample_static", &[]);
    node.set("log.max_size_before_rotation", "4000000");
    node.start();
    let samples = node.worker_pids();
    let before = light_load(&node);

    let dirs: Vec<_> = misbehaving().iter().map(|plugin| node.add(plugin)).collect();
    node.mfserv(&["reload", "--no-wait"]).code(4);
    each_is_named_with_its_reason(&node);
    // Another program may take the processor for a while; what they do, they always do.
    let bound = (before.0 * 2).max(FLOOR);
    let is_within = |(p99, late): (Duration, Duration)| p99 <= bound + late * WAITS;
    let beside = (0..3).any(|_| is_within(light_load(&node)));
    assert!(beside, "p99 beside them is above {bound:?} in three measurements");
    let pids = node.worker_pids();
    assert!(samples.iter().all(|pid| pids.contains(pid)), "a worker of the samples was replaced");
    what_was_left_behind_is_killed(&node, &dirs[5]);
    the_deaf_one_is_replaced(&node);
    logs_are_bounded(&node);
    node.stop();
}

fn each_is_named_with_its_reason(node: &Node) {
    let end = end_of(node, "exits");
    assert_eq!(end.why, EndReason::Exited { code: 3 });
    assert!(end.last_output.contains("cannot find the database: giving up"), "{end:?}");
    let end = end_of(node, "never_listens");
    assert!(matches!(end.why, EndReason::FailedProbe { .. }), "{end:?}");
    assert!(end.last_output.contains("thinking before listening"), "{end:?}");
    let end = end_of(node, "never_answers");
    assert!(matches!(end.why, EndReason::FailedProbe { .. }), "{end:?}");
    assert!(end.last_output.contains("listening, and that is all"), "{end:?}");
    let end = end_of(node, "leaves");
    assert_eq!(end.why, EndReason::Exited { code: 0 });
    assert!(end.last_output.contains("starting a daemon and leaving"), "{end:?}");

    let status = node.status();
    assert_eq!(status.state, NodeState::Running);
    for name in ["exits", "never_listens", "never_answers", "leaves"] {
        let watcher = node.watcher(&format!("app.{name}.main"));
        assert!(watcher.crashes > 0 && watcher.ready == 0, "{watcher:?}");
    }
    for name in ["deaf", "writes"] {
        assert_eq!(node.settled(&format!("app.{name}.main")).ready, 1);
    }
    let ran = node.mfserv(&["status"]).code(1);
    for text in [
        "broken: refused",
        "exited with code 3",
        "cannot find the database: giving up",
        "failed its probe",
        "thinking before listening",
        "listening, and that is all",
        "starting a daemon and leaving",
    ] {
        assert!(ran.stdout.contains(text), "{text:?} is missing in {}", ran.stdout);
    }
    assert!(ran.stderr.contains("_no_such_key"), "{}", ran.stderr);
    assert!(ran.stderr.contains("broken/config.ini:"), "{}", ran.stderr);
}

/// Nothing survives its worker.
fn what_was_left_behind_is_killed(node: &Node, dir: &std::path::Path) {
    let text = std::fs::read_to_string(dir.join("daemon.pid")).expect("the daemon's pid");
    let pid: u32 = text.trim().parse().unwrap();
    until("the daemon that was left behind is killed", PATIENCE, || process(pid).is_none());
    let said = node.events().into_iter().any(|event| match event.fact {
        Fact::WorkerEnded { worker, left_behind, .. } => {
            worker.watcher.plugin() == Some("leaves") && left_behind > 0
        }
        _ => false,
    });
    assert!(said, "no event says that something was left behind");
}

fn the_deaf_one_is_replaced(node: &Node) {
    let before = node.pids("app.deaf.main");
    node.mfserv(&["restart", "deaf"]).code(0);
    until("the deaf worker is killed", PATIENCE, || process(before[0]).is_none());
    assert_ne!(node.pids("app.deaf.main"), before);
}

/// What 50 MB/s leave on the disk is what rotation keeps: 5 files of 4 MB, and what one
/// of them may be over when it is looked at.
fn logs_are_bounded(node: &Node) {
    let entries = std::fs::read_dir(node.path("log")).unwrap().flatten();
    let files: Vec<u64> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("app_writes_main"))
        .filter_map(|entry| entry.metadata().ok())
        .map(|meta| meta.len())
        .collect();
    assert!(files.len() > 1, "nothing was rotated: {files:?}");
    assert!(files.len() <= 6 && files.iter().sum::<u64>() < 40_000_000, "{files:?}");
}

//! Workers that are killed under load: their replacements come at once, and no request
//! is lost that could be saved.

use std::time::{Duration, Instant};

use mfserv_core::event::Fact;
use mfserv_testkit::{Load, Method, Node};

use crate::{Turn, load_time, node};

const FLASK: &str = "app.sample_flask.main";

fn four_workers() -> Node {
    let node = node();
    node.link_sample("sample_flask", &[("app_main", "numprocesses", "4")]);
    node.start();
    node
}

#[test]
fn killing_a_worker_each_second_fails_no_get_and_each_failed_post_is_explained() {
    let _turn = Turn::alone();
    let node = four_workers();
    let load = Load::new(node.address(), "/sample_flask/count").post_every(4).start();
    let began = Instant::now();
    let mut killed = Vec::new();
    while began.elapsed() < load_time() {
        std::thread::sleep(Duration::from_secs(1));
        let workers = node.watcher(FLASK).workers;
        let ready = workers.iter().filter(|w| w.phase == mfserv_core::worker::Phase::Ready);
        let ready: Vec<_> = ready.collect();
        let worker = ready[killed.len() % ready.len()];
        let at_ms = now_ms();
        node.kill(worker.pid.unwrap());
        killed.push((worker.id.clone(), at_ms));
    }
    node.settled(FLASK);
    let report = load.stop();
    println!("{}", report.sentence());

    let gets: Vec<_> = report.failed(Method::Get).collect();
    assert!(gets.is_empty(), "{}: {gets:#?}", report.sentence());
    for post in report.failed(Method::Post) {
        // The dead worker had read it: nobody can know what it did with it.
        let explained = post.status == Some(502) && post.cause.as_deref() == Some("reset");
        let near = killed.iter().any(|(_, at)| post.at_ms.abs_diff(*at) < 1_000);
        assert!(explained && near, "{post:?}");
    }
    assert_no_post_was_done_twice(&node);
    assert_replacements_were_quick(&node, &killed);
    node.stop();
}

fn assert_no_post_was_done_twice(node: &Node) {
    let mut posts: Vec<String> = node
        .log_lines("app_sample_flask_main")
        .into_iter()
        .filter_map(|line| line.split_once("handled POST ").map(|(_, id)| id.to_string()))
        .collect();
    posts.sort();
    let twice: Vec<_> = posts.windows(2).filter(|two| two[0] == two[1]).collect();
    assert!(twice.is_empty(), "done twice: {twice:?}");
}

/// From the kill to the replacement's start and from its boot to its being known as
/// ready, less than 100 ms are ours. The boot is what the slowest undisturbed start of
/// the same app took in this run.
fn assert_replacements_were_quick(node: &Node, killed: &[(mfserv_core::names::WorkerId, u64)]) {
    let events = node.events();
    for (worker, at_ms) in killed {
        let next = events.iter().find_map(|event| match &event.fact {
            Fact::WorkerStarted { worker: other, .. }
                if other.slot == worker.slot
                    && other.watcher == worker.watcher
                    && other.incarnation > worker.incarnation =>
            {
                Some((other.clone(), event.at_ms))
            }
            _ => None,
        });
        let (next, started_ms) = next.expect("a replacement");
        let ready = events.iter().find_map(|event| match &event.fact {
            Fact::WorkerReady { worker, after_ms } if *worker == next => {
                Some((event.at_ms, *after_ms))
            }
            _ => None,
        });
        let Some((ready_ms, boot_ms)) = ready else {
            assert!(killed.iter().any(|(id, _)| *id == next), "{next} never became ready");
            continue;
        };
        println!("{worker}: started after {} ms, boot {boot_ms} ms", started_ms - at_ms);
        assert!(ready_ms - at_ms <= 100 + boot_ms, "{next}: {} ms", ready_ms - at_ms);
    }
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| d.as_millis() as u64)
}

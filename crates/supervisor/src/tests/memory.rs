//! Workers that use much memory are replaced, those that use too much are killed.

use std::time::Duration;

use mfserv_core::event::Fact;
use mfserv_core::memory::{MemoryLimits, OutOfMemory};
use mfserv_core::watcher::{Rlimits, WatcherSpec};

use super::kit::*;
use crate::handle::Message;
use crate::sampling::Measured;

const MIB: u64 = 1 << 20;

/// At most 200 MiB; above 100 MiB they are replaced.
fn limited(count: u32) -> WatcherSpec {
    let memory = MemoryLimits { limit: 200 * MIB, high: 100 * MIB };
    WatcherSpec { rlimits: Rlimits { memory, ..Rlimits::default() }, ..app(count) }
}

/// These workers are measured, in MiB.
async fn use_memory(node: &mut Node, workers: &[(&str, u64)]) {
    let of = |(worker, mib): &(&str, u64)| Measured {
        id: id(worker),
        used_bytes: Some(mib * MIB),
        out_of_memory: None,
        is_near: false,
    };
    let measured = workers.iter().map(of).collect();
    node.handle().send(Message::Measured(measured, Duration::ZERO));
    node.pass(ms(1)).await;
}

#[tokio::test(start_paused = true)]
async fn above_memory_high_the_successor_is_ready_before_the_worker_is_drained() {
    let mut node = Node::serving_as(limited(2)).await;
    node.count_from_here();
    node.pass(secs(100)).await;
    use_memory(&mut node, &[("1.1", 100), ("2.2", 99)]).await;
    assert_eq!(node.spawned().len(), 2, "not above it");
    use_memory(&mut node, &[("1.1", 101), ("2.2", 99)]).await;
    assert_eq!(node.serving(), ["1.1", "2.2"]);
    use_memory(&mut node, &[("1.1", 101)]).await;
    assert_eq!(node.spawned().len(), 3, "once");
    node.ready(["1.3"]).await;
    assert_eq!(node.serving(), ["1.3", "2.2"]);
    assert_eq!(node.ends(), ["1.1 over memory_high 100 MiB (it used 101 MiB)"]);
    assert_eq!((node.fewest_serving(), node.status().await.crashes), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_always_above_memory_high_is_replaced_less_and_less_often() {
    let mut node = Node::serving_as(limited(1)).await;
    for _ in 0..360 {
        let alive = node.alive();
        let all: Vec<(&str, u64)> = alive.iter().map(|worker| (worker.as_str(), 150)).collect();
        use_memory(&mut node, &all).await;
        node.everybody_is_ready().await;
        node.pass(secs(5)).await;
    }
    // In half an hour, after 10 s, 20 s, 40 s… up to 10 minutes.
    let replaced = node.ends().len();
    assert!((6..=9).contains(&replaced), "{replaced}");
    let is_said = |fact: &&Fact| matches!(fact, Fact::MemoryHigh { .. });
    assert_eq!(node.facts().iter().filter(is_said).count(), replaced + 1, "once for each worker");
    let memory = node.status().await.workers[0].memory.clone().unwrap();
    assert_eq!(memory.replaced_after_ms, Some(600_000));
    // Another configuration may need less.
    node.apply([edited(limited(1))]).await;
    node.everybody_is_ready().await;
    node.pass(secs(5)).await;
    let fresh = node.alive().remove(0);
    use_memory(&mut node, &[(&fresh, 150)]).await;
    assert!(node.alive().len() == 2, "its first one is replaced at once");
}

#[tokio::test(start_paused = true)]
async fn what_a_worker_loads_at_its_start_is_no_leak_and_a_leak_does_not_wait_for_its_end() {
    let mut node = Node::serving_as(limited(1)).await;
    // It loads 150 MiB, and that is all: a successor would do the same.
    for mib in [10, 150, 150, 150, 150] {
        use_memory(&mut node, &[("1.1", mib)]).await;
        node.pass(ms(500)).await;
    }
    assert_eq!(node.spawned().len(), 1);
    // It leaks 10 MiB a second: it would be killed before its time has come.
    for mib in [160, 170, 180] {
        use_memory(&mut node, &[("1.1", mib)]).await;
        node.pass(secs(1)).await;
    }
    assert_eq!(node.alive(), ["1.1", "1.2"]);
}

#[tokio::test(start_paused = true)]
async fn above_its_limit_a_worker_is_killed_with_all_that_it_has_started() {
    let mut node = Node::serving_as(limited(2)).await;
    node.pass(secs(60)).await;
    use_memory(&mut node, &[("1.1", 201), ("2.2", 20)]).await;
    assert_eq!(node.signals(), ["1.1 KILL tree"]);
    assert_eq!(node.ends(), ["1.1 over memory limit 200 MiB (it used 201 MiB)"]);
    assert_eq!(node.status().await.crashes, 1);
    assert_eq!(node.alive(), ["1.3", "2.2"]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_of_which_the_kernel_has_killed_a_part_ends_whole() {
    let mut node = Node::serving_as(limited(1)).await;
    let killed = |worker: &str, why| Measured {
        id: id(worker),
        used_bytes: Some(MIB),
        out_of_memory: Some(why),
        is_near: false,
    };
    for (worker, why) in [("1.1", OutOfMemory::Limit), ("1.2", OutOfMemory::Machine)] {
        node.handle().send(Message::Measured(vec![killed(worker, why)], Duration::ZERO));
        node.pass(ms(1)).await;
        node.everybody_is_ready().await;
    }
    assert_eq!(node.signals(), ["1.1 KILL tree", "1.2 KILL tree"]);
    let machine = "1.2 killed by the kernel: the machine was out of memory";
    assert_eq!(node.ends(), ["1.1 out of memory at 200 MiB", machine]);
}

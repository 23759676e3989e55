//! Workers that use much memory are replaced, those that use too much are killed.

use std::collections::BTreeMap;
use std::time::Duration;

use mfserv_core::event::Fact;
use mfserv_core::memory::{MemoryLimits, OutOfMemory};
use mfserv_core::watcher::{Rlimits, WatcherSpec};
use mfserv_core::wire::keeper::Ended;

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

/// For five minutes each worker uses so many MiB more each second, up to this many.
async fn let_them_grow(spec: WatcherSpec, mib_a_second: u64, most: u64) -> Node {
    let mut node = Node::serving_as(spec).await;
    let mut ages: BTreeMap<String, u64> = BTreeMap::new();
    for _ in 0..300 {
        for worker in node.alive() {
            let age = ages.entry(worker.clone()).or_default();
            *age += 1;
            use_memory(&mut node, &[(&worker, (*age * mib_a_second).min(most))]).await;
        }
        node.everybody_is_ready().await;
        node.pass(secs(1)).await;
    }
    node
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_fills_does_not_have_workers_replaced_for_ever() {
    let mut without_limit = limited(1);
    without_limit.rlimits.memory.limit = 0;
    // After 11 s, 11 s, 20 s, 40 s…; near the limit, five times after 8 s too.
    for (spec, mib_a_second) in [(without_limit, 10), (limited(1), 20)] {
        let node = let_them_grow(spec, mib_a_second, 180).await;
        let replaced = node.ends().len();
        assert!((4..=7).contains(&replaced), "{replaced}");
        assert_eq!(node.status().await.crashes, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_fast_leak_is_replaced_early_for_a_while_and_again_once_it_was_killed() {
    let node = let_them_grow(limited(1), 20, u64::MAX).await;
    let ends = node.ends();
    let is_kill = |end: &String| end.contains("over memory limit 200 MiB");
    let kills: Vec<usize> = (0..ends.len()).filter(|at| is_kill(&ends[*at])).collect();
    // The first one could wait; five whose time had not come.
    assert_eq!(kills[..2], [6, 12], "{ends:?}");
    assert_eq!(node.status().await.crashes, kills.len() as u64);
}

/// The kernel is found to have killed a process of this worker.
async fn lose_a_part(node: &mut Node, worker: &str, why: OutOfMemory) {
    let out_of_memory = Some(why);
    let of = |id| Measured { id, used_bytes: Some(MIB), out_of_memory, is_near: false };
    node.handle().send(Message::Measured(vec![of(id(worker))], Duration::ZERO));
    node.pass(ms(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_of_which_the_kernel_has_killed_a_part_at_its_limit_ends_whole() {
    let mut node = Node::serving_as(limited(1)).await;
    lose_a_part(&mut node, "1.1", OutOfMemory::Limit).await;
    assert_eq!(node.signals(), ["1.1 KILL tree"]);
    assert_eq!(node.ends(), ["1.1 out of memory at 200 MiB"]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_has_lost_a_process_to_the_machine_serves_until_its_successor_is_ready() {
    let mut node = Node::serving_as(limited(1)).await;
    node.keeper().lost_a_part.extend(["1.1", "1.3"].map(|worker| id(worker).to_string()));
    node.count_from_here();
    for _ in 0..2 {
        lose_a_part(&mut node, "1.1", OutOfMemory::Machine).await;
    }
    assert_eq!((node.serving(), node.spawned().len()), (vec!["1.1".into()], 2));
    node.ready(["1.2"]).await;
    assert_eq!(node.signals(), ["1.1 TERM"]);
    let why = "the kernel had killed a process of it: the machine was out of memory";
    assert_eq!(node.ends(), [format!("1.1 {why}")]);
    assert_eq!((node.fewest_serving(), node.status().await.crashes), (1, 0));
    // A program that loses one again and again is not replaced again and again.
    lose_a_part(&mut node, "1.2", OutOfMemory::Machine).await;
    assert_eq!(node.spawned().len(), 2);
    node.pass(secs(10)).await;
    lose_a_part(&mut node, "1.2", OutOfMemory::Machine).await;
    node.ready(["1.3"]).await;
    assert_eq!(node.alive(), ["1.3"]);
    // One that is killed itself has crashed.
    let third = id("1.3").to_string();
    node.keeper().ends(&third, Ended::Signalled { signal: 9 }, "");
    turns().await;
    let ends = node.ends();
    assert_eq!(ends[2], "1.3 killed by the kernel: the machine was out of memory");
    assert_eq!(node.status().await.crashes, 1);
}

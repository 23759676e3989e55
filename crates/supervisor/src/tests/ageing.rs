//! Workers are replaced after a life between once and twice their maximum age.

use mfserv_core::watcher::WatcherSpec;

use super::kit::*;

fn mortal(count: u32) -> WatcherSpec {
    WatcherSpec { max_age_s: 1000, start_timeout_ms: 10_000_000, ..app(count) }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_replaced_before_the_maximum_age_and_all_are_at_twice_of_it() {
    let mut node = Node::serving_as(mortal(4)).await;
    node.count_from_here();
    node.pass(secs(999)).await;
    assert_eq!(node.spawned().len(), 4);
    for _ in 0..26 {
        node.pass(secs(40)).await;
        node.everybody_is_ready().await;
    }
    let first = ["1.1", "2.2", "3.3", "4.4"];
    assert!(
        first.iter().all(|w| node.ends().contains(&format!("{w} too old"))),
        "{:?}",
        node.ends()
    );
    assert_eq!(node.fewest_serving(), 4);
    assert_eq!(node.status().await.crashes, 0);
}

#[tokio::test(start_paused = true)]
async fn workers_that_were_started_together_do_not_get_too_old_together() {
    let mut node = Node::serving_as(mortal(8)).await;
    node.pass(secs(1000)).await;
    let mut steps_with_an_end = 0;
    for _ in 0..25 {
        let before = node.ends().len();
        node.pass(secs(40)).await;
        node.everybody_is_ready().await;
        steps_with_an_end += usize::from(node.ends().len() > before);
    }
    assert!(steps_with_an_end >= 4, "{steps_with_an_end} of 25 steps");
}

#[tokio::test(start_paused = true)]
async fn without_a_maximum_age_workers_live_on() {
    let mut node = Node::serving_as(app(2)).await;
    node.pass(secs(100_000)).await;
    assert_eq!(node.alive(), ["1.1", "2.2"]);
}

#[tokio::test(start_paused = true)]
async fn the_age_of_a_prepared_worker_counts_from_its_take_over() {
    let mut node = Node::serving_as(app(1)).await;
    node.prepare(mortal(1)).await;
    node.ready(["1.2"]).await;
    node.pass(secs(100)).await;
    node.apply([mortal(1)]).await;
    node.pass(secs(990)).await;
    assert_eq!(node.alive(), ["1.2"]);
    node.pass(secs(1020)).await;
    assert_eq!(node.alive(), ["1.2", "1.3"]);
}

//! What a later daemon must know is on disk: numbers, crashes, last ends.

use std::os::unix::fs::MetadataExt;

use mfserv_core::event::Fact;

use super::kit::*;

#[tokio::test(start_paused = true)]
async fn crashes_and_the_last_end_are_known_to_the_next_daemon() {
    let mut node = Node::serving_as(app(1)).await;
    node.crashes("1.1").await;
    node.ready(["1.2"]).await;
    node.daemon_dies().await;
    node.daemon_starts().await;
    node.apply([app(1)]).await;
    let status = node.status().await;
    assert_eq!(status.crashes, 1);
    let end = status.last_end.unwrap();
    assert_eq!((end.worker, end.last_output.as_str()), (id("1.1"), "last words\n"));
}

#[tokio::test(start_paused = true)]
async fn a_number_is_not_given_twice_even_when_the_watcher_was_away() {
    let mut node = Node::serving_as(app(2)).await;
    node.apply([]).await;
    assert!(node.watchers().await.is_empty());
    node.apply([app(1)]).await;
    assert_eq!(node.alive(), ["1.3"]);
    node.apply([]).await;
    node.daemon_dies().await;
    node.daemon_starts().await;
    node.apply([app(1)]).await;
    assert_eq!(node.alive(), ["1.4"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_of_a_removed_app_is_not_said_of_the_next_one_of_its_name() {
    let mut node = Node::serving_as(app(1)).await;
    node.crashes("1.1").await;
    node.apply([]).await;
    node.everybody_is_ready().await;
    assert!(node.watchers().await.is_empty());
    for _ in 0..2 {
        node.apply([app(1)]).await;
        let status = node.status().await;
        assert_eq!((status.crashes, status.last_end), (0, None));
        node.apply([]).await;
        node.daemon_dies().await;
        node.daemon_starts().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_file_is_written_a_moment_after_a_change_or_its_removal_and_not_otherwise() {
    let mut node = Node::serving_as(app(1)).await;
    let file = node.home().join("supervisor.json");
    node.pass(ms(300)).await;
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("\"version\":1"), "{text}");
    // Each writing makes another file.
    let number = |file: &std::path::Path| file.metadata().unwrap().ino();
    let first = number(&file);
    node.pass(secs(10)).await;
    assert_eq!(number(&file), first, "nothing has changed");
    std::fs::remove_file(&file).unwrap();
    node.pass(secs(3)).await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text, "it was removed");
    let second = number(&file);
    node.crashes("1.1").await;
    node.pass(ms(300)).await;
    assert_ne!(number(&file), second);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_broken_or_of_a_future_version_is_an_empty_memory() {
    for text in ["{\"version\":1,\"watch", "{\"version\":99,\"watchers\":{\"app.p.a\":{}}}"] {
        let mut node = Node::serving_as(app(1)).await;
        node.daemon_dies().await;
        std::fs::write(node.home().join("supervisor.json"), text).unwrap();
        node.daemon_starts().await;
        node.apply([app(1)]).await;
        assert_eq!(node.alive(), ["1.1"]);
        node.crashes("1.1").await;
        assert_eq!(node.alive(), ["1.2"], "what lives has its number");
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_written_is_told() {
    let mut node = Node::start().await;
    std::fs::create_dir(node.home().join("supervisor.json")).unwrap();
    std::fs::write(node.home().join("supervisor.json").join("full"), "").unwrap();
    node.apply([app(1)]).await;
    node.pass(ms(300)).await;
    let told =
        |fact: &Fact| matches!(fact, Fact::Note { text } if text.starts_with("cannot write"));
    assert!(node.facts().iter().any(told), "{:?}", node.facts());
}

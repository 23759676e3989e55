//! The real front, in a process of its own, between raw clients and instrumented workers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    clippy::disallowed_methods,
    reason = "a test starts programs and stops at the first thing that is wrong"
)]

mod amendments;
mod bodies;
mod broken;
mod control;
mod dev_page;
mod endpoints;
mod files;
mod forwarding;
mod heavy;
mod lasting;
mod leftovers;
mod patience;
mod retries;
mod slots;
mod strict;
mod strictness;
mod world;

use std::path::PathBuf;
use std::time::Duration;

/// Not a test by itself: the process that the other tests start and drive.
#[test]
fn front_process() {
    let Ok(dir) = std::env::var("FRONT_UNDER_TEST") else { return };
    let dir = PathBuf::from(dir);
    let var = |name: &str| std::env::var(name).ok();
    let listeners = mfserv_front::listeners_from_env(&var("MFSERV_LISTEN").unwrap()).unwrap();
    let number = var("FRONT_NUMBER").unwrap();
    mfserv_front::run(mfserv_front::FrontOptions {
        listeners,
        control_socket: dir.join(format!("front.{number}.sock")),
        keeper_socket: Some(dir.join("keep.sock")),
        log_dir: dir.join("log"),
        rotation: mfserv_core::output::Rotation::default(),
        grace: Duration::from_millis(var("FRONT_GRACE_MS").unwrap().parse().unwrap()),
    })
    .unwrap();
}

/// The whole suite once more, with more than one thread in each front.
#[test]
fn every_test_here_holds_with_four_threads_too() {
    if std::env::var("FRONT_THREADS").is_ok() {
        return;
    }
    let again = std::process::Command::new(std::env::current_exe().unwrap())
        .env("FRONT_THREADS", "4")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&again.stdout);
    assert!(again.status.success(), "{text}{}", String::from_utf8_lossy(&again.stderr));
    assert!(text.contains("test result: ok. "), "{text}");
}

//! A front for the tests: a process of its own, configured by its environment.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a program of the tests stops at the first thing that is wrong"
)]

mod kind;

use std::path::PathBuf;
use std::time::Duration;

use mfserv_front::FrontOptions;

fn main() {
    let var = |name: &str| std::env::var(name).unwrap();
    let dir = PathBuf::from(var("FRONT_DIR"));
    let options = FrontOptions {
        listeners: mfserv_front::listeners_from_env(&var("MFSERV_LISTEN")).unwrap(),
        control_socket: dir.join(format!("front.{}.sock", var("FRONT_NUMBER"))),
        keeper_socket: Some(dir.join("keep.sock")),
        metrics_socket: Some(dir.join("metrics.sock")),
        log_dir: dir.join("log"),
        rotation: mfserv_core::output::Rotation::default(),
        grace: Duration::from_millis(var("FRONT_GRACE_MS").parse().unwrap()),
    };
    mfserv_front::run(kind::under_test().1, options).unwrap();
}

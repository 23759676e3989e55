//! A front for the tests: a process of its own, configured by its environment.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a program of the tests stops at the first thing that is wrong"
)]

mod kind;

use std::path::PathBuf;
use std::time::Duration;

use mfserv_front::{FrontOptions, Kind, NginxOptions};

/// Where nginx is, and its modules, if they are not where it looks for them.
const NGINX: [&str; 2] = ["FRONT_NGINX", "FRONT_NGINX_MODULES"];

fn main() {
    limit_descriptors();
    let var = |name: &str| std::env::var(name).unwrap();
    let dir = PathBuf::from(var("FRONT_DIR"));
    // The front behind nginx is this program too.
    let words: Vec<String> = std::env::args().collect();
    let behind = words.iter().position(|word| word == "--control").map(|at| words[at + 1].clone());
    let kind = if behind.is_some() { Kind::Embedded } else { kind::under_test().1 };
    let nginx = std::env::var(NGINX[0]).ok().map(|program| NginxOptions {
        program: program.into(),
        modules: std::env::var(NGINX[1]).ok().map(PathBuf::from),
        workers: 2,
        look: std::env::var("FRONT_LOOK_MS")
            .map_or(NginxOptions::LOOK, |text| Duration::from_millis(text.parse().unwrap())),
        shown_config: dir.join("nginx.conf"),
        temp_dir: dir.join("nginx"),
        inner: vec![std::env::current_exe().unwrap().into()],
    });
    let own = dir.join(format!("front.{}.sock", var("FRONT_NUMBER")));
    let options = FrontOptions {
        listeners: mfserv_front::listeners_from_env(&var("MFSERV_LISTEN")).unwrap(),
        keeper_socket: behind.is_none().then(|| dir.join("keep.sock")),
        control_socket: behind.map_or(own, PathBuf::from),
        metrics_socket: Some(dir.join("metrics.sock")),
        log_dir: dir.join("log"),
        rotation: mfserv_core::output::Rotation::default(),
        grace: Duration::from_millis(var("FRONT_GRACE_MS").parse().unwrap()),
        edge_key: std::env::var(mfserv_front::nginx::EDGE_KEY_VARIABLE).ok(),
        nginx,
    };
    mfserv_front::run(kind, options).unwrap();
}

/// Processes that this one starts inherit the limit.
fn limit_descriptors() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let most: Option<u64> = std::env::var("FRONT_DESCRIPTORS").ok().map(|it| it.parse().unwrap());
    if most.is_some() {
        setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).unwrap();
    }
}

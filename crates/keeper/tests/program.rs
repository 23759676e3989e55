//! A keeper for the tests: a process of its own, configured by its environment.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::exit,
    reason = "a program of the tests stops at the first thing that is wrong"
)]

mod setup;

use mfserv_keeper::{KeeperOptions, run};

use setup::{SETUP, Setup};

fn main() {
    let setup: Setup = serde_json::from_str(&std::env::var(SETUP).unwrap()).unwrap();
    let mut options = KeeperOptions::new(&setup.home);
    options.daemon = setup.daemon;
    options.grace_ms = setup.grace_ms;
    options.stop_ms = 500;
    options.cgroups = setup.cgroups;
    options.ready = Some(std::fs::File::create(setup.home.join("ready")).unwrap().into());
    if let Err(diagnostic) = run(options) {
        eprintln!("{diagnostic}");
        std::process::exit(i32::from(diagnostic.kind.exit_code()));
    }
}

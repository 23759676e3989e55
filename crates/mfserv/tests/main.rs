//! What operators are promised, shown with the real binary, real workers and real load.
//! One module per promise.

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

mod affinity;
mod alerts;
mod apps;
mod autobahn;
mod bodies;
mod builds;
mod carried;
mod circus;
mod comeback;
mod commands_for_one_app;
mod compat;
mod completions;
mod config_watch;
mod contrib;
mod crash;
mod data;
mod dev;
mod dotenv;
mod environment;
mod first_variables;
mod full_disk;
mod growth;
mod history;
mod hosts;
mod imports;
mod influxdb;
mod install;
mod ipv6;
mod isolation;
mod jobs;
mod kills;
mod liveness;
mod logs;
mod maintenance;
mod managers;
mod memory;
mod metrics;
mod misbehaving;
mod newcomer;
mod nginx;
mod not_there;
mod operate;
mod operations;
mod options_that_stay;
mod outputs;
mod own_data;
mod php;
mod ports;
mod prefix;
mod preview;
mod python2;
mod releases;
mod reload;
mod removed;
mod reproducible;
mod roles;
mod run_beside;
mod scheduling;
mod sendfile;
mod ship;
mod slots;
mod standalone;
mod start_and_stop;
mod states;
mod status;
mod stopping;
mod streams;
mod taking;
mod telegraf;
mod terminal;
mod threads;
mod tls;
mod top;
mod unasked;
mod unseen;
mod upgrade;
mod valgrind;
mod vanishing;
mod variables;
mod verdicts;
mod versions;
mod websocket;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use mfserv_testkit::{Node, Report, Samples, until};

/// The program that is tested.
const PROGRAM: &str = env!("CARGO_BIN_EXE_mfserv");

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A fresh home.
fn node() -> Node {
    let node = Node::new(Path::new(PROGRAM), samples());
    // Tests that change a file say themselves when it is applied.
    node.set("autorestart.configuration", "0");
    if std::env::var(nginx::FRONT).as_deref() == Ok("nginx") {
        nginx::stand_before(&node);
    }
    node
}

/// The sample plugins, made once.
fn samples() -> &'static Samples {
    static SAMPLES: OnceLock<Samples> = OnceLock::new();
    SAMPLES.get_or_init(|| Samples::of(Path::new(PROGRAM), Path::new(env!("CARGO_TARGET_TMPDIR"))))
}

/// Every path below a directory, sorted; links are not followed.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(one) = todo.pop() {
        for entry in std::fs::read_dir(one).into_iter().flatten().flatten() {
            found.push(entry.path());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                todo.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// How long the load of a test lasts: 8 s, or `MFSERV_TEST_LOAD_S`.
fn load_time() -> Duration {
    let asked = std::env::var("MFSERV_TEST_LOAD_S").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(asked.unwrap_or(8))
}

/// What a test may do at the same time as others, on a machine with few cores.
struct Turn {
    _machine: Machine,
    _heavy: Option<Heavy>,
}

enum Machine {
    Shared(#[expect(dead_code, reason = "held, not read")] RwLockReadGuard<'static, ()>),
    Alone(#[expect(dead_code, reason = "held, not read")] RwLockWriteGuard<'static, ()>),
}

static MACHINE: RwLock<()> = RwLock::new(());
/// How many tests with load run.
static LOADS: Mutex<usize> = Mutex::new(0);
static LOAD_ENDED: Condvar = Condvar::new();
/// So many of them run at a time: where only one may, the others wait for it and a core is idle.
const MOST_LOADS: usize = 2;

/// One of the tests with load.
struct Heavy;

impl Heavy {
    fn begin() -> Heavy {
        let loads = LOADS.lock().unwrap_or_else(PoisonError::into_inner);
        let free = LOAD_ENDED.wait_while(loads, |loads| *loads >= MOST_LOADS);
        *free.unwrap_or_else(PoisonError::into_inner) += 1;
        Heavy
    }
}

impl Drop for Heavy {
    fn drop(&mut self) {
        *LOADS.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        LOAD_ENDED.notify_one();
    }
}

impl Turn {
    /// Little work: beside any other test that does not measure time.
    fn cheap() -> Turn {
        samples();
        let shared = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
        Turn { _machine: Machine::Shared(shared), _heavy: None }
    }

    /// Load: few such tests at a time.
    fn heavy() -> Turn {
        Turn { _heavy: Some(Heavy::begin()), ..Turn::cheap() }
    }

    /// Measures time: nothing else runs.
    fn alone() -> Turn {
        samples();
        let alone = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
        Turn { _machine: Machine::Alone(alone), _heavy: None }
    }
}

/// Every request that was answered left its line in the app's log. Returns how many
/// lines there are: more than answers if a worker was killed before it could answer.
#[track_caller]
fn assert_no_line_is_lost(node: &Node, report: &Report) -> usize {
    let answered: BTreeSet<&str> =
        report.gets.iter().chain(&report.posts).map(String::as_str).collect();
    let handled = || -> Vec<String> {
        let lines = node.log_lines("app_sample_flask_main");
        let ids = lines.iter().filter_map(|line| line.split_once("handled ")?.1.split_once(' '));
        ids.map(|(_, id)| id.to_string()).collect()
    };
    let mut count = 0;
    until("every answered request is in the log", PATIENCE, || {
        let lines = handled();
        count = lines.len();
        let logged: BTreeSet<&str> = lines.iter().map(String::as_str).collect();
        answered.is_subset(&logged)
    });
    count
}

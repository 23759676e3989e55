//! `stop`: requests are finished, then nothing is left.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use clap_complete::ArgValueCompleter;
use mfserv_core::keys::STARTUP_ENABLED;
use mfserv_core::node_state::NodeState;
use mfserv_core::wire::keeper as keep;
use mfserv_core::{Diagnostic, Kind};
use mfserv_plugin::Progress;
use rustix::fs::FlockOperation::NonBlockingLockExclusive;
use rustix::fs::flock;
use serde_json::json;

use super::keeper::{self, LOOK, QUICK, bring_back_keeper};
use super::operate::{self, Wait};
use super::plugins::dev::own_node;
use super::progress::Steps;
use super::reach;
use super::report::{self, Outcome};
use super::{completions, print};
use mfserv_node::configure;
use mfserv_node::control::client;
use mfserv_node::places::Places;

/// How long the keeper may take to kill everything.
const KILL: Duration = Duration::from_secs(60);
/// How long a stop in order may take.
const PATIENCE: Duration = Duration::from_secs(700);
/// So often a stop looks whether there is a keeper.
const KEEPER_LOOK: Duration = Duration::from_millis(250);

#[derive(Debug, Args)]
pub struct Stop {
    /// Apps (`foo`, `foo.main`), until `mfserv start APP`; without any: the node.
    #[arg(value_name = "APP", conflicts_with = "kill", add = ArgValueCompleter::new(completions::apps))]
    apps: Vec<String>,
    /// Kill all processes at once; requests in flight fail.
    #[arg(long)]
    kill: bool,
    /// Return before the apps are stopped.
    #[arg(long, requires = "apps")]
    no_wait: bool,
    /// Longest wait for apps, seconds.
    #[arg(long, requires = "apps", default_value_t = PATIENCE.as_secs())]
    timeout: u64,
    /// Print the result as JSON: of each app, or of the node.
    #[arg(long)]
    json: bool,
}

/// What `mfserv stop --json` prints of a node.
fn as_json(was_running: bool) -> String {
    format!("{}\n", json!({ "ok": true, "was_running": was_running }))
}

impl Stop {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        if !self.apps.is_empty() {
            let Stop { no_wait, timeout, json, .. } = self;
            return operate::switch(places, &self.apps, false, &Wait { no_wait, timeout, json });
        }
        if !self.kill && is_switched_off(places) {
            match self.json {
                true => print(&as_json(false)),
                false => {
                    print("MFSERV_STARTUP_FLAG=0 => nothing to stop (`--kill` ends what runs)\n");
                }
            }
            return Ok(Outcome::Done);
        }
        let mut steps = Steps::new();
        let was_running = stop(places, self.kill, &mut steps)?;
        steps.finish();
        if let Some(own) = own_node::running(places) {
            let stop = own_node::command(&own, "stop");
            report::print_problem(
                &Diagnostic::warning("the node of `mfserv dev` beside it runs on")
                    .because(format!("its home is {}", own.home().display()))
                    .help(format!("`{stop}` stops it, too")),
            );
        }
        if self.json {
            print(&as_json(was_running));
            return Ok(Outcome::Done);
        }
        let text = if was_running { "mfserv is stopped" } else { "mfserv is not running" };
        print(&format!("{text}\n"));
        Ok(Outcome::Done)
    }
}

/// The configuration says that start and stop do nothing. One that cannot be read says nothing.
pub fn is_switched_off(places: &Places) -> bool {
    let module = configure::module(places, &[]);
    module.is_ok_and(|module| !module.resolution.config.get(STARTUP_ENABLED))
}

/// Stops the node: in order, or with `kill` at once. Returns whether anything lived.
pub fn stop(places: &Places, kill: bool, steps: &mut dyn Progress) -> Result<bool, Diagnostic> {
    match std::fs::read_dir(places.run()) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => {
            return Err(Diagnostic::error("the node's state cannot be read")
                .kind(Kind::Refused)
                .because(format!("{}: {error}", places.run().display()))
                .help("stop it as the user that started it"));
        }
    }
    let starts_daemons = !bring_back_keeper(places)?;
    let mut has_stopped = false;
    if !kill {
        steps.step("stopping: requests are finished first");
        // A daemon that has just died is followed by another one, which stops the node in order.
        let asked = match starts_daemons {
            true => reach::status(places),
            false => client::status(&places.control_socket(), QUICK),
        };
        if asked.is_err_and(|problem| problem.kind == Kind::Timeout) {
            replace_hanging_daemon(places)?;
        }
        match stop_in_order(places) {
            Ok(()) => has_stopped = true,
            Err(problem) if problem.kind == Kind::NotRunning => {}
            Err(problem) => report::print_problem(&problem),
        }
    }
    steps.step("stopping: ending what is left");
    // The keeper may have ended before it is looked for: the daemon has asked it to.
    Ok(shut_down(places)? || has_stopped)
}

/// Asks the daemon to stop the node, and waits for that. A keeper that dies meanwhile is followed
/// by another one: without a keeper nothing can be ended.
fn stop_in_order(places: &Places) -> Result<(), Diagnostic> {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                // What fails is tried again.
                let _ = bring_back_keeper(places);
                std::thread::sleep(KEEPER_LOOK);
            }
        });
        let stopped = client::stop(&places.control_socket(), "mfserv stop", PATIENCE);
        is_over.store(true, Ordering::Relaxed);
        stopped
    })
}

/// A daemon that lives and does not answer (stopped, or stuck) is killed: the keeper
/// brings another one, which can stop the node in order. Returns once that answers.
fn replace_hanging_daemon(places: &Places) -> Result<(), Diagnostic> {
    let look = || client::status(&places.control_socket(), QUICK);
    report::print_problem(&Diagnostic::warning("the daemon does not answer: it is replaced"));
    let mut keeper = keeper::connect(places)?;
    let id = mfserv_keeper::DAEMON.to_string();
    keeper.ask(keep::Ask::Signal { id, signal: 9, scope: keep::Scope::Process })?;
    let began = Instant::now();
    while began.elapsed() < QUICK && look().is_err() {
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Ends keeper, daemon and whatever lives, with or without a daemon. Returns
/// whether anything lived.
pub fn shut_down(places: &Places) -> Result<bool, Diagnostic> {
    let socket = places.keep_socket();
    // A keeper that is ending accepts no client any more.
    let keepers = reach::pids(places.home(), "keep");
    if let Ok(mut client) = keeper::connect(places) {
        // It may end by itself at this very moment, because the daemon asked first.
        let _ = client.ask_within(keep::Ask::Shutdown, KILL);
    }
    let lived = !keepers.is_empty() || socket.exists();
    let began = Instant::now();
    while keepers.iter().any(|pid| is_alive(*pid)) {
        if began.elapsed() > KILL {
            return Err(Diagnostic::error("the keeper does not end")
                .kind(Kind::Timeout)
                .help("log/keeper.log in the runtime home may say why"));
        }
        std::thread::sleep(LOOK);
    }
    remove_leftovers(places);
    Ok(lived)
}

/// The process exists, and is no zombie that its parent has not looked at yet.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

/// Removes the sockets of killed roles; nobody listens on them any more.
fn remove_leftovers(places: &Places) {
    // A keeper that was started meanwhile has the lock, and what is there is its own.
    let lock = std::fs::File::open(places.run().join("keeper.lock"));
    let is_held = |lock: &std::fs::File| flock(lock, NonBlockingLockExclusive).is_err();
    if lock.as_ref().is_ok_and(is_held) {
        return;
    }
    let is_socket = |path: &Path| {
        use std::os::unix::fs::FileTypeExt;
        path.symlink_metadata().is_ok_and(|m| m.file_type().is_socket() || m.is_symlink())
    };
    for dir in [places.run(), places.var(), places.short_dir()] {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let ours =
                name.ends_with(".socket") || name.ends_with(".sock") || name.ends_with(".notify");
            if ours && is_socket(&path) {
                let _ = std::fs::remove_file(path);
            }
        }
    }
    let _ = std::fs::remove_dir(places.short_dir());
    let _ = std::fs::write(places.status_file(), format!("{}\n", NodeState::Stopped));
}

//! `start` and `run`: a node comes up, or is found running.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Args;
use clap_complete::ArgValueCompleter;
use mfserv_core::keys::STARTUP_ENABLED;
use mfserv_core::node_state::NodeState;
use mfserv_core::status::Status;
use mfserv_core::{Diagnostic, Kind, Severity};
use mfserv_plugin::{Home, Progress, templates};
use serde_json::json;

use super::keeper::{self, LOOK, QUICK, refuse_other_user};
use super::operate::{self, Wait};
use super::plugins::run_beside;
use super::progress::Steps;
use super::report::{self, Outcome};
use super::show::addresses;
use super::stop::shut_down;
use super::{completions, print, sets};
use mfserv_node::control::client;
use mfserv_node::places::Places;
use mfserv_node::{certificates, configure};

#[derive(Debug, Args)]
pub struct Start {
    /// Apps that `mfserv stop APP` has stopped (`foo`, `foo.main`); without any: the node.
    #[arg(value_name = "APP", conflicts_with = "sets", add = ArgValueCompleter::new(completions::apps))]
    apps: Vec<String>,
    /// A value that overrides all configuration files until the node is stopped.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    sets: Vec<String>,
    /// Return before the node runs.
    #[arg(long)]
    no_wait: bool,
    /// Longest wait, seconds.
    #[arg(long, default_value_t = 300)]
    timeout: u64,
    /// Print the result as JSON: of each app, or of the node.
    #[arg(long)]
    json: bool,
}

impl Start {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        if !self.apps.is_empty() {
            let Start { no_wait, timeout, json, .. } = self;
            return operate::switch(places, &self.apps, true, &Wait { no_wait, timeout, json });
        }
        let mut steps = Steps::new();
        let patience = (!self.no_wait).then(|| Duration::from_secs(self.timeout));
        let came = bring_up(places, &self.sets, patience, &mut steps);
        steps.finish();
        let came = came?;
        if self.json {
            print(&format!("{}\n", as_json(&came)));
            return Ok(Outcome::Done);
        }
        match came {
            Came::NotToStart => print("MFSERV_STARTUP_FLAG=0 => nothing to start\n"),
            Came::NotWaitedFor => {}
            Came::Up { status, known } => say_running(&status, known),
        }
        Ok(Outcome::Done)
    }
}

/// How long a node may take to run.
pub const PATIENCE: Option<Duration> = Some(Duration::from_secs(300));

/// What came of bringing a node up.
pub enum Came {
    /// Its configuration says that it is not to be started.
    NotToStart,
    /// It starts.
    NotWaitedFor,
    /// It runs.
    Up {
        /// What runs.
        status: Box<Status>,
        /// It ran before.
        known: bool,
    },
}

/// Starts a node that does not run, and waits until it runs, if there is a patience.
pub fn bring_up(
    places: &Places,
    set: &[String],
    patience: Option<Duration>,
    steps: &mut dyn Progress,
) -> Result<Came, Diagnostic> {
    let module = configure::module(places, &sets(set)?)?;
    refuse_bad_configuration(&module)?;
    if !module.resolution.config.get(STARTUP_ENABLED) {
        return Ok(Came::NotToStart);
    }
    warn_root();
    prepare(places, &module)?;
    refuse_bad_certificates(places, &module)?;
    let known = !bring_keeper(places, set, steps)?;
    if known && !set.is_empty() {
        let problem = Diagnostic::warning("--set has no effect on a node that runs");
        report::print_problem(&problem.help("use `mfserv config set` and `mfserv reload`"));
    }
    let Some(patience) = patience else { return Ok(Came::NotWaitedFor) };
    let mut status = wait_until_running(places, patience, steps);
    if status.as_ref().is_err_and(|problem| problem.kind == Kind::NotRunning) {
        // It was being stopped when we came.
        bring_keeper(places, set, steps)?;
        status = wait_until_running(places, patience, steps);
    }
    if status.as_ref().is_err_and(|problem| problem.kind == Kind::Refused) && !known {
        // Nothing serves yet, and nothing will: leave no half of a node behind.
        let _ = shut_down(places);
    }
    status.map(|status| Came::Up { status: Box::new(status), known })
}

/// The port that a node is configured for, and another one that is free, if another program has its
/// own or it is reserved.
pub fn free_port(
    places: &Places,
    reserved: &[SocketAddr],
) -> Result<Option<(u16, u16)>, Diagnostic> {
    let module = configure::module(places, &[])?;
    let addresses = module.resolution.config.listen_addresses();
    let is_reserved = |port: u16| reserved.iter().any(|one| one.port() == port);
    let is_taken = |address: &SocketAddr| {
        let bound = std::net::TcpListener::bind(address);
        is_reserved(address.port())
            || bound.is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
    };
    let Some(address) = addresses.iter().find(|address| is_taken(address)) else {
        return Ok(None);
    };
    // Those that are reserved are held meanwhile: the kernel gives none of them.
    let _held: Vec<_> = reserved.iter().map(std::net::TcpListener::bind).collect();
    let free = std::net::TcpListener::bind((address.ip(), 0)).and_then(|it| it.local_addr());
    Ok(free.ok().map(|free| (address.port(), free.port())))
}

/// Brings the node up, as `mfserv start` does.
pub fn up(places: &Places, sets: Vec<String>) -> Result<Outcome, Diagnostic> {
    Start { apps: Vec::new(), sets, no_wait: false, timeout: 300, json: false }.run(places)
}

/// Starts a keeper if none lives; returns whether it did. Of several that try at the
/// same time one succeeds, and the others find its keeper.
pub fn bring_keeper(
    places: &Places,
    sets: &[String],
    steps: &mut dyn Progress,
) -> Result<bool, Diagnostic> {
    let lives = || keeper::connect(places).is_ok();
    if lives() {
        return Ok(false);
    }
    steps.step("starting the keeper");
    match keeper::start_keeper(places, sets) {
        Ok(()) => Ok(true),
        Err(_) if lives() => Ok(false),
        Err(problem) => Err(problem),
    }
}

/// Prints what is doubtful in the certificates of a node that does not run. Without a usable one
/// nothing is started: whoever asks for TLS must not believe that he has it.
pub fn refuse_bad_certificates(
    places: &Places,
    module: &configure::Module,
) -> Result<(), Diagnostic> {
    if keeper::connect(places).is_err() {
        certificates::inspect(module)?.iter().for_each(report::print_problem);
    }
    Ok(())
}

/// Prints what is doubtful in the module's configuration; what is wrong is an error.
pub fn refuse_bad_configuration(module: &configure::Module) -> Result<(), Diagnostic> {
    for problem in module.resolution.diagnostics.iter().filter(|d| !d.is_error()) {
        report::print_problem(problem);
    }
    let mut errors = module.resolution.diagnostics.iter().filter(|d| d.is_error());
    let Some(first) = errors.next() else { return Ok(()) };
    for other in errors {
        report::print_problem(other);
    }
    Err(first.clone().kind(Kind::BadConfiguration))
}

fn warn_root() {
    let root = rustix::process::geteuid().is_root();
    if root && std::env::var("METWORK_ALLOW_USAGE_BY_ROOT").as_deref() != Ok("1") {
        report::print_problem(
            &Diagnostic::warning("apps will run as root")
                .help("run mfserv as a user of its own, or set METWORK_ALLOW_USAGE_BY_ROOT=1"),
        );
    }
}

/// What must be there before anything starts: directories, and the internal plugins.
pub fn prepare(places: &Places, module: &configure::Module) -> Result<(), Diagnostic> {
    refuse_other_user(places)?;
    places.create()?;
    let home = Home::new(places.home());
    mfserv_plugin::store::recover(&home);
    for name in &module.resolution.config.internal_plugins {
        if name != "welcome" {
            let problem = Diagnostic::warning(format!("there is no internal plugin {name}"))
                .help(format!("remove install_{name} from [internal_plugins]"));
            report::print_problem(&problem);
            continue;
        }
        let dir = templates::materialise_welcome(&home)?;
        let link = home.link(name);
        let packed = std::fs::read_link(&link).is_ok_and(|to| to != dir);
        if !packed {
            // A plugin of that name that somebody installed is left alone.
            let _ = std::fs::remove_file(&link);
            std::os::unix::fs::symlink(&dir, &link).map_err(|e| {
                Diagnostic::error(format!("cannot link the plugin {name}")).because(e)
            })?;
        }
    }
    Ok(())
}

/// Returns what runs, once it runs.
pub fn wait_until_running(
    places: &Places,
    patience: Duration,
    steps: &mut dyn Progress,
) -> Result<Status, Diagnostic> {
    let began = Instant::now();
    let mut said = String::new();
    loop {
        if let Ok(status) = client::status(&places.control_socket(), QUICK) {
            // A daemon that lived on while there was no keeper must have found the new one.
            if status.state == NodeState::Running
                && status.keeper.is_some()
                && status.generation > 0
            {
                return Ok(status);
            }
            if status.state == NodeState::Error {
                return Err(why_error(&status));
            }
            let apps = status.watchers.iter().filter(|w| w.plugin.is_some());
            let ready = apps.clone().filter(|w| w.ready >= w.wanted).count();
            let text = format!("starting: {ready} of {} apps ready", apps.count());
            if text != said && status.generation > 0 {
                steps.step(&text);
                said = text;
            }
        }
        if !places.keep_socket().exists() {
            return Err(Diagnostic::error("the node was stopped while it was starting")
                .kind(Kind::NotRunning));
        }
        if began.elapsed() > patience {
            return Err(Diagnostic::error("the node is not running yet")
                .kind(Kind::Timeout)
                .because(format!("it has been starting for {} s", patience.as_secs()))
                .help("it goes on starting: see `mfserv status` and `mfserv events`"));
        }
        std::thread::sleep(LOOK);
    }
}

fn why_error(status: &Status) -> Diagnostic {
    let mut problem = Diagnostic::error("the node does not run").kind(Kind::Refused);
    for note in &status.notes {
        problem = problem.because(note);
    }
    if let Some(end) = status.front().and_then(|front| front.last_end.as_ref()) {
        problem =
            problem.because(format!("{}: {}\n{}", end.worker, end.why, end.last_output.trim_end()));
    }
    problem.help("`mfserv events` shows what happened")
}

/// What `mfserv start --json` prints of a node.
fn as_json(came: &Came) -> serde_json::Value {
    match came {
        Came::NotToStart => json!({ "ok": true, "running": false }),
        Came::NotWaitedFor => json!({ "ok": true, "running": null }),
        Came::Up { status, known } => json!({
            "ok": true, "running": true, "was_running": known, "address": status.address,
            "apps": status.watchers.len(),
            "not_ready": status.watchers.iter().filter(|w| w.ready < w.wanted)
                .map(|watcher| watcher.name.as_str()).collect::<Vec<_>>(),
            "problems": status.problems,
        }),
    }
}

fn say_running(status: &Status, known: bool) {
    let address = addresses(status).unwrap_or_else(|| "(no listener)".into());
    let was = if known { "is already running" } else { "is running" };
    print(&format!("mfserv {was} at {address}\n"));
    for watcher in status.watchers.iter().filter(|w| w.ready < w.wanted) {
        let end = watcher.last_end.as_ref().map(|end| format!(": {}", end.why)).unwrap_or_default();
        let problem = Diagnostic::warning(format!(
            "{} has {} of {} workers ready{end}",
            watcher.name, watcher.ready, watcher.wanted
        ));
        report::print_problem(&problem.help("`mfserv status` shows its last lines"));
    }
    for problem in status.problems.iter().filter(|p| p.severity == Severity::Error) {
        report::print_problem(problem);
    }
}

#[derive(Debug, Args)]
pub struct Run {
    /// A value that overrides all configuration files until the node is stopped.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", conflicts_with = "app")]
    sets: Vec<String>,
    /// Run a command in the environment of this app (`foo`, `foo.main`) instead of the node.
    #[arg(add = ArgValueCompleter::new(completions::apps_or_directories))]
    app: Option<String>,
    /// The command.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Run {
    /// This process becomes the keeper, or the command.
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        if let Some(app) = &self.app {
            return run_beside::run(places, app, &self.command);
        }
        use std::os::unix::process::CommandExt;
        let module = configure::module(places, &sets(&self.sets)?)?;
        refuse_bad_configuration(&module)?;
        refuse_bad_certificates(places, &module)?;
        warn_root();
        prepare(places, &module)?;
        #[expect(
            clippy::disallowed_methods,
            reason = "the first process of a node is started by hand"
        )]
        let mut command = Command::new(mfserv_node::program());
        command.args(["keep", "--home"]).arg(places.home());
        for set in &self.sets {
            command.args(["--set", set]);
        }
        Err(Diagnostic::error("the keeper does not start").because(command.exec()))
    }
}

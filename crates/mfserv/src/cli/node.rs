//! The node: start, stop, restart, reload, scale, upgrade.

use std::io::BufRead;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use mfserv_core::status::Status;
use mfserv_core::wire::keeper as keep;
use mfserv_core::{Diagnostic, Kind, Severity};
use mfserv_plugin::{Home, Progress, templates};

use super::progress::Steps;
use super::report::{self, Outcome};
use super::{print, print_json, sets};
use crate::configure;
use crate::control::client;
use crate::control::protocol::{Applied, Ask};
use crate::places::Places;

/// How long a daemon may take to answer a question about itself.
const QUICK: Duration = Duration::from_secs(10);
/// How long the keeper may take to kill everything.
const KILL: Duration = Duration::from_secs(60);
/// How often a state that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Debug, Args)]
pub struct Start {
    /// A value that beats every file, until the node is stopped.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    sets: Vec<String>,
    /// Do not wait until the node runs.
    #[arg(long)]
    no_wait: bool,
    /// Wait at most this long, seconds.
    #[arg(long, default_value_t = 300)]
    timeout: u64,
}

impl Start {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let module = configure::module(places, &sets(&self.sets)?)?;
        refuse_bad_configuration(&module)?;
        if !module.resolution.config.startup.enabled {
            print("MFSERV_STARTUP_FLAG=0 => nothing to start\n");
            return Ok(Outcome::Done);
        }
        warn_root();
        prepare(places, &module)?;
        let mut steps = Steps::new();
        let known = !self.bring_keeper(places, &mut steps)?;
        if known && !self.sets.is_empty() {
            let problem = Diagnostic::warning("--set has no effect on a node that runs");
            report::print_problem(&problem.help("use `mfserv config set` and `mfserv reload`"));
        }
        if self.no_wait {
            return Ok(Outcome::Done);
        }
        let patience = Duration::from_secs(self.timeout);
        let mut status = wait_until_running(places, patience, &mut steps);
        if status.as_ref().is_err_and(|problem| problem.kind == Kind::NotRunning) {
            // It was being stopped when we came.
            self.bring_keeper(places, &mut steps)?;
            status = wait_until_running(places, patience, &mut steps);
        }
        steps.finish();
        let status = match status {
            Err(problem) if problem.kind == Kind::Refused && !known => {
                // Nothing serves yet, and nothing will: leave no half of a node behind.
                let _ = shut_down(places);
                return Err(problem);
            }
            other => other?,
        };
        say_running(&status, known);
        Ok(Outcome::Done)
    }
}

impl Start {
    /// Starts a keeper if none lives; returns whether it did. Of several that try at the
    /// same time one succeeds, and the others find its keeper.
    fn bring_keeper(&self, places: &Places, steps: &mut Steps) -> Result<bool, Diagnostic> {
        let lives = || mfserv_keeper::Client::connect(&places.keep_socket(), "cli").is_ok();
        if lives() {
            return Ok(false);
        }
        steps.step("starting the keeper");
        match start_keeper(places, &self.sets) {
            Ok(()) => Ok(true),
            Err(_) if lives() => Ok(false),
            Err(problem) => Err(problem),
        }
    }
}

fn refuse_bad_configuration(module: &configure::Module) -> Result<(), Diagnostic> {
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
fn prepare(places: &Places, module: &configure::Module) -> Result<(), Diagnostic> {
    places.create()?;
    let home = Home::new(places.home());
    mfserv_plugin::store::recover(&home);
    for name in &module.resolution.config.internal_plugins.install {
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

/// Starts a keeper that outlives this command; returns when its socket listens.
fn start_keeper(places: &Places, sets: &[String]) -> Result<(), Diagnostic> {
    let mut command = keeper_command(places)?;
    for set in sets {
        command.args(["--set", set]);
    }
    ready(command)
}

fn keeper_command(places: &Places) -> Result<Command, Diagnostic> {
    let path = places.log().join("keeper.log");
    let log = std::fs::File::options().create(true).append(true).open(&path);
    let log =
        log.map_err(|e| Diagnostic::error(format!("cannot write {}", path.display())).because(e))?;
    let mut command = Command::new(crate::program());
    command.args(["keep", "--ready-on-stdout", "--home"]).arg(places.home());
    command.current_dir(places.home()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    Ok(command)
}

fn ready(mut command: Command) -> Result<(), Diagnostic> {
    let failed =
        |e: &dyn std::fmt::Display| Diagnostic::error("the keeper does not start").because(e);
    let mut child: Child = command.spawn().map_err(|e| failed(&e))?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        let _ = std::io::BufReader::new(out).read_line(&mut line);
    }
    if line.trim() == "ready" {
        return Ok(());
    }
    let status = child.wait().map_err(|e| failed(&e))?;
    Err(failed(&format!("it ended: {status}")).help("log/keeper.log in the runtime home says why"))
}

fn wait_until_running(
    places: &Places,
    patience: Duration,
    steps: &mut Steps,
) -> Result<Status, Diagnostic> {
    let began = Instant::now();
    let mut said = String::new();
    loop {
        if let Ok(status) = client::ask::<Status>(&places.control_socket(), &Ask::Status, QUICK) {
            // A daemon that lived on while there was no keeper must have found the new one.
            if status.state == "RUNNING" && status.keeper.is_some() && status.generation > 0 {
                return Ok(status);
            }
            if status.state == "ERROR" {
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
    let front = status.watchers.iter().find(|w| w.plugin.is_none());
    if let Some(end) = front.and_then(|front| front.last_end.as_ref()) {
        problem =
            problem.because(format!("{}: {}\n{}", end.worker, end.why, end.last_output.trim_end()));
    }
    problem.help("`mfserv events` shows what happened")
}

fn say_running(status: &Status, known: bool) {
    let address = status.address.as_deref().unwrap_or("(no listener)");
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
pub struct Stop {
    /// Kill everything at once instead of finishing requests.
    #[arg(long)]
    kill: bool,
}

impl Stop {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        match std::fs::read_dir(places.run()) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                print("mfserv is not running\n");
                return Ok(Outcome::Done);
            }
            Err(error) => {
                return Err(Diagnostic::error("the node's state cannot be read")
                    .kind(Kind::Refused)
                    .because(format!("{}: {error}", places.run().display()))
                    .help("stop it as the user that started it"));
            }
        }
        let mut steps = Steps::new();
        bring_back_keeper(places)?;
        if !self.kill {
            steps.step("stopping: requests are finished first");
            replace_hanging_daemon(places)?;
            match client::ask::<Applied>(
                &places.control_socket(),
                &Ask::Stop,
                Duration::from_secs(700),
            ) {
                Ok(_) => {}
                Err(problem) if problem.kind == Kind::NotRunning => {}
                Err(problem) => report::print_problem(&problem),
            }
        }
        steps.step("stopping: ending what is left");
        let was_running = shut_down(places)?;
        steps.finish();
        let text = if was_running { "mfserv is stopped" } else { "mfserv is not running" };
        print(&format!("{text}\n"));
        Ok(Outcome::Done)
    }
}

/// Without a keeper nothing can be stopped in order: a new one adopts what an
/// earlier one left. Returns once a daemon that lives knows of it.
fn bring_back_keeper(places: &Places) -> Result<(), Diagnostic> {
    let left_something = places.run().join("keeper.json").exists();
    if !left_something || mfserv_keeper::Client::connect(&places.keep_socket(), "cli").is_ok() {
        return Ok(());
    }
    let mut command = keeper_command(places)?;
    command.arg("--no-daemon");
    ready(command)?;
    let began = Instant::now();
    while began.elapsed() < QUICK {
        let status = client::ask::<Status>(&places.control_socket(), &Ask::Status, QUICK);
        if !status.is_ok_and(|status| status.keeper.is_none()) {
            break;
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// A daemon that lives and does not answer (stopped, or stuck) is killed: the keeper
/// brings another one, which can stop the node in order. Returns once that answers.
fn replace_hanging_daemon(places: &Places) -> Result<(), Diagnostic> {
    let look = || client::ask::<Status>(&places.control_socket(), &Ask::Status, QUICK);
    if !look().is_err_and(|problem| problem.kind == Kind::Timeout) {
        return Ok(());
    }
    report::print_problem(&Diagnostic::warning("the daemon does not answer: it is replaced"));
    let mut keeper = mfserv_keeper::Client::connect(&places.keep_socket(), "cli")?;
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
fn shut_down(places: &Places) -> Result<bool, Diagnostic> {
    let socket = places.keep_socket();
    let mut keeper = None;
    if let Ok(mut client) = mfserv_keeper::Client::connect(&socket, "cli") {
        keeper = Some(client.greeting().pid);
        // It may end by itself at this very moment, because the daemon asked first.
        let _ = client.ask_within(keep::Ask::Shutdown, KILL);
    }
    let lived = keeper.is_some() || socket.exists();
    let began = Instant::now();
    while keeper.is_some_and(is_alive) {
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

/// Sockets of killed roles; nobody listens on them any more.
fn remove_leftovers(places: &Places) {
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
    let _ = std::fs::write(places.status_file(), "STOPPED\n");
}

/// How long an operation that changes workers is waited for.
#[derive(Debug, Args)]
pub struct Wait {
    /// Do not wait until what changed is served.
    #[arg(long)]
    pub no_wait: bool,
    /// Wait at most this long, seconds.
    #[arg(long, default_value_t = 120)]
    pub timeout: u64,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

impl Wait {
    fn seconds(&self) -> u64 {
        if self.no_wait { 0 } else { self.timeout.max(1) }
    }

    /// Asks the daemon, waits, and says what changed.
    pub fn ask(
        &self,
        places: &Places,
        what: &str,
        ask: impl Fn(u64) -> Ask,
    ) -> Result<Applied, Diagnostic> {
        let mut steps = Steps::new();
        let seconds = self.seconds();
        if seconds > 0 {
            steps.step(what);
        }
        let patience = QUICK + Duration::from_secs(seconds * 2 + 60);
        client::ask(&places.control_socket(), &ask(seconds), patience)
    }

    fn say(&self, applied: &Applied) -> Result<Outcome, Diagnostic> {
        if self.json {
            print_json(applied)?;
            return Ok(Outcome::Done);
        }
        print(&format!("done: {}\n", applied.changes));
        applied.problems.iter().for_each(report::print_problem);
        Ok(Outcome::Done)
    }
}

#[derive(Debug, Args)]
pub struct Restart {
    /// Plugins (`foo`), apps (`foo.main`) or `front`; without any: everything.
    apps: Vec<String>,
    #[command(flatten)]
    wait: Wait,
}

impl Restart {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let applied = self.wait.ask(places, "replacing workers one after the other", |wait_s| {
            Ask::Restart { apps: self.apps.clone(), wait_s }
        })?;
        if self.apps.is_empty() {
            self.wait.ask(places, "replacing the front", |wait_s| Ask::Restart {
                apps: vec!["front".into()],
                wait_s,
            })?;
        }
        self.wait.say(&applied)
    }
}

#[derive(Debug, Args)]
pub struct Reload {
    #[command(flatten)]
    wait: Wait,
}

impl Reload {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let applied =
            self.wait.ask(places, "reading everything again", |wait_s| Ask::Reload { wait_s })?;
        self.wait.say(&applied)
    }
}

#[derive(Debug, Args)]
pub struct Scale {
    /// The app (`foo`, `foo.main`).
    app: String,
    /// How many workers; `config` = what its configuration says.
    count: String,
    #[command(flatten)]
    wait: Wait,
}

impl Scale {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let count = match self.count.as_str() {
            "config" => None,
            text => Some(text.parse::<u32>().ok().filter(|n| *n <= 4096).ok_or_else(|| {
                Diagnostic::error(format!("{text:?} is not a number of workers"))
                    .kind(Kind::Usage)
                    .help("say a number from 0 to 4096, or `config`")
            })?),
        };
        let applied = self.wait.ask(places, "scaling", |wait_s| Ask::Scale {
            app: self.app.clone(),
            count,
            wait_s,
        })?;
        self.wait.say(&applied)
    }
}

#[derive(Debug, Args)]
pub struct Run {
    /// A value that beats every file, until the node is stopped.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    sets: Vec<String>,
}

impl Run {
    /// This process becomes the keeper.
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        use std::os::unix::process::CommandExt;
        let module = configure::module(places, &sets(&self.sets)?)?;
        refuse_bad_configuration(&module)?;
        warn_root();
        prepare(places, &module)?;
        let mut command = Command::new(crate::program());
        command.args(["keep", "--home"]).arg(places.home());
        for set in &self.sets {
            command.args(["--set", set]);
        }
        Err(Diagnostic::error("the keeper does not start").because(command.exec()))
    }
}

#[derive(Debug, Args)]
pub struct Upgrade {
    #[command(flatten)]
    wait: Wait,
}

impl Upgrade {
    /// Keeper by execve, then the daemon, then the front by handover. Apps are not touched.
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let before: Status = client::ask(&places.control_socket(), &Ask::Status, QUICK)?;
        let mut keeper = mfserv_keeper::Client::connect(&places.keep_socket(), "cli")?;
        if let keep::Answer::Refused { reason, .. } =
            keeper.ask(keep::Ask::Upgrade { program: crate::program() })?
        {
            return Err(Diagnostic::error("the keeper goes on as it was").because(reason));
        }
        drop(keeper);
        let mut keeper = reconnect(places)?;
        let daemon = mfserv_keeper::DAEMON.to_string();
        keeper.ask(keep::Ask::Signal { id: daemon, signal: 15, scope: keep::Scope::Process })?;
        let mut steps = Steps::new();
        let began = Instant::now();
        while wait_until_running(places, Duration::from_secs(60), &mut steps)?.daemon.pid
            == before.daemon.pid
        {
            if began.elapsed() > Duration::from_secs(60) {
                return Err(Diagnostic::error("the daemon was not replaced").kind(Kind::Timeout));
            }
            std::thread::sleep(LOOK);
        }
        let front = self.wait.ask(places, "replacing the front", |wait_s| Ask::Restart {
            apps: vec!["front".into()],
            wait_s,
        })?;
        self.wait.say(&front)
    }
}

fn reconnect(places: &Places) -> Result<mfserv_keeper::Client, Diagnostic> {
    let began = Instant::now();
    loop {
        match mfserv_keeper::Client::connect(&places.keep_socket(), "cli") {
            Err(_) if began.elapsed() < QUICK => std::thread::sleep(LOOK),
            other => return other,
        }
    }
}

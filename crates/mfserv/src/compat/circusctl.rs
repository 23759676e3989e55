//! `circusctl`: the predecessor's commands on watchers, as far as a node of ours has them.

use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand, ValueEnum};
use mfserv_core::names::WatcherName;
use mfserv_core::status::{Status, WatcherStatus};
use mfserv_core::wire::keeper::{Answer, Ask as AskKeeper, Scope};
use mfserv_core::{Diagnostic, Kind};

use super::watchers::{is_gone, matches, set_count};
use super::{ask, node_status, places};
use crate::cli::keeper::{self, LOOK};
use crate::cli::print;
use crate::cli::report::Outcome;
use crate::control::protocol::Ask;
use crate::places::Places;

/// How long `--waiting` waits, seconds.
const WAITING_S: u64 = 120;
/// errno(3): no such process.
const ESRCH: i32 = 3;
/// What the predecessor called the web front.
const NGINX: &str = "nginx";

/// Look at the watchers of the node, and change them.
#[derive(Debug, Parser)]
#[command(name = "circusctl", version)]
struct CircusCtl {
    /// (accepted, as before: the node is the one of MFMODULE_RUNTIME_HOME)
    #[arg(long = "endpoint", global = true)]
    _endpoint: Option<String>,
    /// (accepted, as before)
    #[arg(long = "timeout", global = true)]
    _timeout: Option<f64>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The watchers; or the processes of one.
    List { name: Option<String> },
    /// The state of all watchers, or of one.
    Status { name: Option<String> },
    /// Start watchers that were stopped.
    Start(Named),
    /// Stop watchers until they are started again.
    Stop(Named),
    /// Replace the workers, one after the other: no request is lost.
    Restart(Named),
    /// The same as restart.
    Reload(Reload),
    /// How many processes there are.
    Numprocesses { name: Option<String> },
    /// How many watchers there are.
    Numwatchers,
    /// Keep more workers of a watcher.
    Incr {
        name: String,
        #[arg(default_value_t = 1)]
        by: u32,
    },
    /// Keep fewer workers of a watcher.
    Decr {
        name: String,
        #[arg(default_value_t = 1)]
        by: u32,
    },
    /// Ask processes to end; those that do not are killed.
    Kill(Kill),
    /// Send a signal to the processes of a watcher.
    Signal(Signal),
    /// Memory and CPU time of the processes.
    Stats { name: Option<String>, pid: Option<u32> },
    /// Read the configuration and the plugins again.
    Reloadconfig,
    #[command(external_subcommand)]
    Other(Vec<String>),
}

#[derive(Debug, Args)]
struct Named {
    /// The watcher; all watchers of plugins by default.
    name: Option<String>,
    /// Wait until it is done.
    #[arg(long)]
    waiting: bool,
    /// What the name is.
    #[arg(long = "match", value_enum, default_value = "simple")]
    how: Match,
}

#[derive(Debug, Args)]
struct Reload {
    #[command(flatten)]
    named: Named,
    /// (accepted, as before)
    #[arg(long = "terminate")]
    _terminate: bool,
    /// (accepted, as before: it always is)
    #[arg(long = "sequential")]
    _sequential: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Match {
    Simple,
    Glob,
    Regex,
}

#[derive(Debug, Args)]
struct Kill {
    /// The watcher.
    name: String,
    /// Only this process.
    pid: Option<u32>,
    /// The signal that asks.
    #[arg(long, default_value = "TERM")]
    signum: String,
    /// Seconds until SIGKILL.
    #[arg(long, default_value_t = 10.0)]
    graceful_timeout: f64,
}

#[derive(Debug, Args)]
struct Signal {
    /// The watcher.
    name: String,
    /// [PID] SIGNUM
    #[arg(required = true, num_args = 1..=3)]
    rest: Vec<String>,
    /// To what the processes have started too.
    #[arg(long)]
    children: bool,
    /// To what the processes have started too.
    #[arg(long)]
    recursive: bool,
}

pub fn run() -> Result<Outcome, Diagnostic> {
    let args = CircusCtl::parse();
    let places = places()?;
    let Ok(status) = node_status(&places) else {
        print("error\n");
        return super::failed();
    };
    let node = Node { places, status };
    match node.answer(&args.command) {
        Ok(text) => {
            print(&format!("{text}\n"));
            Ok(Outcome::Done)
        }
        Err(problem) => {
            let because = problem.because.first().map(|why| format!(": {why}")).unwrap_or_default();
            eprintln!("error: {}{because}", problem.what);
            Ok(Outcome::Code(3))
        }
    }
}

/// The node that is asked.
struct Node {
    places: Places,
    status: Status,
}

impl Node {
    fn answer(&self, command: &Command) -> Result<String, Diagnostic> {
        match command {
            Command::List { name: None } => {
                Ok(self.status.watchers.iter().map(shown).collect::<Vec<_>>().join(","))
            }
            Command::List { name: Some(name) } => {
                let pids = self.find(name)?.workers.iter().filter_map(|worker| worker.pid);
                Ok(pids.map(|pid| pid.to_string()).collect::<Vec<_>>().join(","))
            }
            Command::Status { name: None } => {
                let line = |watcher| format!("{}: {}", shown(watcher), state(watcher));
                let mut lines: Vec<String> = self.status.watchers.iter().map(line).collect();
                lines.sort();
                Ok(lines.join("\n"))
            }
            Command::Status { name: Some(name) } => Ok(state(self.find(name)?).into()),
            Command::Start(named) => self.each(named, |watcher| match watcher.wanted {
                0 => set_count(&self.places, &watcher.name, None),
                _ => Ok(()),
            }),
            Command::Stop(named) => self.stop(named),
            Command::Restart(named) => self.restart(named),
            Command::Reload(reload) => self.restart(&reload.named),
            Command::Numprocesses { name } => {
                let all = self.status.watchers.iter().collect();
                let watchers = name.as_ref().map_or(Ok(all), |name| Ok(vec![self.find(name)?]))?;
                Ok(watchers.iter().map(|watcher| watcher.workers.len()).sum::<usize>().to_string())
            }
            Command::Numwatchers => Ok(self.status.watchers.len().to_string()),
            Command::Incr { name, by } => self.scale(name, |count| count.saturating_add(*by)),
            Command::Decr { name, by } => self.scale(name, |count| count.saturating_sub(*by)),
            Command::Kill(kill) => self.kill(kill),
            Command::Signal(signal) => self.signal(signal),
            Command::Stats { name, pid } => self.stats(name.as_deref(), *pid),
            Command::Reloadconfig => {
                ask(&self.places, &Ask::Reload { wait_s: 0 }, 0).map(|_| "ok".into())
            }
            Command::Other(words) => Err(not_there(words.first().map_or("", String::as_str))),
        }
    }

    /// A watcher, whatever the case of its name.
    fn find(&self, name: &str) -> Result<&WatcherStatus, Diagnostic> {
        let found = self.status.watchers.iter().find(|one| shown(one).eq_ignore_ascii_case(name));
        found
            .or_else(|| self.status.watchers.iter().find(|one| one.name.as_str() == name))
            .ok_or_else(|| Diagnostic::error(format!("program {name} not found")))
    }

    /// The watchers that are meant: those of plugins by default.
    fn meant(&self, named: &Named) -> Result<Vec<&WatcherStatus>, Diagnostic> {
        let own = || self.status.watchers.iter().filter(|watcher| watcher.plugin.is_some());
        match (&named.name, named.how) {
            (None, _) => Ok(own().collect()),
            (Some(name), Match::Simple) => Ok(vec![self.find(name)?]),
            (Some(pattern), Match::Glob) => {
                let pattern = pattern.to_lowercase();
                let like = |one: &&WatcherStatus| matches(&pattern, &shown(one).to_lowercase());
                Ok(self.status.watchers.iter().filter(like).collect())
            }
            (Some(_), Match::Regex) => {
                Err(Diagnostic::error("--match regex is not supported: use --match glob"))
            }
        }
    }

    fn each(
        &self,
        named: &Named,
        change: impl Fn(&WatcherStatus) -> Result<(), Diagnostic>,
    ) -> Result<String, Diagnostic> {
        let watchers = self.meant(named)?;
        for watcher in &watchers {
            self.refuse_front(watcher)?;
            change(watcher)?;
        }
        if named.waiting {
            self.wait_until_settled(&watchers);
        }
        Ok("ok".into())
    }

    /// The front is stopped with the node only.
    fn refuse_front(&self, watcher: &WatcherStatus) -> Result<(), Diagnostic> {
        match watcher.plugin {
            Some(_) => Ok(()),
            None => Err(Diagnostic::error("the web front is started and stopped with the node")
                .because("use mfserv.start and mfserv.stop, or circusctl restart nginx")),
        }
    }

    fn wait_until_settled(&self, watchers: &[&WatcherStatus]) {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(WAITING_S) {
            let Ok(now) = node_status(&self.places) else { return };
            let waits = |name: &WatcherName| {
                let found = now.watchers.iter().find(|watcher| watcher.name == *name);
                found.is_some_and(|watcher| watcher.ready < watcher.wanted)
            };
            if !watchers.iter().any(|watcher| waits(&watcher.name)) {
                return;
            }
            std::thread::sleep(LOOK);
        }
    }

    fn stop(&self, named: &Named) -> Result<String, Diagnostic> {
        let said = self.each(named, |watcher| set_count(&self.places, &watcher.name, Some(0)))?;
        if named.waiting {
            self.meant(named)?.iter().for_each(|watcher| {
                is_gone(&self.places, &watcher.name);
            });
        }
        Ok(said)
    }

    fn restart(&self, named: &Named) -> Result<String, Diagnostic> {
        let apps: Vec<String> =
            self.meant(named)?.iter().map(|watcher| watcher.name.to_string()).collect();
        let wait_s = if named.waiting { WAITING_S } else { 0 };
        if !apps.is_empty() {
            ask(&self.places, &Ask::Restart { apps, wait_s }, wait_s)?;
        }
        Ok("ok".into())
    }

    fn scale(&self, name: &str, count: impl Fn(u32) -> u32) -> Result<String, Diagnostic> {
        let watcher = self.find(name)?;
        self.refuse_front(watcher)?;
        let count = count(watcher.wanted).min(4096);
        set_count(&self.places, &watcher.name, Some(count))?;
        Ok(count.to_string())
    }

    /// Sends a signal to the processes of a watcher, or to one of them; returns their names.
    fn send(
        &self,
        name: &str,
        pid: Option<u32>,
        signal: i32,
        scope: Scope,
    ) -> Result<Vec<String>, Diagnostic> {
        let workers = &self.find(name)?.workers;
        let meant =
            workers.iter().filter(|w| w.pid.is_some() && pid.is_none_or(|p| w.pid == Some(p)));
        let ids: Vec<String> = meant.map(|worker| worker.id.to_string()).collect();
        if let (Some(pid), true) = (pid, ids.is_empty()) {
            return Err(Diagnostic::error(format!("process {pid} is not one of {name}")));
        }
        let mut keeper = keeper::connect(&self.places)?;
        for id in &ids {
            let ask = AskKeeper::Signal { id: id.clone(), signal, scope };
            match keeper.ask(ask)? {
                // It has just ended.
                Answer::Refused { errno: ESRCH, .. } => {}
                Answer::Refused { reason, .. } => return Err(Diagnostic::error(reason)),
                _ => {}
            }
        }
        Ok(ids)
    }

    fn kill(&self, kill: &Kill) -> Result<String, Diagnostic> {
        let patience = Duration::try_from_secs_f64(kill.graceful_timeout)
            .map_err(|_| Diagnostic::error("--graceful_timeout is a number of seconds"))?;
        let ids = self.send(&kill.name, kill.pid, signal_number(&kill.signum)?, Scope::Process)?;
        let began = Instant::now();
        let left = || -> Vec<String> {
            let now = node_status(&self.places).map(|status| status.watchers).unwrap_or_default();
            let workers = now.iter().flat_map(|watcher| &watcher.workers);
            let alive = workers.filter(|worker| worker.pid.is_some()).map(|w| w.id.to_string());
            alive.filter(|id| ids.contains(id)).collect()
        };
        while !left().is_empty() {
            if began.elapsed() >= patience {
                let mut keeper = keeper::connect(&self.places)?;
                for id in left() {
                    // One that has just ended is what was wanted.
                    keeper.ask(AskKeeper::Signal { id, signal: 9, scope: Scope::Tree })?;
                }
                break;
            }
            std::thread::sleep(LOOK);
        }
        Ok("ok".into())
    }

    fn signal(&self, signal: &Signal) -> Result<String, Diagnostic> {
        let scope = if signal.children || signal.recursive { Scope::Tree } else { Scope::Process };
        let number = |text: &String| {
            text.parse::<u32>().map_err(|_| Diagnostic::error(format!("{text} is not a process")))
        };
        let (pid, signum) = match &signal.rest[..] {
            [signum] => (None, signum),
            [pid, signum] => (Some(number(pid)?), signum),
            _ => {
                return Err(Diagnostic::error("a signal cannot be sent to a child by its number")
                    .because("use --children, or kill"));
            }
        };
        self.send(&signal.name, pid, signal_number(signum)?, scope).map(|_| "ok".into())
    }

    fn stats(&self, name: Option<&str>, pid: Option<u32>) -> Result<String, Diagnostic> {
        let all = self.status.watchers.iter().collect();
        let watchers = name.map_or(Ok(all), |name| Ok(vec![self.find(name)?]))?;
        let mut lines = Vec::new();
        for watcher in watchers {
            lines.push(format!("{}:", shown(watcher)));
            for worker in &watcher.workers {
                let Some(id) = worker.pid.filter(|id| pid.is_none_or(|pid| pid == *id)) else {
                    continue;
                };
                let memory = worker.memory_bytes.map_or_else(|| "N/A".into(), crate::say::bytes);
                let cpu = worker.cpu_ms.map_or_else(|| "N/A".into(), |ms| format!("{ms}ms"));
                lines.push(format!("{id}: {}  cpu:{cpu} mem:{memory}", worker.id));
            }
        }
        Ok(lines.join("\n"))
    }
}

/// The name of a watcher, as the predecessor had it.
fn shown(watcher: &WatcherStatus) -> &str {
    if watcher.plugin.is_none() { NGINX } else { watcher.name.as_str() }
}

/// One of the predecessor's four states.
fn state(watcher: &WatcherStatus) -> &'static str {
    match (watcher.state.as_str(), watcher.ready) {
        ("off", _) => "stopped",
        ("stopping", _) => "stopping",
        (_, 0) => "starting",
        _ => "active",
    }
}

/// `15`, `TERM` or `SIGTERM`.
fn signal_number(text: &str) -> Result<i32, Diagnostic> {
    let names = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("KILL", 9),
        ("USR1", 10),
        ("USR2", 12),
        ("TERM", 15),
        ("CONT", 18),
        ("STOP", 19),
        ("WINCH", 28),
    ];
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let named = names.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    named
        .or_else(|| text.parse().ok().filter(|number| (1..=64).contains(number)))
        .ok_or_else(|| Diagnostic::error(format!("{text} is not a signal")).kind(Kind::Usage))
}

/// What a node of ours has not, and what there is instead.
fn not_there(command: &str) -> Diagnostic {
    let instead = match command {
        "add" | "rm" => {
            "watchers are those of installed plugins: plugins.install, plugins.uninstall"
        }
        "set" | "get" | "options" => {
            "the configuration is in files: mfserv config, mfserv env PLUGIN"
        }
        "globaloptions" => "the configuration is in files: mfserv config show",
        "quit" => "use mfserv.stop",
        "dstats" => "use stats, or mfserv status",
        "listsockets" | "listen" => "use mfserv status, mfserv events",
        "" => "there is no interactive mode",
        _ => "see circusctl --help",
    };
    Diagnostic::error(format!("{command} is not supported")).because(instead)
}

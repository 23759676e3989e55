//! `circusctl`: MFSERV's commands on watchers, as far as a node of ours has them.

mod node;

use clap::{Args, Parser, Subcommand, ValueEnum};
use mfserv_core::Diagnostic;
use mfserv_core::names::WatcherName;
use mfserv_core::status::Status;

use super::watchers::set_count;
use super::{node_status, operate, places};
use crate::cli::report::Outcome;
use crate::cli::{complain, print};
use mfserv_node::operations::Request;
use mfserv_node::places::Places;
use node::{shown, state};

/// Who changes the node.
const CIRCUSCTL: &str = "circusctl";

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
    command: Option<Command>,
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
    let Ok(mut status) = node_status(&places) else {
        print("error\n");
        return super::failed();
    };
    // MFSERV had no such watcher.
    status.watchers.retain(|watcher| watcher.name != WatcherName::telemetry());
    let node = Node { places, status };
    let no_command = || Diagnostic::error("there is no interactive mode: see circusctl --help");
    match args.command.ok_or_else(no_command).and_then(|command| node.answer(&command)) {
        Ok(text) => {
            print(&format!("{text}\n"));
            Ok(Outcome::Done)
        }
        Err(problem) => {
            let because = problem.because.first().map(|why| format!(": {why}")).unwrap_or_default();
            complain(&format!("error: {}{because}", problem.what));
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
                0 => set_count(&self.places, CIRCUSCTL, &watcher.name, None),
                _ => Ok(()),
            }),
            Command::Stop(named) => self.stop(named),
            Command::Restart(named) => self.restart(named),
            Command::Reload(reload) => self.restart(&reload.named),
            Command::Numprocesses { name } => {
                let watchers = match name {
                    Some(name) => vec![self.find(name)?],
                    None => self.status.watchers.iter().collect(),
                };
                Ok(watchers.iter().map(|watcher| watcher.workers.len()).sum::<usize>().to_string())
            }
            Command::Numwatchers => Ok(self.status.watchers.len().to_string()),
            Command::Incr { name, by } => self.scale(name, |count| count.saturating_add(*by)),
            Command::Decr { name, by } => self.scale(name, |count| count.saturating_sub(*by)),
            Command::Kill(kill) => self.kill(kill),
            Command::Signal(signal) => self.signal(signal),
            Command::Stats { name, pid } => self.stats(name.as_deref(), *pid),
            Command::Reloadconfig => {
                operate(&self.places, CIRCUSCTL, Request::Reload, 0).map(|_| "ok".into())
            }
            Command::Other(words) => Err(not_there(words.first().map_or("", String::as_str))),
        }
    }
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
        _ => "see circusctl --help",
    };
    Diagnostic::error(format!("{command} is not supported")).because(instead)
}

//! `circusctl`: a command line becomes a message of Circus, which the daemon answers as it answers
//! the `circusctl` of Circus itself; what is printed is what that one prints.

mod listen;
mod text;

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use mfserv_core::Diagnostic;
use serde_json::{Map, Value, json};

use super::{QUICK, failed, node_status, places};
use crate::cli::report::Outcome;
use crate::cli::{complain, print};
use mfserv_node::control::client;

/// How long a command may take that waits for its end.
const WAITING: Duration = Duration::from_secs(330);

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
    /// Print the whole answer as JSON.
    #[arg(long, global = true)]
    json: bool,
    /// With --json: in several lines.
    #[arg(long, global = true)]
    prettify: bool,
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
    /// Keep more workers of a watcher, until its configuration changes or is reloaded.
    Incr(Scale),
    /// Keep fewer workers of a watcher, until its configuration changes or is reloaded.
    Decr(Scale),
    /// Ask processes to end; those that do not are killed.
    Kill(Kill),
    /// Send a signal to the processes of a watcher.
    Signal(Signal),
    /// The options of a watcher.
    Options { name: String },
    /// Some options of a watcher.
    Get {
        name: String,
        #[arg(required = true)]
        keys: Vec<String>,
    },
    /// Set numprocesses, max_age, graceful_timeout or stop_signal of a watcher, until its
    /// configuration changes or is reloaded.
    Set(Set),
    /// The options of the node.
    Globaloptions { option: Option<String> },
    /// The sockets that the node listens on.
    Listsockets,
    /// Print what happens to the watchers, as it happens.
    Listen {
        /// What their topics begin with (`watcher.app.PLUGIN`); all events by default.
        topics: Vec<String>,
    },
    /// Memory and CPU of the processes.
    Stats {
        name: Option<String>,
        process: Option<u32>,
        /// (accepted, as before)
        #[arg(long = "extended")]
        _extended: bool,
    },
    /// Memory and CPU of the daemon.
    Dstats,
    /// Read the configuration and the plugins again.
    Reloadconfig {
        /// Wait until it is done.
        #[arg(long)]
        waiting: bool,
    },
    /// Stop the node, as mfserv.stop does.
    Quit {
        /// Wait until it is done.
        #[arg(long)]
        waiting: bool,
    },
    #[command(external_subcommand)]
    Other(Vec<String>),
}

#[derive(Debug, Args)]
struct Named {
    /// The watcher; all watchers by default.
    name: Option<String>,
    /// Wait until it is done.
    #[arg(long)]
    waiting: bool,
    /// What the name is.
    #[arg(long = "match", value_enum, default_value = "glob")]
    how: Match,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Match {
    Simple,
    Glob,
    Regex,
}

#[derive(Debug, Args)]
struct Reload {
    /// The watcher; all watchers by default.
    name: Option<String>,
    /// Wait until it is done.
    #[arg(long)]
    waiting: bool,
    /// (accepted, as before)
    #[arg(long = "terminate")]
    _terminate: bool,
    /// (accepted, as before: it always is)
    #[arg(long = "sequential")]
    _sequential: bool,
}

#[derive(Debug, Args)]
struct Scale {
    /// The watcher.
    name: String,
    /// How many.
    #[arg(default_value_t = 1)]
    by: u32,
    /// Wait until it is done.
    #[arg(long)]
    waiting: bool,
}

#[derive(Debug, Args)]
struct Kill {
    /// The watcher.
    name: String,
    /// Only this process.
    pid: Option<u32>,
    /// The signal that asks.
    #[arg(long)]
    signum: Option<String>,
    /// Seconds until SIGKILL.
    #[arg(long)]
    graceful_timeout: Option<f64>,
    /// Wait until it is done.
    #[arg(long)]
    waiting: bool,
}

#[derive(Debug, Args)]
struct Signal {
    /// The watcher.
    name: String,
    /// [PID [CHILDPID]] SIGNUM
    #[arg(required = true, num_args = 1..=3)]
    rest: Vec<String>,
    /// To what the processes have started, not to them.
    #[arg(long)]
    children: bool,
    /// To what the processes have started too.
    #[arg(long)]
    recursive: bool,
}

#[derive(Debug, Args)]
struct Set {
    /// The watcher.
    name: String,
    /// KEY VALUE …
    #[arg(required = true, allow_hyphen_values = true)]
    options: Vec<String>,
    /// Wait until it is done.
    #[arg(long)]
    waiting: bool,
}

pub fn run() -> Result<Outcome, Diagnostic> {
    let args = CircusCtl::parse();
    let places = places()?;
    if node_status(&places).is_err() {
        print("error\n");
        return failed();
    }
    let Some(command) = &args.command else {
        complain("error: there is no interactive mode: see circusctl --help");
        return Ok(Outcome::Code(3));
    };
    let (name, properties) = match command.message() {
        Ok(message) => message,
        Err(why) => {
            complain(&format!("error: {why}"));
            return Ok(Outcome::Code(1));
        }
    };
    let patience = if properties["waiting"] == true { WAITING } else { QUICK };
    let message = json!({"id": "circusctl", "command": name, "properties": properties});
    let answer = match client::circus(&places.control_socket(), &message, patience) {
        Ok(answer) => answer,
        Err(problem) => {
            let because = problem.because.first().map(|why| format!(": {why}")).unwrap_or_default();
            complain(&format!("error: {}{because}", problem.what));
            return Ok(Outcome::Code(3));
        }
    };
    if let Command::Listen { topics } = command {
        return listen::run(&answer, topics).map(|()| Outcome::Done);
    }
    if args.json {
        let answer = Value::Object(answer);
        let shown = if args.prettify { format!("{answer:#}") } else { answer.to_string() };
        print(&format!("{shown}\n"));
        return Ok(Outcome::Done);
    }
    Ok(shown(&name, &answer))
}

fn shown(command: &str, answer: &Map<String, Value>) -> Outcome {
    if answer.get("status").is_some_and(|status| status == "error") {
        let reason = answer.get("reason").and_then(Value::as_str).unwrap_or_default();
        complain(&format!("error: {reason}"));
        return Outcome::Code(3);
    }
    print(&format!("{}\n", text::of(command, answer)));
    Outcome::Done
}

impl Command {
    /// The name of the command, and what it is about.
    fn message(&self) -> Result<(String, Value), String> {
        let named = |named: &Named| {
            let how = named.how.to_possible_value();
            let how = how.as_ref().map_or("glob", |value| value.get_name());
            json!({"name": named.name, "waiting": named.waiting, "match": how})
        };
        let scaled =
            |scale: &Scale| json!({"name": scale.name, "nb": scale.by, "waiting": scale.waiting});
        let message = match self {
            Command::List { name } => ("list", json!({"name": name})),
            Command::Status { name } => ("status", json!({"name": name})),
            Command::Start(it) => ("start", named(it)),
            Command::Stop(it) => ("stop", named(it)),
            Command::Restart(it) => ("restart", named(it)),
            Command::Reload(it) => ("reload", json!({"name": it.name, "waiting": it.waiting})),
            Command::Numprocesses { name } => ("numprocesses", json!({"name": name})),
            Command::Numwatchers => ("numwatchers", json!({})),
            Command::Incr(it) => ("incr", scaled(it)),
            Command::Decr(it) => ("decr", scaled(it)),
            Command::Kill(it) => (
                "kill",
                json!({"name": it.name, "pid": it.pid, "signum": it.signum,
                    "graceful_timeout": it.graceful_timeout, "waiting": it.waiting}),
            ),
            Command::Signal(it) => ("signal", it.properties()),
            Command::Options { name } => ("options", json!({"name": name})),
            Command::Get { name, keys } => ("get", json!({"name": name, "keys": keys})),
            Command::Set(it) => ("set", it.properties()?),
            Command::Globaloptions { option } => ("globaloptions", json!({"option": option})),
            Command::Listsockets => ("listsockets", json!({})),
            Command::Listen { .. } => ("globaloptions", json!({"option": "pubsub_endpoint"})),
            Command::Stats { name, process, .. } => {
                ("stats", json!({"name": name, "process": process}))
            }
            Command::Dstats => ("dstats", json!({})),
            Command::Reloadconfig { waiting } => ("reloadconfig", json!({"waiting": waiting})),
            Command::Quit { waiting } => ("quit", json!({"waiting": waiting})),
            Command::Other(words) => (words.first().map_or("", String::as_str), json!({})),
        };
        Ok((message.0.to_string(), message.1))
    }
}

impl Signal {
    fn properties(&self) -> Value {
        let (signum, pids) = match self.rest.split_last() {
            Some((signum, pids)) => (signum.as_str(), pids),
            None => ("", &[][..]),
        };
        json!({"name": self.name, "signum": signum, "pid": pids.first(), "childpid": pids.get(1),
            "children": self.children, "recursive": self.recursive})
    }
}

impl Set {
    fn properties(&self) -> Result<Value, String> {
        let mut options = Map::new();
        for pair in self.options.chunks(2) {
            let [key, text] = pair else { return Err("List of key/values is invalid".into()) };
            let number = text.parse::<serde_json::Number>().ok().map(Value::Number);
            options.insert(key.to_lowercase(), number.unwrap_or_else(|| text.as_str().into()));
        }
        Ok(json!({"name": self.name, "options": options, "waiting": self.waiting}))
    }
}

//! The protocol of Circus, MFSERV's process manager: `circusctl`, the Python `circus.client` and
//! what reads its events speak with the node as they did with `circusd`.
//!
//! A command becomes an operation of the node, so that it loses no request. `message` is the
//! form of questions and answers, `changes` what changes the node, `asked` in which order, `kills` whom `kill` has asked
//! to end, `options`, `signals`, `stats` what their names say, `endpoint` which `sockets` are
//! served, `clients` who is on them, `events` what is published, and `ini` the file `circus.ini`
//! for people. mfserv's own `circusctl` sends the same messages over the control API.

mod asked;
mod changes;
mod clients;
mod endpoint;
mod events;
mod ini;
mod kills;
mod message;
mod options;
mod signals;
mod sockets;
mod stats;
#[cfg(test)]
mod tests;
mod watchers;

use std::sync::Arc;

use mfserv_core::plan::Plan;
use mfserv_core::status::WatcherStatus;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::node::Node;
use crate::operations::{Operations, Who};
use asked::Asked;
pub use endpoint::run;
use kills::Kills;
pub use message::Fields;
use message::{Errno, Message, Refusal, answer};
pub use sockets::remove_sockets;
use watchers::{Watchers, pids, shown, state};

/// At most this many changes are begun or waited for at a time.
pub const MOST_COMMANDS: usize = 64;

/// The commands that change the node.
const CHANGES: [&str; 11] = [
    "decr",
    "incr",
    "kill",
    "quit",
    "reload",
    "reloadconfig",
    "restart",
    "set",
    "signal",
    "start",
    "stop",
];

/// What a client may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Everything; who it is.
    Full(Who),
    /// It may look, and is not shown the values of variables: nobody knows whose it is.
    Look,
}

/// Answers clients of Circus. Cheap to clone.
#[derive(Clone)]
pub struct Circus(Arc<Inner>);

pub struct Inner {
    node: Node,
    operations: Operations<Node>,
    /// Held while a command reads what it changes, so that of two `incr` none is lost.
    turn: Mutex<()>,
    asked: Asked,
    kills: Kills,
}

impl std::ops::Deref for Circus {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Circus {
    /// Answers for this node.
    pub fn new(node: Node, operations: Operations<Node>) -> Circus {
        let (turn, asked, kills) = (Mutex::default(), Asked::default(), Kills::default());
        Circus(Arc::new(Inner { node, operations, turn, asked, kills }))
    }

    /// The answer to a message; `None` if the client wants none. A change that has begun is
    /// carried out whether or not its client stays.
    pub async fn answer(&self, text: Vec<u8>, access: Access) -> Option<Fields> {
        let (id, is_cast, done) = match Message::parse(&text) {
            Ok(message) => {
                let (id, is_cast) = (message.id.clone(), message.is_cast);
                let done = match CHANGES.contains(&message.command.as_str()) {
                    true => self.begin(message, access).await,
                    false => self.look(&message, &access).await,
                };
                (id, is_cast, done)
            }
            Err((id, refusal)) => (id, false, Err(refusal)),
        };
        (!is_cast).then(|| answer(id, done, self.node.parts.world.clock.now_ms()))
    }

    /// Begins a change, in a task of its own.
    async fn begin(&self, message: Message, access: Access) -> Result<Fields, Refusal> {
        let Access::Full(who) = access else {
            return Err(Refusal::message(
                "over tcp:// a client may only look, because ZeroMQ knows no user: use the unix \
                 socket, or set [circus] tcp_may_change=1",
            ));
        };
        let place = self.node.commands.clone().try_acquire_owned();
        let place = place.map_err(|_| {
            Refusal::command(format!("{MOST_COMMANDS} changes are waited for: try again later"))
        })?;
        let circus = self.clone();
        let done = tokio::spawn(async move {
            let _place = place;
            circus.change(&message, &who).await
        });
        done.await.unwrap_or_else(|why| Err(Refusal::command(why.to_string())))
    }

    async fn look(&self, message: &Message, access: &Access) -> Result<Fields, Refusal> {
        match message.command.as_str() {
            "list" => self.list(message).await,
            "status" => self.status(message).await,
            "numprocesses" => self.numprocesses(message).await,
            "numwatchers" => Ok(field("numwatchers", self.watchers().await.iter().len())),
            "stats" => self.stats(message).await,
            "dstats" => {
                let own = std::process::id();
                let found = stats::of_processes(&[own], false).await.remove(&own);
                Ok(field("info", found.unwrap_or_default()))
            }
            "options" => {
                let options = self.options(message, access)?;
                Ok(field("options", options))
            }
            "get" => {
                let keys = message.required("keys")?;
                Ok(field("options", options::chosen(&self.options(message, access)?, keys)?))
            }
            "globaloptions" => {
                let options = options::of_node(&*self.plan()?, message.text("option")?)?;
                Ok(field("options", options))
            }
            "listsockets" => Ok(field("sockets", options::sockets(&*self.plan()?))),
            other => Err(not_there(other)),
        }
    }

    async fn watchers(&self) -> Watchers {
        Watchers::new(self.node.watchers().await)
    }

    fn plan(&self) -> Result<Arc<Plan>, Refusal> {
        Ok(self.node.shown_plan()?)
    }

    async fn list(&self, message: &Message) -> Result<Fields, Refusal> {
        let watchers = self.watchers().await;
        match message.get("name") {
            Some(_) => Ok(field("pids", pids(watchers.named(message)?))),
            None => {
                let names: Vec<&str> = watchers.iter().map(|one| shown(&one.name)).collect();
                Ok(field("watchers", names))
            }
        }
    }

    async fn status(&self, message: &Message) -> Result<Fields, Refusal> {
        let watchers = self.watchers().await;
        match message.get("name") {
            Some(_) => Ok(field("status", state(watchers.named(message)?))),
            None => {
                let all = watchers.iter().map(|one| (shown(&one.name).into(), state(one).into()));
                Ok(field("statuses", all.collect::<Fields>()))
            }
        }
    }

    async fn numprocesses(&self, message: &Message) -> Result<Fields, Refusal> {
        let watchers = self.watchers().await;
        let count = |watcher: &WatcherStatus| pids(watcher).len();
        match message.get("name") {
            Some(name) => {
                let mut fields = field("numprocesses", count(watchers.named(message)?));
                fields.insert("watcher_name".into(), name.clone());
                Ok(fields)
            }
            None => Ok(field("numprocesses", watchers.iter().map(count).sum::<usize>())),
        }
    }

    fn options(&self, message: &Message, access: &Access) -> Result<Fields, Refusal> {
        let plan = self.plan()?;
        let spec = options::spec(&plan, message.name()?)?;
        Ok(options::of_watcher(spec, *access != Access::Look))
    }

    async fn stats(&self, message: &Message) -> Result<Fields, Refusal> {
        let watchers = self.watchers().await;
        let Some(name) = message.text("name")? else {
            let all: Vec<&WatcherStatus> = watchers.iter().collect();
            let found = self.stats_of(&all).await;
            let by_name = all.iter().zip(found).map(|(one, info)| (shown(&one.name).into(), info));
            return Ok(field("infos", by_name.collect::<Fields>()));
        };
        let watcher = watchers.find(name)?;
        let mut info = self.stats_of(&[watcher]).await.pop().unwrap_or_default();
        let Some(process) = message.number::<u32>("process")? else {
            let mut fields = field("info", info);
            fields.insert("name".into(), name.into());
            return Ok(fields);
        };
        let found = info.as_object_mut().and_then(|info| info.remove(&process.to_string()));
        let missing = || Refusal::message(format!("process {process} not found in '{name}'"));
        let mut fields = field("info", found.ok_or_else(missing)?);
        fields.insert("process".into(), process.into());
        Ok(fields)
    }

    /// Of each watcher: its processes by number, with what they use.
    async fn stats_of(&self, watchers: &[&WatcherStatus]) -> Vec<Value> {
        let all: Vec<u32> = watchers.iter().flat_map(|one| pids(one)).collect();
        let mut found = stats::of_processes(&all, true).await;
        let of_watcher = |watcher: &&WatcherStatus| {
            let workers = watcher.workers.iter().filter_map(|worker| {
                let mut fields = found.remove(&worker.pid?)?;
                fields.insert("started".into(), json!(worker.started_ms as f64 / 1000.0));
                fields.insert("wid".into(), worker.id.slot.into());
                Some((worker.pid?.to_string(), Value::Object(fields)))
            });
            Value::Object(workers.collect())
        };
        watchers.iter().map(of_watcher).collect()
    }
}

/// An answer with one field.
fn field(name: &str, value: impl Into<Value>) -> Fields {
    Fields::from_iter([(name.to_string(), value.into())])
}

/// What the node has not, and what there is instead.
fn not_there(command: &str) -> Refusal {
    let instead = match command {
        "add" | "rm" => {
            "watchers are those of installed plugins: use plugins.install and plugins.uninstall"
        }
        "ipython" => "nobody runs code inside of the node",
        "listen" => return Refusal::message("invalid message. use a pub/sub socket"),
        _ => {
            let reason = format!("unknown command: '{command}'");
            return Refusal { errno: Errno::UnknownCommand, reason };
        }
    };
    Refusal::message(format!("{command} is not supported: {instead}"))
}

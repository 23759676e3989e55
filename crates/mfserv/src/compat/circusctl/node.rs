//! What `circusctl` does to the watchers of a node.

use std::time::{Duration, Instant};

use mfserv_core::Diagnostic;
use mfserv_core::names::WatcherName;
use mfserv_core::status::{WatcherState, WatcherStatus};
use mfserv_core::wire::keeper::{Answer, Ask as AskKeeper, Scope};

use super::{CIRCUSCTL, Kill, Match, Named, Node, Signal};
use crate::cli::keeper::{self, LOOK};
use crate::compat::watchers::{is_gone, matches, set_count};
use crate::compat::{node_status, operate};
use mfserv_node::operations::Request;

/// How long `--waiting` waits, seconds.
const WAITING_S: u64 = 120;
/// errno(3): no such process.
const ESRCH: i32 = 3;
/// What MFSERV called the web front.
const NGINX: &str = "nginx";

impl Node {
    /// A watcher, whatever the case of its name.
    pub(super) fn find(&self, name: &str) -> Result<&WatcherStatus, Diagnostic> {
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

    pub(super) fn each(
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

    pub(super) fn stop(&self, named: &Named) -> Result<String, Diagnostic> {
        let said =
            self.each(named, |watcher| set_count(&self.places, CIRCUSCTL, &watcher.name, Some(0)))?;
        if named.waiting {
            self.meant(named)?.iter().for_each(|watcher| {
                is_gone(&self.places, &watcher.name);
            });
        }
        Ok(said)
    }

    pub(super) fn restart(&self, named: &Named) -> Result<String, Diagnostic> {
        let apps: Vec<String> =
            self.meant(named)?.iter().map(|watcher| watcher.name.to_string()).collect();
        let wait_s = if named.waiting { WAITING_S } else { 0 };
        if !apps.is_empty() {
            operate(&self.places, CIRCUSCTL, Request::Restart { apps }, wait_s)?;
        }
        Ok("ok".into())
    }

    pub(super) fn scale(
        &self,
        name: &str,
        count: impl Fn(u32) -> u32,
    ) -> Result<String, Diagnostic> {
        let watcher = self.find(name)?;
        self.refuse_front(watcher)?;
        let count = count(watcher.wanted).min(4096);
        set_count(&self.places, CIRCUSCTL, &watcher.name, Some(count))?;
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

    pub(super) fn kill(&self, kill: &Kill) -> Result<String, Diagnostic> {
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

    pub(super) fn signal(&self, signal: &Signal) -> Result<String, Diagnostic> {
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

    pub(super) fn stats(&self, name: Option<&str>, pid: Option<u32>) -> Result<String, Diagnostic> {
        let watchers = match name {
            Some(name) => vec![self.find(name)?],
            None => self.status.watchers.iter().collect(),
        };
        let mut lines = Vec::new();
        for watcher in watchers {
            lines.push(format!("{}:", shown(watcher)));
            for worker in &watcher.workers {
                let Some(id) = worker.pid.filter(|id| pid.is_none_or(|pid| pid == *id)) else {
                    continue;
                };
                let memory =
                    worker.memory_bytes.map_or_else(|| "N/A".into(), mfserv_node::render::bytes);
                let cpu = worker.cpu_ms.map_or_else(|| "N/A".into(), |ms| format!("{ms}ms"));
                lines.push(format!("{id}: {}  cpu:{cpu} mem:{memory}", worker.id));
            }
        }
        Ok(lines.join("\n"))
    }
}

/// The name of a watcher, as MFSERV had it.
pub(super) fn shown(watcher: &WatcherStatus) -> &str {
    if watcher.is_front() { NGINX } else { watcher.name.as_str() }
}

/// One of MFSERV's four states.
pub(super) fn state(watcher: &WatcherStatus) -> &'static str {
    match (watcher.state, watcher.ready) {
        (WatcherState::Off, _) => "stopped",
        (WatcherState::Stopping, _) => "stopping",
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
        .ok_or_else(|| Diagnostic::error(format!("{text} is not a signal")))
}

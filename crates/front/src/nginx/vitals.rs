//! Whether the processes of nginx go on: one that hangs is killed, and another one takes its place.
//!
//! All workers listen on the same sockets, so none of them can be asked alone, and the one that
//! hangs never answers. Its connections hang with it while the others serve. So proc(5) is asked
//! about each process, and beside that nginx as a whole is asked for an answer. Looks are counted,
//! not seconds, and computing counts in time of the processor: on a machine that is busy or was
//! paused nginx has more time, too.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use mfserv_core::event::{EndReason, NginxEnd};
use mfserv_platform::proc::{self, Process};
use rustix::process::{Pid, Signal, getpid};
use tokio::task::JoinHandle;

use super::ends::Ends;
use super::others;
use super::program::{Master, signal};

mod excuse;

use excuse::has_excuse;

/// A process that is stopped at so many looks hangs, as a front that leaves as many beats of the
/// daemon unanswered.
const STOPPED_LOOKS: u32 = 3;
/// A worker hangs that shows no sign of life for so many looks…
const SILENT_LOOKS: u32 = 5;
/// …and has computed for so long meanwhile, or waits for something else than its events.
const COMPUTED_MS: u64 = 5_000;
/// nginx hangs that leaves a connection unanswered for so many looks, whatever its workers do. It is
/// longer, since it may only have too much to do.
const UNANSWERED_LOOKS: u32 = 15;

/// What is known of nginx by those that start it and those that look after it.
#[derive(Default)]
pub struct Vitals {
    /// The master that was started last.
    master: RefCell<Option<Master>>,
    /// The master that was killed from here, and why.
    killed: RefCell<Option<(Pid, EndReason)>>,
    /// nginx was asked to end: it accepts nobody, and goes on with its requests.
    pub is_ending: Cell<bool>,
    /// For the daemon.
    pub ends: Rc<Ends>,
}

/// What a process does that goes on: an event loop waits now and then, or reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Signs {
    /// How often it has waited for something.
    waits: u64,
    /// How often it has read or written.
    calls: u64,
}

/// What proc(5) says of a process.
#[derive(Debug, Clone)]
struct Seen {
    /// One of the letters of ps(1).
    state: char,
    cpu_ms: u64,
    /// `None`: it is debugged, or the kernel does not say.
    signs: Option<Signs>,
    /// The function of the kernel in which it waits; empty: not known.
    waits_in: String,
}

/// What was seen of a process at the looks so far.
#[derive(Debug, Default)]
struct History {
    last: Option<Signs>,
    cpu_ms: u64,
    silent: u32,
    stopped: u32,
    is_killed: bool,
}

impl History {
    /// Takes note of a look; returns why the process hangs, if it does.
    fn note(&mut self, seen: &Seen) -> Option<String> {
        let has_gone_on = seen.signs != self.last;
        let stopped = if has_gone_on { 0 } else { self.stopped };
        self.stopped = if seen.state == 'T' { stopped + 1 } else { 0 };
        if self.stopped >= STOPPED_LOOKS {
            return Some("a signal has stopped it".into());
        }
        if seen.signs.is_none() || has_gone_on {
            (self.last, self.cpu_ms, self.silent) = (seen.signs, seen.cpu_ms, 0);
            return None;
        }
        self.silent += 1;
        if self.silent < SILENT_LOOKS {
            return None;
        }
        let computed_ms = seen.cpu_ms.saturating_sub(self.cpu_ms);
        if computed_ms >= COMPUTED_MS {
            return Some(format!("it has computed for {} s without a pause", computed_ms / 1000));
        }
        let waits_for_events = seen.waits_in.contains("epoll") || seen.waits_in.contains("ep_poll");
        let is_blocked = seen.state == 'S' && !waits_for_events && !seen.waits_in.is_empty();
        is_blocked.then(|| format!("it waits in {} of the kernel", seen.waits_in))
    }
}

/// A connection that nginx is to answer.
#[derive(Default)]
struct Question {
    asked: Option<JoinHandle<()>>,
    looks: u32,
}

impl Question {
    /// True if nginx leaves it unanswered for too long. A connection that is closed is answered:
    /// a worker without a free connection does so, and has descriptors for as many as it may have
    /// (`config.rs`).
    fn hangs(&mut self, socket: &Path) -> bool {
        match &self.asked {
            Some(asked) if !asked.is_finished() => self.looks += 1,
            _ => {
                let socket: PathBuf = socket.to_owned();
                self.asked = Some(tokio::task::spawn_local(async move {
                    let _ = others::asked(&socket).await;
                }));
                self.looks = 0;
            }
        }
        self.looks >= UNANSWERED_LOOKS
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        if let Some(asked) = &self.asked {
            asked.abort();
        }
    }
}

impl Vitals {
    /// This master is looked after from now on.
    pub fn watch(&self, master: &Master) {
        *self.master.borrow_mut() = Some(master.clone());
    }

    /// A master has ended that nobody has asked to.
    pub fn has_ended(&self, master: Pid, why: EndReason) {
        let killed = self.killed.take().filter(|(pid, _)| *pid == master);
        let why = killed.map_or(why, |(_, why)| why);
        self.ends.report(ended(master, None, why));
    }

    /// Kills what hangs, as long as this process lives. `pause`: between two looks.
    pub async fn look_after(
        &self,
        pause: Duration,
        own_socket: &Path,
        serves: &Cell<bool>,
    ) -> Infallible {
        let (mut known, mut question) = (BTreeMap::new(), Question::default());
        loop {
            tokio::time::sleep(pause).await;
            let master = self.master.borrow().clone().filter(|master| master.end().is_none());
            self.look(master.as_ref().map(|master| master.pid), &mut known);
            match master {
                // One that ends has closed its socket, which this process has too: a connection
                // to it waits for ever.
                Some(master) if serves.get() && !self.is_ending.get() => {
                    if question.hangs(own_socket) {
                        self.replace(master.pid);
                        question = Question::default();
                    }
                }
                _ => question = Question::default(),
            }
        }
    }

    /// Looks at the master, its workers, and those whose master has died.
    fn look(&self, master: Option<Pid>, known: &mut BTreeMap<u32, History>) {
        let all = family(master);
        known.retain(|pid, _| all.iter().any(|process| process.pid == *pid));
        for process in all.iter().filter(|process| process.state != 'Z') {
            let Some(pid) = pid_of(process) else { continue };
            let is_master = Some(pid) == master;
            let worker = Worker::of(process.pid).filter(|_| !is_master);
            if !is_master && worker.is_none() {
                continue;
            }
            let history = known.entry(process.pid).or_default();
            let seen = seen(process, is_master);
            let Some(saw) = history.note(&seen).filter(|_| !history.is_killed) else { continue };
            history.is_killed = true;
            match worker {
                None => self.kill_master(pid, saw),
                Some(worker) => {
                    signal(pid, Signal::KILL);
                    let is_leaving = worker.is_leaving || self.is_ending.get();
                    let worker = Some(Worker { is_leaving });
                    self.ends.report(ended(pid, worker, EndReason::Stuck { saw }));
                }
            }
        }
    }

    fn kill_master(&self, pid: Pid, saw: String) {
        *self.killed.borrow_mut() = Some((pid, EndReason::Stuck { saw }));
        signal(pid, Signal::KILL);
    }

    /// Kills the master, which leaves connections unanswered, and its workers: those would not obey
    /// the one that comes. Not if one of them has an excuse.
    fn replace(&self, master: Pid) {
        let mut workers = family(Some(master));
        workers.retain(|process| Worker::of(process.pid).is_some());
        if workers.iter().any(|worker| has_excuse(Path::new("/proc"), worker.pid)) {
            return;
        }
        self.kill_master(master, "it leaves connections unanswered".into());
        for pid in workers.iter().filter_map(pid_of) {
            signal(pid, Signal::KILL);
        }
    }
}

/// What the daemon is told; `worker`: `None` for a master.
fn ended(pid: Pid, worker: Option<Worker>, why: EndReason) -> NginxEnd {
    let is_leaving = worker.is_some_and(|worker| worker.is_leaving);
    NginxEnd { pid: number(pid), is_worker: worker.is_some(), is_leaving, why }
}

fn pid_of(process: &Process) -> Option<Pid> {
    Pid::from_raw(i32::try_from(process.pid).ok()?)
}

fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}

/// The children of this process and of the master: among them are the master, its workers, and
/// workers whose master has died, since this process is their parent then.
fn family(master: Option<Pid>) -> Vec<Process> {
    let parents: Vec<u32> = [Some(getpid()), master].into_iter().flatten().map(number).collect();
    proc::children(Path::new("/proc"), &parents)
}

/// A worker of nginx.
#[derive(Debug, Clone, Copy)]
struct Worker {
    /// It was to end with its last request.
    is_leaving: bool,
}

impl Worker {
    /// `None`: it is something else.
    fn of(pid: u32) -> Option<Self> {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let rest = line.strip_prefix("nginx: worker process")?;
        Some(Self { is_leaving: rest.starts_with(" is shutting down") })
    }
}

/// Looks at a process. A master waits for signals alone, so only its state says something.
fn seen(process: &Process, is_master: bool) -> Seen {
    let read = |name: &str| {
        let path = format!("/proc/{}/{name}", process.pid);
        Some(fs::read_to_string(path).unwrap_or_default()).filter(|_| !is_master)
    };
    let signs = || signs(&read("status")?, &read("io")?);
    // The kernel says 0 to those who may not know.
    let waits_in = read("wchan").filter(|name| name != "0").unwrap_or_default();
    Seen { state: process.state, cpu_ms: process.cpu_ms, signs: signs(), waits_in }
}

fn signs(status: &str, io: &str) -> Option<Signs> {
    let waits = value(status, "voluntary_ctxt_switches")?;
    let is_debugged = value(status, "TracerPid")? != 0;
    let calls = value(io, "syscr")?.wrapping_add(value(io, "syscw")?);
    (!is_debugged).then_some(Signs { waits, calls })
}

/// The number in a line `NAME: NUMBER`.
fn value(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(state: char, waits: u64, cpu_ms: u64, waits_in: &str) -> Seen {
        let signs = Some(Signs { waits, calls: 7 });
        Seen { state, cpu_ms, signs, waits_in: waits_in.into() }
    }

    /// The look at which it is found to hang, and why.
    fn found(looks: impl Iterator<Item = Seen>) -> Option<(usize, String)> {
        let mut history = History::default();
        looks.enumerate().find_map(|(at, seen)| Some((at, history.note(&seen)?)))
    }

    #[test]
    fn a_worker_hangs_that_is_stopped_computes_for_ever_or_waits_for_something_else() {
        let stopped = found((0..9).map(|_| at('T', 1, 0, "do_signal_stop")));
        assert_eq!(stopped.unwrap().0, 2);
        let computing = found((0..9).map(|look| at('R', 1, look * 2000, "")));
        assert_eq!(computing.unwrap(), (5, "it has computed for 10 s without a pause".into()));
        let blocked = found((0..9).map(|_| at('S', 1, 0, "pipe_read"))).unwrap();
        assert_eq!(blocked, (5, "it waits in pipe_read of the kernel".into()));
    }

    #[test]
    fn a_worker_that_is_idle_busy_starved_or_debugged_does_not_hang() {
        assert_eq!(found((0..99).map(|_| at('S', 1, 0, "ep_poll"))), None);
        assert_eq!(found((0..99).map(|_| at('S', 1, 0, "do_epoll_wait"))), None);
        assert_eq!(found((0..99).map(|_| at('S', 1, 0, ""))), None, "the kernel does not say");
        assert_eq!(found((0..99).map(|look| at('R', look, look * 2000, ""))), None);
        // Others have the processor.
        assert_eq!(found((0..99).map(|look| at('R', 1, look * 50, ""))), None);
        let debugged = || Seen { signs: None, ..at('t', 1, 0, "ptrace_stop") };
        assert_eq!(found((0..99).map(|_| debugged())), None);
        // It is stopped at each look, and goes on between them: a limit of the processor does so.
        assert_eq!(found((0..99).map(|look| at('T', look, 0, "do_signal_stop"))), None);
    }

    #[test]
    fn what_proc_says_is_read() {
        let status = "Name:\tnginx\nTracerPid:\t0\nvoluntary_ctxt_switches:\t12\n\
                      nonvoluntary_ctxt_switches:\t3\n";
        let io = "rchar: 1\nsyscr: 4\nsyscw: 5\n";
        assert_eq!(signs(status, io), Some(Signs { waits: 12, calls: 9 }));
        assert_eq!(signs(&status.replace("TracerPid:\t0", "TracerPid:\t8"), io), None);
        assert_eq!(signs(status, ""), None);
    }
}

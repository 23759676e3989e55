//! The keeper's loop. What there is to know and to decide is in the types that it calls:
//! processes, listeners, clients, outputs, exits, the daemon and the end of the node.

mod requests;
mod takeover;
mod upkeep;

use std::fs;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use mfserv_core::Diagnostic;
use mfserv_core::wire::keeper::{Answer, Notice, Process, ProcessSpec, Scope};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use signal_hook::consts::SIGHUP;

use crate::clients::Clients;
use crate::containment::{Cgroups, home_hash};
use crate::copying::CopierMessage;
use crate::daemon::Daemon;
use crate::ending::{Alive, Ending, Step};
use crate::exits::Exits;
use crate::listeners::Listeners;
use crate::log::log;
use crate::outputs::Outputs;
use crate::processes::{Finished, Processes};
use crate::refusal::Refusal;
use crate::saved::StateFile;
use crate::sd_notify::sd_notify;
use crate::signals::Signals;
use crate::startup::{
    Held, Paths, failed, has_terminal, out_of_the_way, prepare_home, raise_open_files,
};
use crate::{DAEMON, KeeperOptions, descriptors, procfs, spawn, startup};

/// Answers are given so long to reach those who asked for the end of the node.
const FAREWELL: Duration = Duration::from_secs(1);

pub(crate) struct Keeper {
    options: KeeperOptions,
    paths: Paths,
    boot_id: String,
    lock: OwnedFd,
    has_terminal: bool,
    signals: Signals,
    clients: Clients,
    processes: Processes,
    exits: Exits,
    listeners: Listeners,
    outputs: Outputs,
    daemon: Option<Daemon>,
    ending: Ending,
    state: StateFile,
    /// When files and daemon are looked at next.
    look_at: Instant,
}

/// What poll(2) has reported.
struct Ready {
    /// Somebody wants to connect.
    accepts: bool,
    /// The clients that have sent something, by number.
    clients: Vec<u64>,
}

impl Keeper {
    /// Takes the lock, goes on with what an earlier keeper has left, and listens.
    pub fn start(mut options: KeeperOptions) -> Result<Self, Diagnostic> {
        descriptors::close_all_on_exec();
        let ready = options.ready.take().map(out_of_the_way).transpose();
        options.ready = ready.map_err(failed("the ready descriptor"))?;
        let home = prepare_home(&options.home)?;
        let paths = Paths::of(&home);
        let saved = startup::read_saved(&paths.state);
        let handover = saved.handover.clone().filter(|_| options.resume);
        let Held { lock, listener, fifos } = match &handover {
            Some(handover) => Held::inherit(handover).map_err(failed("what it inherits"))?,
            None => Held::open(&paths)?,
        };
        let clients = Clients::new(listener).map_err(failed("its socket"))?;
        // After what was inherited is out of danger, before anything else is opened.
        spawn::reserve_descriptors().map_err(failed("its descriptors"))?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|e| failed("PR_SET_CHILD_SUBREAPER")(e.into()))?;
        let open_files = raise_open_files(handover.as_ref().and_then(|it| it.open_files));
        let hash = home_hash(&home);
        let cgroups = if options.cgroups { Cgroups::find(&hash) } else { Cgroups::none() };
        let outputs = Outputs::start(paths.fifos.clone(), saved.next_key.max(1), !options.resume);
        let mut signals = Signals::register().map_err(failed("its signals"))?;
        signals.ignored_hangup |= handover.as_ref().is_some_and(|it| it.ignored_hangup);
        let mut keeper = Self {
            boot_id: procfs::boot_id().map_err(failed("the boot id"))?,
            lock,
            has_terminal: has_terminal(),
            signals,
            clients,
            processes: Processes::new(hash, cgroups, open_files),
            exits: Exits::default(),
            listeners: Listeners::default(),
            outputs: outputs.map_err(failed("its threads"))?,
            daemon: options.daemon.take().map(Daemon::new),
            ending: Ending::new(Duration::from_millis(options.stop_ms)),
            state: StateFile::new(paths.state.clone()),
            look_at: Instant::now() + upkeep::LOOK,
            paths,
            options,
        };
        match handover {
            Some(handover) => keeper.resume(saved, handover, fifos),
            None => keeper.adopt(saved),
        }
        if let Some(daemon) = keeper.daemon.as_mut().filter(|_| !keeper.processes.has(DAEMON)) {
            daemon.start_at(Instant::now());
        }
        keeper.save();
        keeper.report_ready();
        Ok(keeper)
    }

    /// Runs until the node has been stopped.
    pub fn serve(mut self) -> Result<(), Diagnostic> {
        self.reap();
        while !self.ending.is_over() {
            self.start_daemon_if_due();
            let ready = self.wait()?;
            if self.signals.take_end() {
                self.signalled();
            }
            if self.signals.take_hangup() {
                self.hung_up();
            }
            self.reap();
            self.read_copier_messages();
            if ready.accepts {
                self.clients.accept();
            }
            self.serve_clients(&ready.clients);
            self.clean_up_after_ended();
            self.go_on_ending();
            self.look_after_node(Instant::now());
            // Before anybody is told.
            if self.state.is_due(Instant::now()) && !self.ending.is_over() {
                self.save();
            }
            self.clients.flush();
        }
        self.clients.finish(FAREWELL);
        Ok(())
    }

    /// Waits until something happens, or is due.
    fn wait(&self) -> Result<Ready, Diagnostic> {
        let mut fds = vec![
            PollFd::new(self.signals.wakeup(), PollFlags::IN),
            PollFd::new(self.clients.listener(), PollFlags::IN),
        ];
        for client in self.clients.iter() {
            let mut events = PollFlags::IN;
            events.set(PollFlags::OUT, client.wants_to_write());
            fds.push(PollFd::new(client.socket(), events));
        }
        let others = self.outputs.wakeup().into_iter().chain(self.processes.pidfds());
        fds.extend(others.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let timeout = self.next_moment().map(|at| {
            let wait = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            Timespec { tv_sec: wait.as_secs() as _, tv_nsec: wait.subsec_nanos().into() }
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Diagnostic::error("the keeper cannot wait").because(e)),
        }
        let sent = self.clients.iter().zip(&fds[2..]);
        let sent = sent.filter(|(_, fd)| !(fd.revents() - PollFlags::OUT).is_empty());
        Ok(Ready {
            accepts: !fds[1].revents().is_empty(),
            clients: sent.map(|(client, _)| client.id()).collect(),
        })
    }

    /// When something is due even if nothing happens.
    fn next_moment(&self) -> Option<Instant> {
        let moments = [
            self.processes.next_moment(),
            self.daemon.as_ref().and_then(Daemon::next_moment),
            self.state.next_moment(),
            self.ending.next_moment(Instant::now()),
            Some(self.look_at),
        ];
        moments.into_iter().flatten().min()
    }

    fn reap(&mut self) {
        if self.processes.reap() | self.processes.watch_adopted() {
            self.state.changed();
        }
    }

    fn read_copier_messages(&mut self) {
        self.outputs.messages().into_iter().for_each(|message| self.obey_copier(message));
        if self.outputs.have_failed() {
            self.outputs.restart(&self.processes);
            self.processes.read_again();
        }
    }

    fn obey_copier(&mut self, message: CopierMessage) {
        match message {
            CopierMessage::Finished { owner, last_output } => self.record_exit(&owner, last_output),
            CopierMessage::Closed { key } => {
                self.outputs.closed(key);
                self.state.changed();
            }
            CopierMessage::Dropped { owner, bytes } => {
                self.clients.notify(Notice::Dropped { id: owner, bytes });
            }
            CopierMessage::Trouble { file, reason } => {
                log(format_args!("{} cannot be written: {reason}", file.display()));
                self.clients.notify(Notice::LogTrouble { file, reason });
            }
        }
    }

    /// The last thing of a process: its record.
    fn record_exit(&mut self, id: &str, last_output: String) {
        let Some(Finished { exit, lived_ms }) = self.processes.finish(id, last_output) else {
            return;
        };
        self.exits.push(exit.clone());
        self.clients.notify(Notice::Exited(exit));
        self.state.changed();
        if let Some(daemon) = self.daemon.as_mut().filter(|_| id == DAEMON) {
            daemon.ended(Instant::now(), lived_ms);
        }
    }

    fn clean_up_after_ended(&mut self) {
        for id in self.processes.kill_left_behind() {
            self.outputs.finish(&id);
        }
    }

    /// Starts a process and begins to copy its output.
    fn spawn(&mut self, spec: &ProcessSpec) -> Result<Process, Refusal> {
        spawn::check(spec)?;
        if self.processes.has(&spec.id) {
            return Err(Refusal::because(format!("{} lives already", spec.id)));
        }
        if spec.once && self.exits.has(&spec.id) {
            return Err(Refusal::because(format!("{} was started already", spec.id)));
        }
        let listeners = self.listeners.select(&spec.listeners)?;
        let (output, stdout, stderr) = self.outputs.create(spec)?;
        match self.processes.start(spec, listeners, (stdout, stderr)) {
            Ok(process) => {
                self.outputs.copy(output);
                self.state.changed();
                Ok(process)
            }
            Err(refusal) => {
                output.discard();
                Err(refusal)
            }
        }
    }

    fn start_daemon_if_due(&mut self) {
        let now = Instant::now();
        let due = self.daemon.as_mut().filter(|_| self.ending.permits_starts());
        let Some(spec) = due.and_then(|daemon| daemon.take_due(now)) else { return };
        match self.spawn(&spec) {
            Ok(_) => self.save(),
            Err(refusal) => {
                log(format_args!("the daemon does not start: {}", refusal.reason));
                if let Some(daemon) = &mut self.daemon {
                    daemon.ended(now, 0);
                }
            }
        }
    }

    /// SIGHUP. A keeper that has a terminal (`mfserv run` by hand) ends with it, unless it was
    /// started to outlive it (nohup). To any other one
    /// the signal means "reload", as to nginx, and the daemon gets it. (One that is just starting,
    /// and does not know the signal yet, ends of it; the next one reads the same configuration.)
    fn hung_up(&mut self) {
        if self.has_terminal {
            // A terminal says it twice: itself, and by the shell.
            if self.ending.is_serving() && !self.signals.ignored_hangup {
                self.signalled();
            }
            return;
        }
        if self.daemon.is_none() {
            return log(format_args!("SIGHUP is not obeyed: there is no daemon that reloads"));
        }
        // If none lives at the moment, the next one reads everything anyway.
        let _ = self.processes.signal(DAEMON, SIGHUP, Scope::Process);
    }

    /// The node is to end. With no daemon and nobody who watches there is no grace.
    fn signalled(&mut self) {
        let grace_ms = self.options.grace_ms;
        let somebody_acts = self.daemon.is_some() || self.clients.are_watching();
        let grace = if somebody_acts { Duration::from_millis(grace_ms) } else { Duration::ZERO };
        match self.ending.signalled(Instant::now(), grace) {
            Step::Announce => {
                sd_notify("STOPPING=1\n");
                self.clients.notify(Notice::Ending { grace_ms });
            }
            step => self.carry_out(step),
        }
    }

    fn go_on_ending(&mut self) {
        let alive = match (self.processes.is_empty(), &self.daemon) {
            (false, _) => Alive::Processes,
            (true, Some(_)) => Alive::DaemonOnly,
            (true, None) => Alive::Nothing,
        };
        let step = self.ending.advance(Instant::now(), alive);
        self.carry_out(step);
    }

    fn carry_out(&mut self, step: Step) {
        match step {
            Step::Nothing | Step::Announce => {}
            Step::Terminate => {
                let daemon_at_once =
                    |id: &str| if id == DAEMON { Signal::KILL } else { Signal::TERM };
                self.processes.signal_all(daemon_at_once);
            }
            Step::Kill => self.kill_node(),
        }
    }

    /// Kills what lives; when nothing does, or it has taken too long, the node is over.
    fn kill_node(&mut self) {
        let left = self.processes.kill_node();
        let nothing_is_left = left == 0 && self.processes.is_empty();
        self.ending.killed(Instant::now(), nothing_is_left);
        if !self.ending.is_over() {
            return;
        }
        if !nothing_is_left {
            log(format_args!("{left} processes do not end, even killed"));
        }
        self.remove_traces();
        for (client, seq) in self.ending.take_askers() {
            self.clients.answer(client, seq, Answer::Done);
        }
    }

    /// Removes what is on the disk: a client that reads `Done` finds nothing of the node.
    fn remove_traces(&mut self) {
        self.outputs.end();
        self.reap();
        self.listeners.close_all();
        self.processes.remove_cgroups();
        self.state.remove();
        let _ = fs::remove_file(&self.paths.socket);
    }

    fn save(&mut self) {
        let saved = self.to_save();
        self.state.write(&saved, Instant::now());
    }

    fn report_ready(&mut self) {
        if let Some(ready) = self.options.ready.take() {
            let _ = rustix::io::write(&ready, b"ready\n");
        }
        sd_notify("READY=1\n");
    }
}

//! A real node in a temporary home.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mfserv_core::event::{Event, Fact};
use mfserv_core::names::WorkerId;
use mfserv_core::node_state::NodeState;
use mfserv_core::status::{Status, WatcherState, WatcherStatus, WorkerStatus};
use mfserv_core::worker::Phase;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::http::{Response, get};
use crate::leftovers::{cgroups_of, special_files};
use crate::plugin::Plugin;
use crate::port::free_port;
use crate::processes::{Process, kill, of_home, process};
use crate::samples::Samples;
use crate::wait::{until, until_some};

/// How long a node may take to do what it was asked.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a command said and how it ended.
#[derive(Debug, Clone)]
pub struct Ran {
    /// The exit code; -1 if a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Runs a command to its end.
    ///
    /// # Panics
    /// When it cannot be run.
    pub fn of(mut command: Command) -> Ran {
        let output = command.output().expect("the program can be run");
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// It ended with this exit code.
    ///
    /// # Panics
    /// When it ended with another; what it said is shown.
    #[track_caller]
    pub fn code(self, code: i32) -> Ran {
        assert!(self.code == code, "exit code {} instead of {code}: {self:#?}", self.code);
        self
    }
}

/// A node: its home, its port, and the program that runs it. It is stopped and removed
/// when it is dropped, whether or not the test has failed. With `MFSERV_TEST_KEEP` set, the
/// home of a failed test stays.
pub struct Node {
    program: PathBuf,
    home: TempDir,
    port: u16,
    samples: Samples,
}

impl Node {
    /// A fresh home with a port of its own, nothing started.
    ///
    /// # Panics
    /// When the home cannot be made.
    pub fn new(program: &Path, samples: &Samples) -> Node {
        let home = tempfile::Builder::new().prefix("mfn-").tempdir().expect("a temporary home");
        let node =
            Node { program: program.to_owned(), home, port: free_port(), samples: samples.clone() };
        fs::create_dir_all(node.path("var")).expect("var");
        std::os::unix::fs::symlink(samples.base(), node.path("var/base")).expect("var/base");
        node.set("nginx.port", &node.port.to_string());
        node.set("front.host", "127.0.0.1");
        node
    }

    /// The home.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// A path in the home.
    pub fn path(&self, below: &str) -> PathBuf {
        self.home.path().join(below)
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    // ---- commands ----

    /// A command of mfserv for this home.
    pub fn command(&self, args: &[&str]) -> Command {
        self.other(&self.program, args)
    }

    /// Another program, for this home.
    pub fn other(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.env("MFMODULE_RUNTIME_HOME", self.home.path()).args(args);
        command.env("METWORK_ALLOW_USAGE_BY_ROOT", "1").stdin(Stdio::null());
        // Nothing of the site or of the caller may change what is tested.
        command.env("MFSERV_SITE_DIR", self.path("site")).env_remove("MFCONFIG");
        command.current_dir(self.home.path());
        command
    }

    /// Runs a command.
    ///
    /// # Panics
    /// When the program cannot be run.
    pub fn mfserv(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args))
    }

    /// Sets a value of the module's configuration.
    #[track_caller]
    pub fn set(&self, key: &str, value: &str) {
        self.mfserv(&["config", "set", key, value]).code(0);
    }

    /// Starts it and waits until it runs.
    #[track_caller]
    pub fn start(&self) -> Status {
        self.mfserv(&["start"]).code(0);
        self.status()
    }

    /// Stops it; nothing may be left.
    #[track_caller]
    pub fn stop(&self) {
        let hash = self.hash();
        self.mfserv(&["stop"]).code(0);
        self.assert_nothing_left(hash.as_deref());
    }

    // ---- plugins ----

    /// Links a shared sample, with some values of its configuration overridden.
    ///
    /// # Panics
    /// When the link cannot be made.
    pub fn link_sample(&self, name: &str, overrides: &[(&str, &str, &str)]) {
        self.link(name, &self.samples.dir(name));
        let lines =
            overrides.iter().map(|(section, key, value)| format!("[{section}]\n{key} = {value}\n"));
        let text: String = lines.collect();
        let file = self.path("config/plugins").join(format!("{name}.ini"));
        fs::create_dir_all(file.parent().unwrap_or(Path::new("/"))).expect("config/plugins");
        fs::write(file, text).expect("an override");
    }

    /// Writes a plugin into the home and links it. The node is not told.
    pub fn add(&self, plugin: &Plugin) -> PathBuf {
        let dir = plugin.write(&self.path("dev"));
        self.link(plugin.name(), &dir);
        dir
    }

    fn link(&self, name: &str, dir: &Path) {
        let plugins = self.path("var/plugins");
        fs::create_dir_all(&plugins).expect("var/plugins");
        let link = plugins.join(name);
        if fs::symlink_metadata(&link).is_err() {
            std::os::unix::fs::symlink(dir, link).expect("the link of a plugin");
        }
    }

    // ---- what is seen ----

    /// What `mfserv status --json` says; `None` when no daemon answers.
    pub fn try_status(&self) -> Option<Status> {
        serde_json::from_str(&self.mfserv(&["status", "--json"]).stdout).ok()
    }

    /// What `mfserv status --json` says.
    #[track_caller]
    pub fn status(&self) -> Status {
        let ran = self.mfserv(&["status", "--json"]);
        serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("no status: {e}: {ran:#?}"))
    }

    /// One watcher.
    #[track_caller]
    pub fn watcher(&self, name: &str) -> WatcherStatus {
        let status = self.status();
        let found = status.watchers.iter().find(|watcher| watcher.name.as_str() == name);
        found.cloned().unwrap_or_else(|| panic!("no watcher {name}: {status:#?}"))
    }

    /// Waits until all workers of a watcher are ready and no other lives.
    #[track_caller]
    pub fn settled(&self, name: &str) -> WatcherStatus {
        until_some(&format!("{name} is settled"), PATIENCE, || {
            let status = self.try_status()?;
            let watcher = status.watchers.into_iter().find(|w| w.name.as_str() == name)?;
            let quiet = watcher.workers.len() == watcher.wanted as usize;
            (watcher.state == WatcherState::Ready && quiet).then_some(watcher)
        })
    }

    /// Waits until the node runs.
    #[track_caller]
    pub fn runs(&self) -> Status {
        until_some("the node runs", PATIENCE, || {
            self.try_status().filter(|status| status.state == NodeState::Running)
        })
    }

    /// The pids of a watcher's workers, sorted. Those that are ending are left out: a
    /// restart is done when the next ones serve, and the last ones then still drain.
    #[track_caller]
    pub fn pids(&self, watcher: &str) -> Vec<u32> {
        pids_of(&self.watcher(watcher))
    }

    /// The pids of all workers of plugins that are not ending, sorted.
    #[track_caller]
    pub fn worker_pids(&self) -> Vec<u32> {
        let watchers = self.status().watchers;
        let mut pids: Vec<u32> =
            watchers.iter().filter(|w| w.plugin.is_some()).flat_map(pids_of).collect();
        pids.sort_unstable();
        pids
    }

    /// The keeper's pid, as its state file says.
    pub fn keeper_pid(&self) -> Option<u32> {
        self.role_pids("keep").first().copied()
    }

    /// The pids of the living processes of a role: `keep`, `daemon`, `front`, `telemetry`.
    pub fn role_pids(&self, role: &str) -> Vec<u32> {
        let plays = format!("{} {role} ", self.program.to_string_lossy());
        let mut pids: Vec<u32> = of_home(self.home.path(), None)
            .into_iter()
            .filter(|process| format!("{} ", process.command).starts_with(&plays))
            .map(|process| process.pid)
            .collect();
        pids.sort_unstable();
        pids
    }

    /// The only process of a role, once there is no other. (A process that the keeper has
    /// just forked looks like a keeper until it is what it was started for.)
    #[track_caller]
    pub fn role_pid(&self, role: &str) -> u32 {
        until_some(&format!("there is exactly one {role}"), PATIENCE, || {
            match self.role_pids(role)[..] {
                [pid] => Some(pid),
                _ => None,
            }
        })
    }

    /// Kills a process of this node with SIGKILL and waits until it is gone.
    #[track_caller]
    pub fn kill(&self, pid: u32) {
        kill(pid, Signal::KILL);
        until("the killed process is gone", PATIENCE, || process(pid).is_none());
    }

    /// What happened, oldest first.
    pub fn events(&self) -> Vec<Event> {
        let ran = self.mfserv(&["events", "--json", "-n", "100000"]);
        ran.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// When a worker became ready, if it did: milliseconds since the Unix epoch, and how
    /// long that took.
    pub fn ready_at(&self, worker: &WorkerId) -> Option<(u64, u64)> {
        self.events().into_iter().find_map(|event| match event.fact {
            Fact::WorkerReady { worker: id, after_ms } if id == *worker => {
                Some((event.at_ms, after_ms))
            }
            _ => None,
        })
    }

    /// The lines of a log and of all its rotated files, for example `app_foo_main`.
    pub fn log_lines(&self, stem: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path("log")).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(stem))
            .map(|entry| entry.path())
            .collect();
        files.sort();
        let texts = files.iter().map(|file| fs::read(file).unwrap_or_default());
        texts
            .flat_map(|bytes| {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                text.lines().map(str::to_owned).collect::<Vec<_>>()
            })
            .collect()
    }

    /// A GET that is answered.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        get(self.address(), path).unwrap_or_else(|broken| panic!("GET {path}: {broken}"))
    }

    // ---- the end ----

    /// What the node puts before the ids of its processes, in their environment and in
    /// the names of cgroups; `None` when nothing runs.
    pub fn hash(&self) -> Option<String> {
        let processes = of_home(self.home.path(), None);
        let marker = processes.iter().find_map(|process| process.marker.clone())?;
        Some(marker.split(':').next()?.to_string())
    }

    /// The node's living processes.
    pub fn processes(&self, hash: Option<&str>) -> Vec<Process> {
        of_home(self.home.path(), hash)
    }

    /// No process, socket, FIFO or cgroup of this node is left.
    ///
    /// # Panics
    /// When something is.
    #[track_caller]
    pub fn assert_nothing_left(&self, hash: Option<&str>) {
        // The shell that ends what a killed command has started has two seconds for it.
        let guards = || self.processes(hash).iter().any(|one| one.command.contains("mfserv-guard"));
        until("guards of builds have ended", Duration::from_secs(20), || !guards());
        let left = self.processes(hash);
        assert!(left.is_empty(), "processes are left: {left:#?}");
        let files = special_files(self.home.path());
        assert!(files.is_empty(), "sockets, FIFOs or links to them are left: {files:?}");
        let cgroups = hash.map(cgroups_of).unwrap_or_default();
        assert!(cgroups.is_empty(), "cgroups are left: {cgroups:?}");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_what_happened();
        }
        let hash = self.hash();
        for role in ["keep", "daemon", "front", "telemetry"] {
            // A stopped process cannot end in order.
            self.role_pids(role).into_iter().for_each(|pid| kill(pid, Signal::CONT));
        }
        self.mfserv(&["stop", "--kill"]);
        for process in self.processes(hash.as_deref()) {
            kill(process.pid, Signal::KILL);
        }
        for cgroup in hash.as_deref().map(cgroups_of).unwrap_or_default() {
            let _ = fs::write(cgroup.join("cgroup.kill"), "1");
            let _ = fs::remove_dir(cgroup);
        }
        if std::thread::panicking() && std::env::var_os("MFSERV_TEST_KEEP").is_some() {
            self.home.disable_cleanup(true);
            eprintln!("---- kept\n{}", self.home.path().display());
        }
    }
}

impl Node {
    fn show_what_happened(&self) {
        let ran = self.mfserv(&["status"]);
        eprintln!("---- status\n{}{}", ran.stdout, ran.stderr);
        eprintln!("---- events\n{}", self.mfserv(&["events", "-n", "60"]).stdout);
        for log in ["keeper", "daemon", "front", "telemetry"] {
            let lines = self.log_lines(&format!("{log}.log"));
            let last = lines.len().saturating_sub(20);
            eprintln!("---- {log}\n{}", lines[last..].join("\n"));
        }
    }
}

fn pids_of(watcher: &WatcherStatus) -> Vec<u32> {
    let stays = |worker: &&WorkerStatus| {
        !matches!(worker.phase, Phase::Draining | Phase::Stopping | Phase::Killing)
    };
    let mut pids: Vec<u32> =
        watcher.workers.iter().filter(stays).filter_map(|worker| worker.pid).collect();
    pids.sort_unstable();
    pids
}

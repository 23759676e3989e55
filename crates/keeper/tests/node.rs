//! A keeper in a temporary home, and one who asks it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output as Finished, Stdio};
use std::time::{Duration, Instant};

use mfserv_core::output::{Output, Rotation};
use mfserv_core::watcher::Rlimits;
use mfserv_core::wire::keeper::{Answer, Ask, Exit, Notice, Process, ProcessSpec};
use mfserv_keeper::{Client, MARKER, home_hash, socket_path};

use crate::setup::{SETUP, Setup};

/// The keeper that the tests start.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_mfserv-keeper-under-test");

pub struct Node {
    home: tempfile::TempDir,
    setup: String,
    keeper: Child,
}

impl Node {
    pub fn start() -> Self {
        Self::with(Setup::default())
    }

    pub fn with(setup: Setup<&str>) -> Self {
        let home = tempfile::tempdir().unwrap();
        let daemon = setup.daemon.map(|script| spec_in(home.path().to_owned(), "daemon", script));
        let setup = Setup {
            home: home.path().to_owned(),
            daemon,
            grace_ms: setup.grace_ms,
            cgroups: setup.cgroups,
        };
        let setup = serde_json::to_string(&setup).unwrap();
        let keeper = keeper(&setup).spawn().unwrap();
        let node = Self { home, setup, keeper };
        node.until_it_listens();
        node
    }

    /// Starts a keeper again after the last one has died.
    pub fn again(&mut self) {
        self.keeper = keeper(&self.setup).spawn().unwrap();
        self.until_it_listens();
    }

    pub fn second_keeper(&self) -> Finished {
        keeper(&self.setup).stderr(Stdio::piped()).output().unwrap()
    }

    fn until_it_listens(&self) {
        until("the keeper listens", || {
            let client = Client::connect(&socket_path(&self.home()), "test");
            client.is_ok_and(|client| client.greeting().pid == self.keeper.id())
        });
    }

    pub fn home(&self) -> PathBuf {
        self.home.path().to_owned()
    }

    pub fn kill(&mut self) {
        self.keeper.kill().unwrap();
        self.keeper.wait().unwrap();
    }

    pub fn signal(&self, signal: i32) {
        send(self.keeper.id(), signal);
    }

    pub fn wait(&mut self) -> Option<i32> {
        self.keeper.wait().unwrap().code()
    }

    pub fn stop(&mut self) {
        self.client().done(Ask::Shutdown);
        assert_eq!(self.wait(), Some(0));
    }

    pub fn client(&self) -> Asker {
        let client = Client::connect(&socket_path(&self.home()), "test").unwrap();
        Asker { client, home: self.home(), notices: Vec::new() }
    }

    pub fn watching(&self) -> Asker {
        let mut asker = self.client();
        assert!(matches!(asker.client.ask(Ask::Watch), Ok(Answer::Processes { .. })));
        asker
    }

    pub fn spec(&self, id: &str, script: &str) -> ProcessSpec {
        spec_in(self.home(), id, script)
    }

    pub fn log(&self, id: &str) -> String {
        let log = fs::read(self.home().join(format!("log/{id}.log"))).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Living processes with the marker of this home.
    pub fn marked_processes(&self) -> Vec<u32> {
        let mark = format!("{MARKER}={}:", home_hash(&self.home()));
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ.split(|&b| b == 0).any(|entry| entry.starts_with(mark.as_bytes()))
        })
        .collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Ok(None) = self.keeper.try_wait() {
            if let Ok(mut client) = Client::connect(&socket_path(&self.home()), "test") {
                let _ = client.ask(Ask::Shutdown);
            }
        }
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
        self.marked_processes().into_iter().for_each(kill);
        remove_cgroups(&self.home());
    }
}

/// What a keeper that was killed has left, once it is empty.
fn remove_cgroups(home: &Path) {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let name = format!("mfserv-{}", home_hash(home));
    for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        let node = Path::new(root).join(own).join(&name);
        for _ in 0..1000 {
            for leaf in fs::read_dir(&node).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(leaf.path());
            }
            if !node.exists() || fs::remove_dir(&node).is_ok() {
                break;
            }
            // the pause between two tries
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

pub struct Asker {
    pub client: Client,
    home: PathBuf,
    pub notices: Vec<Notice>,
}

impl Asker {
    pub fn spawn(&mut self, id: &str, script: &str) -> Process {
        let spec = Box::new(spec_in(self.home.clone(), id, script));
        match self.client.ask(Ask::Spawn { spec }).unwrap() {
            Answer::Spawned(process) => process,
            other => panic!("{id} was not started: {other:?}"),
        }
    }

    pub fn done(&mut self, ask: Ask) {
        assert_eq!(self.client.ask(ask).unwrap(), Answer::Done);
    }

    pub fn done_or_spawned(&mut self, ask: Ask) {
        let answer = self.client.ask(ask).unwrap();
        assert!(matches!(answer, Answer::Spawned(_)), "{answer:?}");
    }

    pub fn refused(&mut self, ask: Ask) -> (String, i32) {
        match self.client.ask(ask).unwrap() {
            Answer::Refused { reason, errno } => (reason, errno),
            other => panic!("not refused: {other:?}"),
        }
    }

    pub fn list(&mut self) -> (Vec<Process>, Vec<Exit>) {
        match self.client.ask(Ask::List).unwrap() {
            Answer::Processes { alive, exits } => (alive, exits),
            other => panic!("no list: {other:?}"),
        }
    }

    pub fn exit_of(&mut self, id: &str) -> Exit {
        let start = Instant::now();
        loop {
            let found = self.notices.iter().find_map(|notice| match notice {
                Notice::Exited(exit) if exit.id == id => Some(exit.clone()),
                _ => None,
            });
            if let Some(exit) = found {
                return exit;
            }
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "no exit of {id}: {:?}",
                self.notices
            );
            self.notices.extend(self.client.notices(Duration::from_millis(100)).unwrap());
        }
    }
}

fn keeper(setup: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command.env(SETUP, setup);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn spec_in(home: PathBuf, id: &str, script: &str) -> ProcessSpec {
    let env = [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("HOME_DIR", home.to_str().unwrap())];
    ProcessSpec {
        id: id.to_owned(),
        argv: vec!["sh".into(), "-c".into(), script.to_owned()],
        env: env.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<BTreeMap<_, _>>(),
        cwd: home.clone(),
        rlimits: Rlimits::default(),
        output: Output {
            stdout: home.join(format!("log/{id}.log")),
            stderr: None,
            rotation: Rotation::default(),
        },
        release: String::new(),
        listeners: Vec::new(),
        note: format!("note of {id}"),
        stdin: String::new(),
        nice: 0,
        once: false,
    }
}

pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "waited too long: {what}");
        // the pause between two looks
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Alive, and not only waiting to be reaped.
pub fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

pub fn kill(pid: u32) {
    send(pid, 9);
}

fn send(pid: u32, signal: i32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    let signal = rustix::process::Signal::from_named_raw(signal).unwrap();
    let _ = rustix::process::kill_process(pid, signal);
}

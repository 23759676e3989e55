//! What is said to and by the keeper (`var/run/keep.sock`).
//!
//! Any number of clients may be connected; each receives the answers to its own
//! requests (same `seq`), and every client that said `Watch` also receives
//! [`Notice`]s. Descriptors travel as SCM_RIGHTS with the first byte of the frame
//! they belong to.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::memory::{MemoryControl, OutOfMemory};
use crate::output::Output;
use crate::watcher::Rlimits;

/// Everything the keeper needs to start one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Its name: a worker id (`app.P.A.N.K`), or `daemon`. Also put into its
    /// environment as `MFSERV_WORKER=HOME_HASH:ID` by the keeper.
    pub id: String,
    /// The command and its arguments; `argv[0]` is looked up in `env["PATH"]`.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// The working directory.
    pub cwd: PathBuf,
    /// Resource limits.
    #[serde(default)]
    pub rlimits: Rlimits,
    /// Where its output goes.
    pub output: Output,
    /// The release that it runs, for the index of its log; empty if it runs none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub release: String,
    /// Listening sockets to inherit: descriptors 3, 4… in this order, told by
    /// `MFSERV_LISTEN=NAME=FD,NAME=FD`.
    #[serde(default)]
    pub listeners: Vec<String>,
    /// What the spawner wants to find again when it comes back (the keeper does not read it).
    #[serde(default)]
    pub note: String,
    /// What it reads from standard input, then the end; at most [`LONGEST_INPUT`] bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stdin: String,
    /// Added to its niceness (nice(2)).
    #[serde(default)]
    pub nice: i32,
    /// Refuse to start it if a process of this name has been started, also if it has ended
    /// since and its exit has not been forgotten.
    #[serde(default)]
    pub once: bool,
}

/// The longest [`ProcessSpec::stdin`], bytes.
pub const LONGEST_INPUT: usize = 64 * 1024;

/// Which processes a signal is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The process itself.
    Process,
    /// It and everything that it started, wherever that has gone.
    Tree,
}

/// A request with its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the client; the answer carries it.
    pub seq: u64,
    /// What is asked.
    #[serde(flatten)]
    pub ask: Ask,
}

/// What can be asked of the keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// First message of a client.
    Hello {
        /// The client's protocol version.
        version: u32,
        /// Who it is: `daemon`, `front`, `cli`.
        role: String,
    },
    /// Send me notices from now on. Answered by [`Answer::Processes`].
    Watch,
    /// Who lives, and which exits have not been forgotten yet.
    List,
    /// Start a process.
    Spawn {
        /// What to start.
        spec: Box<ProcessSpec>,
    },
    /// Send a signal.
    Signal {
        /// The process, by name.
        id: String,
        /// The signal's number.
        signal: i32,
        /// For it alone or for its whole tree.
        scope: Scope,
    },
    /// The exit of this process has been dealt with: forget it.
    Forget {
        /// The process, by name.
        id: String,
    },
    /// Hold a listening socket. An address is `HOST:PORT` (HOST may be `0.0.0.0`,
    /// `[::]`) or `unix:PATH`. Listening again on the same name and address is fine.
    Listen {
        /// The name it is inherited by.
        name: String,
        /// Where to listen.
        address: String,
        /// listen(2) backlog.
        backlog: i32,
    },
    /// Close a listening socket.
    Unlisten {
        /// Its name.
        name: String,
    },
    /// Here is a listening socket that I inherited (descriptor attached): a front
    /// gives it back to a keeper that has lost it.
    Offer {
        /// Its name.
        name: String,
        /// Where it listens.
        address: String,
    },
    /// Replace yourself by this program (execve), keeping everything.
    Upgrade {
        /// The program to become.
        program: PathBuf,
    },
    /// Kill everything, then exit. Answered when nothing is left.
    Shutdown,
}

/// A living process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its name.
    pub id: String,
    /// Its process id.
    pub pid: u32,
    /// Start time in clock ticks since boot (field 22 of proc_pid_stat(5)).
    pub start_ticks: u64,
    /// When it was started, milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// It was started by an earlier keeper: its exit status cannot be known on
    /// Linux before 6.15.
    pub adopted: bool,
    /// What kills what it leaves behind: `cgroup` or `session`.
    pub containment: String,
    /// How its memory is limited; `None` if it is not, or if an earlier keeper has started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryControl>,
    /// The note of its [`ProcessSpec`].
    pub note: String,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum Ended {
    /// It exited with this code.
    Exited {
        /// The exit code.
        code: i32,
    },
    /// A signal ended it.
    Signalled {
        /// The signal's number.
        signal: i32,
    },
    /// It is gone; how cannot be known (adopted).
    Unknown,
}

/// The record of an exit, kept until it is forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its name.
    pub id: String,
    /// Its process id.
    pub pid: u32,
    /// How it ended.
    pub ended: Ended,
    /// The kernel says that it has killed a process of it for its memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_of_memory: Option<OutOfMemory>,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The last lines of its output, at most 4 KiB.
    pub last_output: String,
    /// How many processes that it had left behind were killed.
    pub left_behind: u32,
    /// The note of its [`ProcessSpec`].
    pub note: String,
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// The request's number.
    pub seq: u64,
    /// The answer.
    #[serde(flatten)]
    pub answer: Answer,
}

/// What the keeper answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// To `Hello`.
    Hello {
        /// The keeper's protocol version.
        version: u32,
        /// Its process id.
        pid: u32,
        /// Processes were adopted from an earlier keeper when this one started.
        adopted: u32,
        /// Names of the listening sockets it holds.
        listeners: Vec<String>,
        /// The version of its program.
        #[serde(default)]
        program: String,
    },
    /// Done.
    Done,
    /// To `Spawn`.
    Spawned(Process),
    /// To `Watch` and `List`.
    Processes {
        /// Who lives.
        alive: Vec<Process>,
        /// Exits not yet forgotten, oldest first.
        exits: Vec<Exit>,
    },
    /// It could not be done.
    Refused {
        /// What and why.
        reason: String,
        /// errno(3), where a system call said no; else 0.
        errno: i32,
    },
}

/// What the keeper says by itself to those who watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "notice", rename_all = "snake_case")]
pub enum Notice {
    /// A process ended.
    Exited(Exit),
    /// Output was dropped because the disk is slower than the process writes.
    Dropped {
        /// The process.
        id: String,
        /// Bytes dropped since the last such notice.
        bytes: u64,
    },
    /// A log file cannot be written.
    LogTrouble {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// The keeper was asked to end (SIGTERM, or the terminal closed): the daemon
    /// stops the node in order; the keeper waits `grace_ms`, then kills what is left.
    Ending {
        /// How long it waits, milliseconds.
        grace_ms: u64,
    },
}

/// Anything the keeper sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FromKeeper {
    /// The answer to a request.
    Response(Response),
    /// Said by itself.
    Notice(Notice),
}

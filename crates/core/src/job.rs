//! Jobs: programs that a plugin has run at times. A job is a line of its `crontab` or a section
//! `[job_NAME]`; each time that it is started is a run.

mod run;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::diagnostic::Location;
use crate::output::Output;
use crate::secrets::Secrets;
use crate::watcher::Rlimits;
use crate::wire::keeper::ProcessSpec;

pub use run::{Run, RunEnd, RunResult, Trigger};

/// How many runs of one line of a `crontab` may live at a time. cron(8) has no such bound.
pub const MOST_AT_ONCE: u32 = 16;

/// A job, fully resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// The plugin.
    pub plugin: String,
    /// Its name in the plugin, for people: that of the section, or `crontab:LINE`.
    pub name: String,
    /// What its runs are remembered by. For a line it depends on what the line says, so that
    /// a line keeps its history when others are written above it.
    pub key: String,
    /// When it runs, as written.
    pub schedule: String,
    /// The command, as written.
    pub command: String,
    /// The command and its arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// More of it, whose values are shown nowhere.
    #[serde(default, skip_serializing_if = "Secrets::is_empty")]
    pub secrets: Secrets,
    /// The working directory.
    pub cwd: PathBuf,
    /// What it reads from standard input.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub input: String,
    /// Where its output goes.
    pub output: Output,
    /// Resource limits.
    #[serde(default)]
    pub rlimits: Rlimits,
    /// Added to its niceness.
    #[serde(default)]
    pub nice: i32,
    /// The longest that a run may take, seconds; 0 = any time.
    pub timeout_s: u64,
    /// How long a run may go on when the job is not wanted any more, seconds.
    pub drain_timeout_s: u64,
    /// From SIGTERM to SIGKILL, seconds.
    pub graceful_timeout_s: u64,
    /// How often a run that failed is repeated.
    pub retries: u32,
    /// From the end of a failed run to its repetition, seconds.
    pub retry_delay_s: u64,
    /// How many runs may live at a time.
    pub at_once: u32,
    /// A run that was missed while the node was down is made up for, once.
    pub catch_up: bool,
    /// Where it is written.
    pub at: Location,
    /// The release that it runs; empty for a linked plugin.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub release: String,
}

impl JobSpec {
    /// The name for people in the whole node, `PLUGIN.NAME`.
    pub fn id(&self) -> String {
        format!("{}.{}", self.plugin, self.name)
    }

    /// What its runs are remembered by in the whole node.
    pub fn identity(&self) -> JobIdentity {
        JobIdentity { plugin: self.plugin.clone(), key: self.key.clone() }
    }

    /// What the keeper is asked to start for a run. A name is started once, whoever asks.
    pub fn process(&self, run: &str) -> ProcessSpec {
        ProcessSpec {
            id: self.identity().process(run),
            argv: self.argv.clone(),
            env: self.secrets.with(&self.env),
            cwd: self.cwd.clone(),
            rlimits: self.rlimits,
            output: self.output.clone(),
            release: self.release.clone(),
            listeners: Vec::new(),
            note: String::new(),
            stdin: self.input.clone(),
            nice: self.nice,
            once: true,
        }
    }
}

/// A job over all versions of its plugin.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JobIdentity {
    /// The plugin.
    pub plugin: String,
    /// See [`JobSpec::key`].
    pub key: String,
}

impl JobIdentity {
    /// The name of the process of a run: `job.PLUGIN.KEY@RUN`. No worker is named so.
    pub fn process(&self, run: &str) -> String {
        format!("job.{}.{}@{run}", self.plugin, self.key)
    }

    /// The job and the run of a process; `None` if it is no run of a job.
    pub fn of_process(id: &str) -> Option<(JobIdentity, &str)> {
        let (job, run) = id.strip_prefix("job.")?.split_once('@')?;
        let (plugin, key) = job.split_once('.')?;
        Some((JobIdentity { plugin: plugin.into(), key: key.into() }, run))
    }
}

impl fmt::Display for JobIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.plugin, self.key)
    }
}

/// A job as it is observed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// Its name in the node, `PLUGIN.NAME`.
    pub name: String,
    /// The plugin.
    pub plugin: String,
    /// When it runs, as written.
    pub schedule: String,
    /// The command, as written.
    pub command: String,
    /// Where it is written.
    pub at: Location,
    /// The next time, milliseconds since the Unix epoch; `None` if there is none.
    pub next_ms: Option<u64>,
    /// The runs that live, oldest first.
    pub running: Vec<Run>,
    /// The last run that has ended.
    pub last: Option<Run>,
    /// When a run last ended with code 0, milliseconds since the Unix epoch.
    pub last_ok_ms: Option<u64>,
    /// The log that has its output.
    pub log: PathBuf,
}

/// Runs of a job that had the same result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobCount {
    /// The job, `PLUGIN.NAME`.
    pub job: String,
    /// The result ([`RunResult::as_str`]).
    pub result: String,
    /// How many.
    pub count: u64,
    /// How long they took together, milliseconds.
    pub sum_ms: u64,
}

/// A job, as the daemon sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSample {
    /// The job, `PLUGIN.NAME`.
    pub job: String,
    /// How many runs live.
    pub running: u64,
    /// When a run last ended with code 0, milliseconds since the Unix epoch.
    pub last_ok_ms: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_of_a_run_names_its_job_and_is_no_worker() {
        let line = JobIdentity { plugin: "a-b".into(), key: "+00ff".into() };
        let id = line.process("29398123.1");
        assert_eq!(JobIdentity::of_process(&id), Some((line, "29398123.1")));
        assert!(id.parse::<crate::names::WorkerId>().is_err(), "{id}");
        for other in ["app.a.main.1.1", "daemon", "job.a", "job.a.b", "job.a@1"] {
            assert_eq!(JobIdentity::of_process(other), None, "{other}");
        }
    }
}

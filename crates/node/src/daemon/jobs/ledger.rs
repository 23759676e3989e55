//! What is remembered of jobs: a file for each (`var/jobs/PLUGIN.KEY.json`), and the clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_core::job::{JobIdentity, Run, RunEnd, RunResult};
use mfserv_cron::Clock;
use mfserv_platform::disk::{self, Disk};
use serde::{Deserialize, Serialize};

/// Runs that have ended are remembered up to this number.
const MOST_RUNS: usize = 50;
/// After this time without a change the record of a job that is gone is removed.
const FORGOTTEN: Duration = Duration::from_secs(90 * 86_400);

/// What is remembered of one job.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Record {
    /// Since when it is known: earlier times were not missed. Milliseconds since the Unix epoch.
    pub from_ms: u64,
    /// When a run last ended well.
    #[serde(default)]
    pub last_ok_ms: Option<u64>,
    /// Its last runs, the oldest first.
    #[serde(default)]
    pub runs: VecDeque<Run>,
}

impl Record {
    pub fn has(&self, run: &str) -> bool {
        self.runs.iter().any(|known| known.id == run)
    }

    pub fn add(&mut self, run: Run) {
        self.runs.push_back(run);
        let ended = self.runs.iter().filter(|run| run.end.is_some()).count();
        if ended > MOST_RUNS {
            if let Some(oldest) = self.runs.iter().position(|run| run.end.is_some()) {
                self.runs.remove(oldest);
            }
        }
    }

    pub fn run(&mut self, id: &str) -> Option<&mut Run> {
        self.runs.iter_mut().rev().find(|run| run.id == id)
    }

    pub fn end(&mut self, id: &str, end: RunEnd) -> Option<&Run> {
        if end.result == RunResult::Ok {
            self.last_ok_ms = Some(end.at_ms);
        }
        let run = self.run(id)?;
        run.end = Some(end);
        Some(run)
    }
}

/// The records of the jobs that were asked for.
pub(super) struct Ledger {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    records: BTreeMap<JobIdentity, Record>,
}

impl Ledger {
    pub fn new(dir: PathBuf, disk: Arc<dyn Disk>) -> Ledger {
        Ledger { dir, disk, records: BTreeMap::new() }
    }

    /// The record of a job; of one that was never seen, an empty one that begins now.
    pub fn record(&mut self, job: &JobIdentity, now_ms: u64) -> &mut Record {
        if !self.records.contains_key(job) {
            let text = self.disk.read(&self.file(job)).unwrap_or_default();
            let known: Option<Record> = serde_json::from_slice(&text).ok();
            if known.is_none() && !text.is_empty() {
                // Of a later version, or damaged: somebody may want to look at it.
                let aside = self.file(job).with_extension("bad");
                let _ = self.disk.replace(&aside, 0o600, &text);
            }
            let is_new = known.is_none();
            let record = known.unwrap_or_else(|| Record { from_ms: now_ms, ..Record::default() });
            self.records.insert(job.clone(), record);
            if is_new {
                // If it is lost in a power cut, the job begins later.
                let _ = self.disk.replace(&self.file(job), 0o600, &self.text(job));
            }
        }
        self.records.entry(job.clone()).or_default()
    }

    pub fn known(&self, job: &JobIdentity) -> Option<&Record> {
        self.records.get(job)
    }

    /// Writes the records of these jobs; returns when they survive a power cut. The event loop
    /// does not wait for the disk.
    pub async fn save(&self, jobs: Vec<JobIdentity>) -> Result<(), Diagnostic> {
        let texts: Vec<_> = jobs.iter().map(|job| (self.file(job), self.text(job))).collect();
        let disk = self.disk.clone();
        // Each of them, whatever becomes of the others.
        let write = move || {
            let mut result = Ok(());
            for (file, text) in &texts {
                result = result.and(disk.write(file, text));
            }
            result
        };
        let failed = |e| Diagnostic::error("writing down the runs of jobs failed").because(e);
        tokio::task::spawn_blocking(write).await.map_err(failed)?
    }

    /// The clock of the last daemon.
    pub fn clock(&self) -> Option<Clock> {
        serde_json::from_slice(&self.disk.read(&self.clock_file()).ok()?).ok()
    }

    /// Remembers the clock. It is not synced: an older one only finds runs that are known.
    pub fn keep_clock(&self, clock: &Clock) {
        let text = serde_json::to_vec(clock).unwrap_or_default();
        let _ = self.disk.replace(&self.clock_file(), 0o600, &text);
    }

    /// The keeper in whose life the jobs that run once were started.
    pub fn booted(&self) -> Option<String> {
        serde_json::from_slice(&self.disk.read(&self.boot_file()).ok()?).ok()
    }

    /// Remembers it.
    pub fn keep_boot(&self, keeper: &str) {
        let text = serde_json::to_vec(keeper).unwrap_or_default();
        let _ = self.disk.replace(&self.boot_file(), 0o600, &text);
    }

    /// Keeps the records of these jobs at hand; others are on the disk.
    pub fn let_go(&mut self, jobs: &BTreeSet<JobIdentity>) {
        self.records.retain(|job, _| jobs.contains(job));
    }

    /// Removes the records of jobs that are gone for long. (They are kept for a while: a plugin may
    /// come back, and a line may be a comment for a day.)
    pub fn sweep(&self, jobs: &BTreeSet<JobIdentity>) {
        let mut keep: BTreeSet<PathBuf> = jobs.iter().map(|job| self.file(job)).collect();
        keep.extend([self.clock_file(), self.boot_file()]);
        let dir = self.dir.clone();
        tokio::task::spawn_blocking(move || sweep(&dir, &keep));
    }

    fn text(&self, job: &JobIdentity) -> Vec<u8> {
        self.records.get(job).and_then(|record| serde_json::to_vec(record).ok()).unwrap_or_default()
    }

    fn file(&self, job: &JobIdentity) -> PathBuf {
        self.dir.join(format!("{job}.json"))
    }

    fn boot_file(&self) -> PathBuf {
        self.dir.join("boot.json")
    }

    fn clock_file(&self) -> PathBuf {
        self.dir.join("clock.json")
    }
}

fn sweep(dir: &Path, keep: &BTreeSet<PathBuf>) {
    let is_old = |path: &Path| {
        let changed = path.metadata().and_then(|meta| meta.modified());
        changed.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > FORGOTTEN))
    };
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    for file in files.filter(|file| !keep.contains(file) && is_old(file)) {
        let _ = disk::remove(&file);
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn records_of_jobs_that_are_gone_for_long_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, days: u64| {
            let path = dir.path().join(name);
            let file = std::fs::File::create(&path).unwrap();
            let age = Duration::from_secs(days * 86_400);
            file.set_modified(SystemTime::now() - age).unwrap();
            path
        };
        let yearly = file("p.yearly.json", 300);
        let (gone, recent) = (file("p.gone.json", 91), file("p.recent.json", 89));
        sweep(dir.path(), &BTreeSet::from([yearly.clone()]));
        assert_eq!([&yearly, &gone, &recent].map(|file| file.exists()), [true, false, true]);
    }

    #[test]
    fn the_oldest_run_that_has_ended_is_forgotten_first() {
        let run = |number: usize, ended: bool| Run {
            id: number.to_string(),
            trigger: mfserv_core::job::Trigger::Schedule,
            attempt: 0,
            due_ms: None,
            began_ms: 0,
            keeper: String::new(),
            pid: None,
            end: ended.then(|| RunEnd {
                at_ms: 0,
                result: RunResult::Ok,
                output: String::new(),
                left_behind: 0,
            }),
        };
        let mut record = Record::default();
        record.add(run(0, false));
        (1..=MOST_RUNS + 3).for_each(|number| record.add(run(number, true)));
        assert_eq!(record.runs.len(), MOST_RUNS + 1);
        assert!(record.has("0"), "it lives");
        assert!(!record.has("3") && record.has("4"));
    }
}

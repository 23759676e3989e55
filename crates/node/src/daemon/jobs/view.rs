//! What is shown of jobs.

use mfserv_core::job::{JobSample, JobSpec, JobStatus, Run, RunResult};
use mfserv_core::{Diagnostic, Kind};

use super::History;
use super::actor::{Actor, Job, local_zone};
use crate::render;

impl Actor {
    /// All jobs.
    pub fn list(&self) -> Vec<JobStatus> {
        self.jobs.values().map(|job| self.status(job)).collect()
    }

    /// All jobs, for metrics.
    pub fn samples(&self) -> Vec<JobSample> {
        let sample = |(name, job): (&String, &Job)| {
            let identity = job.spec.identity();
            let record = self.ledger.known(&identity);
            JobSample {
                job: name.clone(),
                running: self.live.values().filter(|live| live.job == identity).count() as u64,
                last_ok_ms: record.and_then(|record| record.last_ok_ms),
            }
        };
        self.jobs.iter().map(sample).collect()
    }

    /// What the status says of jobs, in sentences.
    pub fn notes(&self) -> Vec<String> {
        let (mut failed, mut missed) = (Vec::new(), Vec::new());
        for (name, job) in &self.jobs {
            let record = self.ledger.known(&job.spec.identity());
            // One that runs again may mend it.
            let newest = record.and_then(|record| record.runs.back());
            match newest.and_then(|run| run.end.as_ref()).map(|end| &end.result) {
                Some(RunResult::Missed { .. }) => missed.push(name.as_str()),
                Some(result) if result.is_failure() => failed.push(name.as_str()),
                _ => {}
            }
        }
        let note = |names: &[&str], what: &str| match names {
            [] => None,
            [one] => Some(format!("the job {one} {what}: `mfserv jobs history {one}`")),
            [one, ..] => {
                Some(format!("{} jobs {what}, {one} among them: `mfserv jobs`", names.len()))
            }
        };
        let failed = note(&failed, "failed at the last run");
        failed.into_iter().chain(note(&missed, "missed a run while the node was down")).collect()
    }

    /// A job and its runs, the newest first.
    pub fn history(&self, name: &str) -> Result<History, Diagnostic> {
        let job = self.find(name)?;
        let record = self.ledger.known(&job.spec.identity());
        let runs = record.into_iter().flat_map(|record| record.runs.iter().rev());
        Ok(History { job: self.status(job), runs: runs.cloned().collect() })
    }

    /// The job of this name: `PLUGIN.NAME`, or `PLUGIN` if the plugin has only one.
    pub fn find(&self, name: &str) -> Result<&Job, Diagnostic> {
        if let Some(job) = self.jobs.get(name) {
            return Ok(job);
        }
        let own: Vec<&Job> = self.jobs.values().filter(|job| job.spec.plugin == name).collect();
        match own[..] {
            [one] => Ok(one),
            [] => {
                let near = mfserv_core::suggest::nearest(name, self.jobs.keys().map(|id| &**id));
                let help = match near {
                    Some(near) => format!("did you mean {near}? `mfserv jobs` lists them"),
                    None => "`mfserv jobs` lists them".into(),
                };
                let problem = Diagnostic::error(format!("there is no job {name}"));
                Err(problem.kind(Kind::Usage).help(help))
            }
            _ => {
                let names: Vec<String> = own.iter().map(|job| job.spec.id()).collect();
                Err(Diagnostic::error(format!("{name} has several jobs"))
                    .kind(Kind::Usage)
                    .because(names.join(", "))
                    .help("say which one"))
            }
        }
    }

    fn status(&self, job: &Job) -> JobStatus {
        let spec = &job.spec;
        let record = self.ledger.known(&spec.identity());
        let runs = || record.into_iter().flat_map(|record| &record.runs);
        let next = job.schedule.next(self.now(), &local_zone().0);
        JobStatus {
            name: spec.id(),
            plugin: spec.plugin.clone(),
            schedule: spec.schedule.clone(),
            command: spec.command.clone(),
            at: spec.at.clone(),
            next_ms: next.and_then(|run| u64::try_from(run.at.as_millisecond()).ok()),
            running: runs().filter(|run| run.end.is_none()).cloned().collect(),
            last: runs().rfind(|run: &&Run| run.end.is_some()).cloned(),
            last_ok_ms: record.and_then(|record| record.last_ok_ms),
            log: spec.output.stdout.clone(),
        }
    }
}

/// The first lines of `tmp/config_auto/crontab`.
pub(super) fn header(generation: u64, now_ms: u64) -> String {
    format!(
        "# What mfserv runs at which times, made from plan {generation} at {}.\n\
         # It is for people: no cron reads it, and it is made again when a job changes.\n",
        render::time(now_ms)
    )
}

/// The jobs as lines of a crontab, by plugin.
pub(super) fn crontab<'a>(jobs: impl Iterator<Item = &'a JobSpec>) -> String {
    let mut text = String::new();
    let mut plugin = "";
    for job in jobs {
        if job.plugin != plugin {
            plugin = &job.plugin;
            text += &format!("\n# ---- plugin {plugin}\n");
        }
        let input: String = job.input.lines().map(|line| format!("%{}", escaped(line))).collect();
        text += &format!("# {} ({}:{})\n", job.name, job.at.file, job.at.line);
        text += &format!("{} {}{input}\n", job.schedule, escaped(&job.command));
    }
    text
}

fn escaped(command: &str) -> String {
    command.replace('%', "\\%").replace('\n', "%")
}

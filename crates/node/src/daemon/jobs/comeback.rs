//! What a daemon does first: it finds out what became of the runs of the one before it, and which
//! times have passed meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use mfserv_core::fingerprint;
use mfserv_core::job::{JobIdentity, Run, RunEnd, RunResult, Trigger};
use mfserv_core::wire::keeper::{Ask, Process, Scope};

use super::Found;
use super::actor::{Actor, ms_of, run_of};
use super::runs::{Live, Step, Wanted, end};

/// What was due so long ago at most is started late, as by cron(8); what was due before is missed.
const LATE: Duration = Duration::from_secs(5 * 60);
/// How long a run has after SIGTERM whose job nobody knows any more, seconds.
const GRACE_S: u64 = 10;

impl Actor {
    /// Begins with the jobs of the first plan.
    pub async fn come_back(&mut self) {
        self.find_again().await;
        self.make_up().await;
        self.start_at_reboot().await;
        let mut retries = Vec::new();
        for job in self.jobs.values() {
            let identity = job.spec.identity();
            let last = self.ledger.known(&identity).and_then(|record| record.runs.back());
            retries.extend(last.and_then(|run| self.retry_of(&identity, run)));
        }
        self.retries.extend(retries);
    }

    /// `@reboot`: once in the life of a keeper that has not taken over what another one started.
    /// That it was done is written down last: a daemon that dies before is followed by one that
    /// does it again, and the names of the runs tell which are known.
    async fn start_at_reboot(&mut self) {
        let keeper = self.found.keeper.clone();
        if self.ledger.booted().as_ref() == Some(&keeper) {
            return;
        }
        if !self.found.has_adopted {
            let jobs = self.jobs.values().filter(|job| job.schedule.is_reboot());
            let run = format!("boot{:016x}", fingerprint::of(keeper.as_bytes()));
            let wanted: Vec<Wanted> =
                jobs.map(|job| Wanted::new(&job.spec, run.clone(), Trigger::Schedule)).collect();
            self.start(wanted).await;
        }
        self.ledger.keep_boot(&keeper);
    }

    /// Compares the runs that are written down with those that the keeper knows.
    pub async fn find_again(&mut self) {
        let now_ms = self.now_ms();
        let Found { alive, exits, .. } = self.found.clone();
        let processes = alive.iter().map(|process| &process.id);
        let named = processes.chain(exits.iter().map(|exit| &exit.id));
        let named = named.filter_map(|id| JobIdentity::of_process(id)).map(|(job, _)| job);
        let planned = self.jobs.values().map(|job| job.spec.identity());
        let known: BTreeSet<JobIdentity> = named.chain(planned).collect();
        for job in &known {
            self.ledger.record(job, now_ms);
        }
        for process in &alive {
            self.adopt(process).await;
        }
        for exit in exits {
            self.write_down(&exit.id, now_ms);
            self.take_over(&exit.id);
            self.exited(exit).await;
        }
        let lives: BTreeSet<&String> = alive.iter().map(|process| &process.id).collect();
        let mut lost = Vec::new();
        for job in known.iter().chain(&self.live_jobs()) {
            let runs = self.ledger.known(job).into_iter().flat_map(|record| &record.runs);
            let open = runs.filter(|run| run.end.is_none());
            lost.extend(
                open.filter(|run| !lives.contains(&job.process(&run.id)))
                    .map(|run| (job.clone(), run.clone())),
            );
        }
        lost.sort_by(|a, b| (&a.0, &a.1.id).cmp(&(&b.0, &b.1.id)));
        lost.dedup_by(|a, b| a.0 == b.0 && a.1.id == b.1.id);
        for (job, run) in lost {
            self.start_or_give_up(&job, &run).await;
        }
    }

    fn live_jobs(&self) -> Vec<JobIdentity> {
        self.live.values().map(|live| live.job.clone()).collect()
    }

    /// A run that the keeper knows and no record (the disk was full) gets one now.
    fn write_down(&mut self, process: &str, began_ms: u64) {
        let now_ms = self.now_ms();
        let Some((job, run)) = JobIdentity::of_process(process) else { return };
        let record = self.ledger.record(&job, now_ms);
        if !record.has(run) {
            record.add(Run {
                id: run.to_owned(),
                trigger: Trigger::Schedule,
                attempt: 0,
                due_ms: None,
                began_ms,
                keeper: self.found.keeper.clone(),
                pid: None,
                end: None,
            });
        }
    }

    /// A run lives.
    async fn adopt(&mut self, process: &Process) {
        let now_ms = self.now_ms();
        if JobIdentity::of_process(&process.id).is_none() {
            return;
        }
        self.write_down(&process.id, process.started_ms);
        if !self.live.contains_key(&process.id) && !self.take_over(&process.id) {
            // It counts as ended: nobody waits for it.
            let (id, scope) = (process.id.clone(), Scope::Tree);
            return self.world.keeper.send(Ask::Signal { id, signal: 9, scope });
        }
        let for_ms = now_ms.saturating_sub(process.started_ms);
        self.started(process, for_ms).await;
    }

    /// Looks after the run of a process from now on, unless it counts as ended.
    fn take_over(&mut self, process: &str) -> bool {
        let now_ms = self.now_ms();
        let Some((job, run)) = JobIdentity::of_process(process) else { return false };
        let spec = self.jobs.values().find(|known| known.spec.identity() == job);
        let live = match spec {
            Some(known) => Live::new(&known.spec, run, Step::Starts),
            None => Live {
                name: job.to_string(),
                job: job.clone(),
                run: run.to_owned(),
                step: Step::Starts,
                timeout_s: 0,
                drain_timeout_s: 0,
                graceful_timeout_s: GRACE_S,
                memory: None,
            },
        };
        let open = self.ledger.record(&job, now_ms).run(run).is_some_and(|run| run.end.is_none());
        if open {
            self.live.entry(process.to_owned()).or_insert(live);
        }
        open
    }

    /// A run is written down, and the keeper does not know it.
    async fn start_or_give_up(&mut self, job: &JobIdentity, run: &Run) {
        let process = job.process(&run.id);
        self.take_over(&process);
        let known = self.jobs.values().find(|known| known.spec.identity() == *job);
        let spec = known.map(|known| known.spec.clone());
        match spec.filter(|_| run.keeper == self.found.keeper && !run.was_started()) {
            // This keeper would know it: the daemon died before it was started.
            Some(spec) if !self.is_stopping => self.ask_keeper(&spec, &run.id),
            _ => {
                let result = match run.was_started() {
                    true => RunResult::Unknown,
                    false => RunResult::NotStarted { why: "the node went down".into() },
                };
                self.ended(&process, result, (String::new(), 0)).await;
            }
        }
    }

    /// Starts what was due shortly before, reports what was missed, and makes up for that where
    /// the job says so.
    async fn make_up(&mut self) {
        let (now, zone, now_ms) = (self.now(), self.zone(), self.now_ms());
        let Some(mut clock) = self.ledger.clock() else { return };
        let since = clock.woken_at();
        let is_short = Duration::try_from(now - since).is_ok_and(|away| away <= LATE);
        if is_short || now < since {
            // The clock makes up for each minute.
            self.clock = Some(clock);
            return self.start_due().await;
        }
        clock.restart(now, &zone);
        let (mut wanted, mut changed, mut missed_runs) = (Vec::new(), Vec::new(), Vec::new());
        for job in self.jobs.values() {
            let identity = job.spec.identity();
            let record = self.ledger.record(&identity, now_ms);
            let from = i64::try_from(record.from_ms).map(Timestamp::from_millisecond);
            let since = since.max(from.ok().and_then(Result::ok).unwrap_or(since));
            let Some(missed) = job.schedule.missed(since, now, &zone) else { continue };
            let due_ms = Some(ms_of(missed.latest.minute, &zone, missed.latest.at));
            if record.runs.iter().any(|run| run.due_ms == due_ms) {
                // It was written down, and the clock after it was not.
                continue;
            }
            // Summer time ends: the same minute comes twice, and may be missed twice.
            let first_ms = ms_of(missed.latest.minute, &zone, Timestamp::MIN);
            let pass = u64::from(due_ms > Some(first_ms));
            let run = run_of(missed.latest.minute, pass);
            let is_late = Duration::try_from(now - missed.latest.at).is_ok_and(|ago| ago <= LATE);
            let times = missed.count - u64::from(is_late);
            if times > 0 {
                let (id, result) = (format!("{run}x"), RunResult::Missed { times });
                record.add(missed_run(&id, due_ms, end(now_ms, result.clone())));
                missed_runs.push((job.spec.id(), id, result));
            }
            let trigger = if is_late { Trigger::Schedule } else { Trigger::CatchUp };
            if !is_late && !job.spec.catch_up {
                changed.push(identity);
            } else {
                // What was missed is written down with it: alone, it would look as if nothing were
                // left to do, should this daemon die in between.
                let run = format!("{run}c");
                wanted.push(Wanted { due_ms, ..Wanted::new(&job.spec, run, trigger) });
            }
        }
        self.save(changed).await;
        for (job, run, result) in missed_runs {
            self.record_end((job, run), result, None, (String::new(), 0));
        }
        self.start(wanted).await;
        self.ledger.keep_clock(&clock);
        self.clock = Some(clock);
    }
}

fn missed_run(id: &str, due_ms: Option<u64>, end: RunEnd) -> Run {
    Run {
        id: id.to_owned(),
        trigger: Trigger::Schedule,
        attempt: 0,
        due_ms,
        began_ms: end.at_ms,
        keeper: String::new(),
        pid: None,
        end: Some(end),
    }
}

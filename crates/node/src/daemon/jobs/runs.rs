//! Runs: started, ended in time, repeated, written down.

use std::sync::Arc;
use std::time::Duration;

use mfserv_core::event::Fact;
use mfserv_core::job::{JobIdentity, JobSpec, Run, RunEnd, RunResult, Trigger};
use mfserv_core::memory::MemoryControl;
use mfserv_core::wire::keeper::{Answer, Ask, Exit, Process, Scope};
use mfserv_core::{Diagnostic, Kind};
use tokio::time::Instant;

use super::actor::Actor;
use super::{Found, Message, of_processes};

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;
/// How often a tree that does not end is killed again: it may have started processes meanwhile.
const KILL_AGAIN: Duration = Duration::from_secs(1);

/// A run that is to be started.
pub(super) struct Wanted {
    pub spec: Arc<JobSpec>,
    pub run: String,
    pub trigger: Trigger,
    pub attempt: u32,
    pub due_ms: Option<u64>,
}

impl Wanted {
    /// A first try that is due at no minute.
    pub fn new(spec: &Arc<JobSpec>, run: String, trigger: Trigger) -> Wanted {
        Wanted { spec: spec.clone(), run, trigger, attempt: 0, due_ms: None }
    }
}

/// A run that lives, or is about to.
pub(super) struct Live {
    /// The name of the job, for people.
    pub name: String,
    pub job: JobIdentity,
    pub run: String,
    pub step: Step,
    pub timeout_s: u64,
    pub drain_timeout_s: u64,
    pub graceful_timeout_s: u64,
    /// Its process and the limits of its memory, if it has any.
    pub memory: Option<(u32, MemoryControl)>,
}

/// What is being done with a run.
pub(super) enum Step {
    /// The keeper was asked to start it.
    Starts,
    /// It runs, at most until then.
    Runs { until: Option<Instant> },
    /// It may go on until then, and is not wanted any more.
    Drains { until: Instant, why: String },
    /// It was asked to end, and is killed then. This is its result, whatever it exits with.
    Ends { result: RunResult, kill_at: Instant },
}

impl Live {
    /// A run of a job as the plan has it.
    pub fn new(spec: &JobSpec, run: &str, step: Step) -> Live {
        Live {
            name: spec.id(),
            job: spec.identity(),
            run: run.to_owned(),
            step,
            timeout_s: spec.timeout_s,
            drain_timeout_s: spec.drain_timeout_s,
            graceful_timeout_s: spec.graceful_timeout_s,
            memory: None,
        }
    }

    /// It runs since `for_ms`.
    pub fn runs(&mut self, for_ms: u64) {
        let timeout = Duration::from_secs(self.timeout_s);
        let left = timeout.saturating_sub(Duration::from_millis(for_ms));
        let until = (self.timeout_s > 0).then(|| Instant::now() + left);
        self.step = Step::Runs { until };
    }

    /// When something is to be done with it.
    pub fn next_moment(&self) -> Option<Instant> {
        match &self.step {
            Step::Starts => None,
            Step::Runs { until } => *until,
            Step::Drains { until, .. } => Some(*until),
            Step::Ends { kill_at, .. } => Some(*kill_at),
        }
    }

    fn ends(&mut self, result: RunResult) {
        let grace = Duration::from_secs(self.graceful_timeout_s);
        self.step = Step::Ends { result, kill_at: Instant::now() + grace };
    }
}

/// A run that has failed and is to be repeated.
pub(super) struct Retry {
    /// The name of the job in the node.
    pub name: String,
    pub at: Instant,
    pub run: String,
    pub attempt: u32,
    pub due_ms: Option<u64>,
}

impl Actor {
    /// Writes runs down, then has the keeper start them. A run that is known is left out.
    pub async fn start(&mut self, wanted: Vec<Wanted>) {
        let now_ms = self.now_ms();
        let (mut changed, mut begun, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
        for Wanted { spec, run, trigger, attempt, due_ms } in wanted {
            let job = spec.identity();
            let running = self.live.values().filter(|live| live.job == job).count();
            let keeper = self.found.keeper.clone();
            let record = self.ledger.record(&job, now_ms);
            if record.has(&run) {
                continue;
            }
            let new = |end| Run {
                id: run.clone(),
                trigger,
                attempt,
                due_ms,
                began_ms: now_ms,
                keeper,
                pid: None,
                end,
            };
            changed.push(job.clone());
            if running >= spec.at_once as usize {
                let result = RunResult::Skipped { running: running as u32 };
                record.add(new(Some(end(now_ms, result.clone()))));
                skipped.push((spec.id(), run, result));
                continue;
            }
            record.add(new(None));
            self.live.insert(job.process(&run), Live::new(&spec, &run, Step::Starts));
            begun.push((spec, run));
        }
        if changed.is_empty() {
            return;
        }
        self.save(changed).await;
        begun.iter().for_each(|(spec, run)| self.ask_keeper(spec, run));
        for (job, run, result) in skipped {
            self.record_end((job, run), result, None, (String::new(), 0));
        }
    }

    /// Writes down; a disk that is full loses the record and not the run.
    /// Returns whether the records survive this daemon.
    pub async fn save(&self, jobs: Vec<JobIdentity>) -> bool {
        let saved = self.ledger.save(jobs).await;
        let is_saved = saved.is_ok();
        if let Err(problem) = saved {
            self.events.record(Fact::Problem { problem });
        }
        is_saved
    }

    /// Has the keeper start a run; the answer comes as a message.
    pub fn ask_keeper(&self, spec: &JobSpec, run: &str) {
        let (keeper, own) = (self.world.keeper.clone(), self.own.clone());
        let process = spec.process(run);
        tokio::spawn(async move {
            let id = process.id.clone();
            let answer = keeper.ask(Ask::Spawn { spec: Box::new(process) }).await;
            if let Some(own) = own.upgrade() {
                let _ = own.send(Message::Spawned(id, answer));
            }
        });
    }

    pub async fn spawned(&mut self, process: String, answer: Result<Answer, Diagnostic>) {
        match answer {
            Ok(Answer::Spawned(started)) => self.started(&started, 0).await,
            // What has become of it is found out when the keeper is back.
            Err(problem) if problem.kind == Kind::NotRunning => {}
            Ok(_) => {}
            Err(problem) => {
                // Perhaps it has been started for the daemon before this one.
                let (keeper, own) = (self.world.keeper.clone(), self.own.clone());
                tokio::spawn(async move {
                    if let Ok(Answer::Processes { alive, exits }) = keeper.ask(Ask::List).await {
                        let found = of_processes(&alive, &exits);
                        if let Some(own) = own.upgrade() {
                            let _ = own.send(Message::Refused(process, problem.what, found));
                        }
                    }
                });
            }
        }
    }

    pub async fn refused(&mut self, process: &str, why: String, found: Found) {
        // Also one that was to be ended before it had begun.
        if !self.live.contains_key(process) {
            return;
        }
        if let Some(alive) = found.alive.iter().find(|alive| alive.id == process) {
            let for_ms = self.now_ms().saturating_sub(alive.started_ms);
            return self.started(alive, for_ms).await;
        }
        match found.exits.into_iter().find(|exit| exit.id == process) {
            Some(exit) => self.exited(exit).await,
            None => {
                self.ended(process, RunResult::NotStarted { why }, (String::new(), 0)).await;
            }
        }
    }

    /// A run lives since `for_ms`.
    pub async fn started(&mut self, process: &Process, for_ms: u64) {
        let (now_ms, pid) = (self.now_ms(), process.pid);
        let Some(live) = self.live.get_mut(&process.id) else { return };
        live.memory = process.memory.clone().map(|control| (pid, control));
        if matches!(live.step, Step::Starts) {
            live.runs(for_ms);
        }
        let (name, job, id) = (live.name.clone(), live.job.clone(), live.run.clone());
        let Some(run) = self.ledger.record(&job, now_ms).run(&id) else { return };
        if run.pid.is_none() {
            run.pid = Some(pid);
            let trigger = run.trigger;
            self.save(vec![job]).await;
            self.events.record(Fact::JobStarted { job: name, run: id, trigger, pid });
        }
    }

    /// The process of a run has ended.
    pub async fn exited(&mut self, exit: Exit) {
        let forget = Ask::Forget { id: exit.id.clone() };
        let mut is_known = true;
        if let Some(live) = self.live.get(&exit.id) {
            let result = match &live.step {
                Step::Ends { result, .. } => result.clone(),
                Step::Starts | Step::Runs { .. } | Step::Drains { .. } => {
                    match (exit.out_of_memory, RunResult::of(&exit.ended)) {
                        (Some(why), result) if result != RunResult::Ok => live.out_of_memory(why),
                        (_, result) => result,
                    }
                }
            };
            let now_ms = self.now_ms();
            let (job, id) = (live.job.clone(), live.run.clone());
            if let Some(run) = self.ledger.record(&job, now_ms).run(&id) {
                run.pid.get_or_insert(exit.pid);
            }
            is_known = self.ended(&exit.id, result, (exit.last_output, exit.left_behind)).await;
        }
        // Only now: the next daemon would not know how it has ended, and start it again.
        if is_known {
            self.world.keeper.send(forget);
        }
    }

    /// Writes down how a run has ended, and has it repeated if it failed. Returns whether that is
    /// known to the next daemon.
    pub async fn ended(&mut self, process: &str, result: RunResult, left: (String, u32)) -> bool {
        let now_ms = self.now_ms();
        let Some(live) = self.live.remove(process) else { return true };
        let (output, left_behind) = left;
        let record = self.ledger.record(&live.job, now_ms);
        let end = RunEnd { output: output.clone(), left_behind, ..end(now_ms, result.clone()) };
        let Some(run) = record.end(&live.run, end).cloned() else { return true };
        let is_saved = self.save(vec![live.job.clone()]).await;
        let output = if result == RunResult::Ok { String::new() } else { output };
        self.record_end((live.name, live.run), result, run.took_ms(), (output, left_behind));
        self.retries.extend(self.retry_of(&live.job, &run));
        is_saved
    }

    pub fn record_end(
        &self,
        (job, run): (String, String),
        result: RunResult,
        after_ms: Option<u64>,
        (last_output, left_behind): (String, u32),
    ) {
        self.events.record(Fact::JobEnded { job, run, result, after_ms, last_output, left_behind });
    }

    /// The repetition of a run that has ended, if its job wants one.
    pub fn retry_of(&self, job: &JobIdentity, run: &Run) -> Option<Retry> {
        let end = run.end.as_ref().filter(|end| end.result.is_failure())?;
        let (name, known) = self.jobs.iter().find(|(_, known)| known.spec.identity() == *job)?;
        let spec = &known.spec;
        if self.is_stopping || run.trigger == Trigger::Asked || run.attempt >= spec.retries {
            return None;
        }
        let ago = Duration::from_millis(self.now_ms().saturating_sub(end.at_ms));
        let first = run.id.split('r').next().unwrap_or_default();
        let attempt = run.attempt + 1;
        Some(Retry {
            name: name.clone(),
            at: Instant::now() + Duration::from_secs(spec.retry_delay_s).saturating_sub(ago),
            run: format!("{first}r{attempt}"),
            attempt,
            due_ms: run.due_ms,
        })
    }

    /// Starts the repetitions whose time has come.
    pub async fn repeat_failed(&mut self) {
        let now = Instant::now();
        let (due, later) =
            std::mem::take(&mut self.retries).into_iter().partition(|retry| retry.at <= now);
        self.retries = later;
        let due: Vec<Retry> = due;
        let wanted = due.into_iter().filter_map(|Retry { name, run, attempt, due_ms, .. }| {
            let spec = &self.jobs.get(&name)?.spec;
            Some(Wanted { attempt, due_ms, ..Wanted::new(spec, run, Trigger::Retry) })
        });
        let wanted = wanted.collect();
        self.start(wanted).await;
    }

    /// Ends the runs whose time is over, first with SIGTERM, then with SIGKILL.
    pub fn end_late(&mut self) {
        let now = Instant::now();
        for (process, live) in &mut self.live {
            if live.next_moment().is_none_or(|moment| moment > now) {
                continue;
            }
            let signal = match &mut live.step {
                Step::Starts => continue,
                Step::Runs { .. } => {
                    let after_s = live.timeout_s;
                    live.ends(RunResult::TimedOut { after_s });
                    SIGTERM
                }
                Step::Drains { why, .. } => {
                    let why = std::mem::take(why);
                    live.ends(RunResult::Stopped { why });
                    SIGTERM
                }
                Step::Ends { kill_at, .. } => {
                    *kill_at = now + KILL_AGAIN;
                    SIGKILL
                }
            };
            let (id, scope) = (process.clone(), Scope::Tree);
            self.world.keeper.send(Ask::Signal { id, signal, scope });
        }
    }

    /// Starts a run because somebody asks for it; returns when it is written down.
    pub async fn run_now(&mut self, name: &str) -> Result<Run, Diagnostic> {
        let refused = |what: String| Diagnostic::error(what).kind(Kind::Refused);
        if self.is_stopping {
            return Err(refused("the node is stopping".into()));
        }
        let spec = self.find(name)?.spec.clone();
        let now_ms = self.now_ms();
        let job = spec.identity();
        let running = self.live.values().filter(|live| live.job == job).count();
        if running >= spec.at_once as usize {
            let most = spec.at_once;
            return Err(refused(format!("{} runs already", spec.id()))
                .because(format!("at most {most} of its runs live at a time"))
                .help("wait for its end: `mfserv jobs`; [job_…] _overlap=1 allows more"));
        }
        let mut id = format!("m{now_ms}");
        let record = self.ledger.record(&job, now_ms);
        if record.has(&id) {
            id = format!("m{now_ms}.{}", record.runs.len());
        }
        self.start(vec![Wanted::new(&spec, id.clone(), Trigger::Asked)]).await;
        let begun = self.ledger.record(&job, now_ms).run(&id).cloned();
        begun.ok_or_else(|| Diagnostic::error(format!("{} was not started", spec.id())))
    }
}

/// The end of a run that left nothing to say.
pub(super) fn end(at_ms: u64, result: RunResult) -> RunEnd {
    RunEnd { at_ms, result, output: String::new(), left_behind: 0 }
}

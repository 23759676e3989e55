//! The task of the jobs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use mfserv_core::Diagnostic;
use mfserv_core::event::Fact;
use mfserv_core::job::{JobIdentity, JobSpec, Trigger};
use mfserv_core::plan::Plan;
use mfserv_cron::{Clock, LocalMinute, Schedule};
use mfserv_supervisor::Sampling;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::ledger::Ledger;
use super::runs::{Live, Retry, Step, Wanted};
use super::{Events, Found, Message, Places, World, view};

/// How often records are looked for whose jobs are gone.
const SWEEP: Duration = Duration::from_secs(86_400);

/// A job of the plan.
pub(super) struct Job {
    pub spec: Arc<JobSpec>,
    pub schedule: Schedule,
}

/// The state of the task.
pub(super) struct Actor {
    pub places: Places,
    pub world: World,
    pub events: Events,
    /// It ends when nobody else has it.
    pub own: mpsc::WeakUnboundedSender<Message>,
    pub ledger: Ledger,
    /// The jobs that are wanted, by their name in the node.
    pub jobs: BTreeMap<String, Job>,
    /// `None` while no job has times.
    pub clock: Option<Clock>,
    /// The runs that live, or are about to, by the names of their processes.
    pub live: BTreeMap<String, Live>,
    pub retries: Vec<Retry>,
    /// When the memory of runs is measured.
    pub sampling: Sampling,
    /// What the keeper said last, and which it is.
    pub found: Found,
    /// When the records of jobs that are gone were last looked for.
    pub swept: Option<Instant>,
    /// A plan was applied.
    pub has_begun: bool,
    pub is_stopping: bool,
    /// Questions from before the first plan. Clients are bounded, and so are these.
    early: Vec<Message>,
    waits: Vec<(Option<String>, oneshot::Sender<()>)>,
    /// The last text of `tmp/config_auto/crontab`.
    shown: Option<String>,
    complained: bool,
}

impl Actor {
    pub fn new(
        places: Places,
        world: World,
        events: Events,
        found: Found,
        own: mpsc::WeakUnboundedSender<Message>,
    ) -> Actor {
        let ledger = Ledger::new(places.jobs(), world.disk.clone());
        Actor {
            places,
            world,
            events,
            own,
            ledger,
            jobs: BTreeMap::new(),
            clock: None,
            live: BTreeMap::new(),
            retries: Vec::new(),
            sampling: Sampling::default(),
            found,
            swept: None,
            has_begun: false,
            is_stopping: false,
            early: Vec::new(),
            waits: Vec::new(),
            shown: None,
            complained: false,
        }
    }

    /// Runs as long as the daemon.
    pub async fn run(mut self, mut messages: mpsc::UnboundedReceiver<Message>) {
        loop {
            let next = self.next_moment();
            tokio::select! {
                message = messages.recv() => match message {
                    Some(message) if self.is_too_early(&message) => {
                        self.early.retain(Message::is_awaited);
                        self.early.push(message);
                    }
                    Some(message) => self.handle(message).await,
                    None => return,
                },
                () = until(next) => self.pass_time().await,
            }
            if self.has_begun {
                for message in std::mem::take(&mut self.early) {
                    self.handle(message).await;
                }
            }
            self.answer_waits();
        }
    }

    /// No plan has said yet which jobs there are: a daemon that has just come knows none.
    fn is_too_early(&self, message: &Message) -> bool {
        let asks = matches!(message, Message::List(_) | Message::Run(..) | Message::History(..));
        asks && !self.has_begun
    }

    async fn handle(&mut self, message: Message) {
        match message {
            Message::Planned(plan) => self.planned(&plan).await,
            Message::Keeper(found) => {
                self.found = found;
                if self.has_begun {
                    // Its life is not a start of the node.
                    self.ledger.keep_boot(&self.found.keeper);
                    self.find_again().await;
                }
            }
            Message::Exited(exit) => {
                if self.has_begun {
                    self.exited(exit).await;
                } else {
                    self.found.alive.retain(|process| process.id != exit.id);
                    self.found.exits.push(exit);
                }
            }
            Message::Spawned(process, answer) => self.spawned(process, answer).await,
            Message::Refused(process, why, found) => self.refused(&process, why, found).await,
            Message::Measured(measured, took) => self.measured(&measured, took),
            Message::Samples(reply) => drop(reply.send(self.samples())),
            Message::Notes(reply) => drop(reply.send(self.notes())),
            Message::List(reply) => drop(reply.send(self.list())),
            Message::Run(name, reply) => {
                let begun = self.run_now(&name).await;
                let _ = reply.send(begun);
            }
            Message::History(name, reply) => drop(reply.send(self.history(&name))),
            Message::Stop => {
                self.is_stopping = true;
                if !std::mem::replace(&mut self.has_begun, true) {
                    self.find_again().await;
                }
                self.retries.clear();
                self.end_unwanted(|_| Some("the node stops"));
            }
            Message::Gone(plugin, reply) => self.waits.push((plugin, reply)),
        }
    }

    /// Goes over to the jobs of a plan.
    async fn planned(&mut self, plan: &Plan) {
        let now_ms = self.now_ms();
        self.jobs = jobs_of(plan);
        for job in self.jobs.values() {
            self.ledger.record(&job.spec.identity(), now_ms);
        }
        if !self.has_begun {
            self.has_begun = true;
            self.come_back().await;
        }
        let plugins: Vec<&str> = plan.plugins.iter().map(|one| one.name.as_str()).collect();
        self.end_unwanted(|plugin| (!plugins.contains(&plugin)).then_some("it is uninstalled"));
        let jobs = &self.jobs;
        self.retries.retain(|retry| jobs.contains_key(&retry.name));
        let has_times = jobs.values().any(|job| !job.schedule.is_reboot());
        match (&self.clock, has_times) {
            (None, true) => {
                let zone = self.zone();
                let clock = self.new_clock(&zone);
                self.ledger.keep_clock(&clock);
                self.clock = Some(clock);
            }
            (Some(_), false) => self.clock = None,
            _ => {}
        }
        self.show(plan);
        self.sweep();
    }

    /// A clock that owes nothing. It goes on counting the passes of an earlier one, with which the
    /// runs are named that are known.
    fn new_clock(&self, zone: &TimeZone) -> Clock {
        let now = self.now();
        match self.ledger.clock() {
            Some(mut clock) => {
                clock.restart(now, zone);
                clock
            }
            None => Clock::new(now, zone),
        }
    }

    /// Forgets the records of jobs that are not planned and do not run; those on the disk after
    /// months.
    fn sweep(&mut self) {
        let live = self.live.values().map(|live| live.job.clone());
        let known: BTreeSet<JobIdentity> =
            self.jobs.values().map(|job| job.spec.identity()).chain(live).collect();
        self.ledger.let_go(&known);
        if self.swept.is_none_or(|swept| swept.elapsed() >= SWEEP) {
            self.swept = Some(Instant::now());
            self.ledger.sweep(&known);
        }
    }

    /// Writes `tmp/config_auto/crontab`, for people. A disk that is full does without.
    fn show(&mut self, plan: &Plan) {
        let lines = view::crontab(self.jobs.values().map(|job| &*job.spec));
        // The first plan replaces what was shown before.
        if self.shown.as_ref() != Some(&lines) {
            let text = view::header(plan.generation, self.now_ms()) + &lines;
            let file = self.places.shown_crontab();
            // Variables are filled in: some may be passwords.
            let _ = self.world.disk.replace(&file, 0o600, text.as_bytes());
            self.shown = Some(lines);
        }
    }

    /// A minute, the time of a run or the pause before a repetition is over.
    async fn pass_time(&mut self) {
        self.start_due().await;
        self.measure();
        self.end_late();
        self.repeat_failed().await;
    }

    /// Starts what is due.
    pub async fn start_due(&mut self) {
        let (now, zone) = (self.now(), self.zone());
        let Some(clock) = self.clock.as_mut().filter(|_| !self.is_stopping) else { return };
        let Some(wake) = clock.wake(now, &zone) else { return };
        let mut wanted = Vec::new();
        for job in self.jobs.values() {
            for minute in wake.minutes(&job.schedule) {
                let run = run_of(minute, wake.pass());
                let due_ms = Some(ms_of(minute, &zone, now));
                wanted.push(Wanted { due_ms, ..Wanted::new(&job.spec, run, Trigger::Schedule) });
            }
        }
        self.start(wanted).await;
        // Only now: what is due and not written down would be lost with this daemon.
        if let Some(clock) = &self.clock {
            self.ledger.keep_clock(clock);
        }
    }

    fn next_moment(&self) -> Option<Instant> {
        let minute = self.clock.as_ref().filter(|_| !self.is_stopping).map(|clock| {
            let now = self.now();
            let next = clock.next_wake(now, &local_zone().0);
            Instant::now() + Duration::try_from(next - now).unwrap_or_default()
        });
        let lives = self.live.values().filter_map(Live::next_moment);
        let repeated = self.retries.iter().map(|retry| retry.at);
        minute.into_iter().chain(lives).chain(repeated).chain(self.measured_next()).min()
    }

    /// Ends the runs of plugins for which there is a reason, unless they are ended already.
    fn end_unwanted(&mut self, why: impl Fn(&str) -> Option<&'static str>) {
        let now = Instant::now();
        for live in self.live.values_mut() {
            let Some(why) = why(&live.job.plugin) else { continue };
            if !matches!(live.step, Step::Drains { .. } | Step::Ends { .. }) {
                let until = now + Duration::from_secs(live.drain_timeout_s);
                live.step = Step::Drains { until, why: why.into() };
            }
        }
        self.end_late();
    }

    fn answer_waits(&mut self) {
        let live = &self.live;
        let lives = |plugin: &Option<String>| {
            let is_own = |live: &Live| plugin.as_ref().is_none_or(|one| *one == live.job.plugin);
            live.values().any(is_own)
        };
        let (wait, done) = std::mem::take(&mut self.waits)
            .into_iter()
            .partition(|(plugin, reply)| lives(plugin) && !reply.is_closed());
        self.waits = wait;
        let done: Vec<(Option<String>, oneshot::Sender<()>)> = done;
        for (_, reply) in done {
            let _ = reply.send(());
        }
    }

    pub fn now_ms(&self) -> u64 {
        self.world.clock.now_ms()
    }

    pub fn now(&self) -> Timestamp {
        let ms = i64::try_from(self.now_ms()).unwrap_or(i64::MAX);
        Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
    }

    /// The zone whose clock decides; UTC, with one complaint, if it is not known.
    pub fn zone(&mut self) -> TimeZone {
        let (zone, problem) = local_zone();
        if let Some(problem) = problem.filter(|_| !self.complained) {
            self.complained = true;
            self.events.record(Fact::Problem { problem });
        }
        zone
    }
}

pub(super) fn local_zone() -> (TimeZone, Option<Diagnostic>) {
    match mfserv_cron::local_zone() {
        Ok(zone) => (zone, None),
        Err(problem) => {
            let told = Diagnostic::warning(format!("{}: jobs run by UTC", problem.what));
            (TimeZone::UTC, Some(told.because(problem.why).help(problem.help)))
        }
    }
}

fn jobs_of(plan: &Plan) -> BTreeMap<String, Job> {
    let jobs = plan.jobs.iter().filter_map(|(name, spec)| {
        // One that cannot be read was refused with its plugin.
        let schedule = spec.schedule.parse().ok()?;
        Some((name.clone(), Job { spec: Arc::new(spec.clone()), schedule }))
    });
    jobs.collect()
}

/// The name of the run for a minute. The clock may have gone backward (`pass`) and show a minute
/// again.
pub(super) fn run_of(minute: LocalMinute, pass: u64) -> String {
    let minute = minute.civil().strftime("%Y%m%d-%H%M");
    match pass {
        0 => minute.to_string(),
        pass => format!("{minute}p{pass}"),
    }
}

/// When a minute of the wall clock began last, at `now`: milliseconds since the Unix epoch. Of the
/// hour that the end of summer time repeats, it is the second one as soon as that has come; a minute
/// that the clock has skipped began when it did so.
pub(super) fn ms_of(minute: LocalMinute, zone: &TimeZone, now: Timestamp) -> u64 {
    let both = zone.to_ambiguous_timestamp(minute.civil());
    let first = both.earlier().unwrap_or_default();
    let second = both.later().unwrap_or(first);
    let at = if LocalMinute::at(first, zone) != minute {
        zone.following(first).next().map_or(first, |transition| transition.timestamp())
    } else if second <= now {
        second
    } else {
        first
    };
    u64::try_from(at.as_millisecond()).unwrap_or(0)
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_that_the_clock_shows_twice_is_due_twice_and_one_that_it_skips_once() {
        let zone = TimeZone::get("Europe/Paris").unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        // Summer time ends at 01:00 UTC: 02:30 is shown at 00:30 and 01:30 UTC.
        let minute = LocalMinute::at(at("2026-10-25T00:30:00Z"), &zone);
        let due = |now: &str| ms_of(minute, &zone, at(now)) / 60_000;
        let ms = |text: &str| at(text).as_millisecond() as u64 / 60_000;
        assert_eq!(due("2026-10-25T00:30:02Z"), ms("2026-10-25T00:30:00Z"));
        assert_eq!(due("2026-10-25T01:29:59Z"), ms("2026-10-25T00:30:00Z"));
        assert_eq!(due("2026-10-25T01:30:00Z"), ms("2026-10-25T01:30:00Z"));
        // It begins at 01:00 UTC: 02:30 is not shown, and made up for at 03:00.
        let skipped =
            LocalMinute::at(at("2026-03-29T01:30:00Z"), &TimeZone::fixed(jiff::tz::offset(1)));
        let due = ms_of(skipped, &zone, at("2026-03-29T01:00:00Z")) / 60_000;
        assert_eq!(due, ms("2026-03-29T01:00:00Z"));
    }
}

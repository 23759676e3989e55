//! History: what was counted, second by second, without any other server.
//!
//! A thread makes a [`sample::Tick`] a second of what the registry has received, and keeps ticks in
//! three resolutions, each a [`ring`] of files in the format of [`codec`]. [`query`] reads them.
//! A disk that is full, read-only or broken costs the history, nothing else.

mod codec;
mod query;
mod ring;
mod sample;
mod usage;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mfserv_core::wire::metrics::{Answerer, WatcherSample};
use mfserv_core::worker::Phase;
use mfserv_platform::clock::now_ms;
use mfserv_platform::sync::lock;

use super::LOOK;
use super::changes::Reading;
use super::registry::Registry;
pub use query::{Answer, Refused, Series, Values, answer};
use ring::{Resolution, Ring};
use sample::NodeSample;
pub use sample::{Gauges, Sample, Subject, Tick, class, percentile_us};
use usage::Usages;

/// What is kept, and its part of all bytes (in 16).
const RESOLUTIONS: [(Resolution, u64); 3] = [
    (Resolution { step_s: 1, age_s: 600 }, 1),
    (Resolution { step_s: 10, age_s: 86_400 }, 4),
    (Resolution { step_s: 60, age_s: 30 * 86_400 }, 11),
];
/// The most apps with samples of their own; all others are one.
const SUBJECTS_MAX: usize = 512;
/// After this time without samples, the place of an app is given to another one, seconds.
const UNUSED_S: u64 = 60;
/// How many ticks stay in memory: for who looks at the present.
const RECENT: usize = 60;
/// How long a disk that failed is left alone.
const PAUSE: Duration = Duration::from_secs(10);

/// What is shared with who reads.
#[derive(Debug)]
pub struct History {
    /// Where the files are; `None`: nothing is kept on the disk.
    dir: Option<PathBuf>,
    recent: Mutex<VecDeque<Arc<Tick>>>,
}

impl History {
    /// A history in a directory, in memory alone if there is none.
    pub fn new(dir: Option<PathBuf>) -> Self {
        Self { dir, recent: Mutex::default() }
    }

    fn remember(&self, tick: Arc<Tick>) {
        let mut recent = lock(&self.recent);
        if recent.len() >= RECENT {
            recent.pop_front();
        }
        recent.push_back(tick);
    }

    /// The ticks in memory that came after this one, the oldest first.
    pub fn after(&self, last: Option<&Arc<Tick>>) -> Vec<Arc<Tick>> {
        let recent = lock(&self.recent);
        let is_last = |tick: &Arc<Tick>| last.is_some_and(|last| Arc::ptr_eq(last, tick));
        let known = recent.iter().rposition(is_last).map_or(0, |at| at + 1);
        recent.iter().skip(known).cloned().collect()
    }

    /// Gives the ticks on the disk of these last seconds, of each time in the finest resolution
    /// that is kept of it. What cannot be read is left out.
    pub fn read_back(&self, seconds: u64, each: &mut dyn FnMut(Tick)) {
        let Some(dir) = &self.dir else { return };
        let now = now_ms() / 1000;
        let mut last = now.saturating_sub(seconds);
        for (at, (resolution, _)) in RESOLUTIONS.iter().enumerate().rev() {
            let finer = RESOLUTIONS[..at].last();
            let finer = finer.and_then(|(finer, _)| ring::oldest(dir, finer.step_s));
            let end = finer.unwrap_or(now).min(now);
            let since = last;
            // A ring that cannot be read is as good as none.
            let _ = ring::read_since(dir, resolution.step_s, since, &mut |tick| {
                if last < end && tick.at > last && tick.at <= now {
                    last = tick.at;
                    each(tick);
                }
            });
        }
    }
}

/// The thread that writes.
pub struct Recorder {
    history: Arc<History>,
    registry: Arc<Mutex<Registry>>,
    ends: Arc<AtomicBool>,
    rings: Option<Rings>,
    usages: Usages,
    /// The apps with samples of their own, and when each had the last one.
    known: BTreeMap<Arc<Subject>, u64>,
}

impl Recorder {
    /// One that writes at most `bytes_max` bytes until `ends` is set.
    pub fn new(
        history: Arc<History>,
        registry: Arc<Mutex<Registry>>,
        ends: Arc<AtomicBool>,
        bytes_max: u64,
    ) -> Self {
        let rings = history.dir.as_ref().map(|dir| Rings::new(dir, bytes_max));
        let (usages, known) = (Usages::default(), BTreeMap::new());
        Self { history, registry, ends, rings, usages, known }
    }

    /// Makes a tick at each whole second.
    pub fn run(mut self) {
        if let Some(rings) = &mut self.rings {
            rings.catch_up();
        }
        let (mut last, mut since) = (now_ms() / 1000, Instant::now());
        while !self.ends.load(Ordering::Relaxed) {
            let to_next = Duration::from_millis(1000 - now_ms() % 1000);
            std::thread::sleep(to_next.min(LOOK));
            let at = now_ms() / 1000;
            if at == last {
                continue;
            }
            let covered = since.elapsed();
            (last, since) = (at, Instant::now());
            let reading = lock(&self.registry).read_changes();
            let tick = Arc::new(self.tick(at, covered, reading));
            self.history.remember(tick.clone());
            if let Some(rings) = &mut self.rings {
                rings.append(&tick);
            }
        }
    }

    fn tick(&mut self, at: u64, covered: Duration, reading: Reading) -> Tick {
        let covered_ms = covered.as_millis() as u64;
        let (busy_ms, cpu_ms, memory, memory_total) = self.usages.host();
        let node = NodeSample {
            busy_ms,
            cpu_ms,
            memory,
            memory_total,
            connections: reading.fronts.as_ref().map(|fronts| fronts.connections),
            in_work: reading.fronts.as_ref().map(|fronts| fronts.in_work),
            accepted: reading.accepted,
        };
        let mut tick = Tick { at, covered_ms, node, apps: BTreeMap::new() };
        // While no daemon says which processes the workers are, what they use is not known. What
        // was known of them stays, so that their CPU time makes no jump when a daemon comes back.
        if let Some(watchers) = &reading.watchers {
            self.usages.read(watchers);
        }
        for watcher in reading.watchers.into_iter().flatten() {
            let sample = self.of_watcher(&watcher, covered);
            self.add(&mut tick, Subject::of_watcher(&watcher.name), sample);
        }
        for ((plugin, app, by), sample) in reading.requests {
            self.add(&mut tick, Subject::of_requests(&plugin, &app, by), sample);
        }
        for (watcher, (ends, crashes)) in reading.ends {
            let sample = Sample { ends, crashes, ..Sample::default() };
            self.add(&mut tick, Subject::of_watcher(&watcher), sample);
        }
        if let Some(fronts) = reading.fronts {
            self.add_load(&mut tick, fronts.load);
        }
        tick
    }

    /// What fronts say of the apps; those that they do not name have no requests.
    fn add_load(&mut self, tick: &mut Tick, load: Vec<(String, u64, u64)>) {
        for (upstream, in_flight, waiting) in load {
            let (plugin, app) = upstream.split_once('/').unwrap_or((&upstream, ""));
            let (in_flight, waiting) = (Some(in_flight), Some(waiting));
            let gauges = Gauges { in_flight, waiting, ..Gauges::default() };
            let sample = Sample { gauges, ..Sample::default() };
            self.add(tick, Subject::of_requests(plugin, app, Answerer::Dynamic), sample);
        }
        for (_, sample) in tick.apps.iter_mut().filter(|(subject, _)| subject.kind == "app") {
            sample.gauges.in_flight.get_or_insert(0);
            sample.gauges.waiting.get_or_insert(0);
        }
    }

    fn of_watcher(&self, watcher: &WatcherSample, covered: Duration) -> Sample {
        let ready = watcher.workers.iter().filter(|worker| worker.phase == Phase::Ready).count();
        let (memory, cpu_ms) = self.usages.of(&watcher.name, covered);
        let (ready, wanted) = (Some(ready as u64), Some(u64::from(watcher.wanted)));
        let gauges = Gauges { ready, wanted, memory: Some(memory), ..Gauges::default() };
        Sample { cpu_ms, gauges, ..Sample::default() }
    }

    /// Adds what is known of an app at the same instant.
    fn add(&mut self, tick: &mut Tick, subject: Subject, sample: Sample) {
        let subject = self.known(subject, tick.at);
        tick.apps.entry(subject).or_default().join(&sample);
    }

    /// The place of an app; that of the rest if there is none.
    fn known(&mut self, subject: Subject, at: u64) -> Arc<Subject> {
        let subject = Arc::new(subject);
        if let Some((known, _)) = self.known.get_key_value(&subject) {
            let known = known.clone();
            self.known.insert(known.clone(), at);
            return known;
        }
        if self.known.len() >= SUBJECTS_MAX {
            let oldest = self.known.iter().min_by_key(|(_, last)| **last);
            let unused = oldest.filter(|(_, last)| **last + UNUSED_S < at);
            let Some(unused) = unused.map(|(subject, _)| subject.clone()) else {
                return Arc::new(Subject::rest());
            };
            self.known.remove(&unused);
        }
        self.known.insert(subject.clone(), at);
        subject
    }
}

/// The rings, the finest first.
struct Rings {
    rings: Vec<Ring>,
    /// What the coarser ones have not written yet.
    pending: Vec<Option<Tick>>,
    /// The disk has failed then.
    failed: Option<Instant>,
    problem: String,
    dir: PathBuf,
}

impl Rings {
    fn new(dir: &std::path::Path, bytes_max: u64) -> Self {
        let ring = |(resolution, part)| Ring::new(dir, resolution, bytes_max / 16 * part);
        let rings: Vec<Ring> = RESOLUTIONS.map(ring).into();
        let pending = rings.iter().map(|_| None).collect();
        Self { rings, pending, failed: None, problem: String::new(), dir: dir.into() }
    }

    /// What an earlier process had not written yet to the coarser rings is in the finest one.
    fn catch_up(&mut self) {
        let result = self.try_to_catch_up();
        self.notice(result);
    }

    fn try_to_catch_up(&mut self) -> io::Result<()> {
        let lasts = self.rings.iter_mut().map(Ring::last).collect::<io::Result<Vec<u64>>>()?;
        let (step_s, since) = (self.rings[0].resolution().step_s, lasts.iter().skip(1).min());
        let mut result = Ok(());
        let dir = self.dir.clone();
        ring::read_since(&dir, step_s, since.copied().unwrap_or(0), &mut |tick| {
            for at in (1..lasts.len()).filter(|at| tick.at > lasts[*at]) {
                let folded = self.fold(at, &tick);
                if folded.is_err() {
                    result = folded;
                }
            }
        })?;
        result
    }

    fn append(&mut self, tick: &Tick) {
        if self.failed.is_some_and(|failed| failed.elapsed() < PAUSE) {
            return;
        }
        let result = self.rings[0].append(tick);
        let result = (1..self.rings.len()).fold(result, |result, at| {
            let folded = self.fold(at, tick);
            result.and(folded)
        });
        self.notice(result);
    }

    /// Adds a tick to what a ring will write; writes when its time is over.
    fn fold(&mut self, at: usize, tick: &Tick) -> io::Result<()> {
        let step = self.rings[at].resolution().step_s;
        let interval = |tick: &Tick| tick.at.saturating_sub(1) / step;
        let mut result = Ok(());
        // A gap, or a clock that was set: what is pending belongs to another time.
        if let Some(pending) = self.pending[at].take_if(|it| interval(it) != interval(tick)) {
            result = self.rings[at].append(&pending);
        }
        match &mut self.pending[at] {
            Some(pending) => pending.add(tick),
            none => *none = Some(tick.clone()),
        }
        match self.pending[at].take_if(|pending| pending.at % step == 0) {
            Some(whole) => result.and(self.rings[at].append(&whole)),
            None => result,
        }
    }

    fn notice(&mut self, result: io::Result<()>) {
        match result {
            Ok(()) => self.failed = None,
            Err(why) => {
                self.failed = Some(Instant::now());
                let text = format!("no history is kept: {}: {why}", self.dir.display());
                super::report_once(&mut self.problem, text);
            }
        }
    }
}

#[cfg(test)]
mod tests;

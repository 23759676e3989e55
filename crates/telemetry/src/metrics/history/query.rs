//! What is asked of the history, and the answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Zoned;
use mfserv_platform::clock::now_ms;
use mfserv_platform::sync::lock;
use serde::{Deserialize, Serialize};

use super::ring::{self, Resolution};
use super::sample::{NodeSample, Sample, Subject, Tick};
use super::{History, RESOLUTIONS};
use crate::logs::when;

/// The most intervals of an answer.
const INTERVALS_MAX: u64 = 5_000;
/// The most samples of an answer: intervals times apps.
const SAMPLES_MAX: usize = 100_000;
/// How many intervals an answer has where nothing is said of its step.
const INTERVALS: u64 = 60;
/// Steps that are chosen where nothing is said, seconds.
const STEPS: [u64; 14] =
    [1, 5, 10, 30, 60, 300, 600, 1_800, 3_600, 7_200, 21_600, 43_200, 86_400, 604_800];

/// Numbers by what they are; each has one for each interval, `null` where nothing is known.
pub type Values = BTreeMap<String, Vec<Option<f64>>>;

/// What the history says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The length of an interval, seconds.
    pub step_s: u64,
    /// When each interval ended, seconds since the Unix epoch; of the last one, when it was asked.
    pub times: Vec<u64>,
    /// How much of each interval is known, seconds.
    pub covered_s: Vec<f64>,
    /// The node.
    pub node: Values,
    /// The apps, by name.
    pub series: Vec<Series>,
}

/// What the history says of an app.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// `PLUGIN.APP`.
    pub name: String,
    /// `app`, `extra`, `role`, or `front` for requests that go to no app.
    pub kind: String,
    /// The plugin.
    pub plugin: String,
    /// The app.
    pub app: String,
    /// What is known of it.
    pub values: Values,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The question is wrong.
    Bad(String),
    /// There is no history.
    None(String),
}

type OfSample = fn(&Sample, f64) -> Option<f64>;
type OfNode = fn(&NodeSample, f64) -> Option<f64>;

fn per_s(count: u64, covered_s: f64) -> Option<f64> {
    Some(count as f64 / covered_s)
}

fn percent(part: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| part as f64 / all as f64 * 100.0)
}

/// What is said of an app.
const OF_APP: [(&str, OfSample); 17] = [
    ("requests_per_s", |it, covered_s| per_s(it.requests(), covered_s)),
    ("2xx_per_s", |it, covered_s| per_s(it.classes[0], covered_s)),
    ("3xx_per_s", |it, covered_s| per_s(it.classes[1], covered_s)),
    ("4xx_per_s", |it, covered_s| per_s(it.classes[2], covered_s)),
    ("5xx_per_s", |it, covered_s| per_s(it.classes[3], covered_s)),
    ("other_per_s", |it, covered_s| per_s(it.classes[4], covered_s)),
    ("p50_ms", |it, _| it.percentile(0.5)),
    ("p95_ms", |it, _| it.percentile(0.95)),
    ("p99_ms", |it, _| it.percentile(0.99)),
    ("in_flight", |it, _| Some(it.gauges.in_flight? as f64)),
    ("waiting", |it, _| Some(it.gauges.waiting? as f64)),
    ("workers_ready", |it, _| Some(it.gauges.ready? as f64)),
    ("workers_wanted", |it, _| Some(it.gauges.wanted? as f64)),
    ("restarts", |it, _| Some(it.ends as f64)),
    ("crashes", |it, _| Some(it.crashes as f64)),
    ("memory_bytes", |it, _| Some(it.gauges.memory? as f64)),
    // Where nobody said which processes the workers are, neither is known.
    ("cpu_percent", |it, covered_s| it.gauges.memory.map(|_| it.cpu_ms as f64 / covered_s / 10.0)),
];

/// What is said of the node.
const OF_NODE: [(&str, OfNode); 6] = [
    ("host_cpu_percent", |it, _| percent(it.busy_ms, it.cpu_ms)),
    ("host_memory_bytes", |it, _| Some(it.memory as f64)),
    ("host_memory_total_bytes", |it, _| Some(it.memory_total as f64)),
    ("connections", |it, _| Some(it.connections? as f64)),
    ("connections_per_s", |it, covered_s| per_s(it.accepted, covered_s)),
    ("requests_in_work", |it, _| Some(it.in_work? as f64)),
];

/// Answers `plugin=&app=&since=&until=&step=`, or `window=`: the last seconds as one interval.
///
/// # Errors
/// A question that cannot be answered.
pub fn answer(history: &History, question: &str) -> Result<Answer, Refused> {
    let question = Question::read(question)?;
    if let Some(window_s) = question.window_s {
        return Ok(question.present(history, window_s));
    }
    let Some(dir) = &history.dir else {
        let why = "no history is kept: [metrics] history_max_size is 0";
        return Err(Refused::None(why.into()));
    };
    let oldest = |resolution: Resolution| ring::oldest(dir, resolution.step_s);
    let resolution = question.resolution(&oldest);
    let step_s = question.step_s().next_multiple_of(resolution.step_s);
    if (question.until - question.since) / step_s >= INTERVALS_MAX {
        let why = format!("more than {INTERVALS_MAX} intervals: choose a longer step");
        return Err(Refused::Bad(why));
    }
    let mut intervals = Intervals { step_s, ..Intervals::default() };
    let read = ring::read_since(dir, resolution.step_s, question.since, &mut |tick| {
        if tick.at <= question.until {
            intervals.add(&question, &tick);
        }
    });
    read.map_err(|why| Refused::None(format!("{}: {why}", dir.display())))?;
    if intervals.samples > SAMPLES_MAX {
        let why = format!("more than {SAMPLES_MAX} values: choose a longer step, or one plugin");
        return Err(Refused::Bad(why));
    }
    let first = intervals.end(question.since + 1);
    let ends = (first..=intervals.end(question.until)).step_by(step_s as usize).collect();
    let mut answer = as_answer(step_s, ends, intervals.all);
    // The last interval has not ended yet.
    answer.times.iter_mut().for_each(|end| *end = (*end).min(question.until));
    Ok(answer)
}

/// What is asked.
struct Question {
    plugin: Option<String>,
    app: Option<String>,
    /// Seconds since the Unix epoch.
    since: u64,
    until: u64,
    step_s: Option<u64>,
    window_s: Option<u64>,
}

impl Question {
    fn read(text: &str) -> Result<Self, Refused> {
        let now = now_ms() / 1000;
        let (since, until) = (now.saturating_sub(3_600), now);
        let mut question =
            Self { plugin: None, app: None, since, until, step_s: None, window_s: None };
        for (key, value) in text.split('&').filter_map(|pair| pair.split_once('=')) {
            let value = decoded(value);
            if value.is_empty() {
                continue;
            }
            match key {
                "plugin" => question.plugin = Some(value),
                "app" => question.app = Some(value),
                "since" => question.since = time(&value)?,
                "until" => question.until = time(&value)?,
                "step" => question.step_s = Some(seconds(&value)?),
                "window" => question.window_s = Some(seconds(&value)?),
                _ => {
                    let known = "plugin, app, since, until, step and window";
                    return Err(Refused::Bad(format!("{key:?} is none of {known}")));
                }
            }
        }
        question.until = question.until.min(now);
        question.since = question.since.min(question.until);
        Ok(question)
    }

    fn step_s(&self) -> u64 {
        let least = (self.until - self.since).div_ceil(INTERVALS);
        let chosen = || STEPS.into_iter().find(|step| *step >= least);
        self.step_s.or_else(chosen).unwrap_or(STEPS[STEPS.len() - 1])
    }

    /// The finest resolution that goes back far enough.
    fn resolution(&self, oldest: &dyn Fn(Resolution) -> Option<u64>) -> Resolution {
        let now = now_ms() / 1000;
        let all = RESOLUTIONS.map(|(resolution, _)| (resolution, oldest(resolution)));
        let reaches = |at: usize| {
            let (resolution, oldest) = all[at];
            // A file that was removed too early, since there were too many bytes.
            let is_whole = oldest.is_some_and(|own| {
                let coarser = all[at + 1..].iter().filter_map(|(_, oldest)| *oldest);
                own <= self.since + resolution.step_s
                    || coarser.min().is_none_or(|coarser| own < coarser + 60)
            });
            now.saturating_sub(self.since) <= resolution.age_s + 5 && is_whole
        };
        (0..all.len()).find(|at| reaches(*at)).map_or(all[all.len() - 1].0, |at| all[at].0)
    }

    fn means(&self, subject: &Subject) -> bool {
        let is =
            |asked: &Option<String>, own: &str| asked.as_ref().is_none_or(|asked| asked == own);
        let plugin = if subject.plugin.is_empty() { &subject.app } else { &subject.plugin };
        is(&self.plugin, plugin) && is(&self.app, &subject.app)
    }

    /// The last seconds, from memory.
    fn present(&self, history: &History, window_s: u64) -> Answer {
        let since = (now_ms() / 1000).saturating_sub(window_s);
        let recent: Vec<Arc<Tick>> = lock(&history.recent).iter().cloned().collect();
        // As long as the window, and at the same place: one interval.
        let mut intervals = Intervals { step_s: u64::MAX, ..Intervals::default() };
        recent.iter().filter(|tick| tick.at > since).for_each(|tick| intervals.add(self, tick));
        let ends = intervals.all.values().map(|tick| tick.at).collect();
        let all = intervals.all.into_values().map(|tick| (tick.at, tick)).collect();
        as_answer(window_s, ends, all)
    }
}

/// Ticks, added up by interval.
#[derive(Default)]
struct Intervals {
    step_s: u64,
    /// By the end of the interval.
    all: BTreeMap<u64, Tick>,
    last: u64,
    samples: usize,
}

impl Intervals {
    fn end(&self, at: u64) -> u64 {
        at.div_ceil(self.step_s).saturating_mul(self.step_s)
    }

    fn add(&mut self, question: &Question, tick: &Tick) {
        let end = self.end(tick.at);
        if tick.at <= self.last {
            // The clock was set back, and this time comes again.
            self.all.split_off(&end);
        }
        self.last = tick.at;
        if self.samples > SAMPLES_MAX {
            return;
        }
        let mut apps: BTreeMap<Arc<Subject>, Sample> = BTreeMap::new();
        for (subject, sample) in tick.apps.iter().filter(|(subject, _)| question.means(subject)) {
            apps.entry(subject.shown()).or_default().join(sample);
        }
        let tick = Tick { at: tick.at, covered_ms: tick.covered_ms, node: tick.node, apps };
        match self.all.get_mut(&end) {
            Some(whole) => whole.add(&tick),
            None => {
                self.samples += tick.apps.len();
                self.all.insert(end, tick);
            }
        }
    }
}

fn as_answer(step_s: u64, ends: Vec<u64>, all: BTreeMap<u64, Tick>) -> Answer {
    let ticks: Vec<Option<&Tick>> = ends.iter().map(|end| all.get(end)).collect();
    let covered_s = |tick: &Tick| (tick.covered_ms as f64 / 1e3).max(0.001);
    let rounded = |value: f64| (value * 1e3).round() / 1e3;
    let values = |of: &dyn Fn(&Tick) -> Option<f64>| {
        ticks.iter().map(|tick| tick.and_then(of).map(rounded)).collect()
    };
    let subjects: BTreeSet<&Arc<Subject>> =
        all.values().flat_map(|tick| tick.apps.keys()).collect();
    let series = |subject: &Arc<Subject>| {
        let of = |(name, take): (&str, OfSample)| {
            let take = |tick: &Tick| take(tick.apps.get(subject)?, covered_s(tick));
            (name.to_string(), values(&take))
        };
        let Subject { plugin, app, kind } = (**subject).clone();
        Series { name: subject.name(), kind, plugin, app, values: OF_APP.map(of).into() }
    };
    let node = |(name, take): (&str, OfNode)| {
        let take = |tick: &Tick| take(&tick.node, covered_s(tick));
        (name.to_string(), values(&take))
    };
    Answer {
        step_s,
        covered_s: ticks.iter().map(|tick| tick.map_or(0.0, covered_s)).map(rounded).collect(),
        node: OF_NODE.map(node).into(),
        series: subjects.into_iter().map(series).collect(),
        times: ends,
    }
}

/// A time: seconds since the Unix epoch, or as people write it.
fn time(text: &str) -> Result<u64, Refused> {
    let of_epoch = text.parse::<u64>().ok();
    let read = || when(text, &Zoned::now()).map(|ms| ms / 1000);
    of_epoch.map_or_else(read, Ok).map_err(|why| Refused::Bad(why.to_string()))
}

/// A length of time: `30`, `30s`, `5m`, `2h`, `1d`.
pub fn seconds(text: &str) -> Result<u64, Refused> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "" | "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3_600),
        "d" => Some(86_400),
        _ => None,
    };
    let number = digits.parse::<u64>().ok().filter(|number| *number > 0);
    let seconds = number.zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    let fits = seconds.filter(|seconds| *seconds <= 366 * 86_400);
    let why = || format!("{text:?} is no length of time: write 10s, 5m, 2h or 1d");
    fits.ok_or_else(|| Refused::Bad(why()))
}

/// A value without its percent-encoding.
fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let code = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| *byte == b'%');
        out.push(code.unwrap_or(if *byte == b'+' { b' ' } else { *byte }));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests;

//! Which alerts fire: values come in, changes go out.

use std::collections::BTreeMap;
use std::sync::Arc;

use mfserv_core::alerts::{Alert, Quantity};
use mfserv_core::node_state::NodeState;
use serde::{Deserialize, Serialize};

use super::sample::{AppSample, History, Sample, p95};
use super::{State, Status};

/// At the start, fronts and daemon connect, and send what they counted before: no window begins
/// earlier.
const SETTLING_MS: u64 = 5_000;
/// With fewer requests in a window there is neither a share of errors nor a percentile.
const REQUESTS_LEAST: u64 = 5;
/// The most subjects of an alert that are pending or fire.
const SUBJECTS_MAX: usize = 1000;

/// The number of an alert, a plugin and an app; both are empty for the node.
type Key = (usize, String, String);

/// An alert that fires, as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Firing {
    alert: String,
    plugin: String,
    app: String,
    value: f64,
    since_ms: u64,
    sent_ms: u64,
}

/// Something that is to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The alert.
    pub alert: Alert,
    /// The plugin; empty for the node.
    pub plugin: String,
    /// The app; empty for the node.
    pub app: String,
    /// The last value while the condition held.
    pub value: f64,
    /// When it fired.
    pub since_ms: u64,
    /// When it was resolved; `None`: it fires.
    pub ended_ms: Option<u64>,
    /// It was said before.
    pub is_repeated: bool,
}

/// An alert about one subject, that is pending or fires.
struct Instance {
    /// The value while the condition held last.
    value: f64,
    /// When it fired, and when that was last sent.
    fires: Option<(u64, u64)>,
    /// Since when the condition holds although it does not fire, or the other way round.
    differs_ms: Option<u64>,
}

/// The alerts of a node.
pub struct Evaluator {
    alerts: Vec<Alert>,
    instances: BTreeMap<Key, Instance>,
    /// By the length of the window, seconds.
    histories: BTreeMap<u64, History>,
    last: Option<Arc<Sample>>,
    settled_ms: u64,
}

impl Evaluator {
    /// Alerts, of which some fired before.
    pub fn new(alerts: Vec<Alert>, fired: Vec<Firing>, now_ms: u64) -> Self {
        let histories = alerts.iter().map(|alert| (alert.window_s, History::new(alert.window_s)));
        let histories = histories.collect();
        let known = fired.into_iter().filter_map(|one| {
            let index = alerts.iter().position(|alert| alert.name == one.alert)?;
            let fires = Some((one.since_ms, one.sent_ms));
            let instance = Instance { value: one.value, fires, differs_ms: None };
            Some(((index, one.plugin, one.app), instance))
        });
        let instances = known.collect();
        Self { alerts, instances, histories, last: None, settled_ms: now_ms + SETTLING_MS }
    }

    /// Looks at all conditions, once a second or so.
    pub fn step(&mut self, now_ms: u64, sample: Sample) -> Vec<Change> {
        if now_ms < self.settled_ms {
            return Vec::new();
        }
        let sample = Arc::new(sample);
        // A process that has connected sends what it has counted since its own start: that is
        // not of this window.
        let has_new_source = self.last.as_ref().is_some_and(|last| {
            sample.fronts > last.fronts || (sample.daemon.is_some() && sample.daemon != last.daemon)
        });
        for history in self.histories.values_mut() {
            if has_new_source {
                history.clear();
            }
            history.push(now_ms, &sample);
        }
        let mut changes = Vec::new();
        for index in 0..self.alerts.len() {
            self.look(index, now_ms, &sample, &mut changes);
        }
        self.last = Some(sample);
        changes
    }

    /// Looks at one condition.
    fn look(&mut self, index: usize, now_ms: u64, sample: &Sample, changes: &mut Vec<Change>) {
        let alert = self.alerts[index].clone();
        // Nothing is known: everything stays as it is.
        let Some(values) = values(&alert, sample, &self.histories) else { return };
        let mut known: BTreeMap<Key, f64> = BTreeMap::new();
        for ((plugin, app), value) in values {
            known.insert((index, plugin, app), value);
        }
        let of_alert = |key: &&Key| key.0 == index;
        let held: Vec<Key> = self.instances.keys().filter(of_alert).cloned().collect();
        let room = SUBJECTS_MAX.saturating_sub(held.len());
        let holding = known.iter().filter(|(_, value)| alert.holds(**value));
        let new = holding.filter(|(key, _)| !self.instances.contains_key(key)).take(room);
        let new: Vec<Key> = new.map(|(key, _)| key.clone()).collect();
        for key in held.into_iter().chain(new) {
            let value = known.get(&key).copied().filter(|value| alert.holds(*value));
            let fresh = Instance { value: 0.0, fires: None, differs_ms: None };
            let instance = self.instances.entry(key.clone()).or_insert(fresh);
            if let Some(said) = instance.look(&alert, value, now_ms) {
                let (_, plugin, app) = key.clone();
                let Said { since_ms, ended_ms, is_repeated } = said;
                let (alert, value) = (alert.clone(), instance.value);
                changes.push(Change { alert, plugin, app, value, since_ms, ended_ms, is_repeated });
            }
            if instance.fires.is_none() && value.is_none() {
                self.instances.remove(&key);
            }
        }
    }

    /// What fires.
    pub fn firing(&self) -> Vec<Firing> {
        let fires = self.instances.iter().filter_map(|((index, plugin, app), instance)| {
            let (since_ms, sent_ms) = instance.fires?;
            let (plugin, app) = (plugin.clone(), app.clone());
            let alert = self.alerts[*index].name.clone();
            Some(Firing { alert, plugin, app, value: instance.value, since_ms, sent_ms })
        });
        fires.collect()
    }

    /// All alerts, for people.
    pub fn shown(&self) -> Vec<Status> {
        let mut shown = Vec::new();
        for (index, alert) in self.alerts.iter().enumerate() {
            let before = shown.len();
            let line = |state, subject: (&str, &str), value: String, since_ms| Status {
                alert: alert.name.clone(),
                condition: alert.condition.clone(),
                state,
                plugin: subject.0.into(),
                app: subject.1.into(),
                value,
                since_ms,
            };
            for ((of, plugin, app), instance) in &self.instances {
                let (state, since) = match (instance.fires, instance.differs_ms) {
                    (Some((since, _)), _) => (State::Firing, since),
                    (None, differs) => (State::Pending, differs.unwrap_or(0)),
                };
                if *of == index {
                    let value = alert.quantity.show(instance.value);
                    shown.push(line(state, (plugin, app), value, since));
                }
            }
            if shown.len() == before {
                shown.push(line(State::Ok, ("", ""), String::new(), 0));
            }
        }
        shown
    }
}

/// What is to be said of an instance.
struct Said {
    since_ms: u64,
    ended_ms: Option<u64>,
    is_repeated: bool,
}

impl Instance {
    /// `value`: that of now, if the condition holds.
    fn look(&mut self, alert: &Alert, value: Option<f64>, now_ms: u64) -> Option<Said> {
        self.value = value.unwrap_or(self.value);
        if value.is_some() == self.fires.is_some() {
            self.differs_ms = None;
            let (since_ms, sent_ms) = self.fires?;
            let is_due = alert.repeat_s > 0 && sent_ms + alert.repeat_s * 1000 <= now_ms;
            return is_due.then(|| {
                self.fires = Some((since_ms, now_ms));
                Said { since_ms, ended_ms: None, is_repeated: true }
            });
        }
        let since = *self.differs_ms.get_or_insert(now_ms);
        if since + alert.for_s * 1000 > now_ms {
            return None;
        }
        self.differs_ms = None;
        match self.fires.take() {
            Some((since_ms, _)) => {
                Some(Said { since_ms, ended_ms: Some(now_ms), is_repeated: false })
            }
            None => {
                self.fires = Some((now_ms, now_ms));
                Some(Said { since_ms: now_ms, ended_ms: None, is_repeated: false })
            }
        }
    }
}

/// The values of now by plugin and app; `None`: they are not known.
fn values(
    alert: &Alert,
    sample: &Sample,
    histories: &BTreeMap<u64, History>,
) -> Option<Vec<((String, String), f64)>> {
    let node = |value| Some(vec![((String::new(), String::new()), value)]);
    match alert.quantity {
        Quantity::Disk => return node(sample.disk_free?),
        // A node whose daemon says nothing does not run either.
        Quantity::Node => {
            let runs = sample.state == Some(NodeState::Running);
            return node(if runs { 0.0 } else { 1.0 });
        }
        _ => {}
    }
    let history = histories.get(&alert.window_s)?;
    let about = sample.apps.iter().filter(|((plugin, app), _)| alert.is_about(plugin, app));
    let values = about.filter_map(|(key, now)| {
        Some((key.clone(), value(alert.quantity, &history.counted(key, now))?))
    });
    Some(values.collect())
}

/// What is measured of an app; `None`: there is nothing to measure.
fn value(quantity: Quantity, counted: &AppSample) -> Option<f64> {
    let is_enough = counted.requests >= REQUESTS_LEAST;
    match quantity {
        Quantity::ErrorRate => {
            is_enough.then(|| counted.errors as f64 / counted.requests as f64 * 100.0)
        }
        Quantity::P95 if is_enough => p95(&counted.duration),
        Quantity::P95 => None,
        Quantity::Queue => Some(counted.waiting as f64),
        Quantity::Restarts => Some(counted.crashes as f64),
        Quantity::Disk | Quantity::Node => None,
    }
}

#[cfg(test)]
#[path = "evaluate_tests.rs"]
mod tests;

//! Which alerts fire: values come in, changes go out.

use std::collections::BTreeMap;
use std::sync::Arc;

use mfserv_core::alerts::{Alert, Quantity};
use mfserv_core::node_state::NodeState;
use serde::{Deserialize, Serialize};

use super::window::{Counted, Window};
use super::{State, Status};
use crate::metrics::history::{Sample, Tick, percentile_us};

/// At the start, fronts and daemon have not connected yet: nothing is said before.
const SETTLING_MS: u64 = 5_000;
/// The class of the answers that are errors: 5xx.
const ERRORS: usize = 3;
/// With fewer requests in a window there is neither a share of errors nor a percentile.
const REQUESTS_LEAST: u64 = 5;
/// The most subjects of an alert that are pending or fire.
const SUBJECTS_MAX: usize = 1000;

/// The number of an alert, a plugin and an app; both are empty for the node.
type Key = (usize, String, String);

/// What is true at an instant, and what was counted since the last one.
#[derive(Debug, Clone, Default)]
pub struct Now {
    /// Free space of the file system, percent.
    pub disk_free: Option<f64>,
    /// The state of the node; `None` while no daemon says it.
    pub state: Option<NodeState>,
    /// The new ticks of the history.
    pub ticks: Vec<Arc<Tick>>,
}

/// An alert that fires, as it is stored: with all of it, so that its receiver hears of its end also
/// when the configuration does not have it any more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Firing {
    alert: Alert,
    #[serde(default)]
    plugin: String,
    #[serde(default)]
    app: String,
    #[serde(default)]
    value: f64,
    #[serde(default)]
    since_ms: u64,
    #[serde(default)]
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
    /// It was resolved since the configuration does not have it any more.
    pub is_removed: bool,
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
    /// By their length, seconds.
    windows: BTreeMap<u64, Window>,
    last: Option<Arc<Tick>>,
    settled_ms: u64,
}

impl Evaluator {
    /// Alerts, of which some fired before. Returns also the ends of those that fired and are
    /// not among them any more: their receivers would wait for ever.
    pub fn new(alerts: Vec<Alert>, fired: Vec<Firing>, now_ms: u64) -> (Self, Vec<Change>) {
        let windows = alerts.iter().map(|alert| (alert.window_s, Window::new(alert.window_s)));
        let windows = windows.collect();
        let (mut instances, mut removed) = (BTreeMap::new(), Vec::new());
        for Firing { alert, plugin, app, value, since_ms, sent_ms } in fired {
            // Another receiver knows nothing of it.
            let is_same = |now: &Alert| now.name == alert.name && now.webhook == alert.webhook;
            if let Some(index) = alerts.iter().position(is_same) {
                let fires = Some((since_ms, sent_ms));
                let instance = Instance { value, fires, differs_ms: None };
                instances.insert((index, plugin, app), instance);
            } else {
                let ended_ms = Some(now_ms);
                let (is_repeated, is_removed) = (false, true);
                removed.push(Change {
                    alert,
                    plugin,
                    app,
                    value,
                    since_ms,
                    ended_ms,
                    is_repeated,
                    is_removed,
                });
            }
        }
        let settled_ms = now_ms + SETTLING_MS;
        (Self { alerts, instances, windows, last: None, settled_ms }, removed)
    }

    /// How far back its windows go, seconds.
    pub fn longest_window_s(&self) -> u64 {
        self.windows.keys().last().copied().unwrap_or(0)
    }

    /// Adds what was counted before this process began.
    pub fn add(&mut self, tick: &Tick) {
        self.windows.values_mut().for_each(|window| window.add(tick));
    }

    /// Looks at all conditions, once a second or so.
    pub fn step(&mut self, now_ms: u64, now: &Now) -> Vec<Change> {
        for tick in &now.ticks {
            self.add(tick);
        }
        self.last = now.ticks.last().cloned().or(self.last.take());
        // The clock may have been set back.
        self.settled_ms = self.settled_ms.min(now_ms + SETTLING_MS);
        if now_ms < self.settled_ms {
            return Vec::new();
        }
        let counted = self.windows.iter().map(|(length, window)| (*length, window.counted()));
        let counted: BTreeMap<u64, Counted> = counted.collect();
        let mut changes = Vec::new();
        for index in 0..self.alerts.len() {
            self.look(index, now_ms, now, &counted, &mut changes);
        }
        changes
    }

    /// The last tick that it has seen.
    pub fn last(&self) -> Option<&Arc<Tick>> {
        self.last.as_ref()
    }

    /// Looks at one condition.
    fn look(
        &mut self,
        index: usize,
        now_ms: u64,
        now: &Now,
        counted: &BTreeMap<u64, Counted>,
        changes: &mut Vec<Change>,
    ) {
        let alert = self.alerts[index].clone();
        // Nothing is known: everything stays as it is.
        let Some(values) = self.values(&alert, now, counted) else { return };
        let known = values.into_iter().map(|((plugin, app), value)| ((index, plugin, app), value));
        let known: BTreeMap<Key, f64> = known.collect();
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
                let is_removed = false;
                changes.push(Change {
                    alert,
                    plugin,
                    app,
                    value,
                    since_ms,
                    ended_ms,
                    is_repeated,
                    is_removed,
                });
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
            let alert = self.alerts[*index].clone();
            Some(Firing { alert, plugin, app, value: instance.value, since_ms, sent_ms })
        });
        fires.collect()
    }

    /// The values of now by plugin and app; `None`: they are not known.
    fn values(
        &self,
        alert: &Alert,
        now: &Now,
        counted: &BTreeMap<u64, Counted>,
    ) -> Option<BTreeMap<(String, String), f64>> {
        let node = |value| Some(BTreeMap::from([((String::new(), String::new()), value)]));
        let samples = match alert.quantity {
            Quantity::Disk => return node(now.disk_free?),
            // A node whose daemon says nothing does not run either.
            Quantity::Node => {
                let runs = now.state == Some(NodeState::Running);
                return node(if runs { 0.0 } else { 1.0 });
            }
            // Without a front, nobody says what waits.
            Quantity::Queue => {
                &self.last.as_ref().filter(|tick| tick.node.connections.is_some())?.apps
            }
            Quantity::ErrorRate | Quantity::P95 | Quantity::Restarts => {
                counted.get(&alert.window_s)?
            }
        };
        let mut values = BTreeMap::new();
        for (subject, sample) in samples {
            let is_app = match subject.kind.as_str() {
                "app" => true,
                "extra" => alert.quantity == Quantity::Restarts,
                _ => false,
            };
            if is_app && alert.is_about(&subject.plugin, &subject.app) {
                if let Some(value) = value(alert.quantity, sample) {
                    let key = (subject.plugin.clone(), subject.app.clone());
                    // An app and an extra daemon may have the same name.
                    *values.entry(key).or_insert(0.0) += value;
                }
            }
        }
        Some(values)
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
        // What is later than now was stored before the clock was set back.
        self.fires = self.fires.map(|(since, sent)| (since.min(now_ms), sent.min(now_ms)));
        self.differs_ms = self.differs_ms.map(|since| since.min(now_ms));
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

/// What is measured of an app; `None`: there is nothing to measure.
fn value(quantity: Quantity, sample: &Sample) -> Option<f64> {
    let requests = sample.requests();
    let is_enough = requests >= REQUESTS_LEAST;
    match quantity {
        Quantity::ErrorRate => {
            is_enough.then(|| sample.classes[ERRORS] as f64 / requests as f64 * 100.0)
        }
        Quantity::P95 if is_enough => Some(percentile_us(&sample.buckets, 0.95)? / 1e6),
        Quantity::P95 => None,
        Quantity::Queue => Some(sample.gauges.waiting? as f64),
        Quantity::Restarts => Some(sample.crashes as f64),
        Quantity::Disk | Quantity::Node => None,
    }
}

#[cfg(test)]
#[path = "evaluate_tests.rs"]
mod tests;

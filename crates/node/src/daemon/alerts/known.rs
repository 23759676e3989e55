//! Which alerts fire, and what is to be run because of it: what was seen comes in, events and
//! commands go out.

use std::collections::{BTreeMap, BTreeSet};

use mfserv_core::alerts::{Alert, PROCESS_PREFIX};
use mfserv_core::event::Fact;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// An alert that fires, as the telemetry role writes it. No command is taken from there.
#[derive(Debug, Clone, Deserialize)]
pub struct Fired {
    pub alert: Alert,
    #[serde(default)]
    pub plugin: String,
    #[serde(default)]
    pub app: String,
    #[serde(default)]
    pub value: f64,
    #[serde(default)]
    pub since_ms: u64,
}

/// What an alert fires for: its name, a plugin and an app.
pub type Key = (String, String, String);

/// An alert that fires, or whose command does not know yet that it is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Subject {
    key: Key,
    condition: String,
    value: String,
    since_ms: u64,
    /// When it was resolved.
    ended_ms: Option<u64>,
    /// The command of the plan that was in force when it fired.
    command: Option<String>,
    repeat_s: u64,
    /// How often the command was started, and when last.
    started: u32,
    started_ms: u64,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Known(Vec<Subject>);

/// A command that is to be started.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// The name of its process: the same whoever starts it.
    pub process: String,
    /// What a shell runs.
    pub command: String,
    /// Its variables.
    pub env: BTreeMap<String, String>,
    /// What it reads: JSON.
    pub stdin: String,
}

impl Known {
    /// Nothing fires, and nothing is to be said.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What fires, in a sentence each.
    pub fn notes(&self) -> Vec<String> {
        let firing = self.0.iter().filter(|subject| subject.ended_ms.is_none());
        firing
            .map(|Subject { key: (alert, plugin, app), condition, value, .. }| {
                let of = if app.is_empty() { "the node".into() } else { format!("{plugin}.{app}") };
                format!("the alert {alert} fires: {of}: {condition}, it is {value}")
            })
            .collect()
    }

    /// Compares with what fires now. `alerts`: those of the plan in force.
    pub fn see(&mut self, fired: &[Fired], alerts: &[Alert], now_ms: u64) -> Vec<Fact> {
        let mut facts = Vec::new();
        let mut seen = BTreeSet::new();
        for Fired { alert, plugin, app, value, since_ms } in fired {
            let key: Key = (alert.name.clone(), plugin.clone(), app.clone());
            seen.insert(key.clone());
            let value = alert.quantity.show(*value);
            let known = self.0.iter_mut().find(|subject| subject.key == key);
            if let Some(known) = known.filter(|known| known.ended_ms.is_none()) {
                known.value = value;
                continue;
            }
            // It fires again before its command has heard of the end.
            self.0.retain(|subject| subject.key != key);
            let own = alerts.iter().find(|own| own.name == alert.name);
            facts.push(Fact::AlertFiring {
                alert: alert.name.clone(),
                plugin: plugin.clone(),
                app: app.clone(),
                condition: alert.condition.clone(),
                value: value.clone(),
            });
            self.0.push(Subject {
                key,
                condition: alert.condition.clone(),
                value,
                since_ms: *since_ms,
                ended_ms: None,
                command: own.and_then(|own| own.command.clone()),
                repeat_s: own.map_or(0, |own| own.repeat_s),
                started: 0,
                started_ms: 0,
            });
        }
        for subject in &mut self.0 {
            if subject.ended_ms.is_none() && !seen.contains(&subject.key) {
                subject.ended_ms = Some(now_ms);
                let (alert, plugin, app) = subject.key.clone();
                let after_ms = now_ms.saturating_sub(subject.since_ms);
                facts.push(Fact::AlertResolved { alert, plugin, app, after_ms });
            }
        }
        // Whoever did not hear of its begin need not hear of its end.
        self.0.retain(|it| it.ended_ms.is_none() || (it.started > 0 && it.command.is_some()));
        facts
    }

    /// The commands that are to be started now. `busy`: subjects whose command still runs.
    pub fn due(&self, busy: &BTreeSet<Key>, now_ms: u64) -> Vec<(Key, Command)> {
        let is_due = |it: &&Subject| {
            let repeat_ms = it.repeat_s.saturating_mul(1000);
            let repeats = repeat_ms > 0 && it.started_ms.saturating_add(repeat_ms) <= now_ms;
            it.started == 0 || it.ended_ms.is_some() || repeats
        };
        let idle = self.0.iter().filter(|it| !busy.contains(&it.key)).filter(is_due);
        idle.filter_map(|it| Some((it.key.clone(), it.command()?))).collect()
    }

    /// The command of a subject was started.
    pub fn started(&mut self, key: &Key, now_ms: u64) {
        if let Some(it) = self.0.iter_mut().find(|it| it.key == *key) {
            it.started += 1;
            it.started_ms = now_ms;
        }
        self.0.retain(|it| it.key != *key || it.ended_ms.is_none());
    }
}

impl Subject {
    fn command(&self) -> Option<Command> {
        let (alert, plugin, app) = &self.key;
        let status = if self.ended_ms.is_some() { "resolved" } else { "firing" };
        let env = [
            ("ALERT", alert),
            ("STATUS", &status.to_string()),
            ("PLUGIN", plugin),
            ("APP", app),
            ("VALUE", &self.value),
            ("CONDITION", &self.condition),
        ];
        let stdin = json!({
            "alert": alert, "status": status, "plugin": plugin, "app": app, "value": self.value,
            "condition": self.condition, "since_ms": self.since_ms, "ended_ms": self.ended_ms,
        });
        let (since, started) = (self.since_ms, self.started);
        Some(Command {
            process: format!("{PROCESS_PREFIX}{alert}.{plugin}.{app}@{since}-{started}-{status}"),
            command: self.command.clone()?,
            env: env.map(|(name, value)| (name.to_string(), value.clone())).into(),
            stdin: format!("{stdin}\n"),
        })
    }
}

#[cfg(test)]
mod tests {
    use mfserv_core::alerts::Quantity;

    use super::*;

    fn alert(command: Option<&str>) -> Alert {
        Alert {
            name: "errors".into(),
            condition: "error_rate > 5%".into(),
            quantity: Quantity::ErrorRate,
            threshold: 5.0,
            for_s: 1,
            window_s: 60,
            plugin: None,
            app: None,
            webhook: None,
            ca: None,
            command: command.map(String::from),
            repeat_s: 10,
        }
    }

    fn fired(app: &str) -> Fired {
        let alert = alert(Some("a command that the role must not choose"));
        Fired { alert, plugin: "shop".into(), app: app.into(), value: 50.0, since_ms: 1_000 }
    }

    #[test]
    fn a_command_hears_of_begin_repetition_and_end_and_comes_from_the_plan() {
        let (plan, mut known, idle) = ([alert(Some("page"))], Known::default(), BTreeSet::new());
        let facts = known.see(&[fired("main")], &plan, 2_000);
        assert!(matches!(&facts[..], [Fact::AlertFiring { value, .. }] if value == "50.0%"));
        assert_eq!(known.see(&[fired("main")], &plan, 2_500), []);
        assert_eq!(known.notes().len(), 1);

        let due = known.due(&idle, 3_000);
        let [(key, command)] = &due[..] else { panic!("{due:?}") };
        assert_eq!((command.command.as_str(), &*command.env["STATUS"]), ("page", "firing"));
        assert_eq!((&*command.env["APP"], &*command.env["VALUE"]), ("main", "50.0%"));
        assert_eq!(command.process, "alert.errors.shop.main@1000-0-firing");
        assert_eq!(known.due(&BTreeSet::from([key.clone()]), 3_000), [], "it runs already");
        known.started(key, 3_000);
        assert_eq!(known.due(&idle, 12_999), []);
        assert_eq!(known.due(&idle, 13_000)[0].1.process, "alert.errors.shop.main@1000-1-firing");

        // The next daemon knows what this one knew, and the section is gone.
        let text = serde_json::to_string(&known).unwrap();
        let mut known: Known = serde_json::from_str(&text).unwrap();
        let facts = known.see(&[], &[], 14_000);
        assert!(matches!(facts[..], [Fact::AlertResolved { after_ms: 13_000, .. }]), "{facts:?}");
        assert_eq!(known.notes(), [""; 0]);
        let (key, command) = known.due(&idle, 14_000).remove(0);
        assert_eq!((command.command.as_str(), &*command.env["STATUS"]), ("page", "resolved"));
        known.started(&key, 14_000);
        assert!(known.is_empty());
    }

    #[test]
    fn without_a_command_and_before_it_has_run_an_end_is_an_event_alone() {
        for command in [None, Some("page")] {
            let (plan, mut known) = ([alert(command)], Known::default());
            known.see(&[fired("a"), fired("b")], &plan, 2_000);
            assert_eq!(known.see(&[fired("b")], &plan, 3_000).len(), 1);
            let due = known.due(&BTreeSet::new(), 3_000);
            assert_eq!(due.len(), usize::from(command.is_some()), "{due:?}");
            assert_eq!(known.notes().len(), 1);
            // It fires again: another begin.
            assert_eq!(known.see(&[fired("a"), fired("b")], &plan, 4_000).len(), 1);
        }
    }
}

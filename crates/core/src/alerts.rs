//! Alerts: the sections `[alert_NAME]` of the configuration.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostic;
use crate::exit_code::Kind;
use crate::http_url;
use crate::layers::Value;
use crate::suggest::nearest;

/// What the names of sections of alerts begin with.
pub const PREFIX: &str = "alert_";
/// The most alerts of a node.
const ALERTS_MAX: usize = 64;
/// A week: no duration is longer, seconds.
const LONGEST_S: u64 = 7 * 86_400;
const KEYS: [&str; 7] = ["condition", "for", "window", "plugin", "app", "webhook", "repeat"];
const CONDITIONS: &str = "write error_rate > 5%, p95 > 2s, queue > 100, restarts > 5, disk < 5% \
                          or node != RUNNING";
const NO_COMMAND: &str =
    "the process that evaluates alerts reads the network and starts no process";

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// The share of answers with a status from 500 on, percent, by app.
    ErrorRate,
    /// The duration that 95 % of the requests of an app do not exceed, seconds.
    P95,
    /// Requests of an app that wait for a slot.
    Queue,
    /// Crashes of the workers of an app or extra daemon.
    Restarts,
    /// Free space of the file system of the runtime home, percent.
    Disk,
    /// The state of the node: 1 if it is not RUNNING.
    Node,
}

/// What the condition of an alert may begin with: its operator and unit.
const QUANTITIES: [(&str, Quantity, &str, &str); 6] = [
    ("error_rate", Quantity::ErrorRate, ">", "%"),
    ("p95", Quantity::P95, ">", "s"),
    ("queue", Quantity::Queue, ">", ""),
    ("restarts", Quantity::Restarts, ">", ""),
    ("disk", Quantity::Disk, "<", "%"),
    ("node", Quantity::Node, "!=", ""),
];

impl Quantity {
    /// The window of its measurement where none is written, seconds.
    fn window_s(self) -> u64 {
        if self == Quantity::Restarts { 600 } else { 60 }
    }

    /// True if it is measured over a window; else its value of now counts.
    fn is_of_a_window(self) -> bool {
        matches!(self, Quantity::ErrorRate | Quantity::P95 | Quantity::Restarts)
    }

    /// True if each app has one; else the node has it.
    pub fn is_of_apps(self) -> bool {
        !matches!(self, Quantity::Disk | Quantity::Node)
    }

    /// A value of it, for people.
    pub fn show(self, value: f64) -> String {
        match self {
            Quantity::ErrorRate | Quantity::Disk => format!("{value:.1}%"),
            Quantity::P95 => format!("{value:.3}s"),
            Quantity::Queue | Quantity::Restarts => format!("{value:.0}"),
            Quantity::Node if value == 0.0 => "RUNNING".into(),
            Quantity::Node => "not RUNNING".into(),
        }
    }
}

/// An alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Its name.
    pub name: String,
    /// Its condition, as it is written.
    pub condition: String,
    /// What is measured.
    pub quantity: Quantity,
    /// The value that must not be exceeded (of the disk: that there must be at least).
    pub threshold: f64,
    /// The condition must have held for so long before the alert fires, and must not have held
    /// for so long before it is resolved, seconds.
    pub for_s: u64,
    /// The time over which it is measured, seconds.
    pub window_s: u64,
    /// Only apps of this plugin.
    pub plugin: Option<String>,
    /// Only apps of this name.
    pub app: Option<String>,
    /// Where it is sent to: http://… or https://….
    pub webhook: Option<String>,
    /// While it fires, it is sent again after this, seconds; 0 = never.
    pub repeat_s: u64,
}

impl Alert {
    /// True if a value lets the condition hold.
    pub fn holds(&self, value: f64) -> bool {
        match self.quantity {
            Quantity::Disk => value < self.threshold,
            _ => value > self.threshold,
        }
    }

    /// True if an app is not left out.
    pub fn is_about(&self, plugin: &str, app: &str) -> bool {
        let fits = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|it| it == is);
        fits(&self.plugin, plugin) && fits(&self.app, app)
    }
}

/// True for the name of a section of an alert.
pub fn is_section(section: &str) -> bool {
    section.starts_with(PREFIX)
}

/// Reads the alerts among all values. A wrong one is left out, with an error.
pub(crate) fn read(values: &[Value], diagnostics: &mut Vec<Diagnostic>) -> Vec<Alert> {
    let mut sections: BTreeMap<&str, BTreeMap<&str, &Value>> = BTreeMap::new();
    for value in values.iter().filter(|value| is_section(&value.section)) {
        sections.entry(&value.section).or_default().insert(&value.key, value);
    }
    let mut alerts = Vec::new();
    for (section, keys) in sections {
        warn_of_unknown(section, &keys, diagnostics);
        match alert(section, &keys) {
            Ok(alert) => alerts.push(alert),
            Err(problem) => diagnostics.push(*problem),
        }
    }
    if alerts.len() > ALERTS_MAX {
        diagnostics.push(
            Diagnostic::error(format!("there are {} alerts", alerts.len()))
                .kind(Kind::BadConfiguration)
                .because(format!("a node has at most {ALERTS_MAX}"))
                .help("one alert without `plugin` and `app` is about every app"),
        );
        alerts.truncate(ALERTS_MAX);
    }
    alerts
}

fn warn_of_unknown(
    section: &str,
    keys: &BTreeMap<&str, &Value>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let known = |key: &str| KEYS.contains(&key) || key == "command";
    for (key, value) in keys.iter().filter(|(key, _)| !known(key)) {
        let help = match nearest(key, KEYS) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("the keys of an alert are {}", KEYS.join(", ")),
        };
        diagnostics.push(
            Diagnostic::warning(format!("[{section}] {key} is unknown"))
                .at(value.origin.location())
                .help(help),
        );
    }
}

/// Why a value is refused, and what to write instead.
type Refusal = (String, String);

fn alert(section: &str, keys: &BTreeMap<&str, &Value>) -> Result<Alert, Box<Diagnostic>> {
    let set = |key: &str| {
        let value = keys.get(key).filter(|value| !value.value.trim().is_empty());
        value.filter(|value| !value.value.trim().eq_ignore_ascii_case("null"))
    };
    let refuse = |key: &str, (why, help): Refusal| {
        let written = keys.get(key).or_else(|| keys.values().next());
        let what = match set(key) {
            Some(value) => format!("[{section}] {key} has a wrong value: {:?}", value.value),
            None => format!("[{section}] has no {key}"),
        };
        let problem = Diagnostic::error(what).kind(Kind::BadConfiguration).because(why);
        let problem = match written {
            Some(value) => problem.at(value.origin.location()),
            None => problem,
        };
        Box::new(problem.help(help))
    };
    let seconds = |key: &str, default: u64| match set(key) {
        Some(value) => duration_s(&value.value).map_err(|refusal| refuse(key, refusal)),
        None => Ok(default),
    };
    if set("command").is_some() {
        let help = "remove it, and let a receiver of the `webhook` run the command";
        return Err(refuse("command", (NO_COMMAND.into(), help.into())));
    }
    let condition = set("condition").map_or("", |value| value.value.trim()).to_string();
    let (quantity, threshold) =
        read_condition(&condition).map_err(|refusal| refuse("condition", refusal))?;
    let text = |key: &str| set(key).map(|value| value.value.trim().to_string());
    if let Some((url, why)) =
        text("webhook").and_then(|url| http_url::check(&url).err().map(|why| (url, why)))
    {
        let why = format!("{url:?} is no address of a receiver: {why}");
        return Err(refuse("webhook", (why, "write http://HOST/PATH or https://HOST/PATH".into())));
    }
    for key in ["plugin", "app", "window"] {
        let is_used = match key {
            "window" => quantity.is_of_a_window(),
            _ => quantity.is_of_apps(),
        };
        if set(key).is_some() && !is_used {
            let why = format!("the condition {condition:?} has none");
            return Err(refuse(key, (why, "remove it".into())));
        }
    }
    Ok(Alert {
        name: section[PREFIX.len()..].to_string(),
        quantity,
        threshold,
        for_s: seconds("for", 60)?,
        window_s: seconds("window", quantity.window_s())?.max(1),
        plugin: text("plugin"),
        app: text("app"),
        webhook: text("webhook"),
        repeat_s: seconds("repeat", 4 * 3600)?,
        condition,
    })
}

/// `error_rate > 5%`: what is measured, and the threshold.
fn read_condition(text: &str) -> Result<(Quantity, f64), Refusal> {
    let refused = |why: String| (why, CONDITIONS.to_string());
    let end = text.find(|c: char| c.is_whitespace() || "<>!=".contains(c)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let known = QUANTITIES.iter().find(|(known, ..)| *known == name);
    let Some((_, quantity, operator, unit)) = known else {
        return Err(refused(format!("{name:?} is nothing that is measured")));
    };
    let Some(value) = rest.trim_start().strip_prefix(operator) else {
        return Err(refused(format!("{name} is compared with {operator}")));
    };
    let value = value.trim();
    if *quantity == Quantity::Node {
        return match value {
            "RUNNING" => Ok((*quantity, 0.0)),
            _ => Err(refused(format!("{value:?} is not RUNNING"))),
        };
    }
    let bad =
        || refused(format!("{value:?} is no {}", if unit.is_empty() { "number" } else { unit }));
    let number = |text: &str| {
        let number: f64 = text.trim().parse().ok()?;
        (number.is_finite() && number >= 0.0).then_some(number)
    };
    let found = match (*unit, value.strip_suffix("ms")) {
        ("s", Some(ms)) => number(ms).map(|ms| ms / 1000.0),
        _ => value.strip_suffix(unit).and_then(number),
    };
    let found = found.ok_or_else(bad)?;
    if *unit == "%" && found > 100.0 {
        return Err(refused(format!("{value} is more than 100%")));
    }
    Ok((*quantity, found))
}

/// `90`, `90s`, `5m`, `4h`, `1d`: seconds.
fn duration_s(text: &str) -> Result<u64, Refusal> {
    let text = text.trim();
    let (digits, unit) = match text.strip_suffix(['s', 'm', 'h', 'd']) {
        Some(digits) => (digits, &text[digits.len()..]),
        None => (text, "s"),
    };
    let factor = match unit {
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => 1,
    };
    let seconds = digits.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    seconds
        .filter(|seconds| *seconds <= LONGEST_S)
        .ok_or_else(|| ("it is no duration of at most 7d".into(), "write 30s, 2m, 4h or 1d".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module_config::{Resolution, resolve};

    fn resolved(keys: &[(&str, &str)]) -> Resolution {
        let set = |(key, value): &(&str, &str)| {
            ("alert_x".to_string(), key.to_string(), value.to_string())
        };
        let sets: Vec<_> = keys.iter().map(set).collect();
        resolve(&[], &sets, &BTreeMap::new(), "GENERIC")
    }

    #[test]
    fn a_section_becomes_an_alert_and_nothing_of_it_is_told_to_plugins() {
        let resolution = resolved(&[
            ("condition", "error_rate > 2.5%"),
            ("for", "2m"),
            ("window", "5m"),
            ("plugin", "shop"),
            ("webhook", "https://host/hook?token=secret"),
            ("repeat", "0"),
        ]);
        assert_eq!(resolution.diagnostics, []);
        let expected = Alert {
            name: "x".into(),
            condition: "error_rate > 2.5%".into(),
            quantity: Quantity::ErrorRate,
            threshold: 2.5,
            for_s: 120,
            window_s: 300,
            plugin: Some("shop".into()),
            app: None,
            webhook: Some("https://host/hook?token=secret".into()),
            repeat_s: 0,
        };
        assert_eq!(resolution.config.alerts, [expected]);
        assert!(resolution.exported.keys().all(|name| !name.contains("ALERT")));
    }

    #[test]
    fn conditions_are_read_with_their_units() {
        for (text, quantity, threshold) in [
            ("p95 > 2s", Quantity::P95, 2.0),
            ("p95>250ms", Quantity::P95, 0.25),
            ("queue > 100", Quantity::Queue, 100.0),
            ("restarts > 5", Quantity::Restarts, 5.0),
            ("disk < 5 %", Quantity::Disk, 5.0),
            ("node != RUNNING", Quantity::Node, 0.0),
        ] {
            assert_eq!(read_condition(text).unwrap(), (quantity, threshold), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_an_alert_is_an_error_that_says_why() {
        let good = ("condition", "queue > 1");
        for (keys, why) in [
            (&[("for", "1m")][..], "no condition"),
            (&[("condition", "latency > 2s")], "nothing that is measured"),
            (&[("condition", "queue < 2")], "compared with >"),
            (&[("condition", "queue > many")], "no number"),
            (&[("condition", "p95 > 2")], "no s"),
            (&[("condition", "disk < 500%")], "more than 100%"),
            (&[("condition", "node != STOPPED")], "not RUNNING"),
            (&[good, ("for", "soon")], "no duration"),
            (&[good, ("for", "8d")], "no duration"),
            (&[good, ("webhook", "host:80")], "no address"),
            (&[good, ("webhook", "http://u:p@host")], "no address"),
            (&[good, ("window", "5m")], "has none"),
            (&[("condition", "disk < 5%"), ("app", "a")], "has none"),
            (&[good, ("command", "/bin/x")], "starts no process"),
        ] {
            let resolution = resolved(keys);
            let said = resolution.diagnostics.first().map(ToString::to_string).unwrap_or_default();
            assert!(resolution.has_errors() && said.contains(why), "{keys:?}: {said}");
            assert_eq!(resolution.config.alerts, [], "{keys:?}");
        }
        let resolution = resolved(&[good, ("fro", "1m")]);
        assert!(!resolution.has_errors());
        assert!(resolution.diagnostics[0].to_string().contains("did you mean for?"));
    }
}

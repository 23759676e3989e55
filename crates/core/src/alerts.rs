//! Alerts: the sections `[alert_NAME]` of the configuration.

mod checks;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostic;
use crate::exit_code::Kind;
use crate::layers::Value;
use crate::suggest::nearest;
use crate::wire::metrics::BOUNDS_US;
use checks::{check_ca, check_command, check_webhook};

/// What the names of sections of alerts begin with.
pub const PREFIX: &str = "alert_";
/// The most alerts of a node.
const ALERTS_MAX: usize = 64;
/// A week: no duration is longer, seconds. The history goes back further than that.
const LONGEST_S: u64 = 7 * 86_400;
/// How often fronts and daemon send what they have counted, and conditions are looked at, seconds.
const SAMPLE_S: u64 = 1;
/// The shortest and the longest duration that a percentile can tell from others, seconds: what
/// took longer is in the last bucket of a histogram.
const P95_S: (f64, f64) = (BOUNDS_US[0] as f64 / 1e6, BOUNDS_US[BOUNDS_US.len() - 1] as f64 / 1e6);
const KEYS: [&str; 9] =
    ["condition", "for", "window", "plugin", "app", "webhook", "ca", "command", "repeat"];
const CONDITIONS: &str = "write error_rate > 5%, p95 > 2s, queue > 100, restarts > 5, disk < 5% \
                          or node != RUNNING";
/// What the names of the processes of commands begin with. No worker and no job is named so.
pub const PROCESS_PREFIX: &str = "alert.";

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
    /// Certificates to trust there instead of those of the system, a PEM file.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// What a shell runs when it fires and when it is resolved. The daemon takes it from its own
    /// plan; the role that evaluates alerts, and reads the network, is not told.
    #[serde(default)]
    pub command: Option<String>,
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
    let known = |key: &str| KEYS.contains(&key);
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
    let seconds = |key: &str, default: u64, least: u64| match set(key) {
        Some(value) => duration_s(&value.value, least).map_err(|refusal| refuse(key, refusal)),
        None => Ok(default),
    };
    let name = name_of(section, keys)?;
    let condition = set("condition").map_or("", |value| value.value.trim()).to_string();
    let (quantity, threshold) =
        read_condition(&condition).map_err(|refusal| refuse("condition", refusal))?;
    let text = |key: &str| set(key).map(|value| value.value.trim().to_string());
    let webhook = text("webhook");
    check_webhook(webhook.as_deref()).map_err(|refusal| refuse("webhook", refusal))?;
    let ca = text("ca");
    check_ca(ca.as_deref(), webhook.as_deref()).map_err(|refusal| refuse("ca", refusal))?;
    let command = text("command");
    check_command(command.as_deref()).map_err(|refusal| refuse("command", refusal))?;
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
        name: name.to_string(),
        quantity,
        threshold,
        for_s: seconds("for", 60, SAMPLE_S)?,
        window_s: seconds("window", quantity.window_s(), SAMPLE_S)?,
        plugin: text("plugin"),
        app: text("app"),
        webhook,
        ca: ca.map(PathBuf::from),
        command,
        repeat_s: seconds("repeat", 4 * 3600, 0)?,
        condition,
    })
}

/// The name of an alert, which is part of the name of a process, and a label.
fn name_of<'a>(
    section: &'a str,
    keys: &BTreeMap<&str, &Value>,
) -> Result<&'a str, Box<Diagnostic>> {
    let name = &section[PREFIX.len()..];
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.len() <= 64 && name.chars().all(fits) {
        return Ok(name);
    }
    let problem = Diagnostic::error(format!("[{section}] cannot be the section of an alert"))
        .kind(Kind::BadConfiguration)
        .because("the name of an alert has letters, digits, _ and -, at most 64 of them")
        .help("write for example [alert_errors]");
    let at = keys.values().next().map(|value| value.origin.location());
    Err(Box::new(at.into_iter().fold(problem, Diagnostic::at)))
}

/// Leaves out alerts about queues that are longer than a queue can be, with an error.
pub(crate) fn check_queues(
    alerts: &mut Vec<Alert>,
    queue_max: u32,
    values: &[Value],
    diagnostics: &mut Vec<Diagnostic>,
) {
    alerts.retain(|alert| {
        let can_be = alert.quantity != Quantity::Queue || alert.threshold < f64::from(queue_max);
        if !can_be {
            let is_own =
                |value: &&Value| value.section[..].strip_prefix(PREFIX) == Some(&alert.name);
            let condition = values.iter().filter(is_own).find(|value| value.key == "condition");
            let what = format!("[{PREFIX}{}] {:?} never holds", alert.name, alert.condition);
            let mut problem = Diagnostic::error(what)
                .kind(Kind::BadConfiguration)
                .because(format!("at most {queue_max} requests wait: [front] queue_max"))
                .help("write a smaller number, or allow a longer queue");
            if let Some(condition) = condition {
                problem = problem.at(condition.origin.location());
            }
            diagnostics.push(problem);
        }
        can_be
    });
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
    let (text, factor) = match (*unit, value.strip_suffix("ms")) {
        ("s", Some(ms)) => (ms, 1e-3),
        _ => match value.strip_suffix(unit) {
            Some(number) => (number, 1.0),
            None => return Err(refused(format!("{value:?} has not the unit {unit}"))),
        },
    };
    let number = text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
    let Some(threshold) = number.map(|number| number * factor) else {
        return Err(refused(format!("{:?} is no number", text.trim())));
    };
    match cannot_be(*quantity, threshold) {
        Some(why) => Err(refused(format!("{name} {operator} {value} makes no sense: {why}"))),
        None => Ok((*quantity, threshold)),
    }
}

/// Why a condition with this threshold would hold never, or always.
fn cannot_be(quantity: Quantity, threshold: f64) -> Option<String> {
    let why = match quantity {
        _ if threshold < 0.0 => "nothing that is measured is negative".into(),
        Quantity::ErrorRate if threshold >= 100.0 => "a share is never more than 100%".into(),
        Quantity::Disk if threshold == 0.0 => "free space is never less than 0%".into(),
        Quantity::Disk if threshold > 100.0 => "free space is never more than 100%".into(),
        Quantity::P95 if threshold < P95_S.0 => {
            format!("durations below {} ms are counted as one", P95_S.0 * 1e3)
        }
        Quantity::P95 if threshold >= P95_S.1 => {
            format!("durations above {} s are counted as one", P95_S.1)
        }
        _ => return None,
    };
    Some(why)
}

/// `90`, `90s`, `5m`, `4h`, `1d`: seconds, not fewer than `least`.
fn duration_s(text: &str, least: u64) -> Result<u64, Refusal> {
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
    let help = "write 30s, 2m, 4h or 1d";
    match seconds.filter(|seconds| *seconds <= LONGEST_S) {
        Some(seconds) if seconds >= least => Ok(seconds),
        Some(_) => Err((format!("conditions are looked at every {SAMPLE_S} s"), help.into())),
        None => Err(("it is no duration of at most 7d".into(), help.into())),
    }
}

#[cfg(test)]
mod tests;

//! `history`: what was counted, as the telemetry role remembers it.

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use clap_complete::ArgValueCompleter;
use mfserv_core::{Diagnostic, Kind};
use mfserv_node::places::Places;
use mfserv_node::render;
use mfserv_telemetry::metrics::{self, Answer, Series};

use super::completions;
use super::output::for_terminal;
use super::plugins::env::{if_not_installed, unknown_app};
use super::print;
use super::report::{Colour, Outcome, paint};
use super::show::table;
use super::sparkline::sparkline;

/// How long the telemetry role may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The columns of a sparkline among others, and of one alone.
const NARROW: usize = 20;
const WIDE: usize = 60;

/// What was counted of apps and of the node: 1 s for ten minutes, 10 s for a day, 1 min for a month.
///
/// A table with sparklines on a terminal; in a pipe, a row for each app and interval.
#[derive(Debug, Args)]
pub struct HistoryOf {
    /// A plugin (`foo`), an app (`foo.main`) or a role (`front`); without it: all.
    #[arg(add = ArgValueCompleter::new(completions::apps))]
    name: Option<String>,
    /// Since then: `10m` or `2h` ago, `14:30`, `yesterday`, `"2026-01-31 14:30"`.
    #[arg(long, value_name = "TIME", value_parser = super::logs::time, allow_hyphen_values = true, default_value = "1h")]
    since: u64,
    /// Until then.
    #[arg(long, value_name = "TIME", value_parser = super::logs::time, allow_hyphen_values = true)]
    until: Option<u64>,
    /// The length of an interval: `1s`, `10s`, `5m`, `1h`. Without it: a sixtieth of the time.
    #[arg(long, value_name = "TIME")]
    step: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl HistoryOf {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        if self.until.is_some_and(|until| until < self.since) {
            return Err(Diagnostic::error("--since is later than --until")
                .kind(Kind::Usage)
                .help("--since is the earlier time, for example `--since 2h --until 1h`"));
        }
        let text = metrics::ask_history(&places.telemetry_socket(), &self.question(), PATIENCE)?;
        let answer: Answer = serde_json::from_str(&text).map_err(|e| {
            Diagnostic::error("the answer of the telemetry role is not understood")
                .because(e)
                .help("if mfserv was upgraded, run `mfserv upgrade`")
        })?;
        if let Some(name) = self.name.as_ref().filter(|_| answer.series.is_empty()) {
            if let Some(problem) = unknown_app(places, name) {
                return Err(problem);
            }
            let problem = Diagnostic::error(format!("nothing is known of {name} at that time"))
                .help("`mfserv history` shows what is known; an earlier --since finds more");
            return Err(if_not_installed(places, name, problem));
        }
        let shown = match (self.json, std::io::stdout().is_terminal()) {
            (true, _) => format!("{text}\n"),
            (false, true) => for_people(&answer),
            (false, false) => for_scripts(&answer),
        };
        print(&shown);
        Ok(Outcome::Done)
    }

    fn question(&self) -> String {
        let name = self.name.as_deref().unwrap_or_default();
        let name =
            ["app.", "extra."].iter().find_map(|kind| name.strip_prefix(kind)).unwrap_or(name);
        let (plugin, app) = name.split_once(['.', '/']).unwrap_or((name, ""));
        let until = self.until.map(|ms| (ms / 1000).to_string()).unwrap_or_default();
        [
            ("plugin", plugin),
            ("app", app),
            ("since", &(self.since / 1000).to_string()),
            ("until", &until),
            ("step", self.step.as_deref().unwrap_or_default()),
        ]
        .map(|(key, value)| format!("{key}={}", encoded(value)))
        .join("&")
    }
}

/// A value as a query may have it.
fn encoded(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let one = |byte: u8| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    value.bytes().map(one).collect()
}

/// How a number is written, by the unit in which it is measured.
type Unit = fn(f64) -> String;

fn number(value: f64) -> String {
    match value {
        0.0 => "0".into(),
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

fn count(value: f64) -> String {
    format!("{value:.0}")
}

fn bytes(value: f64) -> String {
    render::bytes(value as u64)
}

/// Milliseconds, as people read them.
pub fn duration(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.1}ms"),
        ms if ms < 1_000.0 => format!("{ms:.0}ms"),
        ms => format!("{:.1}s", ms / 1e3),
    }
}

/// What is shown of an app: the name of the value, its title, and how it is written.
const VALUES: [(&str, &str, Unit); 16] = [
    ("requests_per_s", "REQ/S", number),
    ("2xx_per_s", "2XX/S", number),
    ("3xx_per_s", "3XX/S", number),
    ("4xx_per_s", "4XX/S", number),
    ("5xx_per_s", "5XX/S", number),
    ("p50_ms", "P50", duration),
    ("p95_ms", "P95", duration),
    ("p99_ms", "P99", duration),
    ("in_flight", "IN WORK", count),
    ("waiting", "WAIT", count),
    ("workers_ready", "READY", count),
    ("workers_wanted", "WANTED", count),
    ("restarts", "RESTARTS", count),
    ("crashes", "CRASHES", count),
    ("cpu_percent", "CPU %", number),
    ("memory_bytes", "MEMORY", bytes),
];
/// The same of the node.
const OF_NODE: [(&str, &str, Unit); 5] = [
    ("host_cpu_percent", "HOST CPU %", number),
    ("host_memory_bytes", "HOST MEMORY", bytes),
    ("connections", "CONNECTIONS", count),
    ("connections_per_s", "CONNECTIONS/S", number),
    ("requests_in_work", "IN WORK", count),
];

fn for_people(answer: &Answer) -> String {
    let time = |at: &u64| render::time(at * 1000)[..19].to_string();
    let begin = answer.times.first().map(|first| first - answer.step_s);
    let (begin, end) = (begin.as_ref().map(time), answer.times.last().map(time));
    let unknown = String::new;
    let step = render::span(answer.step_s * 1000);
    let mut out = format!(
        "{} to {}, in steps of {step}\n\n",
        begin.unwrap_or_else(unknown),
        end.unwrap_or_else(unknown)
    );
    match answer.series.as_slice() {
        [one] => {
            out += &format!("{}\n", paint(&for_terminal(&one.name), Colour::Title));
            out += &table(&details(&one.values, &VALUES));
        }
        all => {
            out += &table(&overview(all));
            out += "\n";
            out += &table(&details(&answer.node, &OF_NODE));
        }
    }
    out
}

/// A row for each app.
fn overview(all: &[Series]) -> Vec<Vec<String>> {
    let titles = [
        "APP", "REQ/S", "LAST", "MAX", "5XX/S", "P95", "MAX", "WAIT", "CRASHES", "CPU %", "MEMORY",
    ];
    let mut rows = vec![titles.map(|title| paint(title, Colour::Title)).to_vec()];
    for one in all {
        let values = |name: &str| one.values.get(name).map(Vec::as_slice).unwrap_or_default();
        let most = |name: &str, unit: Unit| written(max(values(name)), unit);
        let sum = |name: &str| values(name).iter().flatten().fold(0.0, |sum, more| sum + more);
        rows.push(vec![
            for_terminal(&one.name).into_owned(),
            sparkline(values("requests_per_s"), NARROW),
            written(values("requests_per_s").last().copied().flatten(), number),
            most("requests_per_s", number),
            most("5xx_per_s", number),
            sparkline(values("p95_ms"), NARROW),
            most("p95_ms", duration),
            most("waiting", count),
            count(sum("crashes")),
            most("cpu_percent", number),
            most("memory_bytes", bytes),
        ]);
    }
    rows
}

/// A row for each value.
fn details(of: &metrics::Values, shown: &[(&str, &str, Unit)]) -> Vec<Vec<String>> {
    let titles = ["", "", "LAST", "MIN", "MEAN", "MAX"];
    let mut rows = vec![titles.map(|title| paint(title, Colour::Title)).to_vec()];
    for (name, title, unit) in shown {
        let values = of.get(*name).map(Vec::as_slice).unwrap_or_default();
        let known: Vec<f64> = values.iter().flatten().copied().collect();
        let mean = known.iter().sum::<f64>() / known.len().max(1) as f64;
        rows.push(vec![
            (*title).into(),
            sparkline(values, WIDE),
            written(values.last().copied().flatten(), *unit),
            written(known.iter().copied().reduce(f64::min), *unit),
            written((!known.is_empty()).then_some(mean), *unit),
            written(max(values), *unit),
        ]);
    }
    rows
}

fn max(values: &[Option<f64>]) -> Option<f64> {
    values.iter().flatten().copied().reduce(f64::max)
}

fn written(value: Option<f64>, unit: Unit) -> String {
    value.map_or_else(|| "-".into(), unit)
}

/// A row for each app and interval; numbers have no units: ms, bytes.
fn for_scripts(answer: &Answer) -> String {
    let titles = VALUES.map(|(name, _, _)| name.to_uppercase());
    let mut rows = vec![vec!["TIME".to_string(), "APP".into()]];
    rows[0].extend(titles);
    for (at, end) in answer.times.iter().enumerate() {
        for one in &answer.series {
            let value =
                |name: &str| one.values.get(name).and_then(|values| values.get(at).copied()?);
            if value("requests_per_s").is_none() {
                continue;
            }
            let mut row = vec![timestamp(*end), one.name.clone()];
            let written = |name: &str| value(name).map_or("-".into(), |value| value.to_string());
            row.extend(VALUES.iter().map(|(name, _, _)| written(name)));
            rows.push(row);
        }
    }
    table(&rows)
}

/// A time with its offset, without blanks.
fn timestamp(at_s: u64) -> String {
    let at = jiff::Timestamp::from_second(at_s as i64).unwrap_or_default();
    at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_names_plugin_and_app_and_encodes_what_is_special() {
        let of = |name: &str| {
            let name = Some(name.to_string());
            HistoryOf { name, since: 5_000, until: None, step: None, json: false }.question()
        };
        assert_eq!(of("app.shop.main"), "plugin=shop&app=main&since=5&until=&step=");
        assert_eq!(of("#unknown#"), "plugin=%23unknown%23&app=&since=5&until=&step=");
        assert_eq!(of("a&since=1"), "plugin=a%26since%3D1&app=&since=5&until=&step=");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 0.256, 12.34, 1234.5].map(number), ["0", "0.26", "12.3", "1234"]);
        assert_eq!([0.4, 12.4, 1500.0].map(duration), ["0.4ms", "12ms", "1.5s"]);
    }
}

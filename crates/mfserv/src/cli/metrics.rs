//! `metrics`: what the telemetry role has counted, for Prometheus and for people.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use mfserv_core::Diagnostic;
use mfserv_node::places::Places;
use mfserv_telemetry::metrics::{self, Format};

use super::print;
use super::report::Outcome;
use super::show::table;

/// How metrics are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Print {
    /// A table of the apps, for people.
    Summary,
    /// The text format of Prometheus.
    Prometheus,
    /// The text format of OpenMetrics, which has request ids as exemplars.
    Openmetrics,
}

#[derive(Debug, Args)]
pub struct Metrics {
    /// How they are printed; without it: a summary on a terminal, else the text of Prometheus.
    #[arg(long, value_enum)]
    format: Option<Print>,
}

impl Metrics {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let by_reader = || match std::io::stdout().is_terminal() {
            true => Print::Summary,
            false => Print::Prometheus,
        };
        let format = self.format.unwrap_or_else(by_reader);
        let asked = match format {
            Print::Openmetrics => Format::OpenMetrics,
            Print::Summary | Print::Prometheus => Format::Prometheus,
        };
        let text = metrics::ask(&places.telemetry_socket(), asked)?;
        match format {
            Print::Summary => print(&table(&rows(&text))),
            Print::Prometheus | Print::Openmetrics => print(&text),
        }
        Ok(Outcome::Done)
    }
}

/// What is shown of an app.
#[derive(Debug, Default)]
struct App {
    requests: f64,
    errors: f64,
    /// Upper bound of each bucket, seconds, and the requests up to it.
    buckets: BTreeMap<u64, (f64, f64)>,
    in_flight: f64,
    waiting: f64,
    ready: f64,
    wanted: f64,
    memory: f64,
}

fn rows(text: &str) -> Vec<Vec<String>> {
    let mut apps: BTreeMap<String, App> = BTreeMap::new();
    for (name, labels, value) in text.lines().filter_map(sample) {
        let label = |wanted: &str| labels.iter().find(|(name, _)| *name == wanted);
        let (Some((_, plugin)), Some((_, app))) = (label("plugin"), label("app")) else { continue };
        let is = |name: &str, wanted: &str| label(name).is_some_and(|(_, value)| value == wanted);
        let app = if app.is_empty() { plugin.clone() } else { format!("{plugin}.{app}") };
        let app = apps.entry(app).or_default();
        match name {
            "mfserv_http_requests_total" => {
                app.requests += value;
                app.errors += match label("code") {
                    Some((_, code)) if code.starts_with('5') => value,
                    _ => 0.0,
                };
            }
            "mfserv_http_request_duration_seconds_bucket" => {
                let bound = label("le").and_then(|(_, le)| le.parse().ok());
                let bound: f64 = bound.unwrap_or(f64::INFINITY);
                let (_, count) = app.buckets.entry((bound * 1e6) as u64).or_insert((bound, 0.0));
                *count += value;
            }
            "mfserv_http_requests_in_flight" => app.in_flight += value,
            "mfserv_http_requests_waiting" => app.waiting += value,
            "mfserv_workers" if is("phase", "ready") => app.ready += value,
            "mfserv_workers_wanted" => app.wanted += value,
            "mfserv_worker_memory_bytes" => app.memory += value,
            _ => {}
        }
    }
    let head = ["APP", "REQUESTS", "5XX", "P50", "P95", "IN WORK", "WAIT", "READY", "MEMORY"];
    let mut rows = vec![head.map(String::from).to_vec()];
    rows.extend(apps.iter().map(|(name, app)| app.row(name)));
    rows
}

impl App {
    fn row(&self, name: &str) -> Vec<String> {
        let or_none = |text: String, is_there: bool| if is_there { text } else { "-".into() };
        vec![
            name.into(),
            self.requests.to_string(),
            self.errors.to_string(),
            self.percentile(0.5),
            self.percentile(0.95),
            self.in_flight.to_string(),
            self.waiting.to_string(),
            or_none(format!("{}/{}", self.ready, self.wanted), self.wanted > 0.0),
            or_none(format!("{:.0} MB", self.memory / 1e6), self.memory > 0.0),
        ]
    }

    /// The bound of the bucket that has this part of the requests.
    fn percentile(&self, part: f64) -> String {
        let all = self.buckets.values().last().map_or(0.0, |(_, count)| *count);
        let has_it = |(_, count): &&(f64, f64)| all > 0.0 && *count >= all * part;
        match self.buckets.values().find(has_it) {
            None => "-".into(),
            Some((bound, _)) if bound.is_infinite() => "> 60 s".into(),
            Some((bound, _)) if *bound < 1.0 => format!("≤ {} ms", bound * 1e3),
            Some((bound, _)) => format!("≤ {bound} s"),
        }
    }
}

/// Name, labels and value of a line.
type Sample<'a> = (&'a str, Vec<(&'a str, String)>, f64);

/// The sample in a line of the text format.
fn sample(line: &str) -> Option<Sample<'_>> {
    let end = line.find(['{', ' ']).filter(|_| !line.starts_with('#'))?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while let Some((label, after)) = rest.split_once("=\"") {
            let (value, after) = quoted(after)?;
            labels.push((label, value));
            rest = after;
            match rest.strip_prefix(',') {
                Some(next) => rest = next,
                None => break,
            }
        }
        rest = rest.strip_prefix('}')?;
    }
    Some((name, labels, rest.trim().parse().ok()?))
}

/// The value up to the closing quotation mark, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_has_a_row_for_each_app_with_its_percentiles() {
        let text = "\
# HELP mfserv_http_requests_total Requests.
mfserv_http_requests_total{plugin=\"shop\",app=\"web\",type=\"dynamic\",code=\"200\"} 18
mfserv_http_requests_total{plugin=\"shop\",app=\"web\",type=\"dynamic\",code=\"503\"} 2
mfserv_http_request_duration_seconds_bucket{plugin=\"shop\",app=\"web\",type=\"static\",le=\"0.01\"} 10
mfserv_http_request_duration_seconds_bucket{plugin=\"shop\",app=\"web\",type=\"static\",le=\"2.5\"} 20
mfserv_http_request_duration_seconds_bucket{plugin=\"shop\",app=\"web\",type=\"static\",le=\"+Inf\"} 20
mfserv_workers{plugin=\"shop\",app=\"web\",kind=\"app\",phase=\"ready\"} 1
mfserv_workers{plugin=\"shop\",app=\"web\",kind=\"app\",phase=\"down\"} 5
mfserv_workers_wanted{plugin=\"shop\",app=\"web\",kind=\"app\"} 2
mfserv_worker_memory_bytes{plugin=\"shop\",app=\"web\",kind=\"app\",slot=\"1\"} 12400000
mfserv_http_faults_total{plugin=\"a\\\"b\\\\\",app=\"\",cause=\"no_route\"} 3
";
        let rows = rows(text);
        let of_shop = ["shop.web", "20", "2", "≤ 10 ms", "≤ 2.5 s", "0", "0", "1/2", "12 MB"];
        assert_eq!(rows[2], of_shop);
        assert_eq!(rows[1], ["a\"b\\", "0", "0", "-", "-", "0", "0", "-", "-"]);
    }
}

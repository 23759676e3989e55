//! The whole status of the node, for people and for scripts; `ps`.

mod memory;

use std::collections::BTreeSet;
use std::path::Path;

use clap::Args;
use mfserv_core::Diagnostic;
use mfserv_core::maintenance::{ALL, Mark};
use mfserv_core::node_state::NodeState;
use mfserv_core::plan::{Count, PluginState};
use mfserv_core::status::{PluginStatus, Status, WatcherState, WatcherStatus};
use mfserv_core::worker::Phase;
use serde_json::Value;

use super::output::for_terminal;
use super::plugins::app_names::typed;
use super::reach;
use super::report::{Colour, Outcome, paint};
use super::{print, print_json};
use mfserv_node::places::Places;
use mfserv_node::render;
use mfserv_platform::proc::{Process, ProcessTable, proportional_memory};

/// How many of a dead worker's last lines `status` shows.
pub const LAST_LINES: usize = 8;
/// How long `status` shows the last end of a watcher that is well again, milliseconds.
pub const RECENT_MS: u64 = 600_000;

#[derive(Debug, Args)]
pub struct Look {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Look {
    pub fn ps(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let status = reach::status(places)?;
        let processes = ProcessTable::read(Path::new("/proc"));
        if self.json {
            let workers = status.watchers.iter().flat_map(|watcher| &watcher.workers);
            let workers: Vec<Value> = workers
                .map(|worker| {
                    let mut shown = serde_json::to_value(worker).unwrap_or_default();
                    shown["pss_bytes"] =
                        worker.pid.and_then(|pid| proportional(&processes, pid)).into();
                    shown
                })
                .collect();
            print_json(&workers)?;
        } else {
            print(&table(&worker_rows(&for_people(status), &processes)));
        }
        Ok(Outcome::Done)
    }
}

/// The same, with every text as standard output may have it: apps write some of them.
pub fn for_people(status: Status) -> Status {
    fn change(value: &mut Value) {
        match value {
            Value::String(text) => *text = for_terminal(text).into_owned(),
            Value::Array(values) => values.iter_mut().for_each(change),
            Value::Object(fields) => fields.values_mut().for_each(change),
            _ => {}
        }
    }
    let changed = serde_json::to_value(&status).and_then(|mut value| {
        change(&mut value);
        serde_json::from_value(value)
    });
    changed.unwrap_or(status)
}

/// Where the node answers, in clear and over TLS; `None`: nowhere.
pub fn addresses(status: &Status) -> Option<String> {
    let both = [&status.address, &status.tls_address];
    let both: Vec<&str> = both.into_iter().flatten().map(String::as_str).collect();
    (!both.is_empty()).then(|| both.join(" and "))
}

pub fn text(status: &Status) -> String {
    let colour = match status.state {
        NodeState::Running => Colour::Good,
        NodeState::Starting | NodeState::Stopping => Colour::Doubtful,
        NodeState::Error | NodeState::Stopped | NodeState::Unknown => Colour::Bad,
    };
    let state = paint(status.state.as_str(), colour);
    let address = addresses(status).unwrap_or_else(|| "no listener".into());
    let faults: String =
        status.faults().iter().map(|fault| ", ".to_string() + &paint(fault, Colour::Bad)).collect();
    let mut out = format!("mfserv is {state}{faults} at {address} ({})\n", status.home);
    let ago =
        |since_ms: u64| render::span(mfserv_platform::clock::now_ms().saturating_sub(since_ms));
    let keeper = match &status.keeper {
        Some(keeper) => format!("keeper {}", keeper.pid),
        None => paint("no keeper: run `mfserv start`", Colour::Bad),
    };
    let (daemon, generation) = (&status.daemon, status.generation);
    out += &format!(
        "{keeper}, daemon {} for {}, plan {generation}\n",
        daemon.pid,
        ago(daemon.since_ms)
    );
    for note in &status.notes {
        out += &format!("{} {note}\n", paint("note:", Colour::Doubtful));
    }
    for (sentence, warned) in &status.front_warnings {
        let often = match warned.count {
            0 => String::new(),
            1 => format!(" (once, {} ago)", ago(warned.last_ms)),
            count => format!(" ({count} times, the last {} ago)", ago(warned.last_ms)),
        };
        out += &format!("{} front: {sentence}{often}\n", paint("note:", Colour::Doubtful));
    }
    out.push('\n');
    out += &table(&watcher_rows(status));
    for watcher in status.watchers.iter().filter(|w| is_of_interest(w)) {
        out += &trouble(watcher);
    }
    out += &hints(status);
    let refused = status.plugins.iter().filter(|p| p.state != PluginState::Active);
    for plugin in refused {
        out +=
            &format!("\nplugin {}: {}\n", plugin.name, paint(plugin.state.as_str(), Colour::Bad));
    }
    out
}

/// What is to be known of watchers that are well: paragraphs.
pub fn hints(status: &Status) -> String {
    scaled(status) + &in_maintenance(status) + &memory::limits(status) + &exposed(status)
}

/// The watchers whose number of workers is not what their plugin says, and who says it.
fn scaled(status: &Status) -> String {
    let mut out = String::new();
    for (name, count) in status.watchers.iter().filter_map(|w| Some((&w.name, w.scaled.as_ref()?)))
    {
        let Count { wanted, configured, at, held, options, .. } = count;
        if let Some(at) = at {
            out += &format!("\n{name} is scaled: numprocesses={configured} in {at}\n");
        }
        if count.is_stopped() {
            let typed = typed(name);
            out += &format!("\n{name} is stopped: `mfserv start {typed}` starts it\n");
        } else if *held {
            out += &format!(
                "\n{name} is scaled to {wanted} (configured: {configured}), until its \
                 configuration changes or is reloaded\n"
            );
        }
        if !options.is_empty() {
            out += &format!(
                "\n{name} runs with {options}, which is not in its configuration, until that \
                 changes or is reloaded\n"
            );
        }
    }
    out
}

/// What the front answers in place of apps.
fn in_maintenance(status: &Status) -> String {
    let of = |(key, mark): (&String, &Mark)| {
        let (who, name) = match key.as_str() {
            ALL => ("every app", String::new()),
            key => (key, format!(" {key}")),
        };
        let how = if mark.hold { "its requests wait" } else { "its requests get 503" };
        let since = render::span(mfserv_platform::clock::now_ms().saturating_sub(mark.since_ms));
        format!(
            "\n{who} is in maintenance for {since}: {how}; `mfserv maintenance off{name}` ends it\n"
        )
    };
    status.maintenance.0.iter().map(of).collect()
}

/// The watchers with a worker that listens on more than 127.0.0.1.
fn exposed(status: &Status) -> String {
    let of = |watcher: &WatcherStatus| {
        let mut listens = watcher.workers.iter().filter_map(|worker| worker.listens);
        let address = listens.find(|address| !address.ip().is_loopback())?;
        Some(format!(
            "\n{} listens on {address}: other machines may reach it there, past the front; have it \
             listen on HOST\n",
            watcher.name
        ))
    };
    status.watchers.iter().filter_map(of).collect()
}

/// It is not well, or was not a short while ago.
fn is_of_interest(watcher: &WatcherStatus) -> bool {
    let is_asked = watcher.workers.iter().any(|worker| worker.probe.is_some());
    let age_ms = |at_ms: u64| mfserv_platform::clock::now_ms().saturating_sub(at_ms);
    is_asked
        || !matches!(watcher.state, WatcherState::Ready | WatcherState::Off)
        || watcher.last_end.as_ref().is_some_and(|end| age_ms(end.at_ms) < RECENT_MS)
}

fn watcher_rows(status: &Status) -> Vec<Vec<String>> {
    let mut rows = vec![titles(&["WATCHER", "STATE", "READY", "CRASHES", "MEMORY", "PATH"])];
    for watcher in &status.watchers {
        let colour = match watcher.state {
            WatcherState::Ready => Colour::Good,
            WatcherState::Failing => Colour::Bad,
            _ => Colour::Doubtful,
        };
        let memory: u64 = watcher.workers.iter().filter_map(|w| w.memory_bytes).sum();
        rows.push(vec![
            watcher.name.to_string(),
            paint(&watcher.state.to_string(), colour),
            format!("{}/{}", watcher.ready, watcher.wanted),
            watcher.crashes.to_string(),
            render::bytes(memory),
            places(&watcher.path, &watcher.hosts).join(", "),
        ]);
    }
    for (plugin, place) in unanswered(status) {
        let cells = [plugin.name.as_str(), "static", "-", "-", "-", &place];
        rows.push(cells.map(str::to_owned).to_vec());
    }
    rows
}

/// The places of plugins where no app answers: static files.
pub fn unanswered(status: &Status) -> Vec<(&PluginStatus, String)> {
    let of_watcher = |watcher: &WatcherStatus| places(&watcher.path, &watcher.hosts);
    let answered: BTreeSet<String> = status.watchers.iter().flat_map(of_watcher).collect();
    let active = status.plugins.iter().filter(|plugin| plugin.state == PluginState::Active);
    let all = active.flat_map(|plugin| {
        places(&plugin.paths, &plugin.hosts).into_iter().map(move |place| (plugin, place))
    });
    all.filter(|(_, place)| !answered.contains(place)).collect()
}

/// Where something answers: paths, and hosts as `example.org/`.
pub fn places<'a>(paths: impl IntoIterator<Item = &'a String>, hosts: &[String]) -> Vec<String> {
    let hosts = hosts.iter().map(|host| format!("{host}/"));
    paths.into_iter().cloned().chain(hosts).collect()
}

/// Why a watcher is not well: the end of its last worker, and what starting ones say.
fn trouble(watcher: &WatcherStatus) -> String {
    let mut out = String::new();
    for worker in watcher.workers.iter().filter(|w| w.probe.is_some()) {
        let since = render::span(mfserv_platform::clock::now_ms().saturating_sub(worker.since_ms));
        let saw = worker.probe.as_deref().unwrap_or_default();
        out += &match worker.phase {
            Phase::Starting => format!("\n{} is starting for {since}: {saw}\n", worker.id),
            _ => format!("\n{} does not answer: {saw}\n", worker.id),
        };
    }
    if let Some(end) = &watcher.last_end {
        let ago = render::span(mfserv_platform::clock::now_ms().saturating_sub(end.at_ms));
        let why = paint(&end.why.to_string(), Colour::Bad);
        out += &format!("\n{} ended {ago} ago: {why}", end.worker);
        out += &render::indented(&end.last_output, LAST_LINES);
        out.push('\n');
    }
    out
}

/// Proportional memory of a process and its descendants, bytes.
fn proportional(table: &ProcessTable, root: u32) -> Option<u64> {
    let of = |process: &Process| proportional_memory(Path::new("/proc"), process.pid);
    let tree = table.tree(root);
    let (first, descendants) = tree.split_first()?;
    Some(of(first)? + descendants.iter().filter_map(|process| of(process)).sum::<u64>())
}

fn worker_rows(status: &Status, table: &ProcessTable) -> Vec<Vec<String>> {
    let mut rows =
        vec![titles(&["WORKER", "PID", "PHASE", "FOR", "CPU", "MEMORY", "PSS", "CONTAINED BY"])];
    let now = mfserv_platform::clock::now_ms();
    for worker in status.watchers.iter().flat_map(|w| &w.workers) {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        rows.push(vec![
            worker.id.to_string(),
            or_dash(worker.pid.map(|pid| pid.to_string())),
            worker.phase.to_string(),
            render::span(now.saturating_sub(worker.since_ms)),
            or_dash(worker.cpu_ms.map(|ms| format!("{:.1}s", ms as f64 / 1000.0))),
            or_dash(worker.memory_bytes.map(render::bytes)),
            or_dash(worker.pid.and_then(|pid| proportional(table, pid)).map(render::bytes)),
            worker.containment.clone() + if worker.adopted { " (adopted)" } else { "" },
        ]);
    }
    rows
}

fn titles(titles: &[&str]) -> Vec<String> {
    titles.iter().map(|title| paint(title, Colour::Title)).collect()
}

/// Columns as wide as their widest cell, two blanks apart.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter().filter_map(|row| row.get(column)).map(|c| visible(c)).max().unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line += cell;
            line += &" ".repeat(width + 2 - visible(cell));
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

/// How many columns a text takes: colours take none.
fn visible(text: &str) -> usize {
    let mut count = 0;
    let mut in_colour = false;
    for c in text.chars() {
        match c {
            '\x1b' => in_colour = true,
            'm' if in_colour => in_colour = false,
            _ if in_colour => {}
            _ => count += 1,
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_with_and_without_colours() {
        let row = |cells: &[&str]| cells.iter().map(|c| c.to_string()).collect::<Vec<_>>();
        let text = table(&[row(&["A", "LONG", "C"]), row(&["\x1b[32mwide\x1b[0m", "x", "y"])]);
        assert_eq!(text, "A     LONG  C\n\x1b[32mwide\x1b[0m  x     y\n");
    }
}

//! Events as sentences; times, durations and sizes for people.

use mfserv_core::Severity;
use mfserv_core::event::{EndReason, Event, Fact, NginxEnd};
use mfserv_core::job::RunResult;
use mfserv_core::memory::size_text;
use mfserv_core::names::WorkerId;

/// Local time, to the millisecond: `2026-01-31 12:00:00.123`.
pub fn time(at_ms: u64) -> String {
    let at = jiff::Timestamp::from_millisecond(at_ms as i64).unwrap_or_default();
    at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string()
}

/// How long ago, or how long: `850ms`, `12s`, `3m 4s`, `2h 5m`, `3d 4h`.
pub fn span(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0 => format!("{ms}ms"),
        1..60 => format!("{s}s"),
        60..3_600 => format!("{}m {}s", s / 60, s % 60),
        3_600..86_400 => format!("{}h {}m", s / 3_600, s % 3_600 / 60),
        _ => format!("{}d {}h", s / 86_400, s % 86_400 / 3_600),
    }
}

/// An amount of memory: `12.3M`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "K", "M", "G", "T"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{n}B"),
        _ => format!("{value:.1}{}", UNITS[unit]),
    }
}

/// An event on one line; the last output of a worker on indented lines below.
pub fn event(event: &Event) -> String {
    format!("{} {}", time(event.at_ms), fact(&event.fact))
}

/// An event as a line of the daemon's own log, in the form of the text of mflog. `pid`: of the
/// daemon.
pub fn log_line(event: &Event, pid: u32) -> String {
    let level = match event.fact.severity() {
        Some(Severity::Error) => "[ERROR]",
        Some(Severity::Warning) => "[WARNING]",
        None => "[INFO]",
    };
    let at = jiff::Timestamp::from_millisecond(event.at_ms as i64).unwrap_or_default();
    let at = at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ");
    format!("{at} {level:>10} (mfserv.daemon#{pid}) {}", fact(&event.fact))
}

fn renewing(plugin: &str, files: &[String], more: u32) -> String {
    format!("{plugin}: {} changed: renewing", changed(files, more))
}

/// A fact, as a sentence for people.
pub fn fact(fact: &Fact) -> String {
    match fact {
        Fact::DaemonStarted { pid, adopted } => {
            format!("daemon started (pid {pid}), {adopted} living workers found")
        }
        Fact::NodeState { state } => format!("node is {state}"),
        Fact::PlanApplied { generation, changes } => format!("plan {generation}: {changes}"),
        Fact::Problem { problem } => problem.to_string(),
        Fact::WorkerStarted { worker, pid } => format!("{worker} started (pid {pid})"),
        Fact::WorkerReady { worker, after_ms } => {
            format!("{worker} ready after {}", span(*after_ms))
        }
        Fact::WorkerAdopted { worker, pid } => format!("{worker} found alive (pid {pid})"),
        Fact::WorkerRetiring { worker, why } => retiring(worker, why),
        Fact::MemoryHigh { worker, used_bytes, high_bytes, replaced_in_ms } => {
            memory_high(worker, (*used_bytes, *high_bytes), *replaced_in_ms)
        }
        Fact::WorkerEnded { worker, why, last_output, left_behind, restart_in_ms, .. } => {
            worker_ended((worker, why), last_output, *left_behind, *restart_in_ms)
        }
        Fact::FilesChanged { plugin, files, more } => renewing(plugin, files, *more),
        Fact::Renewed { plugin, after_ms } => {
            format!("{plugin} serves the new code after {}", span(*after_ms))
        }
        Fact::NotRenewed { problem, .. } => problem.to_string(),
        Fact::LogTrouble { file, reason } => format!("cannot write {file}: {reason}"),
        Fact::OutputDropped { id, bytes: n } => dropped(id, *n),
        Fact::LogsRemoved { files, more, bytes: n } => {
            format!("the logs were too large: {} removed ({})", changed(files, *more), bytes(*n))
        }
        Fact::Scaled { watcher, count } => format!("{watcher} scaled to {count}"),
        Fact::WorkerTrouble { worker, cause, detail } => {
            let more = if detail.is_empty() { "" } else { ": " };
            format!("{worker} did not behave: {cause}{more}{detail}")
        }
        Fact::NginxEnded(end) => nginx_ended(end),
        Fact::OperationBegan { id, what, who } => {
            format!("operation {id} begins: {what}, asked for by {who}")
        }
        Fact::OperationEnded { id, what, ok: true, after_ms, .. } => {
            format!("operation {id} is done: {what}, after {}", span(*after_ms))
        }
        Fact::OperationEnded { id, what, problem, .. } => {
            let problem = problem.as_ref().map(|problem| format!(": {problem}"));
            format!("operation {id} failed: {what}{}", problem.unwrap_or_default())
        }
        Fact::OperationRecovered { id, what, finished } => {
            let end = if *finished { "finished" } else { "undone" };
            format!("operation {id} of an earlier daemon is {end}: {what}")
        }
        Fact::JobStarted { job, run, trigger, pid } => {
            format!("job {job}: run {run} started (pid {pid}, {})", trigger.as_str())
        }
        Fact::JobEnded { job, run, result, after_ms, last_output, left_behind } => {
            job_ended((job, run), result, *after_ms, (last_output, *left_behind))
        }
        Fact::AlertFiring { .. } | Fact::AlertResolved { .. } => of_alert(fact),
        Fact::Note { text } => text.clone(),
    }
}

fn retiring(worker: &WorkerId, why: &EndReason) -> String {
    match why.is_stop() {
        true => format!("{worker} is being stopped"),
        false => format!("{worker} is being replaced: {why}"),
    }
}

fn nginx_ended(NginxEnd { pid, is_worker, is_leaving, why }: &NginxEnd) -> String {
    let who = if *is_worker { "a worker of nginx" } else { "nginx" };
    let next =
        if *is_leaving { "it was to end with its last request" } else { "another one is started" };
    format!("{who} (pid {pid}) ended: {why}; {next}")
}

fn of_alert(fact: &Fact) -> String {
    match fact {
        Fact::AlertFiring { alert, plugin, app, condition, value } => {
            let of = subject(plugin, app);
            format!("the alert {alert} fires: {of}: {condition}, it is {value}")
        }
        Fact::AlertResolved { alert, plugin, app, after_ms } => {
            let of = subject(plugin, app);
            format!("the alert {alert} is resolved: {of}, after {}", span(*after_ms))
        }
        _ => String::new(),
    }
}

/// What an alert is about.
fn subject(plugin: &str, app: &str) -> String {
    if app.is_empty() { "the node".into() } else { format!("{plugin}.{app}") }
}

fn worker_ended(
    (worker, why): (&WorkerId, &EndReason),
    last_output: &str,
    left_behind: u32,
    restart_in_ms: Option<u64>,
) -> String {
    let mut text = format!("{worker} ended: {why}");
    if left_behind > 0 {
        text += &format!("; {left_behind} processes it had left behind were killed");
    }
    if let Some(ms) = restart_in_ms.filter(|ms| *ms > 0) {
        text += &format!("; next start in {}", span(ms));
    }
    if why.is_crash() && !last_output.trim().is_empty() {
        text += &indented(last_output, 10);
    }
    text
}

fn dropped(id: &str, n: u64) -> String {
    format!("{id} writes faster than the disk: {} of its output dropped", bytes(n))
}

fn memory_high(worker: &WorkerId, (used, high): (u64, u64), replaced_in_ms: u64) -> String {
    let (used, high, left) = (size_text(used), size_text(high), span(replaced_in_ms));
    format!(
        "{worker} uses {used}, more than memory_high {high}, soon after its start: it is replaced in \
         {left}, unless it uses less then"
    )
}

fn job_ended(
    (job, run): (&str, &str),
    result: &RunResult,
    after_ms: Option<u64>,
    (last_output, left_behind): (&str, u32),
) -> String {
    let mut text = format!("job {job}: run {run} {result}");
    if let Some(ms) = after_ms {
        text += &format!(" after {}", span(ms));
    }
    if left_behind > 0 {
        text += &format!("; {left_behind} processes it had left behind were killed");
    }
    if !last_output.trim().is_empty() {
        text += &indented(last_output, 10);
    }
    text
}

/// Files that have changed: `main/wsgi.py, config.ini and 3 others`.
pub fn changed(files: &[String], more: u32) -> String {
    match more {
        0 => files.join(", "),
        1 => format!("{} and another file", files.join(", ")),
        _ => format!("{} and {more} others", files.join(", ")),
    }
}

/// The last `most` lines of a text, each on a line of its own behind a bar.
pub fn indented(text: &str, most: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let from = lines.len().saturating_sub(most);
    lines[from..].iter().map(|line| format!("\n    | {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_are_short() {
        assert_eq!(span(850), "850ms");
        assert_eq!(span(184_000), "3m 4s");
        assert_eq!(span(7_500_000), "2h 5m");
        assert_eq!(bytes(512), "512B");
        assert_eq!(bytes(12_897_485), "12.3M");
    }

    #[test]
    fn only_the_last_lines_are_shown() {
        assert_eq!(indented("a\nb\nc\n", 2), "\n    | b\n    | c");
    }
}

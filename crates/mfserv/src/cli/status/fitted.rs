//! The node on as many lines as a terminal has. What is of least interest is left out first.

use mfserv_core::status::{Status, WatcherState, WatcherStatus};
use mfserv_core::worker::Phase;
use mfserv_node::render;

use super::super::show::{self, RECENT_MS};
use super::super::top::{Frame, Line, Style, clean, header};
use super::table::{self, cut, rank};

/// How much a line matters; a smaller number stays longer.
type Weight = usize;
const ALWAYS: Weight = 0;
const UNWELL: Weight = 1;
const PROBLEM: Weight = 2;
const NOTE: Weight = 3;
const WELL: Weight = 4;
const HINT: Weight = 5;
/// Further reasons of a problem, where it is and what to do about it.
const DETAIL: Weight = 6;
/// The lines that a worker has written before its last one, the earlier the less.
const OUTPUT: Weight = 7;

/// The lines of a frame for a terminal of so many columns and lines.
pub fn lines(frame: &Frame, (columns, height): (usize, usize)) -> Vec<Line> {
    let mut all: Vec<(Weight, Line)> =
        header(frame, columns).into_iter().map(|line| (ALWAYS, line)).collect();
    if let Some(status) = &frame.status {
        all.extend(said(status));
        all.push((HINT, Line::new()));
        let rows = table::all(frame, status);
        let weights = rows.iter().map(|row| if row.is_unwell() { UNWELL } else { WELL });
        let weights = std::iter::once(ALWAYS).chain(weights);
        all.extend(weights.zip(table::lines(&rows, columns)));
        all.extend(reasons(frame.at_ms, status));
        all.extend(healed(frame.at_ms, status));
        let hints = show::hints(status);
        let hints = hints.lines().filter(|line| !line.trim().is_empty());
        all.extend(hints.map(|hint| (HINT, plain(hint.trim_end()))));
    }
    fit(all, (columns, height)).into_iter().map(|line| shortened(line, columns)).collect()
}

/// Leaves out what matters least, and says how much that is, or that lines are longer than what is
/// shown of them.
fn fit(mut all: Vec<(Weight, Line)>, (columns, height): (usize, usize)) -> Vec<Line> {
    let before = all.len();
    let is_long = |(_, line): &(Weight, Line)| {
        line.iter().map(|(text, _)| text.chars().count()).sum::<usize>() > columns
    };
    let has_hint = |all: &Vec<(Weight, Line)>| all.len() < before || all.iter().any(is_long);
    while all.len() + usize::from(has_hint(&all)) > height.max(1) {
        let least = all.iter().map(|(weight, _)| *weight).max().unwrap_or(ALWAYS);
        let Some(at) = all.iter().rposition(|(weight, _)| *weight == least) else { break };
        all.remove(at);
    }
    let (left_out, is_cut) = (before - all.len(), has_hint(&all));
    let mut lines: Vec<Line> = all.into_iter().map(|(_, line)| line).collect();
    if left_out > 0 {
        let what = if left_out == 1 { "line" } else { "lines" };
        lines.push(plain(&format!("… {left_out} {what} more: `mfserv status --all`")));
    } else if is_cut {
        lines.push(plain("… lines are cut: `mfserv status --all`"));
    }
    lines.truncate(height.max(1));
    lines
}

fn shortened(line: Line, columns: usize) -> Line {
    let mut room = columns;
    let mut out = Line::new();
    for (text, style) in line {
        let text = cut(&text, room);
        room -= text.chars().count();
        out.push((text, style));
    }
    out
}

fn plain(text: &str) -> Line {
    vec![(clean(text), Style::Plain)]
}

fn marked(mark: &str, style: Style, text: &str) -> Line {
    vec![(mark.into(), style), (format!(" {}", clean(text)), Style::Plain)]
}

/// Problems, each in a line, and notes.
fn said(status: &Status) -> Vec<(Weight, Line)> {
    let mut out = Vec::new();
    for problem in &status.problems {
        let mut reasons = problem.because.iter();
        let because = reasons.next().map(|why| format!(" ({why})")).unwrap_or_default();
        let (mark, style) = match problem.is_error() {
            true => ("error:", Style::Bad),
            false => ("warning:", Style::Doubtful),
        };
        out.push((PROBLEM, marked(mark, style, &format!("{}{because}", problem.what))));
        let reasons = reasons.map(|why| format!("    because: {why}"));
        let at = problem.at.iter().map(|at| format!("    at: {at}"));
        let help = problem.help.iter().map(|help| format!("    help: {help}"));
        out.extend(reasons.chain(at).chain(help).map(|text| (DETAIL, plain(&text))));
    }
    let warned = status.front_warnings.keys().map(|sentence| format!("front: {sentence}"));
    let notes = status.notes.iter().cloned().chain(warned);
    out.extend(notes.map(|note| (NOTE, marked("note:", Style::Doubtful, &note))));
    out
}

/// Why each watcher that is not well is not: in a line, with what its last worker has written.
fn reasons(now_ms: u64, status: &Status) -> Vec<(Weight, Line)> {
    let mut out = Vec::new();
    for watcher in status.watchers.iter().filter(|watcher| rank(watcher) < 2) {
        let name = table::name(watcher);
        for worker in &watcher.workers {
            let Some(saw) = &worker.probe else { continue };
            let since = render::span(now_ms.saturating_sub(worker.since_ms));
            let text = match worker.phase {
                Phase::Starting => format!("is starting for {since}: {saw}"),
                _ => format!("does not answer: {saw}"),
            };
            let weight = if worker.phase == Phase::Starting { NOTE } else { UNWELL };
            out.push((weight, marked(&format!("{name}:"), Style::Bad, &text)));
        }
        let Some(end) = &watcher.last_end else { continue };
        let ago = render::span(now_ms.saturating_sub(end.at_ms));
        let text = format!("ended {ago} ago: {}", end.why);
        out.push((UNWELL, marked(&format!("{name}:"), Style::Bad, &text)));
        let written = end.last_output.lines().filter(|line| !line.trim().is_empty());
        let written: Vec<&str> = written.collect();
        let from = written.len().saturating_sub(show::LAST_LINES);
        for (before, line) in written[from..].iter().rev().enumerate().rev() {
            // The last one mostly says it.
            let weight = if before == 0 { PROBLEM } else { OUTPUT + before };
            out.push((weight, plain(&format!("    {line}"))));
        }
    }
    if !out.is_empty() {
        out.insert(0, (HINT, Line::new()));
    }
    out
}

/// What has crashed a short while ago, and is well again: one line for all.
fn healed(now_ms: u64, status: &Status) -> Vec<(Weight, Line)> {
    let one = |watcher: &WatcherStatus| {
        let end = watcher.last_end.as_ref()?;
        let age_ms = now_ms.saturating_sub(end.at_ms);
        let is_healed = rank(watcher) >= 2 && watcher.state != WatcherState::Off;
        let ago = render::span(age_ms);
        (is_healed && age_ms < RECENT_MS)
            .then(|| format!("{} {ago} ago ({})", table::name(watcher), end.why))
    };
    let all: Vec<String> = status.watchers.iter().filter_map(one).collect();
    if all.is_empty() {
        return Vec::new();
    }
    let line = marked("healed:", Style::Doubtful, &all.join(", "));
    vec![(HINT, Line::new()), (PROBLEM, line)]
}

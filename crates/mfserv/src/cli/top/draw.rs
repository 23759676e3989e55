//! A frame as lines of text, for a terminal of any size and for a pipe.

use mfserv_core::diagnostic::shown;
use mfserv_core::node_state::NodeState;
use mfserv_node::render;

use super::super::history::duration;
use super::frame::{Frame, Row, WorkerRow};
use super::view::{Mode, Order, View};

/// What a part of a line means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Plain,
    Title,
    Good,
    Doubtful,
    Bad,
    Selected,
}

/// A line: its parts.
pub type Line = Vec<(String, Style)>;

/// The least lines of a terminal that shows events.
const LINES_WITH_EVENTS: usize = 16;
/// The most events.
const EVENTS: usize = 8;
/// The narrowest and the widest column of names.
const NAME: (usize, usize) = (10, 40);

type Cell = fn(&Row) -> String;

/// The columns after the name: title, width, content. The first ones stay the longest when the
/// terminal is narrow.
const COLUMNS: [(&str, usize, Cell); 10] = [
    ("REQ/S", 7, |row| number(row.requests_per_s)),
    ("P95", 7, |row| row.p95_ms.map_or("-".into(), duration)),
    ("READY", 6, |row| match row.watcher {
        Some(_) => format!("{}/{}", row.ready, row.wanted),
        None => "-".into(),
    }),
    ("CPU%", 6, |row| number(row.cpu_percent)),
    ("MEMORY", 7, |row| size(row.memory_bytes)),
    ("WAIT", 5, |row| number(row.waiting)),
    ("5XX/S", 6, |row| number(row.errors_per_s)),
    ("STATE", 10, |row| row.state.clone()),
    ("CRASHES", 7, |row| row.crashes.to_string()),
    ("IN WORK", 7, |row| number(row.in_flight)),
];

/// A number in few characters.
pub fn number(value: Option<f64>) -> String {
    match value {
        None => "-".into(),
        Some(value) if value > 0.0 && value < 10.0 && value.fract() != 0.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.0}"),
    }
}

fn size(bytes: u64) -> String {
    if bytes == 0 { "-".into() } else { render::bytes(bytes) }
}

/// A text of an app or of another process in one line that no terminal obeys.
pub fn clean(text: &str) -> String {
    shown(text).replace(['\n', '\t'], " ")
}

fn plain(text: impl Into<String>) -> Line {
    vec![(text.into(), Style::Plain)]
}

/// The whole screen, at most `lines` lines; without a size, everything that there is.
pub fn screen(view: &View, frame: &Frame, all: &[Row], size: Option<(usize, usize)>) -> Vec<Line> {
    let (columns, height) = size.unwrap_or((usize::MAX, usize::MAX));
    if view.mode == Mode::Help {
        let mut out = help();
        out.truncate(height);
        return out;
    }
    let mut out = header(frame, columns);
    out.push(Line::new());
    let events = match height {
        usize::MAX => EVENTS,
        height if height < LINES_WITH_EVENTS => 0,
        height => (height / 4).min(EVENTS),
    };
    let events: Vec<Line> = match frame.events.len().min(events) {
        0 => Vec::new(),
        count => {
            let last = &frame.events[frame.events.len() - count..];
            let title = [Line::new(), vec![("LAST EVENTS".into(), Style::Title)]];
            title.into_iter().chain(last.iter().map(|event| plain(clean(event)))).collect()
        }
    };
    let bottom = (size.is_some()).then(|| bottom(view));
    let taken = out.len() + events.len() + bottom.iter().len();
    let (body, selected) = table(view, all, columns, size.is_some());
    let room = height.saturating_sub(taken).max(2);
    out.extend(body.first().cloned());
    // The selected row is always seen.
    let from = (selected + 2).saturating_sub(room);
    out.extend(body.into_iter().skip(1 + from).take(room - 1));
    if size.is_some() {
        out.resize_with((height - events.len() - 1).max(out.len()), Line::new);
    }
    out.extend(events);
    out.extend(bottom);
    out.truncate(height);
    out
}

/// Parts beside each other, on as many lines as they need.
fn flow(parts: Vec<(String, Style)>, columns: usize) -> Vec<Line> {
    let mut lines: Vec<Line> = vec![Line::new()];
    let mut width = 0;
    for (text, style) in parts {
        let length = text.chars().count();
        if width > 0 && width + 2 + length > columns {
            lines.push(Line::new());
            width = 0;
        }
        let Some(line) = lines.last_mut() else { continue };
        if width > 0 {
            line.push(("  ".into(), Style::Plain));
            width += 2;
        }
        width += length;
        line.push((text, style));
    }
    lines
}

/// The node in a few lines: its state, its faults, what is counted of all apps together.
pub fn header(frame: &Frame, columns: usize) -> Vec<Line> {
    let mut node = Vec::new();
    match &frame.status {
        None => node.push(("mfserv: no node is known".to_string(), Style::Bad)),
        Some(status) => {
            let style = match status.state {
                _ if frame.no_status.is_some() => Style::Doubtful,
                NodeState::Running => Style::Good,
                NodeState::Starting | NodeState::Stopping => Style::Doubtful,
                _ => Style::Bad,
            };
            let since = status.keeper.as_ref().unwrap_or(&status.daemon).since_ms;
            node.push((format!("mfserv {}", status.state.as_str()), style));
            node.extend(status.faults().into_iter().map(|fault| (clean(&fault), Style::Bad)));
            let address = status.address.as_deref().unwrap_or("no listener");
            node.push((clean(address), Style::Plain));
            node.push((format!("version {}", clean(&status.daemon.version)), Style::Plain));
            let up = render::span(frame.at_ms.saturating_sub(since));
            node.push((format!("up {up}"), Style::Plain));
        }
    }
    let mut lines = flow(node, columns);
    if let Some(counted) = &frame.counted {
        let latest =
            |name: &str| counted.node.get(name).and_then(|values| values.last().copied()?);
        let sum = |name: &str| {
            let of =
                counted.series.iter().filter_map(|one| one.values.get(name)?.last().copied()?);
            of.fold(0.0, |sum, more| sum + more)
        };
        let bytes =
            |name: &str| latest(name).map_or("-".into(), |value| render::bytes(value as u64));
        let memory = (bytes("host_memory_bytes"), bytes("host_memory_total_bytes"));
        let parts = [
            format!("connections {}", number(latest("connections"))),
            format!("requests/s {}", number(Some(sum("requests_per_s")))),
            format!("5xx/s {}", number(Some(sum("5xx_per_s")))),
            format!("host CPU {}%", number(latest("host_cpu_percent"))),
            format!("host memory {} of {}", memory.0, memory.1),
        ];
        lines.extend(flow(parts.map(|part| (part, Style::Plain)).into(), columns));
    }
    if let Some(why) = &frame.no_status {
        let age = render::span(frame.at_ms.saturating_sub(frame.status_at_ms));
        let old = frame.status.as_ref().map(|_| format!("what is shown is {age} old: "));
        let text = format!("{}{}", old.unwrap_or_default(), clean(why));
        lines.push(vec![(text, Style::Bad)]);
    }
    lines.extend(frame.not_counted.iter().map(|why| vec![(clean(why), Style::Bad)]));
    lines
}

/// The titles and the rows, and the index of the selected one among the rows.
fn table(view: &View, all: &[Row], columns: usize, selects: bool) -> (Vec<Line>, usize) {
    let rows = view.rows(all);
    let longest = rows.iter().map(|row| clean(&row.name).chars().count()).max().unwrap_or(0);
    let mut name = longest.clamp(NAME.0, NAME.1);
    let mut count = 0;
    let width =
        |count: usize| COLUMNS[..count].iter().map(|(_, width, _)| width + 1).sum::<usize>();
    while count < COLUMNS.len() && NAME.0 + width(count + 1) <= columns {
        count += 1;
    }
    name = name.min(columns.saturating_sub(width(count)));
    let cells = |first: &str, cell: &dyn Fn(usize) -> String| {
        let mut text = format!("{first:<name$.name$}");
        (0..count).for_each(|at| {
            let width = COLUMNS[at].1;
            text += &format!(" {:>width$}", cell(at));
        });
        text
    };
    let selection = view.selection(&rows);
    let mut lines = vec![vec![(cells("APP", &|at| COLUMNS[at].0.into()), Style::Title)]];
    let mut selected = 0;
    for (index, row) in rows.iter().enumerate() {
        let style = match row.state.as_str() {
            _ if selects && index == selection => Style::Selected,
            "failing" => Style::Bad,
            "starting" | "restarting" | "stopping" => Style::Doubtful,
            _ => Style::Plain,
        };
        if index == selection {
            selected = lines.len() - 1;
        }
        let text = cells(&clean(&row.name), &|at| COLUMNS[at].2(row));
        lines.push(vec![(text, style)]);
        if view.expanded.contains(&row.name) {
            lines.extend(row.workers.iter().map(|worker| plain(of_worker(worker))));
        }
    }
    (lines, selected)
}

fn of_worker(worker: &WorkerRow) -> String {
    let pid = worker.pid.map_or("no process".into(), |pid| format!("pid {pid}"));
    let (since, cpu) = (render::span(worker.for_ms), number(worker.cpu_percent));
    let (id, memory) = (clean(&worker.id), size(worker.memory_bytes));
    format!("  {id}  {pid}  {} for {since}  CPU {cpu}%  {memory}", worker.phase)
}

fn bottom(view: &View) -> Line {
    match (&view.mode, &view.message) {
        (Mode::Filter, _) => vec![(format!("filter: {}_", clean(&view.filter)), Style::Title)],
        (Mode::Restart(watcher), _) => {
            let name = clean(watcher.strip_prefix("app.").unwrap_or(watcher));
            vec![(
                format!("replace the workers of {name}, without losing a request? y/n"),
                Style::Doubtful,
            )]
        }
        (_, Some(message)) => vec![(clean(message), Style::Title)],
        _ => {
            let filter = match view.filter.as_str() {
                "" => String::new(),
                filter => format!(" with {filter:?}"),
            };
            let order = view.order.word();
            plain(clean(&format!(
                "by {order}{filter}  ? help  q quit  / filter  Enter workers  R restart"
            )))
        }
    }
}

fn help() -> Vec<Line> {
    let mut lines = vec![vec![("Keys of mfserv top".into(), Style::Title)], Line::new()];
    let mut add = |keys: &str, does: &str| lines.push(plain(format!("{keys:<12}{does}")));
    for (_, key, word) in Order::ALL {
        add(&key.to_string(), &format!("sort by {word}"));
    }
    add("/", "show the rows whose name contains a text");
    add("Escape", "show all rows");
    add("Up, Down", "select a row");
    add("Enter", "show or hide the workers of the selected row");
    add("R", "replace the workers of the selected row, one after the other");
    add("q, Ctrl-C", "end");
    lines.push(Line::new());
    lines.push(plain("REQ/S, 5XX/S, P95 and CPU% are those of the last seconds."));
    lines.push(plain("Any key goes back."));
    lines
}

/// Lines as text.
pub fn as_text(lines: &[Line]) -> String {
    let mut out = String::new();
    for line in lines {
        let text: String = line.iter().map(|(text, _)| text.as_str()).collect();
        out += text.trim_end();
        out.push('\n');
    }
    out
}

/// Lines as a terminal shows them, from its first line on.
pub fn as_bytes(lines: &[Line], columns: usize, colours: bool) -> Vec<u8> {
    let mut out = String::from("\x1b[H");
    for (index, line) in lines.iter().enumerate() {
        out += if index > 0 { "\r\n" } else { "" };
        let mut room = columns;
        for (text, style) in line {
            let text: String = text.chars().take(room).collect();
            room -= text.chars().count();
            let code = match style {
                Style::Title => "1",
                // Not a colour: without it the selection could not be seen.
                Style::Selected => "7",
                Style::Good if colours => "32",
                Style::Doubtful if colours => "33",
                Style::Bad if colours => "31",
                _ => "",
            };
            match code {
                "" => out += &text,
                code => out += &format!("\x1b[{code}m{text}\x1b[0m"),
            }
        }
        out += "\x1b[K";
    }
    out += "\x1b[J";
    out.into_bytes()
}

#[cfg(test)]
mod tests;

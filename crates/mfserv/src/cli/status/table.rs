//! The table of `status`: a row for each app, extra daemon, role and site, the worst first.

use mfserv_core::plan::PluginState;
use mfserv_core::status::{PluginStatus, Status, WatcherState, WatcherStatus};
use mfserv_core::worker::Phase;
use mfserv_node::render;
use mfserv_plugin::Home;
use mfserv_plugin::store::{self, Origin};

use super::super::show;
use super::super::top::{Frame, Line, Row, Style, clean, number, rows};

/// The titles of the columns. When a terminal is narrow, the last one is cut, then the last ones
/// are left out.
const TITLES: [&str; 10] =
    ["NAME", "STATE", "READY", "CPU%", "REQ/S", "MEMORY", "UPTIME", "CRASHES", "RELEASE", "PATH"];
/// The narrowest columns of names and of paths.
const NARROWEST: usize = 6;

/// A row.
pub struct Shown {
    cells: [String; TITLES.len()],
    style: Style,
    /// How bad it is: 0 is the worst.
    rank: u8,
}

impl Shown {
    /// Something is wrong with it, or is going on.
    pub fn is_unwell(&self) -> bool {
        self.rank < WELL
    }
}

/// The rank of what is as it should be.
const WELL: u8 = 2;

/// How bad the state of a watcher is.
pub fn rank(watcher: &WatcherStatus) -> u8 {
    let is_asked = watcher.workers.iter().any(|w| w.probe.is_some() && w.phase != Phase::Starting);
    match watcher.state {
        WatcherState::Failing => 0,
        _ if is_asked || watcher.ready == 0 && watcher.wanted > 0 => 0,
        WatcherState::Ready if watcher.ready >= watcher.wanted => WELL,
        WatcherState::Off => WELL + 1,
        _ => 1,
    }
}

/// The rows of a frame.
pub fn all(frame: &Frame, status: &Status) -> Vec<Shown> {
    let counted = rows(frame);
    let mut shown: Vec<Shown> = status
        .watchers
        .iter()
        .map(|watcher| {
            let name = name(watcher);
            let row =
                counted.iter().find(|row| row.watcher.as_deref() == Some(watcher.name.as_str()));
            of_watcher(frame.at_ms, status, watcher, name, row)
        })
        .collect();
    shown.extend(show::unanswered(status).into_iter().map(|(plugin, place)| {
        let mut cells = TITLES.map(|_| "-".to_string());
        (cells[0], cells[1], cells[9]) = (clean(&plugin.name), "static".into(), clean(&place));
        cells[8] = release(status, plugin);
        Shown { cells, style: Style::Plain, rank: WELL }
    }));
    // Roles are of less interest than apps.
    let is_role = |row: &Shown| !row.cells[0].contains('.') && row.cells[1] != "static";
    shown.sort_by_key(|row| (row.rank, is_role(row), row.cells[0].clone()));
    shown
}

/// What commands call it: `shop.main`, `extra.shop.loop`, `front`.
pub fn name(watcher: &WatcherStatus) -> String {
    let name = watcher.name.as_str();
    clean(name.strip_prefix("app.").unwrap_or(name))
}

fn of_watcher(
    now_ms: u64,
    status: &Status,
    watcher: &WatcherStatus,
    name: String,
    row: Option<&Row>,
) -> Shown {
    let rank = rank(watcher);
    let style = match (watcher.state, rank) {
        (WatcherState::Failing, _) | (_, 0) => Style::Bad,
        (WatcherState::Ready, WELL) => Style::Good,
        _ => Style::Doubtful,
    };
    let ready = watcher.workers.iter().filter(|worker| worker.phase == Phase::Ready);
    let uptime = ready.map(|worker| now_ms.saturating_sub(worker.started_ms)).max();
    let of = watcher.plugin.as_ref();
    let plugin = status.plugins.iter().find(|plugin| Some(&plugin.name) == of);
    let memory = watcher.workers.iter().filter_map(|worker| worker.memory_bytes).sum();
    let cells = [
        name,
        watcher.state.to_string(),
        format!("{}/{}", watcher.ready, watcher.wanted),
        number(row.and_then(|row| row.cpu_percent)),
        number(row.and_then(|row| row.requests_per_s)),
        render::bytes(memory),
        uptime.map_or("-".into(), render::span),
        watcher.crashes.to_string(),
        plugin.map_or("-".into(), |plugin| release(status, plugin)),
        clean(&show::places(&watcher.path, &watcher.hosts).join(", ")),
    ];
    Shown { cells, style, rank }
}

/// The number of the release, as `mfserv releases` shows it, and its version; `dev` for a
/// directory that is linked, `mfserv` for what mfserv brings along.
fn release(status: &Status, plugin: &PluginStatus) -> String {
    let releases = format!("{}/var/releases/{}/", status.home, plugin.name);
    let number = plugin.dir.strip_prefix(&releases);
    let is_internal = number.is_none()
        && store::current(&Home::new(&status.home), &plugin.name)
            .is_ok_and(|installed| installed.origin == Origin::Internal);
    let number = number.unwrap_or(if is_internal { "mfserv" } else { "dev" });
    let mark = if plugin.state == PluginState::Active { "" } else { " !" };
    clean(&format!("{number} ({}){mark}", plugin.version))
}

/// The titles and the rows as lines of at most so many columns.
pub fn lines(shown: &[Shown], columns: usize) -> Vec<Line> {
    let titles = TITLES.map(str::to_owned);
    let all = || std::iter::once(&titles).chain(shown.iter().map(|row| &row.cells));
    let length = |text: &String| text.chars().count();
    let mut widths: Vec<usize> =
        (0..TITLES.len()).map(|at| all().map(|row| length(&row[at])).max().unwrap_or(0)).collect();
    let total = |widths: &[usize]| widths.iter().map(|width| width + 2).sum::<usize>() - 2;
    let last = TITLES.len() - 1;
    let rest = columns.saturating_sub(total(&widths[..last]) + 2);
    if rest >= NARROWEST {
        widths[last] = widths[last].min(rest);
    }
    while widths.len() > 2 && total(&widths) > columns {
        widths.pop();
    }
    let others = total(&widths) - widths[0];
    widths[0] = widths[0].min(columns.saturating_sub(others).max(NARROWEST));
    let line = |cells: &[String; TITLES.len()], style: Style| {
        let mut line = Line::new();
        for (at, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            let style = if at == 1 || style == Style::Title { style } else { Style::Plain };
            let gap = if at + 1 == widths.len() { 0 } else { width + 2 };
            line.push((format!("{:<gap$}", cut(cell, *width)), style));
        }
        line
    };
    let rows = shown.iter().map(|row| line(&row.cells, row.style));
    std::iter::once(line(&titles, Style::Title)).chain(rows).collect()
}

/// A text of at most so many characters.
pub fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    if most == 0 { kept } else { kept + "…" }
}

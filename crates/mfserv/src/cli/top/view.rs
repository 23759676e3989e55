//! What the user has chosen: order, filter, selection. Keys change it.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::frame::Row;
use super::keys::Key;

/// The longest filter.
const FILTER_MAX: usize = 64;
/// How far the keys for a page go.
const PAGE: usize = 10;

/// By what rows are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Name,
    Cpu,
    Memory,
    Requests,
    Percentile,
    Errors,
    Waiting,
    Crashes,
}

impl Order {
    /// All, with their keys and the words for them.
    pub const ALL: [(Order, char, &'static str); 8] = [
        (Order::Name, 'n', "name"),
        (Order::Cpu, 'c', "CPU"),
        (Order::Memory, 'm', "memory"),
        (Order::Requests, 'r', "requests/s"),
        (Order::Percentile, 'p', "p95"),
        (Order::Errors, 'e', "5xx/s"),
        (Order::Waiting, 'w', "waiting requests"),
        (Order::Crashes, 'x', "crashes"),
    ];

    /// The word for it.
    pub fn word(self) -> &'static str {
        Order::ALL.iter().find(|(order, ..)| *order == self).map_or("", |(.., word)| word)
    }

    /// What is larger comes first; names go up.
    fn of(self, a: &Row, b: &Row) -> Ordering {
        let number = |row: &Row| match self {
            Order::Name => None,
            Order::Cpu => row.cpu_percent,
            Order::Memory => Some(row.memory_bytes as f64),
            Order::Requests => row.requests_per_s,
            Order::Percentile => row.p95_ms,
            Order::Errors => row.errors_per_s,
            Order::Waiting => row.waiting,
            Order::Crashes => Some(row.crashes as f64),
        };
        let numbers = (number(b).unwrap_or(-1.0), number(a).unwrap_or(-1.0));
        numbers.0.total_cmp(&numbers.1).then_with(|| a.name.cmp(&b.name))
    }
}

/// What keys are for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Mode {
    #[default]
    Rows,
    /// The filter is being typed.
    Filter,
    /// Whether this watcher is to be restarted.
    Restart(String),
    Help,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Nothing,
    End,
    /// The workers of this watcher are to be replaced.
    Restart(String),
}

/// What the user has chosen.
#[derive(Debug)]
pub struct View {
    pub order: Order,
    pub filter: String,
    pub mode: Mode,
    /// The name of the selected row.
    pub selected: Option<String>,
    /// The rows whose workers are shown.
    pub expanded: BTreeSet<String>,
    /// What is to be said of the last action.
    pub message: Option<String>,
}

impl View {
    pub fn new(order: Order) -> Self {
        let (filter, mode, expanded) = (String::new(), Mode::Rows, BTreeSet::new());
        Self { order, filter, mode, selected: None, expanded, message: None }
    }

    /// The rows that are shown, in their order.
    pub fn rows<'a>(&self, all: &'a [Row]) -> Vec<&'a Row> {
        let filter = self.filter.to_lowercase();
        let mut rows: Vec<&Row> =
            all.iter().filter(|row| row.name.to_lowercase().contains(&filter)).collect();
        rows.sort_by(|a, b| self.order.of(a, b));
        rows
    }

    /// The index of the selected row; the first one if that has gone.
    pub fn selection(&self, rows: &[&Row]) -> usize {
        let selected = self.selected.as_ref();
        rows.iter().position(|row| Some(&row.name) == selected).unwrap_or(0)
    }

    /// A key was pressed.
    pub fn press(&mut self, key: Key, all: &[Row]) -> Action {
        match self.mode.clone() {
            Mode::Rows => return self.press_on_rows(key, all),
            Mode::Help => self.mode = Mode::Rows,
            Mode::Filter => match key {
                Key::Enter => self.mode = Mode::Rows,
                Key::Escape => {
                    self.filter.clear();
                    self.mode = Mode::Rows;
                }
                Key::Backspace => drop(self.filter.pop()),
                Key::Char(c) if self.filter.len() < FILTER_MAX => self.filter.push(c),
                _ => {}
            },
            Mode::Restart(watcher) => {
                self.mode = Mode::Rows;
                if key == Key::Char('y') {
                    return Action::Restart(watcher);
                }
                self.message = Some("nothing was restarted".into());
            }
        }
        Action::Nothing
    }

    fn press_on_rows(&mut self, key: Key, all: &[Row]) -> Action {
        self.message = None;
        let rows = self.rows(all);
        let at = self.selection(&rows);
        let last = rows.len().saturating_sub(1);
        let to = match key {
            Key::Char('q') => return Action::End,
            Key::Up | Key::Char('k') => at.saturating_sub(1),
            Key::Down | Key::Char('j') => (at + 1).min(last),
            Key::PageUp => at.saturating_sub(PAGE),
            Key::PageDown => (at + PAGE).min(last),
            Key::Home => 0,
            Key::End => last,
            _ => at,
        };
        let row = rows.get(to).copied();
        self.selected = row.map(|row| row.name.clone());
        match key {
            Key::Char('/') => self.mode = Mode::Filter,
            Key::Char('?' | 'h') => self.mode = Mode::Help,
            Key::Escape => self.filter.clear(),
            Key::Enter => {
                let name = row.map(|row| row.name.clone()).unwrap_or_default();
                if !self.expanded.remove(&name) {
                    self.expanded.insert(name);
                }
            }
            Key::Char('R') => match row.and_then(|row| row.watcher.clone()) {
                Some(watcher) => self.mode = Mode::Restart(watcher),
                None => self.message = Some("it has no workers".into()),
            },
            Key::Char(c) => {
                let chosen = Order::ALL.iter().find(|(_, key, _)| *key == c);
                self.order = chosen.map_or(self.order, |(order, ..)| *order);
            }
            _ => {}
        }
        Action::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, cpu: f64, memory_bytes: u64) -> Row {
        let watcher = (!name.starts_with('#')).then(|| format!("app.{name}"));
        Row { name: name.into(), watcher, cpu_percent: Some(cpu), memory_bytes, ..Row::default() }
    }

    fn shown(view: &View, all: &[Row]) -> Vec<String> {
        view.rows(all).iter().map(|row| row.name.clone()).collect()
    }

    fn press(view: &mut View, all: &[Row], keys: &str) -> Vec<Action> {
        let key = |c: char| match c {
            '\n' => Key::Enter,
            '\u{1b}' => Key::Escape,
            '<' => Key::Backspace,
            'v' => Key::Down,
            c => Key::Char(c),
        };
        keys.chars().map(|c| view.press(key(c), all)).collect()
    }

    #[test]
    fn rows_are_sorted_and_filtered_and_the_selection_stays_on_its_row() {
        let all = [row("a.web", 1.0, 30), row("b.web", 9.0, 20), row("c.api", 5.0, 10)];
        let mut view = View::new(Order::Name);
        press(&mut view, &all, "v");
        assert_eq!((shown(&view, &all).len(), view.selected.as_deref()), (3, Some("b.web")));
        press(&mut view, &all, "c");
        assert_eq!(shown(&view, &all), ["b.web", "c.api", "a.web"]);
        assert_eq!(view.selection(&view.rows(&all)), 0);
        press(&mut view, &all, "m");
        assert_eq!(view.selection(&view.rows(&all)), 1);
        press(&mut view, &all, "/WEBx<\n");
        assert_eq!(
            (shown(&view, &all), view.filter.as_str()),
            (vec!["a.web".into(), "b.web".into()], "WEB")
        );
        press(&mut view, &all, "/q");
        assert!(shown(&view, &all).is_empty(), "a letter of the filter is no command");
        press(&mut view, &all, "\u{1b}");
        assert_eq!(shown(&view, &all).len(), 3);
    }

    #[test]
    fn a_restart_is_asked_for_and_only_y_does_it() {
        let all = [row("#unknown#", 0.0, 0), row("a.web", 0.0, 0)];
        let mut view = View::new(Order::Name);
        assert_eq!(press(&mut view, &all, "R"), [Action::Nothing]);
        assert_eq!(view.message.as_deref(), Some("it has no workers"));
        for (keys, action) in [
            ("vRn", Action::Nothing),
            ("R\n", Action::Nothing),
            ("RY", Action::Nothing),
            ("Ry", Action::Restart("app.a.web".into())),
            ("q", Action::End),
        ] {
            assert_eq!(press(&mut view, &all, keys).pop(), Some(action), "{keys:?}");
        }
        assert!(press(&mut view, &[], "vR\nc\u{1b}").iter().all(|done| *done == Action::Nothing));
    }
}

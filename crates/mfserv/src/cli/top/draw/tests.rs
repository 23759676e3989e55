use std::collections::HashMap;

use mfserv_telemetry::metrics::Answer;

use super::super::keys::Key;
use super::*;

fn frame() -> Frame {
    let node = [("connections", 7.0), ("host_cpu_percent", 33.3), ("host_memory_bytes", 2e9)];
    let node = node.map(|(name, value)| (name.to_string(), vec![Some(value)])).into();
    let counted =
        Answer { step_s: 5, times: vec![5], covered_s: vec![5.0], node, series: Vec::new() };
    Frame {
        at_ms: 90_000,
        status: None,
        status_at_ms: 0,
        no_status: Some("the node does not run".into()),
        counted: Some(counted),
        not_counted: None,
        events: (0..20).map(|at| format!("event {at} \x1b[2Jof an app\nin two lines")).collect(),
        cpu: HashMap::new(),
    }
}

fn apps(count: usize) -> Vec<Row> {
    let app = |number: usize| Row {
        name: format!("plugin{number:02}.\x1b]0;evil\x07"),
        watcher: Some(format!("app.{number}")),
        state: "ready".into(),
        requests_per_s: Some(number as f64),
        p95_ms: Some(12.5),
        workers: vec![WorkerRow { id: format!("worker of {number}"), ..WorkerRow::default() }],
        ..Row::default()
    };
    (0..count).map(app).collect()
}

/// What a terminal of this size shows.
fn on_terminal(lines: &[Line], (columns, height): (usize, usize)) -> String {
    let cells = |count: usize| std::num::NonZero::new(count as u16).unwrap();
    let mut terminal = vt100::Parser::new(cells(height), cells(columns), 0);
    terminal.process(b"\x1b[?7lold\r\nold\r\nold");
    terminal.process(&as_bytes(lines, columns, false));
    terminal.screen().contents()
}

#[test]
fn every_size_of_terminal_shows_the_selected_row_and_is_not_overrun() {
    let all = apps(60);
    for size in [(40, 10), (40, 24), (80, 24), (200, 60), (20, 5), (1, 1), (500, 3)] {
        let mut view = View::new(Order::Name);
        for key in std::iter::repeat_n(Key::Down, 45) {
            view.press(key, &all);
        }
        let lines = screen(&view, &frame(), &all, Some(size));
        assert!(lines.len() <= size.1, "{size:?}: {}", lines.len());
        let text = on_terminal(&lines, size);
        assert!(!text.contains("old"), "{size:?}: {text}");
        assert!(text.lines().all(|line| line.chars().count() <= size.0), "{size:?}: {text}");
        if size.0 >= 20 && size.1 >= 10 {
            assert!(text.contains("plugin45."), "{size:?}: {text}");
            assert!(text.contains("REQ/S"), "{size:?}: {text}");
        }
        assert_eq!(text.contains("LAST EVENTS"), size.1 >= LINES_WITH_EVENTS, "{size:?}: {text}");
    }
}

#[test]
fn what_apps_and_events_have_written_is_shown_and_not_obeyed() {
    let mut view = View::new(Order::Name);
    view.message = Some("\x1b[31mred".into());
    let all = apps(2);
    view.press(Key::Enter, &all);
    view.message = Some("\x1b[31mred".into());
    let lines = screen(&view, &frame(), &all, Some((120, 40)));
    let text = as_text(&lines);
    let wild = text.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(wild, None, "{text:?}");
    for part in [r"\u{1b}]0;evil", r"\u{1b}[31mred", r"\u{1b}[2Jof an app in two", "worker of 0"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_frame_in_a_pipe_has_all_rows_and_says_what_is_away() {
    let mut frame = frame();
    frame.not_counted = Some("the history cannot be read".into());
    let text = as_text(&screen(&View::new(Order::Requests), &frame, &apps(60), None));
    assert_eq!(text.matches("plugin").count(), 60);
    assert!(text.contains("the node does not run") && text.contains("cannot be read"), "{text}");
    let first = text.lines().find(|line| line.starts_with("plugin")).unwrap();
    assert!(first.starts_with("plugin59.") && first.contains(" 12ms"), "{first}");
}

#[test]
fn without_colours_only_bold_and_reverse_are_used() {
    let mut all = apps(3);
    all[1].state = "failing".into();
    let lines = screen(&View::new(Order::Name), &frame(), &all, Some((80, 24)));
    let codes = |colours: bool| {
        let bytes = String::from_utf8(as_bytes(&lines, 80, colours)).unwrap();
        let mut codes: Vec<String> = bytes
            .split("\x1b[")
            .filter_map(|part| Some(part.split_once('m')?.0.to_string()))
            .collect();
        codes.retain(|code| code.chars().all(|c| c.is_ascii_digit()));
        codes.sort();
        codes.dedup();
        codes
    };
    assert_eq!(codes(false), ["0", "1", "7"]);
    assert_eq!(codes(true), ["0", "1", "31", "7"]);
}

use std::collections::HashMap;

use mfserv_core::Location;
use mfserv_core::event::EndReason;
use mfserv_core::names::{WatcherName, WorkerId};
use mfserv_core::node_state::NodeState;
use mfserv_core::status::{LastEnd, RoleStatus, Status, WatcherState, WatcherStatus};

use super::super::top::Frame;
use super::*;

fn app(plugin: &str, state: WatcherState, ready: u32) -> WatcherStatus {
    WatcherStatus {
        name: WatcherName::app(plugin, "main"),
        plugin: Some(plugin.into()),
        path: Some(format!("/{plugin}")),
        hosts: Vec::new(),
        wanted: 4,
        ready,
        scaled: None,
        state,
        crashes: 1,
        last_end: None,
        workers: Vec::new(),
    }
}

fn crashed(watcher: WatcherStatus) -> WatcherStatus {
    let output = (1..=8).map(|line| format!("line {line} \x1b[2J of a trace\n")).collect();
    let worker = WorkerId { watcher: watcher.name.clone(), slot: 1, incarnation: 1 };
    let why = EndReason::Exited { code: 3 };
    let last_end = Some(LastEnd { worker, why, at_ms: 40_000, last_output: output });
    WatcherStatus { last_end, ..watcher }
}

fn frame(watchers: Vec<WatcherStatus>) -> Frame {
    let role = RoleStatus { pid: 1, version: "1".into(), since_ms: 0 };
    let status = Status {
        state: NodeState::Running,
        home: "/rt".into(),
        address: Some("http://127.0.0.1:18868".into()),
        tls_address: None,
        generation: 1,
        keeper: Some(role.clone()),
        daemon: role,
        notes: vec!["a note".into()],
        plugins: Vec::new(),
        watchers,
        maintenance: Default::default(),
        requests: Default::default(),
        front_warnings: Default::default(),
        problems: vec![
            Diagnostic::error("a plugin is refused")
                .because("of a typo")
                .because("a key is unknown")
                .at(Location::new("/rt/config.ini", 3))
                .help("correct it"),
        ],
    };
    Frame {
        at_ms: 90_000,
        status: Some(status),
        status_at_ms: 90_000,
        no_status: None,
        counted: None,
        not_counted: None,
        events: Vec::new(),
        cpu: HashMap::new(),
    }
}

fn text(frame: &Frame, size: (usize, usize)) -> Vec<String> {
    let lines = fitted::lines(frame, size);
    lines.iter().map(|line| line.iter().map(|(text, _)| text.as_str()).collect()).collect()
}

fn many() -> Frame {
    let mut all: Vec<_> =
        (0..40).map(|at| app(&format!("plugin{at:02}"), WatcherState::Ready, 4)).collect();
    all.push(crashed(app("zoo", WatcherState::Failing, 0)));
    all.push(app("slow", WatcherState::Restarting, 3));
    all.extend(["one", "two"].map(|name| crashed(app(name, WatcherState::Ready, 4))));
    frame(all)
}

#[test]
fn every_size_of_terminal_is_kept_to() {
    for size in [(200, 60), (100, 30), (80, 24), (60, 30), (40, 12), (20, 5), (8, 2), (1, 1)] {
        let lines = text(&many(), size);
        assert!(lines.len() <= size.1, "{size:?}: {lines:#?}");
        assert!(lines.iter().all(|line| line.chars().count() <= size.0), "{size:?}: {lines:#?}");
    }
}

#[test]
fn the_worst_comes_first_and_what_matters_least_is_left_out() {
    let lines = text(&many(), (100, 20));
    let at = |what: &str| lines.iter().position(|line| line.contains(what));
    let title = at("NAME").unwrap();
    assert!(lines[title + 1].starts_with("zoo.main "), "{lines:#?}");
    assert!(lines[title + 2].starts_with("slow.main "), "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("zoo.main: ended 50s ago: ")), "{lines:#?}");
    assert!(at("line 8 ").is_some() && at("line 1 ").is_none(), "{lines:#?}");
    assert!(at("error: a plugin is refused (of a typo)").is_some(), "{lines:#?}");
    assert!(lines.last().unwrap().ends_with("more: `mfserv status --all`"), "{lines:#?}");
    assert!(!lines.concat().contains('\x1b'));

    let lines = text(&many(), (100, 200));
    assert!(!lines.concat().contains("--all"), "all is shown: {lines:#?}");
    assert!((1..=8).all(|line| lines.concat().contains(&format!("line {line} "))), "{lines:#?}");
}

#[test]
fn a_problem_says_where_it_is_and_what_to_do_where_there_are_lines_for_it() {
    let details =
        ["    because: a key is unknown", "    at: /rt/config.ini:3", "    help: correct it"];
    let all = text(&many(), (100, 200));
    let at = all.iter().position(|line| line.starts_with("error: a plugin is refused")).unwrap();
    assert_eq!(all[at + 1..at + 4], details);
    let few = text(&many(), (100, 12));
    assert!(few.iter().any(|line| line.starts_with("error: a plugin is refused")), "{few:#?}");
    assert!(!few.iter().any(|line| details.contains(&line.as_str())), "{few:#?}");
}

#[test]
fn lines_that_are_cut_are_hinted_at_though_none_is_left_out() {
    let mut frame = frame(vec![app("one", WatcherState::Ready, 4)]);
    let hint = "… lines are cut: `mfserv status --all`";
    assert!(!text(&frame, (100, 50)).concat().contains("--all"));
    let status = frame.status.as_mut().unwrap();
    status.problems[0].help = Some("correct ".repeat(20));
    let lines = text(&frame, (100, 50));
    assert_eq!(lines.last().unwrap(), hint, "{lines:#?}");
    let full = text(&frame, (100, lines.len() - 1));
    assert!(full.last().unwrap().contains("--all"), "{full:#?}");
}

#[test]
fn crashes_that_are_healed_are_one_line_and_old_ones_none() {
    let mut frame = many();
    let healed = |frame: &Frame| {
        let lines = text(frame, (200, 100));
        lines.into_iter().filter(|line| line.starts_with("healed:")).collect::<Vec<_>>()
    };
    let said = healed(&frame);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("one.main 50s ago (") && said[0].contains("two.main"), "{said:?}");
    assert!(!said[0].contains("zoo"), "{said:?}");
    frame.at_ms += 600_000;
    assert_eq!(healed(&frame), Vec::<String>::new());
}

#[test]
fn a_narrow_table_has_its_first_columns() {
    let narrow = text(&many(), (40, 30));
    let title = narrow.iter().find(|line| line.starts_with("NAME")).unwrap();
    assert!(title.contains("READY") && !title.contains("RELEASE"), "{title}");
    let wide = text(&many(), (140, 30));
    let title = wide.iter().find(|line| line.starts_with("NAME")).unwrap();
    for column in ["CPU%", "REQ/S", "UPTIME", "RELEASE", "PATH"] {
        assert!(title.contains(column), "{title}");
    }
}

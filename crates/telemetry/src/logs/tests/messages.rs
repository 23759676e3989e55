//! The level of a line that says none.

use super::*;

/// The levels of the lines of a log, in capitals.
fn levels(log: &str, lines: &[(Option<&Source>, &str)]) -> Vec<&'static str> {
    let mut messages = Messages::of(Path::new(log));
    let level = |(source, line): &(Option<&Source>, &str)| {
        messages.next(line.as_bytes(), *source).unwrap().level.as_str()
    };
    lines.iter().map(level).collect()
}

#[test]
fn a_line_has_the_level_of_the_message_which_it_continues_and_of_no_other() {
    let plain = [
        "{\"level\":\"error\",\"event\":\"x\"}",
        "a print, minutes later",
        "2026-01-31 12:00:00 ERROR it fails",
        "  more of it",
        "Traceback (most recent call last):",
        "  File \"x\"",
        "ValueError: no",
        "a print",
        "Traceback (most recent call last):",
        "  File \"x\"",
        "",
        "KeyError: 'x'",
        "2026-01-31 12:00:00 DEBUG x",
    ];
    let lines = plain.map(|line| (None, line));
    let expected = [
        "ERROR", "INFO", "ERROR", "ERROR", "ERROR", "ERROR", "ERROR", "INFO", "ERROR", "ERROR",
        "ERROR", "ERROR", "DEBUG",
    ];
    assert_eq!(levels("app_p_main.log", &lines), expected);
}

#[test]
fn the_lines_of_two_writers_in_turn_have_the_levels_of_their_own_messages() {
    let [one, two] = ["app.p.main.1.1", "app.p.main.2.2"].map(|worker| source(worker, "1"));
    let (one, two) = (Some(&one), Some(&two));
    let lines = [
        (one, "ERROR: it fails"),
        (two, "all is well"),
        (one, "Traceback (most recent call last):"),
        (two, "  indented"),
        (one, "  File \"x\""),
        (two, "all is well"),
        (one, "ValueError: no"),
        (one, "all is well"),
    ];
    let expected = ["ERROR", "INFO", "ERROR", "INFO", "ERROR", "INFO", "ERROR", "INFO"];
    assert_eq!(levels("app_p_main.log", &lines), expected);
}

#[test]
fn a_line_without_a_level_has_the_usual_one_of_its_log_and_an_answer_that_of_its_status() {
    for (log, line, level) in [
        ("daemon.log", "2026-01-31 12:00:00.123 it runs", "INFO"),
        ("keeper.log", "keeper: no", "WARNING"),
        ("nginx_error.log", "2026/01/31 12:00:00 [error] no", "ERROR"),
        ("extra_p_job.log", "it runs", "INFO"),
        ("nginx_access.log", "{ \"uri\": \"/ERROR\", \"status\": 200 }", "INFO"),
        ("nginx_access.log", "{ \"uri\": \"/\", \"status\": 404 }", "WARNING"),
        ("nginx_access.log", "{ \"uri\": \"/\", \"status\": 502, \"cause\": \"reset\" }", "ERROR"),
    ] {
        assert_eq!(levels(log, &[(None, line)]), [level], "{line}");
    }
}

#[test]
fn a_line_of_the_error_log_says_its_request_and_its_worker() {
    for (event, id, worker) in [
        ("answered 502 reset: /a b (request id1)", Some("id1"), None),
        (
            "worker app.p.main.1.7: reset: x (path /(request), request id2)",
            Some("id2"),
            Some("app.p.main.1.7"),
        ),
        ("app p/main: workers wait for slow clients: x (request)", None, None),
        ("12 lines left out", None, None),
    ] {
        let object = parsed(&format!("2026/01/31 12:00:00 [error] {event}"), Some("nginx_error"));
        let text = |key: &str| object.get(key).and_then(|value| value.as_str());
        assert_eq!((text("request_id"), text("worker")), (id, worker), "{event}");
        assert_eq!(text("event"), Some(event));
    }
}

//! A terminal obeys nothing that an app has written; a pipe gets it as it is.

use std::io::Read;

use mfserv_testkit::{Node, Plugin, Ran, pty};

use crate::{Turn, node};

/// What a command prints on a terminal.
fn on_terminal(node: &Node, args: &[&str]) -> String {
    let (ours, theirs) = pty();
    let mut command = node.command(args);
    // Without colours: what is an escape then comes from an app.
    command.env("NO_COLOR", "1");
    command.stdout(theirs.try_clone().unwrap()).stderr(theirs);
    let mut child = command.spawn().unwrap();
    // The command has the other end open as long as it is there.
    drop(command);
    let mut said = Vec::new();
    let mut ours = std::fs::File::from(ours);
    let mut room = [0; 4096];
    // After the last writer has gone, a read is an error.
    while let Ok(count) = ours.read(&mut room) {
        said.extend_from_slice(&room[..count]);
    }
    child.wait().unwrap();
    String::from_utf8_lossy(&said).into_owned()
}

/// Nothing in it that a terminal obeys, but the ends of lines.
#[track_caller]
fn assert_tame(said: &str) {
    let wild = said.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'));
    assert_eq!(wild, None, "{said:?}");
}

#[test]
fn logs_are_written_out_on_a_terminal_and_as_they_are_into_a_pipe_or_with_raw() {
    let _turn = Turn::cheap();
    let node = node();
    let rude = b"\x1b]0;evil\x07title \x1b[2J\xff \xc2\x9b31m over\rwritten\r\n\x1b[8mhidden\n";
    std::fs::create_dir_all(node.path("log")).unwrap();
    std::fs::write(node.path("log/app_rude_main.log"), rude).unwrap();
    let shown = on_terminal(&node, &["logs", "rude"]);
    assert_tame(&shown);
    assert!(shown.contains(r"\u{1b}]0;evil\u{7}title \u{1b}[2J"), "{shown}");
    assert!(shown.contains(r"\u{9b}31m over\rwritten") && shown.contains("hidden"), "{shown}");
    let raw = on_terminal(&node, &["logs", "--raw", "rude"]);
    assert!(raw.contains("\x1b]0;evil\x07title"), "{raw:?}");
    for args in [&["logs", "rude"][..], &["logs", "--raw", "rude"]] {
        let piped = node.command(args).output().unwrap();
        assert_eq!(piped.stdout, rude, "{args:?}");
    }
    let json = node.mfserv(&["logs", "--json", "rude"]).code(0).stdout;
    let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert!(first["line"].as_str().unwrap().starts_with("\x1b]0;evil\x07title"), "{first}");
}

#[test]
fn status_and_events_show_what_a_crashing_app_wrote_as_text() {
    let _turn = Turn::cheap();
    let node = node();
    let code = "import sys\nprint('\\x1b]0;evil\\x07 \\x1b[2J bye', flush=True)\nsys.exit(1)\n";
    node.add(&Plugin::python("rude", code).key("app_main", "numprocesses", "1"));
    let _: Ran = node.mfserv(&["start"]);
    for args in [&["status"][..], &["events", "-n", "1000"], &["ps"]] {
        let shown = on_terminal(&node, args);
        assert_tame(&shown);
        assert!(args[0] == "ps" || shown.contains(r"\u{1b}]0;evil\u{7}"), "{args:?}: {shown}");
    }
    node.mfserv(&["stop"]).code(0);
}

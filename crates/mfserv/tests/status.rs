//! `status` on terminals of several sizes, in pipes, and again and again.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use mfserv_core::status::WatcherState;
use mfserv_testkit::{Node, Plugin, programs, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::top::{Terminal, row, shop};
use crate::{PATIENCE, Turn, node};

/// A node with an app that never starts, one that has crashed once, and many that are well.
fn crowded() -> Node {
    let node = node();
    node.add(&Plugin::python("zoo", programs::EXITS_AT_ONCE));
    node.add(&Plugin::python("healed", programs::SERVES));
    let many = (0..20).fold(Plugin::new("many").file("main.py", programs::SERVES), |plugin, at| {
        let command = "python3 -u {plugin_dir}/main.py {unix_socket_path}";
        plugin.app(&format!("app{at:02}"), command)
    });
    node.add(&many);
    // The failing app makes `start` wait in vain, and that is no matter here.
    node.mfserv(&["start"]);
    until("all but one are ready", PATIENCE, || {
        let well = |state| state == WatcherState::Ready;
        node.status().watchers.iter().filter(|watcher| !well(watcher.state)).count() == 1
    });
    let pid = node.pids("app.healed.main")[0];
    node.kill(pid);
    until("it has healed", PATIENCE, || {
        let watcher = node.watcher("app.healed.main");
        watcher.state == WatcherState::Ready && watcher.crashes == 1
    });
    until("the other one fails", PATIENCE, || {
        node.watcher("app.zoo.main").state == WatcherState::Failing
    });
    node
}

#[test]
fn status_on_a_terminal_names_what_is_in_maintenance() {
    let _turn = Turn::cheap();
    let node = node();
    node.add(&Plugin::python("shop", programs::SERVES));
    node.start();
    node.mfserv(&["maintenance", "on", "shop"]).code(0);
    let mut terminal = Terminal::of(&node, &["status"], (100, 30), &[]);
    assert_eq!(terminal.end().code(), Some(0));
    let text = terminal.text();
    assert!(text.contains("shop is in maintenance for "), "{text}");
    node.stop();
}

#[test]
fn status_fits_every_terminal_with_the_worst_first_and_a_pipe_gets_it_all() {
    let _turn = Turn::cheap();
    let node = crowded();
    for (size, env) in [
        ((100, 30), vec![]),
        ((60, 24), vec![]),
        ((100, 30), vec![("COLUMNS", "70"), ("LINES", "20")]),
    ] {
        let mut terminal = Terminal::of(&node, &["status"], size, &env);
        assert_eq!(terminal.end().code(), Some(1));
        let text = terminal.text();
        let lines: Vec<&str> = text.lines().collect();
        let (columns, height) = if env.is_empty() { size } else { (70, 20) };
        assert!(lines.len() < usize::from(height), "{text}");
        let widest = lines.iter().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= usize::from(columns), "{widest}: {text}");
        assert!(
            lines[0].starts_with("mfserv RUNNING") && lines[0].contains("1 of 22 apps"),
            "{text}"
        );
        let title = lines.iter().position(|line| line.starts_with("NAME ")).unwrap();
        assert!(lines[title + 1].starts_with("zoo.main "), "{text}");
        assert!(lines.iter().any(|line| line.starts_with("zoo.main: ended ")), "{text}");
        let healed = lines.iter().filter(|line| line.contains("healed.main ")).count();
        assert!(lines.iter().any(|line| line.starts_with("healed: healed.main ")), "{text}");
        assert!((1..=2).contains(&healed), "{text}");
        assert!(text.contains("`mfserv status --all`"), "{text}");
    }
    let piped = node.command(&["status"]).env("COLUMNS", "20").env("LINES", "5").output().unwrap();
    let piped = String::from_utf8(piped.stdout).unwrap();
    for at in 0..20 {
        assert_eq!(row(&piped, &format!("app.many.app{at:02}"))[1], "ready", "{piped}");
    }
    let mut terminal = Terminal::of(&node, &["status", "--all"], (200, 100), &[]);
    assert_eq!(terminal.end().code(), Some(1));
    assert_eq!(row(&terminal.text(), "app.many.app19")[1], "ready", "{}", terminal.text());
    node.stop();
}

#[test]
fn status_shows_processor_requests_uptime_and_release() {
    let _turn = Turn::cheap();
    let node = shop();
    let mut terminal = Terminal::of(&node, &["status", "--watch", "0.3"], (120, 30), &[]);
    terminal.shows("what is counted", |text| {
        assert_eq!(node.get("/shop/x").status, 200);
        let row = row(text, "shop.main");
        let number = |at: usize| row.get(at).and_then(|it| it.parse::<f64>().ok());
        number(4).is_some_and(|rate| rate > 0.0) && number(3).is_some()
    });
    let text = terminal.text();
    let of_shop = row(&text, "shop.main");
    assert_eq!(
        (of_shop[1].as_str(), of_shop[2].as_str(), of_shop[7].as_str()),
        ("ready", "2/2", "0")
    );
    assert!(of_shop[6].ends_with('s') && of_shop[8] == "dev", "{text}");
    let of_welcome = row(&text, "welcome");
    assert_eq!(of_welcome[8], "mfserv", "no directory of a developer: {text}");
    assert!(terminal.is_taken());

    node.mfserv(&["scale", "shop", "3"]).code(0);
    terminal.shows("the change", |text| text.contains("3/3"));
    terminal.resize((50, 8));
    terminal.shows("fewer columns", |text| text.contains("READY") && !text.contains("RELEASE"));
    // One write for a whole screen, which is never cleared: nothing flickers.
    let written = terminal.written.lock().unwrap().clone();
    let bytes = written.into_iter().flat_map(|(_, bytes)| bytes).collect::<Vec<u8>>();
    let cleared = String::from_utf8_lossy(&bytes).matches("\x1b[2J").count();
    assert_eq!(cleared, 1, "when the screen was taken");
    terminal.press("\x03");
    assert!(terminal.end().success());
    node.stop();
}

#[test]
fn status_is_repeated_in_a_pipe_until_it_is_interrupted() {
    let _turn = Turn::cheap();
    let node = shop();
    for (more, what) in [(None, "mfserv is RUNNING"), (Some("--json"), "{\"state\":\"RUNNING\"")] {
        let args = ["status", "--watch", "0.2"].into_iter().chain(more).collect::<Vec<_>>();
        let mut child = Ended(node.command(&args).stdout(Stdio::piped()).spawn().unwrap());
        // Held: a pipe that nobody reads ends it too.
        let mut out = BufReader::new(child.0.stdout.take().unwrap());
        let lines = out.by_ref().lines().map_while(Result::ok);
        let found: Vec<String> = lines.filter(|line| line.starts_with(what)).take(3).collect();
        assert_eq!(found.len(), 3, "{found:?}");
        if more.is_some() {
            let state =
                |line: &String| serde_json::from_str::<Value>(line).unwrap()["state"].clone();
            assert!(found.iter().all(|line| state(line) == "RUNNING"));
        }
        let _ = kill_process(Pid::from_raw(child.0.id() as i32).unwrap(), Signal::INT);
        assert_eq!(child.0.wait().unwrap().code(), Some(0));
    }
    node.stop();
    node.mfserv(&["status"]).code(3);
}

#[test]
fn keeper_and_daemon_say_their_versions() {
    let _turn = Turn::cheap();
    let node = node();
    let status = node.start();
    let keeper = status.keeper.expect("a keeper");
    assert_eq!(keeper.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(keeper.version, status.daemon.version);
    node.stop();
}

/// Ends a child that a failed test leaves.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

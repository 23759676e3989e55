//! Recordings for the documentation, of a real node: asciicast 2, which `asciinema play` shows.

use std::fs;
use std::path::Path;
use std::time::Duration;

use mfserv_testkit::{Load, Plugin, post, programs, until};
use serde_json::json;

use super::Terminal;
use crate::logs::SPEAKS;
use crate::{PATIENCE, Turn, node};

const SIZE: (u16, u16) = (110, 30);

/// Lets people see what is shown.
fn look(seconds: u64) {
    // A recording is read by people, who need this time.
    std::thread::sleep(Duration::from_secs(seconds));
}

/// Writes what a terminal has shown.
fn record(terminal: &Terminal, command: &str, name: &str) {
    let header = json!({"version": 2, "width": SIZE.0, "height": SIZE.1, "title": command});
    let mut lines = vec![header, json!([0.0, "o", format!("$ {command}\r\n")])];
    // A character may be in two parts.
    let mut rest = Vec::new();
    for (at, bytes) in terminal.written.lock().unwrap().iter() {
        rest.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&rest) {
            Ok(text) => text.len(),
            Err(error) => error.valid_up_to(),
        };
        let text = String::from_utf8(rest.drain(..whole).collect()).unwrap();
        lines.push(json!([(at * 1e3).round() / 1e3, "o", text]));
    }
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/demo");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(name), text).unwrap();
}

#[test]
#[ignore = "it records docs/demo: cargo test -p mfserv --test main -- demo:: --ignored"]
fn top_and_the_logs_of_a_request_are_recorded() {
    let _turn = Turn::heavy();
    let node = node();
    node.add(&Plugin::python("shop", programs::SERVES).key("app_main", "numprocesses", "2"));
    node.add(&Plugin::python("orders", SPEAKS).key("app_main", "numprocesses", "2"));
    node.start();
    node.settled("app.shop.main");
    node.settled("app.orders.main");
    let pause = Duration::from_millis(40);
    let load = Load::new(node.address(), "/shop/x").connections(4).pause(pause).start();
    load.answers(50);
    let mut top = Terminal::of(&node, &["top", "--interval", "1"], SIZE, &[]);
    top.shows("the load", |text| text.contains("shop.main"));
    look(4);
    let page = post(node.address(), "/orders/crash", b"").unwrap().text();
    look(3);
    for (keys, seconds) in [("c", 2), ("/shop\r", 2), ("\r", 3), ("R", 2), ("y", 4)] {
        top.press(keys);
        look(seconds);
    }
    top.press("q");
    top.end();
    record(&top, "mfserv top", "top.cast");

    let id = page.split("request: ").nth(1).unwrap().split('<').next().unwrap();
    let mut logs = Terminal::of(&node, &["logs", "--request", id], SIZE, &[]);
    until("the command has ended", PATIENCE, || logs.child.try_wait().unwrap().is_some());
    logs.shows("the crash", |text| text.contains("exited with code 7"));
    record(&logs, &format!("mfserv logs --request {id}"), "logs-request.cast");
    load.stop().assert_nothing_failed();
    node.stop();
}

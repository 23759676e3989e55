//! Lines on their way to the real journald and the real rsyslog, and to the JSON file of mflog.

mod servers;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use mfserv_testkit::{Node, Plugin, until};
use serde_json::Value;

use self::servers::{Journald, Rsyslog};
use crate::{PATIENCE, Turn, node};

/// Writes the lines that it is asked for: `/write?5-9` writes `line 5` to `line 9`.
const WRITES: &str = r#"
import os, socketserver, sys
from http.server import BaseHTTPRequestHandler

class Exchange(BaseHTTPRequestHandler):
    def do_GET(self):
        path, _, query = self.path.partition("?")
        if path.endswith("/write"):
            first, last = query.split("-")
            for number in range(int(first), int(last) + 1):
                print("line", number)
        if path.endswith("/odd"):
            print("long " + "x" * 400000 + " end")
            sys.stdout.flush()
            os.write(1, b"binary \xff\x00\x1b[31mred\n\n")
            print("2026-01-31 12:00:00,123 ERROR it fails\nTraceback (most recent call last):\n  File \"x\"\nValueError: no")
        sys.stdout.flush()
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass

socketserver.UnixStreamServer(sys.argv[1], Exchange).serve_forever()
"#;

fn node_that_writes() -> Node {
    let node = node();
    node.add(&Plugin::python("shop", WRITES));
    node
}

/// Lets the app write these lines. It is not slowed.
fn write(node: &Node, lines: &str) {
    let began = Instant::now();
    assert_eq!(node.get(&format!("/shop/write?{lines}")).status, 200);
    assert!(began.elapsed() < Duration::from_secs(5), "the app was slowed: {:?}", began.elapsed());
}

/// What `mfserv status` notes of an output.
fn notes(node: &Node, of: &str) -> Vec<String> {
    node.status().notes.into_iter().filter(|note| note.contains(of)).collect()
}

/// The numbers of the lines that have arrived, and how many lines that are.
fn numbers<'a>(texts: impl IntoIterator<Item = &'a str>) -> (BTreeSet<u32>, usize) {
    let numbers = texts.into_iter().filter_map(|text| text.strip_prefix("line ")?.parse().ok());
    let numbers: Vec<u32> = numbers.collect();
    (numbers.iter().copied().collect(), numbers.len())
}

#[test]
fn a_syslog_server_gets_each_line_whether_it_is_away_killed_or_reached_in_another_way() {
    let _turn = Turn::heavy();
    let dir = tempfile::tempdir().unwrap();
    let Some(mut server) = Rsyslog::new(dir.path()) else { return };
    let node = node_that_writes();
    let json = node.path("mflog.json");
    node.set("log.syslog", &server.tcp());
    node.set("log.json_file", &json.to_string_lossy());
    // A file is rotated before its lines arrive.
    node.set("log.max_size_before_rotation", "20000");
    node.start();
    node.settled("app.shop.main");
    write(&node, "1-5000");
    until("the status says that nothing arrives", PATIENCE, || {
        notes(&node, "syslog").iter().any(|note| note.contains("refused"))
    });
    server.start();
    let arrived = |server: &Rsyslog, last: u32| {
        let messages = server.messages();
        let (found, count) = numbers(messages.iter().map(|message| message.text.as_str()));
        (found.len() == last as usize).then_some(count)
    };
    until("the lines have arrived", PATIENCE, || arrived(&server, 5000) == Some(5000));
    until("the status is well again", PATIENCE, || notes(&node, "syslog").is_empty());
    let messages = server.messages();
    let first = messages.iter().find(|message| message.text == "line 1").unwrap();
    assert_eq!((&*first.priority, &*first.app), ("30", "shop.main"));
    for field in ["plugin=\"shop\"", "app=\"main\"", "worker=\"app.shop.main.1.1\"", "log=\"app_"] {
        assert!(first.data.contains(field), "{field}: {}", first.data);
    }
    until("the words of the daemon have arrived", PATIENCE, || {
        let ready = |text: &str| text.contains("app.shop.main.1.1 ready");
        let messages = server.messages();
        let found = messages.iter().find(|message| ready(&message.text));
        found.is_some_and(|message| &*message.app == "mfserv-daemon")
    });

    server.kill();
    write(&node, "5001-8000");
    node.kill(node.role_pid("telemetry"));
    server.start();
    until("nothing is lost by kills", PATIENCE, || arrived(&server, 8000).is_some());
    // As many as the buffer of a receiver of UDP has room for.
    for (address, last) in [(server.udp(), 8100), (server.unix(), 8200)] {
        node.set("log.syslog", &address);
        node.mfserv(&["reload"]).code(0);
        write(&node, &format!("{}-{last}", last - 99));
        until(&address, PATIENCE, || arrived(&server, last).is_some());
    }

    node.kill(node.pids("app.shop.main")[0]);
    the_crash_is_in_the_file_of_mflog(&json);
    node.stop();
}

fn the_crash_is_in_the_file_of_mflog(json: &Path) {
    until("the crash is in the JSON file of mflog", PATIENCE, || {
        let text = fs::read_to_string(json).unwrap_or_default();
        // The last line may be half written.
        let mut objects = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        objects.any(|it| {
            it["level"] == "warning"
                && it["name"] == "mfserv.daemon"
                && it["plugin"] == "#core#"
                && it["event"].as_str().unwrap().contains("killed by SIGKILL")
        })
    });
    assert!(!fs::read_to_string(json).unwrap().contains(" ready after "), "it is no warning");
}

#[test]
fn journald_has_each_line_with_its_worker_and_level_and_stopped_it_slows_nobody() {
    let _turn = Turn::heavy();
    let dir = tempfile::tempdir().unwrap();
    let Some(journald) = Journald::start(dir.path()) else { return };
    let node = node_that_writes();
    node.start();
    node.settled("app.shop.main");
    write(&node, "9001-9002");
    node.set("log.journald", "1");
    node.set("log.journald_socket", &journald.socket());
    let role = node.role_pid("telemetry");
    node.mfserv(&["reload"]).code(0);
    until("the role has the new settings", PATIENCE, || {
        node.path("var/ship/journald").exists()
            && node.role_pids("telemetry").first().is_some_and(|pid| *pid != role)
    });
    write(&node, "1-2000");
    assert_eq!(node.get("/shop/odd").status, 200);
    let of_shop = || journald.entries("MFSERV_PLUGIN=shop");
    until("the last line has arrived", PATIENCE, || {
        of_shop().iter().any(|entry| entry["MESSAGE"] == "ValueError: no")
    });
    let entries = of_shop();
    let texts = entries.iter().filter_map(|entry| entry["MESSAGE"].as_str());
    let (found, count) = numbers(texts.clone());
    assert_eq!((found.len(), count), (2000, 2000), "also none of before: {:?}", found.first());
    let entry = entries.iter().find(|entry| entry["MESSAGE"] == "line 7").unwrap();
    let home = node.home().to_string_lossy().into_owned();
    for (field, value) in [
        ("PRIORITY", "6"),
        ("SYSLOG_IDENTIFIER", "shop.main"),
        ("SYSLOG_FACILITY", "3"),
        ("MFSERV_APP", "main"),
        ("MFSERV_STREAM", "both"),
        ("MFSERV_LOG", "app_shop_main"),
        ("MFSERV_HOME", &home),
    ] {
        assert_eq!(entry[field], value, "{field}: {entry}");
    }
    let worker = entry["MFSERV_WORKER"].as_str().unwrap();
    assert!(worker.starts_with("app.shop.main.1."), "{entry}");
    assert!(entry["SYSLOG_TIMESTAMP"].as_str().unwrap().starts_with("20"), "{entry}");
    let long = texts.clone().find(|text| text.starts_with("long ")).unwrap();
    assert!(long.len() == 400_009 && long.ends_with("x end"), "{}", long.len());
    for text in ["  File \"x\"", "ValueError: no"] {
        let entry = entries.iter().find(|entry| entry["MESSAGE"] == text).unwrap();
        assert_eq!(entry["PRIORITY"], "3", "{text} belongs to the error before");
    }
    assert!(entries.iter().any(|entry| entry["MESSAGE"].to_string().contains("98,105")));

    journald.suspend();
    write(&node, "2001-6000");
    journald.resume();
    until("what was written meanwhile has arrived", PATIENCE, || {
        let entries = of_shop();
        let texts = entries.iter().filter_map(|entry| entry["MESSAGE"].as_str());
        numbers(texts).0.len() == 6000
    });
    node.stop();
}

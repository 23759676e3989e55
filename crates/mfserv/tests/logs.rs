//! Logs of a real node: who wrote what, found again by time, worker, text and request.

use std::fs;

use mfserv_core::event::Fact;
use mfserv_testkit::{Node, Plugin, get, post, until};

use crate::{PATIENCE, Turn, node};

/// Serves one connection at a time, says what it is asked for, and dies of `/crash`.
pub const SPEAKS: &str = r#"
import os, socket, sys, time
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen(16)
def say(level, text):
    now = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
    print("%s %10s (speaks#%d) %s" % (now, "[%s]" % level, os.getpid(), text))
while True:
    client, _ = server.accept()
    head = b""
    while b"\r\n\r\n" not in head:
        more = client.recv(65536)
        if not more:
            break
        head += more
    if b"\r\n\r\n" in head:
        path = head.split(b" ")[1].decode()
        say("INFO", "asked for " + path)
        if path.endswith("/crash"):
            say("ERROR", "told to fail")
            print("Traceback (most recent call last):\n  File \"x.py\"\nValueError: told to")
            os._exit(7)
        client.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
    client.close()
"#;

fn logs(node: &Node, args: &[&str]) -> String {
    node.mfserv(&[&["logs"], args].concat()).code(0).stdout
}

fn objects(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_lines_of_a_request_a_crash_a_worker_and_a_time_are_found_and_old_logs_are_looked_after() {
    let _turn = Turn::cheap();
    let node = node();
    let old = |end: &str| node.path(&format!("log/app_speaks_main.log.2026010{end}"));
    fs::create_dir_all(node.path("log")).unwrap();
    for day in 1..=3 {
        let line = format!("2026-01-0{day}T00:00:00Z [INFO] (old#1) a line of old times\n");
        fs::write(old(&format!("{day}000000")), line.repeat(1000)).unwrap();
    }
    node.set("log.compress_rotated_files", "1");
    node.add(&Plugin::python("speaks", SPEAKS).key("app_main", "numprocesses", "2"));
    node.start();
    until("the older files are compressed", PATIENCE, || {
        old("2000000.zst").exists() && !old("2000000").exists()
    });
    assert!(old("3000000").exists(), "the newest one stays as it is");
    let all_old = logs(&node, &["--until", "2026-01-02T12:00:00Z", "--grep", "old times"]);
    assert_eq!(all_old.lines().count(), 2000);

    let good = get(node.address(), "/speaks/a").unwrap();
    let id = good.field("x-request-id").unwrap().to_owned();
    let said = logs(&node, &["--request", &id]);
    assert!(said.contains("answered 200") && said.contains("by app.speaks.main."), "{said}");
    assert!(said.contains("asked for /speaks/a"), "{said}");

    let page = post(node.address(), "/speaks/crash", b"").unwrap();
    assert_eq!(page.status, 502);
    let page = page.text();
    let id = page.split("request: ").nth(1).unwrap().split('<').next().unwrap();
    let said = logs(&node, &["--request", id]);
    for part in ["answered 502", "events | ", "exited with code 7", "ValueError: told to", "reset"]
    {
        assert!(said.contains(part), "{part} is missing: {said}");
    }
    let end = objects(&logs(&node, &["--request", id, "--json"]));
    assert!(end[0]["request_id"] == id && end.iter().any(|it| it["event"] == "worker_ended"));

    let said = logs(&node, &["speaks", "--last-crash"]);
    assert!(said.contains("ValueError: told to") && said.contains("exited with code 7"), "{said}");
    let errors = objects(&logs(&node, &["--level", "ERROR", "--json"]));
    let events: Vec<_> = errors.iter().map(|it| it["event"].as_str().unwrap()).collect();
    let traceback =
        ["Traceback (most recent call last):", "  File \"x.py\"", "ValueError: told to"];
    assert_eq!(events, [&["told to fail"], &traceback[..]].concat());
    let worker = errors[0]["worker"].as_str().unwrap();
    assert!(errors[0]["name"] == "speaks" && errors[0]["stream"] == "both", "{}", errors[0]);
    let only = logs(&node, &["--worker", worker, "--since", "5m", "--grep", "asked for"]);
    assert!(only.contains("/speaks/crash") && !only.contains("old times"), "{only}");

    assert_what_is_not_found_or_wrong_is_said(&node);
    node.set("log.max_total_size", "40000");
    node.mfserv(&["reload"]).code(0);
    until("the oldest files are removed", PATIENCE, || !old("3000000").exists());
    let removed = |fact: &Fact| matches!(fact, Fact::LogsRemoved { files, .. } if files.len() == 3);
    until("it is said", PATIENCE, || node.events().iter().any(|event| removed(&event.fact)));
    assert!(logs(&node, &["speaks"]).contains("asked for"), "the live file stays");
    node.stop();
}

fn assert_what_is_not_found_or_wrong_is_said(node: &Node) {
    for (args, code, part) in [
        (&["--grep", "nobody says this"][..], 1, "no line matches"),
        (&["--request", "nobody-has-this-id"], 1, "is known"),
        (&["--since", "a while ago"], 2, "14:30"),
        (&["--level", "LOUD"], 2, "CRITICAL"),
        (&["--grep", "("], 2, "regular expression"),
        (&["--since", "1h", "--until", "2h"], 2, "--since is later"),
    ] {
        let said = node.mfserv(&[&["logs"], args].concat()).code(code).stderr;
        assert!(said.contains(part), "{args:?}: {said}");
    }
}

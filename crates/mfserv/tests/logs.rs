//! Logs of a real node: who wrote what, found again by time, worker, text and request.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use jiff::{Timestamp, ToSpan};
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
        (&["--request", ""], 2, "it is empty"),
        (&["--request", " "], 2, "it is empty"),
    ] {
        let said = node.mfserv(&[&["logs"], args].concat()).code(code).stderr;
        assert!(said.contains(part), "{args:?}: {said}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named_and_the_lines_of_all_others_are_shown() {
    let _turn = Turn::cheap();
    let node = node();
    let write = |name: &str, text: &str| {
        fs::create_dir_all(node.path("log")).unwrap();
        fs::write(node.path("log").join(name), text).unwrap();
    };
    write("app_p_main.log", "2026-11-25T12:00:00Z [INFO] of p\n");
    write("app_q_main.log", "2026-11-25T12:00:01Z [INFO] of q, request id1\n");
    let bad = "app_p_main.log.20261125000000.zst";
    write(bad, "of another program");
    for args in [&[][..], &["--since", "2026-11-25"], &["--grep", "of"], &["--request", "id1"]] {
        let said = node.mfserv(&[&["logs"], args].concat()).code(0);
        assert!(said.stdout.contains("of q"), "{args:?}: {}", said.stdout);
        assert_eq!(said.stderr.matches(bad).count(), 1, "{args:?}: {}", said.stderr);
        assert!(said.stderr.contains("no table of frames"), "{args:?}: {}", said.stderr);
    }
    fs::remove_file(node.path("log/app_p_main.log")).unwrap();
    write("app_p_main.log", "");
    let said = node.mfserv(&["logs", "p"]).code(1).stderr;
    assert!(said.contains("no line to show"), "{said}");
}

#[test]
fn the_cause_of_a_request_is_found_in_the_hour_that_comes_twice() {
    let _turn = Turn::cheap();
    let node = node();
    let write = |name: &str, text: &str| {
        fs::create_dir_all(node.path("log")).unwrap();
        fs::write(node.path("log").join(name), text).unwrap();
    };
    for (n, hour) in [(1, "00"), (2, "01")] {
        let access = format!(
            "{{ \"@timestamp\": \"2026-10-25T{hour}:30:00+00:00\", \"duration\": 0.5, \
             \"request_id\": \"id{n}\", \"status\": 502 }}\n"
        );
        write("nginx_access.log", &access);
        write("nginx_error.log", &format!("2026/10/25 02:30:00 [error] reset, request id{n}\n"));
        let mut command = node.command(&["logs", "--json", "--request", &format!("id{n}")]);
        command.env("TZ", "CET-1CEST,M3.5.0,M10.5.0/3");
        let said = objects(&mfserv_testkit::Ran::of(command).code(0).stdout);
        let cause = said.iter().find(|it| it["log"] == "nginx_error").unwrap();
        assert_eq!(cause["timestamp"], format!("2026-10-25T{hour}:30:00.000Z"));
    }
}

#[test]
fn following_shows_all_past_lines_that_are_selected_and_whole_tracebacks_until_the_end() {
    let _turn = Turn::cheap();
    let node = node();
    let log = node.path("log/app_p_main.log");
    fs::create_dir_all(node.path("log")).unwrap();
    let line = |text: &str| format!("{} {text}\n", Timestamp::now());
    fs::write(&log, line("[ERROR] old").repeat(70) + &line("[INFO] good")).unwrap();
    let until = Timestamp::now().checked_add(4.seconds()).unwrap().to_string();
    let args =
        ["logs", "p", "-f", "--json", "--since", "1h", "--level", "ERROR", "--until", &until];
    let mut follower = node.command(&args).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(follower.stdout.take().unwrap()).lines();
    let past: Vec<_> = said.by_ref().take(70).collect();
    assert!(past.iter().all(|line| line.as_ref().unwrap().contains("[ERROR] old")));
    let trace = ["Traceback (most recent call last):", "  File \"x.py\"", "ValueError: bad"];
    let fresh = format!("{}{}\n{}", line("[INFO] good"), trace.join("\n"), line("[INFO] good"));
    let mut file = fs::File::options().append(true).open(&log).unwrap();
    file.write_all(fresh.as_bytes()).unwrap();
    let rest: Vec<_> = said.map(|line| line.unwrap()).collect();
    let rest = objects(&rest.join("\n"));
    let events: Vec<_> = rest.iter().map(|it| it["event"].as_str().unwrap()).collect();
    assert_eq!(events, trace);
    assert!(rest.iter().all(|it| it["timestamp"].is_string()), "{rest:?}");
    assert!(follower.wait().unwrap().success());
}

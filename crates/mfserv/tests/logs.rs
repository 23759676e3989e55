//! Logs of a real node: who wrote what, found again by time, worker, text and request.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use jiff::{Timestamp, ToSpan};
use mfserv_core::event::Fact;
use mfserv_testkit::{Node, Plugin, Response, get, post, until};

use crate::{PATIENCE, Turn, node};

/// Serves one connection at a time, says what it is asked for, and dies of `/crash`.
pub const SPEAKS: &str = r#"
import datetime, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen(16)
def say(level, text):
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
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

fn assert_time_and_worker_are_before_each_line(node: &Node, worker: &str) {
    let timed = logs(node, &["--level", "ERROR", "-t"]);
    let (beginning, text) = timed.lines().next().unwrap().split_once(" | ").unwrap();
    let (time, of) = beginning.rsplit_once(' ').unwrap();
    let is_time = jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S%.f", time).is_ok();
    assert!(is_time && of == worker && text.contains("told to fail"), "{timed}");
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
    assert_time_and_worker_are_before_each_line(&node, worker);

    assert_what_is_not_found_or_wrong_is_said(&node);
    node.set("log.max_total_size", "40000");
    node.mfserv(&["reload"]).code(0);
    until("the oldest files are removed", PATIENCE, || !old("3000000").exists());
    let removed = |fact: &Fact| matches!(fact, Fact::LogsRemoved { files, .. } if files.len() == 3);
    until("it is said", PATIENCE, || node.events().iter().any(|event| removed(&event.fact)));
    assert!(logs(&node, &["speaks"]).contains("asked for"), "the live file stays");
    node.stop();
}

/// Never serves.
const FAILS: &str = "print('no database')\nraise SystemExit(3)\n";

/// The id of a request, as its answer says it.
fn id_of(answer: &Response) -> String {
    answer.field("x-request-id").unwrap().to_owned()
}

#[test]
fn the_id_of_each_answer_leads_to_its_own_lines_its_workers_and_its_cause() {
    let _turn = Turn::cheap();
    let node = node();
    fs::create_dir_all(node.path("log")).unwrap();
    let of_job = "{\"timestamp\":\"2026-01-31T12:00:00Z\",\"event\":\"a job\",\"request_id\":\"of-a-job\"}\n";
    fs::write(node.path("log/extra_job_main.log"), of_job).unwrap();
    let key = |plugin: Plugin, name: &str, value: &str| plugin.key("app_main", name, value);
    let speaks = key(Plugin::python("speaks", SPEAKS), "numprocesses", "2");
    node.add(&key(speaks, "_requests_per_worker", "1"));
    node.add(&Plugin::python("fails", FAILS));
    node.mfserv(&["start"]);
    until("it serves", PATIENCE, || {
        get(node.address(), "/speaks/ready").is_ok_and(|answer| answer.status == 200)
    });
    assert_each_of_many_requests_has_its_own_line_and_its_worker(&node);
    assert_all_workers_of_a_request_are_shown(&node);
    for (page, cause) in [
        (get(node.address(), "/nothing").unwrap(), "no_route"),
        (post(node.address(), "/__health", b"").unwrap(), "method"),
        (post(node.address(), "/__socket_up/foo", b"").unwrap(), "bad_socket"),
    ] {
        let said = logs(&node, &["--request", &id_of(&page)]);
        assert!(said.contains("without a worker") && said.contains(cause), "{said}");
    }
    let mut page = None;
    until("it is known to crash", PATIENCE, || {
        let is_it = |page: &Response| page.field("x-mfserv-cause") == Some("crashing");
        page = get(node.address(), "/fails/x").ok().filter(is_it);
        page.is_some()
    });
    let said = logs(&node, &["--request", &id_of(&page.unwrap())]);
    assert_eq!(said.matches("exited with code 3").count(), 1, "{said}");
    assert!(said.contains("no database") && said.contains("cause: crashing"), "{said}");

    let own = objects(&logs(&node, &["daemon", "--json"]));
    let begun: Vec<_> = own.iter().filter(|it| it["pid"].is_u64()).collect();
    let is_its = |it: &&serde_json::Value| it["name"] == "mfserv.daemon";
    assert!(begun.len() > 5 && begun.iter().all(is_its), "{own:?}");
    assert!(begun[0]["level"] == "info" && begun[0]["timestamp"].is_string(), "{own:?}");
    let errors = objects(&logs(&node, &["errors", "--json"]));
    assert!(errors.iter().any(|it| it["request_id"].is_string() && it["worker"].is_string()));

    let began = Instant::now();
    assert!(logs(&node, &["--request", "of-a-job"]).contains("a job"));
    assert!(began.elapsed() < Duration::from_millis(2500), "no access log is waited for");
    node.mfserv(&["stop"]).code(0);
}

fn assert_each_of_many_requests_has_its_own_line_and_its_worker(node: &Node) {
    let answers = (0..40).map(|n| {
        let began = Instant::now();
        // Times of requests are compared in milliseconds.
        until("the last one is over", PATIENCE, || began.elapsed() > Duration::from_millis(2));
        get(node.address(), &format!("/speaks/n{n}.")).unwrap()
    });
    let ids: Vec<_> = answers.map(|answer| id_of(&answer)).collect();
    for n in [39, 0, 20] {
        let said = logs(node, &["--request", &ids[n]]);
        let lines: Vec<_> = said.lines().filter(|line| line.starts_with("app_")).collect();
        assert!(lines.len() == 1 && lines[0].ends_with(&format!("/speaks/n{n}.")), "{said}");
    }
    let object = &objects(&logs(node, &["--request", &ids[7], "--json"]))[0];
    let worker = object["worker"].as_str().unwrap();
    assert!(worker.starts_with("app.speaks.main."), "{object}");
    let slot = &worker[..worker.rfind('.').unwrap()];
    let of_slot = logs(node, &["front", "--worker", slot, "--grep", "/speaks/n7[.]"]);
    assert_eq!(of_slot.lines().count(), 1, "{of_slot}");
    let of = |args: &[&str]| {
        let said = node.mfserv(&[&["logs", "front", "--grep", "/speaks/n"], args].concat());
        said.stdout.lines().count()
    };
    let [one, two] = ["speaks.main.1", "speaks.main.2"].map(|slot| of(&["--worker", slot]));
    assert_eq!((of(&["--since", "5m"]), one + two), (40, 40), "{one} and {two}");
}

fn assert_all_workers_of_a_request_are_shown(node: &Node) {
    let id = &id_of(&get(node.address(), "/speaks/crash").unwrap());
    let said = logs(node, &["--request", id]);
    for part in ["exited with code 7", "ValueError: told to", "asked for /speaks/crash"] {
        assert_eq!(said.matches(part).count(), 2, "both workers, {part}: {said}");
    }
    assert!(said.contains(" failed, cause: reset"), "{said}");
    let object = &objects(&logs(node, &["--request", id, "--json"]))[0];
    assert!(object["cause"] == "reset" && object["worker"].is_string(), "{object}");
    let errors = logs(node, &["speaks", "--level", "ERROR", "--request", id]);
    assert!(errors.contains("ValueError") && !errors.contains("asked for"), "{errors}");
    let errors = logs(node, &["front", "--level", "ERROR"]);
    assert!(errors.contains("/speaks/crash") && !errors.contains("/speaks/n"), "{errors}");
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
fn check_says_that_the_json_file_of_mflog_cannot_be_written() {
    let node = node();
    let check = |file: &str| {
        node.set("log.json_file", file);
        node.mfserv(&["check"])
    };
    let said = check("/nonexistent/x.json").code(4).stderr;
    assert!(said.contains("[log] json_file=/nonexistent/x.json cannot be written"), "{said}");
    assert!(check(node.home().to_str().unwrap()).code(4).stderr.contains("it is a directory"));
    check(node.path("all.json").to_str().unwrap()).code(0);
    assert!(!node.path("all.json").exists(), "nothing is written");
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

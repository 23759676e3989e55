//! Alerts of mfserv's own reach a real receiver.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mfserv_testkit::{Node, Plugin, programs, until};
use serde_json::Value;

use crate::ship::receivers::{Server, make_certificate, requests};
use crate::{PATIENCE, Turn, node};

/// What a receiver has got: the line of each request, and its body.
type Received = Arc<Mutex<Vec<(String, Value)>>>;

/// A receiver of webhooks, which fails the first time. It ends with the test.
fn receiver() -> (SocketAddr, Received) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, received) = (listener.local_addr().unwrap(), Received::default());
    let own = received.clone();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert!(stream.read_line(&mut head).unwrap() > 0, "{head}");
            }
            let lower = head.to_lowercase();
            let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.unwrap().parse().unwrap()];
            stream.read_exact(&mut body).unwrap();
            let status = if number == 0 { "503 Later" } else { "200 OK" };
            let answer =
                format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
            let line = head.lines().next().unwrap().to_string();
            own.lock().unwrap().push((line, serde_json::from_slice(&body).unwrap()));
        }
    });
    (address, received)
}

/// Waits until it is stored that all messages have arrived.
fn all_has_arrived(node: &Node) {
    until("nothing is to be sent again", PATIENCE, || {
        let kept = std::fs::read_to_string(node.path("var/telemetry/alerts.json"));
        kept.is_ok_and(|kept| kept.contains("\"unsent\":[]"))
    });
}

fn set_alert(node: &Node, address: SocketAddr) {
    let refused = node.mfserv(&["config", "set", "alert_errors.condition=error_rate > many"]);
    assert!(refused.code(4).stderr.contains("error_rate > 5%"));
    for (key, value) in [
        ("condition", "error_rate > 20%"),
        ("for", "1s"),
        ("window", "5s"),
        ("webhook", &format!("http://{address}/hook?token=secret")),
        ("command", r#"echo "$ALERT $STATUS $PLUGIN.$APP" >> told; cat >> read"#),
    ] {
        node.set(&format!("alert_errors.{key}"), value);
    }
}

fn it_is_known_that_nobody_has_taken_it(node: &Node) {
    let read = |file: &str| std::fs::read_to_string(node.path(file)).unwrap_or_default();
    until("it is known that the receiver has not taken it", PATIENCE, || {
        let kept = read("var/telemetry/alerts.json");
        read("log/telemetry.log").contains("it answers 503")
            && kept.contains("\"unsent\"")
            && !kept.contains("\"unsent\":[]")
    });
}

/// That the alert fires is in `status` and in the metrics.
fn it_is_shown(node: &Node) {
    until("it is a note of status", PATIENCE, || {
        node.mfserv(&["status"]).stdout.contains("the alert errors fires: shop.main")
    });
    let counted = node.mfserv(&["metrics", "--format", "prometheus"]).stdout;
    assert!(counted.contains("mfserv_alert_firing{alert=\"errors\"} 1\n"), "{counted}");
}

fn the_command_has_heard_of_begin_and_end(node: &Node) {
    let told = || std::fs::read_to_string(node.path("told")).unwrap_or_default();
    until("the command has heard of begin and end", PATIENCE, || {
        told() == "errors firing shop.main\nerrors resolved shop.main\n"
    });
    let read = std::fs::read_to_string(node.path("read")).unwrap();
    let first: Value = serde_json::from_str(read.lines().next().unwrap()).unwrap();
    assert_eq!((&first["alert"], &first["status"]), (&"errors".into(), &"firing".into()));
    let events = node.mfserv(&["events", "--json"]).stdout;
    for event in ["alert_firing", "alert_resolved"] {
        assert_eq!(events.matches(&format!("\"{event}\"")).count(), 1, "{events}");
    }
}

#[test]
fn an_app_that_answers_500_fires_an_alert_that_is_sent_again_until_it_arrives_and_is_resolved() {
    let _turn = Turn::heavy();
    let (address, received) = receiver();
    let node = node();
    node.add(&Plugin::python("shop", programs::SERVES));
    set_alert(&node, address);
    node.set("alert_queue.condition", "queue > 100");
    node.start();
    node.settled("app.shop.main");
    until("nothing fires", PATIENCE, || {
        node.mfserv(&["alerts"]).stdout.lines().filter(|line| line.starts_with("ok ")).count() == 2
    });
    node.mfserv(&["alerts"]).code(0);
    let fails_until = |count: usize| {
        until("the receiver has the alert", PATIENCE, || {
            assert_eq!(node.get("/shop/fail").status, 500);
            received.lock().unwrap().len() >= count
        });
    };
    fails_until(1);
    it_is_known_that_nobody_has_taken_it(&node);
    // Another process of the role sends it again.
    node.kill(node.role_pid("telemetry"));
    fails_until(2);
    let fires = node.mfserv(&["alerts"]).code(1).stdout;
    assert!(fires.contains("FIRING") && fires.contains("shop.main"), "{fires}");
    let json: Value = serde_json::from_str(&node.mfserv(&["alerts", "--json"]).stdout).unwrap();
    assert_eq!(json[0]["state"], "firing", "{json}");
    it_is_shown(&node);
    // Another daemon does not tell the command again.
    node.kill(node.role_pid("daemon"));
    all_has_arrived(&node);
    // Another process of the role knows what fires.
    node.kill(node.role_pid("telemetry"));
    until("the receiver knows that it is over", PATIENCE, || received.lock().unwrap().len() >= 3);
    node.mfserv(&["alerts"]).code(0);
    the_command_has_heard_of_begin_and_end(&node);
    let received = received.lock().unwrap().clone();
    let ((line, last), before) = received.split_last().unwrap();
    assert_eq!(last["status"], "resolved");
    assert!(before.len() >= 2, "the one that failed was sent again");
    // A role that is killed before it has written that a message arrived sends it once more.
    for message in before {
        assert_eq!((message, &message.1["status"]), (&before[0], &"firing".into()));
    }
    assert_eq!(line, "POST /hook?token=secret HTTP/1.1");
    let alert = &last["alerts"][0];
    assert_eq!(alert["labels"]["alertname"], "errors");
    let of = (&alert["labels"]["plugin"], &alert["labels"]["app"]);
    assert_eq!(of, (&"shop".into(), &"main".into()));
    assert_eq!(alert["startsAt"], received[0].1["alerts"][0]["startsAt"]);
    assert!(alert["endsAt"].as_str() > alert["startsAt"].as_str(), "{alert}");
    let log = std::fs::read_to_string(node.path("log/telemetry.log")).unwrap();
    assert!(log.contains("it answers 503") && !log.contains("secret"), "{log}");
    let env = node.get("/shop/env").text();
    assert!(!env.contains("secret"), "the address is told to no app: {env}");
    node.stop();
}

/// A worker crashes, the daemon reports it, and is killed.
fn crash_and_kill_the_daemon(node: &Node) {
    node.kill(node.pids("app.shop.main")[0]);
    node.settled("app.shop.main");
    // The daemon sends its counters once a second: it lives for some of them.
    std::thread::sleep(Duration::from_millis(2_500));
    let daemon = node.role_pid("daemon");
    node.kill(daemon);
    until("another daemon", PATIENCE, || {
        node.role_pids("daemon").iter().any(|pid| *pid != daemon) && node.try_status().is_some()
    });
    node.runs();
}

#[test]
fn an_alert_fires_although_the_daemon_dies_often_and_is_resolved_when_its_section_is_renamed() {
    let _turn = Turn::heavy();
    let (address, received) = receiver();
    let node = node();
    node.add(&Plugin::python("shop", programs::SERVES).key("app_main", "numprocesses", "1"));
    let alert = format!("condition = restarts > 2\nfor = 1s\nwebhook = http://{address}/hook\n");
    let config = node.path("config/config.ini");
    let before = std::fs::read_to_string(&config).unwrap();
    let configure = |section: &str| {
        std::fs::write(&config, format!("{before}\n[alert_{section}]\n{alert}")).unwrap();
    };
    configure("crashes");
    node.start();
    node.settled("app.shop.main");
    // No daemon sees more than one of the crashes.
    (0..3).for_each(|_| crash_and_kill_the_daemon(&node));
    let mut shown = String::new();
    until("it fires", PATIENCE, || {
        shown = node.mfserv(&["alerts"]).stdout;
        shown.contains("FIRING")
    });
    assert!(shown.contains("crashes") && shown.contains("shop.main"), "{shown}");
    let messages = || -> Vec<String> {
        let received = received.lock().unwrap();
        let of = |(_, body): &(String, Value)| {
            let alert = &body["alerts"][0];
            format!("{} {}", body["status"], alert["labels"]["alertname"]).replace('"', "")
        };
        // The first message is refused by the receiver, and sent again.
        let mut messages: Vec<String> = received.iter().map(of).collect();
        messages.dedup();
        messages
    };
    let expected = ["firing crashes", "resolved crashes", "firing died"];
    until("the receiver has it", PATIENCE, || messages() == expected[..1]);
    all_has_arrived(&node);
    configure("died");
    node.mfserv(&["reload"]).code(0);
    until("its end is said, and that the other one fires", PATIENCE, || messages() == expected);
    let kept = node.path("var/telemetry/alerts.json");
    let mode = std::fs::metadata(&kept).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "addresses of receivers are secrets");
    std::fs::write(&config, &before).unwrap();
    node.mfserv(&["reload"]).code(0);
    until("the end of the other one is said too", PATIENCE, || {
        messages().last().map(String::as_str) == Some("resolved died")
    });
    all_has_arrived(&node);
    let telemetry = node.role_pid("telemetry");
    node.kill(telemetry);
    until("another role has nothing to say", PATIENCE, || {
        let others = node.role_pids("telemetry");
        others.iter().any(|pid| *pid != telemetry) && node.mfserv(&["alerts"]).code == 0
    });
    assert_eq!(messages().len(), 4, "{:?}", messages());
    node.stop();
}

#[test]
fn a_receiver_over_tls_is_trusted_by_its_own_authority_and_one_of_an_unknown_one_is_refused() {
    let _turn = Turn::cheap();
    let dir = tempfile::tempdir().unwrap();
    make_certificate(dir.path());
    let server = Server::start(dir.path(), &["tls"]);
    let node = node();
    let ca = dir.path().join("cert.pem").to_string_lossy().into_owned();
    for (alert, host) in [("trusted", "localhost"), ("unknown", "127.0.0.1")] {
        node.set(&format!("alert_{alert}.condition"), "disk < 100%");
        node.set(&format!("alert_{alert}.for"), "1s");
        let refused = node.mfserv(&["config", "set", &format!("alert_{alert}.ca={ca}")]);
        assert!(refused.code(4).stderr.contains("no https:// webhook"));
        let url = format!("https://{host}:{}/hook", server.port);
        node.set(&format!("alert_{alert}.webhook"), &url);
    }
    node.set("alert_trusted.ca", &ca);
    node.start();
    let wrong = format!("alert to https://127.0.0.1:{}/…: ", server.port);
    let is_refusal = |line: &str| line.starts_with(&wrong) && line.contains("UnknownIssuer");
    let log = || std::fs::read_to_string(node.path("log/telemetry.log")).unwrap_or_default();
    until("one has its alert, and the other one is refused with the reason", PATIENCE, || {
        !requests(dir.path()).is_empty() && log().lines().any(is_refusal)
    });
    let alerts = requests(dir.path());
    assert!(alerts.iter().all(|it| it["body"]["receiver"] == "trusted"), "{alerts:?}");
    node.stop();
}

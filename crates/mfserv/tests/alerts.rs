//! Alerts of mfserv's own reach a real receiver.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use mfserv_testkit::{Plugin, programs, until};
use serde_json::Value;

use crate::{PATIENCE, node};

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

#[test]
fn an_app_that_answers_500_fires_an_alert_that_is_sent_again_until_it_arrives_and_is_resolved() {
    let (address, received) = receiver();
    let node = node();
    node.add(&Plugin::python("shop", programs::SERVES));
    let refused = node.mfserv(&["config", "set", "alert_errors.condition=error_rate > many"]);
    assert!(refused.code(4).stderr.contains("error_rate > 5%"));
    for (key, value) in [
        ("condition", "error_rate > 20%"),
        ("for", "1s"),
        ("window", "5s"),
        ("webhook", &format!("http://{address}/hook?token=secret")),
    ] {
        node.set(&format!("alert_errors.{key}"), value);
    }
    node.set("alert_queue.condition", "queue > 100");
    node.start();
    node.settled("app.shop.main");
    until("nothing fires", PATIENCE, || {
        node.mfserv(&["alerts"]).stdout.lines().filter(|line| line.starts_with("ok ")).count() == 2
    });
    node.mfserv(&["alerts"]).code(0);
    until("the receiver has the alert", PATIENCE, || {
        assert_eq!(node.get("/shop/fail").status, 500);
        received.lock().unwrap().len() >= 2
    });
    let fires = node.mfserv(&["alerts"]).code(1).stdout;
    assert!(fires.contains("FIRING") && fires.contains("shop.main"), "{fires}");
    let json: Value = serde_json::from_str(&node.mfserv(&["alerts", "--json"]).stdout).unwrap();
    assert_eq!(json[0]["state"], "firing", "{json}");
    // Another process of the role knows what fires.
    node.kill(node.role_pid("telemetry"));
    until("the receiver knows that it is over", PATIENCE, || received.lock().unwrap().len() >= 3);
    node.mfserv(&["alerts"]).code(0);
    let received = received.lock().unwrap().clone();
    let statuses: Vec<&Value> = received.iter().map(|(_, body)| &body["status"]).collect();
    assert_eq!(statuses, ["firing", "firing", "resolved"]);
    assert_eq!(received[0], received[1], "the one that failed was sent again");
    let (line, last) = &received[2];
    assert_eq!(line, "POST /hook?token=secret HTTP/1.1");
    let alert = &last["alerts"][0];
    assert_eq!(alert["labels"]["alertname"], "errors");
    assert_eq!(
        (&alert["labels"]["plugin"], &alert["labels"]["app"]),
        (&"shop".into(), &"main".into())
    );
    assert_eq!(alert["startsAt"], received[0].1["alerts"][0]["startsAt"]);
    assert!(alert["endsAt"].as_str() > alert["startsAt"].as_str(), "{alert}");
    let log = std::fs::read_to_string(node.path("log/telemetry.log")).unwrap();
    assert!(log.contains("it answers 503") && !log.contains("secret"), "{log}");
    let env = node.get("/shop/env").text();
    assert!(!env.contains("secret"), "the address is told to no app: {env}");
    node.stop();
}

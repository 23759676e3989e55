//! The logs of a node on their way to Elasticsearch.

use std::net::UdpSocket;

use mfserv_core::status::WatcherState;
use mfserv_testkit::{Engine, Node, until};
use serde_json::{Value, json};

use super::engine;
use crate::{PATIENCE, Turn, node};

/// The documents of an index, by time.
fn documents(index: &super::SearchEngine, name: &str) -> Vec<Value> {
    index.ask("POST", &format!("/{name}/_refresh"), None);
    let found = index.ask("GET", &format!("/{name}/_search?size=100"), None);
    let hits = found["hits"]["hits"].as_array().cloned().unwrap_or_default();
    hits.into_iter().map(|hit| hit["_source"].clone()).collect()
}

#[test]
fn a_node_ships_its_access_log_and_messages_of_mflog_and_serves_when_the_role_is_killed() {
    let _turn = Turn::heavy();
    let dir = tempfile::tempdir().unwrap();
    let Some(index) = engine(Engine::Elasticsearch, dir.path(), &[]) else { return };
    let node = node();
    node.link_sample("sample_static", &[]);
    // The port is free again when the socket is dropped.
    let mflog = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    node.set("admin.hostname", "127.0.0.1");
    node.set("admin.elasticsearch_http_port", &index.address().port().to_string());
    node.set("vector.mflog_port", &mflog.port().to_string());
    node.start();
    let environment = node.mfserv(&["env", "sample_static"]).code(0).stdout;
    assert!(environment.contains(&format!("MFLOG_SYSLOG_ADDRESS='{mflog}'")), "{environment}");
    assert_eq!(node.get("/sample_static/").status, 200);

    // As mflog sends it; it is not there for as long as the role does not listen.
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let message = json!({"timestamp": "2026-01-31T12:00:00.123456Z", "level": "error", "pid": 7,
        "name": "shop", "plugin": "sample_static", "event": "no stock", "host": "x"});
    let message = format!("<14>{message}\0");
    until("a message of mflog has arrived", PATIENCE, || {
        sender.send_to(message.as_bytes(), mflog).unwrap();
        !documents(&index, "mflog-2026.01.31").is_empty()
    });
    let expected = json!({"timestamp": "2026-01-31T12:00:00.123456Z", "level": "error", "pid": 7,
        "name": "shop", "plugin": "sample_static", "event": "no stock", "module": "MFSERV"});
    let mut found = documents(&index, "mflog-2026.01.31").remove(0);
    for own in ["hostname", "module_version"] {
        assert!(found[own].is_string(), "{found}");
        found.as_object_mut().unwrap().remove(own);
    }
    assert_eq!(found, expected);

    let requests = || -> Vec<Value> {
        let all = documents(&index, "nginx-*");
        all.into_iter().filter(|request| request["uri"] == "/sample_static/").collect()
    };
    until("the request has arrived", PATIENCE, || !requests().is_empty());
    let request = &requests()[0];
    assert_eq!((&request["status"], &request["method"]), (&json!(200), &json!("GET")));
    assert_eq!((&request["module"], &request["host"]), (&json!("MFSERV"), &Value::Null));
    let mapping = index.ask("GET", "/nginx-*/_mapping/field/from", None).to_string();
    assert!(mapping.contains("\"type\":\"ip\""), "{mapping}");

    what_arrives_is_counted(&node);
    let role = node.role_pid("telemetry");
    node.kill(role);
    assert_eq!(node.get("/sample_static/").status, 200);
    until("the role is there again", PATIENCE, || {
        !node.role_pids("telemetry").is_empty() && node.role_pid("telemetry") != role
    });
    until("the second request has arrived, and the first one once", PATIENCE, || {
        requests().len() >= 2
    });
    assert_eq!(requests().len(), 2);
    assert_eq!(node.watcher("telemetry").state, WatcherState::Ready);
    node.stop();
}

fn what_arrives_is_counted(node: &Node) {
    let counted = |sample: &str| {
        let text = node.mfserv(&["metrics", "--format", "prometheus"]).code(0).stdout;
        let sample = format!("mfserv_ship_{sample} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&sample)?.parse::<u64>().ok());
        value.unwrap_or_else(|| panic!("{sample}: {text}"))
    };
    let sent = r#"documents_total{log="nginx",receiver="elasticsearch",outcome="sent"}"#;
    until("what has arrived is counted", PATIENCE, || counted(sent) >= 1);
    assert_eq!(counted(&sent.replace("sent", "refused")), 0);
    until("nothing is left", PATIENCE, || {
        counted(r#"unread_bytes{log="nginx",receiver="elasticsearch"}"#) == 0
    });
}

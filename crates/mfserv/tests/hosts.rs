//! Apps at host names of their own, on a real node.

use std::io::{Read, Write};
use std::net::TcpStream;

use mfserv_testkit::{Node, Plugin, programs};

use crate::{Turn, node};

/// Status and body of a request for `/x` with this host.
fn asked(node: &Node, host: &str) -> (String, String) {
    let mut client = TcpStream::connect(node.address()).unwrap();
    let text = format!("GET /x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    client.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default().to_string();
    (answer.split(' ').nth(1).unwrap_or_default().to_string(), body)
}

#[test]
fn an_app_answers_at_its_hosts_without_a_prefix_and_commands_name_them() {
    let _turn = Turn::cheap();
    let node = node();
    let hosts = "www.example.org,*.wild.example.org";
    let app = |name: &str| Plugin::python(name, programs::SERVES);
    node.add(&app("own").key("app_main", "_hosts", hosts));
    node.add(&app("old").key("app_main", "_virtualdomain_based_routing", "true"));
    node.start();
    for (host, who) in [
        ("www.example.org", "own"),
        ("A.B.Wild.example.org:81", "own"),
        ("old.localhost", "old"),
        ("main.old.localhost", "old"),
    ] {
        let (status, body) = asked(&node, host);
        assert!(status == "200" && body.contains(who), "{host}: {status} {body}");
    }
    for host in ["example.org", "localhost", "own.localhost"] {
        assert_eq!(asked(&node, host).0, "404", "{host}");
    }
    assert_eq!(node.get("/own/x").status, 200, "the prefix is there too");
    let table = node.mfserv(&["status"]).code(0).stdout;
    assert!(table.contains("www.example.org/") && table.contains("old.localhost/"), "{table}");
    let status = node.status();
    let own = status.plugins.iter().find(|plugin| plugin.name == "own").unwrap();
    assert_eq!(own.hosts, ["www.example.org", "*.wild.example.org"]);
}

#[test]
fn hosts_of_no_app_are_refused_from_the_next_reload_on_and_the_node_stays_healthy() {
    let _turn = Turn::cheap();
    let node = node();
    node.set("front.unknown_host", "close");
    let app = Plugin::python("own", programs::SERVES);
    node.add(&app.key("app_main", "_hosts", "www.example.org"));
    node.start();
    let status = |host: &str| asked(&node, host).0;
    assert_eq!((status("www.example.org").as_str(), status("example.org").as_str()), ("200", ""));
    node.set("front.unknown_host", "421");
    node.mfserv(&["reload"]).code(0);
    assert_eq!(status("www.example.org"), "200");
    for host in ["example.org", "10.0.0.1"] {
        assert_eq!(status(host), "421", "{host}");
    }
    assert_eq!(status("localhost"), "404");
    assert_eq!(node.get("/own/x").status, 200, "127.0.0.1 is known");
    node.mfserv(&["status"]).code(0);
}

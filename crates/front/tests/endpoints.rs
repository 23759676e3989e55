//! The front's own paths, who may ask for them, and whose word about addresses is taken.

use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use mfserv_core::node_state::NodeState;
use mfserv_core::route::{RealIp, RouteTable, Slots};
use mfserv_core::wire::front::{FromFront, ToFront, TroubleCause};

use crate::world::*;

fn json(answer: &Answer) -> serde_json::Value {
    serde_json::from_slice(&answer.body).unwrap()
}

/// md5 of `p/a`.
const KEY: &str = "2a0ac099cab6a0404c5b81f54d2737e4";

pub fn base64url(text: &str) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut encoded = String::new();
    for three in text.as_bytes().chunks(3) {
        let bits = three.iter().fold(0u32, |sum, b| (sum << 8) | u32::from(*b));
        let bits = bits << (8 * (3 - three.len()));
        for at in 0..=three.len() {
            encoded.push(alphabet[(bits >> (18 - 6 * at)) as usize & 63] as char);
        }
    }
    encoded
}

pub fn post(address: SocketAddr, path: &str, fields: &str) -> Answer {
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    ask(address, format!("{head}{fields}\r\n"))
}

#[test]
fn the_front_has_its_own_paths() {
    let Some(world) = World::where_holds("counters") else { return };
    let worker = Worker::saying(&world, 1, "ok");
    let mut front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    for (node, status, body) in [
        (NodeState::Starting, 503, "STARTING"),
        (NodeState::Running, 200, "OK\n"),
        (NodeState::Stopping, 503, "STOPPING"),
    ] {
        front.daemon.say(&ToFront::State {
            node,
            broken: Default::default(),
            backing_off: Default::default(),
        });
        front.daemon.stats();
        let answer = front.get("/__health");
        assert_eq!((answer.status, answer.text().as_str()), (status, body));
    }
    for path in ["/uuid", "/__uuid"] {
        assert_eq!(front.get(path).text(), "the-uuid\n");
    }
    for path in ["/status", "/__status"] {
        assert!(front.get(path).text().starts_with("Active connections: 1 \n"));
    }
    let upstreams = json(&front.get("/__upstream_status"));
    let peer = &upstreams[KEY][0];
    assert_eq!(peer["name"], format!("unix:{}", worker.socket.display()));
    assert_eq!(
        (&peer["app"], &peer["conns"], &peer["weight"]),
        (&"p/a".into(), &0.into(), &1.into())
    );
    assert!(peer.get("down").is_none());
    assert_eq!(worker.count(), 0);
}

#[test]
fn a_socket_that_is_declared_down_gets_nothing_until_it_is_up_again() {
    let world = World::new();
    let (tell, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let first = Worker::start(&world, 1, move |stream, received| {
        if received.target() == "/a/slow" {
            told.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        }
        say(stream, "first")
    });
    let mut front = world.serving(table(Slots::Unlimited, true), &[&first]);
    let mut slow = Client::connect(front.address);
    slow.send("GET /a/slow HTTP/1.1\r\nHost: h\r\n\r\n");
    until("it is in the worker", || first.count() == 1);
    let second = Worker::saying(&world, 2, "second");
    front.daemon.admit(&second);
    // By the link that stands for the worker's number.
    let link = world.path("app.p.a.1.socket").display().to_string();
    let mut waiting = Client::connect(front.address);
    let down = format!("/__socket_down/{}", base64url(&link));
    waiting.send(format!("POST {down}?wait=1 HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    until("it is down", || json(&front.get("/__upstream_status"))[KEY][0]["down"] == true);
    for _ in 0..10 {
        assert_eq!(front.get("/a").text(), "second");
    }
    waiting.stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(waiting.receive().is_none(), "it waits as long as the worker holds a request");
    waiting.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    tell.send(()).unwrap();
    assert_eq!(slow.receive().unwrap().text(), "first");
    let answer = waiting.receive().unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    let up = format!("/__socket_up/{}", base64url(&first.socket.display().to_string()));
    assert_eq!(post(front.address, &up, "").status, 200);
    until("it gets requests again", || front.get("/a").text() == "first");
    // An unknown socket waits for nothing; what is no base64url is refused.
    let unknown = format!("/__socket_down/{}?wait=1", base64url("/no/such.socket"));
    assert_eq!(post(front.address, &unknown, "").status, 200);
    assert_eq!(post(front.address, "/__socket_down/+", "").status, 400);
    // Of these requests only the one that was refused is in the log.
    until("the log", || world.access_log(1).len() == 13);
    let (own, of_app): (Vec<_>, Vec<_>) =
        world.access_log(1).into_iter().partition(|line| line["plugin"] == "#core#");
    assert!(own.len() == 1 && own[0]["cause"] == "bad_socket", "{own:?}");
    assert!(of_app.iter().all(|line| line["plugin"] == "p"));
}

#[test]
fn waiting_for_a_socket_to_be_idle_ends_with_the_timeout_of_its_app() {
    let world = World::new();
    let worker = Worker::start(&world, 1, |stream, _| {
        write!(stream, "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
            .unwrap();
        stream.read(&mut [0]).is_ok_and(|count| count > 0)
    });
    let mut table = table(Slots::Unlimited, true);
    let mut front = world.serving(table.clone(), &[&worker]);
    let mut upgraded = Client::connect(front.address);
    upgraded.send("GET /a HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    until("it is in the worker", || worker.count() == 1);
    if let Some(spec) = table.upstreams.get_mut("p/a") {
        spec.timeout_ms = 300;
    }
    front.daemon.publish(2, table, &[&worker]);
    let socket = base64url(&worker.socket.display().to_string());
    let answer = post(front.address, &format!("/__socket_down/{socket}?wait=1"), "");
    assert_eq!((answer.status, answer.field("x-mfserv-cause")), (504, vec!["still_busy".into()]));
}

const INNER: [&str; 7] = [
    "/__dev/hello",
    "/status",
    "/__status",
    "/__upstream_status",
    "/uuid",
    "/__socket_down/L2E=",
    "/__socket_up/L2E=",
];

/// An address of this machine that is not the loopback one, if it has any.
pub fn outer_address(port: u16) -> Option<SocketAddr> {
    let probe = UdpSocket::bind("0.0.0.0:0").ok()?;
    probe.connect("192.0.2.77:9").ok()?;
    let ip = probe.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then(|| SocketAddr::new(ip, port))
}

fn with_real_ip(proxies: &[&str]) -> RouteTable {
    let mut table = table(Slots::Unlimited, true);
    table.server.real_ip = Some(RealIp {
        header: "X-Forwarded-For".into(),
        recursive: true,
        proxies: proxies.iter().map(|text| text.to_string()).collect(),
    });
    table
}

fn ask_as(address: SocketAddr, path: &str, forwarded: &str) -> Answer {
    let fields = format!("Host: localhost\r\nX-Forwarded-For: {forwarded}\r\nConnection: close");
    let method = if path.starts_with("/__socket_") { "POST" } else { "GET" };
    ask(address, format!("{method} {path} HTTP/1.1\r\n{fields}\r\n\r\n"))
}

#[test]
fn inner_paths_are_for_this_machine_by_its_real_address_whatever_a_header_says() {
    let world = World::listening_on("0.0.0.0:0");
    let worker = Worker::saying(&world, 1, "ok");
    let local = SocketAddr::from(([127, 0, 0, 1], world.address.port()));
    let mut front = world.front(1);
    front.daemon.publish(1, table(Slots::Unlimited, true), &[&worker]);
    let outer = outer_address(local.port());
    for generation in 2..4 {
        for path in INNER {
            assert_eq!(ask_as(local, path, "127.0.0.1").status, 200, "{path}");
            if let Some(outer) = outer {
                let answer = ask_as(outer, path, "127.0.0.1");
                assert_eq!(answer.status, 403, "{path}");
                assert_eq!(answer.field("x-request-id").len(), 1);
            }
        }
        // The second time with everybody as a trusted proxy.
        front.daemon.publish(generation, with_real_ip(&["0.0.0.0/0"]), &[&worker]);
    }
    // A proxy on this machine does not lend its address.
    for path in INNER {
        assert_eq!(ask_as(local, path, "198.51.100.1").status, 403, "{path}");
    }
    assert_eq!(ask_as(local, "/__health", "198.51.100.1").status, 503);
    let mut table = with_real_ip(&["0.0.0.0/0"]);
    table.server.uuid_allows = vec!["198.51.100.0/24".into(), "127.0.0.0/8".into()];
    if let Some(outer) = outer {
        table.server.uuid_allows.push(format!("{}/32", outer.ip()));
        front.daemon.publish(5, table, &[&worker]);
        assert_eq!(ask_as(outer, "/uuid", "198.51.100.1").status, 200);
        assert_eq!(ask_as(outer, "/uuid", "203.0.113.1").status, 403);
        assert_eq!(ask_as(outer, "/status", "198.51.100.1").status, 403);
    }
}

#[test]
fn what_has_an_effect_is_asked_for_with_post_and_everything_else_with_get() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    let down = format!("/__socket_down/{}", base64url(&worker.socket.display().to_string()));
    let ask_by = |method: &str, path: &str| {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
        let answer = ask(front.address, format!("{head}Connection: close\r\n\r\n"));
        (answer.status, answer.field("allow"))
    };
    for method in ["GET", "HEAD", "PUT", "OPTIONS"] {
        assert_eq!(ask_by(method, &down), (405, vec!["POST".to_string()]), "{method}");
    }
    assert_eq!(front.get("/a").text(), "ok", "nothing has come of it");
    for path in INNER.iter().filter(|path| !path.starts_with("/__socket_")) {
        for method in ["POST", "PUT", "DELETE"] {
            let wanted = (405, vec!["GET, HEAD".to_string()]);
            assert_eq!(ask_by(method, path), wanted, "{method} {path}");
        }
        assert_eq!(ask_by("HEAD", path).0, 200, "{path}");
    }
    // Load balancers ask for the health in their own ways.
    assert_eq!(ask(front.address, "OPTIONS /__health HTTP/1.0\r\n\r\n").status, 503);
    assert_eq!(ask_by("POST", "/__health").0, 405);
}

#[test]
fn a_web_page_that_a_browser_here_shows_reaches_no_inner_path() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    let port = front.address.port();
    let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let ask_with = |path: &str, host: &str, fields: &str| {
        let method = if path.starts_with("/__socket_") { "POST" } else { "GET" };
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        ask(front.address, format!("{head}{fields}\r\n"))
    };
    for path in INNER {
        for (host, fields) in [
            ("evil.example", ""),
            ("127.0.0.1.nip.io:80", ""),
            ("localhost", "Origin: http://evil.example\r\n"),
            ("localhost", "Origin: null\r\n"),
            ("localhost", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n"),
            ("localhost", "Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: cors\r\n"),
        ] {
            let answer = ask_with(path, host, fields);
            let cause = answer.field("x-mfserv-cause").concat();
            assert_eq!((answer.status, cause.as_str()), (403, "foreign_page"), "{path} {host}");
        }
        let page = format!("Origin: http://127.0.0.1:{port}\r\nSec-Fetch-Site: same-origin\r\n");
        assert_eq!(ask_with(path, &format!("127.0.0.1:{port}"), &page).status, 200, "{path}");
        assert_eq!(ask_with(path, &own, "").status, 200, "{path}");
    }
    // Health is for everybody, by whatever name.
    assert_eq!(ask_with("/__health", "www.example.org", "").status, 503);
}

#[test]
fn the_address_comes_from_the_header_of_trusted_proxies_only() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let mut front = world.serving(with_real_ip(&["127.0.0.0/8", "10.0.0.0/8"]), &[&worker]);
    let asked = "GET /a HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 9.9.9.9, 1.2.3.4, 10.0.0.1\r\n\
                 X-Forwarded-Proto: https\r\nX-Forwarded-Host: shown\r\n\
                 X-Forwarded-Prefix: /x\r\nForwarded: for=9.9.9.9\r\nConnection: close\r\n\r\n";
    let address = front.address;
    let asks = || ask(address, asked).field("x-request-id").remove(0);
    let first = asks();
    let received = worker.requests.lock().unwrap()[0].clone();
    assert_eq!(received.field("x-real-ip"), ["1.2.3.4"]);
    assert_eq!(received.field("x-forwarded-for"), ["9.9.9.9, 1.2.3.4, 10.0.0.1, 1.2.3.4"]);
    assert_eq!(received.field("x-forwarded-proto"), ["https"]);
    assert_eq!(received.field("x-forwarded-host"), ["shown"]);
    // Somebody who is not trusted has no say about any of it.
    front.daemon.publish(2, with_real_ip(&["10.0.0.0/8"]), &[&worker]);
    let second = asks();
    let received = worker.requests.lock().unwrap()[1].clone();
    assert_eq!(received.field("x-real-ip"), ["127.0.0.1"]);
    assert_eq!(received.field("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(received.field("x-forwarded-proto"), ["http"]);
    assert_eq!(received.field("x-forwarded-prefix"), [""; 0]);
    assert_eq!(received.field("forwarded"), [""; 0]);
    assert_eq!(received.field("x-forwarded-host"), ["h"]);
    // Off: as before, what comes in is passed on.
    front.daemon.publish(3, table(Slots::Unlimited, true), &[&worker]);
    let third = asks();
    let received = worker.requests.lock().unwrap()[2].clone();
    assert_eq!(received.field("x-forwarded-proto"), ["https"]);
    let [first, second, third] = [first, second, third].map(|id| world.logged("request_id", id));
    assert_eq!((&first["from"], &first["via"]), (&"1.2.3.4".into(), &"127.0.0.1".into()));
    assert_eq!((&second["from"], &second["via"]), (&"127.0.0.1".into(), &"127.0.0.1".into()));
    assert!(third.get("via").is_none());
    let text = std::fs::read_to_string(world.path("log/nginx_access.log")).unwrap();
    let fields = "\"from\": \"1.2.3.4\", \"via\": \"127.0.0.1\", \"host\"";
    assert!(text.lines().any(|line| line.contains(fields)), "{text}");
}

#[test]
fn a_table_with_an_unusable_network_is_refused() {
    let world = World::new();
    let mut front = world.front(1);
    let (table, peers) = (Box::new(with_real_ip(&["10.0.0.0/99"])), Default::default());
    front.daemon.say(&ToFront::Publish { generation: 1, table, peers });
    let said = front.daemon.hear();
    assert!(format!("{said:?}").contains("is no network"), "{said:?}");
}

#[test]
fn every_answer_names_its_request_and_every_error_its_cause() {
    let Some(world) = World::where_holds("own_refusals") else { return };
    let worker = Worker::start(&world, 1, |stream, _| {
        use std::io::Write;
        stream.write_all(b"nonsense\r\n\r\n").is_ok()
    });
    let mut front = world.serving(table(ONE, true), &[&worker]);
    for (request, status, cause) in [
        ("GET /none HTTP/1.1\r\nHost: h\r\n\r\n", 404, "no_route"),
        ("GET /a HTTP/1.1\r\nHost: h\r\n\r\n", 502, "malformed"),
        ("TRACE /a HTTP/1.1\r\nHost: h\r\n\r\n", 405, "method"),
        ("GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad_path"),
        ("GET / HTTP/1.1\r\n\r\n", 400, "bad_request"),
        ("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999\r\n\r\n", 413, "too_large"),
        ("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", 200, ""),
        ("GET /__health HTTP/1.1\r\nHost: h\r\n\r\n", 503, ""),
    ] {
        let answer = ask(front.address, request);
        assert_eq!(answer.status, status, "{request}");
        let id = answer.field("x-request-id").remove(0);
        assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        if !cause.is_empty() {
            assert_eq!(answer.field("x-mfserv-cause"), [cause]);
            assert!(answer.text().contains(&id) && answer.text().contains(cause));
        }
    }
    let unknown = Worker::start_of(&world, "p/other", 1, true, |_, _| false);
    front.daemon.say(&ToFront::Admit { upstream: "p/other".into(), peer: unknown.peer() });
    front
        .daemon
        .wait_for(|m| matches!(m, FromFront::Trouble { cause: TroubleCause::UnknownApp, .. }));
}

#[test]
fn trouble_is_told_to_every_daemon_that_listens() {
    let world = World::new();
    let worker = Worker::start(&world, 1, |_, _| false);
    let mut front = world.serving(table(ONE, true), &[&worker]);
    let mut second = Daemon::connect(&front.socket);
    assert_eq!(front.get("/a").status, 502);
    let is_trouble =
        |m: &FromFront| matches!(m, FromFront::Trouble { cause: TroubleCause::Reset, .. });
    front.daemon.wait_for(is_trouble);
    second.wait_for(is_trouble);
}

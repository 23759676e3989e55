//! TLS: the same front behind it, with clients of other makers (curl, OpenSSL, Python).

mod clients;
mod costs;
mod counts;
mod files;
pub mod kit;
mod outdated;
mod renewal;
mod resumption;
mod transfers;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use mfserv_core::wire::front::{FromFront, ToFront};
use rustix::process::Signal;

use self::kit::{Authority, connect, curl, python, serving, settings, tls_table};
use crate::start::differs;
use crate::world::{PATIENCE, Worker, World, until};

#[test]
fn a_request_over_tls_reaches_the_app_as_one_of_https() {
    let world = World::with_tls();
    let worker = Worker::saying(&world, 1, "hello");
    let (_front, ca) = serving(&world, &[&worker]);
    let port = world.secure_port();
    let answer = curl(&world, &ca, "localhost", "/a/x?y=1", &["-H", "X-Mine: 1"]);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hello"), "{answer}");
    let received = worker.last();
    assert_eq!(received.target(), "/a/x?y=1");
    assert_eq!(received.field("x-forwarded-proto"), ["https"]);
    assert_eq!(received.field("x-forwarded-port"), [port.to_string()]);
    assert_eq!(received.field("x-mine"), ["1"]);
    assert_eq!(received.field("x-ssl-client-verify"), [""; 0]);
    // One connection for many requests, and pipelined ones.
    let said = python(
        &world,
        &ca,
        r#"
s = connect()
for n in range(50):
    s.sendall(b"GET /a/%d HTTP/1.1\r\nHost: h\r\n\r\n" % n)
    assert answer(s)[1] == b"hello"
s.sendall(b"GET /a/p HTTP/1.1\r\nHost: h\r\n\r\n" * 20)
f = s.makefile("rb")
for n in range(20):
    assert read(f)[1] == b"hello"
print(s.version())
"#,
        &[],
    );
    assert_eq!(said.trim(), "TLSv1.3");
    assert_eq!(worker.count(), 71);
    let plain = crate::world::get(world.address, "/a");
    assert_eq!(plain.text(), "hello");
    assert_eq!(worker.last().field("x-forwarded-proto"), ["http"]);
}

#[test]
fn an_end_is_said_and_a_cut_is_not() {
    let world = World::with_tls();
    let worker = Worker::start(&world, 1, |stream, received| {
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let chunk = [&b"10000\r\n"[..], &[b'x'; 0x10000], b"\r\n"].concat();
        // So much that the client has had a part when the rest turns out to be none.
        let content = chunk.repeat(64);
        let end: &[u8] = if received.target() == "/a/cut" { b"ZZ" } else { b"0\r\n\r\n" };
        let _ = stream.write_all(&[head, &content[..], end].concat());
        false
    });
    let (_front, ca) = serving(&world, &[&worker]);
    // An answer to HTTP/1.0 is as long as the connection: only its end says that it is whole.
    let code = r#"
s = connect(suppress_ragged_eofs=False)
s.sendall(b"GET %s HTTP/1.0\r\nHost: h\r\n\r\n" % sys.argv[1].encode())
got = b""
try:
    while True:
        more = s.recv(65536)
        if not more:
            print("ended", len(got.split(b"\r\n\r\n", 1)[1])); break
        got += more
except (ssl.SSLEOFError, ConnectionResetError):
    print("cut")
"#;
    assert_eq!(python(&world, &ca, code, &["/a"]).trim(), "ended 4194304");
    if !differs("old_clients") {
        assert_eq!(python(&world, &ca, code, &["/a/cut"]).trim(), "cut");
    }
}

#[test]
fn a_request_in_clear_on_the_port_of_tls_is_told_so() {
    let world = World::with_tls();
    let worker = Worker::saying(&world, 1, "hello");
    let (mut front, _ca) = serving(&world, &[&worker]);
    let address = format!("127.0.0.1:{}", world.secure_port()).parse().unwrap();
    let answer = crate::world::ask(address, "GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!((answer.status, answer.field("connection")), (400, vec!["close".to_string()]));
    if !differs("own_refusals") {
        assert_eq!(answer.field("x-mfserv-cause"), ["plain_http"]);
    }
    let bad = crate::world::ask(address, "NONSENSE\r\n\r\n");
    assert_eq!(bad.status, 400);
    assert_eq!(worker.count(), 0, "nothing reaches an app in clear");
    let warnings = front.daemon.stats().warnings;
    assert!(warnings.values().all(|warned| !warned.is_fault), "{warnings:?}");
}

#[test]
fn bytes_that_are_no_handshake_harm_nobody_and_are_not_waited_for() {
    let world = World::with_tls();
    let worker = Worker::saying(&world, 1, "hello");
    let (front, ca) = serving_with(&world, &worker, 300);
    let port = world.secure_port();
    let hello = client_hello(&world, &ca);
    let mut tries: Vec<Vec<u8>> = vec![
        vec![22],
        vec![22, 3, 1, 0xff, 0xff],
        vec![22, 3, 1, 0, 0],
        vec![0x80, 0x2e, 1, 0, 2],
        vec![0; 70_000],
        vec![255; 70_000],
        [&[23, 3, 3, 0x40, 0][..], &[7; 0x4000]].concat(),
        hello[..hello.len() / 2].to_vec(),
        [&hello[..], &[21, 3, 3, 0, 2, 2, 40]].concat(),
        [&hello[..], &[22, 3, 3, 0, 5, 1, 2, 3, 4, 5]].concat(),
    ];
    // A seeded walk over single altered bytes of a real hello.
    for at in (0..hello.len()).step_by(7) {
        let mut altered = hello.clone();
        altered[at] ^= 0x55;
        tries.push(altered);
    }
    let began = Instant::now();
    for bytes in &tries {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // The front may have closed already.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    // A silent client, and one that stops in the middle: the front closes both in time.
    for bytes in [&[][..], &hello[..20]] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        assert!(stream.read_to_end(&mut Vec::new()).is_ok(), "the front ends it");
    }
    assert!(began.elapsed() < PATIENCE, "nobody was waited for");
    assert!(curl(&world, &ca, "localhost", "/a", &[]).ends_with("hello"));
    let mut front = front;
    if !differs("counters") {
        until("all connections are closed", || front.daemon.stats().connections == 0);
    }
    assert_eq!(worker.count(), 1);
}

fn serving_with(
    world: &World,
    worker: &Worker,
    header_ms: u64,
) -> (crate::world::Front, Authority) {
    let ca = Authority::new(world);
    ca.issue(world, "server", &["localhost"]);
    let mut table = tls_table(world, settings(world, "server"));
    table.server.header_timeout_ms = header_ms;
    (world.serving(table, &[worker]), ca)
}

/// The first bytes of a client of Python.
fn client_hello(world: &World, ca: &Authority) -> Vec<u8> {
    let code = r#"
c = context()
i, o = ssl.MemoryBIO(), ssl.MemoryBIO()
s = c.wrap_bio(i, o, server_hostname="localhost")
try: s.do_handshake()
except ssl.SSLWantReadError: pass
print(o.read().hex())
"#;
    let text = python(world, ca, code, &[]);
    let text = text.trim();
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

#[test]
fn versions_and_ciphers_are_those_of_the_settings() {
    let world = World::with_tls();
    let worker = Worker::saying(&world, 1, "hello");
    let (mut front, ca) = serving(&world, &[&worker]);
    for (arguments, expected) in [
        (&["-tls1_3"][..], Some("TLSv1.3, Cipher is TLS_AES_256_GCM_SHA384")),
        (&["-tls1_2"], Some("TLSv1.2, Cipher is ECDHE-ECDSA-AES256-GCM-SHA384")),
        (
            &["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"],
            Some("TLSv1.2, Cipher is ECDHE-ECDSA-CHACHA20-POLY1305"),
        ),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:AES128-SHA@SECLEVEL=0"], None),
        (&["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"], None),
        (&["-tls1", "-cipher", "DEFAULT@SECLEVEL=0"], None),
    ] {
        let said = connect(&world, &ca, "localhost", arguments);
        match expected {
            Some(expected) => assert!(said.contains(expected), "{arguments:?}: {said}"),
            None => assert!(said.contains("Cipher is (NONE)"), "{arguments:?}: {said}"),
        }
    }
    let mut narrow = settings(&world, "server");
    narrow.versions = vec![mfserv_core::tls::Version::V1_2];
    narrow.ciphers = vec!["ECDHE-ECDSA-AES128-GCM-SHA256".into()];
    front.daemon.publish(2, tls_table(&world, narrow), &[&worker]);
    let said = connect(&world, &ca, "localhost", &[]);
    assert!(said.contains("TLSv1.2, Cipher is ECDHE-ECDSA-AES128-GCM-SHA256"), "{said}");
    assert!(connect(&world, &ca, "localhost", &["-tls1_3"]).contains("Cipher is (NONE)"));
    // Settings that leave nothing are refused, and those before stay.
    let mut nothing = settings(&world, "server");
    nothing.ciphers = Vec::new();
    let peers = Default::default();
    let table = Box::new(tls_table(&world, nothing));
    front.daemon.say(&ToFront::Publish { generation: 3, table, peers });
    let refused = front.daemon.wait_for(|m| matches!(m, FromFront::Refused { .. }));
    assert!(format!("{refused:?}").contains("ssl_ciphers"), "{refused:?}");
    assert!(curl(&world, &ca, "localhost", "/a", &[]).ends_with("hello"));
}

#[test]
fn a_front_that_ends_answers_what_it_has_and_says_the_end_and_loses_no_line_of_its_logs() {
    let world = World::with_tls();
    let gate = Arc::new(AtomicBool::new(false));
    let may_end = gate.clone();
    let worker = Worker::start(&world, 1, move |stream, _| {
        until("the request may end", || may_end.load(Ordering::SeqCst));
        crate::world::say(stream, "late")
    });
    let (mut front, ca) = serving(&world, &[&worker]);
    let asked = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let code = r#"
s = connect(suppress_ragged_eofs=False)
n, head = 0, b""
while b"Connection: close" not in head:
    s.sendall(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
    head, body = answer(s)
    assert body == b"late"
    n += 1
assert s.recv(1) == b"", "an end is said"
print(n)
"#;
            python(&world, &ca, code, &[])
        });
        until("the worker has the request", || worker.count() == 1);
        front.signal(Signal::TERM);
        // Before that nginx would keep the connection, and end it while the next request comes.
        until("it is to end", || crate::fragments::is_ending(&front));
        gate.store(true, Ordering::SeqCst);
        client.join().unwrap()
    });
    assert!(front.ended().success());
    let log = std::fs::read_to_string(world.path("log/nginx_access.log")).unwrap();
    assert_eq!(log.lines().count(), asked.trim().parse::<usize>().unwrap(), "{log}");
}

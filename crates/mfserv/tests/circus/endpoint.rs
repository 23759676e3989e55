//! The sockets of Circus, and the file that shows the watchers.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use mfserv_testkit::{Node, until, until_some};

use super::{Client, shop, socket};
use crate::{PATIENCE, Turn};

/// The greeting and the handshake of a DEALER, and a message.
fn asking(text: &str) -> Vec<u8> {
    let mut bytes = vec![0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0];
    bytes.extend_from_slice(b"NULL");
    bytes.resize(64, 0);
    bytes.extend_from_slice(b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06DEALER");
    bytes.extend([0, text.len() as u8]);
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// A question is answered on this socket.
fn is_answered(socket: &Path) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(&asking(r#"{"command":"numwatchers","id":1}"#))?;
        let (mut heard, mut bytes) = (String::new(), [0; 1000]);
        while !heard.contains("numwatchers") {
            match stream.read(&mut bytes)? {
                0 => return Ok(false),
                read => heard += &String::from_utf8_lossy(&bytes[..read]),
            }
        }
        Ok(true)
    };
    ask().unwrap_or(false)
}

/// Descriptors and resident memory of a process, KiB.
fn holds(pid: u32) -> (usize, u64) {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let memory = line.trim().trim_end_matches(" kB").parse().unwrap();
    (descriptors, memory)
}

#[test]
fn ten_thousand_clients_that_connect_and_go_leave_nothing_behind() {
    let _turn = Turn::heavy();
    let node = shop();
    let daemon = node.role_pid("daemon");
    let whole = asking(r#"{"command":"numwatchers","id":1}"#);
    let endless = [&whole[..94], &[2, 255, 255, 255, 255, 255, 255, 255, 255]].concat();
    let said: [&[u8]; 6] =
        [b"", &whole[..11], b"GET / HTTP/1.1\r\n\r\n", &whole[..70], &endless, &whole];
    let sockets = [socket(&node), node.path("var/circus_pubsub.socket")];
    let crowd = |clients: usize| {
        for number in 0..clients {
            let mut stream = UnixStream::connect(&sockets[number % 2]).unwrap();
            // One that was refused may be closed already.
            let _ = stream.write_all(said[number % said.len()]);
        }
    };
    // What a first crowd makes the daemon allocate is kept for the next.
    crowd(1000);
    let settled = || {
        let mut before = holds(daemon);
        until("the daemon has let go of them", PATIENCE, || {
            std::thread::sleep(Duration::from_millis(100)); // Between two looks.
            let now = holds(daemon);
            std::mem::replace(&mut before, now).0 == now.0 && now.0 < 64
        });
        before
    };
    let (descriptors, memory) = settled();
    crowd(10_000);
    let (after, grown) = settled();
    assert!(after <= descriptors + 3, "{descriptors} descriptors, then {after}");
    // Each client has a buffer of 4 KiB: if all had stayed it would be 40 MiB.
    assert!(grown < memory + 16 * 1024, "{memory} KiB, then {grown} KiB");
    until("it answers as before", PATIENCE, || is_answered(&sockets[0]));
    // Also a daemon that follows one that was killed.
    node.kill(daemon);
    until("the next daemon answers", PATIENCE, || is_answered(&sockets[0]));
    // The sockets are made again when they are removed.
    for socket in &sockets {
        std::fs::remove_file(socket).unwrap();
    }
    until("they are there again", PATIENCE, || {
        sockets.iter().all(|socket| UnixStream::connect(socket).is_ok())
    });
    node.stop();
}

#[test]
fn circus_ini_is_for_people_and_an_endpoint_of_tcp_only_looks_unless_it_may_change() {
    let _turn = Turn::cheap();
    let node = shop();
    people_are_shown(&node);
    let config = node.path("config/config.ini");
    let written = std::fs::read_to_string(&config).unwrap();
    for (endpoint, why) in [
        ("tcp://0.0.0.0:5555", "loopback"),
        ("tcp://*:5555", "loopback"),
        ("here", "neither ipc://"),
    ] {
        std::fs::write(&config, format!("{written}\n[circus]\nendpoint={endpoint}\n")).unwrap();
        for command in ["check", "reload"] {
            let refused = node.mfserv(&[command]).code(4);
            let said = refused.stdout + &refused.stderr;
            assert!(said.contains("[circus] endpoint has a wrong value"), "{endpoint}: {said}");
            assert!(said.contains(why), "{endpoint}: {said}");
        }
    }
    std::fs::write(&config, written).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let endpoint = format!("tcp://127.0.0.1:{port}");
    node.set("circus.endpoint", &endpoint);
    node.mfserv(&["reload"]).code(0);
    let note = format!("cannot listen on {endpoint}: Address already in use");
    until("status says so", PATIENCE, || {
        node.status().notes.iter().any(|known| known.starts_with(&note))
    });
    drop(taken);
    let address: SocketAddr = ([127, 0, 0, 1], port).into();
    until("it listens", PATIENCE, || std::net::TcpStream::connect(address).is_ok());
    until("the other endpoint has gone", PATIENCE, || !socket(&node).exists());
    let shown = std::fs::read_to_string(node.path("tmp/config_auto/circus.ini")).unwrap();
    assert!(shown.contains(&format!("endpoint = {endpoint}\n")), "{shown}");
    let Some(mut client) = Client::of(&endpoint) else { return };
    client.check(&[
        ("status", 0, "app.shop.main: active\nnginx: active"),
        ("stop app.shop.main", 3, "error: over tcp:// a client may only look…"),
        ("quit", 3, "error: over tcp:// a client may only look…"),
        ("set app.shop.main max_age 5", 3, "error: over tcp:// a client may only look…"),
    ]);
    let env = client.says("get app.shop.main env");
    assert!(env.contains("MFSERV_CURRENT_PLUGIN_NAME=***") && !env.contains("=shop"), "{env}");
    node.set("circus.tcp_may_change", "1");
    node.mfserv(&["reload"]).code(0);
    until("it may change the node", PATIENCE, || client.run("incr app.shop.main").0 == 0);
    let mut held = std::net::TcpStream::connect(address).unwrap();
    held.set_read_timeout(Some(PATIENCE)).unwrap();
    held.write_all(&asking(r#"{"command":"numwatchers","id":1}"#)).unwrap();
    held.read_exact(&mut [0; 120]).unwrap();
    node.set("circus.tcp_may_change", "0");
    node.mfserv(&["reload"]).code(0);
    let closed = held.read_to_end(&mut Vec::new());
    assert!(closed.is_ok(), "who was let in before is let go: {closed:?}");
    node.stop();
}

/// The watchers are shown to people as a configuration of Circus.
fn people_are_shown(node: &Node) {
    let ini = node.path("tmp/config_auto/circus.ini");
    let shown = until_some("it is written", PATIENCE, || std::fs::read_to_string(&ini).ok());
    assert_eq!(std::fs::metadata(&ini).unwrap().permissions().mode() & 0o777, 0o600);
    for line in [
        "# What mfserv keeps running, made from plan …",
        "[watcher:app.shop.main]",
        "cmd = python3",
        "numprocesses = 2",
        "graceful_timeout = …",
        "[env:app.shop.main]",
        "MFSERV_CURRENT_PLUGIN_NAME = shop",
        "[watcher:nginx]",
    ] {
        let is_there = match line.strip_suffix('…') {
            Some(begin) => shown.lines().any(|one| one.starts_with(begin)),
            None => shown.lines().any(|one| one == line),
        };
        assert!(is_there, "{line}: {shown}");
    }
    node.mfserv(&["scale", "shop", "1"]).code(0);
    until("it shows the new count", PATIENCE, || {
        std::fs::read_to_string(&ini).is_ok_and(|text| text.contains("numprocesses = 1\n"))
    });
}

//! Large and slow transfers, and upgraded connections.

use std::io::{Read, Write};
use std::sync::mpsc::sync_channel;

use mfserv_core::route::{Slots, Target};

use super::kit::{Authority, python, serving, settings, tls_table};
use crate::world::{PATIENCE, Worker, World, route, say};

/// A body of this length that is not the same everywhere.
fn content(length: usize) -> Vec<u8> {
    (0..length as u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .take(length)
        .collect()
}

const CONTENT: &str = r#"
def content(length):
    import array
    a = array.array("I", ((n * 2654435761) & 0xffffffff for n in range((length + 3) // 4)))
    return a.tobytes()[:length]
"#;

#[test]
fn large_bodies_arrive_as_they_were_sent_both_ways() {
    for slots in [Slots::Finite { per_worker: 1 }, Slots::Unlimited] {
        let world = World::with_tls();
        let worker = Worker::start(&world, 1, |stream, received| {
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", received.body.len());
            stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.write_all(&received.body))
                .is_ok()
        });
        let ca = Authority::new(&world);
        ca.issue(&world, "server", &["localhost"]);
        let mut table = tls_table(&world, settings(&world, "server"));
        table.server.max_body_bytes = 64 << 20;
        table.upstreams.get_mut("p/a").unwrap().slots = slots;
        let _front = world.serving(table, &[&worker]);
        let code = r#"
for length in (1, 16383, 16384, 16385, 100000, 20 << 20):
    body = content(length)
    s = connect()
    s.sendall(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % length)
    s.sendall(body)
    head, got = answer(s)
    assert got == body, (length, head, len(got))
    # The same in chunks.
    half = length // 2
    parts = [p for p in (body[:half], body[half:]) if p]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"
    s.sendall(b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
    head, got = answer(s)
    assert got == body, (length, head, len(got))
print("done")
"#;
        assert_eq!(python(&world, &ca, &format!("{CONTENT}{code}"), &[]).trim(), "done");
        assert_eq!(worker.last().body.len(), 20 << 20);
    }
}

#[test]
fn files_arrive_whole_and_in_parts() {
    let world = World::with_tls();
    let ca = Authority::new(&world);
    ca.issue(&world, "server", &["localhost"]);
    let root = world.path("files");
    std::fs::create_dir(&root).unwrap();
    for length in [0, 100, 16 << 10, (16 << 10) + 1, 10 << 20] {
        std::fs::write(root.join(length.to_string()), content(length)).unwrap();
    }
    let mut table = tls_table(&world, settings(&world, "server"));
    table.routes.push(route("/s", Target::Static { root }));
    let _front = world.serving(table, &[]);
    let code = r#"
s = connect()
f = s.makefile("rb")
for length in (0, 100, 16 << 10, (16 << 10) + 1, 10 << 20):
    body = content(length)
    s.sendall(b"GET /s/%d HTTP/1.1\r\nHost: h\r\n\r\n" % length)
    head, got = read(f)
    assert got == body, (length, head)
    if length > 1000:
        s.sendall(b"GET /s/%d HTTP/1.1\r\nHost: h\r\nRange: bytes=7-%d\r\n\r\n" % (length, length - 5))
        head, got = read(f)
        assert head.startswith(b"HTTP/1.1 206") and got == body[7:length - 4], (length, head)
# The redirect of a directory keeps the scheme.
s.sendall(b"GET /s HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % port)
head, _ = read(f)
assert b"Location: https://localhost:%d/s/\r\n" % port in head, head
print("done")
"#;
    assert_eq!(python(&world, &ca, &format!("{CONTENT}{code}"), &[]).trim(), "done");
}

#[test]
fn a_slow_reader_gets_all_and_holds_no_worker() {
    let world = World::with_tls();
    let worker = Worker::start(&world, 1, |stream, received| {
        if received.target() == "/a/quick" {
            return say(stream, "quick");
        }
        let body = content(20 << 20);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).is_ok()
    });
    let (_front, ca) = serving(&world, &[&worker]);
    let code = r#"
body = content(20 << 20)
slow = connect()
slow.sendall(b"GET /a/large HTTP/1.1\r\nHost: h\r\n\r\n")
f = slow.makefile("rb", buffering=0)
got = b""
# The only worker serves others although this client has read almost nothing.
for n in range(20):
    got += slow.recv(1000)
    quick = connect()
    quick.sendall(b"GET /a/quick HTTP/1.1\r\nHost: h\r\n\r\n")
    assert answer(quick)[1] == b"quick"
while len(got.split(b"\r\n\r\n", 1)[1]) < len(body):
    more = slow.recv(1 << 20)
    assert more
    got += more
assert got.split(b"\r\n\r\n", 1)[1] == body
print("done")
"#;
    assert_eq!(python(&world, &ca, &format!("{CONTENT}{code}"), &[]).trim(), "done");
}

#[test]
fn a_client_that_takes_little_in_time_is_served_and_one_that_takes_nothing_is_cut() {
    let world = World::with_tls();
    let ca = Authority::new(&world);
    ca.issue(&world, "server", &["localhost"]);
    let root = world.path("files");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("f"), content(8 << 20)).unwrap();
    let mut table = tls_table(&world, settings(&world, "server"));
    table.server.client_timeout_ms = 1000;
    table.routes.push(route("/s", Target::Static { root }));
    let mut front = world.serving(table, &[]);
    let code = r#"
def small():
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.connect(("127.0.0.1", port))
    s = context().wrap_socket(s, server_hostname="localhost")
    s.sendall(b"GET /s/f HTTP/1.1\r\nHost: h\r\n\r\n")
    return s
silent, slow = small(), small()
got = 0
end = time.monotonic() + 4
while time.monotonic() < end:
    got += len(slow.recv(65536))
    time.sleep(0.005) # a client that reads slowly
total = 8 << 20
while got < total:
    more = slow.recv(1 << 20)
    assert more, got
    got += len(more)
# The other one has taken nothing for longer than is allowed.
try:
    got = 0
    while True:
        more = silent.recv(1 << 20)
        if not more: break
        got += len(more)
except (ssl.SSLError, ConnectionResetError):
    pass
assert got < total, got
print("done")
"#;
    assert_eq!(python(&world, &ca, code, &[]).trim(), "done");
    crate::world::until("both are gone", || front.daemon.stats().connections == 0);
}

#[test]
fn an_upgraded_connection_passes_bytes_both_ways_until_each_side_has_ended() {
    let world = World::with_tls();
    let (ended, end) = sync_channel(1);
    let worker = Worker::start(&world, 1, move |stream, received| {
        assert_eq!(received.field("upgrade"), ["websocket"]);
        let head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
            Connection: upgrade\r\n\r\nahead";
        stream.write_all(head).unwrap();
        let mut got = Vec::new();
        let mut room = [0; 65536];
        loop {
            match stream.read(&mut room) {
                Ok(0) | Err(_) => break,
                Ok(count) => {
                    got.extend_from_slice(&room[..count]);
                    if stream.write_all(&room[..count]).is_err() {
                        break;
                    }
                }
            }
        }
        ended.send(got.len()).unwrap();
        let _ = stream.write_all(b"bye");
        false
    });
    let (_front, ca) = serving(&world, &[&worker]);
    let code = r#"
s = connect(suppress_ragged_eofs=False)
s.sendall(b"GET /a HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
got = b""
while not got.endswith(b"ahead"):
    got += s.recv(65536)
assert got.startswith(b"HTTP/1.1 101"), got
body = content(5 << 20)
assert pump(s, body) == body
# The end of one direction is passed on, and the other goes on.
for n in range(20):
    s.sendall(b"x"); assert s.recv(1) == b"x"
print("echoed")
"#;
    assert_eq!(python(&world, &ca, &format!("{CONTENT}{code}"), &[]).trim(), "echoed");
    assert_eq!(end.recv_timeout(PATIENCE).unwrap(), (5 << 20) + 20);
}

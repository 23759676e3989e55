use super::*;
use crate::message;

const LIMITS: Limits = Limits { message: 1000, frames: 3 };

fn greeting(mechanism: &str) -> Vec<u8> {
    // As libzmq sends it: the length of an identity of 32 bytes in the signature, ZMTP 3.1.
    let mut bytes = vec![0xff, 0, 0, 0, 0, 0, 0, 0, 0x21, 0x7f, 3, 1];
    bytes.extend_from_slice(mechanism.as_bytes());
    bytes.resize(64, 0);
    bytes
}

fn ready(kind: &str) -> Vec<u8> {
    let properties = [("Identity", &b"0123"[..]), ("socket-type", kind.as_bytes())];
    command("READY", &frame::properties(&properties))
}

/// Everything that comes of these bytes, sent in pieces of this size.
fn heard(role: Role, bytes: &[u8], size: usize) -> Result<Vec<Event>, Violation> {
    let (mut connection, _) = Connection::new(role, LIMITS);
    let mut events = Vec::new();
    for piece in bytes.chunks(size) {
        connection.receive(piece);
        while let Some(event) = connection.next_event()? {
            events.push(event);
        }
        assert!(connection.pending() <= LIMITS.message + 9 + size, "what is held has a bound");
    }
    Ok(events)
}

fn session(kind: &str, rest: &[u8]) -> Vec<u8> {
    [&greeting("NULL")[..], &ready(kind), rest].concat()
}

fn own_ready(kind: &str) -> Event {
    Event::Reply(command("READY", &frame::properties(&[("Socket-Type", kind.as_bytes())])))
}

#[test]
fn a_dealer_is_heard_however_its_bytes_are_cut() {
    let long = vec![b'x'; 300];
    let sent = [message(&[b"{}"]), message(&[b"", &long])].concat();
    let expected = vec![
        own_ready("ROUTER"),
        Event::Ready,
        Event::Message(vec![b"{}".to_vec()]),
        Event::Message(vec![Vec::new(), long.clone()]),
    ];
    for size in [1, 2, 7, 63, 64, 65, 10_000] {
        assert_eq!(heard(Role::Router, &session("DEALER", &sent), size).unwrap(), expected);
    }
}

#[test]
fn the_first_bytes_of_a_server_are_a_greeting_of_zmtp_3() {
    let (_, first) = Connection::new(Role::Router, LIMITS);
    assert_eq!(first.len(), 64);
    assert_eq!(first[..16], *b"\xff\0\0\0\0\0\0\0\0\x7f\x03\0NULL");
    assert!(first[16..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_subscriber_says_what_it_wants_as_messages_and_as_commands() {
    let sent = [
        message(&[b"\x01watcher."]),
        command("SUBSCRIBE", b"job."),
        message(&[b"\0watcher."]),
        command("CANCEL", b"job."),
        message(&[b"for nobody"]),
        message(&[b"\x01"]),
    ];
    let expected = [
        own_ready("PUB"),
        Event::Ready,
        Event::Subscribe(b"watcher.".to_vec()),
        Event::Subscribe(b"job.".to_vec()),
        Event::Unsubscribe(b"watcher.".to_vec()),
        Event::Unsubscribe(b"job.".to_vec()),
        Event::Subscribe(Vec::new()),
    ];
    assert_eq!(heard(Role::Publisher, &session("SUB", &sent.concat()), 5).unwrap(), expected);
}

#[test]
fn a_ping_is_answered_and_unknown_commands_are_passed_over() {
    let sent = [command("PING", b"\0\x01abc"), command("LATER", b"x"), message(&[b"a"])].concat();
    let heard = heard(Role::Router, &session("REQ", &sent), 4).unwrap();
    assert_eq!(heard[2], Event::Reply(command("PONG", b"abc")));
    assert_eq!(heard[3], Event::Message(vec![b"a".to_vec()]));
}

#[test]
fn hostile_bytes_are_refused_as_soon_as_they_are_seen() {
    let after = |bytes: &[u8]| session("DEALER", bytes);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec(), "begin"),
        ("a signature without its end", vec![0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7e], "begin"),
        ("ZMTP 2", b"\xff\0\0\0\0\0\0\0\x01\x7f\x01".to_vec(), "older"),
        ("CURVE", greeting("CURVE"), "NULL"),
        ("NULL and more", greeting("NULLX"), "NULL"),
        ("a message first", [greeting("NULL"), message(&[b"{}"])].concat(), "before"),
        ("another command first", [greeting("NULL"), command("HELLO", b"")].concat(), "READY"),
        ("the wrong socket", [greeting("NULL"), ready("SUB")].concat(), "type"),
        ("no socket", [greeting("NULL"), command("READY", b"")].concat(), "type"),
        ("cut properties", [greeting("NULL"), command("READY", b"\x0bSock")].concat(), "cut"),
        (
            "a huge value",
            [greeting("NULL"), command("READY", b"\x01a\xff\xff\xff\xff")].concat(),
            "cut",
        ),
        ("an empty command", after(&[4, 0]), "cut"),
        ("a command longer than its frame", after(&[4, 2, 9, b'x']), "cut"),
        ("a short PING", after(&command("PING", b"\0")), "cut"),
        ("an error", after(&command("ERROR", b"\x01x")), "error"),
        ("unknown flags", after(&[8, 0]), "flags"),
        ("a command in pieces", after(&[5, 0]), "flags"),
        ("an endless frame", after(&[2, 255, 255, 255, 255, 255, 255, 255, 255]), "long"),
        ("a frame beyond the limit", after(&[2, 0, 0, 0, 0, 0, 0, 3, 233]), "long"),
        ("an endless message", after(&[1, 0, 1, 0, 1, 0, 1, 0]), "frames"),
        (
            "frames that are too long together",
            after(
                &[&[3, 0, 0, 0, 0, 0, 0, 2, 88][..], &[b'x'; 600], &[2, 0, 0, 0, 0, 0, 0, 1, 145]]
                    .concat(),
            ),
            "long",
        ),
    ];
    for (what, bytes, why) in cases {
        for size in [1, 10_000] {
            let refused = heard(Role::Router, &bytes, size).expect_err(what);
            assert!(refused.0.contains(why), "{what}: {refused}");
        }
    }
}

#[test]
fn whatever_a_peer_sends_nothing_panics_and_little_is_held() {
    // A small generator, always the same: splitmix64.
    let mut state = 7_u64;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)) as usize
    };
    let valid = session("DEALER", &[message(&[b"", b"{}"]), command("PING", b"\0\0x")].concat());
    let mut refused = 0;
    for _ in 0..20_000 {
        let mut bytes = valid.clone();
        for _ in 0..1 + next() % 3 {
            let at = next() % bytes.len();
            bytes[at] = next() as u8;
        }
        bytes.truncate(1 + next() % bytes.len());
        refused += usize::from(heard(Role::Router, &bytes, 1 + next() % 80).is_err());
    }
    assert!(refused > 1000, "most of it is understood? {refused}");
}

#[test]
fn a_subscriber_is_sent_what_it_subscribes_to() {
    let (mut publisher, first) = Connection::new(Role::Publisher, LIMITS);
    let (mut subscriber, own) = Connection::new(Role::Subscriber, LIMITS);
    publisher.receive(&own);
    subscriber.receive(&first);
    let reply = |from: &mut Connection| match from.next_event() {
        Ok(Some(Event::Reply(bytes))) => bytes,
        other => panic!("{other:?}"),
    };
    let (to_subscriber, to_publisher) = (reply(&mut publisher), reply(&mut subscriber));
    publisher.receive(&to_publisher);
    subscriber.receive(&to_subscriber);
    assert_eq!(publisher.next_event(), Ok(Some(Event::Ready)));
    assert_eq!(subscriber.next_event(), Ok(Some(Event::Ready)));
    publisher.receive(&message(&[b"\x01watcher"]));
    assert_eq!(publisher.next_event(), Ok(Some(Event::Subscribe(b"watcher".to_vec()))));
    subscriber.receive(&message(&[b"watcher.x.spawn", b"{}"]));
    let frames = vec![b"watcher.x.spawn".to_vec(), b"{}".to_vec()];
    assert_eq!(subscriber.next_event(), Ok(Some(Event::Message(frames))));
}

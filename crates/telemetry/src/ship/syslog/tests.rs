use std::io::{BufReader, Read};
use std::net::TcpListener;

use jiff::Timestamp;

use super::*;
use crate::logs::Level;
use crate::ship::sink::partly;

fn line(text: &str) -> Line<'_> {
    Line {
        text,
        time: Timestamp::from_millisecond(1_769_904_000_123).unwrap(),
        level: Level::Warning,
        log: "app_shop_main",
        identifier: "shop.main".into(),
        app: Some(("shop".into(), "main".into())),
        source: None,
        request_id: Some("a\"]\\b".into()),
    }
}

fn document(id: &str, source: &str) -> Document {
    Document {
        id: id.into(),
        index: String::new(),
        source: source.into(),
        time: Timestamp::UNIX_EPOCH,
        labels: Vec::new(),
    }
}

#[test]
fn a_message_is_as_rfc_5424_has_it() {
    let expected = "<28>1 2026-02-01T00:00:00.123Z h shop.main - - [mfserv@32473 plugin=\"shop\" \
                    app=\"main\" log=\"app_shop_main\" request_id=\"a___b\"] é =3";
    assert_eq!(rfc5424(&line("é =3"), "h", 3), expected);
    assert!(rfc5424(&line("x"), "", 16).starts_with("<132>1 2026-02-01T00:00:00.123Z - shop"));
    let local = rfc3164(&line("x"), 1);
    assert!(local.starts_with("<12>") && local.ends_with(" shop.main: x"), "{local}");
}

#[test]
fn a_long_line_becomes_messages_that_receivers_take_and_loses_nothing() {
    let text = "é".repeat(20_000);
    let messages = rfc5424(&line(&text), "h", 3);
    let mut whole = String::new();
    for message in messages.lines() {
        assert!(message.len() <= LONGEST && message.len() > LONGEST / 2 || whole.len() > 30_000);
        whole.push_str(message.split_once("] ").unwrap().1);
    }
    assert_eq!(whole, text);
}

/// The messages of octet counting, in which nothing else may be.
fn decoded(mut bytes: &[u8]) -> Vec<String> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let blank = bytes.iter().position(|byte| *byte == b' ').unwrap();
        let length: usize = std::str::from_utf8(&bytes[..blank]).unwrap().parse().unwrap();
        let (message, rest) = bytes[blank + 1..].split_at(length);
        messages.push(String::from_utf8(message.to_vec()).unwrap());
        bytes = rest;
    }
    messages
}

#[test]
fn a_server_that_reads_slowly_gets_each_message_whole_and_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = SyslogAddress::Tcp(listener.local_addr().unwrap().to_string());
    let mut syslog = Syslog::new(address);
    // More than the buffers of both sides take.
    let text = "x".repeat(1 << 20);
    let documents: Vec<Document> =
        (0..20).map(|n| document(&n.to_string(), &format!("{n} {text}\nsecond {n}"))).collect();
    let mut rest = &documents[..];
    let mut reader = None;
    let mut turns = 0;
    while !rest.is_empty() {
        let Outcome::Each(verdicts) = syslog.send(rest) else { panic!("it has failed") };
        let done = verdicts.iter().filter(|it| **it == super::super::sink::Verdict::Done).count();
        rest = &rest[done..];
        turns += 1;
        if reader.is_none() {
            assert!(!rest.is_empty(), "the buffers have taken everything");
            let mut server = BufReader::new(listener.accept().unwrap().0);
            reader = Some(std::thread::spawn(move || {
                let mut bytes = Vec::new();
                server.read_to_end(&mut bytes).unwrap();
                bytes
            }));
        }
    }
    drop(syslog);
    let received = decoded(&reader.unwrap().join().unwrap());
    let sent: Vec<&str> = documents.iter().flat_map(|it| it.source.split('\n')).collect();
    assert!(turns > 1 && received == sent, "{} of {} messages", received.len(), sent.len());
}

#[test]
fn a_server_that_has_closed_its_connection_is_connected_again_before_anything_is_written() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut syslog = Syslog::new(SyslogAddress::Tcp(listener.local_addr().unwrap().to_string()));
    for n in 0..3 {
        let message = document(&n.to_string(), &format!("message {n}"));
        assert_eq!(syslog.send(&[message]), partly(1, 1, ""));
        let (mut server, _) = listener.accept().unwrap();
        let mut bytes = [0; 11];
        server.read_exact(&mut bytes).unwrap();
        assert_eq!(decoded(&bytes), [format!("message {n}")]);
    }
}

#[test]
fn a_port_that_nobody_listens_on_takes_no_message() {
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut syslog = Syslog::new(SyslogAddress::Udp(free.to_string()));
    let message = document("1", "message");
    assert!(matches!(syslog.send(std::slice::from_ref(&message)), Outcome::Later(_)));
    let server = UdpSocket::bind(free).unwrap();
    assert_eq!(syslog.send(&[message]), partly(1, 1, ""));
    let mut bytes = [0; 100];
    let length = server.recv(&mut bytes).unwrap();
    assert_eq!(&bytes[..length], b"message");
}

#[test]
fn a_message_that_no_datagram_has_room_for_is_refused_and_the_others_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let unix = UnixDatagram::bind(dir.path().join("log")).unwrap();
    let addresses = [
        SyslogAddress::Udp(udp.local_addr().unwrap().to_string()),
        SyslogAddress::Unix(dir.path().join("log")),
    ];
    let all = [document("1", "one"), document("2", &"x".repeat(8 << 20)), document("3", "three")];
    for address in addresses {
        let Outcome::Each(verdicts) = Syslog::new(address).send(&all) else {
            panic!("all of them are sent again")
        };
        assert_eq!((&verdicts[0], &verdicts[2]), (&Verdict::Done, &Verdict::Done));
        assert!(matches!(&verdicts[1], Verdict::Refused(413, _)), "{verdicts:?}");
    }
    let mut bytes = [0; 100];
    for expected in ["one", "three"] {
        let length = udp.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], expected.as_bytes());
        let length = unix.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], expected.as_bytes());
    }
}

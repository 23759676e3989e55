//! The cases of Autobahn's fuzzing client that are about frames, and bytes of chance.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that is wrong")]

use super::{Decoder, Event};
use crate::code::{NONE, NOT_UTF_8, PROTOCOL, TOO_BIG};
use crate::{Failure, close_payload};

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const MOST: usize = 100_000;
const LAST: u8 = 0x80;

/// A frame as a client sends it: `first` has the flags and the kind.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// What is made of bytes that come in pieces of these sizes, in turn.
fn decode(bytes: &[u8], sizes: &[usize]) -> (Vec<Event>, Option<Failure>) {
    let (mut decoder, mut events) = (Decoder::new(MOST), Vec::new());
    let (mut input, mut rest, mut sizes) = (Vec::new(), bytes, sizes.iter().cycle());
    while !rest.is_empty() {
        let (piece, later) = rest.split_at((*sizes.next().unwrap()).clamp(1, rest.len()));
        input.extend_from_slice(piece);
        rest = later;
        loop {
            match decoder.next(&input) {
                Ok((used, event)) => {
                    input.drain(..used);
                    let is_over = event.is_none();
                    events.extend(event);
                    if is_over {
                        break;
                    }
                }
                Err(failure) => return (events, Some(failure)),
            }
        }
        assert!(input.len() < 14, "only a part of a head is left: {}", input.len());
        assert!(decoder.message.len() <= MOST && decoder.control.len() <= 125);
    }
    (events, None)
}

fn text(text: &str) -> Event {
    Event::Text(text.as_bytes().to_vec())
}

#[test]
fn messages_are_what_was_sent_however_they_arrive() {
    let long = "λ".repeat(20_000);
    let bytes = [
        frame(LAST | 1, b"Hello"),
        frame(LAST | 2, &[0, 0xff, 0x80]),
        frame(LAST | 1, b""),
        frame(1, "κό".as_bytes()),
        frame(LAST | 9, b"in between"),
        frame(0, "σμ".as_bytes()),
        frame(LAST | 10, b""),
        frame(LAST, b"e"),
        frame(2, b""),
        frame(LAST, b""),
        frame(LAST | 2, &[7; 126]),
        frame(LAST | 2, &[8; 70_000]),
        frame(1, &long.as_bytes()[..20_001]),
        frame(LAST, &long.as_bytes()[20_001..]),
        frame(LAST | 8, &close_payload(1000, "bye")),
    ]
    .concat();
    let expected = vec![
        text("Hello"),
        Event::Binary(vec![0, 0xff, 0x80]),
        text(""),
        Event::Ping(b"in between".to_vec()),
        Event::Pong(Vec::new()),
        text("κόσμe"),
        Event::Binary(Vec::new()),
        Event::Binary(vec![7; 126]),
        Event::Binary(vec![8; 70_000]),
        text(&long),
        Event::Close(1000, "bye".into()),
    ];
    for sizes in [&[usize::MAX][..], &[1], &[2, 3], &[5, 1, 4096], &[65_536]] {
        assert_eq!(decode(&bytes, sizes), (expected.clone(), None), "{sizes:?}");
    }
}

#[test]
fn what_is_no_frame_is_refused() {
    let no_mask = vec![LAST | 1, 5, b'H', b'e', b'l', b'l', b'o'];
    for (what, bytes, code) in [
        ("no mask", no_mask, PROTOCOL),
        ("a reserved bit", frame(LAST | 0x40 | 1, b"x"), PROTOCOL),
        ("all reserved bits of a ping", frame(LAST | 0x70 | 9, b"x"), PROTOCOL),
        ("kind 3", frame(LAST | 3, b""), PROTOCOL),
        ("kind 7", frame(LAST | 7, b"x"), PROTOCOL),
        ("kind 11", frame(LAST | 11, b""), PROTOCOL),
        ("kind 15", frame(LAST | 15, b"x"), PROTOCOL),
        ("a ping in parts", frame(9, b"x"), PROTOCOL),
        ("a long ping", frame(LAST | 9, &[b'x'; 126]), PROTOCOL),
        ("a long close", frame(LAST | 8, &[3; 126]), PROTOCOL),
        ("nothing to go on with", frame(LAST, b"x"), PROTOCOL),
        ("nothing to go on with, in parts", frame(0, b"x"), PROTOCOL),
        ("two at once", [frame(1, b"x"), frame(LAST | 1, b"y")].concat(), PROTOCOL),
        ("two kinds at once", [frame(1, b"x"), frame(2, b"y")].concat(), PROTOCOL),
        ("a length of 2^63", [&[LAST | 2, 0xff][..], &[0x80; 12]].concat(), PROTOCOL),
        ("too big", frame(LAST | 2, &[0; MOST + 1]), TOO_BIG),
        ("too big as a whole", [frame(2, &[0; MOST]), frame(LAST, b"x")].concat(), TOO_BIG),
        ("half a code", frame(LAST | 8, &[3]), PROTOCOL),
        ("a reason that is not UTF-8", frame(LAST | 8, &[3, 232, 0xff]), NOT_UTF_8),
        ("a text that is not UTF-8", frame(LAST | 1, b"\xce\xba\xed\xa0\x80"), NOT_UTF_8),
        ("a text that ends too early", frame(LAST | 1, b"\xce"), NOT_UTF_8),
        ("a part that can not become UTF-8", frame(1, b"\xf4\x90"), NOT_UTF_8),
    ] {
        for sizes in [&[usize::MAX][..], &[1]] {
            let (events, failure) = decode(&bytes, sizes);
            assert_eq!(failure.map(|failure| failure.code), Some(code), "{what}: {events:?}");
            assert!(events.is_empty(), "{what}: {events:?}");
        }
    }
    // before the rest of it comes
    let begun = &frame(1, &[&b"\xce\xba\xed\xa0\x80"[..], &[b'x'; 90]].concat())[..6 + 5];
    assert_eq!(decode(begun, &[1]).1.map(|failure| failure.code), Some(NOT_UTF_8));
    let begun = &frame(LAST | 2, &[0; MOST + 1])[..14];
    assert_eq!(decode(begun, &[1]).1.map(|failure| failure.code), Some(TOO_BIG));
}

#[test]
fn a_close_has_a_code_that_may_be_sent() {
    assert_eq!(decode(&frame(LAST | 8, b""), &[1]).0, [Event::Close(NONE, String::new())]);
    for code in 0..=u16::MAX {
        let may = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        let (events, failure) = decode(&frame(LAST | 8, &code.to_be_bytes()), &[usize::MAX]);
        assert_eq!(may, failure.is_none(), "{code}");
        assert_eq!(may, events == [Event::Close(code, String::new())], "{code}");
    }
    assert_eq!(close_payload(NONE, "not said"), b"");
    let long = "é".repeat(100);
    let payload = close_payload(1011, &long);
    assert!(payload.len() == 124 && std::str::from_utf8(&payload[2..]).is_ok());
}

/// Bytes of chance (xorshift): a seed is a case.
struct Chance(u64);

impl Chance {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

#[test]
fn bytes_of_chance_mean_the_same_however_they_arrive() {
    for seed in 1..=1000 {
        let mut chance = Chance(u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15));
        let mut bytes = Vec::new();
        for _ in 0..chance.next(8) + 1 {
            let first = [1, 2, 0, LAST, LAST | 1, LAST | 2, LAST | 8, LAST | 9, LAST | 10];
            let first = first[chance.next(9) as usize];
            let length = [0, 1, 2, 5, 125, 126, 300, 70_000][chance.next(8) as usize];
            let letters = if chance.next(2) == 0 { 128 } else { 256 };
            let payload: Vec<u8> = (0..length).map(|_| chance.next(letters) as u8).collect();
            bytes.extend(frame(first, &payload));
        }
        for _ in 0..chance.next(3) {
            let at = chance.next(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << chance.next(8);
        }
        let whole = decode(&bytes, &[usize::MAX]);
        let sizes: Vec<usize> = (0..7).map(|_| chance.next(500) as usize + 1).collect();
        assert_eq!(decode(&bytes, &sizes), whole, "seed {seed}, pieces of {sizes:?}");
    }
}

//! Whatever a client of a WebSocket sends never panics and means the same at once and in pieces; what
//! comes out is bounded and valid; what a client says in frames is understood as it was said.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mfserv_websocket::{Decoder, Event, Failure, Kind, close_payload, code, frame_head};

/// The most bytes of a message.
const MOST: usize = 600;

type All = (Vec<Event>, Option<Failure>);

/// The events of some bytes, of which `step` more come at a time.
fn events(input: &[u8], step: usize) -> All {
    let mut decoder = Decoder::new(MOST);
    let (mut all, mut at, mut seen) = (Vec::new(), 0, 0);
    loop {
        match decoder.next(&input[at..seen]) {
            Err(failure) => return (all, Some(failure)),
            Ok((used, event)) => {
                at += used;
                assert!(at <= seen);
                // A part of a head is all that is left to its caller.
                assert!(event.is_some() || seen - at < 14);
                let is_none = event.is_none();
                all.extend(event);
                if is_none && seen == input.len() {
                    return (all, None);
                }
                if is_none {
                    seen = (seen + step).min(input.len());
                }
            }
        }
    }
}

fn check(event: &Event) {
    match event {
        Event::Text(text) => {
            assert!(text.len() <= MOST && std::str::from_utf8(text).is_ok());
        }
        Event::Binary(bytes) => assert!(bytes.len() <= MOST),
        Event::Ping(payload) | Event::Pong(payload) => assert!(payload.len() <= 125),
        Event::Close(number, reason) => {
            let is_none = *number == code::NONE && reason.is_empty();
            assert!(is_none || (1000..=4999).contains(number), "{number}");
            assert!(is_none || ![1004, code::NONE, code::ABNORMAL, 1015].contains(number));
            // It can be sent back as it came.
            let payload = close_payload(*number, reason);
            assert!(payload.len() <= 125);
            assert!(is_none || payload[2..] == *reason.as_bytes());
        }
    }
}

/// What a client writes: the frame of a server, masked.
fn put_frame(out: &mut Vec<u8>, kind: Kind, payload: &[u8], mask: [u8; 4]) {
    let mut head = Vec::new();
    frame_head(kind, payload.len(), &mut head);
    head[1] |= 0x80;
    out.extend_from_slice(&head);
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
}

/// Messages of these bytes are understood, and what follows a whole message as well.
fn check_said(input: &[u8], step: usize) {
    let (mut wire, mut wanted) = (Vec::new(), Vec::new());
    for (number, part) in input.chunks(MOST.min(step * 20)).enumerate() {
        let mask = [part[0], number as u8, step as u8, part[part.len() - 1]];
        let (kind, event) = match (number % 3, std::str::from_utf8(part)) {
            (0, Ok(_)) => (Kind::Text, Event::Text(part.to_vec())),
            (1, _) if part.len() <= 125 => (Kind::Ping, Event::Ping(part.to_vec())),
            _ => (Kind::Binary, Event::Binary(part.to_vec())),
        };
        put_frame(&mut wire, kind, part, mask);
        wanted.push(event);
    }
    put_frame(&mut wire, Kind::Close, &close_payload(code::NORMAL, "done"), [9; 4]);
    wanted.push(Event::Close(code::NORMAL, "done".into()));
    assert_eq!(events(&wire, step), (wanted, None));
}

fuzz_target!(|input: &[u8]| {
    let Some((&first, input)) = input.split_first() else { return };
    let step = usize::from(first % 40) + 1;
    let whole = events(input, input.len().max(1));
    assert_eq!(whole, events(input, step));
    whole.0.iter().for_each(check);
    if let Some(failure) = whole.1 {
        assert!(!failure.reason.is_empty() && (1000..=1015).contains(&failure.code));
    }
    check_said(input, step);
});

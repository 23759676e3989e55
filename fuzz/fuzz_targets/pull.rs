//! What a front and a worker that pulls say to each other: any bytes as messages, frames and offers
//! are understood or refused, and the page says of each request what it should, while somebody
//! else writes into it too.
#![no_main]

use std::collections::HashMap;
use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use libfuzzer_sys::fuzz_target;
use mfserv_pull::{
    FRAME_LEN, Frame, LINES, MESSAGE_HEAD, MESSAGE_MAX, Message, Page, Received, queue, read_first,
    receive, send, unread,
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// Any bytes in the queue: a message as it was sent, or an error.
fn check_messages(input: &[u8]) {
    let (front, worker) = queue().unwrap();
    let mut space = vec![0; MESSAGE_MAX];
    let mut sent = 0;
    for bytes in input.split(|byte| *byte == b'\n').filter(|bytes| !bytes.is_empty()).take(20) {
        rustix::net::send(&front, bytes, SendFlags::DONTWAIT).unwrap();
        sent += bytes.len() as u64;
        assert_eq!(unread(&worker).unwrap(), sent);
    }
    for bytes in input.split(|byte| *byte == b'\n').filter(|bytes| !bytes.is_empty()).take(20) {
        match (bytes.split_first_chunk::<MESSAGE_HEAD>(), receive(worker.as_fd(), &mut space)) {
            (Some((head, request)), Ok(Received::Message(message, got))) => {
                assert_eq!((Message::of(head), request), (Some(message), got));
                // It can be sent again, and comes behind the others.
                assert!(send(&front, message, got).unwrap());
            }
            (head, Err(_)) => assert!(head.is_none_or(|(head, _)| Message::of(head).is_none())),
            (_, other) => panic!("{other:?}"),
        }
    }
    while let Received::Message(..) = receive(worker.as_fd(), &mut space).unwrap() {}
    drop(front);
    assert_eq!(receive(worker.as_fd(), &mut space).unwrap(), Received::End);
}

/// A number on the wire is a message or a frame with these very fields, or neither.
fn check_heads(input: &[u8]) {
    for bytes in input.chunks_exact(MESSAGE_HEAD) {
        let bytes: &[u8; MESSAGE_HEAD] = bytes.try_into().unwrap();
        if let Some(message) = Message::of(bytes) {
            assert_eq!(message.to_bytes()[..17], bytes[..17]);
            assert_eq!(Message::of(&message.to_bytes()), Some(message));
        }
    }
    for bytes in input.chunks_exact(FRAME_LEN) {
        let bytes: &[u8; FRAME_LEN] = bytes.try_into().unwrap();
        if let Some(frame) = Frame::of(bytes) {
            assert_eq!(frame.to_bytes()[..17], bytes[..17]);
            assert_eq!(Frame::of(&frame.to_bytes()), Some(frame));
        }
    }
}

/// The first bytes of a connection, with any descriptors: HTTP, an offer, or an error.
fn check_offer(first: u8, text: &[u8]) {
    if text.is_empty() {
        return;
    }
    let (page, memory) = Page::create().unwrap();
    let (_front, workers) = queue().unwrap();
    let (stream, unsealed) = (UnixStream::pair().unwrap(), tempfile());
    let all: [BorrowedFd<'_>; 4] =
        [workers.as_fd(), memory.as_fd(), stream.0.as_fd(), unsealed.as_fd()];
    let carried: Vec<BorrowedFd<'_>> = match first % 8 {
        0 => vec![],
        1..=4 => vec![all[0], all[1]],
        _ => vec![all[usize::from(first >> 3) % 4], all[usize::from(first >> 5) % 4]],
    };
    let (mut from, to) = UnixStream::pair().unwrap();
    if carried.is_empty() {
        from.write_all(text).unwrap();
    } else {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        assert!(rights.push(SendAncillaryMessage::ScmRights(&carried)));
        sendmsg(&from, &[IoSlice::new(text)], &mut rights, SendFlags::empty()).unwrap();
    }
    let mut bytes = vec![0; MESSAGE_MAX];
    match read_first(to.as_fd(), &mut bytes) {
        Ok(Ok(offer)) => {
            assert!(text.starts_with(b"MFSERV-PULL 1 ") && offer.line < LINES);
            assert!(matches!(first % 8, 1..=7) && (first % 8 <= 4 || is_right(first)));
            // It is the same memory.
            assert!(offer.page.claim(offer.line, 7));
            assert_eq!(page.running(offer.line).unwrap().0, 7);
        }
        Ok(Err(count)) => {
            assert!(carried.is_empty() && bytes[..count] == *text);
            assert!(!text.starts_with(b"MFSERV-PULL "));
        }
        Err(_) => assert!(!carried.is_empty() || text.starts_with(b"MFSERV-PULL ")),
    }
}

/// These descriptors are the two of an offer.
fn is_right(first: u8) -> bool {
    (usize::from(first >> 3) % 4, usize::from(first >> 5) % 4) == (0, 1)
}

/// Memory as long as a page, that may become shorter.
fn tempfile() -> std::os::fd::OwnedFd {
    let file = rustix::fs::memfd_create("page", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, 1 << 17).unwrap();
    file
}

/// What the page should say of one line.
#[derive(Default, Clone, Copy)]
struct Line {
    running: u64,
    finished: u64,
}

/// Front and worker, each with a mapping of its own, in any order.
fn check_page(input: &[u8]) {
    let (front, memory) = Page::create().unwrap();
    let worker = Page::open(&memory).unwrap();
    let mut lines = [Line::default(); LINES];
    let mut given_up: HashMap<u64, u64> = HashMap::new();
    for step in input.chunks_exact(4) {
        // Few lines and numbers, so that they meet; numbers that share a place as well.
        let line = usize::from(step[1]) % 4 * 85;
        let id = 1 + u64::from(step[2] % 8) + 8192 * u64::from(step[3] % 4);
        let is_given_up = given_up.get(&(id % 8192)).is_some_and(|last| *last >= id);
        match step[0] % 4 {
            0 => {
                assert_eq!(worker.claim(line, id), !is_given_up);
                match is_given_up {
                    false => lines[line].running = id,
                    true => lines[line] = Line { running: 0, finished: id },
                }
            }
            1 => {
                worker.finish(line);
                if lines[line].running != 0 {
                    lines[line] = Line { running: 0, finished: lines[line].running };
                }
            }
            2 => {
                front.give_up(id);
                let last = given_up.entry(id % 8192).or_default();
                *last = id.max(*last);
            }
            _ => {
                front.reset(line);
                lines[line] = Line::default();
            }
        }
        for (number, line) in lines.iter().enumerate().step_by(85) {
            let running = front.running(number).map_or(0, |(id, _)| id);
            assert_eq!((running, front.finished(number)), (line.running, line.finished));
        }
    }
    // A worker may write anything: the front reads numbers.
    rustix::io::pwrite(&memory, input, 0).unwrap();
    for line in (0..LINES).chain([usize::MAX / 8]) {
        let _ = (front.running(line), front.finished(line), front.took_us(line));
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&first, input)) = input.split_first() else { return };
    check_heads(input);
    match first % 3 {
        0 => check_messages(input),
        1 => check_offer(first / 3, input),
        _ => check_page(input),
    }
});

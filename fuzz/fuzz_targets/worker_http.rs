//! The connection of a Python worker, by its own source: whatever comes, at once or in pieces, over HTTP
//! or as messages of a queue, the same requests with the same content begin, and what an app
//! leaves of a body never becomes another request.
#![no_main]
#![allow(dead_code, reason = "a connection has more than this uses")]

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use libfuzzer_sys::fuzz_target;
use mfserv_h1::{BodyReader, FIELDS_MAX, HeadScan, Piece, RequestHead};
use mfserv_pull::{FRAME_LEN, Frame, FrameKind, Message, MessageKind, Offer, Page, TAKEN, queue};

#[path = "../../crates/worker-python/src"]
mod worker {
    pub mod connection;
}

use worker::connection::{Connection, First, Next, READ_MAX};

/// A request as an app has it: target, and so much of the body as it has asked for.
type Had = (Vec<u8>, Vec<u8>);

/// What came of the bytes of a client: the requests, and the status of a refusal.
type Seen = (Vec<Had>, Option<u16>);

/// How an app uses bodies.
#[derive(Clone, Copy)]
enum Use {
    All,
    /// At most so many bytes.
    Some(usize),
}

impl Use {
    fn wants(self, had: usize) -> bool {
        match self {
            Self::All => true,
            Self::Some(most) => had < most,
        }
    }

    fn of(self, content: &[u8], had: usize) -> usize {
        match self {
            Self::All => content.len(),
            Self::Some(most) => content.len().min(most - had),
        }
    }
}

/// The client's end, the bytes that it has still to send, and how many it sends at a time.
struct Sender<'a> {
    stream: UnixStream,
    left: &'a [u8],
    step: usize,
}

impl Sender<'_> {
    /// Sends some more; false when all was sent: then the direction is shut.
    fn more(&mut self) -> bool {
        let (now, later) = self.left.split_at(self.left.len().min(self.step));
        self.left = later;
        match now.is_empty() {
            true => self.stream.shutdown(std::net::Shutdown::Write).is_err(),
            false => self.stream.write_all(now).is_ok(),
        }
    }
}

/// As the event loop of the worker has a connection.
fn over_http(input: &[u8], step: usize, usage: Use) -> Seen {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut connection = Connection::new(ours.into());
    let mut sender = Sender { stream: theirs, left: input, step };
    let mut space = vec![0; READ_MAX];
    let mut all = Vec::new();
    loop {
        match connection.next() {
            Next::Request if connection.gathers(READ_MAX as u64) => {}
            Next::Request => {
                let Some(body) = body(&mut connection, &mut sender, &mut space, usage) else {
                    return (all, None);
                };
                all.push((connection.head.target().to_vec(), body));
                connection.finish_request();
                continue;
            }
            Next::End => return (all, None),
            Next::Refused(refusal) => return (all, Some(refusal.status)),
            Next::More => {}
        }
        sender.more();
        if connection.is_new() {
            match connection.read_first(&mut space) {
                Ok(First::Bytes) => {}
                Ok(First::End) | Err(_) => return (all, None),
                Ok(First::Offer(_)) => panic!("an offer without descriptors"),
            }
        } else if !connection.read(&mut space).unwrap() {
            return (all, None);
        }
    }
}

/// What an app reads of a body; `None` if it ends too early or is none.
fn body(
    connection: &mut Connection,
    sender: &mut Sender<'_>,
    space: &mut [u8],
    usage: Use,
) -> Option<Vec<u8>> {
    connection.must_continue();
    let mut body = Vec::new();
    while usage.wants(body.len()) && !connection.is_read() {
        let content = connection.content().ok()?;
        let count = usage.of(content, body.len());
        body.extend_from_slice(&content[..count]);
        connection.take(count);
        if count == 0 && !connection.is_read() {
            sender.more();
            if !connection.read(space).unwrap() {
                return None;
            }
        }
    }
    Some(body)
}

/// The same by the codec alone.
fn by_codec(input: &[u8]) -> Vec<Had> {
    let (mut all, mut at) = (Vec::new(), 0);
    while let Ok(Some(end)) = HeadScan::new(64 * 1024).find_end(&input[at..]) {
        let mut head = RequestHead::default();
        if head.read(&input[at..at + end], FIELDS_MAX).is_err() {
            break;
        }
        at += end;
        let mut reader = BodyReader::new(head.framing);
        let mut content = Vec::new();
        loop {
            match reader.next(&input[at..]) {
                Ok(Piece::Content(range)) => {
                    content.extend_from_slice(&input[at + range.start..at + range.end]);
                    at += range.end;
                }
                Ok(Piece::End(used)) => {
                    at += used;
                    break;
                }
                Ok(Piece::More(_)) | Err(_) => return all,
            }
        }
        all.push((head.target().to_vec(), content));
    }
    all
}

/// Each line of the input is a message of the queue.
fn over_queue(input: &[u8], usage: Use) {
    let (page, memory) = Page::create().unwrap();
    let (_front, workers) = queue().unwrap();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut connection = Connection::new(ours.into());
    Offer::send(&theirs, (workers.as_fd(), memory.as_fd()), 3).unwrap();
    let mut space = vec![0; READ_MAX];
    let Ok(First::Offer(offer)) = connection.read_first(&mut space) else { panic!("no offer") };
    connection.link(offer.page, offer.line).unwrap();
    assert_eq!(frame(&mut theirs).kind, FrameKind::Ready);
    for (number, request) in input.split(|byte| *byte == 0xff).take(30).enumerate() {
        let id = number as u64 + 1;
        if request.first() == Some(&b'-') {
            page.give_up(id);
            assert!(!connection.claim(id));
            continue;
        }
        assert!(connection.claim(id));
        let message = Message { id, sent_ns: 0, kind: MessageKind::Request };
        connection.put_message(message, request);
        let is_request = matches!(connection.next(), Next::Request) && connection.is_one_request();
        if is_request {
            let wanted = by_codec(request);
            let had = match message_body(&mut connection, usage) {
                Some(body) => vec![(connection.head.target().to_vec(), body)],
                None => Vec::new(),
            };
            if let Use::All = usage {
                assert_eq!(had.first(), wanted.first());
            }
            connection.finish_request();
        }
        let is_stream = number % 2 == 1;
        if !is_stream {
            connection.is_whole_answer(5);
        }
        connection.send(b"hello", None, 0..0, b"").unwrap();
        connection.leave_request(&mut space);
        let said = frame(&mut theirs);
        let kind = if is_stream { FrameKind::Stream } else { FrameKind::Answer };
        assert_eq!((said.id, said.kind), (id, kind));
        let mut answer = [0; 5];
        theirs.read_exact(&mut answer).unwrap();
        assert!(!connection.ends && !connection.has_input(), "nothing of it is left");
        assert_eq!(connection.is_untaken(), is_stream);
        if is_stream {
            theirs.write_all(&[TAKEN]).unwrap();
            assert!(connection.read(&mut space).unwrap() && connection.was_taken());
        }
        connection.finish();
        assert_eq!((page.running(3), page.finished(3)), (None, id));
    }
}

/// The content of a message, in which all of it has come.
fn message_body(connection: &mut Connection, usage: Use) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    while usage.wants(body.len()) && !connection.is_read() {
        let content = connection.content().ok()?;
        let count = usage.of(content, body.len());
        body.extend_from_slice(&content[..count]);
        connection.take(count);
        if count == 0 && !connection.is_read() {
            return None;
        }
    }
    Some(body)
}

fn frame(stream: &mut UnixStream) -> Frame {
    let mut bytes = [0; FRAME_LEN];
    stream.read_exact(&mut bytes).unwrap();
    Frame::of(&bytes).unwrap()
}

fuzz_target!(|input: &[u8]| {
    let [first, second, input @ ..] = input else { return };
    let usage = match second % 4 {
        0 => Use::Some(usize::from(second / 4)),
        _ => Use::All,
    };
    if first % 4 == 3 {
        return over_queue(input, usage);
    }
    if input.starts_with(b"MFSERV-PULL ") {
        // An offer, if it is read at once, and without its descriptors: no HTTP either way.
        return;
    }
    let step = usize::from(*first / 4) + 1;
    let whole = over_http(input, input.len().max(1), usage);
    assert_eq!(whole, over_http(input, step, usage));
    // An app that reads nothing sees the same requests, unless one is not whole.
    let wanted = by_codec(input);
    let targets = |all: &[Had]| all.iter().map(|(target, _)| target.clone()).collect::<Vec<_>>();
    match usage {
        Use::All => assert_eq!(whole.0, wanted),
        Use::Some(_) => assert!(targets(&whole.0).starts_with(&targets(&wanted))),
    }
});

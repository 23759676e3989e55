//! A worker that pulls, with one request at a time.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use mfserv_core::route::RouteTable;
use mfserv_pull::{
    Frame, FrameKind, MESSAGE_MAX, Message, MessageKind, Offer, Received as Got, TAKEN, read_first,
    receive,
};
use rustix::event::{PollFd, PollFlags, poll};

use crate::world::*;

/// What a worker does with a request.
pub enum Act {
    /// It answers with this body.
    Say(String),
    /// It answers with these bytes of HTTP, one write each.
    Stream(Vec<Vec<u8>>),
    /// It dies of it.
    Die,
}

/// A request as a worker has pulled it.
#[derive(Debug, Clone)]
pub struct Had {
    pub text: String,
    pub was_turn: bool,
}

impl Had {
    pub fn target(&self) -> &str {
        self.text.split(' ').nth(1).unwrap()
    }
}

type Behaviour = dyn Fn(&Had) -> Act + Send + Sync;
/// Asked before a request is claimed: whether the worker dies with it in hand.
type DiesFirst = dyn Fn(&str) -> bool + Send + Sync;

pub struct Puller {
    pub worker: Worker,
    /// What it has begun with.
    pub had: Arc<Mutex<Vec<Had>>>,
    /// The requests that were dropped, since they were given up.
    pub dropped: Arc<Mutex<Vec<u64>>>,
}

impl Puller {
    pub fn start(
        world: &World,
        number: u32,
        behaviour: impl Fn(&Had) -> Act + Send + Sync + 'static,
    ) -> Self {
        Self::with(world, number, behaviour, |_| false)
    }

    pub fn with(
        world: &World,
        number: u32,
        behaviour: impl Fn(&Had) -> Act + Send + Sync + 'static,
        dies_first: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> Self {
        let (had, dropped) = (Arc::<Mutex<Vec<Had>>>::default(), Arc::default());
        let (behaviour, dies_first): (Arc<Behaviour>, Arc<DiesFirst>) =
            (Arc::new(behaviour), Arc::new(dies_first));
        let pulled = (had.clone(), Arc::clone(&dropped));
        let worker = Worker::unread(world, number, move |stream| {
            let mut first = [0; 4096];
            poll(&mut [PollFd::new(stream, PollFlags::IN)], None).unwrap();
            match read_first(stream.as_fd(), &mut first) {
                Ok(Ok(offer)) => {
                    let state = (&*pulled.0, &*pulled.1);
                    let _ = pull(stream, &offer, (&*behaviour, &*dies_first), state);
                    let _ = stream.shutdown(Shutdown::Both);
                }
                Ok(Err(count)) if count > 0 => serve(stream, first[..count].to_vec()),
                _ => {}
            }
        });
        Self { worker, had, dropped }
    }

    pub fn saying(world: &World, number: u32) -> Self {
        Self::start(world, number, |had| Act::Say(format!("{} {}", had.target(), had.was_turn)))
    }

    pub fn count(&self) -> usize {
        self.had.lock().unwrap().len()
    }

    /// Waits until it pulls. Before, it is given requests as any worker.
    pub fn is_linked(&self, front: &Front) {
        let before = self.count();
        until("the worker pulls", || {
            assert_eq!(front.get("/a/warm").status, 200);
            self.count() > before
        });
    }
}

/// Answers requests that are pushed, until one that is not whole.
fn serve(stream: &mut UnixStream, mut bytes: Vec<u8>) {
    while find(&bytes, b"\r\n\r\n").is_some() && say(stream, "pushed") {
        bytes.resize(4096, 0);
        let count = stream.read(&mut bytes).unwrap_or(0);
        bytes.truncate(count);
    }
}

type State<'a> = (&'a Mutex<Vec<Had>>, &'a Mutex<Vec<u64>>);

/// `None` when it is over.
fn pull(
    link: &mut UnixStream,
    offer: &Offer,
    (behaviour, dies_first): (&Behaviour, &DiesFirst),
    (all, dropped): State<'_>,
) -> Option<()> {
    let frame = |id, kind, length: usize| {
        let took_us = offer.page.took_us(offer.line);
        Frame { id, length: length as u32, took_us, kind }.to_bytes()
    };
    link.write_all(&frame(0, FrameKind::Ready, 0)).ok()?;
    let mut space = vec![0; MESSAGE_MAX];
    loop {
        wait(link, offer)?;
        let Got::Message(Message { id, kind, .. }, request) =
            receive(offer.queue.as_fd(), &mut space).ok()?
        else {
            continue;
        };
        if kind == MessageKind::Nudge {
            continue;
        }
        let mut text = String::from_utf8_lossy(request).into_owned();
        if dies_first(&text) {
            return None;
        }
        if !offer.page.claim(offer.line, id) {
            dropped.lock().unwrap().push(id);
            link.write_all(&frame(id, FrameKind::Dropped, 0)).ok()?;
            continue;
        }
        let was_turn = kind == MessageKind::Turn;
        if was_turn {
            link.write_all(&frame(id, FrameKind::Turn, 0)).ok()?;
            text = read_request(link)?;
        }
        let had = Had { text, was_turn };
        all.lock().unwrap().push(had.clone());
        let (kind, parts, length) = match behaviour(&had) {
            Act::Say(body) => {
                let length = body.len();
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
                (FrameKind::Answer, vec![answer.clone().into_bytes()], answer.len())
            }
            Act::Stream(parts) => (FrameKind::Stream, parts, 0),
            Act::Die => return None,
        };
        if !was_turn {
            link.write_all(&frame(id, kind, length)).ok()?;
        }
        parts.iter().try_for_each(|part| link.write_all(part)).ok()?;
        if was_turn || kind == FrameKind::Stream {
            was_taken(link)?;
        }
        offer.page.finish(offer.line);
    }
}

/// Waits for a message; `None` when the front says nothing more.
fn wait(link: &UnixStream, offer: &Offer) -> Option<()> {
    let mut ends = [PollFd::new(&offer.queue, PollFlags::IN), PollFd::new(link, PollFlags::IN)];
    poll(&mut ends, None).ok()?;
    ends[1].revents().is_empty().then_some(())
}

/// Waits until the front has all of an answer.
fn was_taken(link: &mut UnixStream) -> Option<()> {
    let mut taken = [0];
    link.read_exact(&mut taken).ok()?;
    assert_eq!(taken, [TAKEN]);
    Some(())
}

/// A request with `Content-Length`, from the connection itself.
fn read_request(link: &mut UnixStream) -> Option<String> {
    let (mut bytes, mut space) = (Vec::new(), [0; 65536]);
    loop {
        if let Some(end) = find(&bytes, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("Content-Length: ")?.parse::<usize>().ok());
            if bytes.len() >= end + 4 + length.unwrap_or(0) {
                return Some(String::from_utf8_lossy(&bytes).into_owned());
            }
        }
        let count = link.read(&mut space).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&space[..count]);
    }
}

/// The table of an app whose workers pull.
pub fn pulling() -> RouteTable {
    let mut routes = table(ONE, true);
    routes.upstreams.get_mut("p/a").unwrap().pulls = true;
    routes
}

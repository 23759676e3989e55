//! The queues from which a worker takes requests.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use mfserv_pull::{MESSAGE_HEAD, Message, Received, receive};
use rustix::event::epoll::{self, EventFlags};

use super::QUEUE;

/// The queues of a worker, at most: those of an old front and of its successor are two.
const QUEUES_MAX: usize = 8;

/// The queues, and whose turn it is.
#[derive(Default)]
pub struct Queues {
    queues: Vec<Queue>,
    last: usize,
    /// Messages may be there.
    pub is_busy: bool,
}

struct Queue {
    socket: OwnedFd,
    /// The connection of the answers.
    link: usize,
    /// The epoll set has it.
    is_watched: bool,
}

/// What was received, and the connection of its answer.
pub enum Taken {
    /// A message; its request has so many bytes, and begins after its head.
    Message(usize, Message, usize),
    /// The queue has ended, or has carried something else.
    End(usize, Option<io::Error>),
}

impl Queues {
    /// A queue is offered; answers go to this connection.
    pub fn add(&mut self, epoll: &OwnedFd, socket: OwnedFd, link: usize) -> io::Result<()> {
        if self.queues.len() >= QUEUES_MAX {
            let message = format!("this worker has {QUEUES_MAX} queues, and takes no more");
            return Err(io::Error::other(message));
        }
        let mut queue = Queue { socket, link, is_watched: false };
        queue.watch(epoll)?;
        self.queues.push(queue);
        Ok(())
    }

    /// Nothing more is received from the queue of this connection.
    pub fn remove(&mut self, epoll: &OwnedFd, link: usize) {
        if let Some(at) = self.queues.iter().position(|queue| queue.link == link) {
            let mut queue = self.queues.remove(at);
            queue.leave(epoll);
        }
    }

    /// Nothing more is received at all. Returns the connections of the answers.
    pub fn clear(&mut self, epoll: &OwnedFd) -> Vec<usize> {
        let queues = std::mem::take(self).queues;
        let left = queues.into_iter().map(|mut queue| {
            queue.leave(epoll);
            queue.link
        });
        left.collect()
    }

    /// Messages of those queues wake this worker of whose links this is true.
    pub fn watch(&mut self, epoll: &OwnedFd, may_wake: impl Fn(usize) -> bool) {
        for queue in &mut self.queues {
            match (may_wake(queue.link), queue.is_watched) {
                // It was in the set before: the system has room for it.
                (true, false) => drop(queue.watch(epoll)),
                (false, true) => queue.leave(epoll),
                _ => {}
            }
        }
    }

    /// Takes one message out of one of the queues of whose links this is true; each has its turn.
    pub fn receive(
        &mut self,
        space: &mut [u8],
        may_receive: impl Fn(usize) -> bool,
    ) -> Option<Taken> {
        for _ in 0..self.queues.len() {
            self.last = (self.last + 1) % self.queues.len();
            let Queue { socket, link, .. } = &self.queues[self.last];
            if !may_receive(*link) {
                continue;
            }
            match receive(socket.as_fd(), space) {
                Ok(Received::Nothing) => {}
                Ok(Received::Message(message, request)) => {
                    return Some(Taken::Message(*link, message, request.len()));
                }
                Ok(Received::End) => return Some(Taken::End(*link, None)),
                Err(error) => return Some(Taken::End(*link, Some(error))),
            }
        }
        None
    }
}

/// The request of a message in the space into which it was received.
pub fn request(space: &[u8], length: usize) -> &[u8] {
    &space[MESSAGE_HEAD..MESSAGE_HEAD + length]
}

impl Queue {
    /// A message wakes one of the workers that wait for it, not all.
    fn watch(&mut self, epoll: &OwnedFd) -> io::Result<()> {
        let data = epoll::EventData::new_u64(QUEUE);
        epoll::add(epoll, &self.socket, data, EventFlags::IN | EventFlags::EXCLUSIVE)?;
        self.is_watched = true;
        Ok(())
    }

    /// A child of the app may have it open: it would stay in the set.
    fn leave(&mut self, epoll: &OwnedFd) {
        self.is_watched = false;
        let _ = epoll::delete(epoll, &self.socket);
    }
}

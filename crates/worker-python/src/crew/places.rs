//! The connections that several threads serve.

use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::event::epoll::{self, EventData, EventFlags};

use crate::connection::Connection;

/// The connections, and how far the worker is.
#[derive(Default)]
pub struct Places {
    places: Vec<Place>,
    free: Vec<usize>,
    /// How many connections threads have.
    pub busy: usize,
    /// No other request begins.
    is_closing: bool,
    /// Until when nobody is accepted.
    pub paused: Option<Instant>,
    /// When that was last logged.
    pub complained: Option<Instant>,
    /// When a thread was last done with a connection, of those while the worker stops.
    pub served: Option<Instant>,
}

enum Place {
    Free,
    /// A thread has the connection.
    Taken,
    Here(Box<Connection>),
}

impl Places {
    /// A new connection: one thread is told when something has come. Without room for it in the set
    /// of events it is closed.
    pub fn add(&mut self, epoll: &OwnedFd, connection: Connection) {
        let index = self.free.pop().unwrap_or(self.places.len());
        let data = EventData::new_u64(index as u64);
        let once = EventFlags::IN | EventFlags::ONESHOT;
        let is_added = epoll::add(epoll, connection.socket(), data, once).is_ok();
        let place = match is_added {
            true => Place::Here(Box::new(connection)),
            false => Place::Free,
        };
        if index == self.places.len() {
            self.places.push(Place::Free);
        }
        if let Some(at) = self.places.get_mut(index) {
            *at = place;
        }
        if !is_added {
            self.free.push(index);
        }
    }

    /// Takes a connection for a thread, and says whether a request of it may begin. `None` if it
    /// was closed meanwhile.
    pub fn take(&mut self, index: usize) -> Option<(Box<Connection>, bool)> {
        let place = self.places.get_mut(index)?;
        match std::mem::replace(place, Place::Taken) {
            Place::Here(connection) => {
                self.busy += 1;
                Some((connection, !self.is_closing))
            }
            other => {
                *place = other;
                None
            }
        }
    }

    /// Puts a connection back that was taken: one thread is told of the next of these events.
    pub fn put(
        &mut self,
        epoll: &OwnedFd,
        index: usize,
        connection: Box<Connection>,
        flags: EventFlags,
    ) {
        self.busy -= 1;
        let Some(place) = self.places.get_mut(index) else { return };
        let data = EventData::new_u64(index as u64);
        // With the lock: who is told finds it here.
        let _ = epoll::modify(epoll, connection.socket(), data, flags | EventFlags::ONESHOT);
        *place = Place::Here(connection);
    }

    /// A connection that was taken ends. Returns whether somebody waits to be accepted for whom
    /// there was no descriptor.
    pub fn remove(&mut self, epoll: &OwnedFd, index: usize, connection: &Connection) -> bool {
        self.busy -= 1;
        self.free(epoll, index, connection);
        self.paused.take().is_some()
    }

    fn free(&mut self, epoll: &OwnedFd, index: usize, connection: &Connection) {
        // A child of the app may have it open, in this set of events too.
        let _ = epoll::delete(epoll, connection.socket());
        connection.shut();
        self.places[index] = Place::Free;
        self.free.push(index);
    }

    /// Ends the connections on which nothing has begun. Returns whether there was one.
    pub fn end_idle(&mut self, epoll: &OwnedFd) -> bool {
        self.end_those(epoll, Connection::is_idle)
    }

    fn end_those(&mut self, epoll: &OwnedFd, which: impl Fn(&Connection) -> bool) -> bool {
        let mut was_any = false;
        for index in 0..self.places.len() {
            let is_one = |place: &Place| matches!(place, Place::Here(one) if which(one));
            if is_one(&self.places[index]) {
                let place = std::mem::replace(&mut self.places[index], Place::Free);
                if let Place::Here(connection) = place {
                    self.free(epoll, index, &connection);
                }
                was_any = true;
            }
        }
        was_any
    }

    /// No other request begins: only answers are still sent.
    pub fn close(&mut self, epoll: &OwnedFd) {
        self.is_closing = true;
        self.end_those(epoll, |connection| !connection.has_output());
        for place in &mut self.places {
            if let Place::Here(connection) = place {
                connection.ends = true;
            }
        }
    }

    /// True while a request waits for a thread, or has begun to arrive.
    pub fn has_work(&self) -> bool {
        self.here().any(|connection| !connection.is_idle())
    }

    /// True while an answer waits for its client.
    pub fn has_output(&self) -> bool {
        self.here().any(Connection::has_output)
    }

    fn here(&self) -> impl Iterator<Item = &Connection> {
        self.places.iter().filter_map(|place| match place {
            Place::Here(connection) => Some(&**connection),
            _ => None,
        })
    }
}

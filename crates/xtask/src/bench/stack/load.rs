//! The clients of a turn: one thread that keeps connections, closed loop or open loop, and notes
//! the latency of each request.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use mfserv_core::Diagnostic;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use crate::bench::arrivals::Arrival;
use crate::bench::front::load::{Connection, Tally, Wanted};
use crate::interrupt;

/// What is read at a time, bytes.
const ROOM: usize = 64 * 1024;
/// How often the end is looked for while nothing comes.
const LOOK: Duration = Duration::from_millis(20);
/// How long answers of an open loop are waited for after its last request was due.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a turn has shown.
#[derive(Debug, Default)]
pub struct Asked {
    /// Of each good answer, milliseconds: in an open loop from the time when it was due.
    pub latencies_ms: Vec<f64>,
    /// Requests that were answered otherwise, or not at all.
    pub failed: u64,
    /// How long it took, seconds.
    pub seconds: f64,
}

/// Connections to one front.
#[derive(Debug)]
pub struct Clients {
    poll: OwnedFd,
    address: SocketAddr,
    length: u64,
    request: Vec<u8>,
    connections: Vec<Connection>,
    /// Since when the request of each connection counts; none: it has nothing to wait for.
    since: Vec<Option<Instant>>,
    free: Vec<usize>,
    room: Vec<u8>,
}

impl Clients {
    /// Connects.
    pub fn connect(address: SocketAddr, wanted: &Wanted) -> Result<Self, Diagnostic> {
        let connect = || -> io::Result<Self> {
            let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            let numbers = 0..wanted.connections;
            let connections = numbers.map(|number| Connection::open(address, &poll, number));
            Ok(Self {
                connections: connections.collect::<io::Result<_>>()?,
                poll,
                address,
                length: wanted.length,
                request: wanted.request(),
                since: vec![None; wanted.connections],
                free: (0..wanted.connections).collect(),
                room: vec![0; ROOM],
            })
        };
        connect().map_err(failed)
    }

    /// Closed loop: each connection asks again as soon as it is answered. What is under way at
    /// the end goes on in the next call.
    pub fn saturate(&mut self, time: Duration) -> Result<Asked, Diagnostic> {
        let (began, mut asked) = (Instant::now(), Asked::default());
        while began.elapsed() < time {
            while let Some(number) = self.free.pop() {
                self.ask(number, Instant::now())?;
            }
            self.receive(LOOK, &mut asked)?;
        }
        asked.seconds = began.elapsed().as_secs_f64();
        Ok(asked)
    }

    /// Open loop: requests are sent when their time has come; one that is due while all
    /// connections are taken is late, and its latency says so. Waits for the last answer.
    pub fn keep_pace(&mut self, arrivals: &[Arrival]) -> Result<Asked, Diagnostic> {
        let (began, mut asked) = (Instant::now(), Asked::default());
        let mut to_come: VecDeque<Instant> = arrivals.iter().map(|a| began + a.at).collect();
        let last = to_come.back().copied().unwrap_or(began);
        while !to_come.is_empty() || self.free.len() < self.connections.len() {
            let now = Instant::now();
            if now > last + PATIENCE {
                let waiting = self.connections.len() - self.free.len();
                asked.failed += (to_come.len() + waiting) as u64;
                break;
            }
            while to_come.front().is_some_and(|due| *due <= now) {
                let Some(number) = self.free.pop() else { break };
                let due = to_come.pop_front().unwrap_or(now);
                self.ask(number, due)?;
            }
            let next = to_come.front().filter(|_| !self.free.is_empty());
            let left = next.map_or(LOOK, |due| due.saturating_duration_since(Instant::now()));
            self.receive(left.min(LOOK), &mut asked)?;
        }
        asked.seconds = began.elapsed().as_secs_f64();
        Ok(asked)
    }

    /// Asks on a free connection; on a new one if the front has closed it meanwhile.
    fn ask(&mut self, number: usize, since: Instant) -> Result<(), Diagnostic> {
        self.since[number] = Some(since);
        if self.connections[number].ask(&self.request).is_err() {
            self.replace(number)?;
            self.connections[number].ask(&self.request).map_err(failed)?;
        }
        Ok(())
    }

    fn replace(&mut self, number: usize) -> Result<(), Diagnostic> {
        self.connections[number] =
            Connection::open(self.address, &self.poll, number).map_err(failed)?;
        Ok(())
    }

    /// Waits for answers, and takes those that have come.
    fn receive(&mut self, time: Duration, asked: &mut Asked) -> Result<(), Diagnostic> {
        interrupt::check()?;
        let time = Timespec { tv_sec: 0, tv_nsec: time.subsec_nanos().into() };
        let mut events = Vec::with_capacity(self.connections.len());
        match epoll::wait(&self.poll, spare_capacity(&mut events), Some(&time)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(why) => return Err(failed(why.into())),
        }
        let tally = Tally::default();
        for event in &events {
            let number = event.data.u64() as usize;
            match self.connections[number].read(&mut self.room, self.length, &tally) {
                Some(false) => continue,
                Some(true) => {
                    let took = self.since[number].take().map(|since| since.elapsed());
                    asked.latencies_ms.extend(took.map(|took| took.as_secs_f64() * 1000.0));
                }
                None => {
                    // One that was closed while nothing was asked has not failed.
                    asked.failed += u64::from(self.since[number].take().is_some());
                    self.replace(number)?;
                }
            }
            if !self.free.contains(&number) {
                self.free.push(number);
            }
        }
        Ok(())
    }
}

fn failed(why: io::Error) -> Diagnostic {
    Diagnostic::error("the clients cannot ask").because(why)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// A server that answers each connection's requests in a thread, every third one with 500.
    fn server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let mut room = [0; 4096];
                    for number in 1.. {
                        if !stream.read(&mut room).is_ok_and(|count| count > 0) {
                            return;
                        }
                        let status = if number % 3 == 0 { "500 No" } else { "200 OK" };
                        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 3\r\n\r\nok\n");
                        if stream.write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    fn wanted() -> Wanted {
        Wanted { path: "/".into(), length: 3, connections: 2 }
    }

    #[test]
    fn a_closed_loop_counts_good_answers_and_failures() {
        let mut clients = Clients::connect(server(), &wanted()).unwrap();
        let asked = clients.saturate(Duration::from_millis(200)).unwrap();
        let (good, failed) = (asked.latencies_ms.len() as u64, asked.failed);
        assert!(failed > 0, "{good} answers and no failure");
        // A connection is replaced after its failure: two good answers, then a failed one.
        assert!((good / failed).abs_diff(2) <= 1, "{good} good, {failed} failed");
        assert!(asked.latencies_ms.iter().all(|ms| *ms > 0.0 && *ms < 200.0));
    }

    #[test]
    fn an_open_loop_asks_as_often_as_it_shall() {
        let mut clients = Clients::connect(server(), &wanted()).unwrap();
        let at = |ms| Arrival { at: Duration::from_millis(ms), service: LOOK, fast: true };
        let arrivals: Vec<Arrival> = (0..20).map(|number| at(number * 5)).collect();
        let asked = clients.keep_pace(&arrivals).unwrap();
        assert_eq!(asked.latencies_ms.len() as u64 + asked.failed, 20);
        assert!(asked.seconds >= 0.095, "{} s", asked.seconds);
    }
}

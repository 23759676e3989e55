//! A whole stack that runs: what it costs, and where it answers.

use std::net::SocketAddr;
use std::ops::Sub;
use std::time::Duration;

use mfserv_core::Diagnostic;

use super::load::Clients;
use crate::bench::arrivals::Arrival;
use crate::bench::front::load::Wanted;
use crate::{interrupt, process};

/// How long it may take until it answers.
const STARTING: Duration = Duration::from_secs(30);

/// A stack that runs; what is in it ends when this is dropped.
pub struct Contestant {
    /// How it is called in the report.
    pub name: String,
    /// Where it answers.
    pub address: SocketAddr,
    /// What is asked for.
    pub path: String,
    /// Its processes; those of front and workers stand for all that they have started.
    pub processes: Processes,
    /// What ends it when it is dropped, in this order.
    #[expect(dead_code, reason = "ends the programs when dropped")]
    pub life: Vec<Box<dyn Send>>,
}

/// The processes of a stack, by what they do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Processes {
    /// Those that speak with clients.
    pub front: Vec<u32>,
    /// Those that run the app, with their parents.
    pub workers: Vec<u32>,
    /// All others.
    pub rest: Vec<u32>,
}

/// CPU time, microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cpu {
    /// Of those that speak with clients.
    pub front: f64,
    /// Of those that run the app.
    pub workers: f64,
    /// Of all others.
    pub rest: f64,
}

impl Cpu {
    /// All of it.
    pub fn whole(self) -> f64 {
        self.front + self.workers + self.rest
    }

    /// That of each of so many requests.
    pub fn each(self, requests: f64) -> Self {
        Self {
            front: self.front / requests,
            workers: self.workers / requests,
            rest: self.rest / requests,
        }
    }
}

impl Sub for Cpu {
    type Output = Cpu;

    fn sub(self, before: Cpu) -> Cpu {
        Cpu {
            front: self.front - before.front,
            workers: self.workers - before.workers,
            rest: self.rest - before.rest,
        }
    }
}

impl Processes {
    /// With those that front and workers have started: nginx and other servers fork after they
    /// listen. The rest has started the others, or nothing.
    pub fn now(&self) -> Self {
        let family = |pid: &u32| [vec![*pid], process::descendants(*pid)].concat();
        Self {
            front: self.front.iter().flat_map(family).collect(),
            workers: self.workers.iter().flat_map(family).collect(),
            rest: self.rest.clone(),
        }
    }

    /// The CPU time that they have used so far.
    pub fn used(&self) -> Result<Cpu, Diagnostic> {
        let of = |pids: &[u32]| process::used(pids).map(|used| used.cpu_ns as f64 / 1000.0);
        let Self { front, workers, rest } = self;
        Ok(Cpu { front: of(front)?, workers: of(workers)?, rest: of(rest)? })
    }
}

impl Contestant {
    /// What clients ask of it.
    pub fn wanted(&self, length: u64, connections: usize) -> Wanted {
        Wanted { path: self.path.clone(), length, connections }
    }

    /// Waits until it answers as it shall.
    pub fn wait_until_ready(&self, length: u64) -> Result<(), Diagnostic> {
        let once = [Arrival { at: Duration::ZERO, service: Duration::ZERO, fast: true }];
        let answers = || -> Option<()> {
            let mut clients = Clients::connect(self.address, &self.wanted(length, 1)).ok()?;
            let asked = clients.keep_pace(&once).ok()?;
            (asked.latencies_ms.len() == 1).then_some(())
        };
        let what = format!("{} answers {length} bytes to GET {}", self.name, self.path);
        interrupt::until(&what, STARTING, answers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_of_a_request_is_what_was_used_meanwhile_divided_by_all_requests() {
        let before = Cpu { front: 100.0, workers: 1000.0, rest: 7.0 };
        let after = Cpu { front: 1100.0, workers: 4000.0, rest: 27.0 };
        let each = (after - before).each(10.0);
        assert_eq!(each, Cpu { front: 100.0, workers: 300.0, rest: 2.0 });
        assert_eq!(each.whole(), 402.0);
    }
}

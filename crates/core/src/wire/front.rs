//! The messages between the daemon and a front.
//!
//! Each front listens on its own unix socket, `var/run/front_N.K.socket`: N is the slot of
//! the front's worker, K its incarnation. The daemon connects to every living front. A
//! front that loses its daemon goes on serving with what it has; a daemon that comes back learns from `Hello` who is admitted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::event::NginxEnd;
use crate::names::WorkerId;
use crate::node_state::NodeState;
use crate::route::{Amendment, RouteTable};
pub use crate::wire::peer::{Address, Peer};

/// The version of this protocol: 1 knows whole tables only, 2 amendments too, 3 asks for idle
/// workers, 4 says that processes of nginx have ended.
pub const VERSION: u32 = 4;

/// Why the newest code of a plugin under development does not start, in plain text. The front
/// shows it to the developer as a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breakage {
    /// The worker that does not start, and how it ended.
    pub what: String,
    /// The last lines of its output: at most 4 KiB.
    pub output: String,
    /// Since when, milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// What a worker did wrong, in one word on the wire and in events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TroubleCause {
    /// Nobody listened on its socket.
    Refused,
    /// It ended a connection without an answer.
    Reset,
    /// It sent nothing for the timeout of its app.
    Timeout,
    /// It sent something that is no answer, or bytes that nobody asked for.
    Malformed,
    /// It ended a connection in the middle of an answer.
    EarlyEnd,
    /// It has refused a request because it has too much to do.
    Overloaded,
    /// Its answer could not be moved through a pipe.
    Pipe,
    /// It was to be admitted to an app that the table does not have.
    UnknownApp,
    /// A cause that only a front of another version knows.
    #[serde(other)]
    Other,
}

impl TroubleCause {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            TroubleCause::Refused => "refused",
            TroubleCause::Reset => "reset",
            TroubleCause::Timeout => "timeout",
            TroubleCause::Malformed => "malformed",
            TroubleCause::EarlyEnd => "early_end",
            TroubleCause::Overloaded => "overloaded",
            TroubleCause::Pipe => "pipe",
            TroubleCause::UnknownApp => "unknown_app",
            TroubleCause::Other => "other",
        }
    }
}

impl std::fmt::Display for TroubleCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The daemon to a front.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum ToFront {
    /// First message.
    Hello {
        /// The daemon's protocol version.
        version: u32,
    },
    /// Route by this table from now on. A peer of an upstream that both tables have
    /// keeps its requests and connections. Answered by `Published`, or by `Refused`
    /// (and then nothing has changed).
    Publish {
        /// The plan's generation; an older one than the last is refused.
        generation: u64,
        /// The table.
        table: Box<RouteTable>,
        /// The admitted workers, by upstream. Any other worker is drained, without a `Drained`.
        peers: BTreeMap<String, Vec<Peer>>,
    },
    /// Route by this table from now on; the message has what differs from the one in force.
    /// Answered like `Publish`. Since version 2.
    Amend {
        /// The generation that the difference starts from; the front refuses any other.
        base: u64,
        /// The plan's generation.
        generation: u64,
        /// What differs.
        amendment: Box<Amendment>,
        /// The admitted workers of the plugins that differ, by upstream. Any other worker of
        /// these plugins is drained, without a `Drained`.
        peers: BTreeMap<String, Vec<Peer>>,
    },
    /// Give traffic to a worker. Answered by `Admitted`, or, where no table has the
    /// app, by `Trouble` with the cause `unknown_app`.
    Admit {
        /// The upstream.
        upstream: String,
        /// The worker.
        peer: Peer,
    },
    /// Give no more traffic to a worker. The front answers `Drained` when nothing is in flight
    /// and its idle connections are closed; for an unknown worker at once.
    Drain {
        /// The upstream.
        upstream: String,
        /// The worker.
        worker: WorkerId,
    },
    /// A worker is dead: remove it. Its requests fail or are tried again on another worker.
    Forget {
        /// The upstream.
        upstream: String,
        /// The worker.
        worker: WorkerId,
    },
    /// The node's state, for the health endpoint.
    State {
        /// The state.
        #[serde(rename = "word")]
        node: NodeState,
        /// By name, the plugins under development whose newest code does not start.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        broken: BTreeMap<String, Breakage>,
        /// The apps (`PLUGIN/APP`) of which no worker lives because all wait for their next
        /// start after crashes, with the time of the first one, milliseconds since the Unix
        /// epoch.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        backing_off: BTreeMap<String, u64>,
    },
    /// Answered by `Stats`.
    Stats,
    /// Which of these workers have nothing in hand? Answered by `Idle`. The daemon asks also
    /// without naming any worker: a front that does not answer hangs. Since version 3.
    Idle {
        /// The workers, by upstream.
        workers: BTreeMap<String, Vec<WorkerId>>,
    },
}

/// A front to the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum FromFront {
    /// First message.
    Hello {
        /// The front's protocol version.
        version: u32,
        /// Its process id.
        pid: u32,
        /// The generation of its table; 0 = it has no table yet and accepts no connection.
        generation: u64,
        /// The admitted workers, by upstream (draining workers are not listed).
        peers: BTreeMap<String, Vec<Peer>>,
    },
    /// The table is in force.
    Published {
        /// Its generation.
        generation: u64,
    },
    /// The table was refused; the one before stays in force.
    Refused {
        /// Its generation.
        generation: u64,
        /// Why.
        reason: String,
    },
    /// The worker receives traffic.
    Admitted {
        /// The worker.
        worker: WorkerId,
    },
    /// The worker has no request and no connection any more.
    Drained {
        /// The worker.
        worker: WorkerId,
    },
    /// A worker did not behave (connection refused, broken answer, timeout).
    Trouble {
        /// The worker.
        worker: WorkerId,
        /// What it did.
        cause: TroubleCause,
        /// More words, with the path and the id of the request that met it.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        detail: String,
    },
    /// A process of nginx has ended although nobody has asked it to, or before it was to.
    /// Sent to daemons of version 4 and above.
    NginxEnded(NginxEnd),
    /// Counters since this front started.
    Stats(Stats),
    /// Of the workers that the daemon has asked for.
    Idle {
        /// Those that get traffic and have nothing in hand, with how long that has been so,
        /// milliseconds. A worker whose client went away before the answer was complete counts
        /// as at work until the timeout of its app.
        quiet: Vec<(WorkerId, u64)>,
    },
}

/// Counters of a front.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Client connections open now.
    pub connections: u64,
    /// Client connections accepted.
    pub accepted: u64,
    /// Requests answered.
    pub requests: u64,
    /// Requests to apps that are under way, until their clients have the whole answer. Upgraded
    /// connections, which may last for days, do not count.
    pub under_way: u64,
    /// By upstream.
    pub upstreams: BTreeMap<String, UpstreamStats>,
    /// By sentence, limits that were met, and what the front does not do.
    pub warnings: BTreeMap<String, Warned>,
}

impl Stats {
    /// Adds the counters of another front.
    pub fn add(&mut self, other: &Stats) {
        // By name, here and below: a field that is added later cannot be forgotten.
        let Stats { connections, accepted, requests, under_way, upstreams, warnings } = other;
        self.connections += connections;
        self.accepted += accepted;
        self.requests += requests;
        self.under_way += under_way;
        for (name, counters) in upstreams {
            self.upstreams.entry(name.clone()).or_default().add(counters);
        }
        for (sentence, warned) in warnings {
            self.warnings.entry(sentence.clone()).or_default().add(*warned);
        }
    }
}

/// How often a front has had to warn of something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Warned {
    /// How often it has happened; 0: it is so all the time.
    pub count: u64,
    /// When last, milliseconds since the Unix epoch.
    pub last_ms: u64,
    /// It is no limit: the front does not do what it is told to.
    pub is_fault: bool,
    /// It comes of the routes in force: an operation that changes them says it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_of_routes: bool,
}

impl Warned {
    /// Adds what another front has had to warn of.
    fn add(&mut self, other: Warned) {
        let Warned { count, last_ms, is_fault, is_of_routes } = other;
        self.count += count;
        self.last_ms = self.last_ms.max(last_ms);
        self.is_fault |= is_fault;
        self.is_of_routes |= is_of_routes;
    }
}

/// Counters of one upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpstreamStats {
    /// Requests answered, by class of status: 1xx, 2xx, 3xx, 4xx, 5xx.
    pub by_class: [u64; 5],
    /// Requests tried again on another worker.
    pub retried: u64,
    /// Requests that waited for a slot.
    pub queued: u64,
    /// Requests waiting now.
    pub waiting: u64,
    /// In flight now, by worker.
    pub in_flight: BTreeMap<String, u64>,
    /// Slow requests that hold slots of workers with traffic.
    pub slow_in_flight: u64,
    /// Slow requests that wait because the last slot is left to the others.
    pub slow_waiting: u64,
    /// Which requests are slow: method and shape of the path, the slowest first.
    pub slow_kinds: Vec<String>,
}

impl UpstreamStats {
    /// Adds the counters of another front.
    pub fn add(&mut self, other: &UpstreamStats) {
        let UpstreamStats {
            by_class,
            retried,
            queued,
            waiting,
            in_flight,
            slow_in_flight,
            slow_waiting,
            slow_kinds,
        } = other;
        for (own, other) in self.by_class.iter_mut().zip(by_class) {
            *own += other;
        }
        self.retried += retried;
        self.queued += queued;
        self.waiting += waiting;
        self.slow_in_flight += slow_in_flight;
        self.slow_waiting += slow_waiting;
        let known = |kind: &&String| !self.slow_kinds.contains(kind);
        let new: Vec<String> = slow_kinds.iter().filter(known).cloned().collect();
        self.slow_kinds.extend(new);
        for (worker, requests) in in_flight {
            *self.in_flight.entry(worker.clone()).or_default() += requests;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::TroubleCause::{self, *};

    #[test]
    fn a_cause_is_its_word_on_the_wire_and_an_unknown_word_is_no_error() {
        for cause in
            [Refused, Reset, Timeout, Malformed, EarlyEnd, Overloaded, Pipe, UnknownApp, Other]
        {
            let text = serde_json::to_string(&cause).unwrap();
            assert_eq!(text, format!("\"{cause}\""));
            assert_eq!(serde_json::from_str::<TroubleCause>(&text).unwrap(), cause);
        }
        assert_eq!(serde_json::from_str::<TroubleCause>("\"of_tomorrow\"").unwrap(), Other);
    }
}

//! Sends the counters of this front to the telemetry role, once a second.
//!
//! A thread of its own does it, so that no request waits for it; when nobody listens, it skips.

use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use mfserv_core::wire::metrics::{
    FrontCounters, Load, Requests, Source, ToTelemetry, until_next_message_ms,
};
use mfserv_platform::clock::now_ms;
use mfserv_platform::link::{Link, LinkError};

use super::request::state::Front;

/// How long the role may take to read a message; after that the connection is given up.
const PATIENCE: Duration = Duration::from_millis(500);

/// The thread that sends.
pub struct Sender {
    /// Nothing is sent on it: the thread ends when it is dropped.
    end: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Sender {
    /// Starts to send to the role that listens on this socket, whenever it does.
    pub fn start(front: Arc<Front>, socket: PathBuf) -> std::io::Result<Self> {
        let (end, ended) = sync_channel(1);
        let source = Source {
            pid: std::process::id(),
            since_ms: now_ms(),
            version: env!("CARGO_PKG_VERSION").into(),
        };
        let mut sending = Sending { front, socket, source, link: None, sent: HashMap::new() };
        let thread = std::thread::Builder::new().name("metrics".into());
        let thread = thread.spawn(move || sending.run(&ended))?;
        Ok(Self { end, thread })
    }

    /// Sends the last counters, and ends.
    pub fn end(self) {
        drop(self.end);
        // A thread that panicked has ended as well.
        let _ = self.thread.join();
    }
}

struct Sending {
    front: Arc<Front>,
    socket: PathBuf,
    source: Source,
    link: Option<Link>,
    /// How many requests of each row the role knows of.
    sent: HashMap<String, u64>,
}

impl Sending {
    fn run(&mut self, ended: &Receiver<()>) {
        loop {
            let wait = Duration::from_millis(until_next_message_ms(now_ms()));
            let is_last = ended.recv_timeout(wait) != Err(RecvTimeoutError::Timeout);
            self.send();
            if is_last {
                return;
            }
        }
    }

    fn send(&mut self) {
        if self.link.is_none() {
            // Nobody listens: the counters are sent when somebody does.
            self.link = self.connect().ok();
            self.sent.clear();
        }
        let Some(link) = &mut self.link else { return };
        let counters = self.front.counters(&mut self.sent);
        if link.send(&ToTelemetry::Front(Box::new(counters))).is_err() {
            self.link = None;
        }
    }

    fn connect(&self) -> Result<Link, LinkError> {
        let stream = UnixStream::connect(&self.socket)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut link = Link::new(stream);
        link.send(&ToTelemetry::Hello(self.source.clone()))?;
        Ok(link)
    }
}

impl Front {
    /// All counters, except those of apps that had no request since `sent` was written.
    fn counters(&self, sent: &mut HashMap<String, u64>) -> FrontCounters {
        let mut rows = self.counts();
        rows.retain(|key, row: &mut Requests| {
            let count = row.duration.count();
            sent.insert(key.clone(), count) != Some(count)
        });
        let load = self.pool.stats().into_iter().map(|(upstream, stats)| Load {
            upstream,
            in_flight: stats.in_flight.values().sum(),
            waiting: stats.waiting,
            queued: stats.queued,
            retried: stats.retried,
        });
        FrontCounters {
            connections: self.connections(),
            accepted: self.accepted(),
            busy: self.requests().1,
            handshakes: self.tls.counts.all().map(|(word, n)| (word.into(), n)).collect(),
            requests: rows.into_values().collect(),
            load: load.collect(),
        }
    }
}

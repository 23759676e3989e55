//! The access log: what is recorded of a request, and its line in `nginx_access.log`.
//!
//! To add a field to the log, add it to [`AccessRecord`] (or to [`Asked`], if it is read
//! from the request) and to [`AccessRecord::write`].

mod line;

use std::sync::Arc;
use std::time::Duration;

use mfserv_core::wire::metrics::Answerer;
use mfserv_h1::{Name, RequestHead};
use mfserv_logfile::{MarkKind, Served, Source, request_hash};
use tokio::time::Instant;

use line::{number, push_seconds, push_time, text};

use super::fault::Cause;
use super::trace::Trace;
use crate::embedded::io::clock;
use crate::embedded::io::log_file::LogWriter;

/// The longest request id that is taken over from a client, bytes.
const ID_MAX: usize = 128;

/// The source of lines of requests that no worker has seen.
static NO_WORKER: std::sync::LazyLock<Arc<Source>> = std::sync::LazyLock::new(Arc::default);

/// How many bytes a connection has received and sent since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes received, without those that no request has used yet.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
}

/// The values of one request in the access log. A record is used for one request after the
/// other.
pub struct AccessRecord {
    began: Instant,
    before: Traffic,
    id: Vec<u8>,
    trace: Trace,
    plugin: String,
    app: String,
    by: Answerer,
    wait: Duration,
    /// When the worker was asked.
    asked_worker: Option<Instant>,
    /// When the worker had answered.
    left_worker: Option<Instant>,
    /// The worker that has the request, or had it last.
    worker: Option<Arc<Source>>,
    status: u16,
    /// Why the front did not deliver the answer of an app or a file.
    cause: Option<Cause>,
    is_logged: bool,
}

/// What a request went to.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The plugin; `#core#`, `#monitoring#` or `#unknown#` for none.
    pub plugin: &'a str,
    /// The app; empty for none.
    pub app: &'a str,
    /// What answered it.
    pub by: Answerer,
}

/// What was measured of a request.
pub struct Measured<'a> {
    /// The status; 0 = there was no answer.
    pub status: u16,
    /// The method.
    pub method: &'a [u8],
    /// From the head to the end of the answer, microseconds.
    pub us: u64,
    /// How long it waited for slots, microseconds.
    pub wait_us: u64,
    /// Bytes received.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
    /// The request id.
    pub id: &'a [u8],
}

/// What is read from a request for its line.
pub struct Asked<'a> {
    /// The address for which it was asked.
    pub from: &'a str,
    /// The address that connected, where that may be another one.
    pub via: Option<&'a str>,
    /// The head; `None` if it could not be understood.
    pub head: Option<&'a RequestHead>,
    /// When the first byte of the head came, if that was before the last one.
    pub head_since: Option<Instant>,
}

impl AccessRecord {
    /// A record of no request.
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            before: Traffic::default(),
            id: Vec::with_capacity(32),
            trace: Trace::None,
            plugin: String::new(),
            app: String::new(),
            by: Answerer::Front,
            wait: Duration::ZERO,
            asked_worker: None,
            left_worker: None,
            worker: None,
            status: 0,
            cause: None,
            is_logged: true,
        }
    }

    /// Begins the record of the next request on a connection.
    pub fn begin(&mut self, traffic: Traffic) {
        self.began = Instant::now();
        self.before = traffic;
        self.id.clear();
        self.trace = Trace::None;
        self.set_plugin("#unknown#");
        self.app.clear();
        self.by = Answerer::Front;
        self.wait = Duration::ZERO;
        self.asked_worker = None;
        self.left_worker = None;
        self.worker = None;
        self.status = 0;
        self.cause = None;
        self.is_logged = true;
    }

    /// When the head of the request had come.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// The request id.
    pub fn id(&self) -> &[u8] {
        &self.id
    }

    /// For a new request id.
    pub fn id_mut(&mut self) -> &mut Vec<u8> {
        &mut self.id
    }

    /// Takes over the client's request id. False if there is none, or one that has no
    /// place in a head or a log.
    pub fn accept_id(&mut self, head: &RequestHead) -> bool {
        let Some(id) = head.fields.first(Name::RequestId) else { return false };
        let is_good = id.len() <= ID_MAX && id.iter().all(u8::is_ascii_graphic);
        if is_good {
            self.id.clear();
            self.id.extend_from_slice(id);
        }
        is_good
    }

    /// The trace that the request is part of.
    pub fn trace(&self) -> Trace {
        self.trace
    }

    /// Records the trace that the request is part of.
    pub fn set_trace(&mut self, trace: Trace) {
        self.trace = trace;
    }

    /// Records the plugin that the request goes to; `#monitoring#` or `#core#` for the
    /// front's own endpoints. It is `#unknown#` until then.
    pub fn set_plugin(&mut self, plugin: &str) {
        self.plugin.clear();
        self.plugin.push_str(plugin);
    }

    /// Records the app that the request goes to, and what answers it.
    pub fn set_app(&mut self, app: &str, by: Answerer) {
        self.app.clear();
        self.app.push_str(app);
        self.by = by;
    }

    /// Records that the request has waited so long for a slot, once more.
    pub fn add_wait(&mut self, wait: Duration) {
        self.wait += wait;
        // A worker that was asked before has failed.
        self.asked_worker = None;
    }

    /// Records that a worker is asked now.
    pub fn ask_worker(&mut self) {
        self.asked_worker = Some(Instant::now());
    }

    /// Records when the worker has begun.
    pub fn worker_began(&mut self, at: Instant) {
        self.asked_worker = Some(at);
    }

    /// Records that the worker has answered, and is free for the next request.
    pub fn leave_worker(&mut self) {
        self.left_worker = Some(Instant::now());
    }

    /// How long the request has taken until now, as the value of Server-Timing, in
    /// milliseconds. What no worker was asked for has waited for none.
    pub fn server_timing(&self) -> String {
        let ms = |time: Duration| time.as_micros() as f64 / 1000.0;
        // One clock for all three: the parts are never more than the whole.
        let now = Instant::now();
        let total = ms(now.duration_since(self.began));
        match self.asked_worker {
            None => format!("total;dur={total:.3}"),
            Some(asked) => {
                let (queue, app) = (ms(self.wait), ms(now.duration_since(asked)));
                format!("queue;dur={queue:.3}, app;dur={app:.3}, total;dur={total:.3}")
            }
        }
    }

    /// What is counted of the request. `method`: of its head, empty if that was not understood.
    pub fn measured<'a>(&'a self, method: &'a [u8], now: Traffic) -> (Subject<'a>, Measured<'a>) {
        let subject = Subject { plugin: &self.plugin, app: &self.app, by: self.by };
        let measured = Measured {
            status: self.status,
            method,
            us: self.began.elapsed().as_micros() as u64,
            wait_us: self.wait.as_micros() as u64,
            received: now.received - self.before.received,
            sent: now.sent - self.before.sent,
            id: &self.id,
        };
        (subject, measured)
    }

    /// Records the worker that the request is sent to. It is in the index of the log, not in
    /// the log: other programs read its lines.
    pub fn set_worker(&mut self, worker: &Arc<Source>) {
        self.worker = Some(worker.clone());
        self.asked_worker = None;
    }

    /// The status of the answer; 0 before there is one.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Records the status of the answer.
    pub fn set_status(&mut self, status: u16) {
        self.status = status;
    }

    /// Records why the front answers in place of an app or a file. Such a request is always in
    /// the log: its id is on the page that the client gets.
    pub fn set_cause(&mut self, cause: Cause) {
        self.cause = Some(cause);
        self.is_logged = true;
    }

    /// True unless the request is left out of the log.
    pub fn is_logged(&self) -> bool {
        self.is_logged
    }

    /// Leaves the request out of the log, or not.
    pub fn set_logged(&mut self, is_logged: bool) {
        self.is_logged = is_logged;
    }

    /// Writes the line of the request.
    pub fn write(&self, log: &LogWriter, asked: &Asked<'_>, now: Traffic) {
        let began = asked.head_since.unwrap_or(self.began);
        let (host, method, uri) = match asked.head {
            Some(head) => (head.host_name(), head.method(), head.written_target()),
            None => (&[][..], &[][..], &[][..]),
        };
        let worker = self.worker.as_ref().unwrap_or(&NO_WORKER);
        log.line_of(Some((worker, self.mark())), |line| {
            line.extend_from_slice(b"{ \"@timestamp\": \"");
            push_time(line);
            text(line, "\", \"from\": \"", asked.from.as_bytes());
            if let Some(via) = asked.via {
                text(line, "\", \"via\": \"", via.as_bytes());
            }
            text(line, "\", \"host\": \"", host);
            if let Some(host) = line.len().checked_sub(host.len()) {
                line[host..].make_ascii_lowercase();
            }
            text(line, "\", \"method\": \"", method);
            text(line, "\", \"uri\": \"", uri);
            line.extend_from_slice(b"\", \"duration\": ");
            push_seconds(line, began.elapsed().as_millis() as u64);
            number(line, ", \"status\": ", u64::from(self.status));
            number(line, ", \"request_length\": ", now.received - self.before.received);
            number(line, ", \"reply_length\": ", now.sent - self.before.sent);
            text(line, ", \"plugin\": \"", self.plugin.as_bytes());
            text(line, "\", \"request_id\": \"", &self.id);
            if let Some(id) = self.trace.id() {
                text(line, "\", \"trace_id\": \"", id);
            }
            if let Some(cause) = self.cause {
                text(line, "\", \"cause\": \"", cause.as_str().as_bytes());
            }
            line.extend_from_slice(b"\" }\n");
        });
    }

    /// What the index says of the request, which ends now.
    fn mark(&self) -> MarkKind {
        let hash = request_hash(&self.id);
        let Some(asked) = self.asked_worker else { return MarkKind::Request(hash) };
        let (end, now_us) = (Instant::now(), clock::unix_us());
        let ms_at = |time: Instant| (now_us - (end - time).as_micros() as u64) / 1000;
        let (from_ms, end_ms) = (ms_at(asked), ms_at(end));
        let to_ms = ms_at(self.left_worker.unwrap_or(end));
        MarkKind::Served(hash, Served { from_ms, to_ms, end_ms })
    }
}

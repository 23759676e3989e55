//! What is recorded of an exchange, and what it leaves of its connection.

use std::sync::Arc;
use std::time::Duration;

use mfserv_core::wire::metrics::Answerer;
use mfserv_h1::Framing;
use mfserv_logfile::Source;
use tokio::time::Instant;

use super::Exchange;
use crate::embedded::clients::access_log::{Asked, Measured, Subject, Traffic};
use crate::embedded::clients::answer::Head;
use crate::embedded::clients::edge::EDGE_END;
use crate::embedded::clients::fault::Cause;
use crate::embedded::clients::trace::Trace;
use crate::embedded::io::log_file::LogWriter;

impl Exchange<'_> {
    /// The request id.
    pub fn id(&self) -> &[u8] {
        self.record.id()
    }

    /// The trace that the request is part of.
    pub fn trace(&self) -> Trace {
        self.record.trace()
    }

    /// The request is part of this trace.
    pub fn set_trace(&mut self, trace: Trace) {
        self.record.set_trace(trace);
    }

    /// A worker is asked now.
    pub fn ask_worker(&mut self) {
        self.record.ask_worker();
    }

    /// The worker that has answered has begun with the request at this time.
    pub fn worker_began(&mut self, at: Instant) {
        self.record.worker_began(at);
    }

    /// The worker has answered, and is free for the next request.
    pub fn leave_worker(&mut self) {
        self.record.leave_worker();
    }

    /// The front answers in place of an app or a file, or cannot finish an answer.
    pub fn set_cause(&mut self, cause: Cause) {
        self.record.set_cause(cause);
    }

    /// The plugin that the request goes to.
    pub fn set_plugin(&mut self, plugin: &str) {
        self.record.set_plugin(plugin);
    }

    /// The app that the request goes to, and what answers it.
    pub fn set_app(&mut self, app: &str, by: Answerer) {
        self.record.set_app(app, by);
    }

    /// The request has waited so long for a slot.
    pub fn add_wait(&mut self, wait: Duration) {
        self.record.add_wait(wait);
    }

    /// What is counted of the request.
    pub fn measured(&self) -> (Subject<'_>, Measured<'_>) {
        let method = match self.request.is_understood {
            true => self.request.head.method(),
            false => b"",
        };
        self.record.measured(method, self.traffic())
    }

    /// The worker that the request is sent to.
    pub fn set_worker(&mut self, worker: &Arc<Source>) {
        self.record.set_worker(worker);
    }

    /// Leaves the request out of the access log, or not.
    pub fn set_logged(&mut self, is_logged: bool) {
        self.record.set_logged(is_logged);
    }

    /// What is asked for, as the client wrote it; `?` if that was not understood.
    pub fn written_target(&self) -> &[u8] {
        match self.request.is_understood {
            true => self.request.head.written_target(),
            false => b"?",
        }
    }

    /// The client went away: 499 is the status in the log, unless an answer had begun.
    pub fn client_went(&mut self) {
        self.answer.keep_alive = false;
        self.connection.out.clear();
        if self.record.status() == 0 {
            self.record.set_status(499);
        }
    }

    /// The connection ends without an answer; 444 is the status in the log, as nginx has it. nginx
    /// itself is asked to end its client's, with 204: `error_page` of a fragment is for 300 and above.
    pub fn refuse_silently(&mut self) {
        if self.connection.is_edge() {
            let fields = &[("X-Accel-Redirect", EDGE_END)];
            Head { status: 204, content_type: "", length: None, fields }.put(self);
        } else {
            self.answer.keep_alive = false;
        }
        self.record.set_status(444);
    }

    /// Writes the request into the access log, if it belongs there.
    pub fn log(&self, log: &LogWriter) {
        if !self.settings.access_log || !self.record.is_logged() {
            return;
        }
        let peer = self.connection.peer_text();
        let asked = Asked {
            from: self.address_text(),
            via: self.settings.real_ip.as_ref().map(|_| peer),
            head: Some(self.request.head).filter(|_| self.request.is_understood),
            head_since: self.connection.head_since(),
        };
        self.record.write(log, &asked, self.traffic());
    }

    /// Of a head that was refused nothing has been taken out of the inbox.
    fn traffic(&self) -> Traffic {
        let mut traffic = self.connection.traffic();
        if !self.request.is_understood {
            traffic.received += self.connection.inbox.len() as u64;
        }
        traffic
    }

    /// True if the connection can be used for another request.
    pub fn keeps_connection(&self) -> bool {
        self.answer.keep_alive && !self.connection.has_ended()
    }

    /// True if the client may still be sending this request.
    pub fn may_be_sending(&self) -> bool {
        let request = &self.request;
        let has_body = request.head.framing != Framing::None;
        !request.is_understood || has_body || !self.connection.inbox.is_empty()
    }
}

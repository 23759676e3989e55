//! The worker of an answer is let go: the answer is complete, or its rest will not come.

use std::time::Duration;

use mfserv_core::wire::front::TroubleCause;
use mfserv_h1::Framing;

use super::Relay;
use super::lingering::Lingering;
use crate::embedded::clients::fault::{Cause, Fault};
use crate::embedded::io::wire::Wire;
use crate::embedded::workers::destination::{Destination, Reply};
use crate::embedded::workers::upstream::{Link, Slot};

impl Relay<'_, '_> {
    /// Once the answer is complete, the worker is free for the next request. True if it was
    /// let go by this.
    pub(super) fn let_go_if_done(&mut self) -> bool {
        if self.broken.is_some() || !self.reader.is_done() {
            return false;
        }
        let Some((slot, link)) = self.held.take() else { return false };
        self.exchange.leave_worker();
        let (is_sent, is_closing) = (self.upload.is_finished(), self.exchange.is_closing());
        let_go(self.reply, self.to, (slot, link), (is_sent, is_closing));
        true
    }

    /// The rest of the answer will not come.
    pub(super) fn break_off(&mut self, cause: TroubleCause) -> Fault {
        if let Some((slot, _)) = self.held.take() {
            let id = String::from_utf8_lossy(self.exchange.id());
            let why = self.why.map_or(String::new(), |why| format!(": {why}"));
            let detail = format!("in the body of its answer{why} (request {id})");
            self.to.pool.report_trouble(&slot.peer.name.worker, cause, &detail);
        }
        self.exchange.set_cause(Cause::Worker(cause));
        Fault::Cut
    }
}

/// A worker has sent the whole answer. `is_sent`: it has the whole request; `is_closing`: the front
/// ends.
pub(super) fn let_go(
    reply: &mut Reply,
    to: Destination<'_>,
    (slot, link): (Slot, Link),
    (is_sent, is_closing): (bool, bool),
) {
    let ahead = std::mem::take(&mut reply.ahead);
    let is_fastcgi = matches!(link.wire, Wire::FastCgi(_));
    // A worker that waits for more of the request would wait in vain.
    if is_fastcgi && is_sent {
        let has_length = matches!(reply.head.framing, Framing::Length(1..));
        let lingering = Lingering { pool: to.pool.clone(), slot, link, has_length };
        return lingering.begin(ahead.len(), Duration::from_millis(to.app.spec.timeout_ms));
    }
    if !ahead.is_empty() && !is_fastcgi {
        slot.distrust();
    }
    let is_reusable = reply.head.keep_alive && is_sent && ahead.is_empty();
    let may_be_kept = to.app.spec.keep_alive && !is_closing;
    match is_reusable {
        true if slot.was_pulled() => slot.give_back(link),
        true if may_be_kept => slot.park(link, reply.head.keep_alive_s),
        _ => slot.end(),
    }
}

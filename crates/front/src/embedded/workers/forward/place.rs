//! A request gets its place: at a worker, or in the queue that workers pull from; it waits for that,
//! and before that for the end of maintenance.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use mfserv_core::maintenance::Maintenance;
use mfserv_core::peers::Shape;
use mfserv_core::wire::front::TroubleCause;
use tokio::time::Instant;

use super::Forwarding;
use crate::embedded::clients::exchange::Exchange;
use crate::embedded::clients::fault::{Cause, Fault};
use crate::embedded::workers::destination::Destination;
use crate::embedded::workers::upstream::{Client, NoLink, Place, Taken};

impl Forwarding<'_, '_> {
    /// A worker or the queue, at once or when it is this request's turn.
    pub(super) async fn place(&mut self, last: NoLink) -> Result<Place, Fault> {
        loop {
            let has_waited = self.tries.waits_since.is_some();
            if pass_gate(self.exchange, &self.to, has_waited).await? {
                // It has not waited for a worker.
                self.tries.waits_since = None;
            }
            if let Some(place) = self.take_place(last).await? {
                return Ok(place);
            }
        }
    }

    /// The same for an app that is not in maintenance; `None`: it is now.
    async fn take_place(&mut self, last: NoLink) -> Result<Option<Place>, Fault> {
        let (upstream, spec) = (&self.to.app.upstream, &self.to.app.spec);
        if let Some(seconds) = upstream.rests_s() {
            return Err(Cause::Crashing(seconds).into());
        }
        let request = self.exchange.request();
        let shape = Shape::new(request.method(), request.path());
        let client = Client::of(spec.affinity.as_ref(), request, self.exchange.address_text());
        let asks = (shape, &client);
        let mut waiting = match upstream.take(self.to.lane, self.tries.avoid.as_ref(), asks) {
            Taken::Now(place) => return Ok(Some(place)),
            Taken::Waiting(waiting) => waiting,
            Taken::Full => return Err(Cause::QueueFull.into()),
            Taken::Removed => return Err(Cause::Removed.into()),
            Taken::Away => return Ok(None),
        };
        let sent_away = || match upstream.rests_s() {
            Some(seconds) => Err(Cause::Crashing(seconds).into()),
            None if upstream.is_removed() => Err(Cause::Removed.into()),
            None => Ok(None),
        };
        let wait = Duration::from_millis(spec.queue_timeout_ms);
        let exchange = &mut *self.exchange;
        let since = Instant::now();
        let slow_wait = Duration::from_millis(spec.slow_lane_wait_ms);
        let first = *self.tries.waits_since.get_or_insert(since);
        let deadline = first + wait;
        let mut hasten_at = match waiting.is_sticky() {
            true => Some(first + wait / 2),
            false => waiting.is_slow().then(|| deadline.min(first + slow_wait)),
        };
        let turn = poll_fn(|cx| {
            // First: the slot that it gives may be all that is missed at the deadline.
            if hasten_at.is_some_and(|at| exchange.has_passed(cx, at)) {
                hasten_at = None;
                match waiting.is_sticky() {
                    true => waiting.loosen(),
                    false => waiting.hasten(),
                }
            }
            if let Poll::Ready(turn) = Pin::new(&mut waiting).poll(cx) {
                return Poll::Ready(turn.map_or_else(sent_away, |place| Ok(Some(place))));
            }
            if exchange.client_has_gone(cx) && !exchange.settings().ignore_client_abort {
                return Poll::Ready(Err(Fault::Gone));
            }
            if hasten_at.is_none() && exchange.has_passed(cx, deadline) {
                let cause = match last {
                    last if last.is_refusal() => Cause::Worker(TroubleCause::Refused),
                    _ if upstream.has_admitted() => Cause::QueueTimeout,
                    _ => Cause::NoWorker,
                };
                return Poll::Ready(Err(cause.into()));
            }
            Poll::Pending
        })
        .await;
        self.exchange.add_wait(since.elapsed());
        turn
    }
}

/// A request to an app in maintenance waits for the end of it, as long as it would wait for a
/// worker, or is refused. True if it has waited. `is_admitted`: there was room for it where requests
/// wait, and it comes from there.
pub(super) async fn pass_gate(
    exchange: &mut Exchange<'_>,
    to: &Destination<'_>,
    is_admitted: bool,
) -> Result<bool, Fault> {
    let (gate, spec) = (&to.app.upstream.gate, &to.app.spec);
    if gate.maintenance().is_none() {
        return Ok(false);
    }
    let since = Instant::now();
    let mut held = None;
    while let Some(maintenance) = gate.maintenance() {
        if maintenance == Maintenance::Shut {
            return Err(Cause::Maintenance.into());
        }
        if held.is_none() {
            let most = if is_admitted { u32::MAX } else { spec.queue_max };
            held = Some(gate.wait(most).ok_or(Cause::QueueFull)?);
        }
        let deadline = since + Duration::from_millis(spec.queue_timeout_ms);
        let end = poll_fn(|cx| {
            if held.as_mut().is_none_or(|held| held.may_go(cx)) {
                return Poll::Ready(Ok(()));
            }
            if exchange.client_has_gone(cx) && !exchange.settings().ignore_client_abort {
                return Poll::Ready(Err(Fault::Gone));
            }
            match exchange.has_passed(cx, deadline) {
                true => Poll::Ready(Err(Cause::Maintenance.into())),
                false => Poll::Pending,
            }
        })
        .await;
        if let Err(fault) = end {
            exchange.add_wait(since.elapsed());
            return Err(fault);
        }
    }
    if held.is_none() {
        return Ok(false);
    }
    exchange.add_wait(since.elapsed());
    // It was not read meanwhile.
    exchange.restart_body_timer();
    Ok(true)
}

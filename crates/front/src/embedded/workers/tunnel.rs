//! After an upgrade: bytes both ways, until one side ends.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mfserv_core::route::ServerSettings;
use tokio::time::Instant;

use crate::embedded::io::timer::{Bell, Ear};
use crate::embedded::workers::forward::{Fault, Forwarding};
use crate::embedded::workers::heads;
use crate::embedded::workers::upstream::{Link, Slot};

/// Passes bytes until both sides have ended, one is gone, nothing has moved for the
/// app's timeout, or the worker is to go and has been so for the limit of upgrades.
pub async fn run(mut of: Forwarding<'_>, mut slot: Slot, mut link: Link) -> Result<(), Fault> {
    of.visit.keep = false;
    heads::put_answer(&mut of.client.out, of.reply, of.head, of.settings, of.visit);
    of.client.out.push(of.back.filled());
    of.back.clear();
    let patience = Duration::from_millis(of.app.spec.timeout_ms);
    let mut quiet_by = Instant::now() + patience;
    let mut farewell = Farewell::new(&slot, of.settings);
    let mut ends = Ends::default();
    poll_fn(|cx| {
        loop {
            let moved = match ends.pass(cx, &mut of, &mut link) {
                Ok(moved) => moved,
                Err(()) => return Poll::Ready(()),
            };
            let by = farewell.deadline(cx);
            let over = by.is_some_and(|by| Instant::now() >= by);
            if moved && !over {
                quiet_by = Instant::now() + patience;
                continue;
            }
            let over = over || (ends.client && ends.worker) || slot.worker_is_gone(cx);
            let next = by.map_or(quiet_by, |by| by.min(quiet_by));
            if over || of.client.alarm.rings(cx, next) {
                return Poll::Ready(());
            }
            return Poll::Pending;
        }
    })
    .await;
    Ok(())
}

/// The limit of an upgraded connection whose worker is to go.
struct Farewell {
    leaving: Arc<Bell>,
    ear: Ear,
    limit: Duration,
    by: Option<Instant>,
}

impl Farewell {
    fn new(slot: &Slot, settings: &ServerSettings) -> Self {
        let leaving = slot.peer.leaving.clone();
        let limit = Duration::from_millis(settings.upgrade_drain_timeout_ms);
        Self { ear: Ear::new(leaving.clone()), leaving, limit, by: None }
    }

    /// When it has to end; none while the worker stays. A worker may be taken back.
    fn deadline(&mut self, cx: &Context<'_>) -> Option<Instant> {
        if self.by.is_some() && !self.leaving.has_rung() {
            self.by = None;
            self.ear = Ear::new(self.leaving.clone());
        }
        if self.ear.hears(cx) {
            self.by.get_or_insert_with(|| Instant::now() + self.limit);
        }
        self.by
    }
}

/// Which side has ended, and has had that passed on.
#[derive(Default)]
struct Ends {
    client: bool,
    worker: bool,
}

impl Ends {
    /// Passes what can be passed now. True if something moved.
    fn pass(
        &mut self,
        cx: &mut Context<'_>,
        of: &mut Forwarding<'_>,
        link: &mut Link,
    ) -> Result<bool, ()> {
        let up = self.pass_up(cx, of, link)?;
        let down = self.pass_down(cx, of, link)?;
        Ok(up || down)
    }

    fn pass_up(
        &mut self,
        cx: &mut Context<'_>,
        of: &mut Forwarding<'_>,
        link: &mut Link,
    ) -> Result<bool, ()> {
        let mut moved = false;
        if of.client.inbox.is_empty() && !self.client {
            match of.client.poll_fill(cx) {
                Poll::Ready(Ok(count)) if count > 0 => moved = true,
                Poll::Ready(Ok(_)) => {
                    self.client = true;
                    link.wire.end_writing();
                    return Ok(true);
                }
                Poll::Ready(Err(_)) => return Err(()),
                Poll::Pending => {}
            }
        }
        while !of.client.inbox.is_empty() {
            match link.wire.poll_write(cx, of.client.inbox.filled()) {
                Poll::Ready(Ok(count)) if count > 0 => {
                    of.client.inbox.consume(count);
                    moved = true;
                }
                Poll::Ready(_) => return Err(()),
                Poll::Pending => break,
            }
        }
        Ok(moved)
    }

    fn pass_down(
        &mut self,
        cx: &mut Context<'_>,
        of: &mut Forwarding<'_>,
        link: &mut Link,
    ) -> Result<bool, ()> {
        let mut moved = false;
        if of.client.out.is_empty() && !self.worker {
            match link.wire.poll_read(cx, of.client.out.room()) {
                Poll::Ready(Ok(count)) if count > 0 => {
                    of.client.out.advance(count);
                    moved = true;
                }
                Poll::Ready(Ok(_)) => {
                    self.worker = true;
                    of.client.end_writing();
                    return Ok(true);
                }
                Poll::Ready(Err(_)) => return Err(()),
                Poll::Pending => {}
            }
        }
        let before = of.client.out.len();
        match of.client.poll_flush(cx) {
            Poll::Ready(Err(_)) => Err(()),
            _ => Ok(moved || of.client.out.len() < before),
        }
    }
}

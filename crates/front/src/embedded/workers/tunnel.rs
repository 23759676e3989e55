//! After an upgrade: bytes both ways, until one side ends.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::destination::{Destination, Reply};
use super::heads;
use super::upstream::{Link, Slot};
use crate::embedded::clients::exchange::Exchange;
use crate::embedded::clients::fault::Fault;
use crate::embedded::io::buffer::Pooled;
use crate::embedded::io::signal::{Signal, Subscription};
use crate::embedded::io::wire::Stream;

/// Passes bytes until both sides have ended, one has gone, nothing has moved for the
/// app's timeout, or the worker has been draining for the limit of upgraded connections.
pub async fn run(
    exchange: &mut Exchange<'_>,
    reply: &mut Reply,
    to: Destination<'_>,
    mut slot: Slot,
    mut link: Link,
) -> Result<(), Fault> {
    heads::put_answer(exchange, &reply.head);
    exchange.put_data(reply.ahead.filled());
    reply.ahead.clear();
    let patience = Duration::from_millis(to.app.spec.timeout_ms);
    let limit = Duration::from_millis(exchange.settings().upgrade_drain_timeout_ms);
    let mut drain = DrainLimit::new(slot.peer.leaving.clone(), limit);
    let mut quiet_by = Instant::now() + patience;
    let (client, ahead, unsent) = exchange.tunnel();
    let mut up = Direction { buffer: ahead, has_ended: false };
    let mut down = Direction { buffer: unsent, has_ended: false };
    poll_fn(|cx| {
        loop {
            let moved = match pass_both(cx, client, &mut link.wire, &mut up, &mut down) {
                Ok(moved) => moved,
                Err(_) => return Poll::Ready(()),
            };
            let drained_by = drain.deadline(cx);
            let over = drained_by.is_some_and(|by| Instant::now() >= by);
            if moved && !over {
                quiet_by = Instant::now() + patience;
                continue;
            }
            let over =
                over || (up.has_ended && down.has_ended) || slot.worker_is_gone(cx, &link.wire);
            let next = drained_by.map_or(quiet_by, |by| by.min(quiet_by));
            if over || client.has_passed(cx, next) {
                return Poll::Ready(());
            }
            return Poll::Pending;
        }
    })
    .await;
    exchange.end_tunnel(up.buffer, down.buffer);
    Ok(())
}

/// True if something moved in one of the directions; an error if a side has gone.
fn pass_both(
    cx: &mut Context<'_>,
    client: &mut impl Stream,
    worker: &mut impl Stream,
    up: &mut Direction,
    down: &mut Direction,
) -> io::Result<bool> {
    let moved_up = up.pass(cx, client, worker)?;
    let moved_down = down.pass(cx, worker, client)?;
    Ok(moved_up || moved_down)
}

/// One direction of a tunnel.
struct Direction {
    /// What has been read and not been written yet.
    buffer: Pooled,
    /// The side that is read has ended, and the end has been passed on.
    has_ended: bool,
}

impl Direction {
    /// Passes what can be passed now. True if something moved.
    fn pass(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl Stream,
        to: &mut impl Stream,
    ) -> io::Result<bool> {
        let mut moved = false;
        // No buffer is held while there is nothing to read.
        if self.buffer.is_idle() && !self.has_ended {
            if from.poll_readable(cx).is_pending() {
                self.buffer.give_back();
                // What was passed before may still wait inside of the stream.
                flush(cx, to)?;
                return Ok(false);
            }
            match from.poll_read(cx, self.buffer.room()) {
                Poll::Ready(Ok(0)) => {
                    self.has_ended = true;
                    to.end_writing();
                    return Ok(true);
                }
                Poll::Ready(Ok(count)) => {
                    self.buffer.advance(count);
                    moved = true;
                }
                Poll::Ready(Err(why)) => return Err(why),
                Poll::Pending => {}
            }
        }
        while !self.buffer.is_empty() {
            match to.poll_write(cx, self.buffer.filled()) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    self.buffer.consume(count);
                    moved = true;
                }
                Poll::Ready(Err(why)) => return Err(why),
                Poll::Pending => break,
            }
        }
        flush(cx, to)?;
        Ok(moved)
    }
}

/// Sends what is encrypted and waits inside of the stream; wakes when more can be sent.
fn flush(cx: &mut Context<'_>, to: &mut impl Stream) -> io::Result<()> {
    match to.poll_flush(cx) {
        Poll::Ready(Err(why)) => Err(why),
        _ => Ok(()),
    }
}

/// The limit of an upgraded connection whose worker is drained.
struct DrainLimit {
    leaving: Arc<Signal>,
    subscription: Subscription,
    limit: Duration,
    by: Option<Instant>,
}

impl DrainLimit {
    fn new(leaving: Arc<Signal>, limit: Duration) -> Self {
        Self { subscription: Subscription::new(leaving.clone()), leaving, limit, by: None }
    }

    /// When the connection has to end; `None` while the worker is admitted. A draining
    /// worker may be admitted again.
    fn deadline(&mut self, cx: &Context<'_>) -> Option<Instant> {
        if self.by.is_some() && !self.leaving.is_raised() {
            self.by = None;
            self.subscription = Subscription::new(self.leaving.clone());
        }
        if self.subscription.is_raised(cx) {
            self.by.get_or_insert_with(|| Instant::now() + self.limit);
        }
        self.by
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that keeps what it takes until it is asked for it again, as TLS does while its client
    /// takes nothing.
    #[derive(Default)]
    struct Keeping {
        kept: Vec<u8>,
        sent: Vec<u8>,
        is_full: bool,
    }

    impl Stream for Keeping {
        fn poll_readable(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll_read(&mut self, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn poll_write(&mut self, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.kept.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            if self.is_full {
                return Poll::Pending;
            }
            self.sent.append(&mut self.kept);
            Poll::Ready(Ok(()))
        }

        fn end_writing(&mut self) {}
    }

    #[test]
    fn what_waits_inside_of_a_stream_is_sent_although_nothing_more_comes() {
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        let mut buffer = Pooled::default();
        buffer.push(b"the last bytes");
        let mut down = Direction { buffer, has_ended: false };
        let (mut worker, mut client) = (Keeping::default(), Keeping::default());
        client.is_full = true;
        assert!(down.pass(cx, &mut worker, &mut client).unwrap());
        assert_eq!(client.sent, b"");
        client.is_full = false;
        assert!(!down.pass(cx, &mut worker, &mut client).unwrap());
        assert_eq!(client.sent, b"the last bytes");
    }
}

//! A FastCGI worker whose answer is complete, and which has not ended the request: a script may go
//! on after the content that its `Content-Length` announces, and has its process until it ends.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mfserv_core::wire::front::TroubleCause;

use crate::embedded::io::fastcgi::fastcgi_fault;
use crate::embedded::io::wire::Stream;
use crate::embedded::workers::pool::Pool;
use crate::embedded::workers::upstream::{Link, Slot};

const EXCESS: &str =
    "an answer is longer than its Content-Length says; clients get what was announced";
/// How much is read at a time, bytes.
const STEP: usize = 4 * 1024;

/// The worker with its slot, which it keeps.
pub(super) struct Lingering {
    pub pool: Arc<Pool>,
    pub slot: Slot,
    pub link: Link,
    /// The answer had content of an announced length.
    pub has_length: bool,
}

impl Lingering {
    /// Gives the slot back at once if the request has ended, else when it ends: at the latest after
    /// `patience`. `excess`: bytes after the content that have come already.
    pub fn begin(mut self, excess: usize, patience: Duration) {
        self.dropped(excess);
        // Mostly the end comes with the content.
        match self.read(&mut [0; STEP]) {
            Ok(0) => self.slot.end(),
            Ok(more) => self.go_on(more, patience),
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => self.go_on(0, patience),
            Err(why) => self.failed(&why),
        }
    }

    fn go_on(mut self, excess: usize, patience: Duration) {
        self.dropped(excess);
        let guard = self.pool.begin_lingering();
        tokio::task::spawn_local(async move {
            let _guard = guard;
            match tokio::time::timeout(patience, self.ended()).await {
                Ok(Ok(())) => self.slot.end(),
                Ok(Err(why)) => self.failed(&why),
                Err(_) => {
                    let worker = &self.slot.peer.name.worker;
                    let detail = "after its answer: it does not end the request";
                    self.pool.report_trouble(worker, TroubleCause::Timeout, detail);
                }
            }
        });
    }

    /// Reads to the end of the request, or of the worker.
    async fn ended(&mut self) -> io::Result<()> {
        let mut room = vec![0; STEP];
        loop {
            let count = poll_fn(|cx| self.poll_read(cx, &mut room)).await?;
            if count == 0 {
                return Ok(());
            }
            self.dropped(count);
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = self.link.wire.poll_read(cx, room);
        self.listen();
        match read {
            Poll::Pending if self.slot.worker_is_gone(cx, &self.link.wire) => Poll::Ready(Ok(0)),
            read => read,
        }
    }

    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let read = self.link.wire.try_read(room);
        self.listen();
        read
    }

    fn listen(&mut self) {
        if let Some(said) = self.link.wire.take_said() {
            self.pool.worker_said(&self.slot.peer.name.worker, &said);
        }
    }

    fn dropped(&self, excess: usize) {
        if excess > 0 && self.has_length {
            self.slot.warn(&self.pool, EXCESS);
        }
    }

    /// The connection has ended before the request: with it, the worker has nothing in hand.
    fn failed(self, why: &io::Error) {
        if let Some(fault) = fastcgi_fault(why) {
            let detail = format!("after its answer: {fault}");
            let worker = &self.slot.peer.name.worker;
            self.pool.report_trouble(worker, TroubleCause::Malformed, &detail);
        }
        self.slot.end();
    }
}

//! What the client of a finite app has not read yet: how much of it waits in memory, and
//! what goes into a file.

use std::task::{Context, Poll};
use std::time::Duration;

use mfserv_core::wire::front::TroubleCause;

use super::Relay;

/// How much of an answer of a finite app is in memory before the rest goes into a file, bytes.
const IN_MEMORY: usize = 128 * 1024;
/// The memory that all clients of finite apps may take together with what they leave unread,
/// bytes.
const ALL_ABSORBED_MAX: u64 = 128 * 1024 * 1024;
/// An answer without a length is a long stream if it comes for longer than this …
const STREAM_AFTER: Duration = Duration::from_secs(5);
/// … with fewer bytes a second than this.
const STREAM_RATE: u64 = 64 * 1024;

impl Relay<'_, '_> {
    /// True if something that was being written into the file is there now, or is known
    /// not to have any room there.
    pub(super) fn has_spooled(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.spool.is_busy() {
            return false;
        }
        match self.spool.poll_written(cx, self.exchange) {
            Poll::Pending => return false,
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(why)) => {
                self.is_unspooled = true;
                let why = format!("temporary files: {why}");
                self.report_full(&why);
            }
        }
        self.restart_client_timer();
        true
    }

    /// The client of a finite app may leave more unread, as far as there is memory for it.
    /// True if there is room now.
    pub(super) fn takes_more(&mut self) -> bool {
        if self.pipe.is_some() {
            return false;
        }
        while self.is_full() && self.ahead_max < IN_MEMORY && self.takes_memory() {}
        if self.is_full() && self.is_for_file() {
            if self.spool.is_busy() {
                return false;
            }
            let settings = self.exchange.settings();
            let (limits, directory) = (settings.spool, settings.body_temp_dir.clone());
            match self.spool.put(self.exchange, limits, directory) {
                Ok(()) => self.absorbs = true,
                Err(limit) => self.report_full(limit),
            }
        }
        while self.is_full() && self.takes_memory() {}
        !self.is_full()
    }

    fn report_full(&mut self, why: &str) {
        let is_first = self.spool.is_first_refusal();
        self.to.pool.report_full(&self.to.app.upstream, why, is_first);
    }

    /// The client may leave twice as much unread in memory, if there is any.
    fn takes_memory(&mut self) -> bool {
        // A buffer is at most twice as large as its content.
        let memory = 2 * self.ahead_max as u64;
        let limits = (ALL_ABSORBED_MAX, ALL_ABSORBED_MAX);
        let may_grow = self.ahead_max < self.absorbed_max && self.absorbed.grow(memory, limits);
        if may_grow {
            self.ahead_max *= 2;
        }
        may_grow
    }

    /// True if what has no room in memory goes into a file.
    fn is_for_file(&mut self) -> bool {
        let is_finite = self.to.app.spec.is_finite();
        if !is_finite || self.is_unspooled {
            return false;
        }
        let spools = self.exchange.settings().spool.per_answer > 0;
        self.is_unspooled = !spools || self.is_long_stream();
        !self.is_unspooled
    }

    /// True if the answer is a stream that may have no end: its type or its app says so, or
    /// it has no length and comes slowly.
    fn is_long_stream(&self) -> bool {
        let head = &self.reply.head;
        let says_so = head.fields.iter().any(|(_, name, value)| {
            let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
            let begins =
                |with: &[u8]| value.get(..with.len()).is_some_and(|v| v.eq_ignore_ascii_case(with));
            is("content-type") && begins(b"text/event-stream")
                || is("x-accel-buffering") && begins(b"no")
        });
        let took = self.began.elapsed();
        let is_slow = took >= STREAM_AFTER && self.received / took.as_secs().max(1) < STREAM_RATE;
        says_so || head.length.is_none() && is_slow
    }

    /// The client is slower than a finite app: the content of the pipe goes to memory,
    /// where there is more room, and so does the rest of the body. True if it was so.
    pub(super) fn absorb(&mut self) -> bool {
        let is_finite = self.to.app.spec.is_finite();
        let Some(pipe) = self.pipe.as_mut().filter(|_| is_finite && self.held.is_some()) else {
            return false;
        };
        while !pipe.is_empty() {
            match pipe.read_out(self.exchange.room(pipe.len())) {
                Ok(count) if count > 0 => self.exchange.filled(count),
                _ => {
                    self.broken = Some(TroubleCause::Pipe);
                    break;
                }
            }
        }
        self.pipe = None;
        self.absorbs = true;
        true
    }
}

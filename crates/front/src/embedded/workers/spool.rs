//! What the client of a finite app has not taken yet, in a file.
//!
//! Content comes out as it went in: what the file has is sent first, then what is being
//! written, then what has been put into the exchange meanwhile.

use std::fs::File;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use mfserv_core::route::SpoolLimits;
use tokio::task::JoinHandle;

use crate::embedded::clients::connection::Lost;
use crate::embedded::clients::exchange::Exchange;
use crate::embedded::io::budget::{AppDescriptors, Descriptor, FairShare};
use crate::embedded::io::buffer::Pooled;
use crate::embedded::io::spool_file;

/// A file of at least so many bytes is closed by another thread: that takes long.
const LARGE: u64 = 8 * 1024 * 1024;

type Written = (Pooled, io::Result<Arc<File>>);

/// A part of an answer on its way through a file.
pub struct Spool<'a> {
    file: Option<Arc<File>>,
    /// What the client has still to take of the file.
    part: Range<u64>,
    /// What a thread of the pool writes behind that, and its length.
    writing: Option<(JoinHandle<Written>, u64)>,
    /// The length that the file has had at most: so much room it takes.
    size: u64,
    share: FairShare<'a>,
    /// What its app may have open, and the descriptor of the file.
    descriptors: &'a AppDescriptors,
    descriptor: Option<Descriptor>,
    was_refused: bool,
}

impl<'a> Spool<'a> {
    /// An empty spool, with an empty share.
    pub fn new(share: FairShare<'a>, descriptors: &'a AppDescriptors) -> Self {
        let (file, part, writing, descriptor) = (None, 0..0, None, None);
        Self { file, part, writing, size: 0, share, descriptors, descriptor, was_refused: false }
    }

    /// True when it is asked for the first time.
    pub fn is_first_refusal(&mut self) -> bool {
        !std::mem::replace(&mut self.was_refused, true)
    }

    /// True if the client has taken everything.
    pub fn is_empty(&self) -> bool {
        self.part.is_empty() && self.writing.is_none()
    }

    /// True while something is being written.
    pub fn is_busy(&self) -> bool {
        self.writing.is_some()
    }

    /// How many bytes the client has still to take.
    pub fn unsent(&self) -> u64 {
        let writing = self.writing.as_ref().map_or(0, |(_, length)| *length);
        self.part.end - self.part.start + writing
    }

    /// Puts what has been put into the exchange into the file, which is made in `directory`. A
    /// thread of the pool writes it, so that a slow disk delays this client and no other.
    /// Says which limit leaves no room for it. It must not be busy.
    pub fn put(
        &mut self,
        exchange: &mut Exchange<'_>,
        limits: SpoolLimits,
        directory: PathBuf,
    ) -> Result<(), &'static str> {
        // The kernel may still be sending what it was given of the file: it has pages of it, no
        // copy. So a part of a file that was given to it is never written again.
        let is_given_away = self.part.is_empty();
        if is_given_away {
            self.part = 0..0;
        }
        let (at, length) = (self.part.end, exchange.takes_out() as u64);
        let size = self.size.max(at + length);
        if size > limits.per_answer {
            return Err("[front] spool_max_per_answer is reached");
        }
        if self.descriptor.is_none() {
            self.descriptor = self.descriptors.take();
        }
        if self.descriptor.is_none() {
            return Err("too few file descriptors (ulimit -Hn, LimitNOFILE of systemd)");
        }
        if !self.share.grow(size - self.size, (limits.per_app, limits.all)) {
            return Err("[front] spool_max_per_app or spool_max is reached");
        }
        self.size = size;
        // The thread closes it, as that takes long for a large one.
        let given_away = self.file.take_if(|_| is_given_away);
        let (content, file) = (exchange.take_unsent(), self.file.clone());
        let write = move || {
            drop(given_away);
            let made = file.map_or_else(|| spool_file::create(&directory).map(Arc::new), Ok);
            let written = made.and_then(|file| {
                spool_file::check_room(&file)?;
                file.write_all_at(content.filled(), at)?;
                Ok(file)
            });
            // The buffer goes back to the pool of the lane, not of this thread.
            (content, written)
        };
        self.writing = Some((tokio::task::spawn_blocking(write), length));
        Ok(())
    }

    /// Ready when nothing is being written. What could not be written is put back into the
    /// exchange: the client has to take it from there.
    pub fn poll_written(
        &mut self,
        cx: &mut Context<'_>,
        exchange: &mut Exchange<'_>,
    ) -> Poll<io::Result<()>> {
        let Some((writing, length)) = &mut self.writing else { return Poll::Ready(Ok(())) };
        let Poll::Ready(done) = Pin::new(writing).poll(cx) else { return Poll::Pending };
        let length = *length;
        self.writing = None;
        match done {
            Ok((_, Ok(file))) => {
                self.file = Some(file);
                self.part.end += length;
                Poll::Ready(Ok(()))
            }
            Ok((content, Err(why))) => {
                exchange.put_back(content);
                Poll::Ready(Err(why))
            }
            // The thread has panicked, or the lane ends: the content is lost.
            Err(_) => {
                exchange.cut();
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Sends what the file has, as far as the client takes it. Ready when all is sent.
    pub fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        exchange: &mut Exchange<'_>,
    ) -> Poll<Result<(), Lost>> {
        match &self.file {
            Some(file) => exchange.poll_send_part(cx, file.as_fd(), &mut self.part),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl Drop for Spool<'_> {
    fn drop(&mut self) {
        let Some(file) = self.file.take().filter(|_| self.size >= LARGE) else { return };
        // Without a runtime the lane ends, and the file is closed here.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || drop(file));
        }
    }
}

//! A request on its way to a worker: its content goes from the client into memory, into a
//! file, or straight to the worker; and the whole request is sent, again if need be.

use std::fs::File;
use std::future::poll_fn;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::task::{Context, Poll, ready};

use mfserv_core::route::room_for_bodies;
use mfserv_fastcgi::{END_OF_CONTENT, content_head, put_content};
use mfserv_h1::Framing;

use crate::embedded::clients::exchange::Exchange;
use crate::embedded::clients::fault::{Cause, Fault};
use crate::embedded::io::budget::{AppDescriptors, Descriptor, FairShare};
use crate::embedded::io::buffer::{Buffer, Pooled};
use crate::embedded::io::chunked::{LAST_CHUNK, put_chunk, put_chunk_size};
use crate::embedded::io::pipe::{self, Pipe};
use crate::embedded::io::spool_file;
use crate::embedded::io::wire::{Stream, Wire};

/// How much content is kept in memory, bytes. Content for a file is gathered up to this
/// length before it is written.
const MEMORY_MAX: usize = 64 * 1024;
/// A request of at most so many bytes that was sent with one write is read by the worker
/// as a whole or not at all.
const UNREAD_MAX: usize = 4096;
/// How much is read from a file at a time, bytes.
const STEP: usize = 32 * 1024;

/// Is told the directory in which content cannot be written to a file, and why.
pub type Unwritten<'a> = &'a dyn Fn(&Path, &io::Error);

/// Why a request cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendFault {
    /// The worker takes no more.
    Worker,
    /// The client sends no more.
    Client(Fault),
}

/// A request on its way to a worker.
pub struct Upload<'a> {
    /// The head, and behind it the content as far as it is in memory. As small as it can
    /// be: it waits for the answer.
    request: Vec<u8>,
    memory: Pooled,
    file: Option<(File, Descriptor)>,
    spooled: FairShare<'a>,
    descriptors: &'a AppDescriptors,
    /// The client was not waited for: some content comes while the request is sent.
    is_streamed: bool,
    /// That content is sent in chunks.
    is_chunked: bool,
    /// It is sent in the records of FastCGI, all of it: nothing is streamed.
    is_in_records: bool,
    /// The end of the content is in `piece`.
    is_ending: bool,
    // How far it has been sent:
    at: usize,
    file_at: u64,
    piece: Pooled,
    /// What the rest of a large body goes through.
    pipe: Option<Pipe>,
    writes: u32,
    /// Content has been sent that is kept nowhere.
    has_let_go: bool,
    is_finished: bool,
}

impl<'a> Upload<'a> {
    /// Reads the content of a request: all of it with `whole`, as far as there is room in
    /// files; else up to what is kept in memory. `unwritten` is told what is wrong with a disk.
    pub async fn receive(
        exchange: &mut Exchange<'_>,
        whole: bool,
        (spooled, descriptors): (FairShare<'a>, &'a AppDescriptors),
        unwritten: Unwritten<'_>,
    ) -> Result<Self, Fault> {
        let framing = exchange.request().framing;
        let mut upload = Self {
            request: Vec::new(),
            memory: Pooled::default(),
            file: None,
            spooled,
            descriptors,
            is_streamed: false,
            is_chunked: framing == Framing::Chunked,
            is_in_records: false,
            is_ending: false,
            at: 0,
            file_at: 0,
            piece: Pooled::default(),
            pipe: None,
            writes: 0,
            has_let_go: false,
            is_finished: false,
        };
        match framing {
            Framing::None => return Ok(upload),
            Framing::Length(length) if length > exchange.max_content() => {
                return Err(Cause::TooLarge(exchange.max_content()).into());
            }
            _ => {}
        }
        exchange.invite_body().await?;
        upload.collect(exchange, whole, unwritten).await?;
        Ok(upload)
    }

    /// Collects content in memory; with `spool`, what has no room there goes into a file.
    async fn collect(
        &mut self,
        exchange: &mut Exchange<'_>,
        spool: bool,
        unwritten: Unwritten<'_>,
    ) -> Result<(), Fault> {
        loop {
            poll_fn(|cx| self.gather(cx, exchange)).await?;
            if !spool || !exchange.awaits_body() {
                break;
            }
            self.spill(exchange, unwritten).await?;
        }
        if spool && self.file.is_some() && !self.memory.is_empty() {
            self.spill(exchange, unwritten).await?;
        }
        self.is_streamed = exchange.awaits_body();
        self.is_chunked &= self.is_streamed;
        Ok(())
    }

    /// Reads content into memory, until the body ends or the memory is full.
    fn gather(
        &mut self,
        cx: &mut Context<'_>,
        exchange: &mut Exchange<'_>,
    ) -> Poll<Result<(), Fault>> {
        while self.memory.len() < MEMORY_MAX {
            let most = MEMORY_MAX - self.memory.len();
            let memory = &mut self.memory;
            if !ready!(exchange.poll_content(cx, most, |content| memory.push(content)))? {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Appends the content in memory to the file. A thread of the pool does it, so that a
    /// slow disk delays this client and no other.
    async fn spill(
        &mut self,
        exchange: &mut Exchange<'_>,
        unwritten: Unwritten<'_>,
    ) -> Result<(), Fault> {
        let settings = exchange.settings();
        let limits = room_for_bodies(settings.max_body_bytes);
        if !self.spooled.grow(self.memory.len() as u64, limits) {
            return Err(Cause::NoRoom.into());
        }
        let directory = settings.body_temp_dir.clone();
        let (file, descriptor) = match self.file.take() {
            Some((file, descriptor)) => (Some(file), descriptor),
            None => (None, self.descriptors.take().ok_or(Cause::NoRoom)?),
        };
        let content = std::mem::take(&mut self.memory);
        let written = tokio::task::spawn_blocking(move || {
            let file = file.map_or_else(|| spool_file::create(&directory), Ok);
            let written = file.and_then(|mut file| {
                spool_file::check_room(&file)?;
                file.write_all(content.filled())?;
                Ok(file)
            });
            // The buffer goes back to the pool of this lane, not of that thread.
            (content, written)
        });
        match written.await {
            Ok((_, Ok(file))) => {
                self.file = Some((file, descriptor));
                exchange.restart_body_timer();
                Ok(())
            }
            Ok((_, Err(why))) => {
                unwritten(&exchange.settings().body_temp_dir, &why);
                Err(Cause::Disk.into())
            }
            Err(_) => Err(Cause::Disk.into()),
        }
    }

    /// True if it can be sent to another worker: all of the content is still here.
    pub fn can_be_repeated(&self) -> bool {
        !self.has_let_go
    }

    /// True if a worker has read either all of it or nothing: it was one short write.
    pub fn was_one_short_write(&self) -> bool {
        self.is_finished && self.writes == 1 && self.request.len() <= UNREAD_MAX
    }

    /// True if nothing of it has been sent.
    pub fn is_unsent(&self) -> bool {
        self.writes == 0
    }

    /// True if all of it has been sent.
    pub fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// Begins to send, for the first time or again: `put_head` writes the head.
    pub fn begin(&mut self, put_head: impl FnOnce(&mut Buffer)) {
        let mut head = Pooled::default();
        put_head(&mut head);
        let is_chunk = self.is_chunked && !self.memory.is_empty();
        if is_chunk {
            put_chunk_size(&mut head, self.memory.len());
        }
        let end: &[u8] = if is_chunk { b"\r\n" } else { b"" };
        let parts = [head.filled(), self.memory.filled(), end];
        self.request.clear();
        self.request.reserve_exact(parts.iter().map(|part| part.len()).sum());
        parts.iter().for_each(|part| self.request.extend_from_slice(part));
        self.rewind();
    }

    /// Nothing has been sent.
    fn rewind(&mut self) {
        (self.at, self.file_at, self.writes) = (0, 0, 0);
        (self.is_ending, self.is_finished) = (false, false);
        self.piece.clear();
    }

    /// The same for a FastCGI worker: `put_head` writes the records before the content, all of
    /// which was received.
    pub fn begin_records(&mut self, put_head: impl FnOnce(&mut Buffer)) {
        debug_assert!(!self.is_streamed, "its length is a parameter");
        let mut head = Pooled::default();
        put_head(&mut head);
        self.is_in_records = true;
        self.request.clear();
        self.request.extend_from_slice(head.filled());
        put_content(&mut self.request, self.memory.filled());
        if self.file.is_none() {
            self.request.extend_from_slice(&END_OF_CONTENT);
        }
        self.rewind();
    }

    /// The request as it is sent, if all of it is here and it is not long; it counts as sent, with
    /// one write.
    pub fn take_whole(&mut self, most: usize) -> Option<&[u8]> {
        let is_whole = self.file.is_none() && !self.is_streamed && self.request.len() <= most;
        (self.is_finished, self.writes) = (is_whole, u32::from(is_whole));
        is_whole.then_some(&self.request)
    }

    /// Sends what can be sent now. False if nothing was sent and the worker is waited for:
    /// it does not read.
    pub fn send(
        &mut self,
        cx: &mut Context<'_>,
        wire: &mut Wire,
        exchange: &mut Exchange<'_>,
    ) -> Result<bool, SendFault> {
        let before = self.writes;
        while !self.is_finished {
            let pending = match self.at < self.request.len() {
                true => &self.request[self.at..],
                false => self.piece.filled(),
            };
            if pending.is_empty() {
                let more = match self.takes_pipe(exchange) {
                    true => self.pass(cx, wire, exchange),
                    false => self.next_piece(cx, exchange).map_err(SendFault::Client),
                };
                match more {
                    Poll::Ready(done) => done?,
                    Poll::Pending if self.is_between_pieces() => return Ok(true),
                    Poll::Pending => return Ok(self.writes != before),
                }
                continue;
            }
            match wire.poll_write(cx, pending) {
                Poll::Pending => return Ok(self.writes != before),
                Poll::Ready(Ok(count)) if count > 0 => self.wrote(count),
                Poll::Ready(_) => return Err(SendFault::Worker),
            }
        }
        Ok(true)
    }

    /// True if the worker has all that came: the client is waited for.
    fn is_between_pieces(&self) -> bool {
        self.pipe.as_ref().is_none_or(Pipe::is_empty)
    }

    /// True if what comes next goes through a pipe: there is one, or it is worth one.
    fn takes_pipe(&mut self, exchange: &Exchange<'_>) -> bool {
        if self.pipe.as_ref().is_some_and(|pipe| !pipe.is_empty()) {
            return true;
        }
        let least = if self.pipe.is_some() { 1 } else { pipe::WORTH_IT };
        if !exchange.content_takes_pipe(least) {
            return false;
        }
        if self.pipe.is_none() {
            self.pipe = Pipe::take();
        }
        self.pipe.is_some()
    }

    /// Sends the content of the pipe, or fills the empty pipe.
    fn pass(
        &mut self,
        cx: &mut Context<'_>,
        wire: &mut Wire,
        exchange: &mut Exchange<'_>,
    ) -> Poll<Result<(), SendFault>> {
        let Some(pipe) = &mut self.pipe else { return Poll::Ready(Err(SendFault::Worker)) };
        if pipe.is_empty() {
            ready!(exchange.poll_content_into(cx, pipe)).map_err(SendFault::Client)?;
            self.has_let_go = true;
            return Poll::Ready(Ok(()));
        }
        match ready!(pipe.poll_drain(cx, wire)) {
            Ok(count) if count > 0 => {
                self.writes += 1;
                self.is_finished = pipe.is_empty() && !exchange.awaits_body();
                Poll::Ready(Ok(()))
            }
            _ => Poll::Ready(Err(SendFault::Worker)),
        }
    }

    fn wrote(&mut self, count: usize) {
        self.writes += 1;
        if self.at < self.request.len() {
            self.at += count;
        } else {
            self.piece.consume(count);
        }
        let all = self.at == self.request.len() && self.piece.is_empty();
        let has_more = self.file.is_some() && !self.is_ending;
        self.is_finished = all && !has_more && !self.is_streamed;
    }

    /// Fills `piece` with what follows, or finds that nothing does.
    fn next_piece(
        &mut self,
        cx: &mut Context<'_>,
        exchange: &mut Exchange<'_>,
    ) -> Poll<Result<(), Fault>> {
        if let Some((file, _)) = &self.file {
            let before = self.piece.len();
            let head = if self.is_in_records { END_OF_CONTENT.len() } else { 0 };
            let room = &mut self.piece.spare(head + STEP)[..head + STEP];
            let count = file.read_at(&mut room[head..], self.file_at).map_err(|_| Cause::Disk)?;
            if self.is_in_records {
                room[..head].copy_from_slice(&content_head(count));
                self.is_ending = count == 0;
            }
            self.piece.advance(head + count);
            self.file_at += count as u64;
            self.is_finished = self.piece.len() == before;
            return Poll::Ready(Ok(()));
        }
        if !exchange.awaits_body() {
            self.is_finished = true;
            return Poll::Ready(Ok(()));
        }
        let (piece, is_chunked) = (&mut self.piece, self.is_chunked);
        let came = ready!(exchange.poll_content(cx, usize::MAX, |content| match is_chunked {
            true => put_chunk(piece, content),
            false => piece.push(content),
        }))?;
        match came {
            true => self.has_let_go = true,
            false if is_chunked => self.piece.push(LAST_CHUNK),
            false => self.is_finished = true,
        }
        Poll::Ready(Ok(()))
    }
}

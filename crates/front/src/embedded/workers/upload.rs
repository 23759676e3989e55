//! The body of a request: from the client into memory, a file, or straight to the
//! worker; and the sending of the whole request, again if need be.

use std::fs::{File, OpenOptions};
use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::task::{Context, Poll};
use std::time::Duration;

use mfserv_core::route::ServerSettings;
use tokio::time::Instant;

use crate::embedded::clients::connection::Client;
use crate::embedded::io::budget::{Budget, Share};
use crate::embedded::io::buffer::{Buffer, Lent};
use crate::embedded::io::pipe::{self, Pipe};
use crate::embedded::io::wire::Wire;
use mfserv_h1::{BodyReader, Framing, Piece, Refusal, RequestHead};

/// What of a body is kept in memory, bytes; of what goes to a file, so much is gathered
/// before it is written.
pub const MEMORY_MAX: usize = 64 * 1024;
/// All bodies in files together, bytes, if it is not less than [`LARGEST_BODIES`].
const ALL_SPOOLED_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// So many bodies of the largest size allowed have room in files.
const LARGEST_BODIES: u64 = 4;
/// A request that is this short and was written at once is either read by the worker or
/// not: never in part.
const UNREAD_MAX: usize = 4096;
/// What is moved at a time from a file, bytes.
const STEP: usize = 32 * 1024;

/// Why a body cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFault {
    /// It is not framed as it should be.
    Refused(Refusal),
    /// It is longer than allowed.
    TooLarge,
    /// The client has gone.
    Gone,
    /// The client is too slow.
    Late,
    /// It cannot be put into a file.
    Disk,
    /// There are too many bodies in files.
    NoRoom,
}

/// Why a request cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendFault {
    /// The worker takes nothing (more).
    Worker,
    /// The client gives nothing (more).
    Body(BodyFault),
}

/// A request on its way to a worker.
pub struct Upload<'a> {
    /// The head, and behind it the body as far as it is in memory. As small as it can be:
    /// it waits for the answer.
    request: Vec<u8>,
    memory: Lent,
    file: Option<File>,
    spooled: Share<'a>,
    /// What is still to come from the client, if that is not waited for.
    rest: Option<BodyReader>,
    /// The body goes on in chunks.
    chunked: bool,
    /// Content received so far, and how much is allowed.
    received: u64,
    max: u64,
    patience: Duration,
    client_by: Instant,
    // How far it has been sent:
    at: usize,
    file_at: u64,
    piece: Lent,
    /// What the rest of a large body passes through.
    pipe: Option<Pipe>,
    writes: u32,
    streamed: bool,
    /// All of it has been sent.
    pub finished: bool,
}

impl<'a> Upload<'a> {
    /// Reads the body of a request that began then: all of it if `whole`, as far as there
    /// is room for files, else up to what is kept in memory.
    pub async fn receive(
        client: &mut Client,
        head: &RequestHead,
        settings: &ServerSettings,
        (whole, spooled): (bool, &'a Budget),
        began: Instant,
    ) -> Result<Self, BodyFault> {
        let patience = Duration::from_millis(settings.client_timeout_ms);
        let mut upload = Self {
            request: Vec::new(),
            memory: Lent::default(),
            file: None,
            spooled: Share::new(spooled),
            rest: None,
            chunked: head.framing == Framing::Chunked,
            received: 0,
            max: settings.max_body_bytes,
            patience,
            client_by: began + patience,
            at: 0,
            file_at: 0,
            piece: Lent::default(),
            pipe: None,
            writes: 0,
            streamed: false,
            finished: false,
        };
        match head.framing {
            Framing::None => return Ok(upload),
            Framing::Length(length) if length > upload.max => return Err(BodyFault::TooLarge),
            _ => {}
        }
        if head.expects_continue && client.inbox.is_empty() {
            client.out.push(b"HTTP/1.1 100 Continue\r\n\r\n");
            client.flush(patience).await.map_err(|_| BodyFault::Gone)?;
        }
        upload.collect(client, BodyReader::new(head.framing), whole.then_some(settings)).await?;
        Ok(upload)
    }

    /// Into memory, then into a file if `spool` says where.
    async fn collect(
        &mut self,
        client: &mut Client,
        mut reader: BodyReader,
        spool: Option<&ServerSettings>,
    ) -> Result<(), BodyFault> {
        loop {
            poll_fn(|cx| self.gather(cx, client, &mut reader)).await?;
            match spool {
                Some(settings) if !reader.is_done() => self.spill(&settings.body_temp_dir).await?,
                _ => break,
            }
        }
        if let (Some(settings), Some(_), false) = (spool, &self.file, self.memory.is_empty()) {
            self.spill(&settings.body_temp_dir).await?;
        }
        if !reader.is_done() {
            self.rest = Some(reader);
        }
        self.chunked = self.chunked && self.rest.is_some();
        Ok(())
    }

    /// Content into memory, until the body ends or no more is to be there.
    fn gather(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        reader: &mut BodyReader,
    ) -> Poll<Result<(), BodyFault>> {
        while self.memory.len() < MEMORY_MAX {
            let most = MEMORY_MAX - self.memory.len();
            let next = std::task::ready!(self.next_content(cx, client, reader, most))?;
            let Some(range) = next else { break };
            let end = range.end;
            self.memory.push(&client.inbox.filled()[range]);
            client.inbox.consume(end);
        }
        Poll::Ready(Ok(()))
    }

    /// What is in memory goes to the end of the file. A thread of its own does it: a slow
    /// disk makes this client wait and no other.
    async fn spill(&mut self, directory: &Path) -> Result<(), BodyFault> {
        let limit = ALL_SPOOLED_MAX.max(self.max.saturating_mul(LARGEST_BODIES));
        if !self.spooled.grow(self.memory.len() as u64, limit) {
            return Err(BodyFault::NoRoom);
        }
        let (file, directory) = (self.file.take(), directory.to_path_buf());
        let content = std::mem::take(&mut self.memory);
        let written = tokio::task::spawn_blocking(move || {
            let file = file.map_or_else(|| spool_file(&directory), Ok);
            let written = file.and_then(|mut file| {
                file.write_all(content.filled())?;
                Ok(file)
            });
            // The buffer is this lane's: it goes back to it.
            (content, written)
        });
        match written.await {
            Ok((_, Ok(file))) => {
                self.file = Some(file);
                // The client was not waited for meanwhile.
                self.client_by = Instant::now() + self.patience;
                Ok(())
            }
            _ => Err(BodyFault::Disk),
        }
    }

    /// The next content in the client's inbox, at most `most` bytes; `None` at the end of
    /// the body.
    fn next_content(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        reader: &mut BodyReader,
        most: usize,
    ) -> Poll<Result<Option<std::ops::Range<usize>>, BodyFault>> {
        loop {
            let here = client.inbox.filled();
            let looked_at = here.len().min(most);
            let piece = reader.next(&here[..looked_at]);
            let is_all = looked_at == here.len();
            let refused = |reason| BodyFault::Refused(Refusal { status: 400, reason });
            match piece.map_err(refused)? {
                Piece::Content(range) => {
                    self.received += range.len() as u64;
                    if self.received > self.max {
                        return Poll::Ready(Err(BodyFault::TooLarge));
                    }
                    return Poll::Ready(Ok(Some(range)));
                }
                Piece::End(used) => {
                    client.inbox.consume(used);
                    return Poll::Ready(Ok(None));
                }
                Piece::More(used) => client.inbox.consume(used),
            }
            if !is_all {
                continue;
            }
            match client.poll_fill(cx) {
                Poll::Ready(Ok(count)) if count > 0 => {
                    self.client_by = Instant::now() + self.patience;
                }
                Poll::Ready(_) => return Poll::Ready(Err(BodyFault::Gone)),
                Poll::Pending if client.alarm.rings(cx, self.client_by) => {
                    return Poll::Ready(Err(BodyFault::Late));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// The length of the whole body, where it is known.
    pub fn length(&self) -> Option<u64> {
        match &self.rest {
            None => Some(self.received),
            Some(reader) => reader.remaining().map(|left| self.received + left),
        }
    }

    /// It can be sent to another worker: nothing is needed that has been let go.
    pub fn can_be_repeated(&self) -> bool {
        !self.streamed
    }

    /// True if a worker has either read all of it or nothing: it fitted one short write.
    pub fn was_one_short_write(&self) -> bool {
        self.finished && self.writes == 1 && self.request.len() <= UNREAD_MAX
    }

    /// Nothing of it has left the front.
    pub fn is_unsent(&self) -> bool {
        self.writes == 0
    }

    /// True if the client has still to send a part of it.
    pub fn is_incomplete(&self) -> bool {
        self.rest.as_ref().is_some_and(|reader| !reader.is_done())
    }

    /// Begins (again): `put_head` writes the head.
    pub fn begin(&mut self, put_head: impl FnOnce(&mut Buffer, &Self)) {
        let mut head = Lent::default();
        put_head(&mut head, self);
        let is_chunk = self.chunked && !self.memory.is_empty();
        if is_chunk {
            put_chunk_size(&mut head, self.memory.len());
        }
        let end: &[u8] = if is_chunk { b"\r\n" } else { b"" };
        let parts = [head.filled(), self.memory.filled(), end];
        self.request.clear();
        self.request.reserve_exact(parts.iter().map(|part| part.len()).sum());
        parts.iter().for_each(|part| self.request.extend_from_slice(part));
        self.at = 0;
        self.file_at = 0;
        self.writes = 0;
        self.finished = false;
    }

    /// Sends what can be sent now. False if nothing was, and the worker is waited for: it
    /// does not read.
    pub fn send(
        &mut self,
        cx: &mut Context<'_>,
        wire: &mut Wire,
        client: &mut Client,
    ) -> Result<bool, SendFault> {
        let before = self.writes;
        while !self.finished {
            let pending = match self.at < self.request.len() {
                true => &self.request[self.at..],
                false => self.piece.filled(),
            };
            if pending.is_empty() {
                let more = match self.takes_pipe(client) {
                    true => self.pass(cx, wire, client),
                    false => self.next_piece(cx, client).map_err(SendFault::Body),
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

    /// The worker has all that came: the client is waited for.
    fn is_between_pieces(&self) -> bool {
        self.pipe.as_ref().is_none_or(Pipe::is_empty)
    }

    /// Does what comes next go through a pipe? So it is if there is much to come as it
    /// is, and nothing of it in the client's inbox.
    fn takes_pipe(&mut self, client: &Client) -> bool {
        if self.pipe.as_ref().is_some_and(|pipe| !pipe.is_empty()) {
            return true;
        }
        let left = self.rest.as_ref().and_then(BodyReader::remaining).unwrap_or(0);
        let least = if self.pipe.is_some() { 1 } else { pipe::WORTH_IT };
        if left < least || !client.inbox.is_idle() {
            return false;
        }
        if self.pipe.is_none() {
            self.pipe = Pipe::take();
        }
        self.pipe.is_some()
    }

    /// Lets out what is in the pipe, then more into it.
    fn pass(
        &mut self,
        cx: &mut Context<'_>,
        wire: &mut Wire,
        client: &mut Client,
    ) -> Poll<Result<(), SendFault>> {
        let (Some(pipe), Some(rest)) = (&mut self.pipe, &mut self.rest) else {
            return Poll::Ready(Err(SendFault::Worker));
        };
        if !pipe.is_empty() {
            match std::task::ready!(pipe.poll_drain(cx, wire)) {
                Ok(count) if count > 0 => {
                    self.writes += 1;
                    self.finished = pipe.is_empty() && rest.is_done();
                    return Poll::Ready(Ok(()));
                }
                _ => return Poll::Ready(Err(SendFault::Worker)),
            }
        }
        match client.poll_fill_pipe(cx, pipe, rest.remaining().unwrap_or(0)) {
            Poll::Ready(0) => Poll::Ready(Err(SendFault::Body(BodyFault::Gone))),
            Poll::Ready(count) => {
                rest.took(count as u64);
                self.received += count as u64;
                self.streamed = true;
                self.client_by = Instant::now() + self.patience;
                Poll::Ready(Ok(()))
            }
            Poll::Pending if client.alarm.rings(cx, self.client_by) => {
                Poll::Ready(Err(SendFault::Body(BodyFault::Late)))
            }
            Poll::Pending => Poll::Pending,
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
        self.finished = all && self.file.is_none() && self.rest.is_none();
    }

    /// Fills `piece` with what follows, or says that nothing does.
    fn next_piece(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
    ) -> Poll<Result<(), BodyFault>> {
        if let Some(file) = &self.file {
            let count = file
                .read_at(&mut self.piece.spare(STEP)[..STEP], self.file_at)
                .map_err(|_| BodyFault::Disk)?;
            self.piece.advance(count);
            self.file_at += count as u64;
            self.finished = count == 0;
            return Poll::Ready(Ok(()));
        }
        let Some(mut reader) = self.rest.take() else {
            self.finished = true;
            return Poll::Ready(Ok(()));
        };
        if reader.is_done() {
            self.rest = Some(reader);
            self.finished = true;
            return Poll::Ready(Ok(()));
        }
        let next = self.next_content(cx, client, &mut reader, usize::MAX);
        self.rest = Some(reader);
        match std::task::ready!(next)? {
            Some(range) => {
                self.streamed = true;
                let (end, content) = (range.end, &client.inbox.filled()[range]);
                match self.chunked {
                    true => put_chunk(&mut self.piece, content),
                    false => self.piece.push(content),
                }
                client.inbox.consume(end);
            }
            None if self.chunked => self.piece.push(b"0\r\n\r\n"),
            None => self.finished = true,
        }
        Poll::Ready(Ok(()))
    }
}

/// Writes a chunk.
pub fn put_chunk(out: &mut Buffer, content: &[u8]) {
    put_chunk_size(out, content.len());
    out.push_all(&[content, b"\r\n"]);
}

fn put_chunk_size(out: &mut Buffer, size: usize) {
    let mut digits = [0; 16];
    let (mut at, mut left) = (digits.len(), size);
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[left % 16];
        left /= 16;
        if left == 0 {
            break;
        }
    }
    out.push_all(&[&digits[at..], b"\r\n"]);
}

/// A file without a name: it is gone when it is closed.
fn spool_file(directory: &Path) -> io::Result<File> {
    let mut tries = 0;
    let (file, path) = loop {
        let name = format!(".body-{:016x}", RandomState::new().hash_one(std::process::id()));
        let path = directory.join(name);
        let open =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        match open {
            Ok(file) => break (file, path),
            Err(why) if why.kind() == io::ErrorKind::AlreadyExists && tries < 8 => tries += 1,
            Err(why) if why.kind() == io::ErrorKind::NotFound && tries < 8 => {
                std::fs::create_dir_all(directory)?;
                tries += 8;
            }
            Err(why) => return Err(why),
        }
    };
    std::fs::remove_file(path)?;
    Ok(file)
}

//! The loop: read what has come, send it, remember that it has arrived.
//!
//! One batch is under way at a time. Nothing is read while it waits: the files keep what comes,
//! and memory stays bounded.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mfserv_core::{Diagnostic, Kind};
use mfserv_platform::disk::failed;
use serde::Serialize;

use super::dead_letters;
use super::document::{Document, Making, Place};
use super::followed::{Begin, Followed};
use super::known::{CHUNK, UNACKNOWLEDGED};
use super::names::Pattern;
use super::records::{Lines, MOST};
use super::report::{Progress, Said};
use super::sink::{Outcome, Sink, Verdict};

mod files;

/// How often files are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How often patterns are expanded.
const EXPAND: Duration = Duration::from_secs(1);
/// A batch is sent when it has so many bytes, or all that came since the last look.
const BATCH: usize = 2 * 1024 * 1024;
/// What a document needs besides its line, bytes: many short lines need more than their text.
const OVERHEAD: usize = BATCH / MOST;
/// The first and the longest wait before a request is sent again.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

// What is read of a generation before it is acknowledged stays below what a mark assumes.
const _: () = assert!((BATCH + 2 * CHUNK) as u64 <= UNACKNOWLEDGED);

/// What is shipped, and how.
pub struct Options {
    /// The files.
    pub patterns: Vec<Pattern>,
    /// Where the state of each file is; `None`: beside the file.
    pub state: Option<PathBuf>,
    /// How lines become records.
    pub lines: Lines,
    /// What is read of files that are there and followed for the first time.
    pub first: Begin,
    /// The same of files that appear later.
    pub later: Begin,
    /// Ends when everything that is there has arrived.
    pub once: bool,
    /// The longest time without any progress; `None`: for ever.
    pub patience: Option<Duration>,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Documents that have arrived.
    pub sent: u64,
    /// Documents that had arrived before.
    pub known: u64,
    /// Documents that were refused and are in the dead-letter file.
    pub refused: u64,
    /// Bytes of last lines without an end, which are not sent.
    pub incomplete: u64,
}

/// What was read at one look.
struct Batch {
    documents: Vec<Document>,
    /// Something was read, even if nothing of it is to be sent.
    has_read: bool,
    /// There may be more.
    is_full: bool,
}

/// Follows files and sends what they get.
pub struct Shipper<'a> {
    options: Options,
    making: Making,
    sink: Sink,
    observer: &'a mut dyn FnMut(Said<'_>),
    files: Vec<Followed>,
    /// Files that another process ships: said once.
    refused: BTreeSet<PathBuf>,
    expanded: Option<Instant>,
    /// When vanished files were last looked for.
    let_go: Option<Instant>,
    counts: Counts,
    is_prepared: bool,
    /// Why nothing arrives, as it was last said.
    trouble: Option<String>,
}

impl<'a> Shipper<'a> {
    /// A shipper that has begun to follow the files that are there.
    ///
    /// # Errors
    /// What is wrong with the state of one of them: kind `Refused` when another process ships it.
    pub fn new(
        options: Options,
        making: Making,
        sink: Sink,
        observer: &'a mut dyn FnMut(Said<'_>),
    ) -> Result<Self, Diagnostic> {
        let mut shipper = Self {
            options,
            making,
            sink,
            observer,
            files: Vec::new(),
            refused: BTreeSet::new(),
            expanded: None,
            let_go: None,
            counts: Counts::default(),
            is_prepared: false,
            trouble: None,
        };
        for path in shipper.new_paths() {
            shipper.follow(&path, shipper.options.first)?;
        }
        shipper.follow_vanished()?;
        Ok(shipper)
    }

    /// Ships; returns only with [`Options::once`].
    ///
    /// # Errors
    /// Kind `Timeout` when nothing has arrived for as long as the options allow; what the system
    /// says about a file, with [`Options::once`].
    pub fn run(mut self) -> Result<Counts, Diagnostic> {
        self.say_how_far();
        loop {
            self.follow_new_files();
            let Batch { documents, has_read, is_full } = self.read()?;
            if has_read {
                self.sync()?;
                self.deliver(documents)?;
                self.acknowledge();
                self.say_how_far();
            }
            self.let_go_of_vanished();
            if is_full || (has_read && self.options.once) {
                continue;
            }
            if self.options.once {
                self.counts.incomplete = self.files.iter().map(Followed::unread).sum();
                return Ok(self.counts);
            }
            // Also after a small batch: a request for each few lines would cost more than they do.
            std::thread::sleep(LOOK);
        }
    }

    fn say_how_far(&mut self) {
        let unread = self.files.iter().map(Followed::unacknowledged).sum();
        (self.observer)(Said::At(Progress { counts: self.counts, unread }));
    }

    /// What has come, up to a batch.
    fn read(&mut self) -> Result<Batch, Diagnostic> {
        let Self { files, making, options, .. } = self;
        let mut documents = Vec::new();
        let (mut bytes, mut has_read) = (0, false);
        let mut problems = Vec::new();
        for file in files.iter_mut() {
            let path = file.path().to_owned();
            let name = path.to_string_lossy().into_owned();
            let mut index = making.index();
            let mut same = |a, b| match &mut index {
                Some(index) => index.name_at_ms(a) == index.name_at_ms(b),
                None => true,
            };
            let mut result = file.look().map(|()| true);
            while matches!(result, Ok(true)) && bytes < BATCH {
                result = file.read(options.once, &mut same, &mut |part| {
                    for record in &part.records {
                        bytes += record.bytes.len() + OVERHEAD;
                        let place = Place {
                            file: &name,
                            generation: part.generation,
                            inode: part.inode,
                            offset: part.base + record.start as u64,
                            times: part.times,
                        };
                        documents.extend(making.make(record.bytes, place));
                    }
                });
                has_read |= matches!(result, Ok(true));
            }
            if let Err(error) = result {
                problems.push(failed("read", &path, error));
            }
        }
        // Another file is the first one of the next batch.
        if let Some(count) = files.len().checked_sub(1) {
            files.rotate_left(count.min(1));
        }
        for problem in problems {
            if self.options.once {
                return Err(problem);
            }
            self.complain(&problem.to_string());
        }
        Ok(Batch { documents, has_read, is_full: bytes >= BATCH })
    }

    /// Nothing may be sent before this has succeeded.
    fn sync(&mut self) -> Result<(), Diagnostic> {
        let began = Instant::now();
        for at in 0..self.files.len() {
            let mut wait = FIRST_WAIT;
            while let Err(problem) = self.files[at].sync() {
                self.has_patience(began, &problem.to_string())?;
                std::thread::sleep(wait);
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
        Ok(())
    }

    fn acknowledge(&mut self) {
        for at in 0..self.files.len() {
            if let Err(problem) = self.files[at].acknowledge() {
                self.complain(&problem.to_string());
            }
        }
    }

    /// Sends documents until each has arrived or is in the dead-letter file.
    fn deliver(&mut self, mut rest: Vec<Document>) -> Result<(), Diagnostic> {
        let (mut limit, mut failures, mut progress) = (rest.len(), 0, Instant::now());
        while !rest.is_empty() {
            let count = limit.clamp(1, rest.len());
            match self.attempt(&rest[..count]) {
                Outcome::Each(verdicts) => {
                    let sent: Vec<Document> = rest.drain(..count).collect();
                    let (kept, why) = self.settle(sent, verdicts)?;
                    if kept.len() < count {
                        (failures, progress) = (0, Instant::now());
                    }
                    limit = limit.saturating_mul(2);
                    rest.extend(kept);
                    match why {
                        Some(why) => self.wait(&mut failures, progress, &why)?,
                        None => self.recovered(),
                    }
                }
                Outcome::Smaller(status, why) if count == 1 => {
                    let refused = rest.remove(0);
                    self.bury(&refused, status, &why)?;
                    progress = Instant::now();
                }
                Outcome::Smaller(..) => limit = count.div_ceil(2),
                Outcome::Later(why) => {
                    let why = format!("{}: {why}", self.sink.current());
                    self.sink.turn();
                    self.wait(&mut failures, progress, &why)?;
                }
            }
        }
        Ok(())
    }

    fn attempt(&mut self, documents: &[Document]) -> Outcome {
        if !self.is_prepared {
            let notice = &mut |text: &str| (self.observer)(Said::Notice(text));
            if let Err(why) = self.sink.prepare(notice) {
                return Outcome::Later(why);
            }
            self.is_prepared = true;
        }
        self.sink.send(documents)
    }

    /// Counts what has arrived; returns what is to be sent again, and why.
    fn settle(
        &mut self,
        sent: Vec<Document>,
        verdicts: Vec<Verdict>,
    ) -> Result<(Vec<Document>, Option<String>), Diagnostic> {
        let (mut kept, mut reason) = (Vec::new(), None);
        for (document, verdict) in sent.into_iter().zip(verdicts) {
            match verdict {
                Verdict::Done => self.counts.sent += 1,
                Verdict::Known => self.counts.known += 1,
                Verdict::Refused(status, why) => self.bury(&document, status, &why)?,
                Verdict::Later(why) => {
                    kept.push(document);
                    reason = Some(why);
                }
            }
        }
        Ok((kept, reason))
    }

    /// Waits before the next attempt: not at all while there is a node that was not asked.
    fn wait(&mut self, failures: &mut u32, progress: Instant, why: &str) -> Result<(), Diagnostic> {
        *failures += 1;
        if let Some(exponent) = failures.checked_sub(self.sink.count() as u32) {
            self.has_patience(progress, why)?;
            let wait = (FIRST_WAIT * (1 << exponent.min(10))).min(LONGEST_WAIT);
            let end = Instant::now() + wait;
            while Instant::now() < end {
                self.look_while_waiting();
                std::thread::sleep(EXPAND.min(end.saturating_duration_since(Instant::now())));
            }
        }
        Ok(())
    }

    /// Files that appear and are rotated meanwhile are not missed: their generations begin.
    fn look_while_waiting(&mut self) {
        self.follow_new_files();
        self.say_how_far();
        for file in &mut self.files {
            // What fails is tried again, and said, by the next reading.
            let _ = file.look_while_waiting();
            let _ = file.sync();
            match file.take_lost() {
                0 => {}
                bytes => (self.observer)(Said::Lost(bytes)),
            }
        }
    }

    fn has_patience(&mut self, since: Instant, why: &str) -> Result<(), Diagnostic> {
        if self.options.patience.is_some_and(|patience| since.elapsed() > patience) {
            return Err(Diagnostic::error("nothing arrives")
                .kind(Kind::Timeout)
                .because(why)
                .help("what has not arrived is sent by the next run: its position is stored"));
        }
        self.complain(&format!("nothing arrives: {why} (it is tried again)"));
        Ok(())
    }

    /// Says what is wrong, until something has arrived only once.
    fn complain(&mut self, text: &str) {
        if self.trouble.is_none() {
            (self.observer)(Said::Trouble(text));
            self.trouble = Some(text.into());
        }
    }

    fn recovered(&mut self) {
        if self.trouble.take().is_some() {
            (self.observer)(Said::Recovered);
        }
    }

    /// Writes a document that will never be taken to the dead-letter file of its path.
    fn bury(&mut self, document: &Document, status: u16, why: &str) -> Result<(), Diagnostic> {
        let owner = self.files.iter().find(|file| file.owns(&document.id));
        let Some(dir) = owner.map(|file| file.state().to_owned()) else { return Ok(()) };
        let began = Instant::now();
        while let Err(problem) = dead_letters::write(&dir, document, status, why) {
            self.has_patience(began, &problem.to_string())?;
            std::thread::sleep(LONGEST_WAIT);
        }
        self.counts.refused += 1;
        if self.counts.refused == 1 {
            let file = dir.join(dead_letters::FILE);
            let text = format!("a document is refused: see {}: {why}", file.display());
            (self.observer)(Said::Notice(&text));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

//! The output streams of all processes, and the threads that copy them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mfserv_core::wire::keeper::ProcessSpec;
use mfserv_logfile::Source;

use crate::copying::{Copier, CopierMessage, NotPaused, Paused, Stream};
use crate::log::log;
use crate::processes::Processes;
use crate::procfs;
use crate::refusal::Refusal;
use crate::saved::SavedStream;
use crate::spawn;

/// Every stream that is not read to its end.
pub(crate) struct Outputs {
    /// The directory of the FIFOs.
    fifos: PathBuf,
    streams: BTreeMap<u64, Stream>,
    next_key: u64,
    /// `None` only while it is paused.
    copier: Option<Copier>,
}

/// The streams of a process that is about to be started.
pub(crate) struct NewOutput {
    /// With our ends of their FIFOs.
    streams: Vec<(Stream, OwnedFd)>,
}

impl NewOutput {
    /// The process was not started: its FIFOs are removed.
    pub fn discard(self) {
        for (stream, _) in &self.streams {
            let _ = fs::remove_file(&stream.fifo);
        }
    }
}

impl Outputs {
    /// Starts the threads. Their streams get numbers from `next_key`. `after_death`: see
    /// [`Copier::start`].
    pub fn start(fifos: PathBuf, next_key: u64, after_death: bool) -> io::Result<Self> {
        let copier = Some(Copier::start(after_death)?);
        Ok(Self { fifos, streams: BTreeMap::new(), next_key, copier })
    }

    /// Makes the FIFOs of a process; returns them with its standard output and its standard
    /// error.
    pub fn create(&mut self, spec: &ProcessSpec) -> Result<(NewOutput, OwnedFd, OwnedFd), Refusal> {
        let mut made = NewOutput { streams: Vec::new() };
        match self.create_into(&mut made, spec) {
            Ok((stdout, stderr)) => Ok((made, stdout, stderr)),
            Err(refusal) => {
                made.discard();
                Err(refusal)
            }
        }
    }

    fn create_into(
        &mut self,
        made: &mut NewOutput,
        spec: &ProcessSpec,
    ) -> Result<(OwnedFd, OwnedFd), Refusal> {
        let failed = |e| Refusal::system("descriptors run out", &e);
        let is_split = spec.output.stderr.is_some();
        let out = if is_split { "stdout" } else { "both" };
        let stdout = self.create_one(made, spec, ("out", out), &spec.output.stdout)?;
        let stderr = match &spec.output.stderr {
            Some(log) => self.create_one(made, spec, ("err", "stderr"), log)?,
            None => stdout.try_clone().map_err(failed)?,
        };
        Ok((stdout, stderr))
    }

    fn create_one(
        &mut self,
        made: &mut NewOutput,
        spec: &ProcessSpec,
        (end, name): (&str, &str),
        log: &Path,
    ) -> Result<OwnedFd, Refusal> {
        let key = self.next_key;
        self.next_key += 1;
        let stream = Stream {
            key,
            source: Arc::new(Source {
                worker: spec.id.clone(),
                stream: name.to_owned(),
                release: spec.release.clone(),
            }),
            fifo: self.fifos.join(format!("{}.{key}.{end}", spec.id)),
            log: log.to_owned(),
            rotation: spec.output.rotation,
        };
        let (reads, writes) = spawn::make_fifo(&stream.fifo)?;
        made.streams.push((stream, reads));
        Ok(writes)
    }

    /// Copies the streams of a process that was started.
    pub fn copy(&mut self, made: NewOutput) {
        made.streams.into_iter().for_each(|(stream, fifo)| self.copy_from(stream, fifo));
    }

    /// Copies a stream whose FIFO is open.
    pub fn copy_from(&mut self, stream: Stream, fifo: OwnedFd) {
        self.streams.insert(stream.key, stream.clone());
        if let Some(copier) = &self.copier {
            copier.add(stream, fifo);
        }
    }

    /// Copies a stream whose FIFO exists. If its name was removed, the process that writes to it
    /// still has it.
    pub fn reopen(&mut self, stream: Stream, processes: &Processes) {
        let nameless = || {
            let writer = processes.pid(stream.owner())?;
            let held = procfs::removed_file(writer, &stream.fifo)?;
            spawn::open_fifo(&held).ok()
        };
        let opened = spawn::open_fifo(&stream.fifo).or_else(|e| nameless().ok_or(e));
        match opened {
            Ok(fifo) => self.copy_from(stream, fifo),
            Err(e) => log(format_args!("{} cannot be read: {e}", stream.fifo.display())),
        }
    }

    /// A process has ended: what it wrote is read to the end.
    pub fn finish(&self, id: &str) {
        if let Some(copier) = &self.copier {
            copier.finish(id);
        }
    }

    /// Nobody holds a stream any more.
    pub fn closed(&mut self, key: u64) {
        self.streams.remove(&key);
    }

    /// What the threads report.
    pub fn messages(&self) -> Vec<CopierMessage> {
        self.copier.as_ref().map(Copier::messages).unwrap_or_default()
    }

    /// Readable when the threads report something.
    pub fn wakeup(&self) -> Option<BorrowedFd<'_>> {
        self.copier.as_ref().map(Copier::wakeup)
    }

    /// Returns true if a thread has panicked: nothing is copied any more.
    pub fn have_failed(&self) -> bool {
        self.copier.as_ref().is_none_or(Copier::has_died)
    }

    /// Starts both threads anew, from the FIFOs, after one has panicked.
    pub fn restart(&mut self, processes: &Processes) {
        log(format_args!("a thread that copies output has failed; output may be lost"));
        match Copier::start(true) {
            Ok(copier) => self.copier = Some(copier),
            Err(e) => cannot_copy(&e),
        }
        for stream in std::mem::take(&mut self.streams).into_values() {
            self.reopen(stream, processes);
        }
    }

    /// Removes the FIFOs of processes that were started and never saved.
    pub fn remove_unknown_fifos(&self) {
        let known: Vec<_> = self.streams.values().map(|stream| &stream.fifo).collect();
        for entry in fs::read_dir(&self.fifos).into_iter().flatten().flatten() {
            if !known.contains(&&entry.path()) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// The last output of processes that an earlier image of this keeper has read.
    pub fn remember(&mut self, last_outputs: &[(String, String)]) {
        let Some(Ok(mut paused)) = self.copier.take().map(Copier::pause) else { return };
        last_outputs.iter().for_each(|(owner, text)| paused.remember(owner, text));
        self.resume(paused);
    }

    /// Writes out what was read and stops the threads, so that the program can be replaced.
    pub fn pause(&mut self) -> Result<Paused, Refusal> {
        match self.copier.take().map(Copier::pause) {
            Some(Ok(paused)) => Ok(paused),
            Some(Err(NotPaused::Late(copier))) => {
                self.copier = Some(copier);
                Err(Refusal::because("output still waits for the disk: it would be lost"))
            }
            // the loop starts them again: see `have_failed`
            Some(Err(NotPaused::Died)) => {
                Err(Refusal::because("a thread that copies output has failed; try again"))
            }
            None => Err(Refusal::because("no output is being copied")),
        }
    }

    /// Starts the threads again.
    pub fn resume(&mut self, paused: Paused) {
        match paused.resume() {
            Ok(copier) => self.copier = Some(copier),
            Err(e) => cannot_copy(&e),
        }
    }

    /// Writes out what was read, stops the threads and removes the FIFOs.
    pub fn end(&mut self) {
        if let Some(Err(_)) = self.copier.take().map(Copier::pause) {
            log(format_args!("output that still waits for the disk is lost"));
        }
        let _ = fs::remove_dir_all(&self.fifos);
    }

    /// The number of the next stream.
    pub fn next_key(&self) -> u64 {
        self.next_key
    }

    /// What a new keeper must know of the streams.
    pub fn to_save(&self) -> Vec<SavedStream> {
        self.streams.values().map(SavedStream::from).collect()
    }
}

/// A keeper without its copying threads would let the apps stand still: better none, and
/// a new one that adopts.
fn cannot_copy(error: &io::Error) -> ! {
    log(format_args!("the threads that copy output cannot be started: {error}"));
    std::process::abort()
}

impl From<&Stream> for SavedStream {
    fn from(it: &Stream) -> Self {
        let Stream { key, source, fifo, log, rotation } = it.clone();
        let Source { worker: owner, stream, release } = (*source).clone();
        Self { key, owner, fifo, log, rotation, stream, release }
    }
}

impl From<SavedStream> for Stream {
    fn from(it: SavedStream) -> Self {
        let SavedStream { key, owner, fifo, log, rotation, stream, release } = it;
        let source = Arc::new(Source { worker: owner, stream, release });
        Self { key, source, fifo, log, rotation }
    }
}

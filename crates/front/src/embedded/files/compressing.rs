//! Files that are compressed for the clients that accept it, where no compressed copy lies beside
//! them.
//!
//! A file that is asked for again in a coding is compressed once, by one thread of low priority; until that is
//! done, clients get it as it is, and nobody waits. What was made is kept for all lanes, in files that
//! are memory alone: they are sent as any file. All of it is bounded, see [`kept`].

mod encode;
mod kept;

use std::fs::File;
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use mfserv_platform::sync::lock;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::setpriority_process;

use super::asset::Representation;
use super::coding::Coding;
use super::opening::Version;
use crate::embedded::io::clock;
pub use kept::Place;
use kept::{InUse, Kept};

/// Shorter files are not compressed, bytes: they are one packet anyway.
pub const SHORTEST: u64 = 1024;
/// Files of such lengths are compressed, bytes: a longer one would have the thread for long.
pub const LENGTHS: RangeInclusive<u64> = SHORTEST..=4 * 1024 * 1024;
/// A file that was changed since may still be written, within one tick of its clock: then other
/// bytes have the same version. Seconds.
const SETTLED_S: i64 = 2;
/// What is not shorter by this part of the file is not worth the work of its clients.
const GAIN: u64 = 10;
/// The priority of the thread that compresses, see setpriority(2): beside one thread of a usual priority
/// it has a tenth of a processor. With 19 it has a sixtieth, and a large file is not compressed for
/// minutes on a machine without idle time.
const NICE: i32 = 10;

/// What became of a file.
#[derive(Debug)]
enum Outcome {
    Made(Representation),
    /// It does not become shorter.
    Useless,
    /// It is not the file that was asked for any more.
    Changed,
}

/// A compressed form of a file.
type Form = (Version, Coding);

/// A file that waits to be compressed, with the place of what is made of it.
#[derive(Debug)]
struct Job {
    plain: Arc<Representation>,
    coding: Coding,
    place: Place,
}

impl Job {
    fn form(&self) -> Form {
        (self.plain.version(), self.coding)
    }
}

/// Compresses files, and keeps what it has made.
struct Compressor(Mutex<Kept>);

/// The compressed form of a file for a client that takes these codings, the first one rather than the
/// others; `None` if it is to be sent as it is: now, or at all.
pub fn compressed(
    plain: &Arc<Representation>,
    codings: impl Iterator<Item = Coding>,
) -> Option<Arc<Representation>> {
    static IN_USE: InUse = InUse::new();
    static OF_ALL_LANES: OnceLock<Compressor> = OnceLock::new();
    // Its time of modification says less: anybody may set it.
    if clock::unix_seconds() - plain.version().changed_at() < SETTLED_S {
        return None;
    }
    let compressor = OF_ALL_LANES.get_or_init(|| Compressor::new(&IN_USE));
    compressor.compressed(plain, codings, Instant::now())
}

impl Compressor {
    fn new(in_use: &'static InUse) -> Self {
        Self(Mutex::new(Kept::new(in_use)))
    }

    fn compressed(
        &'static self,
        plain: &Arc<Representation>,
        mut codings: impl Iterator<Item = Coding>,
        now: Instant,
    ) -> Option<Arc<Representation>> {
        let best = codings.next()?;
        let mut kept = lock(&self.0);
        let made = kept.find((plain, best), now);
        // Only what the client likes most is made for it.
        let made = made.or_else(|| codings.find_map(|one| kept.made((plain.version(), one), now)));
        if kept.wants_thread() {
            let thread = std::thread::Builder::new().name("mfserv-compress".into());
            // Without a thread the next request tries again.
            if thread.spawn(|| self.work()).is_err() {
                kept.give_up();
            }
        }
        made
    }

    /// Compresses what waits, until nothing does.
    fn work(&'static self) {
        let _ended = Ended(self);
        // Where it cannot be lowered, the work is done all the same. (0 is the thread that asks.)
        let _ = setpriority_process(None, NICE);
        loop {
            let Some(job) = lock(&self.0).next_job() else { return };
            let form = job.form();
            let outcome = make(job);
            lock(&self.0).done(form, outcome, Instant::now());
        }
    }
}

/// The thread has ended: where it panicked, another one may begin.
struct Ended(&'static Compressor);

impl Drop for Ended {
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(&self.0.0).give_up();
        }
    }
}

/// The longest form of a file that is worth it, bytes.
fn worth_it(plain: &Representation) -> u64 {
    plain.length() - plain.length() / GAIN
}

/// Compresses a file.
fn make(Job { plain, coding, mut place }: Job) -> io::Result<Outcome> {
    let mut content = vec![0; plain.length() as usize];
    let file = File::from(plain.file().try_clone()?);
    file.read_exact_at(&mut content, 0)?;
    if !plain.is_current() {
        return Ok(Outcome::Changed);
    }
    let made = encode::encode(&content, coding)?;
    let length = made.len() as u64;
    if length > worth_it(&plain) {
        return Ok(Outcome::Useless);
    }
    place.shrink_to(length);
    let memory = memfd_create("mfserv-compressed", MemfdFlags::CLOEXEC)?;
    let mut memory = File::from(memory);
    memory.write_all(&made)?;
    let form = (OwnedFd::from(memory), length, coding);
    Ok(Outcome::Made(Representation::made_of(&plain, form, place)))
}

#[cfg(test)]
mod tests;

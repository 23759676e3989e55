//! What is known of the files that clients would have compressed: what was made of them, which ones
//! wait, and for which ones it is useless.
//!
//! Its bounds are those of what lives: what was displaced counts until its last client has it. What is
//! in use is not displaced, so that more files than there are places are not compressed for ever.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use rustix::process::{Resource, getrlimit};

use super::super::asset::Representation;
use super::super::coding::Coding;
use super::{Form, Job, Outcome, worth_it};
use crate::embedded::io::budget::{Budget, Share};

/// All that was made has at most so many bytes.
pub(super) const BYTES_MAX: u64 = 32 * 1024 * 1024;
/// The most files that were made.
const FILES_MAX: u64 = 256;
/// There is one for so many descriptors that this process may have, …
const FILES_OF: u64 = 128;
/// … but at least so many.
const FILES_LEAST: u64 = 8;
/// The most files that wait.
pub(super) const WAITING_MAX: usize = 16;
/// A file is compressed if it is asked for twice within this time.
pub(super) const ASKED_WITHIN: Duration = Duration::from_secs(600);
/// What was asked for within this time is not displaced.
pub(super) const STAYS: Duration = Duration::from_secs(60);
/// How long it is known that it is useless.
const USELESS_FOR: Duration = Duration::from_secs(24 * 3600);
/// Of so many files it is known when something was seen of them: more of them forget each other.
const SIGHTINGS: usize = 4096;

/// How much is in use by what was made, kept or on its way to a client.
#[derive(Debug)]
pub struct InUse {
    bytes: Budget,
    files: Budget,
}

/// The place of one form of a file; free again when that is dropped.
#[derive(Debug)]
pub struct Place {
    bytes: Share<'static>,
    files: Share<'static>,
}

struct Entry {
    made: Arc<Representation>,
    used: Instant,
}

/// See the head of this file.
pub struct Kept {
    made: HashMap<Form, Entry, RandomState>,
    waiting: VecDeque<Job>,
    /// The file that is being compressed.
    current: Option<Form>,
    has_thread: bool,
    asked: Sightings,
    useless: Sightings,
    in_use: &'static InUse,
}

impl InUse {
    /// Nothing.
    pub const fn new() -> Self {
        Self { bytes: Budget::new(), files: Budget::new() }
    }

    /// A place for so many bytes, if there is one.
    pub fn place(&'static self, bytes: u64) -> Option<Place> {
        let mut place = Place { bytes: Share::new(&self.bytes), files: Share::new(&self.files) };
        let is_free = place.files.grow(1, files_max()) && place.bytes.grow(bytes, BYTES_MAX);
        is_free.then_some(place)
    }
}

impl Place {
    /// What has this place is shorter than was thought.
    pub fn shrink_to(&mut self, bytes: u64) {
        self.bytes.shrink_to(bytes);
    }
}

impl Kept {
    /// Nothing is known.
    pub fn new(in_use: &'static InUse) -> Self {
        Self {
            made: HashMap::default(),
            waiting: VecDeque::new(),
            current: None,
            has_thread: false,
            asked: Sightings::new(ASKED_WITHIN),
            useless: Sightings::new(USELESS_FOR),
            in_use,
        }
    }

    /// What was made of a file. If there is nothing and somebody asks for it again, it waits from now
    /// on, if there is a place for it.
    pub fn find(
        &mut self,
        (plain, coding): (&Arc<Representation>, Coding),
        now: Instant,
    ) -> Option<Arc<Representation>> {
        let form = (plain.version(), coding);
        if let Some(made) = self.made(form, now) {
            return Some(made);
        }
        let waits = || self.waiting.iter().any(|job| job.form() == form);
        if self.current == Some(form)
            || self.waiting.len() >= WAITING_MAX
            || waits()
            || self.useless.has(&form, now)
        {
            return None;
        }
        if !self.asked.has(&form, now) {
            self.asked.note(&form, now);
            return None;
        }
        let place = self.free_place(worth_it(plain), now)?;
        // If it fails, it has to be asked for twice again.
        self.asked.forget(&form);
        self.waiting.push_back(Job { plain: plain.clone(), coding, place });
        None
    }

    /// What was made of a file, if it was.
    pub fn made(&mut self, form: Form, now: Instant) -> Option<Arc<Representation>> {
        let entry = self.made.get_mut(&form)?;
        entry.used = now;
        Some(entry.made.clone())
    }

    /// A place for so many bytes. What has not been asked for since long, and is on its way to nobody,
    /// makes room.
    fn free_place(&mut self, bytes: u64, now: Instant) -> Option<Place> {
        loop {
            if let Some(place) = self.in_use.place(bytes) {
                return Some(place);
            }
            let gone =
                |entry: &Entry| Arc::strong_count(&entry.made) == 1 && now >= entry.used + STAYS;
            let idle = self.made.iter().filter(|(_, entry)| gone(entry));
            let oldest = idle.min_by_key(|(_, entry)| entry.used).map(|(form, _)| *form)?;
            self.made.remove(&oldest);
        }
    }

    /// True if a file waits and there is no thread: then the caller starts one.
    pub fn wants_thread(&mut self) -> bool {
        let wants = !self.has_thread && !self.waiting.is_empty();
        self.has_thread |= wants;
        wants
    }

    /// The next file, for the thread; `None`: the thread ends.
    pub fn next_job(&mut self) -> Option<Job> {
        let job = self.waiting.pop_front();
        self.current = job.as_ref().map(Job::form);
        self.has_thread = job.is_some();
        job
    }

    /// What became of a file. An error may be a passing one: nothing is known of the file then.
    pub fn done(&mut self, form: Form, outcome: io::Result<Outcome>, now: Instant) {
        self.current = None;
        match outcome {
            Ok(Outcome::Made(made)) => {
                self.made.insert(form, Entry { made: Arc::new(made), used: now });
            }
            Ok(Outcome::Useless) => self.useless.note(&form, now),
            Ok(Outcome::Changed) | Err(_) => {}
        }
    }

    /// There is no thread: nothing waits any more.
    pub fn give_up(&mut self) {
        (self.current, self.has_thread) = (None, false);
        self.waiting.clear();
    }

    /// True if nothing waits and nothing is being made.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        !self.has_thread && self.waiting.is_empty()
    }
}

/// When something was seen of forms of files: of the last one for each slot. Two files have one number of 64
/// bits hardly ever; then one of them is sent as it is.
struct Sightings {
    slots: Vec<Option<(u64, Instant)>>,
    numbers: RandomState,
    valid: Duration,
}

impl Sightings {
    fn new(valid: Duration) -> Self {
        Self { slots: vec![None; SIGHTINGS], numbers: RandomState::default(), valid }
    }

    fn slot(&mut self, form: &Form) -> (u64, &mut Option<(u64, Instant)>) {
        let number = self.numbers.hash_one(form);
        let at = usize::try_from(number % SIGHTINGS as u64).unwrap_or(0);
        (number, &mut self.slots[at])
    }

    fn has(&mut self, form: &Form, now: Instant) -> bool {
        let valid = self.valid;
        let (number, slot) = self.slot(form);
        slot.is_some_and(|(seen, at)| seen == number && now < at + valid)
    }

    fn note(&mut self, form: &Form, now: Instant) {
        let (number, slot) = self.slot(form);
        *slot = Some((number, now));
    }

    fn forget(&mut self, form: &Form) {
        let (number, slot) = self.slot(form);
        slot.take_if(|(seen, _)| *seen == number);
    }
}

/// The most files that there is room for descriptors for. A front sets its limit before it serves.
pub(super) fn files_max() -> u64 {
    static MOST: OnceLock<u64> = OnceLock::new();
    *MOST.get_or_init(|| {
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        (descriptors / FILES_OF).clamp(FILES_LEAST, FILES_MAX)
    })
}

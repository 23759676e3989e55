//! The page: memory that a front shares with the workers of an app.

#![expect(unsafe_code, reason = "memory that is shared with other processes is mapped")]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::time::{ClockId, clock_gettime};

/// How many workers can have a line of a page.
pub const LINES: usize = 256;
/// A line is that of a cache, so that workers do not wait for each other.
const WORDS_OF_LINE: usize = 8;
/// Numbers that are given up, each at the place of its remainder: more of them than there are
/// messages in the kernel.
const GIVEN_UP: usize = 8192;
const WORDS: usize = LINES * WORDS_OF_LINE + GIVEN_UP;
const BYTES: usize = WORDS * size_of::<u64>();
/// It can neither become shorter, which would end whoever reads it, nor longer.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// Memory that a front shares with the workers of an app: which request each worker has, and
/// which requests were given up.
#[derive(Debug)]
pub struct Page {
    words: NonNull<AtomicU64>,
}

// SAFETY: the memory belongs to this value until it is dropped, and is only reached by atomics.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

impl Page {
    /// A new page, and the descriptor to share.
    pub fn create() -> io::Result<(Self, OwnedFd)> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = rustix::fs::memfd_create("mfserv-requests", flags)?;
        ftruncate(&memory, BYTES as u64)?;
        fcntl_add_seals(&memory, SEALS)?;
        Ok((Self::open(&memory)?, memory))
    }

    /// The page of this descriptor.
    pub fn open(memory: impl AsFd) -> io::Result<Self> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "it is no page of a front");
        let is_sealed = fcntl_get_seals(&memory).is_ok_and(|seals| seals.contains(SEALS));
        if !is_sealed || fstat(&memory)?.st_size != BYTES as i64 {
            return Err(wrong());
        }
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at a place that the system chooses, of memory that is as long and
        // stays so.
        let words = unsafe { mmap(std::ptr::null_mut(), BYTES, access, flags, memory, 0) }?;
        Ok(Self { words: NonNull::new(words.cast()).ok_or_else(wrong)? })
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        let at = at.min(WORDS - 1);
        // SAFETY: `at` lies in the mapping, which lives as long as `self`, and any bits are a
        // number.
        unsafe { self.words.add(at).as_ref() }
    }

    fn id(&self, line: usize) -> &AtomicU64 {
        self.word(line * WORDS_OF_LINE)
    }

    fn since(&self, line: usize) -> &AtomicU64 {
        self.word(line * WORDS_OF_LINE + 1)
    }

    fn last(&self, line: usize) -> &AtomicU64 {
        self.word(line * WORDS_OF_LINE + 2)
    }

    fn given_up(&self, id: u64) -> &AtomicU64 {
        self.word(LINES * WORDS_OF_LINE + id as usize % GIVEN_UP)
    }

    /// The worker of this line has received this request, and would begin with it. False if it
    /// must not, since the request was given up; then it has not claimed it.
    pub fn claim(&self, line: usize, id: u64) -> bool {
        self.since(line).store(now_ns(), SeqCst);
        self.id(line).store(id, SeqCst);
        // A later one at this place: this one was given up before that, or it would be answered.
        let is_wanted = self.given_up(id).load(SeqCst) < id;
        if !is_wanted {
            self.finish(line);
        }
        is_wanted
    }

    /// How long the worker of this line has had its request, microseconds.
    pub fn took_us(&self, line: usize) -> u32 {
        let since = self.since(line).load(SeqCst);
        u32::try_from(now_ns().saturating_sub(since) / 1000).unwrap_or(u32::MAX)
    }

    /// The worker of this line has no request any more. Its frame has to be sent before.
    pub fn finish(&self, line: usize) {
        let id = self.id(line).load(SeqCst);
        if id != 0 {
            self.last(line).store(id, SeqCst);
            self.id(line).store(0, SeqCst);
        }
    }

    /// The last request that the worker of this line has finished; 0 if there was none.
    pub fn finished(&self, line: usize) -> u64 {
        self.last(line).load(SeqCst)
    }

    /// A new worker gets this line.
    pub fn reset(&self, line: usize) {
        self.id(line).store(0, SeqCst);
        self.last(line).store(0, SeqCst);
    }

    /// The request that the worker of this line has, and since when ([`now_ns`]).
    pub fn running(&self, line: usize) -> Option<(u64, u64)> {
        loop {
            let id = self.id(line).load(SeqCst);
            let since = self.since(line).load(SeqCst);
            if self.id(line).load(SeqCst) == id {
                return (id != 0).then_some((id, since));
            }
        }
    }

    /// A request is not wanted any more. Whoever calls this has to look afterwards whether a
    /// worker has claimed it.
    pub fn give_up(&self, id: u64) {
        self.given_up(id).fetch_max(id, SeqCst);
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: it is the mapping that `open` has made, and nobody can reach it any more.
        // If the system refuses that, it stays mapped.
        let _ = unsafe { munmap(self.words.as_ptr().cast(), BYTES) };
    }
}

/// The time of the clock that all processes share, and that is never set, nanoseconds.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_up_before_it_was_claimed_does_not_begin() {
        let (page, memory) = Page::create().unwrap();
        let worker = Page::open(&memory).unwrap();
        let before = now_ns();
        assert!(worker.claim(3, 17));
        let (id, since) = page.running(3).unwrap();
        assert!(id == 17 && since >= before && since <= now_ns());
        worker.finish(3);
        assert_eq!((page.running(3), page.finished(3)), (None, 17));
        worker.finish(3);
        assert_eq!(page.finished(3), 17);
        page.give_up(18);
        assert!(!worker.claim(3, 18));
        assert_eq!(page.running(3), None);
        assert!(worker.claim(3, 18 + GIVEN_UP as u64), "another one at its place");
        page.give_up(18 + 2 * GIVEN_UP as u64);
        worker.finish(3);
        assert!(!worker.claim(3, 18), "also when another one at its place was given up");
    }

    #[test]
    fn the_later_one_of_two_at_one_place_stays_given_up() {
        let (page, _memory) = Page::create().unwrap();
        let later = 5 + GIVEN_UP as u64;
        page.give_up(later);
        page.give_up(5);
        assert!(!page.claim(0, later));
    }

    #[test]
    fn no_worker_and_front_both_believe_that_a_request_is_theirs() {
        let (page, memory) = Page::create().unwrap();
        let worker = Page::open(&memory).unwrap();
        for id in 1..20_000 {
            let (begins, is_claimed) = std::thread::scope(|scope| {
                let begins = scope.spawn(|| worker.claim(0, id));
                page.give_up(id);
                let is_claimed = page.running(0).is_some();
                (begins.join().unwrap(), is_claimed)
            });
            assert!(!begins || is_claimed || page.running(0).is_some(), "{id} begins unseen");
            assert!(is_claimed || !begins, "{id} begins, and the front has not seen it");
            worker.finish(0);
        }
    }

    #[test]
    fn memory_that_can_become_shorter_is_no_page() {
        let memory = rustix::fs::memfd_create("x", MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&memory, BYTES as u64).unwrap();
        Page::open(&memory).unwrap_err();
    }
}

//! Limits on what all requests of a front use together, for example memory.

use std::sync::atomic::{AtomicU64, Ordering};

/// How much of something is in use, in all lanes together.
#[derive(Debug, Default)]
pub struct Budget(AtomicU64);

/// The share of one request in a budget; given back when dropped. A request that takes
/// nothing touches no cache line that other threads use.
#[derive(Debug)]
pub struct Share<'a> {
    budget: &'a Budget,
    taken: u64,
}

impl<'a> Share<'a> {
    /// An empty share.
    pub fn new(budget: &'a Budget) -> Self {
        Self { budget, taken: 0 }
    }

    /// Takes `by` more. False, and nothing taken, if all shares together would then be
    /// larger than `limit`.
    pub fn grow(&mut self, by: u64, limit: u64) -> bool {
        let grown = |all: u64| all.checked_add(by).filter(|&all| all <= limit);
        let taken = self.budget.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown);
        if taken.is_ok() {
            self.taken += by;
        }
        taken.is_ok()
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        if self.taken > 0 {
            self.budget.0.fetch_sub(self.taken, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_never_exceed_the_limit_together_and_give_back_what_they_took() {
        let budget = Budget::default();
        let (mut one, mut other) = (Share::new(&budget), Share::new(&budget));
        assert!(one.grow(60, 100) && other.grow(40, 100));
        assert!(!one.grow(1, 100) && !other.grow(u64::MAX, u64::MAX));
        drop(one);
        assert!(other.grow(60, 100) && !other.grow(1, 100));
        drop(other);
        assert_eq!(budget.0.load(Ordering::Relaxed), 0);
    }
}

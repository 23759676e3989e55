//! Limits on what all requests of a front use together, for example memory.

use std::sync::Arc;
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

impl Budget {
    /// Nothing is in use.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    fn in_use(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The share of one request of an app in a budget of that app, and in one of all apps.
#[derive(Debug)]
pub struct FairShare<'a> {
    own: Share<'a>,
    all: Share<'a>,
}

impl<'a> FairShare<'a> {
    /// An empty share.
    pub fn new(own: &'a Budget, all: &'a Budget) -> Self {
        Self { own: Share::new(own), all: Share::new(all) }
    }

    /// Takes `by` more. False, and nothing taken, if the app would then have more than
    /// `own`, all apps more than `all`, or the app more than all apps leave free: one app
    /// alone gets half of what there is, and there is always room for another one.
    pub fn grow(&mut self, by: u64, (own, all): (u64, u64)) -> bool {
        let free = all.saturating_sub(self.all.budget.in_use());
        if !self.own.grow(by, own.min(free)) {
            return false;
        }
        let is_taken = self.all.grow(by, all);
        if !is_taken {
            self.own.give_back(by);
        }
        is_taken
    }
}

/// Descriptors for workers and files: how many are in use, and how many there are.
#[derive(Debug)]
pub struct Descriptors {
    in_use: Budget,
    limit: AtomicU64,
}

impl Default for Descriptors {
    fn default() -> Self {
        Self { in_use: Budget::default(), limit: AtomicU64::new(u64::MAX) }
    }
}

impl Descriptors {
    /// There are so many.
    pub fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
    }
}

/// What one app uses of them.
#[derive(Debug, Clone)]
pub struct AppDescriptors {
    own: Arc<Budget>,
    all: Arc<Descriptors>,
}

/// The right to have one descriptor open; given back when dropped.
#[derive(Debug)]
pub struct Descriptor(AppDescriptors);

impl AppDescriptors {
    /// Those of an app that uses none yet.
    pub fn new(all: Arc<Descriptors>) -> Self {
        Self { own: Arc::default(), all }
    }

    /// Takes one. `None` if the app would have more than three times as many as all apps
    /// leave free: one app alone gets three quarters, and others always find some.
    pub fn take(&self) -> Option<Descriptor> {
        let limit = self.all.limit.load(Ordering::Relaxed);
        let most = limit.saturating_sub(self.all.in_use.in_use()).saturating_mul(3);
        let one_more = |own: u64| (own < most).then_some(own + 1);
        self.own.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        self.all.in_use.0.fetch_add(1, Ordering::Relaxed);
        Some(Descriptor(self.clone()))
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.0.own.0.fetch_sub(1, Ordering::Relaxed);
        self.0.all.in_use.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Share<'_> {
    /// Gives back what it has above `count`.
    pub fn shrink_to(&mut self, count: u64) {
        self.give_back(self.taken.saturating_sub(count));
    }

    fn give_back(&mut self, count: u64) {
        self.budget.0.fetch_sub(count, Ordering::Relaxed);
        self.taken -= count;
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
        other.shrink_to(70);
        other.shrink_to(80);
        assert!(other.grow(30, 100) && !other.grow(1, 100));
        drop(other);
        assert_eq!(budget.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn an_app_alone_gets_half_and_leaves_room_for_every_other_one() {
        let (all, greedy, other, third) = Default::default();
        let limits = (80, 100);
        let mut share = FairShare::new(&greedy, &all);
        assert!(share.grow(40, limits) && share.grow(10, limits) && !share.grow(1, limits));
        let mut others = [FairShare::new(&other, &all), FairShare::new(&third, &all)];
        assert!(others[0].grow(25, limits) && !others[0].grow(1, limits));
        assert!(others[1].grow(13, limits) && !others[1].grow(1, limits));
        drop(share);
        assert!(others[0].grow(20, limits), "what was given back is there for others");
        assert!(!FairShare::new(&greedy, &all).grow(31, (30, 1000)), "the limit of the app");
        drop(others);
        let in_use: Vec<u64> = [all, greedy, other, third].iter().map(Budget::in_use).collect();
        assert_eq!(in_use, [0; 4]);
    }

    #[test]
    fn an_app_alone_gets_three_quarters_of_the_descriptors_and_others_find_some() {
        let all = Arc::new(Descriptors::default());
        all.set_limit(240);
        let take_all = |app: &AppDescriptors| -> Vec<Descriptor> {
            std::iter::repeat_with(|| app.take()).map_while(|one| one).collect()
        };
        let (greedy, other, third) = (
            AppDescriptors::new(all.clone()),
            AppDescriptors::new(all.clone()),
            AppDescriptors::new(all.clone()),
        );
        let taken = take_all(&greedy);
        assert_eq!(taken.len(), 180);
        let others = [take_all(&other), take_all(&third)];
        assert_eq!([others[0].len(), others[1].len()], [45, 12]);
        drop(taken);
        assert!(other.take().is_some(), "what was given back is there for others");
        drop(others);
        assert_eq!(all.in_use.in_use(), 0);
    }
}

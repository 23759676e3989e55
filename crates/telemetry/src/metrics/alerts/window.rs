//! What was counted in the last seconds: the ticks of the history, added up.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::metrics::history::{Sample, Subject, Tick};

/// A window is divided into so many parts at most; the oldest one leaves as a whole.
const PARTS: u64 = 60;

/// What is counted of each app.
pub type Counted = BTreeMap<Arc<Subject>, Sample>;

/// A window of time.
pub struct Window {
    window_s: u64,
    part_s: u64,
    /// When the last tick of a part ended, and what was counted in it; the oldest part first.
    parts: VecDeque<(u64, Counted)>,
}

impl Window {
    /// Nothing was counted yet.
    pub fn new(window_s: u64) -> Self {
        Self { window_s, part_s: (window_s / PARTS).max(1), parts: VecDeque::new() }
    }

    /// Adds a tick; what is older than the window leaves it.
    pub fn add(&mut self, tick: &Tick) {
        // A clock that was set back: what comes later now would stay for too long.
        self.parts.retain(|(at, _)| *at <= tick.at);
        let part = |at: u64| at.saturating_sub(1) / self.part_s;
        match self.parts.back_mut().filter(|(at, _)| part(*at) == part(tick.at)) {
            Some((at, counted)) => {
                *at = tick.at;
                count(counted, &tick.apps);
            }
            None => {
                let mut counted = Counted::new();
                count(&mut counted, &tick.apps);
                self.parts.push_back((tick.at, counted));
            }
        }
        while self.parts.front().is_some_and(|(at, _)| at + self.window_s <= tick.at) {
            self.parts.pop_front();
        }
    }

    /// What was counted in the window, of apps of which something was.
    pub fn counted(&self) -> Counted {
        let mut all = Counted::new();
        self.parts.iter().for_each(|(_, counted)| count(&mut all, counted));
        all
    }
}

fn count(all: &mut Counted, more: &Counted) {
    let has_counted = |sample: &Sample| sample.requests() > 0 || sample.crashes > 0;
    for (subject, sample) in more.iter().filter(|(_, sample)| has_counted(sample)) {
        all.entry(subject.clone()).or_default().count(sample);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many requests the window has after each of these ticks: when, and requests.
    fn requests(window_s: u64, ticks: &[(u64, u64)]) -> Vec<u64> {
        let mut window = Window::new(window_s);
        let each = ticks.iter().map(|(at, requests)| {
            let sample = Sample { classes: [*requests, 0, 0, 0, 0], ..Sample::default() };
            let apps = BTreeMap::from([(Arc::new(Subject::new("app", "p", "a")), sample)]);
            window.add(&Tick { at: *at, apps, ..Tick::default() });
            window.counted().values().map(Sample::requests).sum()
        });
        each.collect()
    }

    #[test]
    fn what_is_older_than_the_window_is_not_counted() {
        assert_eq!(requests(3, &[(7, 1), (8, 2), (9, 4), (10, 8), (11, 0)]), [1, 3, 7, 14, 12]);
        assert_eq!(requests(3, &[(7, 1), (90, 2)]), [1, 2], "nothing was known meanwhile");
        // Parts of two seconds.
        assert_eq!(requests(120, &[(1, 1), (2, 2), (121, 4), (122, 8)]), [1, 3, 7, 12]);
    }

    #[test]
    fn a_clock_that_is_set_back_leaves_nothing_in_the_window_for_ever() {
        assert_eq!(requests(3, &[(9_000, 5), (100, 1), (101, 0), (103, 0)]), [5, 1, 1, 0]);
    }

    #[test]
    fn a_long_window_has_a_bounded_number_of_parts() {
        let mut window = Window::new(86_400);
        (0..100_000).for_each(|at| window.add(&Tick { at, ..Tick::default() }));
        assert!(window.parts.len() as u64 <= PARTS + 1, "{}", window.parts.len());
    }
}

//! The proof: did a fast request wait while a worker was idle?
//!
//! A request waits from the instant when the client sends it to the instant when the app
//! begins. A worker is idle while no request is inside its app, as the workers themselves
//! wrote down. What is left when both happen at the same time has two causes. Either the
//! request stood behind another one although a worker had nothing to do: it was passed
//! over, which is the front's fault. Or a request was on its way from the front into its
//! worker: that is the handing over, which takes time, and more on a busy machine. Both
//! count when they last longer than [`PASSING_NS`].

use std::collections::HashMap;

use super::client::Asked;
use super::mixed::Handled;
use super::stalls::Stall;

/// A worker may be idle this long while a request waits: the request is on its way.
pub const PASSING_NS: u64 = 2_000_000;

/// What the waiting of one round was like.
#[derive(Debug, Default)]
pub struct Waits {
    /// How long each fast request waited, milliseconds.
    pub fast_ms: Vec<f64>,
    /// For how long fast requests stood behind another request while a worker had nothing
    /// to do, milliseconds; only those that did.
    pub passed_over_ms: Vec<f64>,
    /// Fast requests that waited while a worker was idle for any reason.
    pub beside_idle: usize,
    /// How long it took to hand over a request to a worker that was idle when the request
    /// was sent, milliseconds.
    pub to_idle_ms: Vec<f64>,
    /// How long it took from the end of a request in the app to the beginning of the next,
    /// which waited already, milliseconds.
    pub from_queue_ms: Vec<f64>,
    /// Handings over that took longer than [`PASSING_NS`]…
    pub late: usize,
    /// …and those of them during which the noise watch woke late as well.
    pub late_in_stall: usize,
    /// Which part of the workers' time was spent inside the app, 0 to 1.
    pub busy: f64,
}

/// Compares when requests waited with when workers were idle.
pub fn compare(asked: &[Asked], handled: &[Handled], workers: usize, stalls: &[Stall]) -> Waits {
    let sent: HashMap<u64, u64> = asked.iter().map(|one| (one.id, one.sent_ns)).collect();
    let of_round: Vec<Handled> =
        handled.iter().filter(|one| sent.contains_key(&one.id)).copied().collect();
    let gaps: Vec<Gap> = (0..workers).flat_map(|worker| gaps(&of_round, worker, &sent)).collect();
    let mut waits = Waits { busy: busy(&of_round, workers), ..Waits::default() };
    gaps.iter().for_each(|gap| waits.add_handing_over(gap, stalls));
    let before: HashMap<u64, &Gap> =
        gaps.iter().filter_map(|gap| Some((gap.next.as_ref()?.id, gap))).collect();
    for one in asked.iter().filter(|one| one.fast && one.is_answered()) {
        if let Some(own) = before.get(&one.id) {
            waits.add_wait(one, own, &gaps);
        }
    }
    waits
}

/// A time when a worker was idle.
#[derive(Debug, Clone, Copy)]
struct Gap {
    worker: usize,
    from_ns: u64,
    to_ns: u64,
    next: Option<Next>,
}

/// The request that ended a gap.
#[derive(Debug, Clone, Copy)]
struct Next {
    id: u64,
    sent_ns: u64,
}

/// When a worker was idle, from before the first request to after the last.
fn gaps(handled: &[Handled], worker: usize, sent: &HashMap<u64, u64>) -> Vec<Gap> {
    let mut own: Vec<&Handled> = handled.iter().filter(|one| one.worker == worker).collect();
    own.sort_by_key(|one| one.begin_ns);
    let mut from_ns = 0;
    let mut gaps = Vec::with_capacity(own.len() + 1);
    for one in own {
        let sent_ns = sent.get(&one.id).copied();
        let next = sent_ns.map(|sent_ns| Next { id: one.id, sent_ns });
        gaps.push(Gap { worker, from_ns, to_ns: one.begin_ns, next });
        from_ns = one.end_ns;
    }
    gaps.push(Gap { worker, from_ns, to_ns: u64::MAX, next: None });
    gaps
}

impl Gap {
    /// How long the worker was idle between two instants.
    fn within(&self, from_ns: u64, to_ns: u64) -> u64 {
        self.to_ns.min(to_ns).saturating_sub(self.from_ns.max(from_ns))
    }

    /// Since when the request that ended it was on its way; `None` if there was none.
    fn handing_over_since(&self) -> Option<u64> {
        self.next.map(|next| next.sent_ns.max(self.from_ns))
    }
}

impl Waits {
    fn add_handing_over(&mut self, gap: &Gap, stalls: &[Stall]) {
        let (Some(next), Some(since_ns)) = (gap.next, gap.handing_over_since()) else { return };
        let took_ns = gap.to_ns.saturating_sub(since_ns);
        let waited_already = next.sent_ns < gap.from_ns;
        let ms = took_ns as f64 / 1e6;
        if waited_already { &mut self.from_queue_ms } else { &mut self.to_idle_ms }.push(ms);
        if took_ns > PASSING_NS {
            self.late += 1;
            let meets = |stall: &Stall| stall.from_ns < gap.to_ns && stall.to_ns > since_ns;
            self.late_in_stall += usize::from(stalls.iter().any(meets));
        }
    }

    /// `own` is the time when the request's worker was idle before it.
    fn add_wait(&mut self, one: &Asked, own: &Gap, gaps: &[Gap]) {
        self.fast_ms.push(own.to_ns.saturating_sub(one.sent_ns) as f64 / 1e6);
        let beside = gaps.iter().any(|gap| gap.within(one.sent_ns, own.to_ns) > PASSING_NS);
        self.beside_idle += usize::from(beside);
        // Until then another request was in its worker; what comes after is handing over.
        let behind_until_ns = own.from_ns;
        let others = gaps.iter().filter(|gap| gap.worker != own.worker);
        let passed_over = others.filter_map(|gap| {
            // From when something else was on its way to that worker, it was not free.
            let free_until_ns = gap.handing_over_since().unwrap_or(u64::MAX).min(behind_until_ns);
            let ns = gap.within(one.sent_ns, free_until_ns);
            (ns > PASSING_NS).then_some(ns)
        });
        self.passed_over_ms.extend(passed_over.max().map(|ns| ns as f64 / 1e6));
    }
}

fn busy(handled: &[Handled], workers: usize) -> f64 {
    let inside: u64 = handled.iter().map(|v| v.end_ns.saturating_sub(v.begin_ns)).sum();
    let first = handled.iter().map(|v| v.begin_ns).min().unwrap_or(0);
    let last = handled.iter().map(|v| v.end_ns).max().unwrap_or(0);
    inside as f64 / (last.saturating_sub(first).max(1) as f64 * workers as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn asked(id: u64, sent_ms: u64, fast: bool) -> Asked {
        let sent_ns = sent_ms * MS;
        Asked { id, fast, due_ns: sent_ns, sent_ns, done_ns: sent_ns, status: Some(200) }
    }

    fn took(id: u64, worker: usize, begin_ms: u64, end_ms: u64) -> Handled {
        Handled { id, worker, begin_ns: begin_ms * MS, end_ns: end_ms * MS }
    }

    #[test]
    fn waiting_while_all_workers_are_busy_is_nobodys_fault() {
        let asked = [asked(1, 10, false), asked(2, 10, false), asked(3, 20, true)];
        let handled = [took(1, 0, 10, 210), took(2, 1, 10, 310), took(3, 0, 211, 213)];
        let waits = compare(&asked, &handled, 2, &[]);
        assert_eq!(waits.fast_ms, [191.0]);
        assert_eq!(waits.from_queue_ms, [1.0]);
        assert!(waits.passed_over_ms.is_empty());
        assert_eq!((waits.beside_idle, waits.late), (0, 0));
    }

    #[test]
    fn waiting_behind_a_slow_one_while_another_worker_is_idle_is_being_passed_over() {
        let asked = [asked(1, 10, false), asked(2, 20, true), asked(3, 150, true)];
        let handled = [took(1, 0, 10, 210), took(2, 0, 210, 212), took(3, 1, 150, 152)];
        let waits = compare(&asked, &handled, 2, &[]);
        assert_eq!(waits.passed_over_ms, [130.0]);
        assert_eq!((waits.beside_idle, waits.late), (1, 0));
    }

    #[test]
    fn a_request_that_comes_late_to_an_idle_worker_was_on_its_way() {
        let asked = [asked(1, 10, true), asked(2, 100, true)];
        let handled = [took(1, 0, 15, 17), took(2, 1, 100, 102)];
        let stalls = [Stall { from_ns: 12 * MS, to_ns: 14 * MS }];
        let waits = compare(&asked, &handled, 2, &stalls);
        assert!(waits.passed_over_ms.is_empty());
        assert_eq!(waits.to_idle_ms, [5.0, 0.0]);
        assert_eq!((waits.beside_idle, waits.late, waits.late_in_stall), (1, 1, 1));
    }

    #[test]
    fn waiting_while_another_request_comes_late_to_its_worker_is_not_being_passed_over() {
        let asked = [asked(1, 0, false), asked(2, 10, false), asked(3, 11, true)];
        let handled = [took(1, 0, 0, 200), took(2, 1, 20, 220), took(3, 0, 200, 202)];
        let waits = compare(&asked, &handled, 2, &[]);
        assert!(waits.passed_over_ms.is_empty());
        assert_eq!((waits.beside_idle, waits.late), (1, 1));
    }

    #[test]
    fn the_part_of_the_time_inside_the_app_is_of_all_workers() {
        let asked = [asked(1, 0, true), asked(2, 0, true)];
        let waits = compare(&asked, &[took(1, 0, 0, 100), took(2, 1, 50, 100)], 2, &[]);
        assert!((waits.busy - 0.75).abs() < 1e-9);
    }
}

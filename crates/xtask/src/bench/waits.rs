//! The proof: did a fast request wait while a worker was idle?
//!
//! A request waits from the instant when the client sends it to the instant when the app
//! begins. A worker is idle while no request is inside its app, as the workers themselves
//! wrote down. Passing a request on takes time too, and meanwhile its worker is idle: so
//! only what lasts longer than [`PASSING_NS`] counts.

use std::collections::HashMap;

use super::client::Asked;
use super::mixed::Visit;
use super::stalls::Stall;

/// A worker may be idle this long while a request waits: the request is on its way.
pub const PASSING_NS: u64 = 2_000_000;

/// A fast request that waited while a worker was idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overlap {
    /// The request.
    pub id: u64,
    /// How long both lasted at the same time, nanoseconds.
    pub ns: u64,
    /// What the idle worker was doing.
    pub why: Why,
    /// The machine stood still meanwhile: the noise watch woke late as well.
    pub in_stall: bool,
}

/// Why a worker was idle while a request waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Nothing that it began next had been sent yet: the request was kept from it.
    PassedOver,
    /// What it began next had been sent already: this was on its way, and came late.
    OnItsWay,
}

/// What the waiting of one round was like.
#[derive(Debug, Default)]
pub struct Waits {
    /// How long each fast request waited, milliseconds.
    pub fast_ms: Vec<f64>,
    /// Fast requests that waited while a worker was idle for longer than it takes to
    /// pass a request on: for each its longest overlap.
    pub overlaps: Vec<Overlap>,
    /// The longest overlap of all fast requests, milliseconds.
    pub longest_ms: f64,
    /// Which part of the workers' time was spent inside the app, 0 to 1.
    pub busy: f64,
}

/// Compares when requests waited with when workers were idle.
pub fn compare(asked: &[Asked], visits: &[Visit], workers: usize, stalls: &[Stall]) -> Waits {
    let sent: HashMap<u64, u64> = asked.iter().map(|one| (one.id, one.sent_ns)).collect();
    let of_round: Vec<Visit> =
        visits.iter().filter(|v| sent.contains_key(&v.id)).copied().collect();
    let idle: Vec<Gap> = (0..workers).flat_map(|worker| gaps(&of_round, worker, &sent)).collect();
    let begun: HashMap<u64, u64> = of_round.iter().map(|v| (v.id, v.begin_ns)).collect();
    let mut waits = Waits { busy: busy(&of_round, workers), ..Waits::default() };
    for one in asked.iter().filter(|one| one.fast && one.is_answered()) {
        let Some(&begin_ns) = begun.get(&one.id) else { continue };
        waits.fast_ms.push(begin_ns.saturating_sub(one.sent_ns) as f64 / 1e6);
        let Some(mut overlap) = longest(one, begin_ns, &idle) else { continue };
        waits.longest_ms = waits.longest_ms.max(overlap.ns as f64 / 1e6);
        if overlap.ns > PASSING_NS {
            let meets = |s: &&Stall| s.from_ns < begin_ns && s.to_ns > one.sent_ns;
            overlap.in_stall = stalls.iter().any(|s| meets(&s));
            waits.overlaps.push(overlap);
        }
    }
    waits
}

/// A time when a worker was idle.
#[derive(Debug, Clone, Copy)]
struct Gap {
    from_ns: u64,
    to_ns: u64,
    /// When the request that ended it was sent; `None` when there was none.
    next_sent_ns: Option<u64>,
}

/// When a worker was idle, from before the first request to after the last.
fn gaps(visits: &[Visit], worker: usize, sent: &HashMap<u64, u64>) -> Vec<Gap> {
    let mut own: Vec<&Visit> = visits.iter().filter(|visit| visit.worker == worker).collect();
    own.sort_by_key(|visit| visit.begin_ns);
    let mut from_ns = 0;
    let mut gaps = Vec::with_capacity(own.len() + 1);
    for visit in own {
        let next_sent_ns = sent.get(&visit.id).copied();
        gaps.push(Gap { from_ns, to_ns: visit.begin_ns, next_sent_ns });
        from_ns = visit.end_ns;
    }
    gaps.push(Gap { from_ns, to_ns: u64::MAX, next_sent_ns: None });
    gaps
}

/// The longest time that a request waited while one and the same worker was idle. A gap
/// that shows that the request was passed over counts before any other.
fn longest(one: &Asked, begin_ns: u64, idle: &[Gap]) -> Option<Overlap> {
    let overlaps = idle.iter().filter_map(|gap| {
        let from_ns = gap.from_ns.max(one.sent_ns);
        let ns = gap.to_ns.min(begin_ns).checked_sub(from_ns).filter(|ns| *ns > 0)?;
        let on_its_way = gap.next_sent_ns.is_some_and(|sent| sent <= from_ns + PASSING_NS);
        let why = if on_its_way { Why::OnItsWay } else { Why::PassedOver };
        Some(Overlap { id: one.id, ns, why, in_stall: false })
    });
    overlaps.max_by_key(|overlap| {
        let counts = overlap.ns > PASSING_NS;
        (counts, counts && overlap.why == Why::PassedOver, overlap.ns)
    })
}

fn busy(visits: &[Visit], workers: usize) -> f64 {
    let inside: u64 = visits.iter().map(|v| v.end_ns.saturating_sub(v.begin_ns)).sum();
    let first = visits.iter().map(|v| v.begin_ns).min().unwrap_or(0);
    let last = visits.iter().map(|v| v.end_ns).max().unwrap_or(0);
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

    fn visit(id: u64, worker: usize, begin_ms: u64, end_ms: u64) -> Visit {
        Visit { id, worker, begin_ns: begin_ms * MS, end_ns: end_ms * MS }
    }

    #[test]
    fn waiting_while_all_workers_are_busy_is_no_overlap() {
        let asked = [asked(1, 10, false), asked(2, 10, false), asked(3, 20, true)];
        let visits = [visit(1, 0, 10, 210), visit(2, 1, 10, 310), visit(3, 0, 211, 213)];
        let waits = compare(&asked, &visits, 2, &[]);
        assert_eq!(waits.overlaps, []);
        assert_eq!(waits.fast_ms, [191.0]);
        assert_eq!(waits.longest_ms, 1.0);
    }

    #[test]
    fn waiting_behind_a_slow_one_while_another_worker_is_idle_is_being_passed_over() {
        let asked = [asked(1, 10, false), asked(2, 20, true), asked(3, 150, true)];
        let visits = [visit(1, 0, 10, 210), visit(2, 0, 210, 212), visit(3, 1, 150, 152)];
        let waits = compare(&asked, &visits, 2, &[]);
        let found = Overlap { id: 2, ns: 130 * MS, why: Why::PassedOver, in_stall: false };
        assert_eq!(waits.overlaps, [found]);
    }

    #[test]
    fn a_request_that_comes_late_to_its_own_worker_was_on_its_way() {
        let asked = [asked(1, 10, true)];
        let stalls = [Stall { from_ns: 12 * MS, to_ns: 14 * MS }];
        let waits = compare(&asked, &[visit(1, 0, 15, 17)], 1, &stalls);
        let found = Overlap { id: 1, ns: 5 * MS, why: Why::OnItsWay, in_stall: true };
        assert_eq!(waits.overlaps, [found]);
    }

    #[test]
    fn the_part_of_the_time_inside_the_app_is_of_all_workers() {
        let asked = [asked(1, 0, true), asked(2, 0, true)];
        let waits = compare(&asked, &[visit(1, 0, 0, 100), visit(2, 1, 50, 100)], 2, &[]);
        assert!((waits.busy - 0.75).abs() < 1e-9);
    }
}

//! The counters of a lane.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::counts::Counts;

/// The counters of a lane. Only its thread writes them, except `connections`.
#[derive(Default)]
#[repr(align(64))]
pub struct Gauge {
    /// Client connections given to it and not closed yet.
    pub connections: AtomicU64,
    requests: AtomicU64,
    busy: AtomicU64,
    under_way: AtomicU64,
    /// Its requests by app.
    pub counts: Mutex<Counts>,
}

impl Gauge {
    /// Requests answered.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Requests being read or answered now.
    pub fn busy(&self) -> u64 {
        self.busy.load(Ordering::Relaxed)
    }

    /// Requests to apps that are under way.
    pub fn under_way(&self) -> u64 {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Counts a request to an app until the returned value is dropped.
    pub fn begin_under_way(&self) -> UnderWay<'_> {
        Self::add(&self.under_way, 1);
        UnderWay(self)
    }

    /// Counts a request as in work until the returned value is dropped.
    pub fn begin_request(&self) -> InWork<'_> {
        Self::add(&self.busy, 1);
        InWork(self)
    }

    /// Adds to a counter that only this thread writes: no locked instruction is needed.
    fn add(counter: &AtomicU64, by: u64) {
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
    }
}

/// A request in work; counted as answered when this is dropped.
pub struct InWork<'a>(&'a Gauge);

impl Drop for InWork<'_> {
    fn drop(&mut self) {
        Gauge::add(&self.0.busy, 1u64.wrapping_neg());
        Gauge::add(&self.0.requests, 1);
    }
}

/// A request to an app, until this is dropped.
pub struct UnderWay<'a>(&'a Gauge);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        Gauge::add(&self.0.under_way, 1u64.wrapping_neg());
    }
}

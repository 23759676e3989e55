//! What keeps the requests of an app from its workers while it is in maintenance.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::Context;

use mfserv_core::maintenance::Maintenance;
use mfserv_platform::sync::lock;

use super::Upstream;
use crate::embedded::io::signal::{Signal, Subscription};

const OPEN: u8 = 0;
const HOLDS: u8 = 1;
const SHUT: u8 = 2;

/// Open, unless the app is in maintenance.
#[derive(Debug, Default)]
pub struct Gate {
    state: AtomicU8,
    /// Raised unless requests are held: wakes those that wait. Only they lock it.
    lets_go: Arc<Signal>,
    waiting: AtomicU64,
}

impl Upstream {
    /// Its app is in maintenance, or not any more. Requests that no worker has begun with come back to
    /// the gate: when this returns, workers get none.
    pub fn set_maintenance(&self, maintenance: Option<Maintenance>) {
        // First: whoever asks for a slot after this is sent to the gate.
        self.gate.set(maintenance);
        if maintenance.is_some() {
            let mut inner = lock(&self.inner);
            inner.send_away();
            inner.empty_queue();
        }
    }

    /// The node is stopping: nobody waits for the end of maintenance.
    pub fn end_hold(&self) {
        if self.gate.maintenance() == Some(Maintenance::Hold) {
            self.set_maintenance(Some(Maintenance::Shut));
        }
    }
}

impl Gate {
    /// The gate of an app that is in maintenance, or not.
    pub fn new(maintenance: Option<Maintenance>) -> Self {
        let gate = Self::default();
        gate.set(maintenance);
        gate
    }

    /// In maintenance, or not any more.
    pub fn set(&self, maintenance: Option<Maintenance>) {
        let state = match maintenance {
            None => OPEN,
            Some(Maintenance::Hold) => HOLDS,
            Some(Maintenance::Shut) => SHUT,
        };
        self.state.store(state, Ordering::Release);
        match state {
            HOLDS => self.lets_go.lower(),
            _ => self.lets_go.raise(),
        }
    }

    /// What is done with a request that comes now.
    pub fn maintenance(&self) -> Option<Maintenance> {
        match self.state.load(Ordering::Acquire) {
            HOLDS => Some(Maintenance::Hold),
            SHUT => Some(Maintenance::Shut),
            _ => None,
        }
    }

    /// A place before the gate; `None` if there are `most` already.
    pub fn wait(&self, most: u32) -> Option<Held<'_>> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let held = Held { gate: self, lets_go: Subscription::new(self.lets_go.clone()) };
        (before < u64::from(most)).then_some(held)
    }

    /// How many requests wait before it.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }
}

/// A request before the gate.
pub struct Held<'g> {
    gate: &'g Gate,
    lets_go: Subscription,
}

impl Held<'_> {
    /// True once it need not wait any more; else the calling task is woken then.
    pub fn may_go(&mut self, cx: &Context<'_>) -> bool {
        // A new one: the gate may have been open for a moment, which has used the last one up.
        self.lets_go = Subscription::new(self.gate.lets_go.clone());
        self.lets_go.is_raised(cx)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.gate.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

//! Deadlines of a connection, and bells that many connections listen for.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use mfserv_platform::sync::lock;
use tokio::time::{Instant, Sleep};

/// The one timer of a connection. It is set again only when it would ring too late, so
/// that a deadline which moves with every read costs nothing.
pub struct Alarm(Pin<Box<Sleep>>);

impl Alarm {
    /// An alarm that is not set.
    pub fn new() -> Self {
        Self(Box::pin(tokio::time::sleep(Duration::ZERO)))
    }

    /// True if the deadline has passed; else the task is woken when it does.
    pub fn rings(&mut self, cx: &mut Context<'_>, deadline: Instant) -> bool {
        if self.0.is_elapsed() || self.0.deadline() > deadline {
            if Instant::now() >= deadline {
                return true;
            }
            self.0.as_mut().reset(deadline);
        }
        while self.0.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return true;
            }
            self.0.as_mut().reset(deadline);
        }
        false
    }
}

/// Something that happens once and concerns many: a worker is gone, the front ends.
#[derive(Debug, Default)]
pub struct Bell {
    rung: AtomicBool,
    listeners: Mutex<Listeners>,
}

#[derive(Debug, Default)]
struct Listeners {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Bell {
    /// Wakes all who listen.
    pub fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        let mut listeners = self.lock();
        let wakers: Vec<Waker> = listeners.wakers.iter_mut().filter_map(Option::take).collect();
        drop(listeners);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// It has not rung after all.
    pub fn quieten(&self) {
        self.rung.store(false, Ordering::Release);
    }

    /// It has rung.
    pub fn has_rung(&self) -> bool {
        self.rung.load(Ordering::Acquire)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Listeners> {
        lock(&self.listeners)
    }
}

/// One who listens for a bell, until dropped.
#[derive(Debug)]
pub struct Ear {
    bell: Arc<Bell>,
    place: Option<usize>,
}

impl Ear {
    /// Listens once [`Ear::hears`] has been called.
    pub fn new(bell: Arc<Bell>) -> Self {
        Self { bell, place: None }
    }

    /// True if the bell has rung; else the task is woken when it does. To be used by
    /// one task only.
    pub fn hears(&mut self, cx: &Context<'_>) -> bool {
        if self.bell.has_rung() {
            return true;
        }
        if self.place.is_none() {
            let mut listeners = self.bell.lock();
            let waker = Some(cx.waker().clone());
            self.place = Some(match listeners.free.pop() {
                Some(place) => {
                    listeners.wakers[place] = waker;
                    place
                }
                None => {
                    listeners.wakers.push(waker);
                    listeners.wakers.len() - 1
                }
            });
            drop(listeners);
        }
        self.bell.has_rung()
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            let mut listeners = self.bell.lock();
            listeners.wakers[place] = None;
            listeners.free.push(place);
        }
    }
}

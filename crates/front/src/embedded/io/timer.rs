//! The one timer of a connection.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// A timer for deadlines that move. The runtime's timer is set again only when it would
/// fire too late, so that a deadline which moves with every read costs nothing.
pub struct Timer(Pin<Box<Sleep>>);

impl Timer {
    /// A timer that is not set.
    pub fn new() -> Self {
        Self(Box::pin(tokio::time::sleep(Duration::ZERO)))
    }

    /// True if the deadline has passed; else the calling task is woken when it does.
    pub fn has_passed(&mut self, cx: &mut Context<'_>, deadline: Instant) -> bool {
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

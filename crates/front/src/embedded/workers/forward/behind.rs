//! A request that was given to a busy worker: it stands there behind short ones, and is taken back
//! if one of these turns out to be long: at once if another worker has nothing to do, else a little
//! later, to wait for one before all that came after it.

use std::task::Context;
use std::time::Duration;

use tokio::time::Instant;

use crate::embedded::clients::exchange::Exchange;
use crate::embedded::workers::upstream::{Slot, Standing};

/// A worker that has been with one request for so long is suspected.
const FIRST_LOOK: Duration = Duration::from_millis(2);
/// It is looked at again so much later: the front itself may have been late to read an answer.
const SECOND_LOOK: Duration = Duration::from_millis(1);

/// It waits no longer behind one request if no other worker is free, either: those that are not free
/// may be so soon.
const TAKEN_BACK_AFTER: Duration = Duration::from_millis(20);

/// Such a request, as long as nothing of its answer has come.
pub struct Behind {
    look_at: Instant,
    is_suspected: bool,
    /// It waits for its answer or for a free worker, whichever comes first.
    is_stuck: bool,
}

/// What was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// The worker has it, since then.
    Begun(Instant),
    /// It stands behind others.
    Waits,
    /// It stands behind a long one.
    TakeBack,
}

impl Behind {
    /// If the worker was busy when it was given the request.
    pub fn of(slot: &Slot) -> Option<Self> {
        let look_at = slot.since() + FIRST_LOOK;
        slot.is_behind().then_some(Self { look_at, is_suspected: false, is_stuck: false })
    }

    /// Looks how long its worker has been with one request; the calling task is woken when there
    /// is more to see.
    pub fn look(&mut self, cx: &mut Context<'_>, exchange: &mut Exchange<'_>, slot: &Slot) -> Look {
        // The one that is stuck is woken for both.
        while exchange.has_passed(cx, self.look_at) || self.is_stuck {
            let (progress, another_is_free) = match slot.standing(cx.waker()) {
                Standing::First(since) => return Look::Begun(since),
                Standing::Behind { progress, another_is_free } => (progress, another_is_free),
            };
            let now = Instant::now();
            if now < progress + FIRST_LOOK {
                *self =
                    Self { look_at: progress + FIRST_LOOK, is_suspected: false, is_stuck: false };
            } else if !self.is_suspected {
                (self.look_at, self.is_suspected) = (now + SECOND_LOOK, true);
            } else if another_is_free || now >= progress + TAKEN_BACK_AFTER {
                return Look::TakeBack;
            } else {
                (self.look_at, self.is_stuck) = (progress + TAKEN_BACK_AFTER, true);
                if !exchange.has_passed(cx, self.look_at) {
                    break;
                }
            }
        }
        Look::Waits
    }
}

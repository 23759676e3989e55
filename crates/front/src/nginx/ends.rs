//! Processes of nginx that have ended although nobody has asked them to, for the daemon.

use std::cell::RefCell;
use std::collections::VecDeque;

use mfserv_core::wire::front::FromFront;
use tokio::sync::Notify;

/// While no daemon is there, so many are remembered; the oldest of more are forgotten.
const REMEMBERED: usize = 32;

/// What the daemon does not know yet.
#[derive(Default)]
pub struct Ends {
    unsaid: RefCell<VecDeque<FromFront>>,
    is_new: Notify,
}

impl Ends {
    /// A process has ended.
    pub fn report(&self, end: FromFront) {
        let mut unsaid = self.unsaid.borrow_mut();
        if unsaid.len() == REMEMBERED {
            unsaid.pop_front();
        }
        unsaid.push_back(end);
        self.is_new.notify_one();
    }

    /// Waits for the next one.
    pub async fn next(&self) -> FromFront {
        loop {
            let next = self.unsaid.borrow_mut().pop_front();
            match next {
                Some(next) => return next,
                None => self.is_new.notified().await,
            }
        }
    }
}

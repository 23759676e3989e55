//! Processes of nginx that have ended although nobody has asked them to, for the daemon.

use std::cell::RefCell;
use std::collections::VecDeque;

use mfserv_core::event::NginxEnd;
use tokio::sync::Notify;

/// While no daemon is there, so many are remembered; the oldest of more are forgotten.
const REMEMBERED: usize = 32;

/// What the daemon does not know yet.
#[derive(Default)]
pub struct Ends {
    unsaid: RefCell<VecDeque<NginxEnd>>,
    is_new: Notify,
}

/// An end of which a daemon is being told. If this is dropped before that was done, it is told
/// again, perhaps to another daemon.
pub struct Telling<'a> {
    ends: &'a Ends,
    end: Option<NginxEnd>,
}

impl Telling<'_> {
    /// What is to be told.
    pub fn end(&self) -> Option<NginxEnd> {
        self.end.clone()
    }

    /// The daemon was told.
    pub fn succeeded(mut self) {
        self.end = None;
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        let mut unsaid = self.ends.unsaid.borrow_mut();
        // It is the oldest one.
        if let Some(end) = self.end.take().filter(|_| unsaid.len() < REMEMBERED) {
            unsaid.push_front(end);
            self.ends.is_new.notify_one();
        }
    }
}

impl Ends {
    /// A process has ended.
    pub fn report(&self, end: NginxEnd) {
        let mut unsaid = self.unsaid.borrow_mut();
        if unsaid.len() == REMEMBERED {
            unsaid.pop_front();
        }
        unsaid.push_back(end);
        self.is_new.notify_one();
    }

    /// Waits for the next one.
    pub async fn next(&self) -> Telling<'_> {
        loop {
            let next = self.unsaid.borrow_mut().pop_front();
            match next {
                Some(end) => return Telling { ends: self, end: Some(end) },
                None => self.is_new.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mfserv_core::event::EndReason;

    use super::*;

    fn end(pid: u32) -> NginxEnd {
        let why = EndReason::Exited { code: 0 };
        NginxEnd { pid, is_worker: true, is_leaving: false, why }
    }

    #[test]
    fn an_end_of_which_a_daemon_could_not_be_told_is_told_first_to_the_next_one() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let ends = Ends::default();
            (1..4).for_each(|pid| ends.report(end(pid)));
            ends.next().await.succeeded();
            let failed = ends.next().await;
            assert_eq!(failed.end(), Some(end(2)));
            drop(failed);
            for pid in [2, 3] {
                let told = ends.next().await;
                assert_eq!(told.end(), Some(end(pid)));
                told.succeeded();
            }
            // Where there is none, the one that comes back is waited for.
            ends.report(end(4));
            let failed = ends.next().await;
            let (next, ()) = tokio::join!(ends.next(), async { drop(failed) });
            assert_eq!(next.end(), Some(end(4)));
        });
    }

    #[test]
    fn of_too_many_ends_the_oldest_are_forgotten_and_not_told_again() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let ends = Ends::default();
            ends.report(end(0));
            let failed = ends.next().await;
            (1..=REMEMBERED as u32 + 1).for_each(|pid| ends.report(end(pid)));
            drop(failed);
            assert_eq!(ends.next().await.end(), Some(end(2)));
        });
    }
}

//! The counters of all fronts, summed up for whoever asks.

use std::collections::BTreeSet;

use mfserv_core::names::WorkerId;
use mfserv_core::wire::front::Stats;
use tokio::sync::oneshot;

/// Sums that fronts have not completed yet.
#[derive(Default)]
pub struct Counting(Vec<Sum>);

struct Sum {
    number: u64,
    missing: BTreeSet<WorkerId>,
    sum: Stats,
    reply: oneshot::Sender<Stats>,
}

impl Counting {
    /// These fronts were asked for their counters.
    pub fn begin(
        &mut self,
        number: u64,
        missing: BTreeSet<WorkerId>,
        reply: oneshot::Sender<Stats>,
    ) {
        self.0.push(Sum { number, missing, sum: Stats::default(), reply });
        self.reply_where(|sum| sum.missing.is_empty());
    }

    /// A front answers in the order in which it is asked: its counters are for the oldest.
    pub fn add(&mut self, front: &WorkerId, stats: &Stats) {
        let asked = self.0.iter_mut().find(|sum| sum.missing.contains(front));
        let Some(asked) = asked else { return };
        asked.missing.remove(front);
        asked.sum.add(stats);
        self.reply_where(|sum| sum.missing.is_empty());
    }

    /// A front has gone.
    pub fn lost(&mut self, front: &WorkerId) {
        for sum in &mut self.0 {
            sum.missing.remove(front);
        }
        self.reply_where(|sum| sum.missing.is_empty());
    }

    /// The asker waits no longer.
    pub fn end(&mut self, number: u64) {
        self.reply_where(|sum| sum.number == number);
    }

    fn reply_where(&mut self, is_over: impl Fn(&Sum) -> bool) {
        for index in (0..self.0.len()).rev() {
            if is_over(&self.0[index]) {
                let over = self.0.remove(index);
                let _ = over.reply.send(over.sum);
            }
        }
    }
}

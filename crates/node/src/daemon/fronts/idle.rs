//! Which workers have nothing in hand, and which fronts do not answer that any more.

use std::collections::{BTreeMap, BTreeSet};

use mfserv_core::names::WorkerId;

/// A front hangs after so many beats with a question that it has not answered. Beats are
/// counted, not seconds: a machine that was paused has paused the front too.
const MISSES: u32 = 3;

/// What the fronts were asked and have not answered yet.
#[derive(Default)]
pub struct Questions {
    /// In the order in which they were asked. At most one for each beat and each look of the
    /// supervisor until a front that does not answer is replaced.
    open: Vec<Question>,
    missed: BTreeMap<WorkerId, u32>,
}

struct Question {
    /// The fronts that have not answered.
    missing: BTreeSet<WorkerId>,
    /// The workers that are idle by all answers so far; `None` before the first one.
    quiet: Option<BTreeMap<WorkerId, u64>>,
}

impl Questions {
    /// These fronts are asked.
    pub fn ask(&mut self, fronts: BTreeSet<WorkerId>) {
        if !fronts.is_empty() {
            self.open.push(Question { missing: fronts, quiet: None });
        }
    }

    /// A front has answered. Returns the workers that are idle for every front, if all have.
    pub fn answered(
        &mut self,
        front: &WorkerId,
        quiet: Vec<(WorkerId, u64)>,
    ) -> Option<Vec<(WorkerId, u64)>> {
        self.missed.remove(front);
        // A front answers in the order in which it is asked.
        let at = self.open.iter().position(|question| question.missing.contains(front))?;
        let question = &mut self.open[at];
        question.missing.remove(front);
        let own: BTreeMap<WorkerId, u64> = quiet.into_iter().collect();
        question.quiet = Some(match question.quiet.take() {
            None => own,
            Some(others) => both(others, &own),
        });
        let is_over = question.missing.is_empty();
        is_over.then(|| self.open.remove(at).quiet.unwrap_or_default().into_iter().collect())
    }

    /// A front has gone. What it holds is not known, so nothing is said about idle workers.
    pub fn lost(&mut self, front: &WorkerId) {
        self.missed.remove(front);
        self.open.retain(|question| !question.missing.contains(front));
    }

    /// A beat: returns the fronts that hang.
    pub fn beat(&mut self) -> BTreeSet<WorkerId> {
        let late = self.open.iter().flat_map(|question| question.missing.clone());
        for front in late.collect::<BTreeSet<_>>() {
            *self.missed.entry(front).or_default() += 1;
        }
        let hanging = self.missed.iter().filter(|(_, missed)| **missed >= MISSES);
        hanging.map(|(front, _)| front.clone()).collect()
    }
}

/// Idle by both answers: as long as by the one that knows of the later request.
fn both(one: BTreeMap<WorkerId, u64>, other: &BTreeMap<WorkerId, u64>) -> BTreeMap<WorkerId, u64> {
    let known = one.into_iter().filter_map(|(id, ms)| Some((ms.min(*other.get(&id)?), id)));
    known.map(|(ms, id)| (id, ms)).collect()
}

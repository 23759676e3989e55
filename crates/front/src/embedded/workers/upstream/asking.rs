//! Which slots a request may have: by what was learnt of its kind.

use std::time::Duration;

use mfserv_core::peers::{Kind, Kinds, Pace, Shape};
use mfserv_core::route::{Slots, UpstreamSpec};

/// What is known of a request that asks for a slot.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    kind: Option<Kind>,
    pub pace: Pace,
}

/// What is learnt of the requests of an app.
#[derive(Debug)]
pub(super) struct Learnt {
    /// `None` without a slow lane: it would be of no use.
    kinds: Option<Kinds>,
}

impl Learnt {
    /// Under this policy, with what is known.
    pub fn new(spec: &UpstreamSpec, known: Option<Kinds>) -> Self {
        // A request that waits for its own worker waits for no other one.
        let has_slow_lane =
            spec.slots != Slots::Unlimited && spec.slow_lane_wait_ms > 0 && spec.affinity.is_none();
        Self { kinds: has_slow_lane.then(|| known.unwrap_or_default()) }
    }

    pub fn set_spec(&mut self, spec: &UpstreamSpec) {
        *self = Self::new(spec, self.kinds.take());
    }

    /// Whether slow requests leave the last slot to the others.
    pub fn has_slow_lane(&self) -> bool {
        self.kinds.is_some()
    }

    pub fn look_at(&mut self, shape: Shape<'_>) -> Asked {
        match &mut self.kinds {
            Some(kinds) => {
                let (kind, pace) = kinds.of(shape);
                Asked { kind: Some(kind), pace }
            }
            None => Asked { kind: None, pace: Pace::Ordinary },
        }
    }

    pub fn learn(&mut self, asked: &Asked, held: Duration, is_over: bool) {
        if let (Some(kinds), Some(kind)) = (&mut self.kinds, &asked.kind) {
            kinds.learn(kind, held, is_over);
        }
    }

    pub fn slow_kinds(&self) -> Vec<String> {
        self.kinds.as_ref().map(Kinds::slow).unwrap_or_default()
    }
}

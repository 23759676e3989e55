//! Which slots a request may have: by what it is, and by what was learnt of its kind.

use std::time::Duration;

use mfserv_core::peers::{Kind, Kinds, Pace, Shape, Ticket};
use mfserv_core::route::{Slots, UpstreamSpec};

/// A request that asks for a slot.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'r> {
    /// Its method and path.
    pub shape: Shape<'r>,
    /// It keeps a worker no longer than others of its kind: no body to speak of, no other protocol.
    pub is_plain: bool,
    /// It can be asked again whatever has become of it.
    pub is_safe: bool,
    /// Its ticket, if it was taken back from a worker at which it had waited.
    pub taken_back: Option<Ticket>,
}

/// What is known of it.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub kind: Option<Kind>,
    pub pace: Pace,
}

/// What is learnt of the requests of an app, and of what use that is.
#[derive(Debug)]
pub(super) struct Learnt {
    /// `None` if it is of none.
    kinds: Option<Kinds>,
    has_slow_lane: bool,
    has_depth: bool,
}

impl Learnt {
    /// Under this policy, with what is known.
    pub fn new(spec: &UpstreamSpec, known: Option<Kinds>) -> Self {
        let has_slow_lane = spec.slots != Slots::Unlimited && spec.slow_lane_wait_ms > 0;
        let has_depth = spec.slots == (Slots::Finite { per_worker: 1 }) && spec.depth > 1;
        let is_of_use = has_slow_lane || has_depth;
        let kinds = is_of_use.then(|| known.unwrap_or_default());
        Self { kinds, has_slow_lane, has_depth }
    }

    pub fn set_spec(&mut self, spec: &UpstreamSpec) {
        *self = Self::new(spec, self.kinds.take());
    }

    /// Whether slow requests leave the last slot to the others.
    pub fn has_slow_lane(&self) -> bool {
        self.has_slow_lane
    }

    pub fn look_at(&mut self, ask: Ask<'_>) -> Asked {
        let Some(kinds) = &mut self.kinds else {
            return Asked { kind: None, pace: Pace::Ordinary };
        };
        let (kind, pace) = kinds.of(ask.shape);
        let short_us = kinds.short_us(&kind).filter(|_| self.has_depth && ask.is_plain);
        let pace = match (pace, short_us) {
            _ if ask.taken_back.is_some() => Pace::Ordinary,
            (Pace::Slow, _) if self.has_slow_lane => Pace::Slow,
            (_, Some(expected_us)) => Pace::Short { expected_us, may_wait_at_worker: ask.is_safe },
            _ => Pace::Ordinary,
        };
        Asked { kind: Some(kind), pace }
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

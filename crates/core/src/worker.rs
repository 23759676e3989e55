//! The life of a worker, as one table.
//!
//! A worker is one incarnation: it is started once and ends once. What is wanted
//! of it ([`Want`]) is kept apart from where it is ([`Phase`]). [`step`] is a pure
//! function; somebody else carries out the [`Effect`], and gives each phase its
//! patience (after which it says [`Input::Timeout`]).

use serde::{Deserialize, Serialize};

/// Where a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Not started yet, or ended.
    Down,
    /// Its process lives and is not known to be ready.
    Starting,
    /// Ready: it receives requests.
    Ready,
    /// It receives no new request and finishes those it holds.
    Draining,
    /// It was asked to end.
    Stopping,
    /// It was told to end (SIGKILL).
    Killing,
    /// Its start waits, because the one before it in this slot crashed.
    Backoff,
}

impl Phase {
    /// All of them.
    pub const ALL: [Phase; 7] = [
        Phase::Down,
        Phase::Starting,
        Phase::Ready,
        Phase::Draining,
        Phase::Stopping,
        Phase::Killing,
        Phase::Backoff,
    ];

    /// A process exists in this phase.
    pub fn has_process(self) -> bool {
        !matches!(self, Phase::Down | Phase::Backoff)
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Phase::Down => "down",
            Phase::Starting => "starting",
            Phase::Ready => "ready",
            Phase::Draining => "draining",
            Phase::Stopping => "stopping",
            Phase::Killing => "killing",
            Phase::Backoff => "backoff",
        })
    }
}

/// What is asked of a worker's slot once this worker has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Want {
    /// Somebody must do its work: if it ends, another one is started.
    Up,
    /// It is not needed any more.
    Down,
}

/// What happens to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Start it now.
    Start,
    /// Its probe succeeded.
    Ready,
    /// It is not to serve any longer.
    Stop,
    /// It is to be replaced by a fresh one.
    Recycle,
    /// Its process has ended.
    Exited,
    /// It holds no request any more.
    Drained,
    /// The patience of its phase is over.
    Timeout,
}

impl Input {
    /// All of them.
    pub const ALL: [Input; 7] = [
        Input::Start,
        Input::Ready,
        Input::Stop,
        Input::Recycle,
        Input::Exited,
        Input::Drained,
        Input::Timeout,
    ];
}

/// What is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Nothing,
    /// Start its process and probe it.
    Spawn,
    /// Give it traffic.
    Admit,
    /// Give it no more traffic; say `Drained` when it holds nothing.
    Drain,
    /// Send its stop signal.
    Signal,
    /// Kill it and all that it started.
    Kill,
    /// Start a replacement beside it; it goes on until that one is ready.
    Replace,
    /// It has ended and is needed: start another one in its slot.
    Restart,
    /// It has ended for good: forget it.
    Gone,
}

/// The table: where a worker goes from `phase` when `input` happens, and what is
/// to be done. `want` only matters where a worker ends.
pub fn step(phase: Phase, want: Want, input: Input) -> (Phase, Effect) {
    use Effect as E;
    use Input as I;
    use Phase as P;
    let ended = match want {
        Want::Up => (P::Down, E::Restart),
        Want::Down => (P::Down, E::Gone),
    };
    match (phase, input) {
        (P::Down | P::Backoff, I::Start) => (P::Starting, E::Spawn),
        (P::Backoff, I::Timeout) => (P::Starting, E::Spawn),
        (P::Down | P::Backoff, I::Stop) => (P::Down, E::Gone),
        (P::Down | P::Backoff, _) => (phase, E::Nothing),

        (_, I::Exited) => ended,
        (_, I::Start) => (phase, E::Nothing),

        (P::Starting, I::Ready) => (P::Ready, E::Admit),
        (P::Starting, I::Stop | I::Recycle) => (P::Stopping, E::Signal),
        (P::Starting, I::Timeout) => (P::Killing, E::Kill),
        (P::Starting, I::Drained) => (P::Starting, E::Nothing),

        (P::Ready, I::Stop) => (P::Draining, E::Drain),
        (P::Ready, I::Recycle) => (P::Ready, E::Replace),
        (P::Ready, I::Ready | I::Drained | I::Timeout) => (P::Ready, E::Nothing),

        (P::Draining, I::Drained | I::Timeout) => (P::Stopping, E::Signal),
        (P::Draining, I::Ready | I::Stop | I::Recycle) => (P::Draining, E::Nothing),

        (P::Stopping, I::Timeout) => (P::Killing, E::Kill),
        (P::Stopping, I::Ready | I::Stop | I::Recycle | I::Drained) => (P::Stopping, E::Nothing),

        (P::Killing, I::Timeout) => (P::Killing, E::Kill),
        (P::Killing, I::Ready | I::Stop | I::Recycle | I::Drained) => (P::Killing, E::Nothing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Effect as E;
    use Phase as P;

    /// Every cell, written down a second time as a picture: rows are phases,
    /// columns the inputs in the order of [`Input::ALL`].
    #[rustfmt::skip]
    const WANTED_UP: [(Phase, [(Phase, Effect); 7]); 7] = [
        //             Start                   Ready                   Stop                     Recycle                  Exited                 Drained                  Timeout
        (P::Down,     [(P::Starting, E::Spawn), (P::Down, E::Nothing), (P::Down, E::Gone), (P::Down, E::Nothing), (P::Down, E::Nothing), (P::Down, E::Nothing), (P::Down, E::Nothing)]),
        (P::Starting, [(P::Starting, E::Nothing), (P::Ready, E::Admit), (P::Stopping, E::Signal), (P::Stopping, E::Signal), (P::Down, E::Restart), (P::Starting, E::Nothing), (P::Killing, E::Kill)]),
        (P::Ready,    [(P::Ready, E::Nothing), (P::Ready, E::Nothing), (P::Draining, E::Drain), (P::Ready, E::Replace), (P::Down, E::Restart), (P::Ready, E::Nothing), (P::Ready, E::Nothing)]),
        (P::Draining, [(P::Draining, E::Nothing), (P::Draining, E::Nothing), (P::Draining, E::Nothing), (P::Draining, E::Nothing), (P::Down, E::Restart), (P::Stopping, E::Signal), (P::Stopping, E::Signal)]),
        (P::Stopping, [(P::Stopping, E::Nothing), (P::Stopping, E::Nothing), (P::Stopping, E::Nothing), (P::Stopping, E::Nothing), (P::Down, E::Restart), (P::Stopping, E::Nothing), (P::Killing, E::Kill)]),
        (P::Killing,  [(P::Killing, E::Nothing), (P::Killing, E::Nothing), (P::Killing, E::Nothing), (P::Killing, E::Nothing), (P::Down, E::Restart), (P::Killing, E::Nothing), (P::Killing, E::Kill)]),
        (P::Backoff,  [(P::Starting, E::Spawn), (P::Backoff, E::Nothing), (P::Down, E::Gone), (P::Backoff, E::Nothing), (P::Backoff, E::Nothing), (P::Backoff, E::Nothing), (P::Starting, E::Spawn)]),
    ];

    #[test]
    fn every_cell_of_the_table_is_what_is_written_here() {
        assert_eq!(WANTED_UP.map(|(phase, _)| phase).len(), Phase::ALL.len());
        for (phase, row) in WANTED_UP {
            for (input, (next, effect)) in Input::ALL.into_iter().zip(row) {
                assert_eq!(step(phase, Want::Up, input), (next, effect), "{phase:?} + {input:?}");
                let unwanted = if effect == E::Restart { E::Gone } else { effect };
                let cell = step(phase, Want::Down, input);
                assert_eq!(cell, (next, unwanted), "{phase:?} + {input:?}, not wanted");
            }
        }
    }

    #[test]
    fn stop_wins_from_every_phase() {
        for phase in Phase::ALL {
            let (mut at, mut effect) = step(phase, Want::Down, Input::Stop);
            for _ in 0..4 {
                if effect == E::Gone {
                    break;
                }
                let input = if at == P::Draining { Input::Timeout } else { Input::Exited };
                (at, effect) = step(at, Want::Down, input);
            }
            assert_eq!((at, effect), (P::Down, E::Gone), "from {phase:?}");
        }
    }

    #[test]
    fn traffic_is_given_only_between_admit_and_drain() {
        for phase in Phase::ALL {
            for input in Input::ALL {
                let (next, effect) = step(phase, Want::Up, input);
                assert_eq!(effect == E::Admit, phase != P::Ready && next == P::Ready);
                assert_eq!(effect == E::Drain, phase == P::Ready && next == P::Draining);
            }
        }
    }
}

//! Slow requests among fast ones, in an open loop, on workers that do one thing at a time.

use std::time::Duration;

use mfserv_core::Diagnostic;

use super::contestant::Contestant;
use super::row::Row;
use crate::bench::arrivals::{Arrival, Mix, perfect};
use crate::bench::client::{self, Asked};
use crate::bench::spread::percentile;
use crate::interrupt;

/// Workers of each contestant.
pub const WORKERS: u32 = 4;
/// What is asked of them.
const MIX: Mix =
    Mix { fast: Duration::from_millis(2), slow: Duration::from_millis(200), slow_share: 0.05 };
/// How much, divided by what the workers can do.
const LOAD: f64 = 0.7;
/// Each front is used for so long before anything is counted.
const WARM_UP: Duration = Duration::from_secs(2);
/// What is reported of the latencies.
pub const SHARES: [f64; 3] = [0.5, 0.99, 0.999];

/// What a turn has shown: latencies from the time when a request was due, milliseconds, at the
/// shares of [`SHARES`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Turn {
    /// Of the fast requests.
    pub fast_ms: [f64; 3],
    /// Of the slow ones.
    pub slow_ms: [f64; 3],
    /// Requests without a good answer.
    pub failed: u64,
}

/// A contestant's turns.
#[derive(Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// The turns that succeeded.
    pub turns: Vec<Turn>,
    /// Why it takes no part (any more).
    pub gave_up: Option<String>,
}

/// One table of the report.
#[derive(Debug)]
pub struct Case {
    /// The app.
    pub row: Row,
    /// Requests a second.
    pub rate: f64,
    /// The 50, 99 and 99.9 % of the fast requests in a perfect queue, by round, milliseconds.
    pub perfect: Vec<[f64; 3]>,
    /// The contestants, mfserv first.
    pub entries: Vec<Entry>,
}

/// Measures contestants (mfserv is the first), or what became of them instead.
pub fn measure(
    row: Row,
    (rounds, time): (u32, Duration),
    contestants: &[(String, Result<Contestant, String>)],
) -> Result<Case, Diagnostic> {
    let rate = f64::from(WORKERS) / MIX.mean_s() * LOAD;
    let entries = contestants.iter().map(|(name, contestant)| Entry {
        name: name.clone(),
        turns: Vec::new(),
        gave_up: contestant.as_ref().err().cloned(),
    });
    let mut case = Case { row, rate, perfect: Vec::new(), entries: entries.collect() };
    let warm_up = MIX.arrivals(0, rate, WARM_UP.min(time));
    for (_, contestant) in contestants {
        if let Ok(contestant) = contestant {
            ask(contestant, row, &warm_up)?;
        }
    }
    for round in 1..=rounds {
        let arrivals = MIX.arrivals(u64::from(round), rate, time);
        eprintln!("{}: round {round} of {rounds}", row.name());
        for (entry, (_, contestant)) in case.entries.iter_mut().zip(contestants) {
            let Ok(contestant) = contestant else { continue };
            if entry.gave_up.is_none() {
                match Turn::of(&ask(contestant, row, &arrivals)?) {
                    Some(turn) => entry.turns.push(turn),
                    None => entry.gave_up = Some("a kind of request was never answered".into()),
                }
            }
            interrupt::check()?;
        }
        case.perfect.extend(shares(perfect(&arrivals, WORKERS as usize)));
    }
    Ok(case)
}

fn ask(contestant: &Contestant, row: Row, arrivals: &[Arrival]) -> Result<Vec<Asked>, Diagnostic> {
    let path = &contestant.path;
    let target = |_: u64, arrival: &Arrival| {
        let kind = match row {
            Row::MixedOnePath => "any",
            _ if arrival.fast => "fast",
            _ => "slow",
        };
        format!("{path}{kind}?us={}", arrival.service.as_micros())
    };
    client::ask_all(contestant.address, &target, arrivals, 1)
}

impl Turn {
    /// Of what was asked; none if one of both kinds was never answered.
    fn of(asked: &[Asked]) -> Option<Self> {
        let latencies = |fast: bool| {
            let own = asked.iter().filter(|one| one.fast == fast && one.is_answered());
            own.map(Asked::latency_ms).collect::<Vec<f64>>()
        };
        let failed = asked.iter().filter(|one| !one.is_answered()).count() as u64;
        Some(Self { fast_ms: shares(latencies(true))?, slow_ms: shares(latencies(false))?, failed })
    }
}

fn shares(mut latencies: Vec<f64>) -> Option<[f64; 3]> {
    let [p50, p99, p999] = SHARES.map(|share| percentile(&mut latencies, share));
    Some([p50?, p99?, p999?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(id: u64, fast: bool, ms: u64, status: u16) -> Asked {
        let (due_ns, sent_ns) = (id, id);
        Asked { id, fast, due_ns, sent_ns, done_ns: id + ms * 1_000_000, status: Some(status) }
    }

    #[test]
    fn fast_and_slow_requests_have_latencies_of_their_own() {
        let mut all: Vec<Asked> = (1..=1000).map(|id| asked(id, true, id, 200)).collect();
        all.extend([asked(1001, false, 7000, 200), asked(1002, false, 1, 502)]);
        let turn = Turn::of(&all).unwrap();
        assert_eq!(turn.fast_ms, [500.0, 990.0, 999.0]);
        assert_eq!(turn.slow_ms, [7000.0; 3]);
        assert_eq!(turn.failed, 1);
        assert_eq!(Turn::of(&all[..1000]), None);
    }
}

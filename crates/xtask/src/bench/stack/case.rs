//! What is measured of one row with one number of workers, at saturation and at a moderate rate.

use std::time::Duration;

use mfserv_core::Diagnostic;

use super::contestant::{Contestant, Cpu};
use super::load::{Asked, Clients};
use super::row::Row;
use crate::bench::arrivals::{Arrival, Mix};
use crate::bench::spread::{Spread, percentile};
use crate::interrupt;

/// Before the first turn of each: compilers and caches of the apps have learnt by then.
const FIRST_WARM_UP: Duration = Duration::from_millis(500);
/// Before each turn, with the same requests.
const WARM_UP: Duration = Duration::from_millis(200);
/// The rate of the open loop, divided by what mfserv answers at saturation.
const MODERATE: f64 = 0.2;

/// How it is measured.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// Turns of each contestant.
    pub rounds: u32,
    /// How long a turn lasts.
    pub time: Duration,
    /// Connections of the clients.
    pub connections: usize,
}

/// What a turn has shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Turn {
    /// CPU time of a request, microseconds.
    pub cpu: Cpu,
    /// Good answers in a second.
    pub rate: f64,
    /// Latency that half of them do not exceed, milliseconds.
    pub p50_ms: f64,
    /// Latency that 99 % of them do not exceed, milliseconds.
    pub p99_ms: f64,
    /// Requests that failed.
    pub failed: u64,
}

impl Turn {
    /// From what was asked, and what it has cost; none if nothing was answered.
    pub fn of(mut asked: Asked, cpu: Cpu) -> Option<Self> {
        let answered = asked.latencies_ms.len() as f64;
        Some(Self {
            cpu: cpu.each(answered),
            rate: answered / asked.seconds,
            p50_ms: percentile(&mut asked.latencies_ms, 0.5)?,
            p99_ms: percentile(&mut asked.latencies_ms, 0.99)?,
            failed: asked.failed,
        })
    }
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

/// The load of a case.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Load {
    /// A closed loop.
    Saturation,
    /// An open loop of so many requests a second.
    Rate(f64),
}

/// One table of the report.
#[derive(Debug)]
pub struct Case {
    /// The app.
    pub row: Row,
    /// Workers of each contestant.
    pub workers: u32,
    /// The load.
    pub load: Load,
    /// The contestants, mfserv first.
    pub entries: Vec<Entry>,
}

/// Measures contestants (mfserv is the first), or what became of them instead, at both loads.
pub fn measure(
    measure: &Measure,
    (row, workers): (Row, u32),
    contestants: &[(String, Result<Contestant, String>)],
) -> Result<[Case; 2], Diagnostic> {
    let case = |load| Case { row, workers, load, entries: entries(contestants) };
    for (_, contestant) in contestants {
        if let Ok(contestant) = contestant {
            measure.warm_up(contestant, row)?;
        }
    }
    let mut saturated = case(Load::Saturation);
    measure.turns(&mut saturated, contestants)?;
    let own = saturated.entries.first();
    let rate = own.and_then(|own| Spread::of(own.turns.iter().map(|turn| turn.rate)));
    let Some(rate) = rate else {
        let why = own.and_then(|own| own.gave_up.clone()).unwrap_or_default();
        return Err(Diagnostic::error("mfserv was not measured").because(why));
    };
    let mut moderate = case(Load::Rate(rate.median * MODERATE));
    measure.turns(&mut moderate, contestants)?;
    Ok([saturated, moderate])
}

fn entries(contestants: &[(String, Result<Contestant, String>)]) -> Vec<Entry> {
    let entry = |(name, contestant): &(String, Result<Contestant, String>)| Entry {
        name: name.clone(),
        turns: Vec::new(),
        gave_up: contestant.as_ref().err().cloned(),
    };
    contestants.iter().map(entry).collect()
}

impl Measure {
    /// All turns of a case, the contestants alternating. One that fails takes no further part.
    fn turns(
        &self,
        case: &mut Case,
        contestants: &[(String, Result<Contestant, String>)],
    ) -> Result<(), Diagnostic> {
        for round in 1..=self.rounds {
            let what = match case.load {
                Load::Saturation => "saturation".to_string(),
                Load::Rate(rate) => format!("{rate:.0} requests a second"),
            };
            let (row, workers) = (case.row.name(), case.workers);
            eprintln!("{row}, {workers} workers, {what}: round {round} of {}", self.rounds);
            for (entry, (_, contestant)) in case.entries.iter_mut().zip(contestants) {
                let Ok(contestant) = contestant else { continue };
                if entry.gave_up.is_some() {
                    continue;
                }
                match self.turn(contestant, case.row, case.load, u64::from(round)) {
                    Ok(turn) => entry.turns.push(turn),
                    Err(why) => {
                        interrupt::check()?;
                        eprintln!("{}: {why}", entry.name);
                        entry.gave_up = Some(why.to_string());
                    }
                }
            }
        }
        Ok(())
    }

    fn warm_up(&self, contestant: &Contestant, row: Row) -> Result<(), Diagnostic> {
        let wanted = contestant.wanted(row.length(), self.connections);
        let clients = Clients::connect(contestant.address, &wanted);
        // What fails here fails in its turn, which says so.
        let _ = clients.and_then(|mut clients| clients.saturate(FIRST_WARM_UP));
        interrupt::check()
    }

    fn turn(
        &self,
        contestant: &Contestant,
        row: Row,
        load: Load,
        seed: u64,
    ) -> Result<Turn, Diagnostic> {
        let wanted = contestant.wanted(row.length(), self.connections);
        let mut clients = Clients::connect(contestant.address, &wanted)?;
        let mut ask = |seed: u64, time: Duration| match load {
            Load::Saturation => clients.saturate(time),
            Load::Rate(rate) => {
                let mix = Mix { fast: Duration::ZERO, slow: Duration::ZERO, slow_share: 0.0 };
                let mut arrivals = mix.arrivals(seed, rate, time);
                if arrivals.is_empty() {
                    // So short a turn has one request all the same.
                    arrivals.push(Arrival { at: time, service: Duration::ZERO, fast: true });
                }
                clients.keep_pace(&arrivals)
            }
        };
        // Another seed than that of any turn.
        ask(0, WARM_UP)?;
        let processes = contestant.processes.now();
        let before = processes.used()?;
        let asked = ask(seed, self.time)?;
        let cpu = processes.used()? - before;
        let failed = asked.failed;
        Turn::of(asked, cpu).ok_or_else(|| {
            Diagnostic::error(format!("{} answers nothing", contestant.name))
                .because(format!("{failed} requests failed"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_divides_by_good_answers_only() {
        let latencies_ms: Vec<f64> = (1..=100).map(f64::from).collect();
        let asked = Asked { latencies_ms, failed: 50, seconds: 0.5 };
        let turn = Turn::of(asked, Cpu { front: 1000.0, workers: 3000.0, rest: 0.0 }).unwrap();
        assert_eq!(turn.cpu, Cpu { front: 10.0, workers: 30.0, rest: 0.0 });
        assert_eq!((turn.rate, turn.p50_ms, turn.p99_ms, turn.failed), (200.0, 50.0, 99.0, 50));
    }

    #[test]
    fn a_turn_without_an_answer_is_none() {
        let asked = Asked { latencies_ms: Vec::new(), failed: 3, seconds: 1.0 };
        assert_eq!(Turn::of(asked, Cpu::default()), None);
    }
}

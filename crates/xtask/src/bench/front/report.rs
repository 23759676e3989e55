//! The tables of the report.

use mfserv_core::Diagnostic;

use super::{Contestant, Outcome, Round};
use crate::bench::spread::Spread;
use crate::process;

const MIB: f64 = 1024.0 * 1024.0;

/// Prints what the rounds have shown, and the memory that the fronts have now.
pub fn print(contestants: &[Contestant], outcomes: &[Outcome]) -> Result<(), Diagnostic> {
    println!("CPU time per request, microseconds: median of the rounds (least to most).\n");
    print_table(contestants, outcomes, |rounds, _| {
        let spread = Spread::of(rounds.iter().map(|round| round.cpu_us))?;
        Some(format!("{spread:.1}"))
    });
    println!("\nThe first divided by the others, round by round: median (least to most).\n");
    print_table(contestants, outcomes, |rounds, first| {
        let ratios = first.iter().zip(rounds).map(|(first, other)| first.cpu_us / other.cpu_us);
        let spread = Spread::of(ratios)?;
        Some(format!("{spread:.2}"))
    });
    println!("\nRequests in a second, on one core: median.\n");
    print_table(contestants, outcomes, |rounds, _| {
        let spread = Spread::of(rounds.iter().map(|round| round.rate))?;
        Some(format!("{:.0}", spread.median))
    });
    let failed = |index: usize| -> u64 {
        let rounds = outcomes.iter().filter_map(|outcome| outcome.rounds.get(index)).flatten();
        rounds.map(|round| round.failed).sum()
    };
    println!("\nAfter all of it:\n\n| | PSS MiB | requests failed |\n|---|---|---|");
    for (index, contestant) in contestants.iter().enumerate() {
        let pss = process::pss(&contestant.pids)? as f64 / MIB;
        println!("| {} | {pss:.1} | {} |", contestant.name, failed(index));
    }
    Ok(())
}

/// A line per case, a column per contestant; `cell` gets its rounds and the first one's.
fn print_table(
    contestants: &[Contestant],
    outcomes: &[Outcome],
    cell: impl Fn(&[Round], &[Round]) -> Option<String>,
) {
    let names: Vec<&str> = contestants.iter().map(|contestant| contestant.name).collect();
    println!("| | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
    for Outcome { case, rounds } in outcomes {
        let Some(first) = rounds.first() else { continue };
        let of = |rounds: &Vec<Round>| cell(rounds, first).unwrap_or_else(|| "-".into());
        let cells: Vec<String> = rounds.iter().map(of).collect();
        println!("| {case} | {} |", cells.join(" | "));
    }
}

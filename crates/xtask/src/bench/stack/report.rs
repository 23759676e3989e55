//! The tables, as Markdown and as JSON.

use serde_json::{Value, json};

use super::case::{Case, Load, Turn};
use super::mixed;
use crate::bench::spread::Spread;

/// All that was measured.
#[derive(Debug, Default)]
pub struct Report {
    /// What it was measured on.
    pub machine: String,
    /// The command that makes this report.
    pub command: String,
    /// What cannot be had here: what, and why.
    pub missing: Vec<(String, String)>,
    /// Tables of one kind.
    pub cases: Vec<Case>,
    /// Tables of the other kind.
    pub mixed: Vec<mixed::Case>,
}

/// How much of a long reason's beginning and of its end is printed, characters.
const REASON: usize = 150;

/// `12.3 [11.0-14.2]`: the middle of the rounds, the lowest and the highest.
fn cell(values: impl IntoIterator<Item = f64>, digits: usize) -> String {
    match Spread::of(values) {
        Some(Spread { least, median, most }) => {
            format!("{median:.digits$} [{least:.digits$}-{most:.digits$}]")
        }
        None => "-".into(),
    }
}

/// A reason as a part of a line: its beginning says what failed, its end mostly why.
fn one_line(why: &str) -> String {
    let words: Vec<&str> = why.split_whitespace().collect();
    let text: Vec<char> = words.join(" ").replace('|', "/").chars().collect();
    match text.len() <= 2 * REASON {
        true => text.iter().collect(),
        false => {
            let (begin, end) = (&text[..REASON], &text[text.len() - REASON..]);
            format!("{} … {}", begin.iter().collect::<String>(), end.iter().collect::<String>())
        }
    }
}

/// The first one's values divided by another's, round by round.
fn ratios(first: &[f64], other: &[f64]) -> Vec<f64> {
    first.iter().zip(other).map(|(first, other)| first / other).collect()
}

impl Report {
    /// Prints it as Markdown, or as JSON.
    pub fn print(&self, as_json: bool) {
        match as_json {
            true => println!("{:#}", self.json()),
            false => print!("{}", self.markdown()),
        }
    }

    fn markdown(&self) -> String {
        let mut text = format!("{}\n\n`{}`\n", self.machine, self.command);
        for (what, why) in &self.missing {
            let why = one_line(why);
            text += &format!("\n**CANNOT BE HAD HERE: {what}** ({why})\n");
        }
        text += "\nCells are medians of the rounds with [lowest-highest]; µs are CPU time of a \
                 request. `mfserv ÷ it` is the whole of the first row divided by that of this \
                 one, round by round: below 1, mfserv costs less.\n";
        text.extend(self.cases.iter().map(case_table));
        text.extend(self.mixed.iter().map(mixed_table));
        text
    }

    fn json(&self) -> Value {
        let missing: Vec<Value> =
            self.missing.iter().map(|(what, why)| json!({ "what": what, "why": why })).collect();
        json!({
            "machine": self.machine,
            "command": self.command,
            "missing": missing,
            "cases": self.cases.iter().map(case_json).collect::<Vec<_>>(),
            "mixed": self.mixed.iter().map(mixed_json).collect::<Vec<_>>(),
        })
    }
}

/// A column: its head, how many digits, and its value of a turn.
type Column = (&'static str, usize, fn(&Turn) -> f64);

const COLUMNS: [Column; 7] = [
    ("front µs", 1, |turn| turn.cpu.front),
    ("workers µs", 1, |turn| turn.cpu.workers),
    ("rest µs", 1, |turn| turn.cpu.rest),
    ("whole µs", 1, |turn| turn.cpu.whole()),
    ("answers/s", 0, |turn| turn.rate),
    ("p50 ms", 2, |turn| turn.p50_ms),
    ("p99 ms", 2, |turn| turn.p99_ms),
];

fn wholes(turns: &[Turn]) -> Vec<f64> {
    turns.iter().map(|turn| turn.cpu.whole()).collect()
}

fn case_table(case: &Case) -> String {
    let load = match case.load {
        Load::Saturation => "saturation".to_string(),
        Load::Rate(rate) => {
            format!("{rate:.0} requests a second, 20 % of what mfserv answers at saturation")
        }
    };
    let heads: Vec<&str> = COLUMNS.iter().map(|(head, ..)| *head).collect();
    let mut text = format!(
        "\n### {}, {} workers, {load}\n\n| | {} | mfserv ÷ it | failed |\n|---|{}\n",
        case.row.name(),
        case.workers,
        heads.join(" | "),
        "---|".repeat(COLUMNS.len() + 2)
    );
    let own = case.entries.first().map_or(Vec::new(), |own| wholes(&own.turns));
    for entry in &case.entries {
        if let Some(why) = &entry.gave_up {
            let why = one_line(why);
            text += &format!("| {} | **not measured**: {why} |\n", entry.name);
            continue;
        }
        let cells = COLUMNS.map(|(_, digits, of)| cell(entry.turns.iter().map(of), digits));
        let ratio = cell(ratios(&own, &wholes(&entry.turns)), 2);
        let failed: u64 = entry.turns.iter().map(|turn| turn.failed).sum();
        text += &format!("| {} | {} | {ratio} | {failed} |\n", entry.name, cells.join(" | "));
    }
    text
}

fn mixed_table(case: &mixed::Case) -> String {
    let mut text = format!(
        "\n### {}, {} workers, {:.0} requests a second\n\nMilliseconds from the due time to the \
         end of the answer; the ratios are p99 of the first row divided by that of this one.\n\n\
         | | fast p50 | fast p99 | fast p99.9 | slow p50 | slow p99 | slow p99.9 | mfserv ÷ it, \
         fast | mfserv ÷ it, slow | failed |\n|---|---|---|---|---|---|---|---|---|---|\n",
        case.row.name(),
        mixed::WORKERS,
        case.rate
    );
    let three =
        |of: &dyn Fn(usize) -> Vec<f64>| [0, 1, 2].map(|share| cell(of(share), 1)).join(" | ");
    let perfect = three(&|share| case.perfect.iter().map(|ms| ms[share]).collect());
    let p99 = |turns: &[mixed::Turn], of: fn(&mixed::Turn) -> [f64; 3]| -> Vec<f64> {
        turns.iter().map(|turn| of(turn)[1]).collect()
    };
    let none: &[mixed::Turn] = &[];
    let own = case.entries.first().map_or(none, |own| &own.turns);
    for entry in &case.entries {
        if let Some(why) = &entry.gave_up {
            let why = one_line(why);
            text += &format!("| {} | **not measured**: {why} |\n", entry.name);
            continue;
        }
        let turns = &entry.turns;
        let fast = three(&|share| turns.iter().map(|turn| turn.fast_ms[share]).collect());
        let slow = three(&|share| turns.iter().map(|turn| turn.slow_ms[share]).collect());
        let ratio = |of| cell(ratios(&p99(own, of), &p99(turns, of)), 2);
        let (of_fast, of_slow) = (ratio(|turn| turn.fast_ms), ratio(|turn| turn.slow_ms));
        let failed: u64 = turns.iter().map(|turn| turn.failed).sum();
        text +=
            &format!("| {} | {fast} | {slow} | {of_fast} | {of_slow} | {failed} |\n", entry.name);
    }
    text + &format!(
        "| first come, first served by a perfect front (arithmetic) | {perfect} | | | | | | |\n"
    )
}

fn case_json(case: &Case) -> Value {
    let rate = match case.load {
        Load::Saturation => None,
        Load::Rate(rate) => Some(rate),
    };
    let turn = |turn: &Turn| {
        json!({
            "front_us": turn.cpu.front, "workers_us": turn.cpu.workers,
            "rest_us": turn.cpu.rest, "whole_us": turn.cpu.whole(),
            "answers_per_second": turn.rate, "p50_ms": turn.p50_ms, "p99_ms": turn.p99_ms,
            "failed": turn.failed,
        })
    };
    let own = case.entries.first().map_or(Vec::new(), |own| wholes(&own.turns));
    let entries = case.entries.iter().map(|entry| {
        let whole = wholes(&entry.turns);
        json!({
            "name": entry.name, "not_measured": entry.gave_up,
            "whole_us": spread_json(whole.iter().copied()),
            "mfserv_divided_by_it": spread_json(ratios(&own, &whole)),
            "rounds": entry.turns.iter().map(turn).collect::<Vec<_>>(),
        })
    });
    json!({
        "row": case.row.name(), "workers": case.workers, "requests_per_second": rate,
        "load": if rate.is_none() { "saturation" } else { "20 %" },
        "contestants": entries.collect::<Vec<_>>(),
    })
}

fn mixed_json(case: &mixed::Case) -> Value {
    let latencies = |ms: &[f64; 3]| json!({ "p50": ms[0], "p99": ms[1], "p99.9": ms[2] });
    let turn = |turn: &mixed::Turn| {
        json!({
            "fast_ms": latencies(&turn.fast_ms), "slow_ms": latencies(&turn.slow_ms),
            "failed": turn.failed,
        })
    };
    let entries = case.entries.iter().map(|entry| {
        json!({
            "name": entry.name, "not_measured": entry.gave_up,
            "rounds": entry.turns.iter().map(turn).collect::<Vec<_>>(),
        })
    });
    json!({
        "row": case.row.name(), "workers": mixed::WORKERS, "requests_per_second": case.rate,
        "perfect_queue_fast_ms": case.perfect.iter().map(latencies).collect::<Vec<_>>(),
        "contestants": entries.collect::<Vec<_>>(),
    })
}

fn spread_json(values: impl IntoIterator<Item = f64>) -> Value {
    let spread = Spread::of(values);
    spread.map_or(
        Value::Null,
        |spread| json!({ "median": spread.median, "lowest": spread.least, "highest": spread.most }),
    )
}

#[cfg(test)]
mod tests {
    use super::super::case::Entry;
    use super::super::contestant::Cpu;
    use super::super::row::Row;
    use super::*;

    fn entry(name: &str, wholes: &[f64]) -> Entry {
        let turn = |whole: &f64| Turn {
            cpu: Cpu { front: whole / 4.0, workers: whole / 2.0, rest: whole / 4.0 },
            rate: 1000.0,
            p50_ms: 1.0,
            p99_ms: 2.0,
            failed: 1,
        };
        let turns = wholes.iter().map(turn).collect();
        Entry { name: name.into(), turns, gave_up: None }
    }

    fn report() -> Report {
        let mut entries = vec![entry("mfserv", &[10.0, 40.0, 20.0]), entry("a peer", &[40.0; 3])];
        entries.push(Entry {
            name: "gone".into(),
            turns: vec![],
            gave_up: Some("a\n  b | c".into()),
        });
        let case = Case { row: Row::Raw, workers: 2, load: Load::Saturation, entries };
        let missing = vec![("bjoern".to_string(), "no compiler\nat all".to_string())];
        Report { missing, cases: vec![case], ..Report::default() }
    }

    #[test]
    fn a_cell_has_the_median_the_lowest_and_the_highest() {
        assert_eq!(cell([3.0, 1.0, 2.0], 1), "2.0 [1.0-3.0]");
        assert_eq!(cell([], 1), "-");
    }

    #[test]
    fn a_long_reason_keeps_its_beginning_and_its_end() {
        let long = format!("pip failed\n{}\nno compiler", "said much ".repeat(100));
        let short = one_line(&long);
        assert!(short.starts_with("pip failed said") && short.ends_with("no compiler"), "{short}");
        assert!(short.chars().count() < 310 && !short.contains('\n'), "{short}");
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        // The medians of both are 20 and 40.
        assert_eq!(ratios(&[10.0, 40.0, 20.0], &[40.0, 40.0, 10.0]), [0.25, 1.0, 2.0]);
    }

    #[test]
    fn a_table_has_a_row_for_each_and_says_who_is_missing() {
        let text = report().markdown();
        let row = "| a peer | 10.0 [10.0-10.0] | 20.0 [20.0-20.0] | 10.0 [10.0-10.0] | \
                   40.0 [40.0-40.0] | 1000 [1000-1000] | 1.00 [1.00-1.00] | 2.00 [2.00-2.00] | \
                   0.50 [0.25-1.00] | 3 |";
        assert!(text.lines().any(|line| line == row), "{text}");
        assert!(text.contains("| gone | **not measured**: a b / c |"), "{text}");
        assert!(text.contains("CANNOT BE HAD HERE: bjoern** (no compiler at all)"), "{text}");
    }

    #[test]
    fn json_has_the_same_numbers() {
        let value = report().json();
        let peer = &value["cases"][0]["contestants"][1];
        assert_eq!(peer["whole_us"]["median"], 40.0);
        assert_eq!(peer["mfserv_divided_by_it"]["lowest"], 0.25);
        assert_eq!(peer["rounds"].as_array().unwrap().len(), 3);
        assert_eq!(value["missing"][0]["what"], "bjoern");
    }
}

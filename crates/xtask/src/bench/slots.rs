//! Fast requests among slow ones on four single-slot workers, the embedded front and
//! nginx in front of the same workers, in turns.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use mfserv_core::Diagnostic;

use super::arrivals::{Arrival, Mix, perfect};
use super::client::{self, Asked};
use super::machine;
use super::mixed::{self, Handled};
use super::nginx::{Nginx, Server};
use super::spread::{Spread, percentile};
use super::stalls::{Stall, Watch};
use super::waits::{self, PASSING_NS, Waits};
use crate::{interrupt, node};

/// Workers, one slot each.
const WORKERS: usize = 4;
/// What is asked of them.
const MIX: Mix =
    Mix { fast: Duration::from_millis(2), slow: Duration::from_millis(200), slow_share: 0.05 };
/// Each front is used for so long before anything is counted.
const WARM_UP: Duration = Duration::from_secs(2);

/// How long, how much.
#[derive(Debug, Args)]
pub struct Slots {
    /// How long a round of one front lasts, seconds.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// How many rounds of each front.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=20))]
    rounds: u64,
    /// Load in percent of what the workers can do.
    #[arg(long, default_value_t = 70, value_parser = clap::value_parser!(u64).range(1..=95))]
    load: u64,
    /// What the arrivals depend on; the fronts of one round get the same ones.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A front and what its rounds have shown.
#[derive(Debug)]
struct Contestant {
    name: &'static str,
    address: SocketAddr,
    rounds: Vec<Round>,
}

#[derive(Debug)]
struct Round {
    asked: Vec<Asked>,
    stalls: Vec<Stall>,
}

impl Slots {
    /// Measures, and prints the report.
    pub fn run(self) -> Result<(), Diagnostic> {
        let machine = machine::line(&[("python3", &["--version"]), ("/usr/sbin/nginx", &["-v"])]);
        let program = node::build()?;
        let node = node::Node::new(&program)?;
        mixed::install(&node, WORKERS)?;
        node.start()?;
        let sockets = mixed::sockets(&node, WORKERS)?;
        let server = |parameters| Server::of_sockets(parameters, &sockets);
        let nginx = Nginx::start("1", &[server("max_fails=0"), server("max_fails=0 max_conns=1")])?;
        let mut contestants: Vec<Contestant> = [
            ("embedded front", node.address()),
            ("nginx, least_conn", nginx.address(0)?),
            ("nginx, least_conn, max_conns=1", nginx.address(1)?),
        ]
        .map(|(name, address)| Contestant { name, address, rounds: vec![] })
        .into();
        let ideal = self.rounds(&mut contestants)?;
        let handled = mixed::handled(&node)?;
        if handled.iter().any(|one| one.worker >= WORKERS) {
            return Err(Diagnostic::error("a worker was replaced during the bench")
                .help("run it again; `mfserv events` of a node says why workers end"));
        }
        self.report(&machine, &contestants, &ideal, &handled);
        Ok(())
    }

    fn rate(&self) -> f64 {
        WORKERS as f64 / MIX.mean_s() * self.load as f64 / 100.0
    }

    /// All rounds, the fronts in turns; returns what a perfect queue makes of each.
    fn rounds(&self, contestants: &mut [Contestant]) -> Result<Vec<Vec<f64>>, Diagnostic> {
        let mut ids = Ids(0);
        for contestant in contestants.iter() {
            let arrivals = MIX.arrivals(self.seed, self.rate(), WARM_UP);
            client::ask_all(contestant.address, &mixed::target, &arrivals, ids.take(&arrivals))?;
        }
        let mut ideal = Vec::new();
        for round in 1..=self.rounds {
            let time = Duration::from_secs(self.seconds);
            let arrivals = MIX.arrivals(self.seed + round, self.rate(), time);
            for contestant in contestants.iter_mut() {
                eprintln!("round {round} of {}: {}", self.rounds, contestant.name);
                let watch = Watch::start()?;
                let asked = client::ask_all(
                    contestant.address,
                    &mixed::target,
                    &arrivals,
                    ids.take(&arrivals),
                )?;
                contestant.rounds.push(Round { asked, stalls: watch.stop() });
                interrupt::check()?;
            }
            ideal.push(perfect(&arrivals, WORKERS));
        }
        Ok(ideal)
    }

    fn report(&self, machine: &str, of: &[Contestant], ideal: &[Vec<f64>], handled: &[Handled]) {
        let Self { seconds, rounds, load, seed } = self;
        println!("{machine}\n");
        println!(
            "`cargo xtask bench slots --seconds {seconds} --rounds {rounds} --load {load} --seed \
             {seed}`: {WORKERS} workers, {:.0} requests a second\n",
            self.rate()
        );
        println!("Fast requests, milliseconds from the due time to the end of the answer: median");
        println!("of {rounds} rounds (least to most).\n");
        println!("| | p50 | p90 | p99 | longest | not answered | inside the app |");
        println!("|---|---|---|---|---|---|---|");
        println!("| a perfect queue (arithmetic) | {} | none | |", latencies(ideal));
        let waits: Vec<Vec<Waits>> = of.iter().map(|c| c.waits(handled)).collect();
        for (contestant, waits) in of.iter().zip(&waits) {
            let busy = Spread::of(waits.iter().map(|w| w.busy * 100.0));
            let busy = busy.map_or_else(String::new, |b| format!("{:.0} %", b.median));
            let row = latencies(&contestant.fast());
            println!("| {} | {row} | {} | {busy} |", contestant.name, contestant.failed());
        }
        println!(
            "\nWhat fast requests waited for, all rounds; `late` and `passed over` count from"
        );
        println!("{} ms.\n", PASSING_NS / 1_000_000);
        println!(
            "| | fast requests | passed over while a worker was free (longest, ms) | waited \
             beside an idle worker for any reason | handing over to an idle worker p50 / p99 ms \
             | from the queue p50 / p99 ms | late (of all) | of these in a stall of the machine |"
        );
        println!("|---|---|---|---|---|---|---|---|");
        for (contestant, waits) in of.iter().zip(&waits) {
            println!("| {} | {} |", contestant.name, causes(waits));
        }
        println!();
        for contestant in of {
            println!("- {}", contestant.noise());
        }
    }
}

impl Contestant {
    fn waits(&self, handled: &[Handled]) -> Vec<Waits> {
        let of = |round: &Round| waits::compare(&round.asked, handled, WORKERS, &round.stalls);
        self.rounds.iter().map(of).collect()
    }

    /// The latencies of the fast requests that were answered, by round.
    fn fast(&self) -> Vec<Vec<f64>> {
        let of = |round: &Round| {
            let fast = round.asked.iter().filter(|one| one.fast && one.is_answered());
            fast.map(Asked::latency_ms).collect()
        };
        self.rounds.iter().map(of).collect()
    }

    fn failed(&self) -> String {
        let asked = || self.rounds.iter().flat_map(|round| &round.asked);
        let (all, failed) = (asked().count(), asked().filter(|one| !one.is_answered()).count());
        match failed {
            0 => "none".into(),
            _ => format!("{failed} of {all} ({:.1} %)", failed as f64 * 100.0 / all as f64),
        }
    }

    /// How late the client itself was, and how often the machine stood still.
    fn noise(&self) -> String {
        let asked = self.rounds.iter().flat_map(|round| &round.asked);
        let late = asked.map(|one| one.sent_ns.saturating_sub(one.due_ns) as f64 / 1e6);
        let late = percentile(&mut late.collect::<Vec<f64>>(), 0.99).unwrap_or(0.0);
        let stalls = || self.rounds.iter().flat_map(|round| &round.stalls);
        let longest = stalls().map(|s| (s.to_ns - s.from_ns) as f64 / 1e6).fold(0.0, f64::max);
        format!(
            "{}: the client sent p99 {late:.2} ms after the due time; the machine stood still \
             {} times for more than 1 ms, {longest:.1} ms at most",
            self.name,
            stalls().count()
        )
    }
}

/// The cells p50, p90, p99 and longest of the latencies of some rounds.
fn latencies(rounds: &[Vec<f64>]) -> String {
    let cell = |share: f64| {
        let of = |round: &Vec<f64>| percentile(&mut round.clone(), share);
        let spread = Spread::of(rounds.iter().filter_map(of));
        spread.map_or_else(|| "none".to_string(), |spread| spread.to_string())
    };
    [0.5, 0.9, 0.99, 1.0].map(cell).join(" | ")
}

/// The cells about waiting, all rounds together.
fn causes(waits: &[Waits]) -> String {
    let all =
        |of: fn(&Waits) -> &Vec<f64>| -> Vec<f64> { waits.iter().flat_map(of).copied().collect() };
    let sum = |of: fn(&Waits) -> usize| waits.iter().map(of).sum::<usize>();
    let both = |mut values: Vec<f64>| match percentile(&mut values, 0.5) {
        Some(p50) => format!("{p50:.2} / {:.2}", percentile(&mut values, 0.99).unwrap_or(p50)),
        None => "none".into(),
    };
    let passed_over = all(|w| &w.passed_over_ms);
    let longest = passed_over.iter().copied().fold(0.0, f64::max);
    let (to_idle, from_queue) = (all(|w| &w.to_idle_ms), all(|w| &w.from_queue_ms));
    let handed = to_idle.len() + from_queue.len();
    format!(
        "{} | {} ({longest:.1}) | {} | {} | {} | {} ({handed}) | {}",
        all(|w| &w.fast_ms).len(),
        passed_over.len(),
        sum(|w| w.beside_idle),
        both(to_idle),
        both(from_queue),
        sum(|w| w.late),
        sum(|w| w.late_in_stall),
    )
}

/// Ids of requests, each given once.
struct Ids(u64);

impl Ids {
    fn take(&mut self, arrivals: &[Arrival]) -> u64 {
        let first = self.0 + 1;
        self.0 += arrivals.len() as u64;
        first
    }
}

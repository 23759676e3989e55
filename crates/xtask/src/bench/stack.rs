//! What a whole request costs, front and worker together: mfserv beside the stacks that it
//! replaces or competes with, all on the same machine, in turns.

mod behind;
mod case;
mod contestant;
mod fronts;
mod kit;
mod load;
mod mixed;
mod own;
mod peers;
mod pm2;
mod report;
mod row;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use mfserv_core::Diagnostic;

use super::machine;
use crate::{interrupt, node};
use behind::Behind;
use case::Measure;
use contestant::Contestant;
use kit::Kit;
use own::Own;
use report::Report;
use row::Row;

/// What is measured, and how long.
#[derive(Debug, Args)]
pub struct Stack {
    /// The apps, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_value = row::DEFAULT)]
    rows: Vec<Row>,
    /// Numbers of workers, separated by commas; mixed rows always have 4.
    #[arg(long, value_delimiter = ',', default_value = "2",
          value_parser = clap::value_parser!(u32).range(1..=64))]
    workers: Vec<u32>,
    /// Rounds; in each, every stack has its turn.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of a turn.
    #[arg(long, default_value_t = 0.5, value_parser = seconds)]
    seconds: f64,
    /// Seconds of a turn of the mixed rows, which have few requests a second.
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    mixed_seconds: f64,
    /// Connections of the clients.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: u32,
    /// Print JSON, with every round.
    #[arg(long)]
    json: bool,
    /// Another mfserv than the one of these sources, which is then not built.
    #[arg(long)]
    program: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().map_err(|why| why.to_string())?;
    match (0.05..=600.0).contains(&seconds) {
        true => Ok(seconds),
        false => Err("it is not from 0.05 to 600".into()),
    }
}

/// A contestant, or why it takes no part, with its name.
type Invited = (String, Result<Contestant, String>);

impl Stack {
    /// Measures, and prints the report.
    pub fn run(mut self) -> Result<(), Diagnostic> {
        let mut seen = Vec::new();
        self.rows.retain(|row| {
            !seen.contains(row) && {
                seen.push(*row);
                true
            }
        });
        let program = self.program.clone().map_or_else(node::build, Ok)?;
        let kit = Kit::install(&self.rows)?;
        let nginx = kit.nginx.program.as_ref().map(|program| program.to_string_lossy());
        let machine = machine::line(&[
            ("python3", &["--version"]),
            ("node", &["--version"]),
            (nginx.as_deref().unwrap_or("/usr/sbin/nginx"), &["-v"]),
        ]);
        let own = Own::install(&program, &self.rows)?;
        let nodes = (&own, Behind::install(&program, &self.rows, &kit)?);
        let mut report = Report {
            machine,
            command: self.command(),
            missing: kit.missing.clone(),
            ..Report::default()
        };
        let measure = Measure {
            rounds: self.rounds,
            time: Duration::from_secs_f64(self.seconds),
            connections: self.connections as usize,
        };
        for &row in self.rows.iter().filter(|row| !row.is_mixed()) {
            for &workers in &self.workers {
                let contestants = invite(&kit, &nodes, row, workers)?;
                report.cases.extend(case::measure(&measure, (row, workers), &contestants)?);
            }
        }
        for &row in self.rows.iter().filter(|row| row.is_mixed()) {
            let contestants = invite(&kit, &nodes, row, mixed::WORKERS)?;
            let rounds = (self.rounds, Duration::from_secs_f64(self.mixed_seconds));
            report.mixed.push(mixed::measure(row, rounds, &contestants)?);
        }
        report.print(self.json);
        Ok(())
    }

    fn command(&self) -> String {
        let Self { rounds, seconds, mixed_seconds, connections, .. } = self;
        let rows: Vec<&str> = self.rows.iter().map(|row| row.name()).collect();
        let workers: Vec<String> = self.workers.iter().map(u32::to_string).collect();
        format!(
            "cargo xtask bench stack --rows {} --workers {} --rounds {rounds} --seconds {seconds} \
             --mixed-seconds {mixed_seconds} --connections {connections}",
            rows.join(","),
            workers.join(",")
        )
    }
}

/// Starts all stacks of a row, mfserv first. `behind`: the node behind nginx, if a row has it.
fn invite(
    kit: &Kit,
    (own, behind): &(&Own, Option<Behind>),
    row: Row,
    workers: u32,
) -> Result<Vec<Invited>, Diagnostic> {
    eprintln!("{}, {workers} workers: starting", row.name());
    let mut all: Vec<Invited> = Vec::new();
    all.extend(own.run(row, workers)?.into_iter().map(|own| (own.name.clone(), Ok(own))));
    if let Some(behind) = behind {
        all.extend(behind.run(row, workers)?);
    }
    for peer in row.peers() {
        let started = match peer.missing(kit) {
            Some(what) => Err(format!("{what} cannot be had here")),
            None => peer.start(kit, row, workers).map_err(|why| why.to_string()),
        };
        interrupt::check()?;
        if let Err(why) = &started {
            eprintln!("NOT MEASURED: {}: {why}", peer.name(kit));
        }
        all.push((peer.name(kit).into(), started));
    }
    Ok(all)
}

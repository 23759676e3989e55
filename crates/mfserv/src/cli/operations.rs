//! `mfserv operations` and `mfserv wait`: what changes the node, and what has.

use std::time::Duration;

use clap::Args;
use mfserv_core::{Diagnostic, Kind};
use mfserv_node::control::client::{self, Follow};
use mfserv_node::operations::{Journal, OperationId, Outcome as OperationOutcome, Record};
use mfserv_node::places::Places;
use mfserv_node::render;
use mfserv_plugin::Cancel;
use serde_json::json;

use super::keeper::QUICK;
use super::operation::{may_run, print_outcome, print_warnings};
use super::print;
use super::progress::Steps;
use super::reach;
use super::report::{Colour, Outcome, paint};
use super::show::table;

#[derive(Debug, Args)]
pub struct Operations {
    /// At most so many, the newest last.
    #[arg(long, short, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    number: u32,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

impl Operations {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let records = recent(places, self.number as usize)?;
        if self.json {
            for record in &records {
                print(&format!("{}\n", serde_json::to_string(record).unwrap_or_default()));
            }
            return Ok(Outcome::Done);
        }
        let titles = ["ID", "BEGAN", "TOOK", "WHAT", "WHO", ""].map(str::to_owned).to_vec();
        let rows: Vec<_> = std::iter::once(titles).chain(records.iter().map(cells)).collect();
        print(&table(&rows));
        Ok(Outcome::Done)
    }
}

fn cells(record: &Record) -> Vec<String> {
    let took = record.ended_ms.map(|ended| render::span(ended.saturating_sub(record.began_ms)));
    let ended = match &record.outcome {
        None => "runs".into(),
        Some(OperationOutcome { problem: None, .. }) => paint("done", Colour::Good),
        Some(OperationOutcome { problem: Some(problem), .. }) => paint(&problem.what, Colour::Bad),
    };
    vec![
        record.id.to_string(),
        render::time(record.began_ms),
        took.unwrap_or_else(|| "-".into()),
        record.request.to_string(),
        record.who.command.clone(),
        ended,
    ]
}

fn recent(places: &Places, most: usize) -> Result<Vec<Record>, Diagnostic> {
    match client::recent(&places.control_socket(), most, QUICK) {
        // Where no node runs, the journal is read.
        Err(problem) if problem.kind == Kind::NotRunning => Ok(Journal::new(places).ended(most)),
        recent => recent,
    }
}

#[derive(Debug, Args)]
pub struct WaitFor {
    /// The operation's id.
    id: OperationId,
    /// Wait at most this long, seconds.
    #[arg(long, default_value_t = 600)]
    timeout: u64,
    /// Print one JSON object a line; the last one is the outcome.
    #[arg(long)]
    json: bool,
}

impl WaitFor {
    /// Exits as the operation does.
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let mut steps = if self.json { Steps::as_json() } else { Steps::new() };
        let outcome = self.outcome(places, &mut steps)?;
        steps.finish();
        if self.json {
            print_outcome(&outcome, json!({}));
        } else {
            print_warnings(&outcome);
        }
        match outcome.problem {
            Some(problem) => Err(problem),
            None if self.json => Ok(Outcome::Done),
            None => {
                print(&format!("operation {} is done\n", self.id));
                Ok(Outcome::Done)
            }
        }
    }

    fn outcome(&self, places: &Places, steps: &mut Steps) -> Result<OperationOutcome, Diagnostic> {
        let socket = places.control_socket();
        // Ctrl-C ends the waiting, and not the operation.
        let cancel = Cancel::default();
        let patience = Duration::from_secs(self.timeout);
        let follow = Follow { socket: &socket, id: &self.id, patience, cancel: &cancel };
        if let Some(outcome) = Journal::new(places).find(&self.id).and_then(|one| one.outcome) {
            return Ok(outcome);
        }
        // Nobody is about to bring a daemon that would know it.
        if !may_run(places) && reach::pids(places.home(), "keep").is_empty() {
            return Err(Diagnostic::error("the node is not running")
                .kind(Kind::NotRunning)
                .because(format!("what {} came to is not known", self.id))
                .help("`mfserv operations` lists what has ended"));
        }
        client::follow(&follow, &mut |event| steps.event(event))
    }
}

//! `events`: it reads a file, so it works while nothing runs.

use std::time::Duration;

use clap::Args;
use mfserv_core::event::Event;
use mfserv_core::{Diagnostic, Kind};
use mfserv_node::places::Places;
use mfserv_node::render;
use mfserv_telemetry::{Follower, tail};

use super::output::{for_terminal, is_lost};
use super::print;
use super::report::Outcome;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub struct Events {
    /// Follow new events.
    #[arg(long, short)]
    follow: bool,
    /// Number of past events.
    #[arg(long, short = 'n', default_value_t = 50)]
    lines: usize,
    /// Print one JSON object a line, as recorded.
    #[arg(long)]
    json: bool,
}

impl Events {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let file = places.events_file();
        let (lines, end) = tail(&file, self.lines).unwrap_or_default();
        if !file.exists() && !self.follow {
            return Err(Diagnostic::error("nothing has happened yet")
                .kind(Kind::NotRunning)
                .help("start the node with `mfserv start`"));
        }
        lines.iter().for_each(|line| self.say(line));
        if !self.follow {
            return Ok(Outcome::Done);
        }
        let mut follower = Follower::new([(file, end)]);
        while !is_lost() {
            follower.poll(&mut |_, line| self.say(line));
            std::thread::sleep(LOOK);
        }
        Ok(Outcome::Done)
    }

    fn say(&self, line: &[u8]) {
        let text = match serde_json::from_slice::<Event>(line) {
            Ok(event) if !self.json => render::event(&event),
            _ => String::from_utf8_lossy(line).into_owned(),
        };
        print(&format!("{}\n", for_terminal(&text)));
    }
}

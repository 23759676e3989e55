//! `maintenance on` and `off`: for a time, the front answers in place of apps.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clap_complete::ArgValueCompleter;
use mfserv_core::{Diagnostic, Kind};
use mfserv_node::operations::Request;
use mfserv_node::places::Places;

use super::completions;
use super::operate::{Wait, change};
use super::report::Outcome;

#[derive(Debug, Args)]
pub struct Maintenance {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Requests get 503 and a page, or wait (--hold). Workers go on, and so does maintenance when the
    /// node is started again. Waits until workers have answered what they have (--no-wait: does not).
    On {
        /// A plugin (`foo`) or an app (`foo.main`); without it: all.
        #[arg(add = ArgValueCompleter::new(completions::apps))]
        app: Option<String>,
        /// Requests wait until it is over, at most as long as they would wait for a free worker.
        #[arg(long, conflicts_with = "page")]
        hold: bool,
        /// A file with the page, in place of a small one.
        #[arg(long, value_name = "FILE")]
        page: Option<PathBuf>,
        #[command(flatten)]
        wait: Wait,
    },
    /// Requests are answered by the apps again.
    Off {
        /// A plugin (`foo`) or an app (`foo.main`); without it: all.
        #[arg(add = ArgValueCompleter::new(completions::apps))]
        app: Option<String>,
        #[command(flatten)]
        wait: Wait,
    },
}

impl Maintenance {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let (request, wait) = match self.verb {
            Verb::On { app, hold, page, wait } => {
                let page = page.map(absolute).transpose()?;
                (Request::Maintenance { app, on: true, hold, page }, wait)
            }
            Verb::Off { app, wait } => {
                (Request::Maintenance { app, on: false, hold: false, page: None }, wait)
            }
        };
        change(places, "maintenance", &wait, request, None)?;
        Ok(Outcome::Done)
    }
}

/// The daemon has another working directory.
fn absolute(file: PathBuf) -> Result<PathBuf, Diagnostic> {
    std::fs::canonicalize(&file).map_err(|why| {
        Diagnostic::error(format!("{} cannot be the page", file.display()))
            .kind(Kind::Usage)
            .because(why)
            .help("name a file with a small page in HTML")
    })
}

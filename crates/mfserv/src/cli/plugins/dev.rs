//! `mfserv dev`: a plugin runs from its directory.

mod desk;
mod lines;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::Args;
use mfserv_core::Diagnostic;
use mfserv_plugin::build::BuildReport;
use mfserv_plugin::{Home, Progress, store};
use serde::Serialize;

use super::{build_in, cancel, first, is_running, say_dangers, say_where, sentence, serve};
use crate::cli::operate::Wait;
use crate::cli::progress::Steps;
use crate::cli::report::{self, Outcome};
use crate::cli::{print, print_json, start};
use desk::Desk;
use mfserv_node::control::protocol::Applied;
use mfserv_node::places::Places;
use mfserv_node::{configure, installed};

#[derive(Debug, Args)]
pub struct Dev {
    /// The plugin's directory.
    #[arg(default_value = ".", value_hint = clap::ValueHint::DirPath)]
    dir: PathBuf,
    /// Return as soon as the plugin is served; the default without a terminal.
    #[arg(long, short, conflicts_with = "follow")]
    detach: bool,
    /// Show logs and events until Ctrl-C, also without a terminal. (Programs use `logs` and
    /// `events` with --follow --json.)
    #[arg(long, short, conflicts_with = "json")]
    follow: bool,
    #[command(flatten)]
    wait: Wait,
}

/// What `mfserv dev` did, as JSON.
#[derive(Debug, Serialize)]
struct Linked {
    plugin: store::Installed,
    build: BuildReport,
    /// What the node did; `null` when it does not run.
    applied: Option<Applied>,
}

impl Dev {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let mut steps = Steps::new();
        places.create()?;
        // A refusal comes before a build, which takes long.
        drop(store::prepare_dev_link(&Home::new(places.home()), &self.dir)?);
        let report = build_in(places, &self.dir, &mut steps)?;
        let plugin = link(places, &self.dir, &mut steps)?;
        steps.finish();
        if self.wait.json {
            let applied = serve(places, &self.wait)?;
            print_json(&Linked { plugin, build: report, applied })?;
            return Ok(Outcome::Done);
        }
        print(&sentence(&report));
        if self.stays() {
            return self.stay(places, &plugin.name);
        }
        if let Some(applied) = serve(places, &self.wait)? {
            say_where(places, &plugin.name, &applied);
        }
        Ok(Outcome::Done)
    }

    fn stays(&self) -> bool {
        let asked_for_an_end = self.detach || self.wait.no_wait;
        self.follow || std::io::stdout().is_terminal() && !asked_for_an_end
    }

    /// In the foreground, until Ctrl-C. A node that runs for this alone ends with it.
    fn stay(self, places: &Places, plugin: &str) -> Result<Outcome, Diagnostic> {
        let interrupted = cancel()?;
        let dir = self.dir.canonicalize().unwrap_or(self.dir);
        let started = !is_running(places);
        let desk = Desk::new(places, plugin, &dir, interrupted);
        if started {
            start::up(places)?;
        }
        desk.sit(started)
    }
}

/// Checks a plugin that is built in its directory, runs its postinstall hook and makes it
/// the current one of its name.
pub fn link(
    places: &Places,
    dir: &Path,
    steps: &mut dyn Progress,
) -> Result<store::Installed, Diagnostic> {
    let home = Home::new(places.home());
    // Before the hook, which may change data that belong to what is installed.
    let linking = store::prepare_dev_link(&home, dir)?;
    let module = configure::module(places, &[])?;
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let prepared = installed::prepare(places, &dir, &module).map_err(first)?;
    prepared.warnings.iter().for_each(report::print_problem);
    say_dangers(&dir, &prepared.spec);
    let complaint = store::postinstall(&home, &dir, &prepared, &cancel()?, steps)?;
    complaint.iter().for_each(report::print_problem);
    linking.commit()
}

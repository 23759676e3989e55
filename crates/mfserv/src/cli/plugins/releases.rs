//! `mfserv releases`, `rollback` and `repackage`: what was installed before, and after.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use clap_complete::ArgValueCompleter;
use mfserv_core::Diagnostic;
use mfserv_plugin::store::{self, Change, Edit, History, Origin, Owner, Release};
use mfserv_plugin::{Cancel, Home, Progress, archive};
use serde::Serialize;
use serde_json::json;

use super::{env, first, own_spec, print_warnings, say_current, variables};
use crate::cli::completions;
use crate::cli::operate::Wait;
use crate::cli::operation::Operation;
use crate::cli::progress::Steps;
use crate::cli::report::Outcome;
use crate::cli::show::table;
use crate::cli::{print, print_json};
use mfserv_node::operations::{Outcome as OperationOutcome, Request};
use mfserv_node::places::Places;
use mfserv_node::{configure, installed, render, taking};

/// A release, as it is shown.
#[derive(Debug, Serialize)]
struct Row {
    number: u32,
    /// It is the one that runs.
    current: bool,
    version: String,
    release: String,
    /// When it became current the last time, milliseconds since the Unix epoch.
    since_ms: Option<u64>,
    dir: PathBuf,
    /// What was changed of its variables while it was current, the last change at the end.
    variables: Vec<ChangeOfVariables>,
    /// What the app has made or changed in it; `null` when that is not known.
    foreign_files: Option<Vec<String>>,
}

/// A change of variables: `mfserv env set` and `unset`.
#[derive(Debug, Serialize)]
struct ChangeOfVariables {
    at_ms: u64,
    what: String,
}

impl Row {
    fn of(release: Release, current: Option<u32>, history: &History) -> Self {
        let changes = history.changes(release.number).iter();
        let of = |one: &Change| ChangeOfVariables { at_ms: one.at_ms, what: one.what.clone() };
        let metadata = archive::read_installed(&release.dir).map(|package| package.metadata);
        let metadata = metadata.unwrap_or_default();
        Row {
            number: release.number,
            current: current == Some(release.number),
            version: metadata.version,
            release: metadata.release,
            since_ms: release.since_ms(),
            variables: changes.map(of).collect(),
            foreign_files: store::foreign_files(&release.dir),
            dir: release.dir,
        }
    }

    fn cells(&self) -> Vec<String> {
        let files = match &self.foreign_files {
            None => "unknown".into(),
            Some(files) if files.is_empty() => "-".into(),
            Some(files) => format!("{} files", files.len()),
        };
        let since = self.since_ms.map_or_else(|| "-".into(), render::time);
        let mark = if self.current { "current" } else { "" };
        let number = self.number.to_string();
        vec![number, self.version.clone(), self.release.clone(), since, files, mark.into()]
    }

    /// A line for each change of its variables, below its own.
    fn lines(&self) -> Vec<Vec<String>> {
        let change = |one: &ChangeOfVariables| {
            let none = String::new;
            vec![none(), none(), none(), render::time(one.at_ms), one.what.clone(), none()]
        };
        std::iter::once(self.cells()).chain(self.variables.iter().map(change)).collect()
    }
}

#[derive(Debug, Args)]
pub struct Releases {
    /// The plugin's name.
    #[arg(add = ArgValueCompleter::new(completions::plugins))]
    name: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Releases {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        env::only_plugin(places, &self.name)?;
        let home = Home::new(places.home());
        let all: Vec<Release> =
            store::releases(&home, &self.name).into_iter().filter(|one| one.committed).collect();
        let current = match store::current(&home, &self.name).map(|plugin| plugin.origin) {
            Ok(Origin::Packed(number)) => Some(number),
            Ok(Origin::Dev | Origin::Internal) => None,
            // what was kept at its uninstallation
            Err(_) if !all.is_empty() => None,
            Err(problem) => return Err(problem),
        };
        let history = History::read(&home, &self.name)?;
        let row = |release| Row::of(release, current, &history);
        let rows: Vec<Row> = all.into_iter().map(row).collect();
        if self.json {
            print_json(&rows)?;
            return Ok(Outcome::Done);
        }
        let titles = ["NUMBER", "VERSION", "RELEASE", "SINCE", "MADE BY THE APP", ""];
        let titles = titles.map(str::to_owned).to_vec();
        let cells: Vec<_> =
            std::iter::once(titles).chain(rows.iter().flat_map(Row::lines)).collect();
        print(&table(&cells));
        Ok(Outcome::Done)
    }
}

#[derive(Debug, Args)]
pub struct Rollback {
    /// The plugin's name.
    #[arg(add = ArgValueCompleter::new(completions::plugins))]
    name: String,
    /// The release; default: what was before the last change: of the variables of the current
    /// release (`mfserv env set`), else the release before it.
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    number: Option<u32>,
    /// Take routes from other plugins that have them.
    #[arg(long)]
    take_route: bool,
    #[command(flatten)]
    wait: Wait,
}

impl Rollback {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        env::only_plugin(places, &self.name)?;
        let mut op = Operation::new(places, "rollback", &self.wait)?;
        if self.number.is_none() && self.has_undoable(places)? {
            let undone = variables::stage_and_submit(places, &mut op, &self.name, Edit::Undo);
            if let (Ok((outcome, what)), false) = (&undone, self.wait.json) {
                print_warnings(outcome);
                if outcome.ok {
                    let what = what.strip_prefix("undo: ").unwrap_or(what);
                    print(&format!("{}: undone: {what}\n", self.name));
                }
            }
            return op.end(undone.map(|(outcome, _)| outcome), json!({})).map(|_| Outcome::Done);
        }
        let submitted = self.submit(places, &mut op);
        if let (Ok(outcome), false) = (&submitted, self.wait.json) {
            say_current(places, outcome, "is current again");
        }
        op.end(submitted, json!({})).map(|_| Outcome::Done)
    }

    fn submit(
        &self,
        places: &Places,
        op: &mut Operation<'_>,
    ) -> Result<OperationOutcome, Diagnostic> {
        let (owner, patience, cancel) = (op.owner(), op.patience(), op.cancel().clone());
        let (plugin, take_route) = (self.name.as_str(), self.take_route);
        let asked = Asked { plugin, release: self.number, take_route, owner, patience, cancel };
        let (release, warnings) = check_release(places, asked, op.steps())?;
        op.warn(warnings);
        let (plugin, release) = (self.name.clone(), Some(release));
        op.submit(Request::Rollback { plugin, release, checked: true, take_route })
    }

    /// Whether a change of its variables is undone first.
    fn has_undoable(&self, places: &Places) -> Result<bool, Diagnostic> {
        let home = Home::new(places.home());
        Ok(History::read(&home, &self.name)?.undoable(&home, &self.name).is_some())
    }
}

/// A release that is to be gone back to.
pub struct Asked<'a> {
    /// The plugin.
    pub plugin: &'a str,
    /// The release; `None` = the last one before the current.
    pub release: Option<u32>,
    /// Accept that it takes routes from other plugins.
    pub take_route: bool,
    /// Whose operation this is.
    pub owner: Owner,
    /// How long another operation on the same plugin is waited for.
    pub patience: Duration,
    /// When to give it up.
    pub cancel: Cancel,
}

/// Chooses the release, checks its configuration and makes its environment again if it must be.
/// Returns its number, and what is doubtful in it.
pub fn check_release(
    places: &Places,
    asked: Asked<'_>,
    steps: &mut dyn Progress,
) -> Result<(u32, Vec<Diagnostic>), Diagnostic> {
    let Asked { plugin, release, take_route, owner, patience, cancel } = asked;
    let home = Home::new(places.home());
    let module = configure::module(places, &[])?;
    let prepare = |dir: &Path| installed::prepare(places, dir, &module).map_err(first);
    store::current(&home, plugin)?;
    let claim = store::claim_within(&home, plugin, &owner, patience, &cancel, steps)?;
    let chosen = claim.choose(release)?;
    if !take_route {
        taking::refuse_by_disk(places, plugin, &chosen.dir)?;
    }
    let warnings = claim.make_ready(&chosen, &prepare, &cancel, steps)?;
    Ok((chosen.number, warnings))
}

/// Packs an installed plugin again, with the configuration in force on this node.
pub fn repackage(
    places: &Places,
    name: &str,
    output: &Path,
    steps: &mut dyn Progress,
) -> Result<store::Repackaged, Diagnostic> {
    let home = Home::new(places.home());
    let dir = store::current(&home, name)?.dir;
    let own = own_spec(places, &dir)?;
    let module = configure::module(places, &[])?;
    let effective = installed::prepare(places, &dir, &module).map_err(first)?.spec;
    store::repackage(&home, name, &own, &effective, output, steps)
}

#[derive(Debug, Args)]
pub struct Repackage {
    /// The plugin's name.
    #[arg(add = ArgValueCompleter::new(completions::plugins))]
    name: String,
    /// Directory of the package.
    #[arg(long, short, default_value = ".")]
    output: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Repackage {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let mut steps = Steps::new();
        let made = repackage(places, &self.name, &self.output, &mut steps)?;
        steps.finish();
        if self.json {
            print_json(&made)?;
            return Ok(Outcome::Done);
        }
        made.changes.iter().for_each(|change| print(&format!("{change}\n")));
        let file = made.file.canonicalize().unwrap_or(made.file);
        print(&format!("plugin file is ready at {}\n", file.display()));
        Ok(Outcome::Done)
    }
}

//! `mfserv env set`, `unset` and `list`: variables that this node adds to the environment of a plugin.

mod values;

use clap::{Args, Subcommand};
use clap_complete::ArgValueCompleter;
use mfserv_core::{Diagnostic, Kind};
use mfserv_platform::clock;
use mfserv_plugin::store::{self, Edit, History, Installed, Variable, Variables};
use mfserv_plugin::{Home, Silent};
use serde::Serialize;
use serde_json::json;

use super::{drift, env, print_warnings};
use crate::cli::completions;
use crate::cli::operate::Wait;
use crate::cli::operation::{Operation, print_nothing_to_do};
use crate::cli::report::{self, Outcome};
use crate::cli::show::table;
use crate::cli::{print, print_json};
use mfserv_node::operations::{Outcome as OperationOutcome, Request};
use mfserv_node::places::Places;
pub use values::SetArgs;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Set variables of a plugin: its workers are replaced, without losing a request.
    ///
    /// A plugin that is not here yet gets them with its first release (`mfserv deploy --env`).
    /// Workers with the change are tried before it is in force; with --no-wait it is in force untried.
    Set(Set),
    /// Take back what was set.
    ///
    /// Workers without it are tried before it is in force; with --no-wait it is in force untried.
    Unset(Unset),
    /// List what was set.
    List(List),
}

#[derive(Debug, Args)]
pub struct Set {
    /// The plugin's name.
    #[arg(add = ArgValueCompleter::new(completions::plugins))]
    name: String,
    /// The variables; the value of one without `=` is read from standard input.
    #[arg(required = true, value_name = "KEY=VALUE")]
    variables: Vec<String>,
    /// Show the values nowhere. (A command line is seen by others while it runs: `KEY` alone.)
    #[arg(long)]
    secret: bool,
    #[command(flatten)]
    wait: Wait,
}

#[derive(Debug, Args)]
pub struct Unset {
    /// The plugin's name.
    #[arg(add = ArgValueCompleter::new(completions::plugins))]
    name: String,
    /// The variables.
    #[arg(required = true, value_name = "KEY")]
    variables: Vec<String>,
    #[command(flatten)]
    wait: Wait,
}

#[derive(Debug, Args)]
pub struct List {
    /// The plugin's name.
    #[arg(add = ArgValueCompleter::new(completions::plugins))]
    name: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Command {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        match self {
            Command::Set(mut set) => {
                set.name = env::plugin_of(places, &set.name)?;
                let edit = Edit::Set(values::assigned(&set.variables, set.secret)?);
                change(places, ("env set", &set.name), edit, &set.wait)
            }
            Command::Unset(mut unset) => {
                unset.name = env::plugin_of(places, &unset.name)?;
                let edit = Edit::Unset(unset.variables);
                change(places, ("env unset", &unset.name), edit, &unset.wait)
            }
            Command::List(mut list) => {
                list.name = env::plugin_of(places, &list.name)?;
                list.run(places)
            }
        }
    }
}

fn change(
    places: &Places,
    (command, name): (&str, &str),
    edit: Edit,
    wait: &Wait,
) -> Result<Outcome, Diagnostic> {
    if let Edit::Set(wanted) = &edit {
        let there = store::current(&Home::new(places.home()), name).ok();
        let is_set = |there: &Installed| there.problem.is_none() && are_set(places, there, wanted);
        if let Some(there) = there.filter(is_set) {
            let names = Vec::from_iter(wanted.keys().map(String::as_str)).join(", ");
            match wait.json {
                true => print_nothing_to_do(there, Vec::new()),
                false => print(&format!("{name}: set already: {names}; nothing to do\n")),
            }
            return Ok(Outcome::Done);
        }
    }
    let mut op = Operation::new(places, command, wait)?;
    let submitted = stage_and_submit(places, &mut op, name, edit);
    if let (Ok((outcome, what)), false) = (&submitted, wait.json) {
        print_warnings(outcome);
        if outcome.ok {
            print(&format!("{name}: {what}\n"));
        }
    }
    op.end(submitted.map(|(outcome, _)| outcome), json!({})).map(|_| Outcome::Done)
}

/// Whether the variables of what is installed have these values already.
pub(super) fn are_set(places: &Places, there: &Installed, wanted: &Variables) -> bool {
    let home = Home::new(places.home());
    let Ok(history) = History::read(&home, &there.name) else { return false };
    let set = history.in_force(&home, &there.name, &there.dir, false);
    let is_set =
        |now: &Variable, new: &Variable| now.value == new.value && (now.secret || !new.secret);
    wanted.iter().all(|(name, new)| set.get(name).is_some_and(|now| is_set(now, new)))
}

/// Stages the change in this process, as no request has values in it, and has it put in force.
pub(super) fn stage_and_submit(
    places: &Places,
    op: &mut Operation<'_>,
    name: &str,
    edit: Edit,
) -> Result<(OperationOutcome, String), Diagnostic> {
    let home = Home::new(places.home());
    is_plugin(&home, name)?;
    let (owner, patience, cancel) = (op.owner(), op.patience(), op.cancel().clone());
    let claim = store::claim_within(&home, name, &owner, patience, &cancel, op.steps())?;
    let what = claim.stage_variables(edit, clock::now_ms())?;
    drop(claim);
    let request = Request::Env { plugin: name.into(), what: what.clone() };
    let submitted = op.submit(request);
    if submitted.is_err() {
        // Nobody has accepted it, or it is carried out: then it is not staged any more.
        let claim = store::claim_within(&home, name, &owner, patience, &cancel, &mut Silent);
        let _ = claim.and_then(|claim| claim.give_up_variables(&owner.operation));
    }
    Ok((submitted?, what))
}

/// Variables are those of a plugin, not of one of its apps.
fn is_plugin(home: &Home, name: &str) -> Result<(), Diagnostic> {
    let plugin = name.split(['.', '/']).next().unwrap_or(name);
    match store::current(home, name) {
        Ok(_) => Ok(()),
        Err(_) if plugin != name && store::current(home, plugin).is_ok() => {
            Err(Diagnostic::error(format!("{name} has no variables of its own"))
                .kind(Kind::Usage)
                .because("all programs of a plugin have the same")
                .help(format!("name the plugin: {plugin}")))
        }
        Err(problem) => Err(first_of(problem)),
    }
}

/// Says how an app that does not start without its variables gets them before its first release.
fn first_of(problem: Diagnostic) -> Diagnostic {
    let there = problem.help.clone();
    there.into_iter().fold(problem, Diagnostic::because).help(
        "what is not here yet gets its variables with its first release: `mfserv deploy DIR --env \
         KEY=VALUE`, `--env-file FILE`, `--secret-file KEY=FILE`",
    )
}

/// A variable, as it is shown.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    /// `null` for a secret.
    value: Option<String>,
    secret: bool,
}

impl List {
    fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let home = Home::new(places.home());
        is_plugin(&home, &self.name)?;
        let dir = store::current(&home, &self.name)?.dir;
        let history = History::read(&home, &self.name)?;
        let set = history.in_force(&home, &self.name, &dir, false);
        let rows: Vec<Row> = set
            .iter()
            .map(|(name, one)| Row {
                name: name.clone(),
                value: (!one.secret).then(|| one.value.clone()),
                secret: one.secret,
            })
            .collect();
        let drift = env::load(places, &self.name)
            .ok()
            .and_then(|(_, loaded)| drift::of(places, &self.name, &loaded));
        if self.json {
            print_json(&json!({"plugin": self.name, "variables": rows, "drift": drift}))?;
            return Ok(Outcome::Done);
        }
        if let Some(drift) = drift {
            report::print_problem(&drift);
        }
        let titles = vec!["NAME".to_string(), "VALUE".to_string()];
        let cells = rows.into_iter().map(|row| {
            vec![row.name, row.value.map_or("(secret)".into(), |value| value.replace('\n', "\\n"))]
        });
        print(&table(&std::iter::once(titles).chain(cells).collect::<Vec<_>>()));
        Ok(Outcome::Done)
    }
}

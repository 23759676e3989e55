//! `config show|explain|set` and `check`.

use clap::{Args, Subcommand};
use mfserv_core::export::variable;
use mfserv_core::{Diagnostic, Kind, ini};

use super::plugins::app::AppArgs;
use super::plugins::made;
use super::progress::Steps;
use super::report::{self, Outcome};
use super::{print, print_json, sets};
use mfserv_node::places::Places;
use mfserv_node::{configure, inspect, override_files};
use mfserv_platform::disk;
use mfserv_plugin::Home;

#[derive(Debug, Args)]
pub struct Config {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show every value in force.
    Show {
        /// Only this section.
        section: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show where a value comes from and what it overrides.
    Explain {
        /// `section.key`.
        key: String,
    },
    /// Write a value into the home's config.ini.
    Set {
        /// `section.key=value`, or `section.key value`.
        #[arg(required = true, num_args = 1..=2)]
        assignment: Vec<String>,
    },
}

impl Config {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        match self.verb {
            Verb::Show { section, json } => show(places, section.as_deref(), json),
            Verb::Explain { key } => explain(places, &key),
            Verb::Set { assignment } => set(places, &assignment.join("=")),
        }
    }
}

fn show(places: &Places, section: Option<&str>, json: bool) -> Result<Outcome, Diagnostic> {
    let module = configure::module(places, &[])?;
    let values: Vec<_> = module
        .resolution
        .values
        .iter()
        .filter(|value| section.is_none_or(|section| value.section == section))
        .collect();
    if json {
        print_json(&values)?;
        return Ok(Outcome::Done);
    }
    let mut shown = "";
    for value in &values {
        if value.section != shown {
            print(&format!("[{}]\n", value.section));
            shown = &value.section;
        }
        print(&format!("{} = {}    # {}\n", value.key, value.value, value.origin));
    }
    module.resolution.diagnostics.iter().for_each(report::print_problem);
    Ok(Outcome::Done)
}

fn explain(places: &Places, key: &str) -> Result<Outcome, Diagnostic> {
    let unknown = || {
        Diagnostic::error(format!("no value is called {key}"))
            .kind(Kind::Usage)
            .help("say section.key, for example nginx.port; `mfserv config show` lists them")
    };
    let (section, name) = key.split_once('.').ok_or_else(unknown)?;
    let module = configure::module(places, &[])?;
    let value = module.resolution.value(section, name).ok_or_else(unknown)?;
    print(&format!("{}\n", value.explain().trim_end()));
    Ok(Outcome::Done)
}

fn set(places: &Places, text: &str) -> Result<Outcome, Diagnostic> {
    let set = sets(&[text.to_string()])?.remove(0);
    // Checked before it is written: a node must not be broken by its own command.
    let module = configure::module(places, std::slice::from_ref(&set))?;
    if let Some(error) = module.resolution.diagnostics.iter().find(|d| d.is_error()) {
        return Err(error.clone());
    }
    let mentions = |problem: &&Diagnostic| problem.to_string().contains(&set.1);
    module.resolution.diagnostics.iter().filter(mentions).for_each(report::print_problem);
    places.create()?;
    let path = places.config_file();
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    let (section, key, value) = set;
    if Home::new(places.home()).link(&section).exists() {
        // It is a good section of anybody's own, and hardly ever meant.
        let what = format!("[{section}] is a section of the node, and {section} is a plugin");
        let written = text.split_once('.').map_or(text, |(_, rest)| rest);
        let seen = variable("MFSERV", &section, &key)
            .map(|name| format!("every plugin sees it, as {name}"));
        report::print_problem(
            &seen.into_iter().fold(Diagnostic::warning(what), Diagnostic::because).help(format!(
                "`mfserv env set {section} {written}` sets a variable of {section} alone; what \
                 overrides its config.ini is in config/plugins/{section}.ini"
            )),
        );
    }
    let after = ini::set(&before, &section, &key, &value);
    disk::write(&path, after.as_bytes())?;
    print(&format!("[{section}] {key} = {value} is written to {}\n", path.display()));
    Ok(Outcome::Done)
}

#[derive(Debug, Args)]
pub struct Check {
    /// The directory of an app or of a plugin to check, instead of the node. Where nginx is the front, it
    /// reads the fragments in there (`nginx -t`), and makes the files and directories that they name.
    #[arg(value_hint = clap::ValueHint::DirPath)]
    dir: Option<std::path::PathBuf>,
    #[command(flatten)]
    app: AppArgs,
    /// A value that overrides all configuration files.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    sets: Vec<String>,
    /// Fail for warnings too, such as a key that has no effect in this version.
    #[arg(long)]
    strict: bool,
    /// Print the problems as JSON.
    #[arg(long)]
    json: bool,
}

impl Check {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let problems = match &self.dir {
            Some(dir) => {
                let module = configure::module(places, &sets(&self.sets)?)?;
                let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
                made::check(places, &dir, &self.app, &module, &mut Steps::new())?
            }
            None => {
                self.app.refuse_without_directory()?;
                let sets = sets(&self.sets)?;
                let options = mfserv_node::daemon::DaemonOptions { places: places.clone(), sets };
                let mut problems = inspect::node(&options)?;
                problems.extend(override_files::readable_by_all(places));
                problems
            }
        };
        let bad = problems.iter().any(|problem| self.strict || problem.is_error());
        if self.json {
            print_json(&problems)?;
        } else {
            problems.iter().for_each(report::print_problem);
            if problems.is_empty() {
                print("ok\n");
            }
        }
        match bad {
            false => Ok(Outcome::Done),
            true if self.json => Ok(Outcome::Code(Kind::BadConfiguration.exit_code())),
            true => {
                let found = if self.strict { "problems (--strict)" } else { "errors" };
                let failed = Diagnostic::error(format!("the check found {found}"));
                Err(failed.kind(Kind::BadConfiguration))
            }
        }
    }
}

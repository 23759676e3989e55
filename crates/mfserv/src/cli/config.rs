//! `config show|explain|set` and `check`.

use clap::{Args, Subcommand};
use mfserv_core::export::variable;
use mfserv_core::layers::Value;
use mfserv_core::{Diagnostic, Kind, alerts, ini, keys};

use super::plugins::app::AppArgs;
use super::plugins::app_or_plugin;
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
        /// Only this section, or this value (`section.key`).
        #[arg(value_name = "SECTION[.KEY]")]
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
    /// Write values into the home's config.ini: all of them, or none if one is wrong.
    Set {
        /// `section.key=value`, as often as wanted; or `section.key value`.
        #[arg(required = true, num_args = 1..)]
        assignment: Vec<String>,
    },
}

impl Config {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        match self.verb {
            Verb::Show { section, json } => show(places, section.as_deref(), json),
            Verb::Explain { key } => explain(places, &key),
            Verb::Set { assignment } => match &assignment[..] {
                [key, value] if !key.contains('=') => set(places, &[format!("{key}={value}")]),
                assignments => set(places, assignments),
            },
        }
    }
}

fn show(places: &Places, section: Option<&str>, json: bool) -> Result<Outcome, Diagnostic> {
    let module = configure::module(places, &[])?;
    let values: Vec<_> = module
        .resolution
        .values
        .iter()
        .filter(|value| section.is_none_or(|wanted| is_wanted(value, wanted)))
        .collect();
    if let (Some(section), true) = (section, values.is_empty()) {
        return Err(Diagnostic::error(format!("no value is called {section}"))
            .kind(Kind::Usage)
            .help("`mfserv config show` lists all of them"));
    }
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

/// A value of this section, or of this name.
fn is_wanted(value: &Value, wanted: &str) -> bool {
    let wanted = wanted.to_lowercase();
    value.section == wanted || wanted.split_once('.') == Some((&value.section, &value.key))
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

fn set(places: &Places, texts: &[String]) -> Result<Outcome, Diagnostic> {
    let sets = sets(texts)?;
    // Checked before anything is written: a node must not be broken by its own command.
    let module = configure::module(places, &sets)?;
    let is_set = |value: &Value| {
        sets.iter().any(|(section, key, _)| value.section == *section && value.key == *key)
    };
    if let Some(error) = module.resolution.diagnostics.iter().find(|d| d.is_error()) {
        return Err(error.clone());
    }
    let values = module.resolution.values.iter().filter(|value| is_set(value));
    let names: Vec<String> = values.map(|one| format!("[{}] {}", one.section, one.key)).collect();
    let is_about = |problem: &&Diagnostic| {
        let text = problem.to_string();
        names.iter().any(|name| mentions(&text, name))
    };
    module.resolution.diagnostics.iter().filter(is_about).for_each(report::print_problem);
    places.create()?;
    let path = places.config_file();
    let mut text = std::fs::read_to_string(&path).unwrap_or_default();
    for (written, (section, key, value)) in texts.iter().zip(&sets) {
        warn_of_plugin(places, (section, key), written);
        text = ini::set(&text, section, key, value);
    }
    disk::write(&path, text.as_bytes())?;
    for (section, key, value) in &sets {
        print(&format!("[{section}] {key} = {value} is written to {}\n", path.display()));
        if let (false, Some(name)) = (is_read(section), variable("MFSERV", section, key)) {
            print(&format!("mfserv reads nothing of [{section}]; plugins see it as {name}\n"));
        }
    }
    Ok(Outcome::Done)
}

/// A text names a key, and no longer one.
fn mentions(text: &str, name: &str) -> bool {
    let goes_on = |rest: &str| rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    text.match_indices(name).any(|(at, _)| !goes_on(&text[at + name.len()..]))
}

/// Whether mfserv reads anything of a section.
fn is_read(section: &str) -> bool {
    keys::sections().contains(&section) || alerts::is_section(section)
}

/// Says that a value of the node was hardly meant: it looks like one of a plugin.
fn warn_of_plugin(places: &Places, (section, key): (&str, &str), written: &str) {
    let is_plugin = Home::new(places.home()).link(section).exists();
    let is_of_plugin = ["app_", "extra_daemon_", "job_"].iter().any(|it| section.starts_with(it));
    let what = match (is_plugin, is_of_plugin) {
        // It is a good section of anybody's own, and hardly ever meant.
        (true, _) => format!("[{section}] is a section of the node, and {section} is a plugin"),
        (false, true) => format!("[{section}] is a section of plugins, and none of the node"),
        (false, false) => return,
    };
    let problem = Diagnostic::warning(what);
    let seen =
        variable("MFSERV", section, key).map(|name| format!("every plugin sees it, as {name}"));
    let problem = seen.into_iter().fold(problem, Diagnostic::because);
    let variable = written.split_once('.').map_or(written, |(_, rest)| rest);
    report::print_problem(&match is_plugin {
        true => problem.help(format!(
            "`mfserv env set {section} {variable}` sets a variable of {section} alone; what \
             overrides its config.ini is in config/plugins/{section}.ini"
        )),
        false => problem.help(format!(
            "what overrides the config.ini of a plugin is in config/plugins/PLUGIN.ini, below \
             [{section}]"
        )),
    });
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
                app_or_plugin::check(places, &dir, &self.app, &module, &mut Steps::new())?
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

//! What a plugin's Makefile calls, through `share/plugin.mk`: building, checking, packing and
//! linking a plugin directory; and packing an installed plugin again.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Parser;
use mfserv_core::Diagnostic;
use mfserv_core::names::check_plugin_name;
use mfserv_plugin::store::{self, Installed, Origin};
use mfserv_plugin::{Home, Silent, build as builder, label};

use super::lines::Line;
use super::{failed, only_own_base_dir, places};
use crate::cli::operation::{Operation, print_warnings};
use crate::cli::plugins::dev::link;
use crate::cli::plugins::releases::repackage as again;
use crate::cli::plugins::{build_in, build_options, cancel, hold, pack_in, sentence};
use crate::cli::progress::{Notices, Steps};
use crate::cli::report::{self, Outcome};
use crate::cli::{complain, print};
use mfserv_node::installed::Directories;
use mfserv_node::places::Places;
use mfserv_node::{configure, installed};

/// Build the environment of a plugin: Python packages, node_modules.
#[derive(Debug, Parser)]
#[command(name = "_plugins.build")]
struct Build {
    /// The plugin's directory.
    #[arg(default_value = ".")]
    dir: PathBuf,
}

pub fn build() -> Result<Outcome, Diagnostic> {
    let args = Build::parse();
    let places = places()?;
    let held = hold(&places, &args.dir)?;
    let report = build_in(&places, &held, build_options(&places, &cancel()?), &mut Steps::new())?;
    if !report.is_unchanged() {
        // Workers that run from this directory are renewed when a file changes, and those of
        // an environment are not looked at.
        let touched = File::options().append(true).open(args.dir.join("config.ini"));
        let _ = touched.and_then(|file| file.set_modified(SystemTime::now()));
    }
    print(&sentence(&report));
    Ok(Outcome::Done)
}

/// Remove what a build has made.
#[derive(Debug, Parser)]
#[command(name = "_plugins.clean")]
struct Clean {
    /// Remove the pinned versions too: requirements3.txt, package-lock.json.
    #[arg(long = "super")]
    pinned: bool,
    /// Leave what workers that run from this directory need.
    #[arg(long)]
    for_release: bool,
    /// The plugin's directory.
    #[arg(default_value = ".")]
    dir: PathBuf,
}

pub fn clean() -> Result<Outcome, Diagnostic> {
    let args = Clean::parse();
    let places = places()?;
    let name = label::read_name(&args.dir)?;
    let linked = linked_to(&places, &name, &args.dir);
    if args.for_release && linked {
        print("- the plugin is devlinked: its workers keep what they run with\n");
        builder::clean_packages(&args.dir)?;
    } else {
        builder::clean(&args.dir, args.pinned)?;
    }
    Ok(Outcome::Done)
}

/// The plugin of that name runs from this directory.
fn linked_to(places: &Places, name: &str, dir: &Path) -> bool {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let current = store::current(&Home::new(places.home()), name);
    current.is_ok_and(|plugin| plugin.origin == Origin::Dev && plugin.dir == dir)
}

/// Check the configuration of a plugin directory.
#[derive(Debug, Parser)]
#[command(name = "plugins.check")]
struct Check {
    /// Show the whole configuration as JSON.
    #[arg(long)]
    debug: bool,
    /// The directory of plugins.
    #[arg(long, value_name = "DIR")]
    plugins_base_dir: Option<PathBuf>,
    /// The plugin's directory.
    path: PathBuf,
}

pub fn check() -> Result<Outcome, Diagnostic> {
    let args = Check::parse();
    let places = places()?;
    only_own_base_dir(&places, args.plugins_base_dir.as_deref())?;
    let line = Line::of_tool("- Checking plugin...");
    let dir = std::path::absolute(&args.path).unwrap_or_else(|_| args.path.clone());
    let module = configure::module(&places, &[])?;
    match installed::load_one(&places, &dir, &module, Directories::Left) {
        Ok(loaded) => {
            line.ok("");
            loaded.warnings.iter().for_each(report::print_problem);
            if args.debug {
                let shown = serde_json::json!({ "home": dir, "configuration": loaded.spec, "environment": loaded.env });
                print(&format!("{shown:#}\n"));
            }
            Ok(Outcome::Done)
        }
        Err(problems) => {
            line.error("");
            problems.iter().for_each(report::print_problem);
            if !args.debug {
                print("(note: use 'plugins.check --debug /plugin/path' for more details)\n");
            }
            failed()
        }
    }
}

/// Pack a plugin directory into one file.
#[derive(Debug, Parser)]
#[command(name = "_plugins.make")]
struct Pack {
    /// The plugin's directory.
    #[arg(long, default_value = ".")]
    plugin_path: PathBuf,
    /// (accepted, as before)
    #[arg(long = "debug")]
    _debug: bool,
    /// Say where the file is.
    #[arg(long)]
    show_plugin_path: bool,
    /// Pack the base environment too, for machines without a network.
    #[arg(long)]
    standalone: bool,
}

pub fn pack() -> Result<Outcome, Diagnostic> {
    let args = Pack::parse();
    let places = places()?;
    let line = Line::of_tool("- Building plugin...");
    let here = Path::new(".");
    let held = hold(&places, &args.plugin_path);
    let packed = held.and_then(|held| pack_in(&places, &held, here, args.standalone, &mut Notices));
    match packed {
        Ok(file) => {
            line.ok("");
            if args.show_plugin_path {
                say_ready(file);
            }
            Ok(Outcome::Done)
        }
        Err(problem) => {
            line.error("");
            report::print_problem(&problem);
            failed()
        }
    }
}

fn say_ready(file: PathBuf) {
    let file = file.canonicalize().unwrap_or(file);
    print(&format!("plugin file is ready at {}\n", file.display()));
}

/// Run a plugin from its directory.
#[derive(Debug, Parser)]
#[command(name = "_plugins.develop")]
struct Develop {
    /// The plugin's directory.
    #[arg(long, default_value = ".")]
    plugin_path: PathBuf,
    /// It is no error that the plugin runs from a directory already.
    #[arg(long)]
    ignore_already_installed: bool,
    /// The directory of plugins.
    #[arg(long, value_name = "DIR")]
    plugins_base_dir: Option<PathBuf>,
    /// The plugin's name.
    name: String,
}

pub fn develop() -> Result<Outcome, Diagnostic> {
    let args = Develop::parse();
    let places = places()?;
    only_own_base_dir(&places, args.plugins_base_dir.as_deref())?;
    let line = Line::of_tool(&format!("- Devlinking plugin {}...", args.name));
    let there = store::current(&Home::new(places.home()), &args.name).ok();
    let again = linked_to(&places, &args.name, &args.plugin_path);
    if there.as_ref().is_some_and(|plugin| refuses(plugin, args.ignore_already_installed)) {
        line.error("already installed");
        complain("ERROR: the plugin is already installed");
        return Ok(Outcome::Code(3));
    }
    match developed(&places, &args) {
        Ok(()) if again => line.warning("(already installed)"),
        Ok(()) => line.ok(""),
        Err(problem) => {
            line.error("");
            report::print_problem(&problem);
            return Ok(Outcome::Code(2));
        }
    }
    Ok(Outcome::Done)
}

/// A developer's directory makes way for another one; nothing else does.
fn refuses(there: &Installed, ignore: bool) -> bool {
    !ignore || there.origin != Origin::Dev
}

fn developed(places: &Places, args: &Develop) -> Result<(), Diagnostic> {
    let name = label::read_name(&args.plugin_path)?;
    if name != args.name {
        return Err(Diagnostic::error(format!("this directory is not the plugin {}", args.name))
            .because(format!("its .layerapi2_label says {name}")));
    }
    let mut op = Operation::silent(places, "develop", 0, cancel()?);
    let linked = link(places, &args.plugin_path, &mut op, false);
    let outcome = op.end(linked, serde_json::Value::Null)?;
    print_warnings(&outcome);
    Ok(())
}

/// Check the name of a plugin.
#[derive(Debug, Parser)]
#[command(name = "plugins_validate_name")]
struct ValidateName {
    /// The name.
    name: String,
}

pub fn validate_name() -> Result<Outcome, Diagnostic> {
    match check_plugin_name(&ValidateName::parse().name) {
        Ok(()) => {
            print("OK\n");
            Ok(Outcome::Done)
        }
        Err(reason) => {
            print(&format!("ERROR: {reason}\n"));
            failed()
        }
    }
}

/// Pack an installed plugin again, with the configuration in force on this node.
#[derive(Debug, Parser)]
#[command(name = "plugins.repackage")]
struct Repackage {
    /// (accepted, as before)
    #[arg(long = "debug")]
    _debug: bool,
    /// The directory of plugins.
    #[arg(long, value_name = "DIR")]
    plugins_base_dir: Option<PathBuf>,
    /// The installed plugin.
    name: String,
}

pub fn repackage() -> Result<Outcome, Diagnostic> {
    let args = Repackage::parse();
    if super::in_plugin_env() {
        complain("ERROR: Don't use plugins.repackage inside a plugin_env");
        return failed();
    }
    let places = places()?;
    only_own_base_dir(&places, args.plugins_base_dir.as_deref())?;
    let home = Home::new(places.home());
    let line = Line::of_tool(&format!("- Repackaging plugin {}...", args.name));
    if store::current(&home, &args.name).is_err() {
        line.error("");
        print("=> not installed plugin\n");
        return failed();
    }
    match again(&places, &args.name, Path::new("."), &mut Silent) {
        Ok(repackaged) => {
            line.ok("");
            repackaged.changes.iter().for_each(|change| print(&format!("{change}\n")));
            say_ready(repackaged.file);
            Ok(Outcome::Done)
        }
        Err(problem) => {
            line.error("");
            report::print_problem(&problem);
            failed()
        }
    }
}

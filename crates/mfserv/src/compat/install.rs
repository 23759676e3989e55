//! `plugins.install`, `plugins.uninstall` and `plugins.hotswap`.

use std::path::{Path, PathBuf};

use clap::Parser;
use mfserv_core::names::check_plugin_name;
use mfserv_core::plugin_spec::PluginSpec;
use mfserv_core::{Diagnostic, Kind};
use mfserv_plugin::archive::Package;
use mfserv_plugin::store::{self, Installed, Origin};
use mfserv_plugin::{Home, archive, dangers};

use super::lines::Line;
use super::{failed, only_own_base_dir, operate, places};
use crate::cli::operation::Operation;
use crate::cli::plugins::install::{PackageFile, deploy};
use crate::cli::plugins::{cancel, has_nginx};
use crate::cli::report::{self, Outcome};
use crate::cli::{complain, print};
use mfserv_node::operations::Request;
use mfserv_node::places::Places;

/// How long a plugin that is replaced or removed may take to be gone, seconds.
const PATIENCE_S: u64 = 120;

/// Install a plugin file.
#[derive(Debug, Parser)]
#[command(name = "plugins.install")]
struct Install {
    /// Replace an installed plugin of that name.
    #[arg(long)]
    force: bool,
    /// Install it under this name instead of its own.
    #[arg(long, value_name = "NAME")]
    new_name: Option<String>,
    /// The directory of plugins.
    #[arg(long, value_name = "DIR")]
    plugins_base_dir: Option<PathBuf>,
    /// The .plugin file.
    file: PathBuf,
}

pub fn install() -> Result<Outcome, Diagnostic> {
    let args = Install::parse();
    if refused_in_plugin_env() {
        return failed();
    }
    let places = places()?;
    only_own_base_dir(&places, args.plugins_base_dir.as_deref())?;
    if args.new_name.as_deref().is_some_and(|name| check_plugin_name(name).is_err()) {
        complain("ERROR: bad plugin name for --new-name option");
        return Ok(Outcome::Code(3));
    }
    let Some(package) = checked(&args.file) else { return failed() };
    let name = args.new_name.clone().unwrap_or_else(|| package.name.clone());
    let there = store::current(&Home::new(places.home()), &name).ok();
    if let Some(there) = there.as_ref().filter(|_| args.force) {
        if !make_way(&places, there) {
            return failed();
        }
    }
    let renamed = args.new_name.as_ref().map_or_else(String::new, |new| format!(" as {new}"));
    let line = Line::of_tool(&format!("- Installing plugin {}{renamed}...", package.name));
    if there.is_some() && !args.force {
        line.error("already installed");
        return failed();
    }
    match put(&places, "plugins.install", &args.file, args.new_name, there.is_some()) {
        Ok((warnings, dangers)) => {
            said(line, &warnings);
            say_dangers(&dangers);
            Ok(Outcome::Done)
        }
        Err(problem) => {
            line.error("");
            report::print_problem(&problem);
            Ok(Outcome::Code(2))
        }
    }
}

fn refused_in_plugin_env() -> bool {
    let refused = super::in_plugin_env();
    if refused {
        complain("ERROR: Don't use plugins.install/uninstall inside a plugin_env");
    }
    refused
}

/// Reads a package; what is wrong with it has been said.
fn checked(file: &Path) -> Option<Package> {
    let line = Line::of_tool("- Checking plugin file...");
    match archive::read(file) {
        Ok(package) => {
            line.ok("");
            Some(package)
        }
        Err(problem) => {
            line.error("");
            report::print_problem(&problem);
            None
        }
    }
}

/// With --force: a packed plugin serves until the new one is ready; a directory that is
/// linked is unlinked at once. Returns whether that could be done.
fn make_way(places: &Places, there: &Installed) -> bool {
    let line = Line::of_tool(&format!("- Uninstalling (old) plugin {}...", there.name));
    if matches!(there.origin, Origin::Packed(_)) {
        line.ok("(it serves until the new one is ready)");
        return true;
    }
    match removed(places, "plugins.install", &there.name, false) {
        Ok(warnings) => {
            said(line, &warnings);
            true
        }
        Err(problem) => {
            line.error("");
            report::print_problem(&problem);
            false
        }
    }
}

/// Makes a package the current release of its plugin. Of a plugin that serves, the new release
/// starts beside the old one, and takes over when it is ready. Returns the warnings, and what
/// the plugin could break.
pub fn put(
    places: &Places,
    command: &str,
    file: &Path,
    new_name: Option<String>,
    replace: bool,
) -> Result<(Vec<Diagnostic>, Vec<String>), Diagnostic> {
    let patience_s = if replace { PATIENCE_S } else { 0 };
    let mut op = Operation::silent(places, command, patience_s, cancel()?);
    let mut dangers = Vec::new();
    let package = PackageFile {
        file,
        replace,
        new_name,
        clean: false,
        replace_link: None,
        take_route: false,
        variables: Default::default(),
    };
    let is_nginx = has_nginx(places);
    let mut staged = |spec: &PluginSpec| dangers = dangers::dangers(spec, is_nginx);
    let deployed = deploy(places, &mut op, package, &mut staged);
    let outcome = op.end(deployed, serde_json::Value::Null)?;
    Ok((outcome.warnings, dangers))
}

/// Ends a line that went well, with what is to be known besides.
pub fn said(line: Line, warnings: &[Diagnostic]) {
    match warnings.is_empty() {
        true => line.ok(""),
        false => line.warning(""),
    }
    warnings.iter().for_each(report::print_problem);
}

/// What the plugin could break for others.
fn say_dangers(dangers: &[String]) {
    if dangers.is_empty() {
        return;
    }
    dangers.iter().for_each(|danger| print(&format!("{danger}\n")));
    print("=> this can break other plugins of this node: accept it if you trust its author\n");
}

/// Uninstall a plugin.
#[derive(Debug, Parser)]
#[command(name = "plugins.uninstall")]
struct Uninstall {
    /// Remove its data and its overrides too.
    #[arg(long)]
    clean: bool,
    /// The directory of plugins.
    #[arg(long, value_name = "DIR")]
    plugins_base_dir: Option<PathBuf>,
    /// The plugin's name, or a path that ends with it.
    name: String,
}

pub fn uninstall() -> Result<Outcome, Diagnostic> {
    let args = Uninstall::parse();
    if refused_in_plugin_env() {
        return failed();
    }
    let places = places()?;
    only_own_base_dir(&places, args.plugins_base_dir.as_deref())?;
    let name = args.name.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let line = Line::of_tool(&format!("- Uninstalling plugin {name}..."));
    if store::current(&Home::new(places.home()), name).is_err() {
        line.error("not installed");
        return failed();
    }
    match removed(&places, "plugins.uninstall", name, args.clean) {
        Ok(kept) => {
            said(line, &kept);
            Ok(Outcome::Done)
        }
        Err(problem) => {
            line.error("");
            report::print_problem(&problem);
            Ok(Outcome::Code(2))
        }
    }
}

/// Uninstalls: the workers finish their requests before their files go.
fn removed(
    places: &Places,
    command: &str,
    name: &str,
    clean: bool,
) -> Result<Vec<Diagnostic>, Diagnostic> {
    let uninstall = Request::Uninstall { plugin: name.into(), clean };
    operate(places, command, uninstall, PATIENCE_S).map(|outcome| outcome.warnings)
}

/// Replace an installed plugin without losing a request.
#[derive(Debug, Parser)]
#[command(name = "plugins.hotswap")]
struct Hotswap {
    /// (accepted, as before: what is waited for is observed)
    #[arg(long = "wait-after-circus-reload", value_name = "SECONDS", default_value_t = 10)]
    _wait_after_circus_reload: u64,
    /// (accepted, as before: what is waited for is observed)
    #[arg(long = "wait-after-nginx-reload", value_name = "SECONDS", default_value_t = 3)]
    _wait_after_nginx_reload: u64,
    /// (accepted, as before: nothing but the plugin is restarted)
    #[arg(long = "dont-restart-circus")]
    _dont_restart_circus: bool,
    /// The directory of plugins.
    #[arg(long, value_name = "DIR")]
    plugins_base_dir: Option<PathBuf>,
    /// The .plugin file.
    file: PathBuf,
}

pub fn hotswap() -> Result<Outcome, Diagnostic> {
    let args = Hotswap::parse();
    if refused_in_plugin_env() {
        return failed();
    }
    let places = places()?;
    only_own_base_dir(&places, args.plugins_base_dir.as_deref())?;
    let Some(package) = checked(&args.file) else { return failed() };
    let name = &package.name;
    let line = Line::of_tool(&format!("- Hotswapping plugin {name}..."));
    let there = match store::current(&Home::new(places.home()), name) {
        Ok(there) => there,
        Err(_) => {
            line.error("");
            complain(&format!(
                "ERROR: the plugin {name} is not currently installed => use a regular plugins.install to install it"
            ));
            return failed();
        }
    };
    if !matches!(there.origin, Origin::Packed(_)) {
        line.error("");
        complain(&format!(
            "ERROR: the plugin {name} is devlinked: that is not supported by plugins.hotswap"
        ));
        return failed();
    }
    match put(&places, "plugins.hotswap", &args.file, None, true) {
        Ok((warnings, dangers)) => {
            said(line, &warnings);
            say_dangers(&dangers);
            Ok(Outcome::Done)
        }
        Err(problem) => {
            line.error("");
            complain("DIAGNOSTIC: the installed version goes on serving");
            report::print_problem(&problem.kind(Kind::Failed));
            failed()
        }
    }
}

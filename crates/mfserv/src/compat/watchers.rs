//! `plugins.start`, `plugins.stop` and `plugins.status`: the workers of plugins.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use mfserv_core::glob::matches;
use mfserv_core::names::WatcherName;
use mfserv_core::status::{PluginStatus, Status, WatcherStatus};
use mfserv_core::{Diagnostic, Kind};

use super::lines::Line;
use super::{failed, node_status, operate, places, status::Checks};
use crate::cli::keeper::LOOK;
use crate::cli::print;
use crate::cli::report::{self, Outcome};
use mfserv_node::operations::Request;
use mfserv_node::places::Places;

/// How long the workers of a watcher may take to be gone: the longest drain of the
/// default configuration and what comes after it.
const GONE: Duration = Duration::from_secs(300);

/// Which plugins are meant.
#[derive(Debug, clap::Args)]
struct Which {
    /// The directory of plugins (accepted, as before).
    #[arg(long = "plugins-base-dir", value_name = "DIR")]
    _plugins_base_dir: Option<PathBuf>,
    /// A plugin's name, or a shell pattern; all plugins by default.
    name: Option<String>,
}

impl Which {
    fn includes(&self, plugin: &str) -> bool {
        self.name.as_deref().is_none_or(|pattern| matches(pattern, plugin))
    }

    fn plugins<'a>(&self, status: &'a Status) -> Vec<&'a PluginStatus> {
        status.plugins.iter().filter(|plugin| self.includes(&plugin.name)).collect()
    }
}

/// Start the workers of plugins that were stopped.
#[derive(Debug, Parser)]
#[command(name = "plugins.start")]
struct Start {
    #[command(flatten)]
    which: Which,
}

pub fn start() -> Result<Outcome, Diagnostic> {
    let which = Start::parse().which;
    let places = places()?;
    let line = Line::of_tool("- Collecting infos about plugins...");
    let Ok(status) = node_status(&places) else {
        line.error("");
        print("=> ERROR: can't connect to circus. Is the module started?\n");
        return failed();
    };
    line.ok("");
    let mut bad = false;
    for plugin in which.plugins(&status) {
        bad |= !start_plugin(&places, &status, &plugin.name, false);
    }
    Ok(if bad { Outcome::Code(1) } else { Outcome::Done })
}

/// Starts what is off of a plugin, a line for each watcher; false if something failed. On a
/// node that is `fresh`, what is not off has just been started.
pub fn start_plugin(places: &Places, status: &Status, plugin: &str, fresh: bool) -> bool {
    print(&format!("- Starting plugin: {plugin}\n"));
    let mut well = true;
    for watcher in of_plugin(status, plugin) {
        let line = Line::of_tool(&format!("    - Starting {}...", watcher.name));
        if watcher.wanted > 0 {
            match (watcher.ready, fresh) {
                (0, _) => line.warning(&format!("({})", watcher.state)),
                (_, true) => line.ok(""),
                (_, false) => line.warning("(already started)"),
            }
            continue;
        }
        match set_count(places, "plugins.start", &watcher.name, None) {
            Ok(()) => line.ok(""),
            Err(problem) => {
                line.error("");
                report::print_problem(&problem);
                well = false;
            }
        }
    }
    well
}

fn of_plugin<'a>(status: &'a Status, plugin: &'a str) -> impl Iterator<Item = &'a WatcherStatus> {
    status.watchers.iter().filter(move |watcher| watcher.plugin.as_deref() == Some(plugin))
}

/// Keeps that many workers of an app or extra daemon until its configuration changes or is
/// reloaded; `None` = what its configuration says.
pub fn set_count(
    places: &Places,
    command: &str,
    watcher: &WatcherName,
    count: Option<u32>,
) -> Result<(), Diagnostic> {
    let scale = Request::Scale { app: watcher.to_string(), count, keep: false };
    operate(places, command, scale, 0).map(drop)
}

/// Stop the workers of plugins, until they are started again.
#[derive(Debug, Parser)]
#[command(name = "plugins.stop")]
struct Stop {
    #[command(flatten)]
    which: Which,
}

pub fn stop() -> Result<Outcome, Diagnostic> {
    let which = Stop::parse().which;
    let places = places()?;
    let line = Line::of_tool("- Collecting infos about plugins...");
    let status = match node_status(&places) {
        Ok(status) => status,
        Err(problem) if problem.kind == Kind::NotRunning => {
            line.warning("(circus stopped)");
            return Ok(Outcome::Done);
        }
        Err(problem) => {
            line.error("");
            report::print_problem(&problem);
            return failed();
        }
    };
    line.ok("");
    let mut bad = false;
    for plugin in which.plugins(&status) {
        print(&format!("- Scheduling stop of plugin: {}\n", plugin.name));
        for watcher in of_plugin(&status, &plugin.name) {
            let line = Line::of_tool(&format!("    - Scheduling stop of {}...", watcher.name));
            if watcher.wanted == 0 {
                line.warning("(already stopped)");
                continue;
            }
            match set_count(&places, "plugins.stop", &watcher.name, Some(0)) {
                Ok(()) => line.ok(""),
                Err(problem) => {
                    line.error("");
                    report::print_problem(&problem);
                    bad = true;
                }
            }
        }
    }
    for plugin in which.plugins(&status) {
        print(&format!("- Waiting for stop of plugin: {}\n", plugin.name));
        for watcher in of_plugin(&status, &plugin.name) {
            let line = Line::of_tool(&format!("    - Waiting for {}...", watcher.name));
            match is_gone(&places, &watcher.name) {
                true => line.ok(""),
                false => {
                    line.error("");
                    bad = true;
                }
            }
        }
    }
    Ok(if bad { Outcome::Code(1) } else { Outcome::Done })
}

/// Waits until a watcher has no workers.
pub fn is_gone(places: &Places, watcher: &WatcherName) -> bool {
    let began = Instant::now();
    while began.elapsed() < GONE {
        match node_status(places) {
            Ok(status) => {
                let found = status.watchers.iter().find(|one| one.name == *watcher);
                if found.is_none_or(|found| found.workers.is_empty()) {
                    return true;
                }
            }
            Err(problem) if problem.kind == Kind::NotRunning => return true,
            Err(_) => {}
        }
        std::thread::sleep(LOOK);
    }
    false
}

/// Check plugins: their configuration, their workers, their own tests.
#[derive(Debug, Parser)]
#[command(name = "plugins.status")]
struct StatusOf {
    #[command(flatten)]
    which: Which,
}

pub fn status() -> Result<Outcome, Diagnostic> {
    let which = StatusOf::parse().which;
    let places = places()?;
    let Ok(status) = node_status(&places) else {
        let line = Line::of_tool("- Collecting infos about plugins...");
        line.error("");
        print("=> ERROR: can't connect to circus. Is the module started?\n");
        return failed();
    };
    let checks = Checks { places: &places, status: &status };
    let bad = which.plugins(&status).into_iter().filter(|plugin| !checks.plugin(plugin)).count();
    Ok(if bad == 0 { Outcome::Done } else { Outcome::Code(1) })
}

//! `mfserv.start`, `mfserv.stop` and `mfserv.init`: the node.

use std::time::Duration;

use clap::Parser;
use mfserv_core::keys::STARTUP_ENABLED;
use mfserv_core::{Diagnostic, Kind};
use mfserv_plugin::Silent;

use super::lines::{Line, banner};
use super::provision::provision;
use super::watchers::start_plugin;
use super::{failed, may_run, node_status, places, status};
use crate::cli::print;
use crate::cli::report::{self, Outcome};
use crate::cli::start::{
    bring_keeper, prepare, refuse_bad_certificates, refuse_bad_configuration, wait_until_running,
};
use crate::cli::stop;
use mfserv_node::configure;
use mfserv_node::places::Places;

/// How long a node may take to run.
const START: Duration = Duration::from_secs(300);

/// Start everything, and check that it runs.
#[derive(Debug, Parser)]
#[command(name = "mfserv.start")]
struct Start {
    /// NOINIT: install no plugin, neither our own nor the site's.
    #[arg(value_parser = ["NOINIT"])]
    noinit: Option<String>,
}

pub fn start() -> Result<Outcome, Diagnostic> {
    let args = Start::parse();
    if !may_run("mfserv.start") {
        return failed();
    }
    let places = places()?;
    let module = configure::module(&places, &[])?;
    refuse_bad_configuration(&module)?;
    if !module.resolution.config.get(STARTUP_ENABLED) {
        print("MFSERV_STARTUP_FLAG=0 => nothing to start\n");
        return Ok(Outcome::Done);
    }
    refuse_bad_certificates(&places, &module)?;
    match args.noinit {
        None => {
            prepare(&places, &module)?;
            provision(&places);
        }
        Some(_) => places.create()?,
    }
    banner("STARTING MFSERV");
    if !status::configuration(&places) {
        print("ERROR(S) DETECTED DURING MFSERV CHECK\n");
        return failed();
    }
    let line = Line::of_shell("- Starting circus...");
    let fresh = match bring_keeper(&places, &[], &mut Silent) {
        Ok(fresh) => fresh,
        Err(problem) => {
            line.error("");
            return Err(problem);
        }
    };
    if fresh {
        line.ok("")
    } else {
        line.warning("(already started)")
    }
    let line = Line::of_shell("- Waiting for circus daemon...");
    let running = match wait_until_running(&places, START, &mut Silent) {
        Ok(running) => {
            line.ok("");
            running
        }
        Err(problem) => {
            line.error("");
            report::print_problem(&problem);
            if fresh && problem.kind == Kind::Refused {
                // Nothing serves yet, and nothing will: no half of a node stays.
                let _ = stop::shut_down(&places);
            }
            return failed();
        }
    };
    for plugin in &running.plugins {
        start_plugin(&places, &running, &plugin.name, fresh);
    }
    status::check_all(&places, true)
}

/// Stop everything; nothing is left.
#[derive(Debug, Parser)]
#[command(name = "mfserv.stop")]
struct Stop {
    /// (KEEPCRON, accepted as before)
    #[arg(value_name = "KEEPCRON", value_parser = ["KEEPCRON"])]
    _keepcron: Option<String>,
}

pub fn stop() -> Result<Outcome, Diagnostic> {
    Stop::parse();
    if !may_run("mfserv.stop") {
        return failed();
    }
    let places = places()?;
    if stop::is_switched_off(&places) {
        print("MFSERV_STARTUP_FLAG=0 => nothing to start\n");
        return Ok(Outcome::Done);
    }
    stop_node(&places)
}

fn stop_node(places: &Places) -> Result<Outcome, Diagnostic> {
    banner("STOPPING MFSERV");
    let line = Line::of_shell("- Stopping plugins and nginx...");
    let ran = node_status(places).is_ok();
    let stopped = stop::stop(places, false, &mut Silent);
    match (&stopped, ran) {
        (Err(_), _) => line.error(""),
        (Ok(_), true) => line.ok(""),
        (Ok(_), false) => line.warning("(circus stopped)"),
    }
    let line = Line::of_shell("- Stopping circus...");
    match stopped {
        Ok(true) => line.ok(""),
        Ok(false) => line.warning("(already stopped)"),
        Err(problem) => {
            line.error("");
            return Err(problem);
        }
    }
    Ok(Outcome::Done)
}

/// Stop everything and remove the plugins, their data, logs and temporary files.
#[derive(Debug, Parser)]
#[command(name = "mfserv.init")]
struct Init {
    /// soft: only stop.
    #[arg(value_parser = ["soft"])]
    soft: Option<String>,
}

pub fn init() -> Result<Outcome, Diagnostic> {
    let args = Init::parse();
    if !may_run("mfserv.init") {
        return failed();
    }
    let places = places()?;
    stop_node(&places)?;
    if args.soft.is_none() {
        let line = Line::of_shell("- Removing plugins, logs and temporary files...");
        match empty(&places) {
            Ok(()) => line.ok(""),
            Err(problem) => {
                line.error("");
                return Err(problem);
            }
        }
    }
    places.create()?;
    Ok(Outcome::Done)
}

/// Empties `tmp`, `var` and `log`. The base environments of Python stay: they are not of this
/// node's state, and making them needs a network.
fn empty(places: &Places) -> Result<(), Diagnostic> {
    for dir in [places.tmp(), places.var(), places.log()] {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            if path == places.var().join("base") {
                continue;
            }
            let real = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let removed = match real {
                true => std::fs::remove_dir_all(&path),
                false => std::fs::remove_file(&path),
            };
            removed.map_err(|e| {
                Diagnostic::error(format!("cannot remove {}", path.display())).because(e)
            })?;
        }
    }
    Ok(())
}

//! `mfserv.status` and `nginx.status`: checks, a line for each.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use mfserv_core::keys::NGINX_ENABLED;
use mfserv_core::plan::PluginState;
use mfserv_core::plugin_spec::AppSpec;
use mfserv_core::status::{PluginStatus, Status, WatcherState, WatcherStatus};
use mfserv_core::{Diagnostic, Severity};

use super::http::get;
use super::lines::{Line, banner};
use super::{failed, may_run, node_status, places};
use crate::cli::keeper::LOOK;
use crate::cli::plugins::env::load;
use crate::cli::print;
use crate::cli::report::{self, Outcome};
use mfserv_node::configure;
use mfserv_node::daemon::{self, DaemonOptions};
use mfserv_node::places::Places;

/// How long the front may take to answer.
const FRONT: Duration = Duration::from_secs(10);
/// How long a plugin without a ready worker is given to get one.
const WORKERS: Duration = Duration::from_secs(5);
/// How long a plugin's own status program may take.
const CUSTOM: Duration = Duration::from_secs(30);

/// Check everything.
#[derive(Debug, Parser)]
#[command(name = "mfserv.status")]
struct Args {
    /// QUIET: no banner, no checks of configurations or plugins.
    #[arg(value_parser = ["QUIET"])]
    quiet: Option<String>,
}

pub fn run() -> Result<Outcome, Diagnostic> {
    let args = Args::parse();
    if !may_run("mfserv.status") {
        return failed();
    }
    check_all(&places()?, args.quiet.is_some())
}

/// Exit code 1 if the node itself is not well; plugins that are not well are said.
pub fn check_all(places: &Places, quiet: bool) -> Result<Outcome, Diagnostic> {
    if !quiet {
        banner("STATUS MFSERV");
    }
    let line = Line::of_shell("- Checking circus status...");
    let status = match node_status(places) {
        Ok(status) if status.keeper.is_some() => {
            line.ok("");
            status
        }
        Ok(_) => {
            line.error("");
            print("=> the keeper is gone: `mfserv.start` brings a new one\n");
            return errors();
        }
        Err(problem) => {
            line.error("");
            report::print_problem(&problem);
            return errors();
        }
    };
    let mut well = true;
    if !quiet {
        well &= configuration(places);
    }
    // A node without a front has nothing of it to check.
    if configure::module(places, &[])?.resolution.config.get(NGINX_ENABLED) {
        well &= front(places, &status);
    }
    if !well {
        return errors();
    }
    if !quiet {
        let checks = Checks { places, status: &status };
        let bad = status.plugins.iter().filter(|plugin| !checks.plugin(plugin)).count();
        if bad > 0 {
            print("WARNING: SOME ERRORS DETECTED DURING MFSERV PLUGINS CHECK\n");
        }
    }
    print("OK !\n");
    Ok(Outcome::Done)
}

fn errors() -> Result<Outcome, Diagnostic> {
    print("ERROR(S) DETECTED DURING MFSERV CHECK\n");
    failed()
}

/// Whether the configuration can be read; a plugin that is refused is no error of the node.
pub fn configuration(places: &Places) -> bool {
    let line = Line::of_shell("- Checking circus conf generation...");
    let options = DaemonOptions { places: places.clone(), sets: Vec::new() };
    match daemon::look(&options).map(|looked| looked.plan.problems) {
        Ok(problems) => {
            let errors = problems.iter().any(|problem| problem.severity == Severity::Error);
            if errors {
                line.warning("")
            } else {
                line.ok("")
            }
            problems.iter().for_each(report::print_problem);
            true
        }
        Err(problem) => {
            line.error("");
            report::print_problem(&problem);
            false
        }
    }
}

fn front(places: &Places, status: &Status) -> bool {
    let line = Line::of_shell("- Checking nginx...");
    let faults = || status.front_warnings.iter().filter(|(_, warned)| warned.is_fault);
    let serves = status.front().is_some_and(|front| front.ready > 0) && faults().next().is_none();
    if serves {
        line.ok("")
    } else {
        line.error("")
    }
    faults().for_each(|(fault, _)| report::print_problem(&Diagnostic::error(fault)));
    let line = Line::of_shell("- Checking nginx uuid...");
    match same_uuid(places, status) {
        Ok(()) => line.ok(""),
        Err(problem) => {
            line.error("");
            report::print_problem(&problem);
            return false;
        }
    }
    serves
}

/// The port of this node is answered by this node.
fn same_uuid(places: &Places, status: &Status) -> Result<(), Diagnostic> {
    if listens_for_tls_alone(status) {
        // Its certificate is for another name than the address here: that the front lives has to do.
        return Ok(());
    }
    let address = address(status)?;
    let page = get(&address, "/uuid", FRONT, false)?;
    let own = std::fs::read_to_string(places.var().join("uuid")).unwrap_or_default();
    match page.status == 200 && page.body.trim() == own.trim() {
        true => Ok(()),
        false => Err(Diagnostic::error(format!("another program answers at http://{address}"))
            .because(format!("/uuid says {:?} with status {}", page.body.trim(), page.status))),
    }
}

fn listens_for_tls_alone(status: &Status) -> bool {
    status.address.as_deref().is_some_and(|url| url.starts_with("https://"))
}

fn address(status: &Status) -> Result<String, Diagnostic> {
    let address = status.address.as_deref().and_then(|url| url.strip_prefix("http://"));
    address.map(str::to_owned).ok_or_else(|| Diagnostic::error("the node listens nowhere"))
}

/// Exit 0 if the web front of this node answers on its port, else 1.
#[derive(Debug, Parser)]
#[command(name = "nginx.status")]
struct NginxStatus {}

pub fn nginx_status() -> Result<Outcome, Diagnostic> {
    NginxStatus::parse();
    let places = places()?;
    node_status(&places).and_then(|status| same_uuid(&places, &status))?;
    Ok(Outcome::Done)
}

/// The checks of plugins.
pub struct Checks<'a> {
    /// The node.
    pub places: &'a Places,
    /// What the daemon says of it.
    pub status: &'a Status,
}

impl Checks<'_> {
    /// Checks a plugin, a line for each check; false if one has failed.
    pub fn plugin(&self, plugin: &PluginStatus) -> bool {
        let name = &plugin.name;
        let loaded = load(self.places, name);
        let apps = loaded.iter().flat_map(|(_, loaded)| &loaded.spec.apps);
        let dead: Vec<String> = apps.filter_map(never_answers).collect();
        let mut well = said(name, "basic", || [basic(self.status, plugin), dead.clone()].concat());
        well &= said(name, "processes", || self.processes(name));
        let Ok((_, loaded)) = loaded else { return false };
        for test in loaded.spec.apps.iter().filter_map(|app| app.http_test.as_ref()) {
            well &= said(name, "http", || self.http(test));
        }
        if std::path::Path::new(&plugin.dir).join("bin/plugin.status").exists() {
            well &= said(name, "custom", || self.custom(plugin, &loaded.secrets.with(&loaded.env)));
        }
        well
    }

    /// Every watcher has a ready worker; one that has none is looked at again for a while.
    fn processes(&self, plugin: &str) -> Vec<String> {
        let of_plugin = |status: &Status| -> Vec<String> {
            let own = |watcher: &&WatcherStatus| watcher.plugin.as_deref() == Some(plugin);
            status.watchers.iter().filter(own).filter_map(not_well).collect()
        };
        let began = Instant::now();
        let mut reasons = of_plugin(self.status);
        while !reasons.is_empty() && began.elapsed() < WORKERS {
            std::thread::sleep(LOOK);
            reasons = node_status(self.places).map_or(reasons, |status| of_plugin(&status));
        }
        reasons
    }
}

/// A line for a check, and what speaks against; true if nothing does.
fn said(name: &str, what: &str, reasons: impl Fn() -> Vec<String>) -> bool {
    let line = Line::of_tool(&format!("- Checking plugin: {name} ({what})..."));
    let reasons = reasons();
    match reasons.is_empty() {
        true => line.ok(""),
        false => line.warning(""),
    }
    reasons.iter().for_each(|reason| print(&format!("=> {reason}\n")));
    reasons.is_empty()
}

/// Why no request of an app is answered by the app, if that is so.
fn never_answers(app: &AppSpec) -> Option<String> {
    let name = &app.command.name;
    let nothing = app.command.count == 0 && !app.static_routing;
    nothing.then(|| format!("the app {name} has no workers and no files: it answers nothing"))
}

fn basic(status: &Status, plugin: &PluginStatus) -> Vec<String> {
    if plugin.state == PluginState::Active {
        return Vec::new();
    }
    let errors = status.problems.iter().filter(|problem| problem.is_error());
    let own = errors.filter(|problem| problem.is_about(&plugin.name)).map(ToString::to_string);
    std::iter::once(format!("the plugin is {}", plugin.state)).chain(own).collect()
}

fn not_well(watcher: &WatcherStatus) -> Option<String> {
    let name = &watcher.name;
    match (watcher.ready, watcher.state) {
        (1.., _) => None,
        (_, WatcherState::Off) => Some(format!("the status of the watcher: {name} is stopped")),
        _ => Some(format!("all processes for watcher: {name} are missing or too fresh")),
    }
}

impl Checks<'_> {
    /// The page that the plugin names answers as it says; asked until its time is over.
    fn http(&self, test: &mfserv_core::plugin_spec::HttpTest) -> Vec<String> {
        let url = |address: &str| format!("http://{address}{}", test.path);
        let address = match address(self.status) {
            Ok(address) => address,
            Err(_) if listens_for_tls_alone(self.status) => {
                let what = "configured http test: ";
                return vec![format!("{what}{} needs [nginx] port", test.path)];
            }
            Err(problem) => return vec![problem.what],
        };
        let redirects = self.status.tls_address.is_some();
        let patience = Duration::from_secs(test.timeout_s.max(1));
        let began = Instant::now();
        loop {
            let left = patience.saturating_sub(began.elapsed());
            let page = get(&address, &test.path, left.max(LOOK), redirects);
            if page.is_ok_and(|page| page.status == test.status && page.body.contains(&test.body)) {
                return Vec::new();
            }
            if began.elapsed() >= patience {
                return vec![format!("configured http test: {}  is failing", url(&address))];
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Runs the plugin's own `bin/plugin.status` in its environment and directory.
    fn custom(
        &self,
        plugin: &PluginStatus,
        env: &std::collections::BTreeMap<String, String>,
    ) -> Vec<String> {
        let log = self.places.tmp().join(format!("plugin.status.{}.log", plugin.name));
        let code = std::fs::File::create(&log)
            .and_then(|out| Ok((out.try_clone()?, out)))
            .and_then(|(out, err)| {
                let program = std::path::Path::new(&plugin.dir).join("bin/plugin.status");
                #[expect(
                    clippy::disallowed_methods,
                    reason = "the checks that a plugin brings are programs"
                )]
                let mut command = Command::new(program);
                command.env_clear().envs(env).current_dir(&plugin.dir).process_group(0);
                command.stdin(Stdio::null()).stdout(out).stderr(err).spawn()
            })
            .and_then(|mut child| ends_within(&mut child, CUSTOM));
        let code = match code {
            Ok(0) => {
                let _ = std::fs::remove_file(log);
                return Vec::new();
            }
            Ok(code) => code.to_string(),
            Err(error) => error.to_string(),
        };
        vec![format!(
            "bad status code: {code} for plugin.status (see {} for details)",
            log.display()
        )]
    }
}

/// The exit code of a child, which is killed with its group when the time is over.
pub fn ends_within(child: &mut std::process::Child, patience: Duration) -> std::io::Result<i32> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code().unwrap_or(-1));
        }
        if began.elapsed() > patience {
            if let Some(group) =
                i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw)
            {
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            child.wait()?;
            return Err(std::io::Error::other(format!("none within {} s", patience.as_secs())));
        }
        std::thread::sleep(LOOK);
    }
}

//! `restart`, `reload`, `scale`, `upgrade`: a running node changes, under load.

use std::time::{Duration, Instant};

use clap::Args;
use clap_complete::ArgValueCompleter;
use mfserv_core::names::WatcherName;
use mfserv_core::status::{Status, WatcherStatus};
use mfserv_core::wire::keeper as keep;
use mfserv_core::{Diagnostic, Kind};
use serde_json::json;

use super::completions;
use super::keeper::{self, LOOK, QUICK};
use super::operation::{Operation, print_warnings};
use super::plan;
use super::plugins::app_names::{no_app, parts};
use super::print;
use super::progress::Steps;
use super::reach;
use super::report::{self, Outcome};
use super::start::wait_until_running;
use mfserv_node::control::client;
use mfserv_node::operations::{Applied, Request};
use mfserv_node::places::Places;
use mfserv_node::{certificates, configure};

/// How long an operation that changes workers is waited for.
#[derive(Debug, Args)]
pub struct Wait {
    /// Return before the change is served.
    #[arg(long)]
    pub no_wait: bool,
    /// Longest wait, seconds.
    #[arg(long, default_value_t = 120)]
    pub timeout: u64,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

impl Wait {
    /// How long is waited; 0 = not at all.
    pub fn seconds(&self) -> u64 {
        if self.no_wait { 0 } else { self.timeout.max(1) }
    }
}

/// Has a running node changed, and says what changed. What is refused of these plugins (an
/// empty list: of any) is the failure that JSON has.
pub fn change(
    places: &Places,
    command: &str,
    wait: &Wait,
    request: Request,
    plugins: Option<&[String]>,
) -> Result<Applied, Diagnostic> {
    let applied = changed(places, command, wait, request, plugins)?;
    say(wait, &applied);
    Ok(applied)
}

fn changed(
    places: &Places,
    command: &str,
    wait: &Wait,
    request: Request,
    plugins: Option<&[String]>,
) -> Result<Applied, Diagnostic> {
    let mut op = Operation::new(places, command, wait)?;
    let mut submitted = op.submit(request);
    if let (Ok(outcome), Some(plugins), true) = (&mut submitted, plugins, wait.json) {
        let applied = outcome.applied.as_ref();
        let refused = applied.and_then(|applied| refused(applied, plugins)).cloned();
        outcome.problem = outcome.problem.take().or(refused);
        outcome.ok = outcome.problem.is_none();
    }
    let outcome = op.end(submitted, json!({}))?;
    if !wait.json {
        print_warnings(&outcome);
    }
    Ok(outcome.applied.unwrap_or_default())
}

fn say(wait: &Wait, applied: &Applied) {
    if !wait.json {
        print(&format!("done: {}\n", applied.changes));
        applied.problems.iter().for_each(report::print_problem);
    }
}

#[derive(Debug, Args)]
pub struct Restart {
    /// Plugins (`foo`), apps (`foo.main`) or `front`; without any: everything.
    #[arg(add = ArgValueCompleter::new(completions::apps))]
    apps: Vec<String>,
    #[command(flatten)]
    wait: Wait,
}

impl Restart {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let plugins: Vec<String> = self.apps.iter().map(|app| plugin_of(app)).collect();
        let news = if self.wait.json { String::new() } else { plan::of_restart(places) };
        let request = Request::Restart { apps: self.apps.clone() };
        let applied = changed(places, "restart", &self.wait, request, Some(&plugins))?;
        let refused = applied.problems.iter().any(Diagnostic::is_error);
        if !refused {
            print(&news);
        }
        say(&self.wait, &applied);
        Ok(outcome(&applied, &plugins))
    }
}

#[derive(Debug, Args)]
pub struct Reload {
    /// Change nothing: show what would change, as `mfserv plan` does.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    wait: Wait,
}

impl Reload {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        if self.dry_run {
            return plan::of_running(places, self.wait.json);
        }
        let applied = change(places, "reload", &self.wait, Request::Reload, Some(&[]))?;
        Ok(outcome(&applied, &[]))
    }
}

/// What was accepted is applied, and what was refused has been printed: the code is that of the
/// first error that is about one of these plugins. None = all, and the node itself.
fn outcome(applied: &Applied, plugins: &[String]) -> Outcome {
    let refused = refused(applied, plugins);
    refused.map_or(Outcome::Done, |problem| Outcome::Code(problem.kind.exit_code()))
}

fn refused<'a>(applied: &'a Applied, plugins: &[String]) -> Option<&'a Diagnostic> {
    let concerns = |problem: &&Diagnostic| {
        let about = plugins.iter().any(|plugin| problem.is_about(plugin));
        problem.is_error() && (plugins.is_empty() || about)
    };
    applied.problems.iter().find(concerns)
}

/// The plugin of `foo`, `foo.main` or `app.foo.main`.
fn plugin_of(app: &str) -> String {
    parts(app).0.split('/').next().unwrap_or_default().to_string()
}

#[derive(Debug, Args)]
pub struct Scale {
    /// The app (`foo`, `foo.main`).
    #[arg(add = ArgValueCompleter::new(completions::apps))]
    app: String,
    /// The number of workers. It is written as `numprocesses` into config/plugins/NAME.ini, and
    /// stays over reload, restart and deployments.
    #[arg(required_unless_present = "reset")]
    count: Option<String>,
    /// Take back what `mfserv scale` has written: the number is as configured again.
    #[arg(long, conflicts_with = "count")]
    reset: bool,
    #[command(flatten)]
    wait: Wait,
}

impl Scale {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let count = match self.count.as_deref() {
            None | Some("config") => None,
            Some(text) => {
                Some(text.parse::<u32>().ok().filter(|n| *n <= 4096).ok_or_else(|| {
                    Diagnostic::error(format!("{text:?} is not a number of workers"))
                        .kind(Kind::Usage)
                        .help("say a number from 0 to 4096, or --reset")
                })?)
            }
        };
        let plugins = [plugin_of(&self.app)];
        let scale = Request::Scale { app: self.app, count, keep: true };
        let applied = change(places, "scale", &self.wait, scale, Some(&plugins))?;
        Ok(outcome(&applied, &plugins))
    }
}

/// Stops apps, or starts what was stopped so. Their configuration stays as it is.
pub fn switch(
    places: &Places,
    apps: &[String],
    on: bool,
    wait: &Wait,
) -> Result<Outcome, Diagnostic> {
    let command = if on { "start" } else { "stop" };
    let status = reach::status(places)?;
    // Nothing is changed when one of the names is wrong.
    apps.iter().try_for_each(|app| named(&status, app).map(drop))?;
    for app in apps {
        let count = if on { None } else { Some(0) };
        let scale = Request::Scale { app: app.clone(), count, keep: false };
        let applied = changed(places, command, wait, scale, None)?;
        if on && !wait.no_wait {
            let status = client::status(&places.control_socket(), QUICK)?;
            let watcher = named(&status, app)?;
            if watcher.wanted == 0 {
                return Err(Diagnostic::error(format!("{} has no workers", watcher.name))
                    .kind(Kind::Refused)
                    .because("its configuration says numprocesses=0")
                    .help(format!("`mfserv scale {app} N` changes that")));
            }
        }
        say(wait, &applied);
        if !on && !wait.json {
            print(&format!(
                "{app} is stopped until `mfserv start {app}`, a restart by name, a new release or a start of the node; \
                 `mfserv scale {app} 0` lasts longer\n"
            ));
        }
    }
    Ok(Outcome::Done)
}

/// The one app or extra daemon that a name means; an app goes before an extra daemon.
fn named<'a>(status: &'a Status, name: &str) -> Result<&'a WatcherStatus, Diagnostic> {
    let dotted = name.replace('/', ".");
    let (plugin, app) = parts(&dotted);
    let of: Vec<&WatcherStatus> =
        status.watchers.iter().filter(|one| one.plugin.as_deref() == Some(plugin)).collect();
    let apps: Vec<&WatcherStatus> =
        of.iter().filter(|one| one.name.as_str().starts_with("app.")).copied().collect();
    let find = |own: WatcherName| of.iter().find(|one| one.name == own).copied();
    let found = match (app, &apps[..], &of[..]) {
        (Some(app), ..) if dotted.starts_with("extra.") => find(WatcherName::extra(plugin, app)),
        (Some(app), ..) => {
            find(WatcherName::app(plugin, app)).or_else(|| find(WatcherName::extra(plugin, app)))
        }
        (None, [one], _) | (None, [], [one]) => Some(*one),
        (None, [], []) => None,
        (None, [], several) | (None, several, _) => {
            let names: Vec<&str> = several.iter().map(|one| one.name.as_str()).collect();
            return Err(Diagnostic::error(format!("{name} has several apps"))
                .kind(Kind::Usage)
                .because(names.join(", "))
                .help("say which one: PLUGIN.APP"));
        }
    };
    found.ok_or_else(|| match app {
        Some(app) if !of.is_empty() => {
            no_app(plugin, app, &of.iter().map(|one| one.name.short()).collect::<Vec<_>>())
        }
        _ => {
            let own = status.watchers.iter().filter(|one| one.plugin.is_some());
            let names: Vec<&str> = own.map(|one| one.name.as_str()).collect();
            Diagnostic::error(format!("no app is called {name}"))
                .kind(Kind::Usage)
                .help(format!("there are: {}", names.join(", ")))
        }
    })
}

#[derive(Debug, Args)]
pub struct Upgrade {
    #[command(flatten)]
    wait: Wait,
}

impl Upgrade {
    /// Keeper by execve, then the daemon, then the front by handover. Apps are not touched.
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let before: Status = client::status(&places.control_socket(), QUICK)?;
        // The next front would have none of the certificates that this one has read.
        certificates::inspect(&configure::module(places, &[])?)?;
        let mut keeper = keeper::connect(places)?;
        if let keep::Answer::Refused { reason, .. } =
            keeper.ask(keep::Ask::Upgrade { program: mfserv_node::program() })?
        {
            return Err(Diagnostic::error("the keeper goes on as it was").because(reason));
        }
        drop(keeper);
        let mut keeper = keeper::reconnect(places)?;
        let daemon = mfserv_keeper::DAEMON.to_string();
        keeper.ask(keep::Ask::Signal { id: daemon, signal: 15, scope: keep::Scope::Process })?;
        let mut steps = Steps::new();
        let began = Instant::now();
        while wait_until_running(places, Duration::from_secs(60), &mut steps)?.daemon.pid
            == before.daemon.pid
        {
            if began.elapsed() > Duration::from_secs(60) {
                return Err(Diagnostic::error("the daemon was not replaced").kind(Kind::Timeout));
            }
            std::thread::sleep(LOOK);
        }
        steps.finish();
        let front = Request::Restart { apps: vec!["front".into()] };
        change(places, "upgrade", &self.wait, front, None)?;
        Ok(Outcome::Done)
    }
}

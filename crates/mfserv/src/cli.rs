//! The command line: flags, and one call each. Nothing is decided here.

mod alerts;
mod completions;
mod config;
mod events;
mod help;
mod history;
mod interrupt;
mod jobs;
pub mod keeper;
mod logs;
mod maintenance;
mod man;
mod metrics;
pub mod operate;
pub mod operation;
mod operations;
pub mod output;
mod plan;
pub mod plugins;
pub mod progress;
pub mod reach;
pub mod report;
mod roles;
pub mod ship;
mod show;
pub mod socket_activate;
mod sparkline;
pub mod start;
mod status;
pub mod stop;
mod top;
mod unknown;

use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};
use mfserv_core::{Diagnostic, Kind};

use mfserv_node::configure::Set;
use mfserv_node::places::Places;
pub use output::{complain, print};
use report::Outcome;

/// A private PaaS in one binary: develop, run and manage web services on your own server.
#[derive(Debug, Parser)]
#[command(name = "mfserv", version, max_term_width = 100)]
struct Cli {
    /// The runtime home (else MFMODULE_RUNTIME_HOME, ~/metwork/mfserv, ~/mfserv).
    #[arg(long, global = true, value_name = "DIR")]
    home: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the node in the background and wait until it runs; or an app that was stopped.
    Start(start::Start),
    /// Finish the requests in flight, then stop all processes of the node, or an app.
    Stop(stop::Stop),
    /// Replace the workers of some apps, or all workers and the front, without losing a request.
    Restart(operate::Restart),
    /// Read configuration and plugins again, and apply the changes.
    Reload(operate::Reload),
    /// Run the node in the foreground, for systemd and containers; or a command beside an app.
    Run(start::Run),
    /// Replace the running mfserv by this version, without losing a request.
    Upgrade(operate::Upgrade),
    /// Change the number of workers of an app.
    Scale(operate::Scale),
    /// Have the front answer in place of apps for a time, or let their requests wait.
    Maintenance(maintenance::Maintenance),
    /// Show what runs, what fails and why.
    Status(status::StatusOf),
    /// Show the processes of workers: phase, memory, CPU.
    Ps(show::Look),
    /// Show the logs of apps, extra daemons and roles.
    Logs(logs::Logs),
    /// Show what was counted: requests, durations, workers, memory.
    Metrics(metrics::Metrics),
    /// Show live what apps and workers do; restart an app.
    Top(top::Top),
    /// Show what was counted in the last minutes, days or weeks.
    History(history::HistoryOf),
    /// Show the alerts of the configuration: which fire, since when, with which value.
    Alerts(alerts::Alerts),
    /// Show jobs: when each runs next, how it ended last; run one now; show its runs.
    Jobs(jobs::Jobs),
    /// Show events: starts, ends and their reasons, changes.
    Events(events::Events),
    /// Show the last operations: what changed the node, by whom, and the outcome.
    Operations(operations::Operations),
    /// Wait for an operation; exits as it does.
    Wait(operations::WaitFor),
    /// Show what a reload would change, or a start of a node that does not run; changes nothing.
    Plan(plan::Plan),
    /// Check the configuration and every plugin; changes nothing.
    Check(config::Check),
    /// Show and change the configuration.
    Config(config::Config),
    /// Make the base environment: the Python packages that every plugin may use.
    Setup(plugins::Setup),
    /// Make a new plugin from a template.
    New(plugins::New),
    /// Build the environment of an app or a plugin: Python packages, node_modules.
    Build(plugins::Build),
    /// Run an app or a plugin from its directory, and serve each edit.
    Dev(plugins::Dev),
    /// Build an app or a plugin, and serve it from a release of its own, in one go.
    Deploy(plugins::Deploy),
    /// Write the files of a plugin into the directory of an app.
    Init(plugins::Init),
    /// Build an app or a plugin and pack it into one file.
    Release(plugins::Release),
    /// Install a package, or a new release of an installed plugin without losing a request.
    Install(plugins::Install),
    /// Uninstall a plugin.
    Uninstall(plugins::Uninstall),
    /// Install a new release of a plugin, which must be installed.
    Hotswap(plugins::Hotswap),
    /// List the releases of a plugin that `rollback` can return to.
    Releases(plugins::Releases),
    /// Return to an earlier release without losing a request.
    Rollback(plugins::Rollback),
    /// Pack an installed plugin, with the configuration that the administrator has changed.
    Repackage(plugins::Repackage),
    /// List the installed plugins.
    List(plugins::List),
    /// Describe an installed plugin, or what the installation of a package would do.
    Info(plugins::Info),
    /// Print the environment variables of a plugin's programs; set, unset or list those of this node.
    Env(plugins::Env),
    /// Run a command in the environment of a plugin.
    Exec(plugins::Exec),
    /// Type into an app: a shell of its language, with its packages, variables and secrets.
    Shell(plugins::Shell),
    /// Print where an app answers, and open it in a browser.
    Open(plugins::Open),
    /// Ship the lines of files to Elasticsearch, OpenSearch, Loki or a receiver of JSON.
    Ship(Box<ship::Ship>),
    /// Print the completion script of a shell.
    Completions(completions::Completions),
    /// Print mfserv(1), or write all manual pages.
    Man(man::Pages),
}

/// Parses the command line and runs what it says.
pub fn run() -> Result<Outcome, Diagnostic> {
    completions::answer(Cli::command);
    if roles::is_asked(std::env::args_os()) {
        return roles::run();
    }
    let cli = unknown::parse()?;
    match cli.command {
        Command::Completions(args) => return args.run(),
        Command::Man(args) => return args.run(help::with_examples()),
        Command::Ship(args) => return args.run(),
        _ => {}
    }
    let places = Places::choose(cli.home.as_deref())?;
    reach::until_reachable(&places);
    match cli.command {
        Command::Start(args) => args.run(&places),
        Command::Stop(args) => args.run(&places),
        Command::Restart(args) => args.run(&places),
        Command::Reload(args) => args.run(&places),
        Command::Run(args) => args.run(&places),
        Command::Upgrade(args) => args.run(&places),
        Command::Scale(args) => args.run(&places),
        Command::Maintenance(args) => args.run(&places),
        Command::Status(args) => args.run(&places),
        Command::Ps(args) => args.ps(&places),
        Command::Logs(args) => args.run(&places),
        Command::Metrics(args) => args.run(&places),
        Command::Top(args) => args.run(&places),
        Command::History(args) => args.run(&places),
        Command::Alerts(args) => args.run(&places),
        Command::Jobs(args) => args.run(&places),
        Command::Events(args) => args.run(&places),
        Command::Operations(args) => args.run(&places),
        Command::Wait(args) => args.run(&places),
        Command::Plan(args) => args.run(&places),
        Command::Check(args) => args.run(&places),
        Command::Config(args) => args.run(&places),
        Command::Setup(args) => args.run(&places),
        Command::New(args) => args.run(&places),
        Command::Build(args) => args.run(&places),
        Command::Dev(args) => args.run(&places),
        Command::Deploy(args) => args.run(&places),
        Command::Init(args) => args.run(),
        Command::Release(args) => args.run(&places),
        Command::Install(args) => args.run(&places, "install"),
        Command::Uninstall(args) => args.run(&places),
        Command::Hotswap(args) => args.run(&places),
        Command::Releases(args) => args.run(&places),
        Command::Rollback(args) => args.run(&places),
        Command::Repackage(args) => args.run(&places),
        Command::List(args) => args.run(&places),
        Command::Info(args) => args.run(&places),
        Command::Env(args) => args.run(&places),
        Command::Exec(args) => args.run(&places),
        Command::Shell(args) => args.run(&places),
        Command::Open(args) => args.run(&places),
        Command::Completions(_) | Command::Man(_) | Command::Ship(_) => Ok(Outcome::Done),
    }
}

/// `--set section.key=value`, as given.
fn sets(texts: &[String]) -> Result<Vec<Set>, Diagnostic> {
    let parse =
        |text: &String| mfserv_core::layers::parse_set(text).map_err(|p| p.kind(Kind::Usage));
    texts.iter().map(parse).collect()
}

/// Prints a value as JSON.
fn print_json<T: serde::Serialize>(value: &T) -> Result<(), Diagnostic> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Diagnostic::error("cannot print this as JSON").because(e))?;
    print(&format!("{text}\n"));
    Ok(())
}

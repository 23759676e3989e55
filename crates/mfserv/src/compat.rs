//! MFSERV's commands: this binary, called under one of their names, behaves as they
//! did: what they print, and how they exit. What they do is done by the same code as that of
//! the new commands.

mod autorestart;
mod bootstrap;
mod boxes;
mod circusctl;
mod cronwrap;
mod environment;
mod http;
mod install;
mod jobs;
mod layers;
mod lines;
pub mod links;
mod look;
mod make;
mod node;
mod php;
mod provision;
mod ship;
mod status;
mod watchers;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mfserv_core::plan::OWN_PROGRAMS;
use mfserv_core::status::Status;
use mfserv_core::{Diagnostic, Kind};
use mfserv_plugin::Cancel;

use crate::cli::complain;
use crate::cli::operation::Operation;
use crate::cli::reach;
use crate::cli::report::Outcome;
use crate::cli::socket_activate;
use mfserv_node::control::client;
use mfserv_node::operations::{Outcome as OperationOutcome, Request};
use mfserv_node::places::Places;

/// Runs a command with the arguments of this process.
pub type Run = fn() -> Result<Outcome, Diagnostic>;

/// Every command, by name. Those that begin with `_` are for `share/plugin.mk` and
/// `share/profile`.
const COMMANDS: &[(&str, Run)] = &[
    ("_circusctl", circusctl::run),
    ("_make_and_install_crontab.sh", jobs::instead),
    ("_make_crontab.py", jobs::make_crontab),
    ("_mfserv.env", environment::module_env),
    ("_plugins.build", make::build),
    ("_plugins.clean", make::clean),
    ("_plugins.develop", make::develop),
    ("_plugins.make", make::pack),
    ("_uninstall_crontab.sh", jobs::instead),
    ("bootstrap_plugin.py", bootstrap::run),
    ("circusctl", circusctl::run),
    ("cronwrap.sh", cronwrap::run),
    ("deploycron_file", jobs::instead),
    ("echo_bold", lines::echo),
    ("echo_clean", lines::echo),
    ("echo_nok", lines::echo),
    ("echo_ok", lines::echo),
    ("echo_running", lines::echo),
    ("echo_warning", lines::echo),
    ("is_layer_installed", environment::is_layer_installed),
    ("is_layer_loaded", environment::is_layer_loaded),
    ("jsonlog2elasticsearch", ship::jsonlog2elasticsearch),
    ("layer_wrapper", layers::layer_wrapper),
    ("mflog2mfadmin", ship::mflog2mfadmin),
    ("mfserv.autorestart", autorestart::run),
    ("mfserv.init", node::init),
    ("mfserv.start", node::start),
    ("mfserv.status", status::run),
    ("mfserv.stop", node::stop),
    ("mfserv_wrapper", environment::mfserv_wrapper),
    ("nginx.status", status::nginx_status),
    ("php_wrapper", php::php_wrapper),
    ("plugin_env", environment::plugin_env),
    ("plugin_wrapper", environment::plugin_wrapper),
    ("plugins.check", make::check),
    ("plugins.hash", look::hash),
    ("plugins.hotswap", install::hotswap),
    ("plugins.info", look::info),
    ("plugins.install", install::install),
    ("plugins.list", look::list),
    ("plugins.repackage", make::repackage),
    ("plugins.start", watchers::start),
    ("plugins.status", watchers::status),
    ("plugins.stop", watchers::stop),
    ("plugins.uninstall", install::uninstall),
    ("plugins_validate_name", make::validate_name),
    ("signal_wrapper.py", environment::signal_wrapper),
    ("undeploycron_between", jobs::instead),
];

/// How long a question to the daemon may take that waits for nothing.
const QUICK: Duration = Duration::from_secs(20);

/// The command that this process is called as, if it is one of MFSERV's.
pub fn called_as() -> Option<Run> {
    let mut words = std::env::args_os();
    let called = words.next()?;
    // So the node starts it for a plugin, whose PATH may have none of these names.
    let word = words.next().and_then(|word| word.into_string().ok()).unwrap_or_default();
    let name = match Path::new(&called).file_name().and_then(OsStr::to_str)? {
        "mfserv" if word == socket_activate::NAME => return Some(socket_activate::run),
        "mfserv" if OWN_PROGRAMS.contains(&word.as_str()) => word,
        name => name.to_owned(),
    };
    COMMANDS.iter().find(|(known, _)| *known == name).map(|(_, run)| *run)
}

/// Runs a command. What it did not say itself is an error with exit code 1.
pub fn run(command: Run) -> Result<Outcome, Diagnostic> {
    command().map_err(|problem| problem.kind(Kind::Failed))
}

/// It failed, and has said why.
fn failed() -> Result<Outcome, Diagnostic> {
    Ok(Outcome::Code(1))
}

/// The runtime home.
fn places() -> Result<Places, Diagnostic> {
    Places::choose(None)
}

/// Where the commands are installed: `MFSERV_HOME`, else the directory above the `bin` that
/// this one was called from.
fn prefix() -> Option<PathBuf> {
    if let Some(home) = std::env::var_os("MFSERV_HOME").filter(|home| !home.is_empty()) {
        return Some(home.into());
    }
    let called = PathBuf::from(std::env::args_os().next()?);
    let file = if called.components().count() > 1 {
        std::path::absolute(called).ok()?
    } else {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|dir| dir.join(&called)).find(|file| file.exists())?
    };
    file.parent()?.parent().map(Path::to_owned)
}

/// A command of the node refuses root unless that is allowed, and the environment of a
/// plugin: returns whether it may go on, and says so if not.
fn may_run(name: &str) -> bool {
    let allowed = std::env::var("METWORK_ALLOW_USAGE_BY_ROOT").as_deref() == Ok("1");
    if rustix::process::geteuid().is_root() && !allowed {
        complain("can't run this program as root (METWORK_ALLOW_USAGE_BY_ROOT=1 allows it)");
        return false;
    }
    if in_plugin_env() {
        complain(&format!("ERROR: you can't use {name} inside a plugin_env"));
        return false;
    }
    true
}

fn in_plugin_env() -> bool {
    std::env::var_os("MFSERV_CURRENT_PLUGIN_NAME").is_some_and(|name| !name.is_empty())
}

/// `--plugins-base-dir`, else `MFMODULE_PLUGINS_BASE_DIR`, else the one of the runtime home.
fn base_dir(places: &Places, asked: Option<&Path>) -> PathBuf {
    let set = std::env::var_os("MFMODULE_PLUGINS_BASE_DIR").filter(|dir| !dir.is_empty());
    let asked = asked.map(Path::to_owned).or(set.map(PathBuf::from));
    asked.unwrap_or_else(|| places.var().join("plugins"))
}

/// A node has one directory of plugins: what changes plugins refuses another.
fn only_own_base_dir(places: &Places, asked: Option<&Path>) -> Result<(), Diagnostic> {
    let own = places.var().join("plugins");
    let real = |dir: &Path| dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let asked = base_dir(places, asked);
    if real(&asked) == real(&own) {
        return Ok(());
    }
    Err(Diagnostic::error(format!("{} is not the plugins directory of this node", asked.display()))
        .because(format!("the node of {} has {}", places.home().display(), own.display()))
        .help(
            "choose another node with MFMODULE_RUNTIME_HOME, and unset MFMODULE_PLUGINS_BASE_DIR",
        ))
}

fn node_status(places: &Places) -> Result<Status, Diagnostic> {
    reach::ask(places, |socket| client::status(socket, QUICK))
}

/// Has the node changed; waits at most `wait_s` seconds until that is served.
fn operate(
    places: &Places,
    command: &str,
    request: Request,
    wait_s: u64,
) -> Result<OperationOutcome, Diagnostic> {
    // Ctrl-C ends this process, as before; the operation goes on.
    let mut op = Operation::silent(places, command, wait_s, Cancel::default());
    let submitted = op.submit(request);
    op.end(submitted, serde_json::Value::Null)
}

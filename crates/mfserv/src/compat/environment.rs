//! `plugin_wrapper`, `plugin_env`, `mfserv_wrapper`: programs in the environment of a plugin
//! or of the module.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;
use mfserv_core::Diagnostic;
use mfserv_core::plan::Loaded;
use mfserv_plugin::{Home, label, python, store};

use super::{failed, only_own_base_dir, places, prefix};
use crate::cli::plugins::env::{become_command, exports, load};
use crate::cli::report::{self, Outcome};
use crate::cli::{complain, print};
use mfserv_node::configure;
use mfserv_node::places::Places;

/// The variables of the caller that `mfserv_wrapper` keeps.
const KEPT: &[&str] = &[
    "HOME",
    "TERM",
    "DISPLAY",
    "COLORTERM",
    "HOSTNAME",
    "LANG",
    "LOGNAME",
    "PWD",
    "USER",
    "USERNAME",
    "XAUTHORITY",
    "MFMODULE_RUNTIME_HOME",
    "MFMODULE_RUNTIME_SUFFIX",
    "METWORK_ALLOW_USAGE_BY_ROOT",
    "MFSERV_SITE_DIR",
    "MFCONFIG",
];
/// What belongs to the caller's session and not to the module.
const OF_THE_SESSION: &[&str] =
    &["PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "SHELL", "TERM", "SSL_CERT_FILE"];

/// Run a command in the environment of a plugin; this process becomes the command.
#[derive(Debug, Parser)]
#[command(name = "plugin_wrapper")]
struct Wrapper {
    /// Go to the plugin's directory first.
    #[arg(long)]
    cwd: bool,
    /// (accepted, as before: nothing of the caller's layers is ever kept)
    #[arg(long = "empty")]
    _empty: bool,
    /// Print shell commands that set the environment, and run nothing.
    #[arg(long)]
    bash_cmds: bool,
    /// (accepted, as before: nothing is cached)
    #[arg(long = "ignore-cache")]
    _ignore_cache: bool,
    /// The directory of plugins.
    #[arg(long, value_name = "DIR")]
    plugins_base_dir: Option<PathBuf>,
    /// The name of an installed plugin, or the path of a plugin's directory.
    name_or_home: String,
    /// The command.
    #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub fn plugin_wrapper() -> Result<Outcome, Diagnostic> {
    let args = Wrapper::parse();
    let places = places()?;
    only_own_base_dir(&places, args.plugins_base_dir.as_deref())?;
    let Some((dir, loaded)) = found(&places, &args.name_or_home)? else { return failed() };
    if args.bash_cmds {
        print(&exports(&loaded.env, &[]));
        return Ok(Outcome::Done);
    }
    // `plugin_wrapper NAME -- CMD` and `plugin_wrapper NAME CMD` are the same.
    let words = match args.command.split_first() {
        Some((first, rest)) if first == "--" => rest,
        _ => &args.command,
    };
    if words.is_empty() {
        complain("ERROR: you have to provide a command to execute");
        return Ok(Outcome::Code(2));
    }
    Ok(become_command(words, &loaded.secrets.with(&loaded.env), args.cwd.then_some(dir.as_path())))
}

/// A plugin and its environment; `None` when there is none, which has been said.
fn found(places: &Places, name_or_home: &str) -> Result<Option<(PathBuf, Loaded)>, Diagnostic> {
    let is_path = name_or_home.contains('/') || name_or_home == ".";
    let there = match is_path {
        true => label::read_name(Path::new(name_or_home)).is_ok(),
        false => store::current(&Home::new(places.home()), name_or_home).is_ok(),
    };
    if !there {
        complain(&format!(
            "ERROR: the plugin {name_or_home} does not seem to be installed/available"
        ));
        return Ok(None);
    }
    load(places, name_or_home).map(Some)
}

/// Open a shell in the environment of a plugin.
#[derive(Debug, Parser)]
#[command(name = "plugin_env")]
struct PluginEnv {
    /// The name of an installed plugin; by default, the plugin of the current directory.
    name: Option<String>,
}

pub fn plugin_env() -> Result<Outcome, Diagnostic> {
    let args = PluginEnv::parse();
    let places = places()?;
    let named = match args.name {
        Some(name) => name,
        None if Path::new(".layerapi2_label").is_file() => ".".into(),
        None => {
            complain("usage: plugin_env PLUGIN_NAME or plugin_env (inside a plugin dir)");
            return failed();
        }
    };
    // An unknown plugin is no failure of an interactive shell's function, as before.
    let Some((dir, loaded)) = found(&places, &named)? else { return Ok(Outcome::Done) };
    let mut env = loaded.secrets.with(&loaded.env);
    env.insert("PIP_PREFIX".into(), dir.join("local").to_string_lossy().into_owned());
    let mut words = vec!["bash".to_string()];
    let start = prefix().map(|prefix| prefix.join("share/plugin_env.bashrc"));
    if let Some(start) = start.filter(|start| start.is_file() && std::io::stdin().is_terminal()) {
        words.extend(["--rcfile".into(), start.to_string_lossy().into_owned()]);
    }
    Ok(become_command(&words, &env, None))
}

/// Prints the environment of the module for a shell, for `share/profile`. The directories of
/// the home are made: TMPDIR is one of them.
pub fn module_env() -> Result<Outcome, Diagnostic> {
    let places = places()?;
    places.create()?;
    let module = configure::module(&places, &[])?;
    print(&exports(&module.env, OF_THE_SESSION));
    Ok(Outcome::Done)
}

/// Runs a command in a fresh environment of the module. Its arguments are joined by blanks
/// and given to a shell, as before.
pub fn mfserv_wrapper() -> Result<Outcome, Diagnostic> {
    let words: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    if words.is_empty() || words[0] == "--help" {
        print("usage: mfserv_wrapper COMMAND [ARGS...]\n");
        return Ok(if words.is_empty() { Outcome::Code(1) } else { Outcome::Done });
    }
    let prefix = prefix().ok_or_else(|| {
        Diagnostic::error("it is not known where the commands are installed")
            .help("call this command by its path, or set MFSERV_HOME")
    })?;
    #[expect(
        clippy::disallowed_methods,
        reason = "the command that is asked for replaces this process"
    )]
    let mut command = Command::new("/bin/sh");
    command.env_clear().arg("-c").arg(format!(
        "if test -f /etc/metwork.custom_profile; then . /etc/metwork.custom_profile; fi; \
         . '{}' || exit 1; {}",
        prefix.join("share/profile").display().to_string().replace('\'', r"'\''"),
        words.join(" ")
    ));
    let kept = KEPT.iter().filter_map(|key| Some((*key, std::env::var_os(key)?)));
    command.envs(kept.collect::<Vec<(&str, OsString)>>());
    command.env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
    let error = command.exec();
    report::print_problem(&Diagnostic::error("the command cannot be run").because(error));
    Ok(Outcome::Code(126))
}

/// Become the command of a worker: the supervisor drains and stops it.
#[derive(Debug, Parser)]
#[command(name = "signal_wrapper.py")]
struct SignalWrapper {
    /// (accepted, as before: readiness is observed)
    #[arg(long = "socket-up-after", default_value_t = 3)]
    _socket_up_after: u64,
    /// (accepted, as before: the time of the app's configuration counts)
    #[arg(long = "timeout", default_value_t = 0)]
    _timeout: u64,
    /// (accepted, as before: smart_stop_delay counts)
    #[arg(long = "timeout-after-signal", default_value_t = 3)]
    _timeout_after_signal: u64,
    /// (accepted, as before: smart_stop_signal counts)
    #[arg(long = "signal", default_value_t = 15)]
    _signal: i32,
    /// The socket of the worker.
    #[arg(value_name = "UNIX_SOCKET")]
    _socket: PathBuf,
    /// The command.
    #[arg(last = true)]
    command: Vec<String>,
}

pub fn signal_wrapper() -> Result<Outcome, Diagnostic> {
    let args = SignalWrapper::parse();
    if args.command.is_empty() {
        complain("ERROR: you have to provide a command to execute");
        return failed();
    }
    let env = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
    Ok(become_command(&args.command, &env.collect(), None))
}

/// A label of a layer.
#[derive(Debug, Parser)]
struct Layer {
    /// The label: NAME@MODULE.
    label: String,
}

/// Prints 1 if what a layer of MFSERV carried is on this host, else 0.
pub fn is_layer_installed() -> Result<Outcome, Diagnostic> {
    let label = Layer::parse().label;
    let there = is_there(&places()?, &label);
    print(if there { "1\n" } else { "0\n" });
    Ok(Outcome::Done)
}

pub fn is_there(places: &Places, label: &str) -> bool {
    let plugin = label.strip_prefix("plugin_").and_then(|rest| rest.strip_suffix("@mfserv"));
    match (plugin, label) {
        (Some(name), _) => store::current(&Home::new(places.home()), name).is_ok(),
        (_, "root@mfserv" | "default@mfserv" | "root@mfext" | "core@mfext" | "default@mfext") => {
            true
        }
        (_, "python3@mfext" | "python3_core@mfext") => is_on_path("python3"),
        (_, "python2@mfext" | "python2_core@mfext") => python::locate("python2.7").is_some(),
        (_, "nodejs@mfext" | "nodejs@mfserv") => is_on_path("node"),
        (_, "php@mfext") => super::php::find().is_some(),
        _ => false,
    }
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Prints 1 inside the environment of that plugin or of the module, else 0.
pub fn is_layer_loaded() -> Result<Outcome, Diagnostic> {
    let label = Layer::parse().label;
    let set = |name: &str| std::env::var(name).unwrap_or_default();
    let loaded = label == set("MFSERV_CURRENT_PLUGIN_LABEL")
        || (label.ends_with("@mfserv")
            && !label.starts_with("plugin_")
            && set("MFMODULE") == "MFSERV");
    print(if loaded { "1\n" } else { "0\n" });
    Ok(Outcome::Done)
}

//! What would go wrong: configuration, plugins, programs, routes, the port. Nothing is started, and
//! nothing is written.

mod sites;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use mfserv_core::keys::{FRONT_STATIC_SYMLINKS, LOG_JSON_FILE};
use mfserv_core::log_outputs;
use mfserv_core::names::WatcherName;
use mfserv_core::plan::{Listen, Loaded, OWN_PROGRAMS, split_command};
use mfserv_core::plugin_spec::CommandSpec;
use mfserv_core::status::Status;
use mfserv_core::telemetry::TelemetrySettings;
use mfserv_core::{Diagnostic, Kind, Severity};
use mfserv_plugin::build::PYTHON_SOURCES;
use mfserv_plugin::{Cancel, Home, base, imports, label, python};

use crate::certificates;
use crate::configure::Module;
use crate::control::client;
use crate::daemon::{self, DaemonOptions, Looked};
use crate::fragment_check;
use crate::installed::{self, Directories};
use crate::places::Places;
use crate::port_holder::{self, Protocol};
use crate::taking;

/// How long a daemon may take to say which port the node has.
const STATUS: Duration = Duration::from_secs(5);

/// Inspects the node with all its plugins.
pub fn node(options: &DaemonOptions) -> Result<Vec<Diagnostic>, Diagnostic> {
    let Looked { module, plugins, plan } = daemon::look(options)?;
    let mut problems = plan.problems;
    for plugin in &plugins {
        if let Ok(loaded) = &plugin.loaded {
            problems.extend(programs(&options.places, &plugin.dir, loaded));
            let symlinks = module.resolution.config.get(FRONT_STATIC_SYMLINKS);
            problems.extend(sites::problems(&plugin.dir, loaded, symlinks));
        }
    }
    let has_front = plan.watchers.contains_key(&WatcherName::front());
    match has_front.then(|| fragment_check::missing_program(&module)).flatten() {
        Some(problem) => problems.push(problem),
        None => problems.extend(fragment_check::warnings(&module, plan.table)),
    }
    problems.extend(ports(&options.places, &module));
    match certificates::inspect(&module) {
        Ok(doubtful) => problems.extend(doubtful),
        Err(problem) => problems.push(problem),
    }
    problems.extend(json_file(&module));
    Ok(problems.into_iter().map(certain).collect())
}

/// Inspects the plugin of a directory, as if it were the current one of its name.
pub fn plugin(places: &Places, dir: &Path, module: &Module) -> Vec<Diagnostic> {
    match of_directory(places, dir, module) {
        Ok(problems) => problems.into_iter().map(certain).collect(),
        Err(problems) => problems,
    }
}

fn of_directory(
    places: &Places,
    dir: &Path,
    module: &Module,
) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
    let alone = |problem| vec![problem];
    let loaded = installed::load_one(places, dir, module, Directories::Left)?;
    let name = label::read_name(dir).map_err(alone)?;
    let instead = (name.clone(), dir.to_owned());
    let (now, next) = taking::now_and_next(places, module, instead).map_err(alone)?;
    let taken = taking::refuse(&name, &now.newly_taken(&name, &next)).err();
    let mut table = next.table;
    table.fragments = BTreeMap::from([(name.clone(), loaded.fragments.clone())]);
    let own = next.problems.into_iter().filter(|problem| problem.is_about(&name));
    let mut problems: Vec<Diagnostic> = own.chain(taken).collect();
    problems.extend(programs(places, dir, &loaded));
    let symlinks = module.resolution.config.get(FRONT_STATIC_SYMLINKS);
    problems.extend(sites::problems(dir, &loaded, symlinks));
    problems.extend(fragment_check::warnings(module, table));
    Ok(problems)
}

/// A warning of a plan that a program will not work is an error of a check: a plan is carried out
/// all the same.
fn certain(problem: Diagnostic) -> Diagnostic {
    match problem.kind {
        Kind::Failed => Diagnostic { severity: Severity::Error, ..problem },
        _ => problem,
    }
}

/// The programs of a plugin that are not there, and the modules of Python that they lack.
fn programs(places: &Places, dir: &Path, loaded: &Loaded) -> Vec<Diagnostic> {
    let spec = &loaded.spec;
    let wants_base = base::is_wanted(dir, spec);
    let interpreter = || python::find(spec.general.python.as_deref());
    if let Some(problem) = wants_base.then(|| interpreter().err()).flatten() {
        return vec![problem.about(&spec.name)];
    }
    let home = Home::new(places.home());
    let has_base = || !base::list(&home).is_empty();
    let is_complete = is_built(dir) && (!wants_base || has_base());
    let undeclared = match is_complete {
        true => imports::undeclared(&home, dir, spec, &loaded.env, &Cancel::default()),
        false => Vec::new(),
    };
    let mut problems = missing_programs(dir, loaded, is_complete);
    problems.extend(undeclared);
    problems
}

/// The programs that the workers of a plugin begin with and that are not there; `is_complete`: what it
/// needs is built.
pub fn missing_programs(dir: &Path, loaded: &Loaded, is_complete: bool) -> Vec<Diagnostic> {
    let spec = &loaded.spec;
    let apps = spec.apps.iter().map(|app| &app.command);
    let commands = apps.chain(spec.extra_daemons.iter().map(|extra| &extra.command));
    let missing = commands.filter(|command| command.count > 0).filter_map(|command| {
        let program = program_of(command, dir).filter(|one| !is_there(one, dir, loaded))?;
        let what = format!("the program {program} of {}/{} is not there", spec.name, command.name);
        Some(match is_complete {
            true => Diagnostic::error(what)
                .kind(Kind::BadConfiguration)
                .because(match program.contains('/') {
                    true => "there is no such executable file",
                    false => "it is in no directory of the PATH of the plugin (`mfserv env`)",
                })
                .help("install it, or correct _cmd_and_args in the plugin's config.ini")
                .about(&spec.name),
            false => Diagnostic::warning(what)
                .because("what the plugin needs is not built yet, and may bring it")
                .help("`mfserv build DIR` builds a plugin, `mfserv setup` the base environment")
                .about(&spec.name),
        })
    });
    missing.collect()
}

/// The environments that belong to the plugin are there.
fn is_built(dir: &Path) -> bool {
    let lacks = |of: &str, made: &str| dir.join(of).exists() && !dir.join(made).exists();
    !PYTHON_SOURCES.iter().any(|of| lacks(of, "local")) && !lacks("package.json", "node_modules")
}

fn program_of(command: &CommandSpec, dir: &Path) -> Option<String> {
    let dir = dir.to_string_lossy();
    let (options, values) = ([("{debug_extra_options}", "")], [("{plugin_dir}", &*dir)]);
    // A command that cannot be split is a problem of the plan.
    split_command(&command.command, &options, &values).ok()?.into_iter().next()
}

/// It is a file that somebody may execute.
pub(crate) fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn is_there(program: &str, dir: &Path, loaded: &Loaded) -> bool {
    if program.contains('/') {
        return is_executable(&dir.join(program));
    }
    // A command of this program.
    if OWN_PROGRAMS.contains(&program) {
        return true;
    }
    let path = loaded.env.get("PATH").map_or("", String::as_str);
    std::env::split_paths(path).any(|one| is_executable(&one.join(program)))
}

/// Why nobody could write to the JSON file of mflog.
fn json_file(module: &Module) -> Option<Diagnostic> {
    let file = log_outputs::json_file(module.resolution.text(LOG_JSON_FILE)).map(Path::new)?;
    let parent = file.parent().filter(|_| file.is_absolute())?;
    let why = match (file.metadata(), parent.metadata()) {
        (Ok(found), _) if found.is_dir() => "it is a directory".to_owned(),
        // Nothing is written by this; a pipe without a reader is not opened.
        (Ok(found), _) if found.is_file() => {
            OpenOptions::new().append(true).open(file).err()?.to_string()
        }
        (Ok(_), _) => return None,
        (Err(_), Ok(found)) if found.is_dir() => return None,
        (Err(_), Ok(_)) => format!("{} is no directory", parent.display()),
        (Err(_), Err(error)) => format!("{}: {error}", parent.display()),
    };
    let what = format!("[log] json_file={} cannot be written", file.display());
    Some(
        Diagnostic::error(what)
            .kind(Kind::BadConfiguration)
            .because(why)
            .help("make the directory, for the user of mfserv, or name another file; null: none"),
    )
}

/// Ports that the node could not have, of those that it has not already.
fn ports(places: &Places, module: &Module) -> Vec<Diagnostic> {
    let status = client::status(&places.control_socket(), STATUS).ok();
    // A keeper holds the port also while its daemon is being replaced.
    if status.is_none() && UnixStream::connect(places.keep_socket()).is_ok() {
        return Vec::new();
    }
    let of_telemetry = ports_of_telemetry(status.as_ref(), module);
    let config = &module.resolution.config;
    let plain = config.listen_addresses().into_iter().map(|address| ("port", address));
    let tls = config.tls_addresses().into_iter().map(|address| ("https_port", address));
    let plan = status.as_ref().and_then(|_| daemon::plan_in_force(places));
    let listeners = plan.map(|plan| plan.listeners).unwrap_or_default();
    let of_front =
        plain.chain(tls).filter_map(|(key, address)| port_of_front(&listeners, key, address));
    of_front.chain(of_telemetry).collect()
}

/// Why the front could not listen on the port of this key; `listeners` are those of the node that
/// runs.
fn port_of_front(listeners: &[Listen], key: &str, address: SocketAddr) -> Option<Diagnostic> {
    let numeric = |own: &Listen| own.address.replace("localhost:", "127.0.0.1:");
    if listeners.iter().any(|own| numeric(own) == address.to_string()) {
        return None;
    }
    let error = TcpListener::bind(address).err()?;
    let end = format!(":{}", address.port());
    if let Some(own) = listeners.iter().find(|own| own.address.ends_with(&end)) {
        let what = format!("the front listens on {}, and is to listen on {address}", own.address);
        return Some(port_holder::other_address(Diagnostic::warning(what), address.port()));
    }
    let help = match error.kind() {
        ErrorKind::AddrInUse => {
            format!("choose another port ([nginx] {key}), or stop the other program")
        }
        ErrorKind::PermissionDenied => format!(
            "choose a port above 1023 ([nginx] {key}), or give mfserv the privilege \
             (CAP_NET_BIND_SERVICE)"
        ),
        _ => format!("choose another address ([front] host) or port ([nginx] {key})"),
    };
    let problem = Diagnostic::error(format!("the front could not listen on {address}"));
    let mut problem = problem.kind(Kind::Refused).because(&error);
    if error.kind() == ErrorKind::AddrInUse {
        let who = port_holder::holder(Protocol::Tcp, address.port());
        problem = problem.because(port_holder::listens(who, address.port()));
    }
    Some(problem.help(help))
}

/// Why the telemetry role, or Telegraf, could not receive on ports that it is told to.
fn ports_of_telemetry(status: Option<&Status>, module: &Module) -> Vec<Diagnostic> {
    let settings = TelemetrySettings::new(&module.resolution.config);
    let (metrics, shipping) = (settings.metrics, settings.shipping);
    let statsd = metrics.statsd_port.filter(|_| metrics.is_statsd_wanted);
    let mflog = shipping.and_then(|shipping| shipping.mflog_port);
    let roles = [WatcherName::telemetry(), WatcherName::telegraf()];
    let watchers = status.iter().flat_map(|status| &status.watchers);
    let own = watchers.filter(|watcher| roles.contains(&watcher.name));
    let own: Vec<u32> =
        own.flat_map(|watcher| &watcher.workers).filter_map(|worker| worker.pid).collect();
    let mut problems = Vec::new();
    for (key, protocol, port) in [
        ("[metrics] port", Protocol::Tcp, metrics.port),
        ("[telegraf] statsd_port", Protocol::Udp, statsd),
        ("[vector] mflog_port", Protocol::Udp, mflog),
    ] {
        let Some(port) = port else { continue };
        let address = (Ipv4Addr::LOCALHOST, port);
        let bound = match protocol {
            Protocol::Tcp => TcpListener::bind(address).map(drop),
            Protocol::Udp => UdpSocket::bind(address).map(drop),
        };
        let Err(error) = bound else { continue };
        if port_holder::is_held_by(protocol, port, &own) {
            continue;
        }
        let mut problem = Diagnostic::error(format!("{key}={port} cannot be used"))
            .kind(Kind::Refused)
            .because(error);
        if let Some(who) = port_holder::holder(protocol, port) {
            problem = problem.because(format!("{who} has it"));
        }
        problems
            .push(problem.help(format!("choose another port ({key}), or stop the other program")));
    }
    problems
}

//! The watchers of a plugin, and of the front.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::diagnostic::Diagnostic;
use crate::fingerprint;
use crate::keys::{
    FRONT_UPGRADE_DRAIN_TIMEOUT_S, LOG_SPLIT_STREAMS, LOG_SPLIT_WORKERS, MISC_CORE_SIZE_KIB,
    NGINX_TIMEOUT_S, PYTHON_ASGI_SERVER,
};
use crate::names::WatcherName;
use crate::output::{Output, Rotation};
use crate::plan::routes::{http_probe, upstream_name};
use crate::plan::transport::{self, Transport};
use crate::plan::upstreams::{python_server, python_threads, slots_of};
use crate::plan::{
    Count, Inputs, LONGEST_SOCKET_PATH, Loaded, OWN_PROGRAMS, PluginInput, RoleProgram, command,
    php,
};
use crate::plugin_spec::{AppSpec, CommandSpec, ExtraSpec, PluginSpec, ReadyBy};
use crate::secrets::Secrets;
use crate::telegraf;
use crate::telemetry::{SETTINGS_VARIABLE, TelemetrySettings, ask_socket};
use crate::watcher::{Probe, Rlimits, WatcherSpec, front_socket_stem};

/// How long a worker may take to become ready when its plugin does not say.
const START_TIMEOUT_S: u64 = 60;
/// A program that cannot be asked is ready once it has lived this long.
const ALIVE_MS: u64 = 1_000;
/// How long a front that is asked to end may take for the requests it holds.
const FRONT_STOP_MS: u64 = 90_000;
/// The same for the telemetry role and for Telegraf.
const MONITORING_STOP_MS: u64 = 5_000;
/// How long the telemetry role may take to answer: clients that are slow may hold it up for 5 s.
const TELEMETRY_ANSWER_MS: u64 = 15_000;

const SIGTERM: i32 = 15;

pub(super) fn of_plugin(
    plugin: &PluginInput,
    loaded: &Loaded,
    inputs: &Inputs,
    problems: &mut Vec<Diagnostic>,
) -> Vec<(WatcherSpec, Count)> {
    let maker = Maker { plugin, loaded, inputs };
    let apps = loaded.spec.apps.iter().map(|app| {
        let at = app.command.count_at.clone();
        maker.app(app).map(|watcher| (watcher, at))
    });
    let extras = loaded.spec.extra_daemons.iter().map(|extra| {
        let at = extra.command.count_at.clone();
        maker.extra(extra).map(|watcher| (watcher, at))
    });
    let mut watchers = Vec::new();
    for made in apps.chain(extras) {
        match made {
            Ok((mut watcher, at)) => {
                let count = Count::new(&watcher, at, &inputs.held);
                watcher.count = count.wanted;
                count.options.apply(&mut watcher);
                watchers.push((watcher, count));
            }
            Err(problem) => problems.push(problem),
        }
    }
    problems.extend(transport::unreachable(&loaded.spec, &watchers));
    watchers
}

struct Maker<'a> {
    plugin: &'a PluginInput,
    loaded: &'a Loaded,
    inputs: &'a Inputs<'a>,
}

impl Maker<'_> {
    fn app(&self, app: &AppSpec) -> Result<WatcherSpec, Diagnostic> {
        let spec = &self.loaded.spec;
        let name = WatcherName::app(&spec.name, &app.command.name);
        let timeout_s = app.timeout_s.unwrap_or(self.inputs.module.get(NGINX_TIMEOUT_S));
        let debug_options = if app.command.debug { app.debug_extra_options.as_str() } else { "" };
        let timeout = timeout_s.to_string();
        let argv = self.argv(
            &name,
            &app.command,
            &[("{debug_extra_options}", debug_options)],
            &[("{timeout}", &timeout), ("{app_name}", &app.command.name)],
        )?;
        let php = php::is_wrapper(&argv).then(|| {
            php::variables(slots_of(app, &self.loaded.env, self.inputs.module), timeout_s)
        });
        let argv = self.with_own_program(argv);
        let transport = Transport::of(spec, app, &argv)
            .map_err(|(why, help)| refused(&name, spec, &why).help(help))?;
        let probe = match (app.command.ready, transport) {
            (Some(ReadyBy::Notify), _) => Probe::Notify,
            (_, Transport::Nothing) => Probe::Alive { for_ms: app.start_delay_s * 1000 },
            (Some(ReadyBy::Connect), _) => Probe::Connect,
            // Its socket takes no HTTP.
            _ if app.fastcgi => Probe::Connect,
            _ => http_probe(spec, app),
        };
        let stack_signal = command::is_own(&argv).then_some(crate::watcher::STACK_SIGNAL);
        let mut watcher = self.watcher(name, &app.command, argv, probe);
        watcher.env.insert("HOTSWAP".into(), "0".into());
        watcher.env.extend(php.into_iter().flatten());
        let server = python_server(app, self.inputs.module);
        watcher.env.insert("MFSERV_PYTHON_SERVER".into(), server);
        let threads = python_threads(app, self.inputs.module);
        watcher.env.insert("MFSERV_PYTHON_THREADS".into(), threads.to_string());
        let asgi = app.asgi_server.clone();
        let asgi = asgi.unwrap_or_else(|| self.inputs.module.get(PYTHON_ASGI_SERVER));
        watcher.env.insert("MFSERV_PYTHON_ASGI_SERVER".into(), asgi);
        if app.strip_prefix {
            watcher.env.insert("MFSERV_STRIP_PREFIX".into(), "1".into());
        }
        watcher.on_port = transport == Transport::Port;
        watcher.need_not_listen = watcher.on_port && !transport::says_port(app, &watcher);
        if !watcher.on_port {
            let link_stem = self.inputs.var_dir.join(watcher.name.file_stem());
            watcher.socket_stem = Some(short_enough(&link_stem, &self.inputs.short_dir));
            watcher.socket_link_stem = Some(link_stem);
        }
        watcher.upstream = Some(upstream_name(&spec.name, app));
        // The front ends requests and upgraded connections in time; this is for a front
        // that does not.
        let upgraded_s = self.inputs.module.get(FRONT_UPGRADE_DRAIN_TIMEOUT_S);
        watcher.drain_timeout_ms = (timeout_s.max(upgraded_s) + 1) * 1000;
        watcher.answer_timeout_ms = timeout_s * 1000;
        watcher.stack_signal = stack_signal;
        watcher.stop_signal = app.stop_signal;
        watcher.stop_timeout_ms = app.stop_delay_s * 1000;
        watcher.overlap = app.command.overlap.unwrap_or(true);
        Ok(watcher)
    }

    fn extra(&self, extra: &ExtraSpec) -> Result<WatcherSpec, Diagnostic> {
        let name = WatcherName::extra(&self.loaded.spec.name, &extra.command.name);
        let values = [("{extra_name}", extra.command.name.as_str())];
        let argv = self.argv(&name, &extra.command, &[], &values)?;
        let probe = match extra.command.ready {
            Some(ReadyBy::Notify) => Probe::Notify,
            _ => Probe::Alive { for_ms: ALIVE_MS },
        };
        let mut watcher = self.watcher(name, &extra.command, argv, probe);
        watcher.stop_timeout_ms = extra.command.graceful_timeout_s * 1000;
        // Two copies of a consumer or of a scheduler can do harm.
        watcher.overlap = extra.command.overlap.unwrap_or(false);
        Ok(watcher)
    }

    fn argv(
        &self,
        name: &WatcherName,
        spec: &CommandSpec,
        options: &[(&str, &str)],
        values: &[(&str, &str)],
    ) -> Result<Vec<String>, Diagnostic> {
        if spec.count == 0 && spec.command.trim().is_empty() {
            return Ok(Vec::new());
        }
        let dir = self.plugin.dir.to_string_lossy();
        let own = [("{plugin_name}", self.loaded.spec.name.as_str()), ("{plugin_dir}", &dir)];
        let refused = |why: &str| {
            refused(name, &self.loaded.spec, why).help("correct it in the plugin's config.ini")
        };
        let argv = command::split_command(&spec.command, options, &[&own, values].concat())
            .map_err(|why| refused(&why))?;
        if argv.is_empty() {
            return Err(refused("is empty, but numprocesses is not 0"));
        }
        Ok(argv)
    }

    /// A command that is one of this program, and need not be in the PATH of the plugin.
    fn with_own_program(&self, mut argv: Vec<String>) -> Vec<String> {
        let own = self.inputs.front.as_ref().and_then(|front| front.argv.first());
        if let Some(own) =
            own.filter(|_| argv.first().is_some_and(|word| OWN_PROGRAMS.contains(&word.as_str())))
        {
            argv.insert(0, own.clone());
        }
        argv
    }

    fn watcher(
        &self,
        name: WatcherName,
        spec: &CommandSpec,
        argv: Vec<String>,
        probe: Probe,
    ) -> WatcherSpec {
        let count = spec.count;
        let module = self.inputs.module;
        let split_workers = spec.split_workers.unwrap_or(module.get(LOG_SPLIT_WORKERS));
        let split_streams = spec.split_streams.unwrap_or(module.get(LOG_SPLIT_STREAMS));
        WatcherSpec {
            count,
            env: self.env(spec),
            secrets: self.loaded.secrets.clone(),
            argv,
            cwd: self.plugin.dir.clone(),
            rlimits: Rlimits { core_kib: module.get(MISC_CORE_SIZE_KIB), ..spec.rlimits },
            output: self.output(&name, split_streams),
            output_per_worker: split_workers && count > 1,
            name,
            socket_stem: None,
            socket_link_stem: None,
            on_port: false,
            need_not_listen: false,
            upstream: None,
            probe,
            start_timeout_ms: spec.start_timeout_s.unwrap_or(START_TIMEOUT_S) * 1000,
            drain_timeout_ms: 0,
            answer_timeout_ms: 0,
            stack_signal: None,
            stop_signal: SIGTERM,
            stop_timeout_ms: 0,
            overlap: true,
            max_age_s: spec.max_age_s,
            listeners: Vec::new(),
            version: self.loaded.spec.general.version.clone(),
        }
    }

    fn env(&self, spec: &CommandSpec) -> BTreeMap<String, String> {
        let mut env = self.loaded.env.clone();
        let flag = if spec.debug { "1" } else { "0" };
        env.insert("MFSERV_CURRENT_APP_DEBUG".into(), flag.into());
        if spec.debug {
            env.insert("MFLOG_MINIMAL_LEVEL".into(), "DEBUG".into());
            env.insert("MFSERV_LOG_MINIMAL_LEVEL".into(), "DEBUG".into());
        }
        env
    }

    fn output(&self, name: &WatcherName, split: bool) -> Output {
        let file = |end: &str| self.inputs.log_dir.join(format!("{}.{end}", name.file_stem()));
        let rotation = self.inputs.module.rotation();
        match split {
            true => Output { stdout: file("stdout"), stderr: Some(file("stderr")), rotation },
            false => Output { stdout: file("log"), stderr: None, rotation },
        }
    }
}

fn refused(name: &WatcherName, plugin: &PluginSpec, why: &str) -> Diagnostic {
    Diagnostic::error(format!("{name} is not started"))
        .about(&plugin.name)
        .because(format!("its _cmd_and_args {why}"))
}

/// The stem itself, or one in the short directory when a socket's path could
/// become too long. The short name is derived from the long one.
fn short_enough(stem: &Path, short_dir: &Path) -> PathBuf {
    const LONGEST_END: usize = "_9999.99999999.socket".len();
    if stem.as_os_str().len() + LONGEST_END <= LONGEST_SOCKET_PATH {
        return stem.to_owned();
    }
    short_dir.join(format!("{:016x}", fingerprint::of(stem.as_os_str().as_encoded_bytes())))
}

pub(super) fn of_front(
    program: &RoleProgram,
    inputs: &Inputs,
    listeners: Vec<String>,
) -> WatcherSpec {
    let rotation: Rotation = inputs.module.front_rotation();
    WatcherSpec {
        name: WatcherName::front(),
        count: 1,
        argv: program.argv.clone(),
        env: program.env.clone(),
        secrets: Secrets::default(),
        cwd: program.cwd.clone(),
        rlimits: Rlimits::default(),
        // What it says beside its access and error logs: panics, mostly.
        output: Output { stdout: inputs.log_dir.join("front.log"), stderr: None, rotation },
        output_per_worker: false,
        socket_stem: Some(front_socket_stem(&inputs.var_dir.join("run"))),
        socket_link_stem: None,
        on_port: false,
        need_not_listen: false,
        upstream: None,
        probe: Probe::Told,
        start_timeout_ms: 30_000,
        drain_timeout_ms: 0,
        answer_timeout_ms: 0,
        stack_signal: None,
        stop_signal: SIGTERM,
        stop_timeout_ms: FRONT_STOP_MS,
        overlap: true,
        max_age_s: 0,
        listeners,
        version: String::new(),
    }
}

pub(super) fn of_telemetry(program: &RoleProgram, inputs: &Inputs) -> WatcherSpec {
    let settings = TelemetrySettings::new(inputs.module);
    let settings = serde_json::to_string(&settings).unwrap_or_default();
    let env = (SETTINGS_VARIABLE, settings);
    let mut spec = of_monitoring(WatcherName::telemetry(), program, inputs, env);
    spec.probe = Probe::HttpAt { socket: ask_socket(&inputs.var_dir.join("run")) };
    spec.answer_timeout_ms = TELEMETRY_ANSWER_MS;
    spec
}

/// `None` if there is nowhere to send points to.
pub(super) fn of_telegraf(program: &telegraf::Program, inputs: &Inputs) -> Option<WatcherSpec> {
    let config = telegraf::config(inputs.module, program)?;
    let env = (telegraf::CONFIG_VARIABLE, config);
    Some(of_monitoring(WatcherName::telegraf(), &program.role, inputs, env))
}

/// A role whose settings are a variable of its environment, and which serves no requests.
fn of_monitoring(
    name: WatcherName,
    program: &RoleProgram,
    inputs: &Inputs,
    (variable, settings): (&str, String),
) -> WatcherSpec {
    let rotation = inputs.module.rotation();
    let stdout = inputs.log_dir.join(format!("{name}.log"));
    let mut env = program.env.clone();
    env.insert(variable.into(), settings);
    WatcherSpec {
        name,
        count: 1,
        argv: program.argv.clone(),
        env,
        secrets: Secrets::default(),
        cwd: program.cwd.clone(),
        rlimits: Rlimits::default(),
        output: Output { stdout, stderr: None, rotation },
        output_per_worker: false,
        socket_stem: None,
        socket_link_stem: None,
        on_port: false,
        need_not_listen: false,
        upstream: None,
        // One that cannot use its configuration ends soon.
        probe: Probe::Alive { for_ms: ALIVE_MS },
        start_timeout_ms: 30_000,
        drain_timeout_ms: 0,
        answer_timeout_ms: 0,
        stack_signal: None,
        stop_signal: SIGTERM,
        stop_timeout_ms: MONITORING_STOP_MS,
        // Both would listen on the same sockets.
        overlap: false,
        max_age_s: 0,
        listeners: Vec::new(),
        version: String::new(),
    }
}

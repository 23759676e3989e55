//! The roles: what the keeper starts, and the keeper itself.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, CommandFactory, Parser, Subcommand};
use mfserv_core::output::{Output, Rotation};
use mfserv_core::telegraf;
use mfserv_core::telemetry::SETTINGS_VARIABLE;
use mfserv_core::wire::keeper::ProcessSpec;
use mfserv_core::{Diagnostic, Kind};
use mfserv_front::nginx::EDGE_KEY_VARIABLE;
use mfserv_front::{FrontOptions, Kind as FrontKind, NginxOptions};
use mfserv_keeper::KeeperOptions;

use super::complain;
use super::plugins::cancel;
use super::plugins::install::{PackageFile, stage};
use super::plugins::releases::{Asked, check_release};
use super::progress::Steps;
use super::report::Outcome;
use super::sets;
use mfserv_node::daemon::{self, DaemonOptions, StageResult};
use mfserv_node::operations::OperationId;
use mfserv_node::places::Places;
use mfserv_platform::disk;
use mfserv_plugin::store::{self, Owner};
use mfserv_telemetry::role::RoleOptions;

/// For nobody to type: neither shown nor suggested, and so a command line of its own.
#[derive(Debug, Parser)]
#[command(name = "mfserv", version)]
struct RoleCli {
    /// The runtime home.
    #[arg(long, global = true, value_name = "DIR")]
    home: Option<PathBuf>,

    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// The only parent: spawns, reaps, holds listeners, copies output.
    Keep(Keep),
    /// Owns the plan and decides.
    Daemon(Daemon),
    /// Listens for HTTP. The other name tells people which process is behind nginx.
    #[command(alias = "front-behind")]
    Front(Front),
    /// Counts what happens and sends it on; speaks with the network.
    Telemetry,
    /// Becomes Telegraf, with the configuration that is in its environment.
    Telegraf(Telegraf),
    /// Stages a package for the daemon, in a process of its own.
    Stage(Stage),
}

/// Whether the first word of the command line that is no option names a role.
pub fn is_asked(words: impl IntoIterator<Item = OsString>) -> bool {
    let mut words = words.into_iter().skip(1);
    while let Some(word) = words.next() {
        let word = word.to_string_lossy();
        if word == "--home" {
            words.next();
        } else if !word.starts_with('-') {
            return RoleCli::command().find_subcommand(&*word).is_some();
        }
    }
    false
}

/// Runs the role that the command line names.
pub fn run() -> Result<Outcome, Diagnostic> {
    let cli = RoleCli::parse();
    let places = Places::choose(cli.home.as_deref())?;
    match cli.role {
        Role::Keep(args) => args.run(&places),
        Role::Daemon(args) => args.run(places),
        Role::Front(args) => args.run(&places),
        Role::Telemetry => telemetry(&places),
        Role::Telegraf(args) => args.run(&places),
        Role::Stage(args) => args.run(&places),
    }
}

/// How long a front that ends may take for the requests it holds.
const GRACE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub struct Keep {
    /// Handed on to the daemon.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    sets: Vec<String>,
    /// Say `ready` on standard output when the socket listens.
    #[arg(long)]
    ready_on_stdout: bool,
    /// Start no daemon (to stop what an earlier keeper left).
    #[arg(long)]
    no_daemon: bool,
    /// How long the daemon may take to stop the node after SIGTERM, seconds.
    #[arg(long, default_value_t = 300)]
    grace: u64,
}

impl Keep {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        places.create()?;
        if self.ready_on_stdout {
            // `mfserv start` leaves us behind: not in the session of its terminal. (`mfserv run`
            // stays there, and ends with it.) Refused if we lead a session already.
            let _ = rustix::process::setsid();
        }
        let mut options = KeeperOptions::new(places.home());
        options.grace_ms = self.grace * 1000;
        options.daemon = (!self.no_daemon).then(|| daemon_process(places, &self.sets));
        if self.ready_on_stdout {
            options.ready = std::io::stdout().as_fd().try_clone_to_owned().ok();
        }
        mfserv_keeper::run(options)?;
        Ok(Outcome::Done)
    }
}

/// How the keeper starts the daemon: in the environment that it was started in itself.
fn daemon_process(places: &Places, sets: &[String]) -> ProcessSpec {
    let home = places.home().to_string_lossy().into_owned();
    let program = mfserv_node::program().to_string_lossy().into_owned();
    let mut argv = vec![program, "daemon".into(), "--home".into(), home];
    for set in sets {
        argv.extend(["--set".into(), set.clone()]);
    }
    let env: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
        .collect();
    ProcessSpec {
        id: mfserv_keeper::DAEMON.into(),
        argv,
        env,
        cwd: places.home().to_owned(),
        rlimits: Default::default(),
        output: Output {
            stdout: places.log().join("daemon.log"),
            stderr: None,
            rotation: Rotation { max_bytes: 16 << 20, ..Rotation::default() },
        },
        release: String::new(),
        listeners: Vec::new(),
        note: String::new(),
        stdin: String::new(),
        nice: 0,
        once: false,
    }
}

#[derive(Debug, Args)]
pub struct Daemon {
    /// A value that overrides all configuration files.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    sets: Vec<String>,
}

impl Daemon {
    pub fn run(self, places: Places) -> Result<Outcome, Diagnostic> {
        daemon::run(DaemonOptions { places, sets: sets(&self.sets)? })?;
        Ok(Outcome::Done)
    }
}

#[derive(Debug, Args)]
pub struct Front {
    /// The control socket to listen on.
    #[arg(long)]
    control: PathBuf,
    /// How the logs are rotated (JSON).
    #[arg(long)]
    rotation: String,
    /// `nginx`: nginx stands before it.
    #[arg(long)]
    kind: Option<String>,
    /// nginx: a path, or a name in PATH.
    #[arg(long, default_value = "nginx")]
    nginx_program: PathBuf,
    /// The directory of its modules.
    #[arg(long)]
    nginx_modules: Option<PathBuf>,
    /// Its worker processes.
    #[arg(long, default_value_t = 1)]
    nginx_workers: u32,
}

impl Front {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let bad = |e: serde_json::Error| {
            Diagnostic::error("--rotation is not understood").kind(Kind::Usage).because(e)
        };
        let rotation: Rotation = serde_json::from_str(&self.rotation).map_err(bad)?;
        let inherited = std::env::var("MFSERV_LISTEN").unwrap_or_default();
        let listeners = mfserv_front::listeners_from_env(&inherited)?;
        let is_nginx = self.kind.as_deref() == Some("nginx");
        let kind = if is_nginx { FrontKind::Nginx } else { FrontKind::Embedded };
        let edge_key = std::env::var(EDGE_KEY_VARIABLE).ok();
        // The front behind nginx has no socket of the keeper.
        let keeper_socket = edge_key.is_none().then(|| places.keep_socket());
        let options = FrontOptions {
            nginx: is_nginx.then(|| self.nginx(places)),
            edge_key,
            listeners,
            control_socket: self.control,
            keeper_socket,
            metrics_socket: Some(places.metrics_socket()),
            log_dir: places.log(),
            rotation,
            grace: GRACE,
        };
        mfserv_front::run(kind, options)?;
        Ok(Outcome::Done)
    }

    fn nginx(&self, places: &Places) -> NginxOptions {
        let program = mfserv_node::program().into_os_string();
        let home = places.home().as_os_str().to_owned();
        let words = [program, "front-behind".into(), "--home".into(), home, "--rotation".into()];
        NginxOptions {
            program: self.nginx_program.clone(),
            modules: self.nginx_modules.clone(),
            workers: self.nginx_workers,
            look: NginxOptions::LOOK,
            shown_config: places.home().join("tmp/config_auto/nginx.conf"),
            temp_dir: places.home().join("tmp/nginx"),
            inner: words.into_iter().chain([self.rotation.clone().into()]).collect(),
        }
    }
}

/// Runs the telemetry role: its settings are in the environment.
fn telemetry(places: &Places) -> Result<Outcome, Diagnostic> {
    let bad = |e: serde_json::Error| {
        Diagnostic::error(format!("{SETTINGS_VARIABLE} is not understood"))
            .kind(Kind::Usage)
            .because(e)
    };
    let settings = std::env::var(SETTINGS_VARIABLE).unwrap_or_default();
    mfserv_telemetry::role::run(RoleOptions {
        metrics_socket: places.metrics_socket(),
        ask_socket: places.telemetry_socket(),
        points_socket: places.points_socket(),
        spool: places.var().join("telemetry/points"),
        history: places.var().join("telemetry/history"),
        alerts_state: places.var().join("telemetry/alerts.json"),
        counters: places.var().join("telemetry/counters.json"),
        host: std::env::var("MFHOSTNAME").unwrap_or_else(|_| "localhost".into()),
        home: places.home().to_owned(),
        settings: serde_json::from_str(&settings).map_err(bad)?,
        log_dir: places.log(),
        ship_dir: places.var().join("ship"),
        notice: Arc::new(complain),
    })?;
    Ok(Outcome::Done)
}

#[derive(Debug, Args)]
pub struct Telegraf {
    /// The program.
    #[arg(long)]
    program: PathBuf,
}

impl Telegraf {
    /// The file is written at each start: who removes or changes it, changes nothing for long.
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let (path, text) = (places.telegraf_config(), std::env::var_os(telegraf::CONFIG_VARIABLE));
        let text = text.unwrap_or_default();
        until_free(&places.points_socket())?;
        disk::replace(&path, 0o600, text.as_encoded_bytes())
            .map_err(|why| disk::failed("write", &path, why))?;
        #[expect(
            clippy::disallowed_methods,
            reason = "the process that the keeper has started becomes the program"
        )]
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&path).env_remove(telegraf::CONFIG_VARIABLE);
        let program = self.program.display();
        Err(Diagnostic::error(format!("{program} cannot be run")).because(command.exec()))
    }
}

/// How long the built-in agent may take to end, when Telegraf takes its place.
const HANDOVER: Duration = Duration::from_secs(20);

/// Waits until nobody listens on a socket any more: who looks after it would take it back.
fn until_free(socket: &Path) -> Result<(), Diagnostic> {
    let end = Instant::now() + HANDOVER;
    while UnixStream::connect(socket).is_ok() {
        if Instant::now() > end {
            return Err(Diagnostic::error("Telegraf cannot receive lines")
                .because(format!("another process listens on {}", socket.display())));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    // Left by a process that was killed, if it is there.
    let _ = std::fs::remove_file(socket);
    Ok(())
}

/// How long another operation on the same plugin is waited for.
const PATIENCE: Duration = Duration::from_secs(600);

#[derive(Debug, Args)]
pub struct Stage {
    /// The operation that it is for.
    #[arg(long)]
    operation: OperationId,
    /// The file in which the daemon finds what came of it (JSON).
    #[arg(long)]
    result: PathBuf,
    /// The package to stage.
    #[arg(long, required_unless_present = "release_of")]
    package: Option<PathBuf>,
    /// Install it under this name instead of its own.
    #[arg(long)]
    new_name: Option<String>,
    /// Remove the oldest releases even if the app has left files in them.
    #[arg(long)]
    clean: bool,
    /// Accept that a packed plugin of that name is installed.
    #[arg(long)]
    replace: bool,
    /// Accept that it takes routes from other plugins.
    #[arg(long)]
    take_route: bool,
    /// The plugin of which an earlier release is checked.
    #[arg(long, conflicts_with = "package")]
    release_of: Option<String>,
    /// That release.
    #[arg(long, requires = "release_of")]
    number: Option<u32>,
}

impl Stage {
    /// Exits with 0 also when it failed: the result says so.
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let staged = self.stage(places).unwrap_or_else(|problem| {
            complain(&problem.to_string());
            StageResult::Failed(problem)
        });
        let text = serde_json::to_vec(&staged).unwrap_or_default();
        mfserv_platform::disk::write(&self.result, &text)?;
        Ok(Outcome::Done)
    }

    fn stage(&self, places: &Places) -> Result<StageResult, Diagnostic> {
        let owner = Owner::this_process(self.operation.as_str());
        let (cancel, mut steps) = (cancel()?, Steps::new());
        if let Some(plugin) = &self.release_of {
            let asked = Asked {
                plugin,
                release: self.number,
                take_route: self.take_route,
                owner,
                patience: PATIENCE,
                cancel,
            };
            let (release, _) = check_release(places, asked, &mut steps)?;
            return Ok(StageResult::Staged { plugin: plugin.clone(), release });
        }
        let package = PackageFile {
            file: self.package.as_deref().unwrap_or(places.home()),
            replace: self.replace,
            new_name: self.new_name.clone(),
            clean: self.clean,
            replace_link: None,
            take_route: self.take_route,
            variables: Default::default(),
        };
        let staged = stage(places, package, (owner, PATIENCE), cancel, &mut steps)?;
        let (plugin, release) = (staged.spec.name.clone(), staged.number);
        // It outlives this process.
        let home = mfserv_plugin::Home::new(places.home());
        store::adopt(&home, &plugin, release, self.operation.as_str())?;
        Ok(StageResult::Staged { plugin, release })
    }
}

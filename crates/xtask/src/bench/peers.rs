//! Other supervisors, installed into a temporary directory, each with the same programs:
//! one gunicorn with 4 workers and 4 servers of Node.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mfserv_core::Diagnostic;
use tempfile::TempDir;

use crate::child::{self, Running};
use crate::{interrupt, process};

/// What is compared with.
pub const KINDS: [Kind; 3] = [Kind::Circus, Kind::Supervisord, Kind::Pm2];
/// gunicorn's arbiter and its 4 workers, and 4 of Node.
const SUPERVISED: usize = 9;
/// How long an installation may take.
const INSTALLATION: Duration = Duration::from_secs(300);
/// How long all programs may take to be there.
const STARTING: Duration = Duration::from_secs(60);

/// A supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// MFSERV's.
    Circus,
    /// The oldest.
    Supervisord,
    /// Node's.
    Pm2,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Circus => "circus",
            Kind::Supervisord => "supervisord",
            Kind::Pm2 => "PM2",
        })
    }
}

/// The supervisors and what they supervise; removed when dropped.
#[derive(Debug)]
pub struct Tools {
    dir: TempDir,
}

impl Tools {
    /// Installs them, with the network.
    pub fn install() -> Result<Self, Diagnostic> {
        let dir = tempfile::Builder::new().prefix("mfb-peers-").tempdir();
        let dir =
            dir.map_err(|e| Diagnostic::error("cannot make a temporary directory").because(e))?;
        let tools = Self { dir };
        tools.write("wsgi.py", include_str!("programs/wsgi.py"))?;
        tools.write("server.js", include_str!("programs/server.js"))?;
        eprintln!("installing circus, supervisor and gunicorn with pip");
        let mut venv = Command::new("python3");
        child::run(venv.args(["-m", "venv"]).arg(tools.path("venv")), INSTALLATION)?;
        let mut pip = Command::new(tools.path("venv/bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check"]);
        child::run(pip.args(["circus", "supervisor", "gunicorn"]), INSTALLATION)?;
        eprintln!("installing PM2 with npm");
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(tools.dir.path());
        child::run(npm.arg("pm2"), INSTALLATION)?;
        Ok(tools)
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Diagnostic> {
        fs::write(self.path(name), text)
            .map_err(|e| Diagnostic::error(format!("cannot write {name}")).because(e))
    }

    /// The command of gunicorn.
    fn gunicorn(&self, who: &str) -> String {
        let dir = self.dir.path().display();
        format!("{dir}/venv/bin/gunicorn --workers 4 --bind unix:{dir}/{who}.sock wsgi:app")
    }

    fn command(&self, program: PathBuf) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

/// A supervisor that runs; it is stopped with all it supervises when it is dropped.
#[derive(Debug)]
pub struct Peer {
    life: Life,
    supervisor: u32,
}

#[derive(Debug)]
enum Life {
    /// It is our child. The field is only there to be dropped.
    Child(#[expect(dead_code, reason = "ends the program when dropped")] Running),
    /// It put itself into the background; this command ends it.
    Background(Command),
}

impl Peer {
    /// Starts it; returns when all that it supervises is there.
    pub fn start(kind: Kind, tools: &Tools) -> Result<Self, Diagnostic> {
        let peer = match kind {
            Kind::Circus => circus(tools)?,
            Kind::Supervisord => supervisord(tools)?,
            Kind::Pm2 => pm2(tools)?,
        };
        interrupt::until(&format!("{kind} has started everything"), STARTING, || {
            (process::descendants(peer.supervisor).len() >= SUPERVISED).then_some(())
        })?;
        Ok(peer)
    }

    /// Its process.
    pub fn supervisor(&self) -> u32 {
        self.supervisor
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Life::Background(end) = &mut self.life {
            if let Err(why) = end.status() {
                eprintln!("cannot end {}: {why}", self.supervisor);
            }
        }
    }
}

fn child_peer(mut command: Command) -> Result<Peer, Diagnostic> {
    let running = Running::start(&mut command)?;
    Ok(Peer { supervisor: running.pid(), life: Life::Child(running) })
}

fn circus(tools: &Tools) -> Result<Peer, Diagnostic> {
    let dir = tools.dir.path().display();
    let gunicorn = tools.gunicorn("circus");
    tools.write(
        "circus.ini",
        &format!(
            "[circus]\nendpoint = ipc://{dir}/circus-control.sock\npubsub_endpoint = \
             ipc://{dir}/circus-events.sock\nstatsd = False\n\n[watcher:gunicorn]\ncmd = \
             {gunicorn}\nworking_dir = {dir}\ncopy_env = True\n\n[watcher:node]\ncmd = node \
             {dir}/server.js\nnumprocesses = 4\ncopy_env = True\n"
        ),
    )?;
    let mut command = tools.command(tools.path("venv/bin/circusd"));
    command.arg("circus.ini");
    child_peer(command)
}

fn supervisord(tools: &Tools) -> Result<Peer, Diagnostic> {
    let dir = tools.dir.path().display();
    let gunicorn = tools.gunicorn("supervisord");
    let logs = "stdout_logfile = NONE\nstderr_logfile = NONE\nkillasgroup = true\n";
    tools.write(
        "supervisord.conf",
        &format!(
            "[supervisord]\nnodaemon = true\nlogfile = {dir}/supervisord.log\npidfile = \
             {dir}/supervisord.pid\nchildlogdir = {dir}\n\n[program:gunicorn]\ncommand = \
             {gunicorn}\ndirectory = {dir}\n{logs}\n[program:node]\ncommand = node \
             {dir}/server.js\nnumprocs = 4\nprocess_name = %(program_name)s_%(process_num)d\n\
             {logs}"
        ),
    )?;
    let mut command = tools.command(tools.path("venv/bin/supervisord"));
    command.args(["-c", "supervisord.conf"]);
    child_peer(command)
}

fn pm2(tools: &Tools) -> Result<Peer, Diagnostic> {
    let gunicorn = tools.gunicorn("pm2");
    let (program, args) = gunicorn.split_once(' ').unwrap_or((&gunicorn, ""));
    let apps = serde_json::json!({ "apps": [
        { "name": "gunicorn", "script": program, "args": args, "interpreter": "none" },
        { "name": "node", "script": "./server.js", "instances": 4, "exec_mode": "fork" },
    ]});
    tools.write("apps.json", &apps.to_string())?;
    let home = tools.path("pm2");
    let pm2 = |args: &[&str]| {
        let mut command = tools.command(tools.path("node_modules/.bin/pm2"));
        command.env("PM2_HOME", &home).env("PM2_DISABLE_VERSION_CHECK", "true").args(args);
        command
    };
    let mut peer = Peer { supervisor: 0, life: Life::Background(pm2(&["kill"])) };
    child::run(&mut pm2(&["start", "apps.json"]), INSTALLATION)?;
    peer.supervisor = pid_in(&home.join("pm2.pid"))?;
    Ok(peer)
}

fn pid_in(path: &Path) -> Result<u32, Diagnostic> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.trim()
        .parse()
        .map_err(|e| Diagnostic::error(format!("no process id in {}", path.display())).because(e))
}

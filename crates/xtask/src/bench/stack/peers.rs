//! The stacks of others.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mfserv_core::Diagnostic;
use tempfile::TempDir;

use super::contestant::{Contestant, Processes};
use super::fronts;
use super::kit::Kit;
use super::pm2::Pm2;
use super::row::{Kind, Row};
use crate::bench::nginx::Nginx;
use crate::child::Running;
use crate::{interrupt, node, process};

/// How long servers may take to listen.
const STARTING: Duration = Duration::from_secs(30);

/// A stack that mfserv is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// MFSERV's own: nginx with Lua and a JSON log, which connects anew for each request, and
    /// bjoern behind two middlewares.
    Imitated,
    /// nginx that keeps its connections, and bjoern.
    Bjoern,
    /// nginx, and gunicorn's default workers, which close each connection.
    Gunicorn,
    /// nginx and uWSGI by their own protocol.
    Uwsgi,
    /// nginx that keeps its connections, and uvicorn.
    Uvicorn,
    /// nginx that keeps its connections, and granian.
    Granian,
    /// nginx that keeps its connections, and servers of Node.
    Node,
    /// PM2's cluster: the servers accept connections of clients themselves.
    Pm2,
}

impl Peer {
    /// How it is called in the report.
    pub fn name(self, kit: &Kit) -> &'static str {
        match self {
            Peer::Imitated if kit.lua.is_none() => "MFSERV's stack imitated, without Lua",
            Peer::Imitated => "MFSERV's stack imitated",
            Peer::Bjoern => "nginx keep-alive + bjoern",
            Peer::Gunicorn => "nginx + gunicorn sync",
            Peer::Uwsgi => "nginx + uWSGI",
            Peer::Uvicorn => "nginx keep-alive + uvicorn",
            Peer::Granian => "nginx keep-alive + granian",
            Peer::Node => "nginx keep-alive + node",
            Peer::Pm2 => "PM2 cluster, no front",
        }
    }

    /// What it needs and cannot be had here, if there is such a thing.
    pub fn missing(self, kit: &Kit) -> Option<&'static str> {
        let needed = match self {
            Peer::Imitated | Peer::Bjoern => "bjoern",
            Peer::Uwsgi => "uWSGI",
            Peer::Granian => "granian",
            Peer::Pm2 => "PM2",
            Peer::Gunicorn | Peer::Uvicorn | Peer::Node => return None,
        };
        kit.is_missing(needed).then_some(needed)
    }

    /// Starts it with so many workers; returns when it answers.
    pub fn start(self, kit: &Kit, row: Row, workers: u32) -> Result<Contestant, Diagnostic> {
        let place = Place::new(row)?;
        let contestant = match self {
            Peer::Pm2 => self.pm2(kit, row, place, workers)?,
            _ => self.behind_nginx(kit, row, place, workers)?,
        };
        contestant.wait_until_ready(row.length())?;
        Ok(contestant)
    }

    fn behind_nginx(
        self,
        kit: &Kit,
        row: Row,
        place: Place,
        workers: u32,
    ) -> Result<Contestant, Diagnostic> {
        // The first two fork their workers, which share one socket.
        let forks = matches!(self, Peer::Gunicorn | Peer::Uwsgi);
        let count = if forks { 1 } else { workers };
        let mut servers = Vec::new();
        let mut sockets = Vec::new();
        for number in 1..=count {
            let socket = place.path(&format!("{number}.s"));
            let mut command = self.command(kit, &socket, workers);
            servers.push(place.start(&mut command)?);
            sockets.push(socket);
        }
        for (server, socket) in servers.iter_mut().zip(&sockets) {
            place.wait_until_listening(server, socket)?;
        }
        if let (true, Some(parent)) = (forks, servers.first()) {
            let what = format!("{} has {workers} workers", self.name(kit));
            interrupt::until(&what, STARTING, || {
                (process::descendants(parent.pid()).len() >= workers as usize).then_some(())
            })?;
        }
        let nginx = match self {
            Peer::Imitated => fronts::imitated(kit, &sockets),
            Peer::Uwsgi => fronts::uwsgi(kit, &sockets),
            Peer::Gunicorn => fronts::closing(kit, &sockets),
            _ => fronts::keep_alive(kit, &sockets),
        };
        let (setup, server) = nginx;
        let nginx = Nginx::start_with(&setup, "1", &[server])?;
        let processes = Processes {
            front: vec![nginx.pid()],
            workers: servers.iter().map(Running::pid).collect(),
            rest: Vec::new(),
        };
        Ok(Contestant {
            name: self.name(kit).into(),
            address: nginx.address(0)?,
            path: row.path(),
            processes,
            // In this order: the front ends before its workers, all before their directory.
            life: vec![Box::new(nginx), Box::new(servers), Box::new(place)],
        })
    }

    fn pm2(
        self,
        kit: &Kit,
        row: Row,
        place: Place,
        workers: u32,
    ) -> Result<Contestant, Diagnostic> {
        let port = node::free_port()?;
        let pm2 = Pm2::start(kit, place.dir.path(), port, workers)?;
        let what = format!("{} has {workers} workers", self.name(kit));
        let servers = interrupt::until(&what, STARTING, || {
            Some(process::descendants(pm2.pid())).filter(|pids| pids.len() == workers as usize)
        })?;
        Ok(Contestant {
            name: self.name(kit).into(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            path: row.path(),
            processes: Processes { front: Vec::new(), workers: servers, rest: vec![pm2.pid()] },
            life: vec![Box::new(pm2), Box::new(place)],
        })
    }

    /// The command of a server; one that forks starts all workers.
    fn command(self, kit: &Kit, socket: &Path, workers: u32) -> Command {
        let workers = workers.to_string();
        let python = |program: &str| Command::new(kit.python(program));
        match self {
            Peer::Imitated | Peer::Bjoern => {
                let mut command = python("python");
                command.arg("bjoern_server.py").arg(socket);
                command.args((self == Peer::Imitated).then_some("--wrapped"));
                command.env("LD_LIBRARY_PATH", kit.libraries());
                command
            }
            Peer::Gunicorn => {
                let mut command = python("gunicorn");
                command.args(["--no-control-socket", "--workers", &workers, "--bind"]);
                command.arg(format!("unix:{}", socket.display())).arg("app:app");
                command
            }
            Peer::Uwsgi => {
                let mut command = python("uwsgi");
                command.args(["--master", "--need-app", "--die-on-term", "--disable-logging"]);
                command.args(["--listen", "100", "--processes", &workers, "--module", "app:app"]);
                command.arg("--socket").arg(socket);
                command
            }
            Peer::Uvicorn => {
                let mut command = python("uvicorn");
                command.args(["--no-access-log", "--log-level", "warning", "app:app", "--uds"]);
                command.arg(socket);
                command
            }
            Peer::Granian => {
                let mut command = python("granian");
                command.args(["--interface", "asgi", "--loop", "uvloop", "--no-access-log"]);
                command.args(["--workers", "1", "app:app", "--uds"]).arg(socket);
                command
            }
            Peer::Node | Peer::Pm2 => {
                let mut command = Command::new("node");
                command.arg("server.js").arg(socket);
                command.env("NODE_PATH", kit.node_modules());
                command
            }
        }
    }
}

/// A directory with the app; removed when it is dropped.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new(row: Row) -> Result<Self, Diagnostic> {
        let failed = |why| Diagnostic::error("cannot make the place of a peer").because(why);
        let dir = tempfile::Builder::new().prefix("mfb-stack-").tempdir().map_err(failed)?;
        let place = Self { dir };
        let app = if row.kind() == Kind::Node { "server.js" } else { "app.py" };
        fs::write(place.path(app), row.source()).map_err(failed)?;
        let bjoern = include_str!("../programs/stack/bjoern_server.py");
        fs::write(place.path("bjoern_server.py"), bjoern).map_err(failed)?;
        Ok(place)
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// What it says goes to `log`.
    fn start(&self, command: &mut Command) -> Result<Running, Diagnostic> {
        let failed = |why| Diagnostic::error("cannot write the log of a peer").because(why);
        let log = File::options().create(true).append(true).open(self.path("log"));
        let log = log.map_err(failed)?;
        command.stdout(log.try_clone().map_err(failed)?).stderr(log).stdin(Stdio::null());
        command.current_dir(self.dir.path()).env("PYTHONPATH", self.dir.path());
        Running::start(command)
    }

    fn wait_until_listening(&self, server: &mut Running, socket: &Path) -> Result<(), Diagnostic> {
        let listens = || {
            let listens = UnixStream::connect(socket).is_ok();
            (listens || server.ended().is_some()).then_some(listens)
        };
        match interrupt::until("a server listens", STARTING, listens) {
            Ok(true) => Ok(()),
            ended => {
                interrupt::check()?;
                let log = fs::read_to_string(self.path("log")).unwrap_or_default();
                let last: Vec<&str> = log.trim().lines().rev().take(3).collect();
                let why = if ended.is_ok() { "it has ended" } else { "it does not listen" };
                Err(Diagnostic::error("a server does not start")
                    .because(format!("{why}; last said: {}", last.join(" / "))))
            }
        }
    }
}

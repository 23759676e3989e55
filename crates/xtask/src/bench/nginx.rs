//! A real nginx with a prefix of its own in a temporary directory.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mfserv_core::Diagnostic;
use tempfile::TempDir;

use crate::child::Running;
use crate::{interrupt, node};

/// A server on a port of its own.
#[derive(Debug, Clone)]
pub struct Server {
    /// What stands before it, in `http`: the upstream it uses. `NUMBER` is its number.
    pub before: String,
    /// What stands in it besides `listen`. `NUMBER` is its number.
    pub body: String,
}

impl Server {
    /// In front of some unix sockets; `parameters` stand behind the path of each, for
    /// example `max_conns=1`.
    pub fn of_sockets(parameters: &str, sockets: &[PathBuf]) -> Self {
        let mut before = String::from("upstream uNUMBER {\n  zone uNUMBER 64k;\n  least_conn;\n");
        for socket in sockets {
            // Writing to a text never fails.
            let _ = writeln!(before, "  server unix:{} {parameters};", socket.display());
        }
        before += "  keepalive 16;\n}\n";
        let body = "location / {\n  proxy_pass http://uNUMBER;\n  proxy_http_version 1.1;\n  \
                    proxy_set_header Connection \"\";\n}\n";
        Self { before, body: body.into() }
    }
}

/// Which nginx, and what its configuration says besides its servers.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// The program; `None`: that of the machine.
    pub program: Option<PathBuf>,
    /// Where the dynamic linker looks for its libraries first.
    pub libraries: OsString,
    /// What stands at its beginning, for example modules that are loaded.
    pub main: String,
    /// What stands in `http`.
    pub http: String,
}

/// A running nginx; it is stopped and its files removed when it is dropped.
#[derive(Debug)]
pub struct Nginx {
    // In this order: nginx ends before its directory is removed.
    running: Running,
    addresses: Vec<SocketAddr>,
    _prefix: TempDir,
}

impl Nginx {
    /// Starts nginx with these servers, each on a port of its own of the loopback
    /// address, and with as many worker processes as its configuration may say (`1`,
    /// `auto`). Returns when it listens.
    pub fn start(processes: &str, servers: &[Server]) -> Result<Self, Diagnostic> {
        Self::start_with(&Setup::default(), processes, servers)
    }

    /// The same with another nginx, or with more in its configuration.
    pub fn start_with(
        setup: &Setup,
        processes: &str,
        servers: &[Server],
    ) -> Result<Self, Diagnostic> {
        let prefix = tempfile::Builder::new().prefix("mfb-nginx-").tempdir();
        let prefix = prefix
            .map_err(|e| Diagnostic::error("cannot make a temporary directory").because(e))?;
        let ports = servers.iter().map(|_| node::free_port());
        let ports: Vec<u16> = ports.collect::<Result<_, _>>()?;
        let configuration = configuration(setup, processes, servers, &ports);
        fs::write(prefix.path().join("nginx.conf"), configuration)
            .map_err(|e| Diagnostic::error("cannot write nginx.conf").because(e))?;
        let mut command = command(setup, prefix.path());
        let running = Running::start(&mut command).map_err(|problem| {
            problem.help("install it: apt-get install nginx-light (its own service is not needed)")
        })?;
        let addresses =
            ports.into_iter().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))).collect();
        let mut nginx = Self { running, addresses, _prefix: prefix };
        nginx.wait_until_listening()?;
        Ok(nginx)
    }

    fn wait_until_listening(&mut self) -> Result<(), Diagnostic> {
        let listens = interrupt::until("nginx listens", Duration::from_secs(10), || {
            let listens = |address| TcpStream::connect(address).is_ok();
            let ended = self.running.ended().is_some();
            (ended || self.addresses.iter().all(listens)).then_some(!ended)
        })?;
        match listens {
            true => Ok(()),
            false => {
                Err(Diagnostic::error("nginx ended at once")
                    .because("it says why on standard error"))
            }
        }
    }

    /// Where a server answers, by its number.
    pub fn address(&self, server: usize) -> Result<SocketAddr, Diagnostic> {
        let address = self.addresses.get(server).copied();
        address.ok_or_else(|| Diagnostic::error(format!("nginx has no server {server}")))
    }

    /// Its master process.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }
}

impl Setup {
    /// The program: its own, or that of the machine.
    pub fn program(&self) -> &Path {
        // Debian has it where only root looks for programs.
        let places = ["/usr/sbin/nginx", "/usr/local/sbin/nginx"];
        let program = places.into_iter().find(|place| Path::new(place).exists());
        self.program.as_deref().unwrap_or(Path::new(program.unwrap_or("nginx")))
    }

    /// A script that runs this nginx. Its libraries are for nginx alone: in the environment of a
    /// node, all apps would have them too.
    pub fn script(&self) -> String {
        let mut text = String::from("#!/bin/sh\n");
        if !self.libraries.is_empty() {
            text += &format!("LD_LIBRARY_PATH='{}' ", self.libraries.to_string_lossy());
        }
        text + &format!("exec '{}' \"$@\"\n", self.program().display())
    }
}

fn command(setup: &Setup, prefix: &Path) -> Command {
    let mut command = Command::new(setup.program());
    if !setup.libraries.is_empty() {
        command.env("LD_LIBRARY_PATH", &setup.libraries);
    }
    command.arg("-p").arg(prefix).args(["-c", "nginx.conf", "-e", "error.log"]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn configuration(setup: &Setup, processes: &str, servers: &[Server], ports: &[u16]) -> String {
    let mut text = setup.main.clone() + "daemon off;\npid nginx.pid;\nerror_log error.log;\n";
    if rustix::process::geteuid().is_root() {
        // The sockets of the workers are for their owner alone.
        text += "user root;\n";
    }
    text += &format!(
        "worker_processes {processes};\nworker_rlimit_nofile 8192;\nevents {{ worker_connections 4096; }}\n"
    );
    text += "http {\naccess_log access.log combined buffer=32k flush=1s;\n";
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        text += &format!("{kind}_temp_path {kind};\n");
    }
    text += &setup.http;
    for (number, (server, port)) in servers.iter().zip(ports).enumerate() {
        let numbered = |text: &str| text.replace("NUMBER", &number.to_string());
        text += &numbered(&server.before);
        text += &format!("server {{\nlisten 127.0.0.1:{port};\n{}}}\n", numbered(&server.body));
    }
    text + "}\n"
}

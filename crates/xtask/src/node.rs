//! A node in a temporary home, run by the release binary.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mfserv_core::Diagnostic;
use mfserv_core::status::Status;
use tempfile::TempDir;

use crate::child;

/// How long a command may take; environments are built with the network.
const PATIENCE: Duration = Duration::from_secs(600);

/// Builds mfserv as it is shipped; returns the program. It lies beside this one.
pub fn build() -> Result<PathBuf, Diagnostic> {
    eprintln!("building mfserv");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--release", "--locked", "-p", "mfserv"]);
    child::run(&mut command, Duration::from_secs(3600))?;
    let program = own_program()?.with_file_name("mfserv");
    match program.is_file() {
        true => Ok(program),
        false => Err(Diagnostic::error("mfserv is not beside this program after its build")
            .help("run it as `cargo xtask`")),
    }
}

fn own_program() -> Result<PathBuf, Diagnostic> {
    std::env::current_exe()
        .map_err(|e| Diagnostic::error("cannot tell where this program is").because(e))
}

/// The target directory, in which this program was built.
pub fn target() -> Result<PathBuf, Diagnostic> {
    let own = own_program()?;
    let target = own.ancestors().nth(2);
    target
        .map(Into::into)
        .ok_or_else(|| Diagnostic::error("this program is in no target directory"))
}

/// A node; it is stopped and its home removed when it is dropped.
#[derive(Debug)]
pub struct Node {
    program: PathBuf,
    home: TempDir,
    port: u16,
}

impl Node {
    /// A fresh home on a free port of the loopback address; nothing is started.
    pub fn new(program: &Path) -> Result<Self, Diagnostic> {
        let home = tempfile::Builder::new().prefix("mfb-").tempdir();
        let home =
            home.map_err(|e| Diagnostic::error("cannot make a temporary home").because(e))?;
        // A copy of its own: another node of the same program would share its memory.
        let own = home.path().join("mfserv");
        std::fs::copy(program, &own)
            .map_err(|e| Diagnostic::error("cannot copy mfserv").because(e))?;
        let node = Self { program: own, home, port: free_port()? };
        node.run(&["config", "set", "front.host=127.0.0.1"])?;
        node.run(&["config", "set", &format!("nginx.port={}", node.port)])?;
        Ok(node)
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// A path in the home.
    pub fn path(&self, below: &str) -> PathBuf {
        self.home.path().join(below)
    }

    /// Runs a command of mfserv; returns its standard output.
    pub fn run(&self, args: &[&str]) -> Result<String, Diagnostic> {
        let mut command = Command::new(&self.program);
        command.arg("--home").arg(self.home.path()).args(args).stdin(Stdio::null());
        command.env("METWORK_ALLOW_USAGE_BY_ROOT", "1");
        // Nothing of the site may change what is measured.
        command.env("MFSERV_SITE_DIR", self.path("site")).env_remove("MFCONFIG");
        command.current_dir(self.home.path());
        child::run(&mut command, PATIENCE)
    }

    /// Makes a plugin from a template; returns its directory. It is not built yet.
    pub fn make(&self, template: &str, name: &str) -> Result<PathBuf, Diagnostic> {
        eprintln!("making {name}");
        self.run(&["new", "--no-input", "--template", template, name])?;
        Ok(self.path(name))
    }

    /// Builds a plugin and links it as a developer does.
    pub fn link(&self, dir: &Path) -> Result<(), Diagnostic> {
        eprintln!("building {}", dir.file_name().unwrap_or_default().to_string_lossy());
        self.run(&["dev", "--no-wait", &dir.to_string_lossy()]).map(drop)
    }

    /// Starts it; returns how long it took until it ran.
    pub fn start(&self) -> Result<Duration, Diagnostic> {
        let began = Instant::now();
        self.run(&["start"])?;
        Ok(began.elapsed())
    }

    /// Stops it.
    pub fn stop(&self) -> Result<(), Diagnostic> {
        self.run(&["stop"]).map(drop)
    }

    /// What `mfserv status --json` says.
    pub fn status(&self) -> Result<Status, Diagnostic> {
        let text = self.run(&["status", "--json"])?;
        serde_json::from_str(&text)
            .map_err(|e| Diagnostic::error("cannot read `mfserv status --json`").because(e))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let mut command = Command::new(&self.program);
        command.arg("--home").arg(self.home.path()).args(["stop", "--kill"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).env_remove("MFCONFIG");
        // Not `child::run`: it must go on after an interruption.
        if let Err(why) = command.status() {
            eprintln!("cannot stop the node in {}: {why}", self.home.path().display());
        }
    }
}

/// A port that nobody listens on now.
pub fn free_port() -> Result<u16, Diagnostic> {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr());
    free.map(|a| a.port()).map_err(|e| Diagnostic::error("there is no free port").because(e))
}

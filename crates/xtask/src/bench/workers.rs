//! What a request costs a Python worker, by the server in it. A worker stands alone: requests
//! come over its unix socket, with the head that the front writes, from a client whose own
//! cost does not count.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use mfserv_core::Diagnostic;
use rustix::event::{PollFd, PollFlags, poll};
use tempfile::TempDir;

use super::machine;
use super::spread::Spread;
use crate::child::{self, Running};
use crate::{interrupt, process};

/// How long an installation may take.
const INSTALLATION: Duration = Duration::from_secs(300);
/// How long the extension module may take to build.
const BUILD: Duration = Duration::from_secs(1800);
/// How long a worker may take to listen.
const STARTING: Duration = Duration::from_secs(20);
/// The apps of each interface, and the servers that run them.
const TABLES: [(&[&str], &[&str]); 2] = [
    (&["raw", "flask"], &["mfserv", "bjoern", "waitress"]),
    (&["raw_asgi", "starlette", "fastapi"], &["mfserv", "uvicorn"]),
];
/// The Python modules of mfserv, in its sources.
const MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugin/python/modules");
const APP: &str = include_str!("programs/workers.py");
/// As the front writes it.
const REQUEST: &[u8] = b"GET /a HTTP/1.1\r\nHost: www.example.org\r\nX-Real-IP: 10.1.2.3\r\n\
    X-Real-Port: 4711\r\nX-Forwarded-For: 10.1.2.3\r\nX-Forwarded-Proto: http\r\n\
    X-Forwarded-Host: www.example.org\r\nX-Forwarded-Port: 80\r\n\
    X-Request-Id: 0123456789abcdef\r\nAccept: */*\r\n\r\n";

/// How it is measured.
#[derive(Debug, Args)]
pub struct Workers {
    /// Connections, each with one request under way.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: u32,
    /// Rounds; in each, every server has its turn.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Milliseconds of a turn.
    #[arg(long, default_value_t = 700, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    turn_ms: u64,
}

impl Workers {
    /// Measures, and prints the report.
    pub fn run(self) -> Result<(), Diagnostic> {
        let machine = machine::line(&[("python3", &["--version"])]);
        let place = Place::new()?;
        println!("{machine}\n\nµs of CPU per request, {} connections:", self.connections);
        for (apps, servers) in TABLES {
            println!("\n| | {} |\n|---|{}", servers.join(" | "), "---|".repeat(servers.len()));
            for app in apps {
                self.row(&place, app, servers)?;
            }
        }
        println!("\nThe middle of {} rounds, and its least and most.", self.rounds);
        Ok(())
    }

    fn row(&self, place: &Place, app: &str, servers: &[&str]) -> Result<(), Diagnostic> {
        let mut workers = Vec::new();
        for server in servers {
            let worker = place.start(server, app);
            if let Err(why) = &worker {
                eprintln!("{server}: {why}");
            }
            workers.push((worker.ok(), Vec::new()));
        }
        for _ in 0..self.rounds {
            for (worker, costs) in &mut workers {
                if let Some((running, socket)) = worker {
                    costs.push(self.turn(running.pid(), socket)?);
                }
            }
        }
        let cells = workers.into_iter().map(|(_, costs)| {
            Spread::of(costs)
                .map_or_else(|| "does not start".into(), |spread| format!("{spread:.2}"))
        });
        println!("| {app} | {} |", cells.collect::<Vec<String>>().join(" | "));
        Ok(())
    }

    /// µs of CPU per request.
    fn turn(&self, pid: u32, socket: &Path) -> Result<f64, Diagnostic> {
        let failed =
            |why: std::io::Error| Diagnostic::error("a worker does not answer").because(why);
        let mut streams = Vec::new();
        for _ in 0..self.connections {
            let mut stream = UnixStream::connect(socket).map_err(failed)?;
            ask(&mut stream).map_err(failed)?;
            streams.push(stream);
        }
        let before = process::used(&[pid])?;
        let (began, mut answered) = (Instant::now(), 0_u32);
        while began.elapsed() < Duration::from_millis(self.turn_ms) {
            interrupt::check()?;
            answered += answers(&mut streams).map_err(failed)?;
        }
        let used = process::used(&[pid])? - before;
        Ok(used.cpu_ns as f64 / 1000.0 / f64::from(answered.max(1)))
    }
}

/// Reads the answers that are there, and asks again.
fn answers(streams: &mut [UnixStream]) -> std::io::Result<u32> {
    let mut sockets: Vec<PollFd<'_>> =
        streams.iter().map(|stream| PollFd::new(stream, PollFlags::IN)).collect();
    poll(&mut sockets, None)?;
    let ready: Vec<bool> = sockets.iter().map(|socket| !socket.revents().is_empty()).collect();
    let mut count = 0;
    for (stream, _) in streams.iter_mut().zip(ready).filter(|(_, is_ready)| *is_ready) {
        let (mut answer, mut length) = ([0; 4096], 0);
        while !answer[..length].ends_with(b"ok\n") {
            match stream.read(&mut answer[length..])? {
                0 => return Err(std::io::ErrorKind::InvalidData.into()),
                count => length += count,
            }
        }
        count += 1;
        ask(stream)?;
    }
    Ok(count)
}

fn ask(stream: &mut UnixStream) -> std::io::Result<()> {
    stream.write_all(REQUEST)
}

/// The apps, the servers and their packages; removed when dropped.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Result<Self, Diagnostic> {
        let dir = tempfile::Builder::new().prefix("mfb-workers-").tempdir();
        let failed = |why| Diagnostic::error("cannot make the place of the bench").because(why);
        let place = Self { dir: dir.map_err(failed)? };
        fs::write(place.path("app.py"), APP).map_err(failed)?;
        fs::copy(place.module()?, place.path("_mfserv_worker.abi3.so")).map_err(failed)?;
        eprintln!("installing the servers of others");
        let mut venv = Command::new("python3");
        child::run(venv.args(["-m", "venv"]).arg(place.path("venv")), INSTALLATION)?;
        place.install(&["flask", "waitress==3.0.2"])?;
        place.install(&["starlette", "fastapi", "uvicorn", "httptools", "uvloop"])?;
        if let Err(why) = place.install(&["bjoern"]) {
            eprintln!("bjoern needs libev and a compiler: {why}");
        }
        Ok(place)
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// Builds the extension module as it is shipped (crates/plugin/build.rs); returns its file.
    fn module(&self) -> Result<PathBuf, Diagnostic> {
        eprintln!("building the extension module");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["rustc", "--quiet", "--locked", "--release", "--lib"]);
        command.args(["--package", "mfserv-worker-python", "--crate-type", "cdylib"]);
        command.arg("--target-dir").arg(self.path("target")).args(["--", "-C", "strip=symbols"]);
        child::run(&mut command, BUILD)?;
        Ok(self.path("target/release/libmfserv_worker_python.so"))
    }

    fn install(&self, packages: &[&str]) -> Result<(), Diagnostic> {
        let mut pip = Command::new(self.path("venv/bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(packages);
        child::run(&mut pip, INSTALLATION).map(drop)
    }

    /// Starts a worker; returns it with its socket.
    fn start(&self, server: &str, app: &str) -> Result<(Running, PathBuf), Diagnostic> {
        let socket = self.path(&format!("{server}.{app}.s"));
        let mut command = Command::new(self.path("venv/bin/python"));
        command.arg(self.path("app.py")).arg(server).arg(app).arg(&socket);
        let paths = format!("{}:{MODULES}", self.dir.path().display());
        // bjoern writes a line for each connection that is closed.
        let command = command.env("PYTHONPATH", paths).stderr(Stdio::null());
        let mut running = Running::start(command)?;
        interrupt::until(server, STARTING, || {
            let listens = UnixStream::connect(&socket).is_ok();
            (listens || running.ended().is_some()).then_some(())
        })?;
        match running.ended() {
            Some(status) => Err(Diagnostic::error(format!("{server} has ended: {status}"))),
            None => Ok((running, socket)),
        }
    }
}

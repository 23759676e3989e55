//! The capture: eight writers, each to a log of its own.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_core::output::{Output, Rotation};
use mfserv_core::watcher::Rlimits;
use mfserv_core::wire::keeper::{Ask, ProcessSpec};
use mfserv_keeper::Client;

use super::failed;
use crate::bench::spread::Spread;
use crate::{child, interrupt, process};

const WRITERS: usize = 8;
/// With its end; what an app says of a request.
const LINE: usize = 100;
const PATIENCE: Duration = Duration::from_secs(120);
const MIB: u64 = 1024 * 1024;

/// How the writers write.
struct Way {
    name: &'static str,
    /// Bytes of one write(2).
    piece: usize,
}

const WAYS: [Way; 2] =
    [Way { name: "4 KiB at a time", piece: 4096 }, Way { name: "a line at a time", piece: LINE }];

pub fn run(program: &Path, mib: u32, times: u32) -> Result<(), Diagnostic> {
    let home = tempfile::tempdir().map_err(|e| failed("no temporary directory", e))?;
    let data = home.path().join("data");
    let size = u64::from(mib) * MIB / WRITERS as u64 / LINE as u64 * LINE as u64;
    let line = format!("{:-<1$}\n", "2026-01-31T12:00:00.000000Z [INFO] (app#1) a line ", LINE - 1);
    fs::write(&data, line.repeat(size as usize / LINE)).map_err(|e| failed("no room", e))?;
    println!(
        "CPU ms per MiB, {WRITERS} writers, the middle of {times} rounds in turns (least to most):\n"
    );
    println!("| | mfserv | rotatelogs | multilog |\n|---|---|---|---|");
    for way in WAYS {
        let mut costs: [Vec<f64>; 3] = Default::default();
        for round in 0..times {
            eprintln!("{}: round {} of {times}", way.name, round + 1);
            let writes = Writes { home: home.path(), data: &data, size, piece: way.piece };
            costs[0].push(writes.by_keeper(program)?);
            costs[1].extend(writes.by_pipe("rotatelogs", &["LOG/log", "100M"])?);
            costs[2].extend(writes.by_pipe("multilog", &["s16777215", "n99", "LOG"])?);
        }
        let cells = costs.map(|cost| match Spread::of(cost) {
            Some(spread) => format!("{spread:.2}"),
            None => "not installed".to_owned(),
        });
        println!("| {} | {} |", way.name, cells.join(" | "));
    }
    println!();
    Ok(())
}

/// What is written in one round.
struct Writes<'a> {
    home: &'a Path,
    data: &'a Path,
    size: u64,
    piece: usize,
}

impl Writes<'_> {
    /// The program of a writer. It begins when the file `go` of this directory is there, and
    /// stays when it is done: what it costs to start and to end it is not part of the capture.
    fn argv(&self, gate: &Path) -> Vec<String> {
        let script = format!(
            "cd {gate} && : > at.$$ && until [ -e go ]; do sleep 0.02; done && \
             dd if={data} bs={piece} status=none && exec sleep 600",
            gate = gate.display(),
            data = self.data.display(),
            piece = self.piece,
        );
        ["sh".to_owned(), "-c".to_owned(), script].into()
    }

    /// Waits for all writers, measures, and lets them begin.
    fn begin(&self, gate: &Path, pids: &[u32]) -> Result<process::Used, Diagnostic> {
        let is_at = |name: &str| name.starts_with("at.");
        interrupt::until("the writers", PATIENCE, || {
            let entries = fs::read_dir(gate).into_iter().flatten().flatten();
            let at = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_at));
            (at.count() == WRITERS).then_some(())
        })?;
        let before = process::used(pids)?;
        fs::write(gate.join("go"), "").map_err(|e| failed("no file", e))?;
        Ok(before)
    }

    fn per_mib(&self, cpu_ns: u64) -> f64 {
        let mib = (self.size * WRITERS as u64) as f64 / MIB as f64;
        cpu_ns as f64 / 1e6 / mib
    }

    /// Waits until everything is in files of this directory (the indexes are hidden).
    fn written(&self, directory: &Path) -> Result<(), Diagnostic> {
        interrupt::until("the logs", PATIENCE, || {
            let done = size_of(directory) >= self.size * WRITERS as u64;
            done.then_some(())
        })
    }

    fn by_keeper(&self, program: &Path) -> Result<f64, Diagnostic> {
        let home = tempfile::tempdir_in(self.home).map_err(|e| failed("no directory", e))?;
        let mut command = Command::new(program);
        command.args(["keep", "--no-daemon", "--home"]).arg(home.path());
        command.env("METWORK_ALLOW_USAGE_BY_ROOT", "1").stdout(Stdio::null());
        let _keeper = child::Running::start(&mut command)?;
        let socket = mfserv_keeper::socket_path(home.path());
        let connected = || Client::connect(&socket, "bench").ok();
        let mut client = interrupt::until("the keeper", PATIENCE, connected)?;
        let pids = [client.greeting().pid];
        let log = home.path().join("log");
        for writer in 0..WRITERS {
            let spec = Box::new(self.spec(home.path(), writer, &log));
            client.ask(Ask::Spawn { spec }).map_err(|e| failed("not started", e))?;
        }
        let before = self.begin(home.path(), &pids)?;
        self.written(&log)?;
        let cost = self.per_mib((process::used(&pids)? - before).cpu_ns);
        client.ask(Ask::Shutdown).map_err(|e| failed("the keeper does not end", e))?;
        Ok(cost)
    }

    fn spec(&self, home: &Path, writer: usize, log: &Path) -> ProcessSpec {
        let path = std::env::var("PATH").unwrap_or_default();
        ProcessSpec {
            id: format!("app.bench.main.{writer}.1"),
            argv: self.argv(home),
            env: [("PATH".to_owned(), path)].into(),
            cwd: home.to_owned(),
            rlimits: Rlimits::default(),
            output: Output {
                stdout: log.join(format!("{writer}.log")),
                stderr: None,
                rotation: Rotation::default(),
            },
            release: String::new(),
            listeners: Vec::new(),
            note: String::new(),
            stdin: String::new(),
            nice: 0,
            once: false,
        }
    }

    /// The same with a program for each writer, which reads its standard input; `None` if it
    /// is not installed. `LOG` in its arguments is its directory.
    fn by_pipe(&self, tool: &str, args: &[&str]) -> Result<Option<f64>, Diagnostic> {
        let home = tempfile::tempdir_in(self.home).map_err(|e| failed("no directory", e))?;
        let mut tools = Vec::new();
        for writer in 0..WRITERS {
            let log: PathBuf = home.path().join(writer.to_string());
            fs::create_dir(&log).map_err(|e| failed("no directory", e))?;
            let mut command = Command::new(tool);
            command.args(args.iter().map(|arg| arg.replace("LOG", &log.to_string_lossy())));
            match command.stdin(Stdio::piped()).spawn() {
                Ok(child) => tools.push(child),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(failed("the other program does not start", e)),
            }
        }
        let pids: Vec<u32> = tools.iter().map(|child| child.id()).collect();
        // The bench keeps the pipes open: a program that has ended cannot be measured.
        let mut pipes: Vec<OwnedFd> = Vec::new();
        let mut writers = Vec::new();
        for child in &mut tools {
            let Some(stdin) = child.stdin.take() else { continue };
            let pipe = OwnedFd::from(stdin);
            let theirs = pipe.try_clone().map_err(|e| failed("descriptors run out", e))?;
            let argv = self.argv(home.path());
            let mut command = Command::new(&argv[0]);
            command.args(&argv[1..]).stdout(theirs);
            writers.push(command.spawn().map_err(|e| failed("dd does not start", e))?);
            pipes.push(pipe);
        }
        let before = self.begin(home.path(), &pids)?;
        let result = self.written(home.path()).and_then(|()| process::used(&pids));
        drop(pipes);
        for mut child in writers {
            let _ = child.kill();
            let _ = child.wait();
        }
        for mut child in tools {
            let _ = child.wait();
        }
        Ok(Some(self.per_mib((result? - before).cpu_ns)))
    }
}

/// The bytes of the files below a directory, without hidden ones.
fn size_of(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let shown = entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
    shown
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => size_of(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

//! Shipping: the same lines to the same receiver, by `mfserv ship` and by the loop of a shipper in
//! Python (`helpers.streaming_bulk` of the client of Elasticsearch).

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use mfserv_core::Diagnostic;

use super::machine;
use super::spread::Spread;
use crate::node;

const MEASURED: &str = include_str!("programs/measured.py");
const BULK_LINES: &str = include_str!("programs/bulk_lines.py");

/// How much.
#[derive(Debug, Args)]
pub struct Ship {
    /// Lines of the log; a tenth of them show whether memory grows.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1000..=10_000_000))]
    lines: u32,
    /// How often each is measured.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    times: u32,
    /// A Python that has the package `elasticsearch` (before 8).
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: PathBuf,
    /// Another build of mfserv, which is measured instead of this one.
    #[arg(long, value_name = "PROGRAM")]
    program: Option<PathBuf>,
}

/// What a run has cost.
struct Cost {
    cpu_us_per_line: f64,
    lines_per_s: f64,
    memory_mib: f64,
}

impl Ship {
    /// Measures, and prints the report.
    pub fn run(self) -> Result<(), Diagnostic> {
        let program = match &self.program {
            Some(program) => program.clone(),
            None => node::build()?,
        };
        println!("{}\n", machine::line(&[]));
        println!("`cargo xtask bench ship --lines {} --times {}`\n", self.lines, self.times);
        let dir = tempfile::tempdir().map_err(|e| failed("no temporary directory", e))?;
        let receiver = receive().map_err(|e| failed("no receiver", e))?;
        for (name, text) in [("measured.py", MEASURED), ("bulk_lines.py", BULK_LINES)] {
            fs::write(dir.path().join(name), text).map_err(|e| failed("no file", e))?;
        }
        println!("| | CPU µs a line | lines a second | most memory, MiB | of a tenth, MiB |");
        println!("|---|---|---|---|---|");
        for name in ["mfserv ship", "Python, streaming_bulk"] {
            let (mut costs, mut tenths) = (Vec::new(), Vec::new());
            for round in 0..self.times {
                eprintln!("{name}: round {} of {}", round + 1, self.times);
                for (lines, into) in [(self.lines, &mut costs), (self.lines / 10, &mut tenths)] {
                    let log = dir.path().join(format!("{lines}.log"));
                    write_log(&log, lines)?;
                    into.push(self.measure(
                        (name, &program),
                        dir.path(),
                        (&log, lines),
                        receiver,
                    )?);
                }
            }
            let spread = |of: fn(&Cost) -> f64, all: &[Cost]| {
                Spread::of(all.iter().map(of)).map_or_else(String::new, |s| format!("{s:.1}"))
            };
            println!(
                "| {name} | {} | {} | {} | {} |",
                spread(|cost| cost.cpu_us_per_line, &costs),
                spread(|cost| cost.lines_per_s, &costs),
                spread(|cost| cost.memory_mib, &costs),
                spread(|cost| cost.memory_mib, &tenths),
            );
        }
        println!();
        Ok(())
    }

    fn measure(
        &self,
        (name, program): (&str, &Path),
        dir: &Path,
        (log, lines): (&Path, u32),
        receiver: SocketAddr,
    ) -> Result<Cost, Diagnostic> {
        let url = format!("http://{receiver}");
        let mut command = Command::new(&self.python);
        command.arg(dir.join("measured.py"));
        // The state of a run is its own: each sends everything.
        let state = tempfile::tempdir_in(dir).map_err(|e| failed("no directory", e))?;
        if name == "mfserv ship" {
            command.arg(program).arg("ship").arg(log).args(["--to", &url, "--index", "bench"]);
            command.args(["--once", "--lines", "single", "--no-gzip", "--state"]).arg(state.path());
            command.env("METWORK_ALLOW_USAGE_BY_ROOT", "1");
        } else {
            command.arg(&self.python).arg(dir.join("bulk_lines.py"));
            command.arg(&url).arg(log).arg("bench");
        }
        let done = command.stderr(Stdio::inherit()).output();
        let done = done.map_err(|e| failed("not started", e))?;
        let said = String::from_utf8_lossy(&done.stdout);
        let last = said.lines().last().unwrap_or_default();
        let numbers: Vec<f64> = last.split(' ').filter_map(|word| word.parse().ok()).collect();
        match numbers[..] {
            [cpu_s, wall_s, memory_kib] if done.status.success() => Ok(Cost {
                cpu_us_per_line: cpu_s * 1e6 / f64::from(lines),
                lines_per_s: f64::from(lines) / wall_s,
                memory_mib: memory_kib / 1024.0,
            }),
            _ => Err(failed(&format!("{name} failed"), said)),
        }
    }
}

fn failed(what: &str, why: impl std::fmt::Display) -> Diagnostic {
    Diagnostic::error(what).because(why)
}

fn write_log(log: &Path, lines: u32) -> Result<(), Diagnostic> {
    let mut text = String::new();
    for number in 0..lines {
        text.push_str(&format!(
            "{{\"@timestamp\":\"2026-01-31T12:00:00.000Z\",\"level\":\"INFO\",\"name\":\"shop\",\
             \"n\":{number},\"message\":\"what an app says of a request\"}}\n"
        ));
    }
    fs::write(log, text).map_err(|e| failed("no room", e))
}

/// A receiver that takes every document at once. It ends with this process.
fn receive() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that is lost gets no answer.
            std::thread::spawn(move || drop(answer(stream)));
        }
    });
    Ok(address)
}

fn answer(stream: TcpStream) -> std::io::Result<()> {
    let mut client = BufReader::new(stream);
    loop {
        let (mut first, mut length) = (String::new(), 0);
        if client.read_line(&mut first)? == 0 {
            return Ok(());
        }
        loop {
            let mut line = String::new();
            client.read_line(&mut line)?;
            let field = line.trim().to_ascii_lowercase();
            match field.split_once(": ") {
                None => break,
                Some(("content-length", value)) => length = value.parse().unwrap_or(0),
                Some(_) => {}
            }
        }
        let mut body = vec![0; length];
        client.read_exact(&mut body)?;
        let text = if first.contains("_bulk") {
            let documents = body.iter().filter(|byte| **byte == b'\n').count() / 2;
            let verb = if body.starts_with(b"{\"create") { "create" } else { "index" };
            let item = format!("{{\"{verb}\":{{\"status\":201}}}}");
            format!("{{\"errors\":false,\"items\":[{}]}}", vec![item; documents].join(","))
        } else {
            r#"{"version":{"number":"7.17.13","build_flavor":"default"},"tagline":"You Know, for Search"}"#.into()
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Elastic-Product: Elasticsearch\r\n\
             Content-Length: {}\r\n\r\n",
            text.len()
        );
        client.get_mut().write_all(head.as_bytes())?;
        client.get_mut().write_all(text.as_bytes())?;
    }
}

//! What logs, metrics and traces cost: the CPU time of a whole request (front, workers and all
//! other processes of the node) with everything on, by default, and with everything off.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use mfserv_core::Diagnostic;
use mfserv_core::status::Status;

use super::front::load::{Load, Wanted};
use super::machine;
use super::spread::Spread;
use crate::node::{self, Node};
use crate::{interrupt, process};

/// What each app answers.
const ANSWER: &str = "ok\n";
/// A node has sent everything when all its processes used less than this in a second, seconds.
const QUIET: f64 = 0.01;
/// How long it may take to send what a round has left behind.
const SENDING: Duration = Duration::from_secs(120);

/// How much.
#[derive(Debug, Args)]
pub struct Telemetry {
    /// Rounds; in each, every node is asked for as long.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds for each node in each round.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Connections that ask at a time.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: u32,
    /// An app of Flask instead of a WSGI function without a framework.
    #[arg(long)]
    flask: bool,
}

/// A node with its part of telemetry.
struct Subject {
    name: &'static str,
    node: Node,
    /// The port of `/metrics`.
    metrics: Option<u16>,
    rounds: Vec<Round>,
}

/// Microseconds of CPU for each request, by the roles of [`ROLES`].
type Round = [f64; 4];
const ROLES: [&str; 4] = ["front", "workers", "telemetry", "keeper, daemon"];

impl Telemetry {
    /// Measures, and prints the report.
    pub fn run(self) -> Result<(), Diagnostic> {
        let program = node::build()?;
        let machine = machine::line(&[("python3", &["--version"])]);
        let receiver = Receiver::start()?;
        let mut subjects = Vec::new();
        let metrics = node::free_port()?;
        for (name, keys) in kinds(receiver.port, metrics) {
            let metrics = keys.iter().any(|(key, _)| *key == "metrics.port").then_some(metrics);
            let node = self.node(&program, &keys)?;
            subjects.push(Subject { name, node, metrics, rounds: Vec::new() });
        }
        for round in 1..=self.rounds {
            eprintln!("round {round} of {}", self.rounds);
            for subject in &mut subjects {
                subject.rounds.push(self.round(&subject.node, subject.metrics)?);
            }
        }
        println!("{machine}\n\n`{}`\n", self.command());
        report(&subjects);
        Ok(())
    }

    fn command(&self) -> String {
        let Telemetry { rounds, seconds, connections, flask } = self;
        let flask = if *flask { " --flask" } else { "" };
        format!(
            "cargo xtask bench telemetry --rounds {rounds} --seconds {seconds} --connections {connections}{flask}"
        )
    }

    fn node(&self, program: &Path, keys: &[(&str, String)]) -> Result<Node, Diagnostic> {
        let node = Node::new(program)?;
        let (template, app) = match self.flask {
            true => ("python3_flask", include_str!("programs/flask_app.py")),
            false => ("python3_raw_wsgi", include_str!("programs/wsgi.py")),
        };
        let dir = node.make(template, "asked")?;
        // The two templates call it differently.
        fs::write(dir.join("main/wsgi.py"), format!("{app}\n\napplication = app\n"))
            .map_err(|e| Diagnostic::error("cannot write the app").because(e))?;
        node.link(&dir)?;
        for (key, value) in keys {
            node.run(&["config", "set", &format!("{key}={value}")])?;
        }
        node.start()?;
        Ok(node)
    }

    /// All that a load costs, up to the last line that is sent because of it.
    fn round(&self, node: &Node, metrics: Option<u16>) -> Result<Round, Diagnostic> {
        let roles = processes(&node.status()?);
        let before = used(&roles)?;
        let wanted = Wanted {
            path: "/asked/".into(),
            length: ANSWER.len() as u64,
            connections: self.connections as usize,
        };
        let load = Load::start(node.address(), &wanted)?;
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(self.seconds) {
            metrics.into_iter().for_each(scrape);
            interrupt::sleep(Duration::from_secs(1))?;
        }
        let (answers, failed) = (load.tally().answers(wanted.length), load.tally().failed());
        load.end()?;
        if failed > 0 || answers < 1.0 {
            return Err(Diagnostic::error(format!("{failed} requests failed, {answers} did not")));
        }
        wait_until_sent(&roles)?;
        let after = used(&roles)?;
        let each = |role: usize| (after[role] - before[role]) * 1e6 / answers;
        Ok([each(0), each(1), each(2), each(3)])
    }
}

/// The nodes that are compared, and their configuration.
fn kinds(receiver: u16, metrics: u16) -> [(&'static str, Vec<(&'static str, String)>); 3] {
    let set = |keys: &[(&'static str, &str)]| {
        keys.iter().map(|(key, value)| (*key, value.to_string())).collect::<Vec<_>>()
    };
    let off = set(&[
        ("nginx.logging", "0"),
        ("front.trace_context", "0"),
        ("metrics.history_max_size", "0"),
    ]);
    let mut on = set(&[("admin.hostname", "127.0.0.1"), ("front.server_timing", "1")]);
    for key in ["admin.elasticsearch_http_port", "admin.influxdb_http_port"] {
        on.push((key, receiver.to_string()));
    }
    on.push(("metrics.port", metrics.to_string()));
    [("everything off", off), ("as installed", Vec::new()), ("everything on", on)]
}

/// The processes of the node, by the roles of [`ROLES`].
fn processes(status: &Status) -> [Vec<u32>; 4] {
    let mut roles = [Vec::new(), Vec::new(), Vec::new(), vec![status.daemon.pid]];
    roles[3].extend(status.keeper.as_ref().map(|keeper| keeper.pid));
    for watcher in &status.watchers {
        let role = match watcher.name.as_str() {
            "front" => 0,
            "telemetry" => 2,
            _ => 1,
        };
        roles[role].extend(watcher.workers.iter().filter_map(|worker| worker.pid));
    }
    roles
}

/// Seconds of CPU that each role has used.
fn used(roles: &[Vec<u32>; 4]) -> Result<[f64; 4], Diagnostic> {
    let mut used = [0.0; 4];
    for (used, pids) in used.iter_mut().zip(roles) {
        *used = process::used(pids)?.cpu_ns as f64 / 1e9;
    }
    Ok(used)
}

fn wait_until_sent(roles: &[Vec<u32>; 4]) -> Result<(), Diagnostic> {
    let began = Instant::now();
    let all = || used(roles).map(|used| used.iter().sum::<f64>());
    loop {
        let before = all()?;
        interrupt::sleep(Duration::from_secs(1))?;
        if all()? - before < QUIET {
            return Ok(());
        }
        if began.elapsed() > SENDING {
            return Err(Diagnostic::error("the node goes on sending logs")
                .help("fewer seconds leave fewer lines behind"));
        }
    }
}

/// Reads /metrics as Prometheus does, more often than it would.
fn scrape(port: u16) {
    let Ok(mut stream) = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))) else {
        return;
    };
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    // What is not answered has cost less, and is seen in the report.
    let _ = stream.write_all(request).and_then(|()| stream.read_to_end(&mut Vec::new()));
}

fn report(subjects: &[Subject]) {
    let columns: String = ROLES.iter().map(|role| format!(" {role} |")).collect();
    println!("| µs of CPU for each request |{columns} whole | divided by everything off |");
    println!("|---|{}---|---|", "---|".repeat(ROLES.len()));
    let whole = |round: &Round| round.iter().sum::<f64>();
    for subject in subjects {
        let spread = |of: &dyn Fn(&Round) -> f64| match Spread::of(subject.rounds.iter().map(of)) {
            Some(spread) => spread.to_string(),
            None => "-".into(),
        };
        let roles: String =
            (0..ROLES.len()).map(|role| format!(" {} |", spread(&|r| r[role]))).collect();
        let pairs = subject.rounds.iter().zip(&subjects[0].rounds);
        let ratio = Spread::of(pairs.map(|(own, off)| whole(own) / whole(off)));
        let ratio = ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.3}"));
        println!("| {} |{roles} {} | {ratio} |", subject.name, spread(&whole));
    }
}

/// The program that receives; ended when this is dropped.
struct Receiver {
    child: Child,
    port: u16,
}

impl Receiver {
    fn start() -> Result<Self, Diagnostic> {
        let failed = |e: std::io::Error| Diagnostic::error("no receiver").because(e);
        let mut command = Command::new("python3");
        command.args(["-c", include_str!("programs/receiver.py")]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let mut receiver = Self { child, port: 0 };
        let mut line = String::new();
        if let Some(said) = receiver.child.stdout.take() {
            BufReader::new(said).read_line(&mut line).map_err(failed)?;
        }
        receiver.port = line
            .trim()
            .parse()
            .map_err(|e| Diagnostic::error("the receiver says no port").because(e))?;
        Ok(receiver)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

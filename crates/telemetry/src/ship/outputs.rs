//! The outputs of a node besides its files: journald, syslog, and the JSON file of mflog.
//!
//! They are read from the log files, like all that is shipped: an output that is away or slow
//! slows nobody, and gets what it has missed when it is there again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use mfserv_core::Diagnostic;
use mfserv_core::log_outputs::{LogOutputs, SyslogAddress};

use super::document::Making;
use super::followed::Begin;
use super::journal::Journal;
use super::json_file::JsonFile;
use super::line::{Format, LineMaker};
use super::names::Pattern;
use super::node::WAIT;
use super::records::Lines;
use super::report::{Receiver, Reports};
use super::shipper::{Options, Shipper};
use super::sink::Sink;
use super::syslog::Syslog;
use crate::logs::Level;

/// The logs of apps and extra daemons.
const OF_PLUGINS: [&str; 6] = [
    "app_*.log",
    "app_*.stdout",
    "app_*.stderr",
    "extra_*.log",
    "extra_*.stdout",
    "extra_*.stderr",
];
/// The logs of mfserv itself, without the access log.
const OF_ROLES: [&str; 6] =
    ["daemon.log", "keeper.log", "front.log", "nginx_error.log", "telemetry.log", "telegraf.log"];
/// The kinds of outputs: the names of their states too.
const KINDS: [Receiver; 3] = ["journald", "syslog", "json_file"];

/// The outputs of a node.
pub struct NodeOutputs {
    /// Which there are.
    pub outputs: LogOutputs,
    /// The directory of the logs.
    pub logs: PathBuf,
    /// A directory for the state of each output.
    pub state: PathBuf,
    /// The runtime home.
    pub home: PathBuf,
    /// The name of this machine.
    pub hostname: String,
}

/// One output.
#[derive(Clone)]
struct Output {
    kind: Receiver,
    to: Receiving,
    format: Format,
    names: Vec<PathBuf>,
    state: PathBuf,
}

#[derive(Clone)]
enum Receiving {
    Journal(PathBuf),
    Syslog(SyslogAddress),
    JsonFile(PathBuf),
}

impl NodeOutputs {
    /// Sends lines in threads of this process, for as long as it lives.
    ///
    /// # Errors
    /// What the operating system says when there can be no more threads.
    pub fn start(self, reports: &Arc<Reports>) -> io::Result<()> {
        let outputs = self.outputs();
        for kind in KINDS.iter().filter(|kind| !outputs.iter().any(|it| it.kind == **kind)) {
            // An output that is switched on again begins with the lines of then.
            let _ = std::fs::remove_dir_all(self.state.join(kind));
        }
        for output in outputs {
            let reports = reports.clone();
            let run = move || loop {
                if let Err(problem) = output.run(&reports) {
                    let why = problem.to_string();
                    reports.say(output.kind, output.kind, super::Said::Trouble(&why));
                }
                thread::sleep(WAIT);
            };
            thread::Builder::new().name("output".into()).spawn(run)?;
        }
        Ok(())
    }

    fn outputs(&self) -> Vec<Output> {
        let facility = self.outputs.facility;
        let home = self.home.to_string_lossy().into_owned();
        let below = |names: &[&str]| names.iter().map(|name| self.logs.join(name)).collect();
        let all: Vec<PathBuf> = below(&[OF_PLUGINS, OF_ROLES].concat());
        let output = |kind: Receiver, to: Receiving, format: Format, names: Vec<PathBuf>| Output {
            kind,
            to,
            format,
            names,
            state: self.state.join(kind),
        };
        let mut outputs = Vec::new();
        if let Some(socket) = &self.outputs.journald {
            let to = Receiving::Journal(socket.clone());
            let format = Format::Journal { home, facility };
            outputs.push(output("journald", to, format, all.clone()));
        }
        if let Some(address) = &self.outputs.syslog {
            let format = match address {
                SyslogAddress::Unix(_) => Format::Rfc3164 { facility },
                _ => Format::Rfc5424 { host: self.hostname.clone(), facility },
            };
            outputs.push(output("syslog", Receiving::Syslog(address.clone()), format, all));
        }
        if let Some(file) = &self.outputs.json_file {
            let level = Level::of(&file.minimal_level).unwrap_or(Level::Warning);
            let to = Receiving::JsonFile(file.path.clone());
            outputs.push(output("json_file", to, Format::Mflog(level), below(&OF_ROLES)));
        }
        outputs
    }
}

impl Output {
    fn run(&self, reports: &Reports) -> Result<(), Diagnostic> {
        let sink = match &self.to {
            Receiving::Journal(socket) => Sink::Journal(Journal::new(socket.clone())),
            Receiving::Syslog(address) => Sink::Syslog(Syslog::new(address.clone())),
            Receiving::JsonFile(path) => Sink::JsonFile(JsonFile::new(path.clone())),
        };
        let pattern = |path: &Path| {
            Pattern::new(path).map_err(|e| mfserv_platform::disk::failed("find", path, e))
        };
        let is_mflog = matches!(self.format, Format::Mflog(_));
        let options = Options {
            patterns: self.names.iter().map(|path| pattern(path)).collect::<Result<_, _>>()?,
            state: Some(self.state.clone()),
            // A traceback is one message of mflog. Others show lines one by one.
            lines: if is_mflog { Lines::Grouped } else { Lines::Single },
            // What was there before the output was switched on is not sent.
            first: if self.state.exists() { Begin::WithRotated } else { Begin::AtEnd },
            later: Begin::WithRotated,
            once: false,
            patience: None,
        };
        let making = Making::Lines(LineMaker::new(self.format.clone()));
        let mut observer = |said: super::Said<'_>| reports.say(self.kind, self.kind, said);
        Shipper::new(options, making, sink, &mut observer)?.run().map(|_| ())
    }
}

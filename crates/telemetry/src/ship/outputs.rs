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
use mfserv_platform::disk;

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
/// A file in the state of an output: the first start has begun to follow all files.
const BEGUN: &str = "begun";
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
        let mut observer = |said: super::Said<'_>| reports.say(self.kind, self.kind, said);
        self.shipper(&mut observer)?.run().map(|_| ())
    }

    /// A shipper that has begun to follow the files that are there.
    fn shipper<'a>(
        &self,
        observer: &'a mut dyn FnMut(super::Said<'_>),
    ) -> Result<Shipper<'a>, Diagnostic> {
        let sink = match &self.to {
            Receiving::Journal(socket) => Sink::Journal(Journal::new(socket.clone())),
            Receiving::Syslog(address) => Sink::Syslog(Syslog::new(address.clone())),
            Receiving::JsonFile(path) => Sink::JsonFile(JsonFile::new(path.clone())),
        };
        let pattern = |path: &Path| Pattern::new(path).map_err(|e| disk::failed("find", path, e));
        let is_mflog = matches!(self.format, Format::Mflog(_));
        let options = Options {
            patterns: self.names.iter().map(|path| pattern(path)).collect::<Result<_, _>>()?,
            state: Some(self.state.clone()),
            // A traceback is one message of mflog. Others show lines one by one.
            lines: if is_mflog { Lines::Grouped } else { Lines::Single },
            // What was there before the output was switched on is not sent, also if the first
            // start has failed halfway.
            first: if self.state.join(BEGUN).exists() { Begin::WithRotated } else { Begin::AtEnd },
            later: Begin::WithRotated,
            once: false,
            patience: None,
        };
        let making = Making::Lines(LineMaker::new(self.format.clone()));
        let shipper = Shipper::new(options, making, sink, observer)?;
        disk::create_dir(&self.state)?;
        let begun = self.state.join(BEGUN);
        disk::replace(&begun, 0o644, b"").map_err(|e| disk::failed("write", &begun, e))?;
        Ok(shipper)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::followed::Followed;
    use super::super::state::dir_of;
    use super::*;

    /// The lines of a file that an output has still to send.
    fn unsent(output: &Output, path: &Path) -> Vec<String> {
        let state = dir_of(Some(&output.state), path);
        let mut followed = Followed::open(path, &state, Lines::Single, Begin::WithRotated).unwrap();
        followed.look().unwrap();
        let mut lines = Vec::new();
        let mut take = |part: &super::super::followed::Part<'_>| {
            let text = |bytes| String::from_utf8_lossy(bytes).trim_end().to_string();
            lines.extend(part.records.iter().map(|record| text(record.bytes)));
        };
        while followed.read(true, &mut |_, _| true, &mut take).unwrap() {}
        lines
    }

    #[test]
    fn a_first_start_that_fails_halfway_makes_the_next_one_send_no_old_lines() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let [a, b, c] = ["app_a.log", "app_b.log", "app_c.log"].map(|name| dir.join(name));
        fs::write(&a, "old a\n").unwrap();
        fs::write(&b, "old b\n").unwrap();
        let output = Output {
            kind: "syslog",
            to: Receiving::Syslog(SyslogAddress::Unix(dir.join("socket"))),
            format: Format::Rfc3164 { facility: 3 },
            names: vec![dir.join("app_*.log")],
            state: dir.join("state"),
        };
        let mut observer = |_: super::super::Said<'_>| {};
        // Another shipper of the second file.
        let state = dir_of(Some(&output.state), &b);
        let other = Followed::open(&b, &state, Lines::Single, Begin::AtEnd).unwrap();
        assert!(output.shipper(&mut observer).is_err());
        drop(other);
        fs::remove_dir_all(&state).unwrap();
        drop(output.shipper(&mut observer).unwrap());
        assert_eq!((unsent(&output, &a), unsent(&output, &b)), (vec![], vec![]));

        fs::write(&c, "written while nobody looked\n").unwrap();
        drop(output.shipper(&mut observer).unwrap());
        assert_eq!(unsent(&output, &c), ["written while nobody looked"]);
    }
}

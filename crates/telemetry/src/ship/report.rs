//! What a shipper says of its work, and what the operator sees of it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Mutex;

use mfserv_core::shipping::Report;
use mfserv_platform::clock::now_ms;
use mfserv_platform::disk;
use mfserv_platform::sync::lock;

use super::node::Notice;
use super::shipper::Counts;

/// What a shipper says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said<'a> {
    /// Anything.
    Notice(&'a str),
    /// Nothing arrives, for this reason. It is said once, until something arrives again.
    Trouble(&'a str),
    /// Documents arrive again.
    Recovered,
    /// So many bytes of lines are lost: their files were removed before they were sent.
    Lost(u64),
    /// How far it is.
    At(Progress),
}

/// How far a shipper is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// What it has done since it began.
    pub counts: Counts,
    /// Bytes of its files that have not arrived yet.
    pub unread: u64,
}

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Said::Notice(text) | Said::Trouble(text) => f.write_str(text),
            Said::Recovered => f.write_str("documents arrive again"),
            Said::At(progress) => write!(f, "{} documents have arrived", progress.counts.sent),
            Said::Lost(bytes) => {
                write!(f, "{bytes} bytes are lost: their files were removed before they were sent")
            }
        }
    }
}

/// A kind of receiver, as metrics name what is lost on the way to it.
pub type Receiver = &'static str;

/// Where the work of shippers is counted.
pub trait Count: Send + Sync {
    /// So many bytes were lost on the way to a receiver of this kind.
    fn lost(&self, kind: Receiver, bytes: u64);

    /// A shipper of this log, to a receiver of this kind, is so far.
    fn is_at(&self, log: &str, kind: Receiver, progress: Progress);
}

/// The reports of all shippers of a node, in a file that `mfserv status` reads.
pub struct Reports {
    file: PathBuf,
    notice: Notice,
    count: Box<dyn Count>,
    reports: Mutex<BTreeMap<String, Report>>,
}

impl Reports {
    /// No reports yet: those of an earlier process are removed.
    pub fn new(file: PathBuf, notice: Notice, count: Box<dyn Count>) -> Self {
        let _ = std::fs::remove_file(&file);
        Self { file, notice, count, reports: Mutex::default() }
    }

    /// Says something to the operator, and keeps what `status` shows. `what` goes to a receiver
    /// of this kind: `mflog to http://…`.
    pub fn say(&self, what: &str, kind: Receiver, said: Said<'_>) {
        if let Said::At(progress) = said {
            let log = what.split(' ').next().unwrap_or_default();
            return self.count.is_at(log, kind, progress);
        }
        (self.notice)(&format!("{what}: {said}"));
        let mut reports = lock(&self.reports);
        let report = reports
            .entry(what.to_string())
            .or_insert_with(|| Report { what: what.to_string(), ..Report::default() });
        match said {
            Said::Notice(_) | Said::At(_) => return,
            Said::Trouble(why) => report.trouble = Some((now_ms(), why.to_string())),
            Said::Recovered => report.trouble = None,
            Said::Lost(bytes) => {
                report.lost_bytes += bytes;
                report.lost_ms = now_ms();
                self.count.lost(kind, bytes);
            }
        }
        let shown: Vec<&Report> = reports.values().filter(|report| report.is_bad()).collect();
        let text = serde_json::to_vec(&shown).unwrap_or_default();
        if let Err(why) = disk::replace(&self.file, 0o644, &text) {
            (self.notice)(&format!("{} cannot be written: {why}", self.file.display()));
        }
    }
}

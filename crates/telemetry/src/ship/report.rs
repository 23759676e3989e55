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
}

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Said::Notice(text) | Said::Trouble(text) => f.write_str(text),
            Said::Recovered => f.write_str("documents arrive again"),
            Said::Lost(bytes) => {
                write!(f, "{bytes} bytes are lost: their files were removed before they were sent")
            }
        }
    }
}

/// A kind of receiver, as metrics name what is lost on the way to it.
pub type Receiver = &'static str;

/// Where lost bytes are counted.
pub type CountLost = Box<dyn Fn(Receiver, u64) + Send + Sync>;

/// The reports of all shippers of a node, in a file that `mfserv status` reads.
pub struct Reports {
    file: PathBuf,
    notice: Notice,
    count_lost: CountLost,
    reports: Mutex<BTreeMap<String, Report>>,
}

impl Reports {
    /// No reports yet: those of an earlier process are removed.
    pub fn new(file: PathBuf, notice: Notice, count_lost: CountLost) -> Self {
        let _ = std::fs::remove_file(&file);
        Self { file, notice, count_lost, reports: Mutex::default() }
    }

    /// Says something to the operator, and keeps what `status` shows. `what` goes to a receiver
    /// of this kind: `mflog to http://…`.
    pub fn say(&self, what: &str, kind: Receiver, said: Said<'_>) {
        (self.notice)(&format!("{what}: {said}"));
        let mut reports = lock(&self.reports);
        let report = reports
            .entry(what.to_string())
            .or_insert_with(|| Report { what: what.to_string(), ..Report::default() });
        match said {
            Said::Notice(_) => return,
            Said::Trouble(why) => report.trouble = Some((now_ms(), why.to_string())),
            Said::Recovered => report.trouble = None,
            Said::Lost(bytes) => {
                report.lost_bytes += bytes;
                report.lost_ms = now_ms();
                (self.count_lost)(kind, bytes);
            }
        }
        let shown: Vec<&Report> = reports.values().filter(|report| report.is_bad()).collect();
        let text = serde_json::to_vec(&shown).unwrap_or_default();
        if let Err(why) = disk::replace(&self.file, 0o644, &text) {
            (self.notice)(&format!("{} cannot be written: {why}", self.file.display()));
        }
    }
}

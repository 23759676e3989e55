//! What a shipper says of its work, and what the operator sees of it.

use std::fmt;
use std::sync::Arc;

use super::node::Notice;
use super::shipper::Counts;
use crate::troubles::Troubles;

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

/// The reports of all shippers of a node.
pub struct Reports {
    troubles: Arc<Troubles>,
    notice: Notice,
    count: Box<dyn Count>,
}

impl Reports {
    /// No reports yet.
    pub fn new(troubles: Arc<Troubles>, notice: Notice, count: Box<dyn Count>) -> Self {
        Self { troubles, notice, count }
    }

    /// What does not work in this process, for what is no shipper.
    pub fn troubles(&self) -> &Troubles {
        &self.troubles
    }

    /// Says something to the operator, and keeps what `status` shows. `what` goes to a receiver
    /// of this kind: `mflog to http://…`.
    pub fn say(&self, what: &str, kind: Receiver, said: Said<'_>) {
        if let Said::At(progress) = said {
            let log = what.split(' ').next().unwrap_or_default();
            return self.count.is_at(log, kind, progress);
        }
        (self.notice)(&format!("{what}: {said}"));
        let of_logs = format!("logs, {what}");
        match said {
            Said::Notice(_) | Said::At(_) => {}
            Said::Trouble(why) => self.troubles.keep(&of_logs, Some(why)),
            Said::Recovered => self.troubles.keep(&of_logs, None),
            Said::Lost(bytes) => {
                self.troubles.lost(&of_logs, bytes);
                self.count.lost(kind, bytes);
            }
        }
    }
}

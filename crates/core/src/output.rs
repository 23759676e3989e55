//! Where the output of a process goes, and when a log file is rotated.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// When a log file is rotated and how many rotated files are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// Rotate when the file is larger than this, bytes; 0 = never by size.
    pub max_bytes: u64,
    /// Rotate when the file is older than this, seconds; 0 = never by age.
    pub max_age_s: u64,
    /// How many files to keep, the live one included; 0 = keep all.
    pub keep: u32,
    /// The file mode to set, for example 0o644; `None` = leave what umask gives.
    pub mode: Option<u32>,
}

impl Default for Rotation {
    /// The defaults of the module's `[log]` section.
    fn default() -> Self {
        Self { max_bytes: 104_857_600, max_age_s: 86_400, keep: 5, mode: Some(0o644) }
    }
}

/// What is done with rotated log files besides counting them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCare {
    /// Compress rotated files, except the newest of each log: somebody may still read it.
    pub compress: bool,
    /// The most bytes of all log files together; 0 = no bound.
    pub max_bytes: u64,
}

/// Where the two output streams of a process are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// The log file of standard output (and of standard error, if that has none).
    pub stdout: PathBuf,
    /// A separate log file of standard error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<PathBuf>,
    /// How both are rotated.
    pub rotation: Rotation,
}

//! Kinds of failures, and the exit code of each. (The command line adds 0 for success, and 1 for
//! a node that is not well: `mfserv/src/cli/report.rs`.)

use serde::{Deserialize, Serialize};

/// What kind of failure an error is. The command line turns it into an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It was tried and did not work (exit code 1).
    Failed,
    /// The command line itself is wrong (exit code 2).
    Usage,
    /// The node, or what was asked for, is not running (exit code 3).
    NotRunning,
    /// A configuration is wrong (exit code 4).
    BadConfiguration,
    /// Refused because of a conflict or a lock (exit code 5).
    Refused,
    /// It took longer than it was allowed to (exit code 6).
    Timeout,
}

impl Kind {
    /// The process exit code that stands for this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::NotRunning => 3,
            Kind::BadConfiguration => 4,
            Kind::Refused => 5,
            Kind::Timeout => 6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_exit_code() {
        let kinds = [
            Kind::Failed,
            Kind::Usage,
            Kind::NotRunning,
            Kind::BadConfiguration,
            Kind::Refused,
            Kind::Timeout,
        ];
        let codes: Vec<u8> = kinds.iter().map(|kind| kind.exit_code()).collect();
        assert_eq!(codes, [1, 2, 3, 4, 5, 6]);
    }
}

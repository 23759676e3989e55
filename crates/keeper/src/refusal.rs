//! Why something that was asked is not done.

use std::fmt::Display;
use std::io;

use mfserv_core::wire::keeper::Answer;
use rustix::io::Errno;

/// What and why, and errno(3) where a system call said no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub reason: String,
    pub errno: i32,
}

impl Refusal {
    pub fn because(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), errno: 0 }
    }

    pub fn errno(what: impl Display, errno: Errno) -> Self {
        let said = io::Error::from(errno);
        Self { reason: format!("{what}: {said}"), errno: errno.raw_os_error() }
    }

    pub fn system(what: impl Display, error: &io::Error) -> Self {
        Self { reason: format!("{what}: {error}"), errno: error.raw_os_error().unwrap_or(0) }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        Answer::Refused { reason: refusal.reason, errno: refusal.errno }
    }
}

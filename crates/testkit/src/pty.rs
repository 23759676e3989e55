//! Pseudo-terminals (pty(7)), for commands that look whether they speak to a terminal.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// A new terminal: our side, which reads what is written on it, and the side of a command. Neither
/// becomes the controlling terminal of the test.
///
/// # Panics
/// When the system gives none.
pub fn pty() -> (OwnedFd, File) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let mut options = File::options();
    options.read(true).write(true).custom_flags(OFlags::NOCTTY.bits() as i32);
    let theirs = options.open(name.to_str().unwrap()).unwrap();
    (ours, theirs)
}

//! What the keeper looks after every 2 s: its files, and a daemon that a signal has stopped.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use mfserv_core::Diagnostic;
use mfserv_core::wire::keeper::Scope;
use signal_hook::consts::SIGKILL;

use super::Keeper;
use crate::DAEMON;
use crate::descriptors;
use crate::log::log;
use crate::startup::{self, Paths, failed, prepare_home};

/// So often.
pub(super) const LOOK: Duration = Duration::from_secs(2);

impl Keeper {
    /// Looks after files and daemon, when it is time.
    pub(super) fn look_after_node(&mut self, now: Instant) {
        if now < self.look_at || self.ending.is_over() {
            return;
        }
        self.look_at = now + LOOK;
        self.look_after_daemon();
        look_after_log();
        self.look_after_files();
    }

    /// A daemon that a signal has stopped supervises nothing, and whoever asks it waits. It is
    /// killed, and the next one takes over what lives. One that a debugger holds is let be: its
    /// state is another one.
    fn look_after_daemon(&mut self) {
        let Some(daemon) = &mut self.daemon else { return };
        let is_stopped = self.processes.is_stopped(DAEMON);
        if daemon.was_stopped(is_stopped) {
            log(format_args!("a signal has stopped the daemon: it is killed and started again"));
            let _ = self.processes.signal(DAEMON, SIGKILL, Scope::Process);
        }
    }

    /// A cleaner of old files, a program or a person may have removed what others find the
    /// keeper by: it is made again.
    fn look_after_files(&mut self) {
        let missing = self.paths.missing();
        if missing.is_empty() {
            return;
        }
        match self.make_again(&missing) {
            Ok(()) => log(format_args!("was removed, and is made again: {}", missing.join(", "))),
            Err(problem) => log(format_args!("cannot be made again: {problem}")),
        }
    }

    fn make_again(&mut self, missing: &[&str]) -> Result<(), Diagnostic> {
        prepare_home(&self.options.home)?;
        if missing.contains(&Paths::LOCK) {
            self.lock = startup::take_lock(&self.paths.lock)?;
        }
        if missing.contains(&Paths::SOCKET) {
            let listening = startup::listen(&self.paths.socket);
            listening.and_then(|l| self.clients.listen_on(l)).map_err(failed("its socket"))?;
        }
        self.save();
        Ok(())
    }
}

/// `log/keeper.log` is the standard error of the keeper. If it was removed, another file is made
/// in its place.
fn look_after_log() {
    let remake = || -> io::Result<()> {
        let removed = fs::metadata("/proc/self/fd/2")?;
        let name = fs::read_link("/proc/self/fd/2")?;
        let name = name.to_str().and_then(|name| name.strip_suffix(" (deleted)"));
        let Some(name) = name.filter(|_| removed.is_file() && removed.nlink() == 0) else {
            return Ok(());
        };
        Path::new(name).parent().map_or(Ok(()), fs::create_dir_all)?;
        let another = fs::File::options().create(true).append(true).open(name)?;
        descriptors::replace_stderr(&another)?;
        log(format_args!("{name} was removed, and is made again"));
        Ok(())
    };
    // Without a log there is nobody to tell.
    let _ = remake();
}

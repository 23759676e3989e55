//! Programs that a bench runs: to their end, or as long as it measures them.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use mfserv_core::Diagnostic;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::{interrupt, process};

/// How long a program may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);
/// The end of what a failed program said, bytes.
const SAID: usize = 2000;

/// Runs a program to its end; returns its standard output.
pub fn run(command: &mut Command, patience: Duration) -> Result<String, Diagnostic> {
    let (mut out, mut err) = (scratch()?, scratch()?);
    command.stdin(Stdio::null()).stdout(share(&out)?).stderr(share(&err)?);
    let mut running = Running::start(command)?;
    let ended = interrupt::until(&running.name.clone(), patience, || running.ended());
    let status = ended?;
    match status.success() {
        true => Ok(read_back(&mut out)),
        false => {
            let all = read_back(&mut out) + &read_back(&mut err);
            let from = all.char_indices().rev().nth(SAID).map_or(0, |(at, _)| at);
            Err(Diagnostic::error(format!("{} failed: {status}", running.name))
                .because(all[from..].trim()))
        }
    }
}

fn scratch() -> Result<File, Diagnostic> {
    tempfile::tempfile().map_err(|e| Diagnostic::error("cannot make a temporary file").because(e))
}

fn share(file: &File) -> Result<File, Diagnostic> {
    file.try_clone().map_err(|e| Diagnostic::error("cannot share a file").because(e))
}

fn read_back(file: &mut File) -> String {
    let mut bytes = Vec::new();
    // What cannot be read back was only an explanation.
    let _ = file.rewind().and_then(|()| file.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A program that runs with its descendants in a process group of its own; it is ended
/// when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    name: String,
    ended: bool,
}

impl Running {
    /// Starts it.
    pub fn start(command: &mut Command) -> Result<Self, Diagnostic> {
        let name = command.get_program().to_string_lossy().into_owned();
        let name = name.rsplit('/').next().unwrap_or(&name).to_string();
        // The signals of a terminal are for the bench, which ends what it runs.
        let child = command.process_group(0).spawn();
        let child =
            child.map_err(|e| Diagnostic::error(format!("cannot run {name}")).because(e))?;
        Ok(Self { child, name, ended: false })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().ok().flatten();
        self.ended |= status.is_some();
        status
    }

    fn group(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // The child has not been waited for: its id, and so its group's, is still its own.
        let Some(group) = self.group() else { return };
        let _ = kill_process(group, Signal::TERM);
        let end = Instant::now() + GRACE;
        while Instant::now() < end && !process::is_ending(self.child.id()) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
    }
}

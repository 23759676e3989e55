//! Programs that we run and wait for: bounded in time and in what is kept of
//! their output, killed with their children when time is over or on request.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use mfserv_core::diagnostic::shown;
use mfserv_core::{Diagnostic, Kind};
use rustix::process::{Pid, Signal, kill_process_group, setpriority_process};

use crate::progress::{Cancel, Progress};

/// How much output of a program is kept for its error, bytes.
const KEPT: usize = 256 * 1024;
/// The longest single line, bytes.
const LONGEST_LINE: u64 = 16 * 1024;
/// How long output is awaited after the program itself has ended (a child of
/// it may still hold the pipe).
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What takes no longer than this only answers a question, and is not a build.
const QUICK: Duration = Duration::from_secs(20);
/// The niceness of builds and hooks.
const NICE: i32 = 10;

/// How programs say that a disk is full.
const FULL: &[&str] = &["No space left on device", "no space left on device", "ENOSPC", "EDQUOT"];

/// How long a program that is interrupted may take to tidy up.
const TIDY: Duration = Duration::from_secs(2);

/// What a program has written, both streams together in order of arrival; the
/// oldest lines are forgotten beyond a bound.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// With whether it was on standard error.
    lines: VecDeque<(bool, String)>,
    bytes: usize,
    forgotten: usize,
}

impl Said {
    fn add(&mut self, line: (bool, String)) {
        self.bytes += line.1.len();
        self.lines.push_back(line);
        while self.bytes > KEPT {
            let Some((_, oldest)) = self.lines.pop_front() else { break };
            self.bytes -= oldest.len();
            self.forgotten += 1;
        }
    }

    /// The text, without blank lines at the end.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        if self.forgotten > 0 {
            text = format!("({} lines before)\n", self.forgotten);
        }
        for (_, line) in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        text.truncate(text.trim_end().len());
        text
    }

    /// What of it was on standard error, one line each.
    pub(crate) fn complaints(&self) -> String {
        let lines: Vec<&str> =
            self.lines.iter().filter(|(error, _)| *error).map(|(_, line)| line.as_str()).collect();
        lines.join("\n").trim_end().to_string()
    }
}

/// One program to run: the command, its bounds, and what it is for.
pub(crate) struct Run<'a> {
    /// What it does, for the error: `npm install`, `the postinstall hook`.
    pub(crate) what: &'a str,
    /// How long it may take.
    pub(crate) limit: Duration,
    /// The wish to stop.
    pub(crate) cancel: &'a Cancel,
}

impl Run<'_> {
    /// Runs the command to its end. Standard input is empty. Its output goes
    /// line by line to `progress`; on failure all of it is in `because`.
    pub(crate) fn run(
        &self,
        mut command: Command,
        progress: &mut dyn Progress,
    ) -> Result<Said, Diagnostic> {
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|e| {
                Diagnostic::error(format!("{} failed", self.what))
                    .because(format!("can't run {program}: {e}"))
            })?;
        if self.limit > QUICK {
            lower(&child);
        }
        let mut said = Said::default();
        let result = self.wait(&mut child, &mut said, progress);
        match &result {
            // what it has left in the background has no purpose, and nobody would end it
            Ok(_) => drop(signal(&child, Signal::KILL)),
            Err(_) => kill(&mut child),
        }
        match result {
            Ok(status) if status.success() => Ok(said),
            Ok(status) => Err(self.failure(&said, ended(status))),
            Err(error) => Err(with_output(error, &said)),
        }
    }

    fn wait(
        &self,
        child: &mut Child,
        said: &mut Said,
        progress: &mut dyn Progress,
    ) -> Result<ExitStatus, Diagnostic> {
        let deadline = Instant::now() + self.limit;
        let (sender, lines) = mpsc::sync_channel(64);
        if let Some(stdout) = child.stdout.take() {
            follow(stdout, false, sender.clone());
        }
        if let Some(stderr) = child.stderr.take() {
            follow(stderr, true, sender);
        }
        let mut ended_at = None;
        loop {
            match lines.recv_timeout(Duration::from_millis(20)) {
                Ok(line) => {
                    progress.line(&shown(&line.1));
                    said.add(line);
                }
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(Duration::from_millis(2)),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.check(deadline)?;
            let status = child
                .try_wait()
                .map_err(|e| Diagnostic::error(format!("{} failed", self.what)).because(e))?;
            let Some(status) = status else { continue };
            let since = *ended_at.get_or_insert_with(Instant::now);
            let silent = match lines.try_recv() {
                Ok(line) => {
                    progress.line(&shown(&line.1));
                    said.add(line);
                    false
                }
                Err(nothing) => nothing == mpsc::TryRecvError::Disconnected,
            };
            if silent || since.elapsed() > LAST_WORDS {
                return Ok(status);
            }
        }
    }

    fn check(&self, deadline: Instant) -> Result<(), Diagnostic> {
        if self.cancel.is_cancelled() {
            return Err(Diagnostic::error(format!("{} was interrupted", self.what)));
        }
        if Instant::now() > deadline {
            return Err(Diagnostic::error(format!("{} takes too long", self.what))
                .kind(Kind::Timeout)
                .because(format!("it was ended after {} s", self.limit.as_secs())));
        }
        Ok(())
    }

    fn failure(&self, said: &Said, how: String) -> Diagnostic {
        let error =
            with_output(Diagnostic::error(format!("{} failed", self.what)).because(how), said);
        let text = error.because.join("\n");
        match FULL.iter().any(|sign| text.contains(sign)) {
            true => error.help("the disk is full (or the quota used up): make room, and try again"),
            false => error,
        }
    }
}

/// What serves requests comes first.
fn lower(child: &Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // one that has ended already needs none; one below already stays there
        let _ = setpriority_process(Some(pid), NICE);
    }
}

fn with_output(error: Diagnostic, said: &Said) -> Diagnostic {
    let text = said.text();
    if text.is_empty() { error } else { error.because(text) }
}

/// How a process ended, in words.
fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with exit code {code}"),
        (None, Some(signal)) => format!("it was ended by signal {signal}"),
        (None, None) => "it ended".into(),
    }
}

/// Ends the program and all its process group, and reaps it: first as Ctrl-C
/// does, so that pip and npm remove their temporary files, then by force.
fn kill(child: &mut Child) {
    let _ = signal(child, Signal::INT);
    let deadline = Instant::now() + TIDY;
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = signal(child, Signal::KILL);
    let _ = child.wait();
}

/// Sends a signal to the process group of a program.
fn signal(child: &Child, signal: Signal) -> Option<()> {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw)?;
    kill_process_group(group, signal).ok()
}

/// Reads a stream line by line in a thread of its own, until its end or until
/// nobody listens.
fn follow(
    stream: impl Read + Send + 'static,
    is_error: bool,
    sender: mpsc::SyncSender<(bool, String)>,
) {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            match reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    let text = String::from_utf8_lossy(&line);
                    let text = text.trim_end_matches(['\n', '\r']).to_string();
                    if sender.send((is_error, text)).is_err() {
                        return;
                    }
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    fn shell(script: &str) -> Command {
        #[expect(clippy::disallowed_methods, reason = "a real process that is waited for")]
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn the_output_of_a_failed_program_is_in_its_error() {
        let run =
            Run { what: "the thing", limit: Duration::from_secs(10), cancel: &Cancel::default() };
        let error = run.run(shell("echo one; echo two >&2; exit 7"), &mut Silent).unwrap_err();
        assert_eq!(error.what, "the thing failed");
        let text = error.because.join("\n");
        assert!(
            text.contains("exit code 7") && text.contains("one") && text.contains("two"),
            "{text}"
        );
    }

    #[test]
    fn a_program_that_takes_too_long_is_killed_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let pid_file = folder.path().join("pid");
        let run =
            Run { what: "sleeping", limit: Duration::from_millis(300), cancel: &Cancel::default() };
        let script = format!("sleep 1000 & echo $! > {}; wait", pid_file.display());
        let error = run.run(shell(&script), &mut Silent).unwrap_err();
        assert_eq!(error.kind, Kind::Timeout);
        let pid: u32 = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while is_alive(pid) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(!is_alive(pid));
    }

    #[test]
    fn what_a_program_that_went_well_has_left_in_the_background_is_ended() {
        let run =
            Run { what: "a hook", limit: Duration::from_secs(10), cancel: &Cancel::default() };
        let said = run.run(shell("sleep 1000 & echo $!; echo oh >&2"), &mut Silent).unwrap();
        assert_eq!(said.complaints(), "oh");
        let pid: u32 = said.text().lines().find_map(|line| line.parse().ok()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while is_alive(pid) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(!is_alive(pid));
    }

    /// A zombie that its new parent has not reaped yet is not alive.
    fn is_alive(pid: u32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }
}

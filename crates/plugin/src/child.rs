//! Programs that are run and waited for: pip, npm, hooks. Their time is bounded, and so is the
//! output that is kept; at a timeout or a cancellation they are killed with their children.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use mfserv_core::diagnostic::shown;
use mfserv_core::{Diagnostic, Kind};
use rustix::process::{Pid, Signal, kill_process_group, setpriority_process};

use crate::guard::Guard;
use crate::progress::{Cancel, Progress};
use crate::run_mark::RunMark;

/// How much output of a program is kept for its error, bytes.
const KEPT: usize = 256 * 1024;
/// The longest single line, bytes.
const LONGEST_LINE: u64 = 16 * 1024;
/// How long output is awaited after the program itself has ended: a child of it may still
/// hold the pipe.
const LAST_OUTPUT: Duration = Duration::from_millis(500);

/// A program with a shorter limit answers a question (`python --version`) and is no build: it
/// keeps its priority.
const QUICK: Duration = Duration::from_secs(20);
/// The niceness of builds and hooks.
const NICE: i32 = 10;

/// How foreign programs print that a disk is full: they report it in no other way.
const FULL: &[&str] = &["No space left on device", "no space left on device", "ENOSPC", "EDQUOT"];

/// How long an interrupted program may take to remove its temporary files.
const INTERRUPT_PATIENCE: Duration = Duration::from_secs(2);

/// The output of a program, both streams together in order of arrival. The oldest lines are
/// dropped beyond [`KEPT`].
#[derive(Debug, Default)]
pub(crate) struct Captured {
    /// Each with `true` if it came on standard error.
    lines: VecDeque<(bool, String)>,
    bytes: usize,
    dropped: usize,
}

impl Captured {
    fn add(&mut self, line: (bool, String)) {
        self.bytes += line.1.len();
        self.lines.push_back(line);
        while self.bytes > KEPT {
            let Some((_, oldest)) = self.lines.pop_front() else { break };
            self.bytes -= oldest.len();
            self.dropped += 1;
        }
    }

    /// The text, without blank lines at the end.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        if self.dropped > 0 {
            text = format!("({} lines before)\n", self.dropped);
        }
        for (_, line) in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        text.truncate(text.trim_end().len());
        text
    }

    /// The lines of standard error.
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
    /// Ends the program when it is set.
    pub(crate) cancel: &'a Cancel,
}

impl Run<'_> {
    /// Runs the command to its end. Standard input is empty. Its output goes
    /// line by line to `progress`; on failure all of it is in `because`.
    pub(crate) fn run(
        &self,
        mut command: Command,
        progress: &mut dyn Progress,
    ) -> Result<Captured, Diagnostic> {
        let program = command.get_program().to_string_lossy().into_owned();
        let mark = (self.limit > QUICK).then(RunMark::new);
        mark.iter().for_each(|mark| mark.put(&mut command));
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
        // Without it a build would go on that nobody follows; it is ended by the next one then.
        let guard = (self.limit > QUICK).then(|| Guard::of_group(child.id()).ok());
        let mut captured = Captured::default();
        let result = self.wait(&mut child, &mut captured, progress);
        match &result {
            // nobody else would end what the program left in the background
            Ok(_) => drop(signal(&child, Signal::KILL)),
            Err(_) => kill(&mut child),
        }
        drop(guard);
        mark.iter().for_each(RunMark::end);
        match result {
            Ok(status) if status.success() => Ok(captured),
            Ok(status) => Err(self.failure(&captured, ended(status))),
            Err(error) => Err(with_output(error, &captured)),
        }
    }

    fn wait(
        &self,
        child: &mut Child,
        captured: &mut Captured,
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
                    captured.add(line);
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
                    captured.add(line);
                    false
                }
                Err(nothing) => nothing == mpsc::TryRecvError::Disconnected,
            };
            if silent || since.elapsed() > LAST_OUTPUT {
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

    fn failure(&self, captured: &Captured, how: String) -> Diagnostic {
        let error =
            with_output(Diagnostic::error(format!("{} failed", self.what)).because(how), captured);
        let text = error.because.join("\n");
        match FULL.iter().any(|sign| text.contains(sign)) {
            true => error.help("the disk is full (or the quota used up): make room, and try again"),
            false => error,
        }
    }
}

/// Lowers the priority of a build: workers that serve requests come first.
fn lower(child: &Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // it fails for a program that has ended, which needs no priority
        let _ = setpriority_process(Some(pid), NICE);
    }
}

fn with_output(error: Diagnostic, captured: &Captured) -> Diagnostic {
    let text = captured.text();
    if text.is_empty() { error } else { error.because(text) }
}

/// How a process ended, as a sentence.
fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with exit code {code}"),
        (None, Some(signal)) => format!("it was ended by signal {signal}"),
        (None, None) => "it ended".into(),
    }
}

/// Ends the program with its process group, and reaps it: first by SIGINT, so that pip and
/// npm remove their temporary files, then by SIGKILL.
fn kill(child: &mut Child) {
    let _ = signal(child, Signal::INT);
    let deadline = Instant::now() + INTERRUPT_PATIENCE;
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
            // the pause between two looks
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(!is_alive(pid));
    }

    #[test]
    fn what_a_program_that_went_well_has_left_in_the_background_is_ended() {
        let run =
            Run { what: "a hook", limit: Duration::from_secs(10), cancel: &Cancel::default() };
        let captured = run.run(shell("sleep 1000 & echo $!; echo oh >&2"), &mut Silent).unwrap();
        assert_eq!(captured.complaints(), "oh");
        let pid: u32 = captured.text().lines().find_map(|line| line.parse().ok()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while is_alive(pid) && Instant::now() < deadline {
            // the pause between two looks
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(!is_alive(pid));
    }

    #[test]
    fn what_has_left_the_session_of_a_hook_is_ended_however_the_hook_ends() {
        for (end, limit_s) in [("exit 0", 60), ("exit 3", 60), ("sleep 1000", 21)] {
            let folder = tempfile::tempdir().unwrap();
            let pids = folder.path().join("pids");
            let cancel = Cancel::default();
            let run = Run { what: "a hook", limit: Duration::from_secs(limit_s), cancel: &cancel };
            let script = format!(
                "setsid sh -c 'echo $$ >> {0}; exec sleep 1000' >/dev/null 2>&1 &
                 (setsid setsid sh -c 'echo $$ >> {0}; sleep 1000 & wait' >/dev/null 2>&1 &)
                 until [ $(wc -l < {0}) = 2 ]; do sleep 0.01; done; {end}",
                pids.display()
            );
            std::fs::write(&pids, "").unwrap();
            let canceller = cancel.clone();
            std::thread::spawn(move || {
                // The third one does not end by itself.
                std::thread::sleep(Duration::from_secs(2));
                canceller.cancel();
            });
            let result = run.run(shell(&script), &mut Silent);
            assert_eq!(result.is_ok(), end == "exit 0");
            let pids = std::fs::read_to_string(&pids).unwrap();
            let pids: Vec<u32> = pids.lines().map(|line| line.parse().unwrap()).collect();
            assert_eq!(pids.len(), 2);
            assert!(pids.into_iter().all(|pid| !is_alive(pid)), "{end}");
        }
    }

    /// A zombie that its new parent has not reaped yet is not alive.
    fn is_alive(pid: u32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }
}

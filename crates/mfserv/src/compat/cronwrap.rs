//! `cronwrap.sh`, which the lines of crontabs call: a command in the environment of the module,
//! with a time limit, a lock and a log.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use mfserv_core::{Diagnostic, Kind};
use mfserv_logfile::LogFile;
use mfserv_node::configure;
use mfserv_node::places::Places;
use mfserv_platform::disk;
use mfserv_plugin::Cancel;
use mfserv_plugin::python::on_path;
use rustix::fs::FlockOperation;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::{places, prefix};
use crate::cli::report::Outcome;
use crate::cli::{complain, print};

/// The exit code of a command that took too long.
const TIMED_OUT: u8 = 12;
/// How often the command and the wish to stop are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Directories of programs that the PATH of a crontab lacks.
const SBIN: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// Run a command of a crontab: with the environment of the module, a time limit, a lock, a log.
#[derive(Debug, Parser)]
#[command(name = "cronwrap.sh")]
struct Cronwrap {
    /// Kill the command and its children after so many seconds, with exit code 12; 0 = never.
    #[arg(short, long, value_name = "SECONDS", default_value_t = 3600)]
    timeout: u64,
    /// Wait a random time first, at most so many seconds.
    #[arg(short, long, value_name = "SECONDS", default_value_t = 0)]
    random_sleep: u64,
    /// Run nothing if the same command still runs.
    #[arg(short, long)]
    lock: bool,
    /// How long to wait for the end of the same command.
    #[arg(short, long, value_name = "SECONDS", default_value_t = 1)]
    wait_for_lock_timeout: u64,
    /// How to say that the same command still runs.
    #[arg(short = 'b', long, value_name = "HOW", default_value = "print_stdout")]
    lock_timeout_behaviour: SkippedReport,
    /// Read a file of the shell first.
    #[arg(short = 'e', long)]
    load_env: bool,
    /// The file that --load-env reads; by default ~/.bashrc.
    #[arg(short = 'f', long, value_name = "FILE")]
    load_env_file: Option<PathBuf>,
    /// The shell that runs the command.
    #[arg(short, long, value_name = "PATH", default_value = "/bin/sh")]
    shell: PathBuf,
    /// The niceness of the command.
    #[arg(short, long, allow_negative_numbers = true)]
    nice: Option<i32>,
    /// The class of its disk accesses, as for ionice.
    #[arg(short, long, value_name = "CLASS")]
    ionice: Option<u8>,
    /// The same as --ionice 3 --nice 19.
    #[arg(long, conflicts_with_all = ["nice", "ionice"])]
    low: bool,
    /// Append its output to this file of the log directory; NULL = nowhere.
    #[arg(long, value_name = "FILE")]
    log_capture_to: Option<String>,
    /// The command: one text for a shell, or a program and its arguments.
    #[arg(trailing_var_arg = true, required = true)]
    command: Vec<String>,
}

/// Where it is reported that a command does not run, because another one holds the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum SkippedReport {
    PrintStdout,
    PrintStderr,
    Nothing,
}

pub fn run() -> Result<Outcome, Diagnostic> {
    let args = Cronwrap::parse();
    let places = places()?;
    let cancel = Cancel::by_signals()
        .map_err(|e| Diagnostic::error("signals cannot be caught").because(e))?;
    // Before anything waits: a wrong option is said at once.
    let mut command = args.command()?;
    let log = args.log(&places)?;
    if args.random_sleep > 0 && !sleep(random(args.random_sleep), &cancel) {
        return Ok(Outcome::Code(143));
    }
    let lock = match args.lock {
        true => args.lock(&places, &cancel)?,
        false => None,
    };
    if args.lock && lock.is_none() {
        args.say_locked();
        return Ok(Outcome::Done);
    }
    let copier = log.map(|log| log.attach(&mut command)).transpose()?.flatten();
    // What the command leaves behind becomes our child, and so can be found.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let child = command.process_group(0).spawn();
    let mut child = child.map_err(|e| {
        Diagnostic::error("the command cannot be run")
            .because(format!("{}: {e}", args.shell.display()))
    })?;
    drop(command);
    let ended = wait(&mut child, args.timeout, &cancel);
    if let Some(copier) = copier {
        // A child in the background may hold the other end for ever.
        let deadline = Instant::now() + Duration::from_millis(500);
        while !copier.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    ended
}

impl Cronwrap {
    /// The whole command, with the module's environment read by a shell first.
    fn command(&self) -> Result<Command, Diagnostic> {
        let prefix = prefix().ok_or_else(|| {
            Diagnostic::error("the directory of the commands is unknown")
                .help("call this command by its path, or set MFSERV_HOME")
        })?;
        let mut words: Vec<String> = Vec::new();
        if let Some(nice) = self.nice.or(self.low.then_some(19)) {
            words.extend(["nice".into(), "-n".into(), nice.to_string()]);
        }
        if let Some(class) = self.ionice.or(self.low.then_some(3)) {
            if on_path("ionice").is_none() {
                return Err(Diagnostic::error("ionice is not there")
                    .because("--ionice and --low need it")
                    .help("apt-get install util-linux, or leave the option out"));
            }
            words.extend(["ionice".into(), "-c".into(), class.to_string()]);
        }
        let (text, arguments) = as_shell_text(&self.command);
        words.extend([self.shell.to_string_lossy().into_owned(), "-c".into()]);
        words.push(self.script(&prefix, &text));
        words.push("cronwrap.sh".into());
        words.extend(arguments.iter().cloned());
        let (program, rest) = words.split_first().map_or(("", &words[..]), |(p, r)| (p, r));
        #[expect(clippy::disallowed_methods, reason = "the command line runs what it is given")]
        let mut command = Command::new(program);
        command.args(rest).stdin(Stdio::null());
        Ok(command)
    }

    fn script(&self, prefix: &Path, text: &str) -> String {
        let file = "if test -f /etc/metwork.custom_profile; then . /etc/metwork.custom_profile; fi";
        let profile = quoted(&prefix.join("share/profile").to_string_lossy());
        let load = match (self.load_env, &self.load_env_file) {
            (false, _) => String::new(),
            (true, Some(file)) => format!(". {}\n", quoted(&file.to_string_lossy())),
            (true, None) => "if test -f ~/.bashrc; then . ~/.bashrc; fi\n".into(),
        };
        format!("{file}\n. {profile} || exit 1\nPATH=\"$PATH:{SBIN}\"\n{load}{text}\n")
    }

    /// The lock of this command; `None` if it still runs.
    fn lock(&self, places: &Places, cancel: &Cancel) -> Result<Option<File>, Diagnostic> {
        let dir = std::env::var_os("TMPDIR").map_or_else(|| places.tmp(), PathBuf::from);
        disk::create_dir(&dir)?;
        let uid = rustix::process::getuid().as_raw();
        let words = self.command.join("\0");
        let name = disk::fingerprint([("command", words.as_bytes())]);
        let path = dir.join(format!("cron-wrapper_{uid}_{}.lock", &name[..32]));
        let deadline = Instant::now() + Duration::from_secs(self.wait_for_lock_timeout);
        loop {
            let file = File::options().create(true).append(true).open(&path);
            let file = file.map_err(|e| disk::failed("write", &path, e))?;
            if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                // A cleaner may have removed the file meanwhile: another one would lock another.
                let same = |one: &std::fs::Metadata, other: &std::fs::Metadata| {
                    (one.dev(), one.ino()) == (other.dev(), other.ino())
                };
                let there = std::fs::metadata(&path).ok().zip(file.metadata().ok());
                if there.is_some_and(|(one, other)| same(&one, &other)) {
                    return Ok(Some(file));
                }
            } else if Instant::now() >= deadline || !sleep(LOOK, cancel) {
                return Ok(None);
            }
        }
    }

    fn say_locked(&self) {
        let text = format!(
            "can't acquire lock for executing {} => can be a normal behaviour",
            self.command.join(" ")
        );
        match self.lock_timeout_behaviour {
            SkippedReport::PrintStdout => print(&format!("{text}\n")),
            SkippedReport::PrintStderr => complain(&text),
            SkippedReport::Nothing => {}
        }
    }

    fn log(&self, places: &Places) -> Result<Option<Log>, Diagnostic> {
        let Some(name) = &self.log_capture_to else { return Ok(None) };
        if name == "NULL" {
            return Ok(Some(Log::Nowhere));
        }
        if name.contains('/') || name.is_empty() || name.starts_with('.') {
            return Err(Diagnostic::error(format!("{name:?} is not the name of a log"))
                .kind(Kind::Usage)
                .because("it is a file of the log directory, named without a directory"));
        }
        let module = configure::module(places, &[])?;
        disk::create_dir(&places.log())?;
        let rotation = module.resolution.config.rotation();
        let path = places.log().join(name);
        let file = LogFile::open(&path, rotation).map_err(|e| disk::failed("write", &path, e))?;
        Ok(Some(Log::File(Box::new(file))))
    }
}

/// Where the output of a command goes.
enum Log {
    Nowhere,
    File(Box<LogFile>),
}

impl Log {
    /// Connects the command; the thread that copies ends with the output.
    fn attach(self, command: &mut Command) -> Result<Option<JoinHandle<()>>, Diagnostic> {
        let Log::File(mut log) = self else {
            command.stdout(Stdio::null()).stderr(Stdio::null());
            return Ok(None);
        };
        let failed = |e: std::io::Error| Diagnostic::error("the log cannot be written").because(e);
        let (from, to) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|e| failed(e.into()))?;
        let also: OwnedFd = to.try_clone().map_err(failed)?;
        command.stdout(to).stderr(also);
        Ok(Some(std::thread::spawn(move || {
            let mut reader = BufReader::new(File::from(from));
            let mut line = Vec::new();
            loop {
                line.clear();
                match reader.by_ref().take(64 * 1024).read_until(b'\n', &mut line) {
                    Ok(0) | Err(_) => return,
                    // A full disk must not stop the command.
                    Ok(_) => drop(log.append(&line)),
                }
            }
        })))
    }
}

/// What a shell runs. One word is a text for it. Of several words each stays one, as it was
/// typed, unless one of them is an operator (`|`, `>`, `&&`): then they are a text together.
fn as_shell_text(words: &[String]) -> (String, &[String]) {
    const OPERATORS: [&str; 11] = ["|", "||", "&", "&&", ";", ">", ">>", "<", "2>&1", "2>", "|&"];
    match words {
        [text] => (text.clone(), &[]),
        words if words.iter().any(|word| OPERATORS.contains(&word.as_str())) => {
            (words.join(" "), &[])
        }
        words => ("\"$@\"".into(), words),
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Waits for the end of the command, for the end of its time, or for a signal.
fn wait(child: &mut Child, timeout: u64, cancel: &Cancel) -> Result<Outcome, Diagnostic> {
    let deadline = (timeout > 0).then(|| Instant::now() + Duration::from_secs(timeout));
    loop {
        let status = child.try_wait();
        let status = status.map_err(|e| Diagnostic::error("the command is lost").because(e))?;
        if let Some(status) = status {
            return Ok(Outcome::Code(code_of(status)));
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            complain(&format!("timeout => kill -9 {}", child.id()));
            kill_tree(child);
            return Ok(Outcome::Code(TIMED_OUT));
        }
        if cancel.is_cancelled() {
            kill_tree(child);
            return Ok(Outcome::Code(143));
        }
        std::thread::sleep(LOOK);
    }
}

fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Kills the command and all that it has started. What loses its parent becomes our child.
fn kill_tree(child: &mut Child) {
    let pid = |id: u32| i32::try_from(id).ok().and_then(Pid::from_raw);
    if let Some(group) = pid(child.id()) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        let all = descendants(std::process::id());
        if all.is_empty() {
            break;
        }
        for one in all.into_iter().filter_map(pid) {
            let _ = kill_process(one, Signal::KILL);
        }
        while matches!(rustix::process::wait(rustix::process::WaitOptions::NOHANG), Ok(Some(_))) {}
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The living processes below one, by their numbers.
fn descendants(root: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: Vec<(u32, u32)> = pids
        .filter_map(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name is in parentheses, and may have blanks and parentheses itself.
            let mut rest = stat.rsplit_once(") ")?.1.split(' ');
            let state = rest.next()?;
            let parent = rest.next()?.parse().ok()?;
            (state != "Z").then_some((pid, parent))
        })
        .collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

/// True when the time has passed, false when there is a wish to stop.
fn sleep(time: Duration, cancel: &Cancel) -> bool {
    let deadline = Instant::now() + time;
    while Instant::now() < deadline {
        if cancel.is_cancelled() {
            return false;
        }
        std::thread::sleep(LOOK.min(deadline.saturating_duration_since(Instant::now())));
    }
    true
}

fn random(most: u64) -> Duration {
    let mut bytes = [0; 8];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    let number = if read.is_ok() { u64::from_ne_bytes(bytes) } else { 0 };
    Duration::from_millis(number % most.saturating_mul(1000).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_is_a_text_for_the_shell_and_several_stay_words_without_operators() {
        let words = |all: &[&str]| all.iter().map(|word| word.to_string()).collect::<Vec<_>>();
        let text = |all: &[&str]| as_shell_text(&words(all)).0;
        assert_eq!(text(&["a | b"]), "a | b");
        assert_eq!(text(&["a", "|", "b"]), "a | b");
        assert_eq!(text(&["a", ">", "b", "2>&1"]), "a > b 2>&1");
        assert_eq!(text(&["sh", "-c", "exit 3; x"]), "\"$@\"");
    }
}

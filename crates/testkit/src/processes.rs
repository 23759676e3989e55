//! Processes as /proc shows them.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// A living process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its command line, words joined by blanks.
    pub command: String,
    /// The value of `MFSERV_WORKER` in its environment: `HOME_HASH:ID`.
    pub marker: Option<String>,
}

/// A process by its id; `None` when it is gone (a zombie is gone, and so is one whose memory the
/// kernel has taken back at its end).
pub fn process(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    if matches!(*fields.first()?, "Z" | "X") || *fields.get(20)? == "0" {
        return None;
    }
    let words = |file: &str| -> Vec<String> {
        let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let words = bytes.split(|b| *b == 0).filter(|word| !word.is_empty());
        words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    };
    let marker = words("environ")
        .iter()
        .find_map(|word| word.strip_prefix("MFSERV_WORKER=").map(str::to_owned));
    Some(Process { pid, command: words("cmdline").join(" "), marker })
}

/// Every living process that belongs to a home: it is named in its command line, in its
/// environment or as its working directory, or its marker begins with `hash`.
pub fn of_home(home: &Path, hash: Option<&str>) -> Vec<Process> {
    let own = std::process::id();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != own)
        .filter_map(process)
        .filter(|process| belongs(process, home, hash))
        .collect()
}

fn belongs(process: &Process, home: &Path, hash: Option<&str>) -> bool {
    let marked = match (&process.marker, hash) {
        (Some(marker), Some(hash)) => marker.starts_with(hash),
        _ => false,
    };
    let text = home.to_string_lossy();
    let environ = fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
    let cwd = fs::read_link(format!("/proc/{}/cwd", process.pid)).unwrap_or_default();
    marked
        || process.command.contains(&*text)
        || String::from_utf8_lossy(&environ).contains(&*text)
        || cwd.starts_with(home)
}

/// Sends a signal to one process, by its id; nothing happens if it is gone.
pub fn kill(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// When a process was started, in clock ticks since the machine's start: with the pid
/// it names one process for ever.
pub fn boot_ticks_ms(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks: u64 = stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()?;
    Some(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

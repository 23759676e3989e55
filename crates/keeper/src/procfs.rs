//! What /proc says about processes.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The longest environment that is searched for the marker.
const LONGEST_ENVIRONMENT: u64 = 4 * 1024 * 1024;

/// The identity of this boot of the machine (random(4)): a process id and a start time
/// mean something only together with it.
pub fn boot_id() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|text| text.trim().to_owned())
}

/// When a process was started, in clock ticks since boot (field 22 of proc_pid_stat(5)).
/// With the process id and the boot id it names one process for ever.
pub fn start_ticks(pid: u32) -> io::Result<u64> {
    stat(pid).map(|stat| stat.start_ticks)
}

/// The part of /proc/PID/stat that matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub pid: u32,
    pub state: u8,
    pub parent: u32,
    pub session: u32,
    pub start_ticks: u64,
    /// Of a zombie: its status as wait(2) encodes it. It is 0 too where the kernel hides it.
    pub exit_status: i32,
}

impl Stat {
    /// Dead, and only waiting for its parent to notice.
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }
}

pub(crate) fn stat(pid: u32) -> io::Result<Stat> {
    let text = fs::read(format!("/proc/{pid}/stat"))?;
    parse_stat(pid, &text).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat is odd")))
}

/// Returns true if the process runs as the user that we run as.
pub(crate) fn is_own(pid: u32) -> bool {
    let owner = fs::metadata(format!("/proc/{pid}")).map(|found| found.uid());
    owner.is_ok_and(|uid| uid == rustix::process::geteuid().as_raw())
}

/// The name of the program may contain anything, so the fields count from the last `)`.
fn parse_stat(pid: u32, text: &[u8]) -> Option<Stat> {
    let after_name = text.iter().rposition(|&b| b == b')')? + 1;
    let rest = std::str::from_utf8(&text[after_name..]).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(Stat {
        pid,
        state: fields.first()?.as_bytes()[0],
        parent: fields.get(1)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        start_ticks: fields.get(19)?.parse().ok()?,
        exit_status: fields.get(49)?.parse().ok()?,
    })
}

/// A way to open a file that a process holds and whose name was removed.
pub(crate) fn removed_file(pid: u32, name: &Path) -> Option<PathBuf> {
    let mut said = name.as_os_str().to_owned();
    said.push(" (deleted)");
    let held = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    held.map(|entry| entry.path()).find(|fd| fs::read_link(fd).is_ok_and(|to| to == *said))
}

/// Every process that lives now, zombies left out.
pub(crate) fn living() -> Vec<Stat> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| stat(pid).ok())
        .filter(|stat| !stat.is_zombie())
        .collect()
}

/// The value of a variable in the environment that a process was started with.
pub(crate) fn variable(pid: u32, name: &str) -> Option<String> {
    let file = File::open(Path::new("/proc").join(pid.to_string()).join("environ")).ok()?;
    let mut environment = Vec::new();
    file.take(LONGEST_ENVIRONMENT).read_to_end(&mut environment).ok()?;
    environment.split(|&b| b == 0).find_map(|entry| {
        let value = entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(String::from_utf8_lossy(value).into_owned())
    })
}

/// Sends a signal to exactly the process that was seen, never to one that has got its
/// number since. False if it is gone.
pub(crate) fn signal(seen: &Stat, signal: Signal) -> bool {
    let Some(pid) = Pid::from_raw(seen.pid as i32) else { return false };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    match stat(seen.pid) {
        Ok(now) if now.start_ticks == seen.start_ticks => pidfd_send_signal(&pidfd, signal).is_ok(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_program_cannot_confuse_the_fields() {
        let rest = "0 ".repeat(27);
        let text =
            format!("7 (a ) R 1 (b) Z 3 7 6 0 -1 1 2 3 4 5 6 7 8 9 20 0 1 0 4242 1 2 {rest}9 0");
        let stat = parse_stat(7, text.as_bytes()).unwrap();
        assert_eq!((stat.state, stat.parent, stat.session, stat.start_ticks), (b'Z', 3, 6, 4242));
        assert_eq!(stat.exit_status, 9);
    }

    #[test]
    fn this_process_has_a_start_time_and_this_machine_a_boot_id() {
        assert!(start_ticks(std::process::id()).unwrap() > 0);
        assert_eq!(boot_id().unwrap().len(), 36);
        assert!(start_ticks(u32::MAX).is_err());
    }
}

//! Roles whose sockets were removed (by a cleaner of old files, a program, a person).
//!
//! A role that misses its socket makes another one within 2 s. Until then a command finds nobody
//! at the usual place, and must not conclude that nobody lives.

use std::path::Path;
use std::time::{Duration, Instant};

use mfserv_core::status::Status;
use mfserv_core::{Diagnostic, Kind};
use mfserv_node::control::client;
use mfserv_node::places::Places;

use super::keeper::{self, LOOK, QUICK};

/// A role that lives longer than this, and has no socket, has lost it; before, it may be about to
/// make its first one.
const YOUNG: Duration = Duration::from_secs(2);
/// How long a role may take to make its socket again.
const PATIENCE: Duration = Duration::from_secs(6);

/// Returns at once if each living role has its socket, or no role lives; else waits until the
/// sockets are there again.
pub fn until_reachable(places: &Places) {
    let began = Instant::now();
    let roles = [("keep", places.keep_socket()), ("daemon", places.control_socket())];
    while roles.iter().any(|(role, socket)| !socket.exists() && has_grown(places.home(), role)) {
        if began.elapsed() > PATIENCE {
            return;
        }
        std::thread::sleep(LOOK);
    }
}

/// The status of the node, as [`ask`] gets it.
pub fn status(places: &Places) -> Result<Status, Diagnostic> {
    ask(places, |socket| client::status(socket, QUICK))
}

/// Asks the daemon something that changes nothing. One that has just died, also before it could
/// answer, is waited for: the keeper starts another one.
pub fn ask<T>(
    places: &Places,
    question: impl Fn(&Path) -> Result<T, Diagnostic>,
) -> Result<T, Diagnostic> {
    let began = Instant::now();
    loop {
        match question(&places.control_socket()) {
            Err(problem)
                if problem.kind == Kind::NotRunning
                    && began.elapsed() < PATIENCE
                    && keeper::connect(places).is_ok() =>
            {
                std::thread::sleep(LOOK);
            }
            other => return other,
        }
    }
}

/// The processes of this role of this home.
pub fn pids(home: &Path, role: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| is_role(*pid, home, role)).collect()
}

/// A process of this role of this home lives, and not since a moment ago.
fn has_grown(home: &Path, role: &str) -> bool {
    pids(home, role).into_iter().any(|pid| age(pid).is_some_and(|age| age > YOUNG))
}

/// `mfserv ROLE … --home HOME …`
fn is_role(pid: u32, home: &Path, role: &str) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    let home = home.as_os_str().as_encoded_bytes();
    // A process of a container may have a home with the same path. (The link of another user's
    // process cannot be read.)
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    words.get(1) == Some(&role.as_bytes())
        && namespace(&pid.to_string()).is_some_and(|its| Some(its) == namespace("self"))
        && words.windows(2).any(|two| two[0] == b"--home" && two[1] == home)
}

/// How long a process has lived.
fn age(pid: u32) -> Option<Duration> {
    let ticks = mfserv_keeper::start_ticks(pid).ok()?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let uptime_s: f64 = uptime.split(' ').next()?.parse().ok()?;
    let started_s = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
    Duration::try_from_secs_f64(uptime_s - started_s).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_no_role_of_this_home_is_not_taken_for_one() {
        let home = Path::new("/nowhere/home");
        assert!(!is_role(std::process::id(), home, "keep"));
        assert!(!has_grown(home, "daemon"));
        assert!(age(std::process::id()).is_some_and(|age| age < Duration::from_secs(3600)));
    }
}

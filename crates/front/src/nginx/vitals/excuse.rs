//! What a process has to say for itself when nginx leaves connections unanswered.

use std::fs;
use std::path::Path;

use super::value;

/// Of so many descriptors one may be free where all count as taken: some end at each moment.
const FREE_OF: u64 = 16;

/// Why this worker may accept nobody without hanging: somebody debugs it and lets it go on later, or
/// its clients have all its descriptors. (There are enough for its connections, but the files that
/// it sends take some, too.)
pub fn has_excuse(proc: &Path, pid: u32) -> bool {
    let dir = proc.join(pid.to_string());
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
    let is_debugged = value(&read("status"), "TracerPid").is_some_and(|tracer| tracer != 0);
    is_debugged || {
        let open = fs::read_dir(dir.join("fd")).map_or(0, Iterator::count) as u64;
        limit(&read("limits")).is_some_and(|most| open >= most - most / FREE_OF)
    }
}

/// The descriptors that a process may have, in proc_pid_limits(5).
fn limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_is_debugged_or_has_no_descriptor_left_has_an_excuse() {
        let proc = tempfile::tempdir().unwrap();
        let dir = proc.path().join("7");
        fs::create_dir_all(dir.join("fd")).unwrap();
        let write = |name: &str, text: &str| fs::write(dir.join(name), text).unwrap();
        let has_excuse = || super::has_excuse(proc.path(), 7);
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            32                   64                   files\n";
        write("limits", limits);
        write("status", "Name:\tnginx\nTracerPid:\t0\n");
        assert!(!has_excuse());
        write("status", "Name:\tnginx\nTracerPid:\t12\n");
        assert!(has_excuse());
        write("status", "Name:\tnginx\nTracerPid:\t0\n");
        (0..29).for_each(|number| write(&format!("fd/{number}"), ""));
        assert!(!has_excuse());
        write("fd/29", "");
        assert!(has_excuse());
        write("limits", &limits.replace("32", "unlimited"));
        assert!(!has_excuse());
        assert!(!super::has_excuse(proc.path(), 8), "it has gone");
    }
}

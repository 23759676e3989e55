//! How the kernel schedules the threads that serve.

use std::io;

/// Makes this thread, and those that it starts, interrupt no other when they wake
/// (`SCHED_BATCH`, sched(7)). A front starts no process that could inherit it. (The flag
/// `SCHED_RESET_ON_FORK` does not reset this policy, only those of real time.)
///
/// A lane wakes for each answer of a worker. As an ordinary thread it would take the processor
/// from a worker in the middle of its next request; so it comes when the worker waits, and finds
/// several answers at once. It needs no privilege.
pub fn yield_to_workers() -> io::Result<()> {
    let priority = libc::sched_param { sched_priority: 0 };
    #[expect(unsafe_code, reason = "see SAFETY")]
    // SAFETY: the structure lives until the call returns, and the call keeps nothing of it.
    let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const priority) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_yields_to_workers_and_the_others_stay_as_they_are() {
        let policy = || {
            // The field `policy` of proc_pid_stat(5), after the name in parentheses.
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
            fields[38].parse::<i32>().unwrap()
        };
        let ordinary = policy();
        let thread = std::thread::spawn(move || {
            yield_to_workers().unwrap();
            policy()
        });
        assert_eq!(thread.join().unwrap(), libc::SCHED_BATCH);
        assert_eq!(policy(), ordinary);
    }
}

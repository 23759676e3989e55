//! How the kernel schedules the threads that serve.

use std::io;

/// Makes this thread, and those that it starts, interrupt no other when they wake
/// (`SCHED_BATCH`, sched(7)), if it has the ordinary policy; one that an administrator has chosen
/// stays. A process that the thread starts would inherit the policy: the flag
/// `SCHED_RESET_ON_FORK` resets policies of real time only. A front starts no process.
///
/// A lane wakes for each answer of a worker. As an ordinary thread it would take the processor
/// from a worker in the middle of its next request; so it comes when the worker waits, and finds
/// several answers at once. It needs no privilege.
pub fn yield_to_workers() -> io::Result<()> {
    #[expect(unsafe_code, reason = "see SAFETY")]
    // SAFETY: the call takes no pointer.
    let policy = unsafe { libc::sched_getscheduler(0) };
    if policy != libc::SCHED_OTHER {
        return if policy < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    }
    let priority = libc::sched_param { sched_priority: 0 };
    #[expect(unsafe_code, reason = "see SAFETY")]
    // SAFETY: the structure lives until the call returns, and the call keeps nothing of it.
    let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const priority) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The field `policy` of proc_pid_stat(5), after the name in parentheses.
    fn policy() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[38].parse().unwrap()
    }

    fn choose(policy: i32) -> bool {
        let priority = libc::sched_param { sched_priority: 0 };
        #[expect(unsafe_code, reason = "see SAFETY")]
        // SAFETY: the structure lives until the call returns, and the call keeps nothing of it.
        let done = unsafe { libc::sched_setscheduler(0, policy, &raw const priority) };
        done == 0
    }

    /// The policy of a thread that has yielded to workers, with this policy at first; `None` where
    /// a sandbox forbids to choose one.
    fn after(first: i32) -> Option<i32> {
        let thread = std::thread::spawn(move || {
            choose(first).then(|| {
                yield_to_workers().unwrap();
                policy()
            })
        });
        thread.join().unwrap()
    }

    #[test]
    fn a_thread_yields_to_workers_unless_another_policy_was_chosen_and_others_stay_as_they_are() {
        let own = policy();
        let yields = after(libc::SCHED_OTHER);
        assert!(yields.is_none_or(|policy| policy == libc::SCHED_BATCH), "{yields:?}");
        let chosen = after(libc::SCHED_IDLE);
        assert!(chosen.is_none_or(|policy| policy == libc::SCHED_IDLE), "{chosen:?}");
        assert_eq!(policy(), own);
    }
}

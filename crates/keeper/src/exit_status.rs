//! How a process ended: from wait(2) for a child, from its pidfd for another's.

use std::os::fd::BorrowedFd;

use mfserv_core::wire::keeper::Ended;
use rustix::ioctl::{Updater, ioctl, opcode};
use rustix::process::WaitStatus;

use crate::procfs::{self, Stat};

/// What wait(2) says.
pub(crate) fn of_child(status: WaitStatus) -> Ended {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ended::Exited { code },
        (_, Some(signal)) => Ended::Signalled { signal },
        _ => Ended::Unknown,
    }
}

/// `struct pidfd_info` in its first version, of 64 bytes.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;
const PIDFD_GET_INFO: rustix::ioctl::Opcode = opcode::read_write::<PidfdInfo>(0xff, 11);

/// What Linux ≥ 6.15 tells of a process that was somebody else's child, once that one has
/// reaped it; `None` when it cannot or does not yet say.
pub(crate) fn of_stranger(pidfd: BorrowedFd<'_>) -> Option<Ended> {
    let mut answer = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the opcode names this structure by its size, and the kernel writes no more
    // than that size. An older kernel answers ENOTTY.
    unsafe { ioctl(pidfd, Updater::<PIDFD_GET_INFO, PidfdInfo>::new(&mut answer)) }.ok()?;
    (answer.mask & PIDFD_INFO_EXIT != 0).then_some(())?;
    Some(decoded(answer.exit_code))
}

/// What /proc/PID/stat says of a zombie that its parent has not reaped yet (field 52 of
/// proc_pid_stat(5)). `None` for the 0 of another user's process: the kernel also writes 0 where it
/// hides the status (ptrace(2), PTRACE_MODE_READ_FSCREDS).
pub(crate) fn of_zombie(stat: &Stat) -> Option<Ended> {
    let is_shown = stat.exit_status != 0 || procfs::is_own(stat.pid);
    (stat.is_zombie() && is_shown).then(|| decoded(stat.exit_status))
}

/// A status as wait(2) encodes it.
fn decoded(status: i32) -> Ended {
    match status & 0x7f {
        0 => Ended::Exited { code: (status >> 8) & 0xff },
        signal => Ended::Signalled { signal },
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::process::Command;

    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;

    #[test]
    fn a_zombie_shows_how_it_ended_before_its_parent_asks() {
        for (script, expected) in [
            ("exit 9", Some(Ended::Exited { code: 9 })),
            ("kill -6 $$", Some(Ended::Signalled { signal: 6 })),
            ("exit 0", Some(Ended::Exited { code: 0 })),
        ] {
            #[expect(clippy::disallowed_methods, reason = "a real process whose end is looked at")]
            let mut child = Command::new("sh").args(["-c", script]).spawn().unwrap();
            let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
            let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
            poll(&mut fds, None).unwrap();
            let seen = of_zombie(&procfs::stat(child.id()).unwrap());
            child.wait().unwrap();
            assert_eq!(seen, expected, "{script}");
        }
    }

    #[test]
    fn a_pidfd_tells_how_a_reaped_process_ended_where_the_kernel_knows() {
        for (script, expected) in
            [("exit 9", Ended::Exited { code: 9 }), ("kill -6 $$", Ended::Signalled { signal: 6 })]
        {
            #[expect(clippy::disallowed_methods, reason = "a real process whose end is looked at")]
            let mut child = Command::new("sh").args(["-c", script]).spawn().unwrap();
            let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
            child.wait().unwrap();
            let told = of_stranger(pidfd.as_fd());
            assert!(told.is_none() || told == Some(expected), "{told:?}");
            let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
            let mut numbers = release.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
            let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
            assert!(told.is_some() || version < (6, 15), "Linux {release} should know");
        }
    }
}

//! How a process ended: from wait(2) for a child, from its pidfd for another's.

use std::os::fd::BorrowedFd;

use mfserv_core::wire::keeper::Ended;
use rustix::ioctl::{Updater, ioctl, opcode};
use rustix::process::WaitStatus;

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
    let status = answer.exit_code;
    Some(match status & 0x7f {
        0 => Ended::Exited { code: (status >> 8) & 0xff },
        signal => Ended::Signalled { signal },
    })
}

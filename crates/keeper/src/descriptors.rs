//! Descriptors that travel over a socket or through an execve(2).

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// Descriptors received and not yet used, of one client.
const MOST_RECEIVED: usize = 8;

/// Reads what is there into `buffer`, and attached descriptors into `received`; those
/// beyond a few are closed. Zero bytes mean that the other side has closed.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    received: &mut VecDeque<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_RECEIVED))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let message = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags)?;
    for item in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = item {
            received.extend(descriptors);
        }
    }
    received.truncate(MOST_RECEIVED);
    Ok(message.bytes)
}

/// Says whether a descriptor survives an execve(2).
pub(crate) fn survive_exec(descriptor: BorrowedFd<'_>, survives: bool) -> io::Result<()> {
    let flags = if survives { FdFlags::empty() } else { FdFlags::CLOEXEC };
    Ok(fcntl_setfd(descriptor, flags)?)
}

/// Takes over a descriptor that an earlier image of this process has left open.
pub(crate) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number < 3 {
        return Err(io::Error::other(format!("{number} is no inherited descriptor")));
    }
    // SAFETY: only borrowed for the question whether it is open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl_getfd(borrowed)?;
    survive_exec(borrowed, false)?;
    // SAFETY: it is open, and by the record of the earlier image it is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The standard error of this process is another file from now on.
pub(crate) fn replace_stderr(file: impl AsFd) -> io::Result<()> {
    // SAFETY: dup2(2) replaces what stands behind the number 2, which nobody closes.
    let mut stderr = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(2) });
    Ok(rustix::io::dup2(file, &mut stderr)?)
}

/// Nothing that this process has inherited is passed on by accident.
pub(crate) fn close_all_on_exec() {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers: Vec<RawFd> =
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // SAFETY: only borrowed for the call; one that is closed meanwhile is an error.
        let _ = survive_exec(unsafe { BorrowedFd::borrow_raw(number) }, false);
    }
}

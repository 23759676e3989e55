//! Processes that yield together with a thread: the workers behind a front, whatever server they are.

use std::fmt::Display;
use std::fs;
use std::sync::{Mutex, PoisonError};

use crate::{change, policy_of};

/// Processes that yield as long as a thread does: see [`crate::Scheduling::lead`].
#[derive(Debug, Default)]
pub struct Company(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    yields: bool,
    members: Vec<Member>,
    /// When there are so many, those that have ended are looked for.
    many: usize,
}

/// That many are kept without a look, at least.
const FEW: usize = 64;

/// A process; its number may be that of another one later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Member {
    pid: i32,
    /// When it was started, in ticks since the boot: proc_pid_stat(5).
    started: u64,
}

impl Company {
    /// A process belongs to it from now on, with all its threads. Nothing happens to one of another
    /// user, or with another policy than the ordinary one: an administrator has chosen it.
    pub fn join(&self, pid: u32) {
        let Some(member) = i32::try_from(pid).ok().and_then(Member::of) else { return };
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.members.len() >= inner.many.max(FEW) {
            inner.members.retain(|one| one.is_there());
            inner.many = 2 * inner.members.len();
        }
        if !inner.members.contains(&member) {
            inner.members.push(member);
            if inner.yields {
                member.be_yielding();
            }
        }
    }

    /// The thread yields from now on, or does not.
    pub(crate) fn follow(&self, yields: bool) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.yields = yields;
        inner.members.retain(|one| one.is_there());
        for member in &inner.members {
            match yields {
                true => member.be_yielding(),
                false => member.be_ordinary(),
            }
        }
    }
}

impl Member {
    fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // After the name, which may have any characters, in parentheses.
        let fields = stat.rsplit_once(')')?.1;
        let started = fields.split_ascii_whitespace().nth(19)?.parse().ok()?;
        Some(Self { pid, started })
    }

    fn is_there(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }

    fn be_yielding(&self) {
        if policy_of(self.pid).is_ok_and(|policy| policy == libc::SCHED_OTHER) {
            change_threads(self.pid, libc::SCHED_OTHER, libc::SCHED_BATCH);
        }
    }

    /// With its descendants: those that it has started meanwhile have inherited the policy.
    fn be_ordinary(&self) {
        let mut family = vec![self.pid];
        let mut next = 0;
        while let Some(&pid) = family.get(next) {
            change_threads(pid, libc::SCHED_BATCH, libc::SCHED_OTHER);
            family.extend(children(pid));
            next += 1;
        }
    }
}

/// Gives all threads of a process that have this policy another one. One of them may end meanwhile.
pub fn change_threads(pid: impl Display, from: i32, to: i32) {
    threads(pid).for_each(|thread| _ = change(thread, from, to));
}

fn threads(pid: impl Display) -> impl Iterator<Item = i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.filter_map(|thread| thread.file_name().to_str()?.parse().ok())
}

/// The processes that one has started: proc_pid_children(5).
fn children(pid: i32) -> Vec<i32> {
    let lists = threads(pid).filter_map(|thread| {
        fs::read_to_string(format!("/proc/{pid}/task/{thread}/children")).ok()
    });
    let text: String = lists.collect();
    text.split_ascii_whitespace().filter_map(|child| child.parse().ok()).collect()
}

//! Processes that yield together with threads: the workers behind a front, whatever server they are.

use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::change;

/// Processes that yield as long as all threads do that lead them, and there is one.
#[derive(Debug, Default)]
pub struct Company {
    votes: Mutex<Votes>,
    members: Mutex<Members>,
}

/// The threads that lead.
#[derive(Debug, Default)]
struct Votes {
    yielding: usize,
    ordinary: usize,
}

#[derive(Debug, Default)]
struct Members {
    all: Vec<Member>,
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
    /// A process belongs to it from now on, with its threads and descendants. Nothing happens to one
    /// whose policy this process may not change, or that has another one than the ordinary one and
    /// that of those who yield: an administrator has chosen it.
    pub fn join(&self, pid: u32) {
        let Some(member) = i32::try_from(pid).ok().and_then(Member::of) else { return };
        let mut members = lock(&self.members);
        if members.all.len() >= members.many.max(FEW) {
            members.all.retain(|one| one.is_there());
            members.many = 2 * members.all.len();
        }
        if !members.all.contains(&member) {
            members.all.push(member);
        }
        drop(members);
        if self.yields() {
            member.change(libc::SCHED_OTHER, libc::SCHED_BATCH);
        }
    }

    /// Nobody belongs to it any more; nothing is changed: others decide for the processes.
    pub fn disband(&self) {
        lock(&self.members).all.clear();
    }

    /// Another thread leads, which yields.
    pub(crate) fn is_led(self: &Arc<Self>) {
        lock(&self.votes).yielding += 1;
        self.apply_soon();
    }

    /// A thread that leads yields from now on, or does not any more.
    pub(crate) fn follow(self: &Arc<Self>, yields: bool) {
        let mut votes = lock(&self.votes);
        let Votes { yielding, ordinary } = &mut *votes;
        let (from, to) = if yields { (ordinary, yielding) } else { (yielding, ordinary) };
        *from = from.saturating_sub(1);
        *to += 1;
        drop(votes);
        self.apply_soon();
    }

    fn yields(&self) -> bool {
        let votes = lock(&self.votes);
        votes.ordinary == 0 && votes.yielding > 0
    }

    /// The thread that leads does not wait until all members have followed: there may be hundreds.
    fn apply_soon(self: &Arc<Self>) {
        let own = self.clone();
        let thread = std::thread::Builder::new().name("company".into());
        if thread.spawn(move || own.apply()).is_err() {
            self.apply();
        }
    }

    fn apply(&self) {
        let mut members = lock(&self.members);
        members.all.retain(|one| one.is_there());
        let all = members.all.clone();
        drop(members);
        let (from, to) = match self.yields() {
            true => (libc::SCHED_OTHER, libc::SCHED_BATCH),
            false => (libc::SCHED_BATCH, libc::SCHED_OTHER),
        };
        all.iter().for_each(|member| member.change(from, to));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// With its descendants: the server may be one of them, and they inherit the policy.
    fn change(&self, from: i32, to: i32) {
        let mut family = vec![self.pid];
        let mut next = 0;
        while let Some(&pid) = family.get(next) {
            change_threads(pid, from, to);
            family.extend(children(pid));
            next += 1;
        }
    }
}

/// Gives all threads of a process that have this policy another one. One of them may end meanwhile.
fn change_threads(pid: i32, from: i32, to: i32) {
    threads(pid).for_each(|thread| _ = change(thread, from, to));
}

fn threads(pid: i32) -> impl Iterator<Item = i32> {
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

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};

    use super::*;
    use crate::{choose, policy_of};

    impl Company {
        /// As [`Company::follow`], and waits.
        fn followed(&self, yielding: usize, ordinary: usize) {
            *lock(&self.votes) = Votes { yielding, ordinary };
            self.apply();
        }
    }

    #[test]
    fn a_process_of_the_company_and_what_it_starts_yield_as_long_as_the_leader() {
        #[expect(clippy::disallowed_methods, reason = "a real process whose policy is looked at")]
        let mut shell = Command::new("sh");
        // It starts a child when it is told so; both end with their input.
        shell.args(["-c", "read -r go; sh -c 'echo $$; read -r end'; :"]);
        let mut shell =
            shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("there is a shell");
        let pid = i32::try_from(shell.id()).unwrap();
        if policy_of(pid).unwrap() != libc::SCHED_OTHER || choose(pid, libc::SCHED_OTHER).is_err() {
            // A sandbox forbids it, or everything here has another policy.
            drop(shell.stdin.take());
            shell.wait().unwrap();
            return;
        }
        let company = Company::default();
        company.followed(2, 0);
        company.join(shell.id());
        assert_eq!(policy_of(pid).unwrap(), libc::SCHED_BATCH);
        let mut input = shell.stdin.take().unwrap();
        input.write_all(b"go\n").unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let child = line.trim().parse().unwrap();
        assert_eq!(policy_of(child).unwrap(), libc::SCHED_BATCH, "it is inherited");
        company.followed(1, 1);
        assert_eq!([pid, child].map(|pid| policy_of(pid).unwrap()), [libc::SCHED_OTHER; 2]);
        company.followed(2, 0);
        assert_eq!([pid, child].map(|pid| policy_of(pid).unwrap()), [libc::SCHED_BATCH; 2]);
        choose(pid, libc::SCHED_IDLE).unwrap();
        company.followed(1, 1);
        assert_eq!(policy_of(pid).unwrap(), libc::SCHED_IDLE, "an administrator's choice stays");
        drop(input);
        shell.wait().unwrap();
    }

    #[test]
    fn the_company_yields_while_all_its_leaders_do_and_not_without_one() {
        let company = Arc::new(Company::default());
        assert!(!company.yields());
        company.is_led();
        company.is_led();
        assert!(company.yields());
        company.follow(false);
        assert!(!company.yields());
        company.follow(false);
        company.follow(true);
        assert!(!company.yields(), "one is ordinary still");
        company.follow(true);
        assert!(company.yields());
    }
}

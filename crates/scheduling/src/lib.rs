//! How the kernel schedules threads that wake for short work, again and again: those of a front
//! that serve, and the workers behind it.
//!
//! A lane of the front wakes for each answer of a worker. As an ordinary thread it would take the
//! processor from a worker in the middle of its next request. A worker wakes for each request: as an
//! ordinary thread it takes the processor from the lane, which has the next request for it in its
//! hands, and sleeps and wakes once more for that. With the policy `SCHED_BATCH` (sched(7)) a thread
//! interrupts no other one when it wakes: it comes when the other waits, and finds several answers,
//! or requests, at once. Beside programs that compute without a pause (a build, a report) the same
//! policy makes a thread wait for the end of their time slices, milliseconds for each wake. So
//! lanes and workers yield as long as that costs the lanes little, and are ordinary while it does
//! not.

mod company;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::company::Company;

/// How often a thread that yields looks at how long it has waited for a processor.
const LOOK_EACH: Duration = Duration::from_millis(200);
/// A thread that waits so long after each wake, on average, yields no more. Lanes and workers of
/// short requests let each other wait for less; a program that computes keeps its processor for
/// milliseconds.
const WAIT_MAX: Duration = Duration::from_micros(600);
/// Fewer wakes say nothing.
const WAKES_MIN: u64 = 8;
/// Wakes of so long, at most, are counted together.
const COUNTED_WITHIN: Duration = Duration::from_secs(10);
/// How long a thread is an ordinary one before it yields again: at first, and at most.
const REST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A thread that has yielded so long begins with the shortest rest again.
const SETTLED: Duration = Duration::from_secs(10);

/// The scheduling of a thread that serves.
#[derive(Debug)]
pub struct Scheduling {
    /// proc_pid_schedstat(5) of the thread.
    statistics: File,
    last: Waited,
    state: State,
    rest: Duration,
    company: Arc<Company>,
}

#[derive(Debug)]
enum State {
    /// It interrupts no other thread.
    Yields {
        since: Instant,
        looked: Instant,
        /// From when on wakes are counted.
        counted: Instant,
    },
    /// It is an ordinary thread until then.
    Ordinary { until: Instant },
}

/// How long a thread has waited for a processor while it could run, and how often it has got one.
#[derive(Debug, Clone, Copy, Default)]
struct Waited {
    ns: u64,
    times: u64,
}

impl Scheduling {
    /// Makes this thread interrupt no other one when it wakes. `None` if it stays as it is: an
    /// administrator has chosen another policy than the ordinary one, or the kernel does not tell
    /// how long it waits. `company`: the processes that yield as long as this thread does, and all
    /// others that lead it.
    ///
    /// It needs no privilege. Threads and processes that the thread starts inherit the policy: the
    /// flag `SCHED_RESET_ON_FORK` resets policies of real time only.
    pub fn of_this_thread(company: Arc<Company>) -> io::Result<Option<Self>> {
        let Ok(statistics) = File::open("/proc/thread-self/schedstat") else { return Ok(None) };
        let Some(last) = Waited::read(&statistics) else { return Ok(None) };
        if policy_of(0)? != libc::SCHED_OTHER {
            return Ok(None);
        }
        choose(0, libc::SCHED_BATCH)?;
        company.is_led();
        let state = State::yields(Instant::now());
        Ok(Some(Self { statistics, last, state, rest: REST.0, company }))
    }

    /// To be called by the thread each time before it sleeps: looks whether it is to yield. A
    /// policy that an administrator has chosen meanwhile stays.
    pub fn look(&mut self) {
        let now = Instant::now();
        match self.state {
            State::Yields { looked, .. } if now.duration_since(looked) < LOOK_EACH => {}
            State::Yields { since, counted, .. } => {
                let waited = Waited::read(&self.statistics).unwrap_or(self.last);
                let is_known = waited.times.saturating_sub(self.last.times) >= WAKES_MIN;
                if !is_known && now.duration_since(counted) < COUNTED_WITHIN {
                    self.state = State::Yields { since, looked: now, counted };
                    return;
                }
                self.state = State::Yields { since, looked: now, counted: now };
                let before = std::mem::replace(&mut self.last, waited);
                let is_long = is_known && waited.is_long_since(before);
                if is_long && self.change(libc::SCHED_BATCH, libc::SCHED_OTHER) {
                    if now.duration_since(since) >= SETTLED {
                        self.rest = REST.0;
                    }
                    self.state = State::Ordinary { until: now + self.rest };
                    self.rest = (self.rest * 2).min(REST.1);
                }
            }
            State::Ordinary { until } if now < until => {}
            State::Ordinary { .. } => {
                self.last = Waited::read(&self.statistics).unwrap_or(self.last);
                self.change(libc::SCHED_OTHER, libc::SCHED_BATCH);
                self.state = State::yields(now);
            }
        }
    }

    /// Gives this thread another policy, if it has this one. False if it has not.
    fn change(&self, from: i32, to: i32) -> bool {
        let is_changed = change(0, from, to);
        if is_changed {
            self.company.follow(to == libc::SCHED_BATCH);
        }
        is_changed
    }
}

impl State {
    fn yields(now: Instant) -> Self {
        State::Yields { since: now, looked: now, counted: now }
    }
}

impl Waited {
    /// `None` if the text is not what proc_pid_schedstat(5) says.
    fn read(statistics: &File) -> Option<Self> {
        let mut text = [0; 96];
        let length = statistics.read_at(&mut text, 0).ok()?;
        let text = std::str::from_utf8(&text[..length]).ok()?;
        let mut numbers = text.split_ascii_whitespace().skip(1).map(str::parse);
        Some(Self { ns: numbers.next()?.ok()?, times: numbers.next()?.ok()? })
    }

    fn is_long_since(self, before: Self) -> bool {
        let times = self.times.saturating_sub(before.times);
        let ns = self.ns.saturating_sub(before.ns);
        u128::from(ns / times.max(1)) >= WAIT_MAX.as_nanos()
    }
}

/// The policy of a thread; 0 = of the calling one.
fn policy_of(thread: i32) -> io::Result<i32> {
    #[expect(unsafe_code, reason = "see SAFETY")]
    // SAFETY: the call takes no pointer.
    let policy = unsafe { libc::sched_getscheduler(thread) };
    if policy < 0 { Err(io::Error::last_os_error()) } else { Ok(policy) }
}

/// Gives a thread another policy, if it has this one. False if it has not.
fn change(thread: i32, from: i32, to: i32) -> bool {
    policy_of(thread).is_ok_and(|policy| policy == from) && choose(thread, to).is_ok()
}

/// Gives a thread a policy without priorities.
fn choose(thread: i32, policy: i32) -> io::Result<()> {
    let priority = libc::sched_param { sched_priority: 0 };
    #[expect(unsafe_code, reason = "see SAFETY")]
    // SAFETY: the structure lives until the call returns, and the call keeps nothing of it.
    let done = unsafe { libc::sched_setscheduler(thread, policy, &raw const priority) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// The field `policy` of proc_pid_stat(5), after the name in parentheses.
    fn policy() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[38].parse().unwrap()
    }

    /// The policy of a thread that has yielded to workers, with this policy at first; `None` where
    /// a sandbox forbids to choose one.
    fn after(first: i32) -> Option<i32> {
        let thread = std::thread::spawn(move || {
            choose(0, first).is_ok().then(|| {
                drop(Scheduling::of_this_thread(Arc::default()).unwrap());
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

    /// Makes this thread run on the first processor that it may use.
    fn on_one_processor() {
        #[expect(unsafe_code, reason = "see SAFETY")]
        // SAFETY: the set lives until the calls return, which get its size.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            let size = size_of::<libc::cpu_set_t>();
            assert_eq!(libc::sched_getaffinity(0, size, &raw mut set), 0);
            let first = (0..libc::CPU_SETSIZE as usize).find(|&at| libc::CPU_ISSET(at, &set));
            libc::CPU_ZERO(&mut set);
            libc::CPU_SET(first.unwrap(), &mut set);
            assert_eq!(libc::sched_setaffinity(0, size, &raw const set), 0);
        }
    }

    /// Sleeps and wakes as a lane does until the thread has this policy.
    fn live_until(scheduling: &mut Scheduling, wanted: i32) {
        let since = Instant::now();
        while policy() != wanted {
            assert!(since.elapsed() < Duration::from_secs(100), "not {wanted}: {scheduling:?}");
            std::thread::sleep(Duration::from_millis(2)); // the wake is what is measured
            scheduling.look();
        }
    }

    /// A thread that shares its processor with a program that computes until `is_over`; it ends
    /// with what `live` makes of its scheduling. `None` where there is none.
    fn beside_a_program<T: Send>(
        live: impl FnOnce(&mut Scheduling, &AtomicBool) -> T + Send,
    ) -> Option<T> {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                on_one_processor();
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            let lane = scope.spawn(|| {
                on_one_processor();
                let scheduling = Scheduling::of_this_thread(Arc::default()).ok().flatten();
                scheduling.map(|mut scheduling| live(&mut scheduling, &is_over))
            });
            let done = lane.join();
            is_over.store(true, Ordering::Relaxed);
            done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    #[test]
    fn a_thread_that_waits_for_programs_that_compute_is_an_ordinary_one_for_ever_longer() {
        let rests = beside_a_program(|scheduling, is_over| {
            live_until(scheduling, libc::SCHED_OTHER);
            let first = Instant::now();
            live_until(scheduling, libc::SCHED_BATCH);
            let first = first.elapsed();
            live_until(scheduling, libc::SCHED_OTHER);
            let second = Instant::now();
            is_over.store(true, Ordering::Relaxed);
            live_until(scheduling, libc::SCHED_BATCH);
            (first, second.elapsed())
        });
        let Some((first, second)) = rests else { return };
        assert!(first >= REST.0 / 2, "{first:?}");
        assert!(second >= REST.0 * 3 / 2, "{second:?}");
    }

    #[test]
    fn a_policy_that_is_chosen_for_a_running_thread_stays() {
        beside_a_program(|scheduling, _| {
            choose(0, libc::SCHED_IDLE).unwrap();
            // Two rests long: it would have changed twice.
            let until = Instant::now() + REST.0 * 2;
            while Instant::now() < until {
                std::thread::sleep(Duration::from_millis(2)); // the wake is what is measured
                scheduling.look();
                assert_eq!(policy(), libc::SCHED_IDLE);
            }
        });
    }
}

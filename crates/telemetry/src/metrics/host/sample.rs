//! A reading of everything that proc(5) and sysfs(5) say of this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use mfserv_platform::proc::{self, Processors};

use super::devices::{self, Disk, FileSystem, Interface};

/// What a processor's time is used for, in the order of `/proc/stat`. The time of guests is in
/// `user` and `nice` too.
pub const MODES: [&str; 10] =
    ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"];

/// Where the kernel says it; other directories in tests.
#[derive(Debug, Clone)]
pub struct Sources {
    /// `/proc`.
    pub proc: PathBuf,
    /// `/sys`.
    pub sys: PathBuf,
    /// Who is logged in, utmp(5).
    pub utmp: PathBuf,
    /// A directory whose file system is always looked at: the home of the node.
    pub home: PathBuf,
}

impl Sources {
    /// Those of a machine. `home`: the home of the node.
    pub fn new(home: PathBuf) -> Self {
        Self { proc: "/proc".into(), sys: "/sys".into(), utmp: "/var/run/utmp".into(), home }
    }
}

/// How work has waited for a resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Pressure {
    /// `cpu`, `memory` or `io`.
    pub resource: &'static str,
    /// `some`: some work waited; `full`: all of it.
    pub kind: &'static str,
    /// The share of the last 10, 60 and 300 seconds, percent.
    pub averages: [f64; 3],
    /// Since the start of the machine, microseconds.
    pub total_us: u64,
}

/// This machine at one instant.
#[derive(Debug, Clone)]
pub struct Sample {
    /// When it was read.
    pub at: Instant,
    /// Ticks by mode ([`MODES`]), of each processor (`cpu0`) and of all (`cpu-total`).
    pub cpus: BTreeMap<String, [u64; 10]>,
    /// What `/proc/meminfo` says, by name; sizes in bytes.
    pub memory: BTreeMap<String, u64>,
    /// Pages swapped in and out since the start of the machine.
    pub swapped: (u64, u64),
    /// Load averages of 1, 5 and 15 minutes.
    pub load: Option<[f64; 3]>,
    /// Seconds since the start of the machine.
    pub uptime_s: Option<u64>,
    /// Sessions of users, and distinct users, if the machine keeps such a record.
    pub users: Option<(u64, u64)>,
    /// The processors.
    pub processors: Processors,
    /// Processes by state, a letter of ps(1).
    pub states: BTreeMap<char, u64>,
    /// The threads of all processes.
    pub threads: u64,
    /// Counters of the kernel since its start, by Telegraf's name.
    pub kernel: BTreeMap<&'static str, u64>,
    /// Pressure; none if the kernel does not measure it.
    pub pressure: Vec<Pressure>,
    /// Local file systems.
    pub file_systems: Vec<FileSystem>,
    /// Disks that were used.
    pub disks: Vec<Disk>,
    /// Network interfaces that are up, without the loopback.
    pub interfaces: Vec<Interface>,
}

impl Sample {
    /// Reads everything. What the kernel does not say is left out.
    pub fn read(sources: &Sources) -> Self {
        let text = |name: &str| fs::read_to_string(sources.proc.join(name)).unwrap_or_default();
        let stat = text("stat");
        let processes = proc::processes(&sources.proc);
        let mut states = BTreeMap::new();
        processes.iter().for_each(|process| *states.entry(process.state).or_default() += 1);
        Self {
            at: Instant::now(),
            cpus: cpus(&stat),
            memory: proc::memory(&sources.proc),
            swapped: swapped(&text("vmstat")),
            load: first_numbers(&text("loadavg")),
            uptime_s: first_numbers(&text("uptime")).map(|[up]: [f64; 1]| up as u64),
            users: users(&sources.utmp),
            processors: proc::processors(&sources.proc),
            states,
            threads: processes.iter().map(|process| process.threads).sum(),
            kernel: kernel(&stat, &text("sys/kernel/random/entropy_avail")),
            pressure: pressure(&sources.proc),
            file_systems: devices::file_systems(sources),
            disks: devices::disks(&text("diskstats"), &sources.sys),
            interfaces: devices::interfaces(&text("net/dev"), &sources.sys),
        }
    }
}

impl Sample {
    /// How many processes are in one of these states, letters of ps(1).
    pub fn processes(&self, letters: &str) -> u64 {
        let states = self.states.iter().filter(|(state, _)| letters.contains(**state));
        states.map(|(_, count)| count).sum()
    }
}

fn cpus(stat: &str) -> BTreeMap<String, [u64; 10]> {
    let lines = stat.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let name = words.next().filter(|name| name.starts_with("cpu"))?;
        let mut ticks = [0; 10];
        for (mode, word) in ticks.iter_mut().zip(words) {
            *mode = word.parse().ok()?;
        }
        let name = if name == "cpu" { "cpu-total" } else { name };
        Some((name.to_string(), ticks))
    });
    lines.collect()
}

fn swapped(vmstat: &str) -> (u64, u64) {
    let of = |name: &str| {
        let mut words = vmstat.lines().filter_map(|line| line.split_once(' '));
        words.find(|(known, _)| *known == name).and_then(|(_, pages)| pages.trim().parse().ok())
    };
    (of("pswpin").unwrap_or(0), of("pswpout").unwrap_or(0))
}

/// The numbers that a text begins with.
fn first_numbers<const N: usize>(text: &str) -> Option<[f64; N]> {
    let mut numbers = [0.0; N];
    let mut words = text.split_ascii_whitespace();
    for number in &mut numbers {
        *number = words.next()?.parse().ok()?;
    }
    Some(numbers)
}

fn kernel(stat: &str, entropy: &str) -> BTreeMap<&'static str, u64> {
    let mut counters = BTreeMap::new();
    for line in stat.lines() {
        let mut words = line.split_ascii_whitespace();
        let name = match words.next() {
            Some("intr") => "interrupts",
            Some("ctxt") => "context_switches",
            Some("processes") => "processes_forked",
            Some("btime") => "boot_time",
            _ => continue,
        };
        counters.extend(words.next().and_then(|word| Some((name, word.parse().ok()?))));
    }
    counters.extend(entropy.trim().parse().ok().map(|bits| ("entropy_avail", bits)));
    counters
}

fn pressure(proc: &Path) -> Vec<Pressure> {
    let mut all = Vec::new();
    for resource in ["cpu", "memory", "io"] {
        let text = fs::read_to_string(proc.join("pressure").join(resource)).unwrap_or_default();
        for line in text.lines() {
            all.extend(pressure_line(resource, line));
        }
    }
    all
}

/// `some avg10=1.50 avg60=0.30 avg300=0.00 total=12345`
fn pressure_line(resource: &'static str, line: &str) -> Option<Pressure> {
    let mut words = line.split_ascii_whitespace();
    let kind = match words.next()? {
        "some" => "some",
        // For processors this is always 0: there is always one that works.
        "full" if resource != "cpu" => "full",
        _ => return None,
    };
    let mut value = |name: &str| words.next()?.strip_prefix(name)?.strip_prefix('=');
    let averages = [
        value("avg10")?.parse().ok()?,
        value("avg60")?.parse().ok()?,
        value("avg300")?.parse().ok()?,
    ];
    Some(Pressure { resource, kind, averages, total_us: value("total")?.parse().ok()? })
}

/// The size of a record of utmp(5), and where its type and the name of its user are.
const RECORD: usize = if cfg!(target_arch = "aarch64") { 400 } else { 384 };
const USER_PROCESS: u16 = 7;
const USER: std::ops::Range<usize> = 44..76;

fn users(utmp: &Path) -> Option<(u64, u64)> {
    let records = fs::read(utmp).ok()?;
    let sessions = records.chunks_exact(RECORD).filter(|record| {
        let kind = [record[0], record[1]];
        u16::from_ne_bytes(kind) == USER_PROCESS
    });
    let names: Vec<&[u8]> = sessions.map(|record| &record[USER]).collect();
    let distinct: BTreeSet<&&[u8]> = names.iter().collect();
    Some((names.len() as u64, distinct.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_counted_and_users_once() {
        let dir = tempfile::tempdir().unwrap();
        let utmp = dir.path().join("utmp");
        assert_eq!(users(&utmp), None, "this machine keeps no such record");
        let record = |kind: u16, user: &[u8]| {
            let mut record = vec![0; RECORD];
            record[..2].copy_from_slice(&kind.to_ne_bytes());
            record[USER.start..USER.start + user.len()].copy_from_slice(user);
            record
        };
        let all = [record(7, b"ann"), record(8, b"gone"), record(7, b"ann"), record(7, b"bob")];
        fs::write(&utmp, all.concat()).unwrap();
        assert_eq!(users(&utmp), Some((3, 2)));
    }

    #[test]
    fn pressure_is_read_and_that_of_all_work_on_processors_left_out() {
        let line = "full avg10=1.50 avg60=0.30 avg300=0.00 total=12345";
        let read = pressure_line("io", line).unwrap();
        let averages = [1.5, 0.3, 0.0];
        assert_eq!(read, Pressure { resource: "io", kind: "full", averages, total_us: 12_345 });
        assert_eq!(pressure_line("cpu", line), None);
        assert_eq!(pressure_line("io", "some avg10=x"), None);
    }
}

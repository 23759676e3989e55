//! What proc(5) says of processes, memory and processors.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

mod children;

pub use children::children;

/// A process at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// The id of its parent.
    pub parent: u32,
    /// Its session: the process that began it.
    pub session: u32,
    /// Its state, one of the letters of ps(1).
    pub state: char,
    /// Its threads.
    pub threads: u64,
    /// Resident memory, bytes.
    pub memory: u64,
    /// CPU time of user and system, milliseconds.
    pub cpu_ms: u64,
    /// That of its children which have ended and were waited for: a sum over a tree must not go
    /// down when one of them ends.
    pub ended_children_ms: u64,
}

/// All processes of a `/proc`: one file is read of each. One that ends meanwhile is left out.
pub fn processes(proc: &Path) -> Vec<Process> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| process(proc, pid)).collect()
}

/// A process. `None` if it has gone.
fn process(proc: &Path, pid: u32) -> Option<Process> {
    parse_stat(pid, &fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?)
}

/// All processes at one instant, and who is whose child.
pub struct ProcessTable {
    all: HashMap<u32, Process>,
    children: HashMap<u32, Vec<u32>>,
}

impl ProcessTable {
    /// Reads a `/proc`: one file of each process.
    pub fn read(proc: &Path) -> Self {
        let mut table = Self { all: HashMap::new(), children: HashMap::new() };
        for process in processes(proc) {
            table.children.entry(process.parent).or_default().push(process.pid);
            table.all.insert(process.pid, process);
        }
        table
    }

    /// A process.
    pub fn get(&self, pid: u32) -> Option<&Process> {
        self.all.get(&pid)
    }

    /// A process, first, and its descendants; none if it is not there.
    pub fn tree(&self, root: u32) -> Vec<&Process> {
        self.with_descendants(self.get(root).into_iter().collect())
    }

    /// The same, with whatever has stayed in the session that it began, also after its parent
    /// has ended.
    pub fn tree_and_session(&self, root: u32) -> Vec<&Process> {
        let Some(first) = self.get(root) else { return Vec::new() };
        let others = self.all.values().filter(|it| it.session == root && it.pid != root);
        self.with_descendants(std::iter::once(first).chain(others).collect())
    }

    fn with_descendants<'a>(&'a self, mut tree: Vec<&'a Process>) -> Vec<&'a Process> {
        // The processes were not all looked at in one instant: one may be its own descendant.
        let mut seen: BTreeSet<u32> = tree.iter().map(|process| process.pid).collect();
        let mut next = 0;
        while let Some(parent) = tree.get(next) {
            let children = self.children.get(&parent.pid).into_iter().flatten();
            let fresh = children.filter(|pid| seen.insert(**pid));
            let fresh: Vec<&Process> = fresh.filter_map(|pid| self.get(*pid)).collect();
            tree.extend(fresh);
            next += 1;
        }
        tree
    }
}

/// What is of interest of a single process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details {
    /// The file name of its program; of one without a command line, what the kernel calls it.
    pub program: String,
    /// The user that it runs as.
    pub uid: u32,
    /// nice(2).
    pub nice: i64,
    /// The size of its address space, bytes.
    pub virtual_bytes: u64,
}

/// A process. `None` if it has gone.
pub fn details(proc: &Path, pid: u32) -> Option<Details> {
    use std::os::unix::fs::MetadataExt;
    let dir = proc.join(pid.to_string());
    let stat = fs::read_to_string(dir.join("stat")).ok()?;
    let (name, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let command = fs::read(dir.join("cmdline")).unwrap_or_default();
    let first = command.split(|byte| *byte == 0).next().unwrap_or_default();
    let first = String::from_utf8_lossy(first);
    let program = match first.rsplit('/').next() {
        Some(program) if !program.is_empty() => program,
        _ => name.split_once('(')?.1,
    };
    Some(Details {
        program: program.into(),
        uid: fs::metadata(&dir).ok()?.uid(),
        nice: fields.get(16)?.parse().ok()?,
        virtual_bytes: number(20)?,
    })
}

/// Proportional memory (PSS) of a process, bytes: a page that several processes share is divided
/// among them. `None` if the process has gone, or belongs to somebody else.
pub fn proportional_memory(proc: &Path, pid: u32) -> Option<u64> {
    let text = fs::read_to_string(proc.join(pid.to_string()).join("smaps_rollup")).ok()?;
    let kib = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    kib.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Whether a process has a file open for writing. Descriptors of other users are seen by root
/// alone: of those nothing is known.
pub fn is_open_for_writing(proc: &Path, file: &Path) -> bool {
    let Ok((file, path)) = fs::metadata(file).and_then(|found| Ok((found, file.canonicalize()?)))
    else {
        return false;
    };
    // What has neither its name nor its number is not looked at: that would wait for ever for a
    // server of files that does not answer.
    let is_it = |link: &Path, number: Option<u64>| {
        let is_like = number == Some(file.ino())
            || fs::read_link(link).is_ok_and(|open| open.file_name() == path.file_name());
        let found = is_like.then(|| fs::metadata(link));
        found.is_some_and(|found| {
            found.is_ok_and(|found| (found.dev(), found.ino()) == (file.dev(), file.ino()))
        })
    };
    let processes = fs::read_dir(proc).into_iter().flatten().flatten();
    let numbered =
        |name: &std::ffi::OsStr| name.to_str().is_some_and(|it| it.parse::<u32>().is_ok());
    processes.filter(|entry| numbered(&entry.file_name())).any(|process| {
        let descriptors = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        descriptors.into_iter().any(|entry| {
            let info = process.path().join("fdinfo").join(entry.file_name());
            let (writes, number) = read_fdinfo(&fs::read_to_string(info).unwrap_or_default());
            writes && is_it(&entry.path(), number)
        })
    })
}

/// Of proc_pid_fdinfo(5): the access mode in the flags, which are octal, is one for writing; and
/// the number of the inode, which Linux says since 5.14.
fn read_fdinfo(text: &str) -> (bool, Option<u64>) {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let flags = field("flags:").and_then(|flags| u32::from_str_radix(flags, 8).ok());
    let number = field("ino:").and_then(|number| number.parse().ok());
    (flags.is_some_and(|flags| flags & 0o3 != 0), number)
}

/// A line of proc_pid_stat(5). The name of the command may have blanks and brackets.
fn parse_stat(pid: u32, stat: &str) -> Option<Process> {
    let rest = stat.get(stat.rfind(')')? + 2..)?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Process {
        pid,
        parent: u32::try_from(number(1)?).ok()?,
        session: u32::try_from(number(3)?).ok()?,
        state: fields.first()?.chars().next()?,
        threads: number(17)?,
        memory: number(21)?.saturating_mul(rustix::param::page_size() as u64),
        cpu_ms: (number(11)? + number(12)?) * 1000 / ticks_per_second(),
        ended_children_ms: (number(13)? + number(14)?) * 1000 / ticks_per_second(),
    })
}

/// When a process was started, seconds since the Unix epoch, to a second; `None` if it is not there.
pub fn started_s(proc: &Path, pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
    let rest = stat.get(stat.rfind(')')? + 2..)?;
    let ticks: u64 = rest.split_ascii_whitespace().nth(19)?.parse().ok()?;
    let all = fs::read_to_string(proc.join("stat")).ok()?;
    let boot = all.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(boot.trim().parse::<f64>().ok()? + ticks as f64 / ticks_per_second() as f64)
}

/// Ticks of a second in the CPU times of proc(5); at least 1.
pub fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second().max(1)
}

/// What `/proc/meminfo` says, by name (`MemTotal`). Sizes are in bytes, numbers of pages as they
/// are.
pub fn memory(proc: &Path) -> BTreeMap<String, u64> {
    let text = fs::read_to_string(proc.join("meminfo")).unwrap_or_default();
    let lines = text.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        let mut words = value.split_ascii_whitespace();
        let number: u64 = words.next()?.parse().ok()?;
        let unit = if words.next() == Some("kB") { 1024 } else { 1 };
        Some((name.to_string(), number.saturating_mul(unit)))
    });
    lines.collect()
}

/// The memory of this machine, bytes; 0 if the kernel does not say.
pub fn total_memory() -> u64 {
    memory(Path::new("/proc")).get("MemTotal").copied().unwrap_or(0)
}

/// The processors of a machine; each number is at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Processors {
    /// Sockets.
    pub sockets: u64,
    /// Distinct cores: hyper-threads do not count.
    pub cores: u64,
    /// What the kernel schedules on, hyper-threads included.
    pub logical: u64,
}

/// The processors that `/proc/cpuinfo` lists. Where it says nothing of cores, each processor is
/// one.
pub fn processors(proc: &Path) -> Processors {
    count_processors(&fs::read_to_string(proc.join("cpuinfo")).unwrap_or_default())
}

fn count_processors(cpuinfo: &str) -> Processors {
    let (mut sockets, mut cores) = (BTreeSet::new(), BTreeSet::new());
    let mut logical = 0;
    let mut socket = "";
    for line in cpuinfo.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        match key.trim() {
            "processor" => logical += 1,
            "physical id" => {
                socket = value.trim();
                sockets.insert(socket);
            }
            "core id" => {
                cores.insert((socket, value.trim()));
            }
            _ => {}
        }
    }
    let logical = logical.max(1);
    let cores = if cores.is_empty() { logical } else { cores.len() as u64 };
    Processors { sockets: sockets.len().max(1) as u64, cores, logical }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_with_its_memory_and_its_parent() {
        let all = processes(Path::new("/proc"));
        let own = all.iter().find(|process| process.pid == std::process::id()).unwrap();
        assert!(own.memory > 100_000 && own.threads > 0, "{own:?}");
        assert_eq!(own.parent, std::os::unix::process::parent_id());
    }

    #[test]
    fn a_process_says_when_it_was_started() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("7")).unwrap();
        fs::write(dir.path().join("stat"), "cpu 1 2\nbtime 1700000000\n").unwrap();
        let stat = "7 (a) b) S 3 7 7 0 -1 0 0 0 0 0 100 50 30 20 20 0 4 0 500 1000 25 0";
        fs::write(dir.path().join("7/stat"), stat).unwrap();
        let after = 500.0 / ticks_per_second() as f64;
        assert_eq!(started_s(dir.path(), 7), Some(1_700_000_000.0 + after));
        assert_eq!(started_s(dir.path(), 8), None);
    }

    #[test]
    fn a_process_has_its_program_and_its_user() {
        let own = details(Path::new("/proc"), std::process::id()).unwrap();
        assert!(own.program.starts_with("mfserv_platform"), "{own:?}");
        assert_eq!(own.uid, rustix::process::geteuid().as_raw());
        assert!(own.virtual_bytes > 1 << 20, "{own:?}");
        assert_eq!(details(Path::new("/proc"), u32::MAX), None);
    }

    #[test]
    fn a_tree_has_a_process_first_and_each_descendant_once() {
        let dir = tempfile::tempdir().unwrap();
        // 4 and 5 are each other's parent: they were looked at before and after an end.
        for (pid, parent) in [(1, 0), (2, 1), (3, 2), (4, 5), (5, 4), (6, 1)] {
            let dir = dir.path().join(pid.to_string());
            fs::create_dir(&dir).unwrap();
            let stat = format!("{pid} (x) S {parent} 0 0 0 -1 0 0 0 0 0 1 1 0 0 20 0 1 0 5 0 1 0");
            fs::write(dir.join("stat"), stat).unwrap();
        }
        let table = ProcessTable::read(dir.path());
        let of = |root: u32| {
            let pids: Vec<u32> = table.tree(root).iter().map(|process| process.pid).collect();
            let rest: BTreeSet<u32> = pids.iter().skip(1).copied().collect();
            (pids.first().copied(), pids.len(), rest)
        };
        assert_eq!(of(1), (Some(1), 4, BTreeSet::from([2, 3, 6])));
        assert_eq!(of(4), (Some(4), 2, BTreeSet::from([5])));
        assert_eq!(of(7), (None, 0, BTreeSet::new()));
    }

    #[test]
    fn a_command_name_with_blanks_and_brackets_is_no_trouble() {
        let line = "7 (a) b) c) S 3 7 7 0 -1 0 0 0 0 0 100 50 30 20 20 0 4 0 5 1000 25 0";
        let found = parse_stat(7, line).unwrap();
        assert_eq!((found.parent, found.state, found.threads), (3, 'S', 4));
        assert_eq!(found.memory, 25 * rustix::param::page_size() as u64);
        assert_eq!(found.cpu_ms, 150 * 1000 / ticks_per_second());
        assert_eq!(found.ended_children_ms, 50 * 1000 / ticks_per_second());
        assert_eq!(parse_stat(7, "7 (cut"), None);
    }

    #[test]
    fn a_file_is_being_written_while_somebody_may_write_it_and_not_while_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("file"), dir.path().join("link"));
        let writer = fs::File::create(&path).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(is_open_for_writing(Path::new("/proc"), &path));
        assert!(is_open_for_writing(Path::new("/proc"), &link));
        drop(writer);
        let _reader = fs::File::open(&path).unwrap();
        assert!(!is_open_for_writing(Path::new("/proc"), &path));
        assert!(!is_open_for_writing(Path::new("/proc"), &dir.path().join("missing")));
    }

    #[test]
    fn of_descriptors_only_those_of_a_files_name_or_number_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("file"), dir.path().join("other"));
        fs::write(&path, "").unwrap();
        fs::hard_link(&path, &other).unwrap();
        let ino = fs::metadata(&path).unwrap().ino();
        let is_found = |opened: &Path, flags: &str, number: u64| {
            let proc = tempfile::tempdir().unwrap();
            for part in ["fd", "fdinfo"] {
                fs::create_dir_all(proc.path().join("12").join(part)).unwrap();
            }
            std::os::unix::fs::symlink(opened, proc.path().join("12/fd/3")).unwrap();
            let info = format!("pos:\t0\nflags:\t{flags}\nmnt_id:\t29\nino:\t{number}\n");
            fs::write(proc.path().join("12/fdinfo/3"), info).unwrap();
            is_open_for_writing(proc.path(), &path)
        };
        assert!(is_found(&path, "0100001", 0), "by its name");
        assert!(is_found(&other, "0100002", ino), "by its number");
        assert!(!is_found(&path, "0100000", ino), "it is only read");
        assert!(!is_found(&other, "0100001", 0), "another one is not even looked at");
    }

    #[test]
    fn hyper_threads_are_not_cores() {
        let one = |cpu, core| format!("processor : {cpu}\nphysical id : 0\ncore id : {core}\n\n");
        let text = [one(0, 0), one(1, 0), one(2, 1), one(3, 1)].concat();
        let of = |sockets, cores, logical| Processors { sockets, cores, logical };
        assert_eq!(count_processors(&text), of(1, 2, 4));
        assert_eq!(count_processors("processor : 0\nprocessor : 1\n"), of(1, 2, 2));
        assert_eq!(count_processors(""), of(1, 1, 1));
    }

    #[test]
    fn sizes_are_in_bytes_and_numbers_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let text = "MemTotal:       1000 kB\nHugePages_Total:       3\nodd\n";
        fs::write(dir.path().join("meminfo"), text).unwrap();
        let found = memory(dir.path());
        assert_eq!((found["MemTotal"], found["HugePages_Total"], found.len()), (1_024_000, 3, 2));
        assert!(total_memory() > 1 << 20);
    }
}

//! Starts one process.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mfserv_core::watcher::Rlimits;
use mfserv_core::wire::keeper::{LONGEST_INPUT, ProcessSpec};
use rustix::fs::{CWD, FileType, MemfdFlags, Mode, OFlags, memfd_create, mknodat, open};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::containment::MARKER;
use crate::refusal::Refusal;

/// Listening sockets that one process can inherit.
pub(crate) const MOST_LISTENERS: usize = 32;

/// The first descriptor above those that listening sockets are given in a child.
const FIRST_FREE: RawFd = 3 + MOST_LISTENERS as RawFd;

/// Takes the descriptors that children receive listening sockets as, so that nothing of
/// the keeper (nor of the standard library while it starts a child) ever has those numbers.
pub(crate) fn reserve_descriptors() -> io::Result<()> {
    use std::os::fd::AsRawFd;
    loop {
        let taken = File::open("/dev/null")?;
        if taken.as_raw_fd() >= FIRST_FREE {
            return Ok(());
        }
        // Kept open for the life of the process.
        let _ = ManuallyDrop::new(taken);
    }
}

/// What a new process gets besides its specification.
pub(crate) struct Inherited<'a> {
    /// The value of [`MARKER`].
    pub marker: String,
    /// In the order of the specification.
    pub listeners: Vec<(&'a str, BorrowedFd<'a>)>,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    /// `cgroup.procs` of its leaf.
    pub cgroup: Option<&'a File>,
    /// The same of its leaf for limited memory, if that is another one.
    pub memory_cgroup: Option<&'a File>,
    /// RLIMIT_NOFILE, if the specification sets none.
    pub open_files: Rlimit,
}

/// A process that has been started.
pub(crate) struct Started {
    pub pid: u32,
    /// It is in its cgroup.
    pub in_cgroup: bool,
    /// It is in its cgroup for limited memory.
    pub in_memory_cgroup: bool,
}

/// What the child was doing when it failed, as a byte in a pipe.
const STEPS: [&str; 9] = [
    "execute the program",
    "begin a session",
    "join its cgroup",
    "change to the working directory",
    "receive a listening socket",
    "set rlimit_as",
    "set rlimit_nofile, rlimit_stack or rlimit_fsize",
    "set its niceness",
    "join its cgroup of limited memory",
];
const CGROUP: u8 = 2;
const MEMORY_CGROUP: u8 = 8;

/// A FIFO, and its two ends: for reading without waiting, and for a child to hold. The
/// child's end is open for both, so that writing never fails while the keeper is away.
pub(crate) fn make_fifo(path: &Path) -> Result<(OwnedFd, OwnedFd), Refusal> {
    let refuse = |e| Refusal::errno(format_args!("the FIFO {} cannot be made", path.display()), e);
    match mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(refuse(e)),
    }
    let ours = open_fifo(path).map_err(refuse)?;
    let theirs = open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(refuse)?;
    Ok((ours, theirs))
}

/// Our end of a FIFO that exists.
pub(crate) fn open_fifo(path: &Path) -> rustix::io::Result<OwnedFd> {
    open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
}

/// Starts the process, and returns once its program runs.
pub(crate) fn start(spec: &ProcessSpec, inherited: Inherited<'_>) -> Result<Started, Refusal> {
    let program = find_program(spec)?;
    let told = |e| Refusal::errno("a pipe to the new process cannot be made", e);
    let (said, says) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(told)?;
    #[expect(clippy::disallowed_methods, reason = "the keeper starts every worker and role")]
    let mut command = Command::new(&program);
    command
        .arg0(&spec.argv[0])
        .args(&spec.argv[1..])
        .env_clear()
        .envs(environment(spec, &inherited))
        .stdin(input(&spec.stdin)?)
        .stdout(inherited.stdout)
        .stderr(inherited.stderr);
    let cwd = CString::new(spec.cwd.as_os_str().as_encoded_bytes())
        .map_err(|_| Refusal::because("the working directory contains a NUL byte"))?;
    let cgroup = inherited.cgroup.map(|file| file.as_fd());
    let memory_cgroup = inherited.memory_cgroup.map(|file| file.as_fd());
    let listeners: Vec<BorrowedFd<'_>> = inherited.listeners.iter().map(|(_, fd)| *fd).collect();
    let setup = ChildSetup {
        says: says.as_fd(),
        cgroup,
        memory_cgroup,
        cwd: &cwd,
        listeners: &listeners,
        limits: spec.rlimits,
        nice: spec.nice,
        open_files: &inherited.open_files,
    };
    // SAFETY: the closure only makes system calls on what exists already: no allocation,
    // no lock. What it borrows outlives `spawn`, after which `command` is dropped; the
    // copies with a longer lifetime are never used again.
    unsafe {
        let setup: ChildSetup<'static> =
            std::mem::transmute::<ChildSetup<'_>, ChildSetup<'static>>(setup);
        command.pre_exec(move || setup.prepare());
    }
    let spawned = command.spawn();
    drop(command);
    let mut steps = [0; STEPS.len()];
    let count = rustix::io::read(&said, &mut steps).unwrap_or(0);
    let steps = &steps[..count];
    match spawned {
        Ok(child) => {
            let joined = |step: u8| !steps.contains(&step);
            Ok(Started {
                pid: child.id(),
                in_cgroup: cgroup.is_some() && joined(CGROUP),
                in_memory_cgroup: memory_cgroup.is_some() && joined(MEMORY_CGROUP),
            })
        }
        Err(error) => Err(explain(spec, &program, steps, &error)),
    }
}

/// Standard input: nothing, or a file in memory that no path names.
fn input(text: &str) -> Result<Stdio, Refusal> {
    if text.is_empty() {
        return Ok(Stdio::null());
    }
    let failed = |e: io::Error| Refusal::system("standard input cannot be made", &e);
    let memory = memfd_create(c"stdin", MemfdFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
    let mut file = File::from(memory);
    file.write_all(text.as_bytes()).and_then(|()| file.rewind()).map_err(failed)?;
    Ok(file.into())
}

/// What the child does between fork and exec.
#[derive(Clone, Copy)]
struct ChildSetup<'a> {
    says: BorrowedFd<'a>,
    cgroup: Option<BorrowedFd<'a>>,
    memory_cgroup: Option<BorrowedFd<'a>>,
    cwd: &'a CString,
    listeners: &'a [BorrowedFd<'a>],
    limits: Rlimits,
    nice: i32,
    open_files: &'a Rlimit,
}

impl ChildSetup<'_> {
    fn prepare(&self) -> io::Result<()> {
        let failed = |step: u8| {
            move |e: Errno| {
                let _ = rustix::io::write(self.says, &[step]);
                io::Error::from(e)
            }
        };
        rustix::process::setsid().map_err(failed(1))?;
        if let Some(procs) = self.cgroup {
            // Without it there is still the session.
            let _ = rustix::io::write(procs, b"0").map_err(failed(CGROUP));
        }
        if let Some(procs) = self.memory_cgroup {
            // Without it there is still the daemon, which measures.
            let _ = rustix::io::write(procs, b"0").map_err(failed(MEMORY_CGROUP));
        }
        rustix::process::chdir(self.cwd.as_c_str()).map_err(failed(3))?;
        for (number, listener) in self.listeners.iter().enumerate() {
            give(*listener, 3 + number as RawFd).map_err(failed(4))?;
        }
        if self.nice != 0 {
            rustix::process::nice(self.nice).map_err(failed(7))?;
        }
        if let Some(kib) = self.limits.core_kib {
            // More than the hard limit is as much as that. Nothing of a worker depends on it.
            let most = getrlimit(Resource::Core).maximum.unwrap_or(u64::MAX);
            let value = Some(kib.saturating_mul(1024).min(most));
            let _ = setrlimit(Resource::Core, Rlimit { current: value, maximum: value });
        }
        limit(Resource::As, self.limits.address_space).map_err(failed(5))?;
        setrlimit(Resource::Nofile, *self.open_files).map_err(failed(6))?;
        limit(Resource::Nofile, self.limits.open_files).map_err(failed(6))?;
        limit(Resource::Stack, self.limits.stack).map_err(failed(6))?;
        limit(Resource::Fsize, self.limits.file_size).map_err(failed(6))
    }
}

/// Duplicates a descriptor to a number of the reserved range, without close-on-exec.
fn give(descriptor: BorrowedFd<'_>, number: RawFd) -> rustix::io::Result<()> {
    // SAFETY: the number is reserved (see `reserve_descriptors`): nothing else owns it.
    let mut target = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number) });
    rustix::io::dup2(descriptor, &mut target)
}

fn limit(resource: Resource, value: u64) -> rustix::io::Result<()> {
    match value {
        0 => Ok(()),
        value => setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) }),
    }
}

fn environment(spec: &ProcessSpec, inherited: &Inherited<'_>) -> BTreeMap<String, String> {
    let mut env = spec.env.clone();
    env.insert(MARKER.to_owned(), inherited.marker.clone());
    env.remove("MFSERV_LISTEN");
    if !inherited.listeners.is_empty() {
        let told = inherited.listeners.iter().enumerate();
        let told: Vec<_> = told.map(|(i, (name, _))| format!("{name}={}", 3 + i)).collect();
        env.insert("MFSERV_LISTEN".to_owned(), told.join(","));
    }
    env
}

/// Refuses what no system call would explain.
pub(crate) fn check(spec: &ProcessSpec) -> Result<(), Refusal> {
    let id = &spec.id;
    let fine = |c: char| c.is_ascii_alphanumeric() || "._-@+".contains(c);
    if id.is_empty() || id.len() > 200 || id.starts_with('.') || !id.chars().all(fine) {
        let rule = "1 to 200 letters, digits and . _ - @ +, the first not a dot";
        return Err(Refusal::because(format!("{id:?} is no name for a process: {rule}")));
    }
    if spec.argv.first().is_none_or(String::is_empty) {
        return Err(Refusal::because(format!("{id} has no command")));
    }
    if spec.listeners.len() > MOST_LISTENERS {
        let reason = format!("{id} inherits more than {MOST_LISTENERS} listening sockets");
        return Err(Refusal::because(reason));
    }
    if spec.stdin.len() > LONGEST_INPUT {
        let reason = format!("the standard input of {id} is over {LONGEST_INPUT} bytes");
        return Err(Refusal::because(reason));
    }
    let bad_name = |name: &String| name.is_empty() || name.contains(['=', '\0']);
    if let Some(name) = spec.env.keys().find(|name| bad_name(name)) {
        return Err(Refusal::because(format!("{name:?} is no name for a variable")));
    }
    let with_nul = spec.argv.iter().chain(spec.env.values()).find(|text| text.contains('\0'));
    match with_nul {
        Some(text) => Err(Refusal::because(format!("{text:?} contains a NUL byte"))),
        None => Ok(()),
    }
}

/// `argv[0]` as a path: itself when it has a slash, else the first in the PATH of the
/// specification that can be executed.
fn find_program(spec: &ProcessSpec) -> Result<PathBuf, Refusal> {
    let name = &spec.argv[0];
    if name.contains('/') {
        return Ok(spec.cwd.join(name));
    }
    let path = spec.env.get("PATH").map_or("", String::as_str);
    let mut found =
        path.split(':').map(|dir| spec.cwd.join(dir).join(name)).filter(|p| p.is_file());
    let mut not_executable = None;
    let program = found.find(|candidate| {
        let can = fs::metadata(candidate).is_ok_and(|m| m.permissions().mode() & 0o111 != 0);
        if !can {
            not_executable.get_or_insert_with(|| candidate.clone());
        }
        can
    });
    program.ok_or_else(|| match not_executable {
        Some(file) => {
            Refusal::errno(format_args!("{} is not executable", file.display()), Errno::ACCESS)
        }
        None => {
            Refusal::errno(format_args!("{name} is in no directory of PATH={path}"), Errno::NOENT)
        }
    })
}

fn explain(spec: &ProcessSpec, program: &Path, steps: &[u8], error: &io::Error) -> Refusal {
    let is_optional = |step: u8| [CGROUP, MEMORY_CGROUP].contains(&step);
    let step = steps.iter().copied().find(|step| !is_optional(*step)).unwrap_or(0);
    let limits = &spec.rlimits;
    let what = match step {
        0 => return explain_exec(program, error),
        3 => format!("the working directory {} cannot be entered", spec.cwd.display()),
        5 => format!("rlimit_as={} cannot be set", limits.address_space),
        6 => format!(
            "rlimit_nofile={}, rlimit_stack={} or rlimit_fsize={} is more than is permitted",
            limits.open_files, limits.stack, limits.file_size
        ),
        other => {
            format!("{} cannot {}", spec.id, STEPS.get(usize::from(other)).unwrap_or(&"start"))
        }
    };
    Refusal::system(what, error)
}

fn explain_exec(program: &Path, error: &io::Error) -> Refusal {
    let file = program.display();
    let exists = program.exists();
    let what = match Errno::from_io_error(error) {
        Some(Errno::NOENT) if exists => match interpreter(program) {
            Some(interpreter) => format!("the interpreter {interpreter} of {file} does not exist"),
            None => format!("the loader that {file} needs does not exist"),
        },
        Some(Errno::NOEXEC) => format!("{file} is no program: it has no #! line"),
        _ => format!("{file} cannot be executed"),
    };
    Refusal::system(what, error)
}

fn interpreter(script: &Path) -> Option<String> {
    let mut start = Vec::new();
    File::open(script).ok()?.take(256).read_to_end(&mut start).ok()?;
    let line = start.split(|&b| b == b'\n').next()?.strip_prefix(b"#!")?;
    let line = String::from_utf8_lossy(line).into_owned();
    line.split_whitespace().next().map(str::to_owned)
}

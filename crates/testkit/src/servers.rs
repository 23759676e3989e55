//! Real servers of others that tests speak with. They are unpacked below the target directory,
//! once, and never installed into the machine. What a machine cannot have is said and left out.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{FlockOperation, flock};

/// A program of a Debian package: `usr/bin/promtool` of `prometheus`. `target` is the directory
/// in which packages are unpacked. `None` if this machine cannot have it; the reason is printed.
///
/// # Panics
/// When the directory cannot be made.
pub fn of_debian(target: &Path, package: &str, program: &str) -> Option<PathBuf> {
    let (servers, _lock) = locked(target);
    let dir = servers.join(package);
    if !dir.is_dir() {
        if let Err(why) = unpack(package, &servers, &dir) {
            let what = format!("what needs {program} of the Debian package {package}: {why}");
            crate::skipped(&what);
            return None;
        }
    }
    let program = dir.join(program);
    assert!(program.exists(), "{} is not in the package {package}", program.display());
    Some(program)
}

/// The directory of the servers, for one test at a time.
fn locked(target: &Path) -> (PathBuf, fs::File) {
    let servers = target.join("servers");
    fs::create_dir_all(&servers).expect("a directory for servers");
    let lock = fs::File::create(servers.join("lock")).expect("the lock of the servers");
    flock(lock.as_fd(), FlockOperation::LockExclusive).expect("the servers' lock");
    (servers, lock)
}

/// A program that Go builds from its module, once: `telegraf` of `example.org/cmd/telegraf`, in
/// a version, with build tags. Its sources are removed again. `None` if this machine cannot have
/// it; the reason is printed.
///
/// # Panics
/// When the directory cannot be made.
pub fn of_go(target: &Path, module: &str, version: &str, tags: &[&str]) -> Option<PathBuf> {
    let (servers, _lock) = locked(target);
    let name = module.rsplit('/').next().unwrap_or(module);
    let dir = servers.join(format!("{name}-{version}"));
    if !dir.is_dir() {
        let fresh = servers.join(format!("{name}.fresh"));
        let _ = fs::remove_dir_all(&fresh);
        let mut command = Command::new("go");
        command.args(["install", "-ldflags", "-s -w", "-tags", &tags.join(",")]);
        command.arg(format!("{module}@v{version}"));
        // Nothing goes into the home of whoever runs the tests. Modules are read-only else, and
        // could not be removed.
        for (variable, below) in [("GOPATH", "path"), ("GOCACHE", "cache"), ("GOBIN", "bin")] {
            command.env(variable, fresh.join(below));
        }
        command.env("CGO_ENABLED", "0").env("GOFLAGS", "-modcacherw");
        if let Err(why) = run(&mut command) {
            let _ = fs::remove_dir_all(&fresh);
            let lines: Vec<&str> = why.lines().rev().take(2).collect();
            crate::skipped(&format!("what needs {name} {version}, built by Go: {lines:?}"));
            return None;
        }
        fs::rename(fresh.join("bin"), &dir).expect("the program has its place");
        fs::remove_dir_all(&fresh).expect("the sources are removed");
    }
    Some(dir.join(name))
}

/// The Python of a virtual environment that has a package of PyPI, in a version. `None` if this
/// machine cannot have it; the reason is printed.
///
/// # Panics
/// When the directory cannot be made.
pub fn of_pypi(target: &Path, package: &str, version: &str) -> Option<PathBuf> {
    let (servers, _lock) = locked(target);
    let dir = servers.join(format!("{package}-{version}"));
    let python = dir.join("bin/python");
    // Programs of an environment have its path in them: it is made where it stays.
    let is_whole = dir.join("whole");
    if !is_whole.exists() {
        let _ = fs::remove_dir_all(&dir);
        let made = run(Command::new("python3").args(["-m", "venv"]).arg(&dir)).and_then(|()| {
            let pip = ["-m", "pip", "install", "-q", "--disable-pip-version-check"];
            run(Command::new(&python).args(pip).arg(format!("{package}=={version}")))
        });
        if let Err(why) = made {
            let last = why.lines().last().unwrap_or_default();
            crate::skipped(&format!("what needs {package} {version} of PyPI: {last}"));
            return None;
        }
        fs::write(&is_whole, "").expect("a mark of the environment");
    }
    Some(python)
}

fn unpack(package: &str, servers: &Path, dir: &Path) -> Result<(), String> {
    let fresh = servers.join(format!("{package}.fresh"));
    let _ = fs::remove_dir_all(&fresh);
    fs::create_dir_all(&fresh).map_err(|why| why.to_string())?;
    let download = || run(Command::new("apt-get").args(["download", package]).current_dir(&fresh));
    if download().is_err() {
        run(Command::new("apt-get").arg("update"))?;
        download()?;
    }
    let entries = fs::read_dir(&fresh).map_err(|why| why.to_string())?;
    let archive = entries.flatten().find(|entry| entry.path().extension().is_some());
    let archive = archive.ok_or("apt-get has downloaded nothing")?.path();
    run(Command::new("dpkg").arg("-x").args([&archive, &fresh]))?;
    fs::rename(&fresh, dir).map_err(|why| why.to_string())
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|why| {
        format!("{} cannot be run: {why}", command.get_program().to_string_lossy())
    })?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_string()),
    }
}

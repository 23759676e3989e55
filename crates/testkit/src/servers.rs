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
    let servers = target.join("servers");
    let dir = servers.join(package);
    fs::create_dir_all(&servers).expect("a directory for servers");
    let lock = fs::File::create(servers.join("lock")).expect("the lock of the servers");
    flock(lock.as_fd(), FlockOperation::LockExclusive).expect("the servers' lock");
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
    let output = command.stdin(Stdio::null()).output().map_err(|why| why.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_string()),
    }
}

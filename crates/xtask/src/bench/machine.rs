//! What a reader has to know of the machine, and nothing that names it.

use std::fs;
use std::process::Command;

/// One line: cores, kernel, versions of the programs (`(name, arguments)`) that are there.
pub fn line(programs: &[(&str, &[&str])]) -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.trim().split('-').next().unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    let versions = programs.iter().filter_map(|(program, args)| version(program, args));
    let first = [format!("{cores} cores"), format!("Linux {kernel}")];
    let parts: Vec<String> = first.into_iter().chain(versions).collect();
    format!("{} (load average at the beginning: {load})", parts.join(", "))
}

fn version(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let said = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&said).into_owned();
    let number = text.split(|c: char| !(c.is_ascii_digit() || c == '.'));
    let number = number.map(|n| n.trim_matches('.')).find(|n| n.contains('.'))?;
    let name = program.rsplit('/').next().unwrap_or(program);
    Some(format!("{name} {number}"))
}

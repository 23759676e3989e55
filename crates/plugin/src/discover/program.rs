//! A directory with one program that can be executed: a script with `#!`, or a binary.

use super::{Evidence, Finding, Listing, PROGRAM, Web, scripts};

/// Programs that are no servers.
const NEVER: &[&str] = &[
    "configure",
    "gradlew",
    "mvnw",
    "build.sh",
    "install.sh",
    "setup.sh",
    "deploy.sh",
    "test.sh",
    "manage.py",
    "postinstall",
];

pub(super) fn find(listing: &Listing) -> Vec<Finding> {
    let programs = listing.programs().filter(|(path, _)| !NEVER.contains(path));
    // Python programs that are servers are a reading of their own.
    let of_python = scripts::find(listing);
    let is_taken = |path: &str| of_python.iter().any(|one| one.choice == path);
    let programs = programs.filter(|(path, _)| !is_taken(path));
    let programs: Vec<_> = programs.filter(|(path, text)| is_program(path, *text)).collect();
    let [(path, text)] = programs[..] else { return Vec::new() };
    let line = text.and_then(|text| text.lines().next()).filter(|line| line.starts_with("#!"));
    let says = line.map_or("can be executed".to_string(), |line| format!("is executable, {line}"));
    let web = Web::Command(format!("./{path}"));
    let mut finding = Finding::new("program", "a program", PROGRAM, Some(web));
    finding.evidence.push(Evidence::new(path, usize::from(line.is_some()), says));
    vec![finding]
}

/// Files on some disks are all executable: a text needs its first line.
fn is_program(path: &str, text: Option<&str>) -> bool {
    match text {
        Some(text) if text.starts_with("#!") => true,
        Some(text) => text.starts_with("\u{7f}ELF"),
        None => !path.contains('.'),
    }
}

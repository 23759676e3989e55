//! Programs are started in a few crates only. (Which functions of them: clippy's ban of
//! `Command::new` asks each for its reason.)

use crate::tidy::code::paths;
use crate::tidy::{Finding, Source};

/// The crates, and why.
const ALLOWED: &[(&str, &str)] = &[
    ("keeper", "it is the parent of every role and worker"),
    ("plugin", "builds and hooks run in the process that was asked for them, with its terminal"),
    ("mfserv", "it starts the keeper, and `exec` replaces itself by a program"),
];

/// Directories of other crates, and why.
const ALLOWED_BELOW: &[(&str, &str)] = &[(
    "crates/front/src/nginx/",
    "the process there starts nginx and the front behind it, and reads no byte of a client",
)];

pub fn check(source: &Source) -> Vec<Finding> {
    let is_below = |(dir, _): &(&str, &str)| source.path.starts_with(dir);
    if !source.is_shipped()
        || ALLOWED_BELOW.iter().any(is_below)
        || ALLOWED.iter().any(|(allowed, _)| *allowed == source.krate())
    {
        return Vec::new();
    }
    let allowed: Vec<String> =
        ALLOWED.iter().chain(ALLOWED_BELOW).map(|(name, why)| format!("{name} ({why})")).collect();
    let message = format!("a process may be started in {} only", allowed.join(", "));
    paths(source)
        .into_iter()
        .filter(|(line, path)| source.ships(*line) && path.contains("process::Command"))
        .map(|(line, _)| Finding::new(&source.path, line, &message))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_found_where_no_process_may_be_started() {
        let text = "use std::process::{Command, Stdio};\n#[cfg(test)]\nmod tests {\nuse std::process::Command;\n}";
        let lines = |path: &str| -> Vec<usize> {
            check(&Source::new(path, text)).into_iter().map(|finding| finding.line).collect()
        };
        assert_eq!(lines("crates/front/src/lib.rs"), [1]);
        assert!(lines("crates/keeper/src/spawn.rs").is_empty());
        assert!(lines("crates/front/src/nginx/program.rs").is_empty());
        assert!(lines("crates/front/tests/main.rs").is_empty());
    }
}

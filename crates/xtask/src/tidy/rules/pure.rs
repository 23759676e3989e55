//! `core`, `cron`, `h1`, `websocket` and `zmtp` decide, they do nothing: no clock, file, process, thread or socket.

use crate::tidy::code::paths;
use crate::tidy::{Finding, Source};

const PURE: &[&str] = &["core", "cron", "h1", "websocket", "zmtp"];

/// Paths, or beginnings of paths, that reach the outside.
const OUTSIDE: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io::stderr",
    "std::io::stdin",
    "std::io::stdout",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "rustix",
    "tokio",
];

pub fn check(source: &Source) -> Vec<Finding> {
    if !PURE.contains(&source.krate()) || !source.path.contains("/src/") {
        return Vec::new();
    }
    let message = |path: &str| {
        format!(
            "`{path}`: {} does no input or output; its caller passes the value in",
            source.krate()
        )
    };
    paths(source)
        .into_iter()
        .filter(|(_, path)| reaches_outside(path))
        .map(|(line, path)| Finding::new(&source.path, line, message(&path)))
        .collect()
}

fn reaches_outside(path: &str) -> bool {
    let below = |outside: &&str| {
        path.strip_prefix(*outside).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    path.ends_with("::now") || OUTSIDE.iter().any(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_files_processes_and_sockets_are_found_in_core_and_nowhere_else() {
        let text = "use std::{fs, fmt};\nuse std::net::{IpAddr, TcpStream};\n// std::fs\n\
                    fn a() { let now = jiff::Zoned::now(); std::process::abort() }\n\
                    use std::time::Duration;";
        let lines = |path: &str| -> Vec<usize> {
            check(&Source::new(path, text)).into_iter().map(|finding| finding.line).collect()
        };
        assert_eq!(lines("crates/core/src/plan.rs"), [1, 2, 4, 4]);
        assert_eq!(lines("crates/h1/src/lib.rs"), [1, 2, 4, 4]);
        assert!(lines("crates/node/src/plan.rs").is_empty());
    }
}

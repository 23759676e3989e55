//! Crates depend on lower ones only, and hands do not know each other. Inside `front`, rooms
//! depend on lower rooms only.

use crate::tidy::code::paths;
use crate::tidy::{Finding, Source, Tree};

/// The crates, lowest level first. Two crates of one level do not know each other.
const LEVELS: &[&[&str]] = &[
    &["cron", "zmtp"],
    &["core", "fastcgi", "h1", "websocket"],
    &["platform", "pull", "scheduling"],
    &["logfile"],
    &["keeper", "supervisor", "front", "plugin", "telemetry", "worker-python"],
    &["node"],
    &["mfserv"],
    &["testkit", "xtask"],
];

pub fn check(tree: &Tree) -> Vec<Finding> {
    let manifests = tree.texts.iter().filter_map(|(path, text)| {
        let name = path.strip_prefix("crates/")?.strip_suffix("/Cargo.toml")?;
        Some((path, name, text))
    });
    let mut findings: Vec<Finding> =
        manifests.flat_map(|(path, name, text)| of_manifest(path, name, text)).collect();
    findings.extend(tree.sources.iter().flat_map(of_rooms));
    findings
}

fn level(krate: &str) -> Option<usize> {
    LEVELS.iter().position(|level| level.contains(&krate))
}

fn of_manifest(path: &str, name: &str, text: &str) -> Vec<Finding> {
    let Some(own) = level(name) else {
        let message = format!("crate {name} has no level: crates/xtask/src/tidy/rules/layers.rs");
        return vec![Finding::new(path, 1, message)];
    };
    let allowed = |other: &str| {
        let other = level(other);
        // Nothing shipped depends on what is not.
        other.is_some_and(|other| other < own)
    };
    dependencies(text)
        .into_iter()
        .filter(|(_, other)| !allowed(other))
        .map(|(line, other)| {
            let message = format!("{name} may not depend on {other}: {}", picture());
            Finding::new(path, line, message)
        })
        .collect()
}

fn picture() -> String {
    let levels: Vec<String> = LEVELS.iter().map(|level| level.join(" ")).collect();
    format!("the levels are {}", levels.join(" ← "))
}

/// Our own crates among the dependencies of a manifest, those of its tests left out.
fn dependencies(text: &str) -> Vec<(usize, String)> {
    let mut section = "";
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.starts_with('[') {
            section = line.trim();
        }
        let name = line.split(['.', '=', ' ']).next().unwrap_or("");
        if section == "[dependencies]" && name.starts_with("mfserv") {
            found.push((index + 1, name.trim_start_matches("mfserv-").to_string()));
        }
    }
    found
}

/// A directory whose modules are rooms, and its floors, lowest first. A room knows those on
/// lower floors only.
const ROOMS: &[(&str, &[&[&str]])] = &[(
    "crates/front/src/embedded/",
    &[&["io"], &["clients"], &["files", "workers"], &["request"], &["lanes"], &["control"]],
)];

fn of_rooms(source: &Source) -> Vec<Finding> {
    let house = ROOMS.iter().find(|(house, _)| source.path.starts_with(house));
    house.map_or_else(Vec::new, |(house, floors)| of_room(source, house, floors))
}

fn of_room(source: &Source, house: &str, floors: &[&[&str]]) -> Vec<Finding> {
    let floor = |room: &str| floors.iter().position(|rooms| rooms.contains(&room));
    let below = source.path.strip_prefix(house).unwrap_or("");
    let room = below.split(['/', '.']).next().unwrap_or("");
    let Some(own) = floor(room) else { return Vec::new() };
    let prefixes = [from_crate(house), from_below(below)];
    let other_room = |path: &str| {
        let inside = prefixes.iter().find_map(|prefix| path.strip_prefix(prefix.as_str()))?;
        let other = inside.split("::").next()?;
        (other != room && floor(other)? >= own).then(|| other.to_string())
    };
    paths(source)
        .into_iter()
        .filter(|(line, _)| source.ships(*line))
        .filter_map(|(line, path)| Some((line, other_room(&path)?)))
        .map(|(line, other)| {
            let message = format!("{room} may not depend on {other}, which is not below it");
            Finding::new(&source.path, line, message)
        })
        .collect()
}

/// `crates/front/src/embedded/` → `crate::embedded::`
fn from_crate(house: &str) -> String {
    let module = house.split("/src/").nth(1).unwrap_or("");
    format!("crate::{}", module.replace('/', "::"))
}

/// How a file of a room says the house without naming it: `super::super::` in `io/pipe.rs`.
fn from_below(file: &str) -> String {
    let module = file.strip_suffix("/mod.rs").unwrap_or(file);
    "super::".repeat(module.split('/').count())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(name: &str, text: &str) -> Vec<String> {
        let path = format!("crates/{name}/Cargo.toml");
        of_manifest(&path, name, text).into_iter().map(|f| f.to_string()).collect()
    }

    #[test]
    fn a_hand_that_depends_on_a_hand_is_found() {
        let text = "[dependencies]\nmfserv-core.workspace = true\nmfserv-plugin.workspace = true\n\
                    [dev-dependencies]\nmfserv-testkit.workspace = true\n";
        let found = findings("front", text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("crates/front/Cargo.toml:3: front may not depend on plugin"));
        assert!(findings("node", text).is_empty());
    }

    #[test]
    fn a_dependency_upwards_and_a_crate_without_a_level_are_found() {
        let text = "[dependencies]\nmfserv-node = { path = \"../node\" }\n";
        assert_eq!(findings("core", text).len(), 1);
        assert_eq!(findings("testkit", text).len(), 0);
        assert_eq!(findings("attic", text).len(), 1);
    }

    #[test]
    fn a_room_that_knows_one_that_is_not_below_it_is_found() {
        let floors: &[&[&str]] = &[&["io"], &["files", "workers"], &["request"]];
        let text = "use crate::embedded::io::Pipe;\nuse crate::embedded::{request::serve, io};\n\
                    use super::super::files::A;\nuse super::request;\n\
                    #[cfg(test)]\nmod tests {\nuse crate::embedded::request::a;\n}";
        let house = "crates/front/src/embedded/";
        let lines = |file: &str| -> Vec<usize> {
            let source = Source::new(format!("{house}{file}"), text);
            of_room(&source, house, floors).into_iter().map(|finding| finding.line).collect()
        };
        assert_eq!(lines("workers/relay.rs"), [2, 3]);
        assert_eq!(lines("workers/mod.rs"), [2, 4]);
        assert!(lines("request/serve.rs").is_empty());
        assert!(lines("elsewhere.rs").is_empty());
    }
}

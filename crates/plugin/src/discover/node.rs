//! `package.json`: a server that `start` runs, a build.

use std::path::Path;

use mfserv_core::Diagnostic;
use mfserv_core::diagnostic::Location;

use super::procfile::short;
use super::{Evidence, Finding, Listing, SERVER, Web, frameworks};

pub(super) const FILE: &str = "package.json";
/// What a `start` script runs that is a server for development: the site is built instead.
const DEVELOPMENT: &[&str] = &[
    "vite",
    "react-scripts start",
    "webpack serve",
    "webpack-dev-server",
    "ng serve",
    "parcel",
    "astro dev",
    "astro preview",
    "nuxt dev",
    "nuxi dev",
    "vinxi dev",
    "remix dev",
    "remix vite:dev",
    "react-router dev",
    "vue-cli-service serve",
    "live-server",
];

/// Directories that builds make.
const MADE: &[&str] = &["dist", "build", "out", ".output", ".next"];

/// What matters of a `package.json`.
#[derive(Debug, Clone, Default)]
pub(super) struct Package {
    pub(super) name: Option<String>,
    pub(super) start: Option<String>,
    pub(super) build: Option<String>,
    pub(super) version: Option<String>,
    pub(super) main: Option<String>,
    /// The packages that it names.
    packages: Vec<String>,
}

impl Package {
    pub(super) fn read(listing: &Listing) -> Option<Package> {
        Package::read_at(listing, FILE)
    }

    /// That of a member of a workspace.
    pub(super) fn read_at(listing: &Listing, file: &str) -> Option<Package> {
        let value: serde_json::Value = serde_json::from_str(listing.text(file)?).ok()?;
        let text = |value: &serde_json::Value| value.as_str().map(str::to_string);
        let script = |name: &str| text(&value["scripts"][name]).filter(|it| !it.trim().is_empty());
        let lists = ["dependencies", "devDependencies"].into_iter();
        let packages = lists.filter_map(|list| value[list].as_object()).flatten();
        Some(Package {
            name: text(&value["name"]),
            start: script("start"),
            build: script("build"),
            version: text(&value["version"]),
            main: text(&value["main"]),
            packages: packages.map(|(name, _)| name.clone()).collect(),
        })
    }

    /// It names this package.
    pub(super) fn has(&self, package: &str) -> bool {
        self.packages.iter().any(|one| one == package)
    }

    /// npm has something to do.
    pub(super) fn needs_npm(&self) -> bool {
        !self.packages.is_empty() || self.build.is_some()
    }

    /// The directory that the build makes, if the server is below one of the usual names.
    pub(super) fn made(&self) -> Option<String> {
        let start = self.start.iter().flat_map(|line| line.split_whitespace());
        let mut files = start.chain(self.main.as_deref());
        let top = |file: &str| {
            let (top, _) = file.trim_start_matches("./").split_once('/')?;
            MADE.contains(&top).then(|| top.to_string())
        };
        files.find_map(top)
    }

    /// The start script, if it is no server for development.
    pub(super) fn server(&self) -> Option<&str> {
        let start = self.start.as_deref()?;
        let first = start.split("&&").last().unwrap_or(start).trim();
        let first = first.strip_prefix("npx ").unwrap_or(first);
        let develops = |tool: &&str| first.starts_with(*tool);
        (!DEVELOPMENT.iter().any(develops)).then_some(start)
    }
}

/// Why a directory with a `package.json` has no server; `None` if it has no such file.
pub(super) fn why_nothing(dir: &Path, problem: &Diagnostic) -> Option<Diagnostic> {
    let file = dir.join(FILE);
    let text = std::fs::read_to_string(&file).ok()?;
    let at = |line: usize| {
        let line = u32::try_from(line).unwrap_or(0);
        Location::new(file.display().to_string(), line)
    };
    let value: serde_json::Value = match serde_json::from_str(&text) {
        Ok(value) => value,
        Err(error) => {
            let problem =
                problem.clone().because(format!("package.json is not valid JSON: {error}"));
            return Some(problem.at(at(error.line())));
        }
    };
    let scripts = value["scripts"].as_object();
    let names: Vec<&str> = scripts.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    let there = if names.is_empty() { "no scripts".into() } else { names.join(", ") };
    let line = (1..).zip(text.lines()).find(|(_, line)| line.contains("\"scripts\""));
    let problem = problem
        .clone()
        .because(format!(
            "package.json has no script `start` (it has {there}), and there is no server.js"
        ))
        .at(at(line.map_or(0, |(number, _)| number)))
        .help(
            "add `\"start\": \"node FILE.js\"` to its scripts, whose server listens on \
             process.env.PORT; or write a Procfile with the line `web: COMMAND`",
        );
    Some(problem)
}

/// The line of a `package.json` that has a script.
pub(super) fn script_line(listing: &Listing, file: &str, name: &str) -> usize {
    let text = listing.text(file).unwrap_or_default();
    let key = format!("\"{name}\"");
    (1..).zip(text.lines()).find(|(_, line)| line.trim().starts_with(&key)).map_or(0, |one| one.0)
}

pub(super) fn find(listing: &Listing) -> Vec<Finding> {
    let package = Package::read(listing).unwrap_or_default();
    let (mut evidence, mut title) = (Vec::new(), "a Node server");
    let command = match (package.server(), frameworks::of(&package, listing), &package.main) {
        (Some(start), ..) => {
            let line = script_line(listing, FILE, "start");
            evidence.push(Evidence::new(FILE, line, format!("has start: {}", short(start))));
            // `npm start` puts a shell and npm between the server and its signals.
            match start.starts_with("node ") && !start.contains(['&', '|', ';', '$']) {
                true => start.to_string(),
                false => "npm --silent start".into(),
            }
        }
        (None, Some(server), _) => {
            let says = format!("names {}", server.package);
            evidence.push(Evidence::new(FILE, script_line(listing, FILE, server.package), says));
            title = server.title;
            server.command
        }
        (None, None, Some(main))
            if package.start.is_none() && listing.has(main) && serves(listing, main) =>
        {
            evidence.push(Evidence::new(
                FILE,
                script_line(listing, FILE, "main"),
                format!("has main: {main}"),
            ));
            format!("node {main}")
        }
        _ if package.start.is_none() && listing.has("server.js") => {
            evidence.push(Evidence::new("server.js", 0, "is what npm start runs"));
            "node server.js".into()
        }
        _ => return Vec::new(),
    };
    let mut finding = Finding::new("node", title, SERVER, Some(Web::Command(command)));
    finding.evidence = evidence;
    vec![finding]
}

/// Whether a module listens: a library has a `main`, too.
fn serves(listing: &Listing, main: &str) -> bool {
    listing.text(main).is_some_and(|text| text.contains(".listen("))
}

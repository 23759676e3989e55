//! What an existing directory is: which web app it has, what starts it, which packages it needs.
//!
//! Files are read and nothing is run or imported: a [`Listing`] goes in, [`Finding`]s with their
//! evidence come out. Each kind of app is one row of [`RULES`].

mod django;
mod frameworks;
mod listing;
mod members;
mod node;
mod packages;
mod procfile;
mod program;
mod python;
mod roots;
mod scripts;
mod sites;
mod variables;
pub mod versions;

pub use listing::Listing;
pub use members::Member;
use mfserv_core::{Diagnostic, Kind};
use packages::python_packages;
pub use packages::{PythonPackages, other_lists};
pub use variables::Variable;

/// How a Python app is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interface {
    /// PEP 3333.
    Wsgi,
    /// ASGI 3.
    Asgi,
}

/// What answers requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Web {
    /// A callable of a Python module.
    Python {
        /// How it is called.
        interface: Interface,
        /// Its module: `shop.main`.
        module: String,
        /// Its name in the module.
        callable: String,
        /// The callable makes the app.
        is_factory: bool,
        /// The directory that the module is imported from, below the app's: empty for it, `src`, or
        /// one that whoever starts it goes into (`backend`).
        root: String,
        /// It is a Django project: `manage.py` is there.
        is_django: bool,
    },
    /// A program that listens on the port that `PORT` says; a line for a shell.
    Command(String),
    /// Files.
    Files {
        /// Their directory, below the app's; empty for the app's own.
        dir: String,
        /// A path without a file is answered by `index.html`, whose script knows it.
        is_single_page: bool,
    },
}

/// The settings of a Django project that has several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Those of `manage.py`: what its author works with.
    pub developed: String,
    /// Those of its `wsgi.py` or `asgi.py`: what a server runs with.
    pub served: String,
}

/// A program beside the web app, or a job: a name and a line for a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Its name: letters, digits and `_`.
    pub name: String,
    /// The line.
    pub line: String,
    /// When it runs, if it is a job; the five fields of crontab(5).
    pub schedule: Option<String>,
}

/// What tells that a directory is what it is taken for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The file, below the directory.
    pub file: String,
    /// The line, from 1; 0 for the whole file.
    pub line: usize,
    /// What it says: a verb and its object.
    pub says: String,
}

impl Evidence {
    fn new(file: &str, line: usize, says: impl Into<String>) -> Self {
        Self { file: file.into(), line, says: says.into() }
    }
}

impl std::fmt::Display for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            0 => write!(f, "{} {}", self.file, self.says),
            line => write!(f, "{}:{line} {}", self.file, self.says),
        }
    }
}

/// One reading of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What `--as` takes for it: `procfile`, `django`, `node`, `static`, `program`,
    /// `MODULE:CALLABLE`, or the file of a Python program.
    pub choice: String,
    /// What it is, for people: `a Flask app`.
    pub title: String,
    /// Why.
    pub evidence: Vec<Evidence>,
    /// What answers requests, if anything does.
    pub web: Option<Web>,
    /// What runs beside it.
    pub programs: Vec<Program>,
    /// What runs once before a release serves; lines for a shell.
    pub release: Vec<String>,
    /// The settings that it has, if `manage.py` and its server have different ones.
    pub settings: Option<Settings>,
    /// Variables that it has unless somebody has set them.
    pub variables: Vec<Variable>,
    /// The list of its Python packages, if it is Python.
    pub python: Option<PythonPackages>,
    /// The interpreter that it asks for, if this machine has it: `python3.12`.
    pub interpreter: Option<String>,
    /// It has a `package.json` with packages or a build.
    pub has_node: bool,
    /// The `build` script of its `package.json`, if it has one.
    pub build: Option<String>,
    /// The member of a workspace that it is.
    pub member: Option<Member>,
    /// The directory that this script makes, if that is known.
    pub made: Option<String>,
    /// Files that outlive a release: databases.
    pub persistent: Vec<String>,
    /// Its version, if a file says one.
    pub version: Option<String>,
    /// Readings of a lower rank win over those of a higher one.
    rank: u8,
}

impl Finding {
    fn new(choice: &str, title: &str, rank: u8, web: Option<Web>) -> Self {
        Finding {
            choice: choice.into(),
            title: title.into(),
            evidence: Vec::new(),
            web,
            programs: Vec::new(),
            release: Vec::new(),
            settings: None,
            variables: Vec::new(),
            python: None,
            interpreter: None,
            has_node: false,
            build: None,
            member: None,
            made: None,
            persistent: Vec::new(),
            version: None,
            rank,
        }
    }

    /// The directory of the files that are served, if it is a site of files.
    pub fn served(&self) -> Option<&str> {
        match &self.web {
            Some(Web::Files { dir, .. }) => Some(dir),
            _ => None,
        }
    }

    /// What was found and why, in one sentence.
    pub fn sentence(&self) -> String {
        let why: Vec<String> = self.evidence.iter().map(Evidence::to_string).collect();
        format!("{}: {}", self.title, why.join("; "))
    }
}

/// What a file says that somebody wrote to say it.
const SAID: u8 = 0;
/// A server.
const SERVER: u8 = 1;
/// Files.
const FILES: u8 = 2;
/// A program that may be a server.
const PROGRAM: u8 = 3;

/// One kind of app.
struct Rule {
    /// What is looked for, for people whose directory has nothing of it.
    about: &'static str,
    /// The readings of this kind.
    find: fn(&Listing) -> Vec<Finding>,
}

/// The kinds of apps. Of several readings with the lowest rank, somebody has to choose.
const RULES: &[Rule] = &[
    Rule { about: "a Procfile", find: procfile::find },
    Rule { about: "manage.py of Django", find: django::find },
    Rule {
        about: "a Python file with an app (`app = Flask(…)`, `FastAPI(…)`, `def create_app`, …)",
        find: python::find,
    },
    Rule {
        about: "a Python program that starts a server (`server.py` with `bottle.run(…)`, …)",
        find: scripts::find,
    },
    Rule { about: "package.json with a start script", find: node::find },
    Rule { about: "a member of a workspace with a start script", find: members::find },
    Rule { about: "index.html, or a package.json that builds a site", find: sites::find },
    Rule { about: "one executable program (`server`, `run.sh`, …)", find: program::find },
];

/// All readings of a directory, the best first.
pub fn readings(listing: &Listing) -> Vec<Finding> {
    let mut found: Vec<Finding> = RULES.iter().flat_map(|rule| (rule.find)(listing)).collect();
    found.sort_by_key(|finding| finding.rank);
    for finding in &mut found {
        complete(finding, listing);
    }
    found
}

/// Adds what holds for every reading: packages, and what a Procfile has beside `web`.
fn complete(finding: &mut Finding, listing: &Listing) {
    let is_site = matches!(finding.web, Some(Web::Files { .. }));
    if !is_site {
        let root = match &finding.web {
            Some(Web::Python { root, .. }) => root.as_str(),
            _ => "",
        };
        finding.python = python_packages(listing, root);
        if let Some(list) = &finding.python {
            finding.evidence.extend(list.evidence.clone());
        }
    }
    let package = node::Package::read(listing);
    if let Some(package) = package {
        let member = finding.member.is_some();
        finding.has_node = member || package.needs_npm() && (!is_site || package.build.is_some());
        if let Some(member) = finding.member.as_mut().filter(|_| package.build.is_some()) {
            member.is_built = false;
        }
        let made = match &finding.web {
            Some(Web::Files { dir, .. }) => Some(dir.clone()).filter(|dir| !dir.is_empty()),
            _ => {
                let server = frameworks::of(&package, listing).map(|server| server.made);
                server.or_else(|| package.made()).or_else(|| sites::made(&package, listing))
            }
        };
        finding.build = package.build.or(finding.build.take()).filter(|_| finding.has_node);
        finding.made = made.filter(|_| finding.build.is_some());
        finding.version = finding.version.take().or(package.version);
    }
    finding.version = finding.version.take().or_else(|| packages::version(listing));
    finding.variables = variables::of(finding, listing);
    procfile::add_others(finding, listing);
}

/// The reading that is meant: the one that `--as` names, else the only one of the best rank.
/// Refused with the choices ([`Kind::Usage`]) if there are several, with what was looked for
/// if there is none.
pub fn choose(
    readings: &[Finding],
    asked: Option<&str>,
    dir: &std::path::Path,
) -> Result<Finding, Diagnostic> {
    let Some(first) = readings.first() else { return Err(nothing(dir)) };
    if let Some(asked) = asked {
        return readings.iter().find(|one| one.choice == asked).cloned().ok_or_else(|| {
            let problem = Diagnostic::error(format!("{} can't be run as {asked}", dir.display()));
            with_choices(problem, readings.iter())
        });
    }
    let best = best(readings);
    match best.len() {
        1 => Ok(first.clone()),
        _ => {
            let what = format!("{} can be run in several ways", dir.display());
            Err(with_choices(Diagnostic::error(what), best.iter().copied()))
        }
    }
}

/// The readings between which somebody has to choose.
pub fn best(readings: &[Finding]) -> Vec<&Finding> {
    let rank = readings.first().map(|one| one.rank);
    readings.iter().filter(|one| Some(one.rank) == rank).collect()
}

fn with_choices<'a>(
    problem: Diagnostic,
    readings: impl Iterator<Item = &'a Finding>,
) -> Diagnostic {
    let mut choices = Vec::new();
    let mut problem = problem.kind(Kind::Usage);
    for one in readings {
        problem = problem.because(format!("--as {}: {}", one.choice, one.sentence()));
        choices.push(format!("--as {}", one.choice));
    }
    problem.help(format!("say which: {}", choices.join(" or ")))
}

/// Projects that are not built here, by a file of theirs: what they are, and what serves them.
const OTHERS: &[(&str, &str, &str)] = &[
    (
        "go.mod",
        "programs of Go are not built here",
        "`go build -o server` makes a program that is found (it listens on PORT); or write a Procfile \
         with the line `web: COMMAND`",
    ),
    (
        "Cargo.toml",
        "programs of Rust are not built here",
        "`cargo build --release`, and a Procfile with the line `web: target/release/NAME`, or the program \
         itself in the directory; it listens on PORT",
    ),
    (
        "Gemfile",
        "apps of Ruby are started by the line that their author writes",
        "write a Procfile: `web: bundle exec puma -p $PORT` (Ruby and its gems are those of this machine)",
    ),
    (
        "composer.json",
        "apps of PHP are started by the line that their author writes",
        "write a Procfile: `web: php -S 127.0.0.1:$PORT -t public`; `mfserv new --template php NAME` is \
         for the php-fpm of this machine",
    ),
    (
        "pom.xml",
        "programs of Java are not built here",
        "build it, and write a Procfile: `web: java -Dserver.port=$PORT -jar target/NAME.jar`",
    ),
    (
        "build.gradle",
        "programs of Java are not built here",
        "build it, and write a Procfile: `web: java -Dserver.port=$PORT -jar build/libs/NAME.jar`",
    ),
    (
        "mix.exs",
        "programs of Elixir are not built here",
        "write a Procfile with the line that starts it: `web: mix phx.server`",
    ),
    (
        "deno.json",
        "programs of Deno are started by the line that their author writes",
        "write a Procfile: `web: deno run -A main.ts`, whose server listens on PORT",
    ),
    (
        "Dockerfile",
        "images are not built here",
        "write a Procfile with the line of its CMD: `web: COMMAND`, whose server listens on $PORT",
    ),
];

fn nothing(dir: &std::path::Path) -> Diagnostic {
    let looked_for: Vec<&str> = RULES.iter().map(|rule| rule.about).collect();
    let problem = Diagnostic::error(format!("nothing in {} can be served", dir.display()))
        .kind(Kind::BadConfiguration);
    if let Some(problem) = node::why_nothing(dir, &problem) {
        return problem;
    }
    let there = |(file, ..): &&(&str, &str, &str)| dir.join(file).is_file();
    if let Some((file, what, help)) = OTHERS.iter().find(there) {
        return problem.because(format!("{file} is there: {what}")).help(*help);
    }
    problem.because(format!("it is no plugin, and has none of: {}", looked_for.join("; "))).help(
        "write a Procfile with the line `web: COMMAND`, whose server listens on $PORT; or \
             `mfserv new NAME` makes a plugin from a template",
    )
}

#[cfg(test)]
mod tests;
